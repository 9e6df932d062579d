//! Whom a supernode finds back by when it is started again.

use core::net::SocketAddr;

use super::{ANCHORS_MAX, Gossip, Stores};
use crate::api::{Event, Save};
use crate::identity::PeerId;
use crate::overlay::output::Output;
use crate::wire::address::Prefix;

impl Gossip {
    /// Keeps some of the neighbours for the next run: a restarted supernode finds back by itself. They are drawn, from
    /// as many prefixes as there are, and stay as long as they are linked.
    pub(super) fn save_anchors(&mut self, s: &mut Stores<'_>) {
        let members = &*s.members;
        let address = |peer: &PeerId| Some((*peer, members.address(peer)?));
        let mut linked: Vec<(PeerId, SocketAddr)> = self.linked().filter_map(address).collect();
        let mut anchors = self.anchors.clone();
        anchors.retain(|anchor| linked.contains(anchor));
        linked.retain(|peer| !anchors.contains(peer));
        let is_near = |anchors: &[(PeerId, SocketAddr)], at: SocketAddr| {
            anchors.iter().any(|(_, other)| Prefix::of(other.ip()) == Prefix::of(at.ip()))
        };
        while anchors.len() < ANCHORS_MAX && !linked.is_empty() {
            let far = linked.iter().filter(|(_, at)| !is_near(&anchors, *at)).count();
            let nth = s.random.peer_choice.below(if far > 0 { far } else { linked.len() });
            let fits = |(_, (_, at)): &(usize, &(PeerId, SocketAddr))| far == 0 || !is_near(&anchors, *at);
            let Some((place, _)) = linked.iter().enumerate().filter(fits).nth(nth) else { break };
            anchors.push(linked.swap_remove(place));
        }
        if !anchors.is_empty() && anchors != self.anchors {
            self.anchors.clone_from(&anchors);
            s.out.push_back(Output::Event(Event::Save(Save::Anchors(anchors))));
        }
    }
}
