//! handfast-tests
