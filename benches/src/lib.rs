//! handfast-benches
