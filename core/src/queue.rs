//! Queues of what a machine wants of others: filled within a call, emptied by the node before that call returns.

use std::collections::VecDeque;

/// Takes the next one. A queue that is found empty gives its room back, but for `kept` places: much may be wanted at
/// once, and that room is not needed every day. Zero is right unless it fills and empties with each packet.
pub(crate) fn pop<T>(queue: &mut VecDeque<T>, kept: usize) -> Option<T> {
    let next = queue.pop_front();
    if next.is_none() && queue.capacity() > kept {
        queue.shrink_to(kept);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order_and_then_the_room_is_given_back() {
        for kept in [0, 4] {
            let mut queue: VecDeque<u64> = (0..1_000).collect();
            let all: Vec<u64> = core::iter::from_fn(|| pop(&mut queue, kept)).collect();
            assert!(all.iter().copied().eq(0..1_000));
            assert!(queue.capacity() <= kept, "{}", queue.capacity());
        }
    }
}
