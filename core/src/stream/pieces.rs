//! How many pieces of one stream QUIC holds for the application, at most.
//!
//! QUIC's windows bound the bytes that a peer can have us hold, not what each piece of them costs beside: a hundred
//! bytes or so, be it a single byte with gaps around it. So pieces are counted as they come and as they are read. The
//! count may be too high, where pieces came twice or were put together, until all that came has been read; never too
//! low by more than came before the handshake was over.

/// No fewer pieces than QUIC holds of one stream, and where reading has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pieces {
    /// How many.
    count: u32,
    /// Where the last one ends.
    end: u64,
    /// Up to where it was read.
    read: u64,
}

impl Pieces {
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// A piece came that ends here.
    pub(super) fn on_piece(&mut self, end: u64) {
        if end > self.read {
            self.count = self.count.saturating_add(1);
            self.end = self.end.max(end);
        }
    }

    /// So many bytes were read, and so many pieces with their last byte.
    pub(super) fn on_read(&mut self, bytes: usize, pieces: u32) {
        self.read += bytes as u64;
        self.count = if self.read >= self.end { 0 } else { self.count.saturating_sub(pieces) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_and_go() {
        let mut pieces = Pieces::default();
        for end in [10, 20, 40, 40] {
            pieces.on_piece(end);
        }
        assert_eq!(pieces.count(), 4);
        pieces.on_read(20, 2);
        assert_eq!(pieces.count(), 2);
        // What has been read already is not held again.
        pieces.on_piece(20);
        assert_eq!(pieces.count(), 2);
        // All was read, whatever was counted.
        pieces.on_read(20, 0);
        assert_eq!(pieces.count(), 0);
    }
}
