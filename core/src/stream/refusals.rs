//! Peers that nothing is open to: no QUIC for them, only a word for each time that they ask.
//!
//! Who opens a connection, or calls for one, gets Refused. It knows then, and its streams end. Who asks again for the
//! same connection has not got that word or does not know it (it is younger than the others): it gets Gone, which every
//! version knows. A word is never longer than what it answers, and leaves at most every [`REFUSE_EVERY`]; words are
//! never answered with a refusal, so that two nodes cannot keep each other busy.

use core::time::Duration;
use std::collections::BTreeMap;

use super::connection::Epoch;
use super::crypto::Mark;
use super::packet::{Inner, Word, is_short};
use crate::net::PeerKey;
use crate::time::Instant;

/// How often a refused peer gets a word at most: sooner than QUIC repeats its first flight.
const REFUSE_EVERY: Duration = Duration::from_millis(200);

/// What is kept of a refused peer.
#[derive(Debug)]
struct Refusal {
    /// To be sent.
    word: Option<Word>,
    /// When there was one last.
    at: Instant,
    /// Which connection was refused last.
    refused: Option<Mark>,
}

/// Peers that were refused, and the word that each gets next. As many as there are links.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<PeerKey, Refusal>);

impl Refusals {
    /// A refused peer sent this as the plaintext of a Stream packet: whether it is to get a word.
    pub(super) fn on_packet(&mut self, now: Instant, key: PeerKey, plain: &[u8]) -> bool {
        let last = self.0.get(&key);
        if last.is_some_and(|last| now.since(last.at) < REFUSE_EVERY) {
            return false;
        }
        let refused = last.and_then(|last| last.refused);
        let Some(word) = answer(plain, refused) else { return false };
        debug_assert!(word.len() <= plain.len(), "{word:?} to {} bytes", plain.len());
        let refused = if let Word::Refused(Some(mark)) = word { Some(mark) } else { refused };
        self.0.insert(key, Refusal { word: Some(word), at: now, refused });
        true
    }

    /// The word that is to be sent.
    pub(super) fn take(&mut self, key: PeerKey) -> Option<Word> {
        self.0.get_mut(&key)?.word.take()
    }

    #[cfg(any(test, feature = "operations"))]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The link is gone, or the peer is let in now.
    pub(super) fn forget(&mut self, key: PeerKey) {
        self.0.remove(&key);
    }
}

/// What a packet is answered with, where this connection was refused last.
fn answer(plain: &[u8], refused: Option<Mark>) -> Option<Word> {
    match Inner::decode(plain)? {
        Inner::Word(Word::Call) => Some(Word::Refused(None)),
        Inner::Word(Word::Rest(mark)) => Some(Word::Gone(mark)),
        Inner::Word(Word::Gone(_) | Word::Keep(_) | Word::Refused(_)) => None,
        Inner::Quic(packet) if is_short(packet) => Mark::of_packet(packet).map(Word::Gone),
        // What is not an Initial will come again behind one.
        Inner::Quic(packet) | Inner::Cut(packet) => {
            let mark = Epoch::of_initial(packet)?.mark();
            Some(if refused == Some(mark) { Word::Gone(mark) } else { Word::Refused(Some(mark)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PeerKey = PeerKey { index: 1, generation: 1 };

    /// The beginning of an Initial of the connection with this epoch, cut or not.
    fn initial(epoch: u64, cut: bool) -> Vec<u8> {
        let mut packet = vec![if cut { 0x80 } else { 0xc0 }, 0x68, 0x66, 0, 1, 8];
        packet.extend(epoch.to_be_bytes());
        packet.extend([0; 20]);
        packet
    }

    fn mark(n: u8) -> Mark {
        Mark([0, 0, 0, n])
    }

    #[test]
    fn each_packet_and_its_answer() {
        let short = [0x40, 9, 0, 0, 0, 7, 1, 1];
        for (plain, answer) in [
            (vec![0], Some(Word::Refused(None))),
            (vec![1, 0, 0, 0, 7], None),
            (vec![2, 0, 0, 0, 7], Some(Word::Gone(mark(7)))),
            (vec![3, 0, 0, 0, 7], None),
            (vec![4], None),
            (vec![4, 0, 0, 0, 7], None),
            (vec![9; 20], None),
            (vec![], None),
            (short.to_vec(), Some(Word::Gone(mark(7)))),
            (initial(7, false), Some(Word::Refused(Some(mark(7))))),
            (initial(7, true), Some(Word::Refused(Some(mark(7))))),
            (vec![0xe0; 30], None),
            (vec![0xc0; 30], None),
        ] {
            let mut refusals = Refusals::default();
            assert_eq!(refusals.on_packet(Instant::ZERO, KEY, &plain), answer.is_some(), "{plain:?}");
            assert_eq!(refusals.take(KEY), answer, "{plain:?}");
            assert_eq!(refusals.take(KEY), None);
        }
    }

    #[test]
    fn who_does_not_know_the_word_gets_an_older_one_and_not_often() {
        let mut refusals = Refusals::default();
        let mut now = Instant::ZERO;
        let mut ask = |now, epoch| {
            refusals.on_packet(now, KEY, &initial(epoch, false));
            refusals.take(KEY)
        };
        assert_eq!(ask(now, 7), Some(Word::Refused(Some(mark(7)))));
        assert_eq!(ask(now + REFUSE_EVERY / 2, 8), None, "too soon");
        now += REFUSE_EVERY;
        assert_eq!(ask(now, 7), Some(Word::Gone(mark(7))));
        now += REFUSE_EVERY;
        assert_eq!(ask(now, 8), Some(Word::Refused(Some(mark(8)))), "another connection");
    }
}
