//! handfast-tests

pub mod netns;
