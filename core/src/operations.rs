//! Bytes as operations: what drives a machine of this crate alone, for fuzz targets and for tests.
//!
//! Each machine's room has a file `operations.rs` with one function `drive(bytes)`: it makes the machine with nothing
//! around it, reads operations from the bytes, in order, and asserts after each what must always hold. The fuzzer finds
//! bytes; a unit test beside it takes pseudo-random ones, so that plain `cargo test` drives the machine too.

/// Bytes, read from the front; zeros when there are no more.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of these.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether none are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two, little-endian.
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// The next so many, or as many as there are.
    #[allow(dead_code)] // Not every build has a machine that takes bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Calls `drive` with many pseudo-random inputs of up to `len_max` bytes.
#[cfg(test)]
pub(crate) fn drive_at_random(runs: u32, len_max: usize, drive: impl Fn(&[u8])) {
    let mut chance = crate::random::ChoiceRng::new([42; 32]);
    for _ in 0..runs {
        let len = chance.below(len_max + 1);
        let bytes: Vec<u8> = (0..len).map(|_| chance.bytes::<1>()[0]).collect();
        drive(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_order_and_then_zeros() {
        let mut bytes = Bytes::new(&[1, 2, 3, 4, 5]);
        assert_eq!((bytes.u8(), bytes.u16(), bytes.take(9)), (1, 0x0302, &[4, 5][..]));
        assert!(bytes.is_empty());
        assert_eq!((bytes.u8(), bytes.u16()), (0, 0));
        drive_at_random(10, 4, |bytes| assert!(bytes.len() <= 4));
    }
}
