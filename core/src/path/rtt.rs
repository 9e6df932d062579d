//! Round trip times, smoothed.

/// An exponentially weighted mean, of which a new sample is one part of `parts`.
#[expect(clippy::cast_possible_truncation, reason = "a mean of two numbers is between them")]
pub(super) const fn smoothed(old: u32, sample: u32, parts: u64) -> u32 {
    ((old as u64 * (parts - 1) + sample as u64) / parts) as u32
}
