//! Messages into Data packets: as many as fit, in order.

use core::net::SocketAddr;
use std::collections::VecDeque;

use crate::identity::PeerId;
use crate::overlay::output::Output;
use crate::wire::message::{Message, encode, is_last};

/// Longest plaintext of one Data packet from these rooms; leaves room for seal, relay header and a beat's worth of
/// slack below [`DATAGRAM_LEN_MAX`](crate::wire::DATAGRAM_LEN_MAX).
pub(crate) const PLAINTEXT_MAX: usize = 1100;
/// Most signed statements in one Data packet.
const SIGNED_MAX: usize = 7;

/// Collects messages for one peer and hands them over as [`Output::Send`]s or [`Output::SendAt`]s.
pub(crate) struct Packer<'a> {
    to: PeerId,
    address: Option<SocketAddr>,
    buffer: Vec<u8>,
    signed: usize,
    out: &'a mut VecDeque<Output>,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(to: PeerId, out: &'a mut VecDeque<Output>) -> Self {
        Self { to, address: None, buffer: Vec::new(), signed: 0, out }
    }

    /// For a supernode to which a link is opened if there is none.
    pub(crate) fn dialling(to: PeerId, address: SocketAddr, out: &'a mut VecDeque<Output>) -> Self {
        let mut packer = Self::new(to, out);
        packer.address = Some(address);
        packer
    }

    /// Adds a message. All of ours fit into one packet, so one that does not is left out.
    pub(crate) fn push(&mut self, message: &Message<'_>) {
        let mut bytes = [0; PLAINTEXT_MAX];
        let Some(encoded) = encode(message, &mut bytes).and_then(|len| bytes.get(..len)) else {
            debug_assert!(false, "a message longer than a packet");
            return;
        };
        let is_signed = matches!(message, Message::Signed { .. });
        // What an earlier release does not know stands by itself here: nothing may be joined to it further on.
        if is_last(encoded) {
            self.flush();
        }
        if self.buffer.len() + encoded.len() > PLAINTEXT_MAX || (is_signed && self.signed == SIGNED_MAX) {
            self.flush();
        }
        self.signed += usize::from(is_signed);
        self.buffer.extend_from_slice(encoded);
        if is_last(encoded) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.signed = 0;
        if !self.buffer.is_empty() {
            let messages = core::mem::take(&mut self.buffer).into();
            self.out.push_back(match self.address {
                None => Output::Send { to: self.to, messages },
                Some(address) => Output::SendAt { to: self.to, address, messages },
            });
        }
    }
}

impl Drop for Packer<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Sends one message.
pub(crate) fn send(out: &mut VecDeque<Output>, to: PeerId, message: &Message<'_>) {
    Packer::new(to, out).push(message);
}
