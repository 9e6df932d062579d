//! What a leaf keeps for its next run.

use core::net::SocketAddr;
use std::collections::VecDeque;

use crate::api::{Event, Save};
use crate::identity::PeerId;
use crate::overlay::output::Output;

/// Most supernodes saved for the next run.
pub(super) const ANCHORS_MAX: usize = 8;

/// Its homes, and others that it found to work, as last saved.
#[derive(Default)]
pub(super) struct Anchors(Vec<(PeerId, SocketAddr)>);

impl Anchors {
    /// Has them saved, if they are others than before.
    pub(super) fn keep(&mut self, anchors: Vec<(PeerId, SocketAddr)>, out: &mut VecDeque<Output>) {
        if anchors != self.0 {
            self.0.clone_from(&anchors);
            out.push_back(Output::Event(Event::Save(Save::Anchors(anchors))));
        }
    }
}
