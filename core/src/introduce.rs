//! introduce
