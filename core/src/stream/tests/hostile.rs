//! A peer that does not play by the rules.
