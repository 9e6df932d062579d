//! Words that one link waits to send, and the Call that is repeated while it is not answered.

use core::time::Duration;
use std::collections::VecDeque;

use super::packet::Word;
use crate::time::Instant;

/// How soon a call of the server is repeated for the first time; each further time it takes twice as long.
const CALL_AGAIN: Duration = Duration::from_millis(400);
/// And at most so long.
pub(super) const CALL_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Most words that wait to be sent; further ones are dropped, since all are repeated where they matter.
pub(super) const WORDS_MAX: usize = 8;

/// The words of one link that wait to be sent, and when its Call is repeated.
#[derive(Debug, Default)]
pub(super) struct Words {
    queue: VecDeque<Word>,
    call_at: Option<Instant>,
    calls: u32,
}

impl Words {
    pub(super) fn say(&mut self, word: Word) {
        if self.queue.len() < WORDS_MAX && !self.queue.contains(&word) {
            self.queue.push_back(word);
        }
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Word> {
        self.queue.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the peer is to be called.
    pub(super) fn set_call(&mut self, now: Instant, wanted: bool) {
        if !wanted {
            self.call_at = None;
            self.calls = 0;
        } else if self.call_at.is_none() {
            self.say(Word::Call);
            let wait = CALL_AGAIN.saturating_mul(1 << self.calls.min(8)).min(CALL_AGAIN_MAX);
            self.call_at = Some(now + wait);
            self.calls += 1;
        }
    }

    /// A call that is due is made with the next [`Words::set_call`].
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.call_at.is_some_and(|at| at <= now) {
            self.call_at = None;
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.call_at
    }
}
