//! What a leaf may send to where a supernode is said to be is little, so that it cannot be aimed at anybody; and who has
//! called in vain while that supernode was away has used it up. Then its own home is asked, which passes an advert on
//! only if it has been there: that is as good as an answer, once.

use core::net::IpAddr;
use core::time::Duration;

use super::advert::statement::subject;
use super::output::Output;
use super::pack::send;
use super::state::{Acting, Overlay};
use crate::identity::PeerId;
use crate::time::Instant;
use crate::wire::message::Message;

/// A supernode is not asked about again before this.
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Overlay {
    /// The account of hearsay lets nothing go to where this supernode is said to be: has a home of ours been there?
    pub(crate) fn inquire(&mut self, now: Instant, supernode: PeerId, ip: IpAddr) {
        let Acting::Leaf(homes) = &self.acting else { return };
        self.inquiries.forget_while(|at| now.since(at) >= ASK_AGAIN);
        if self.inquiries.get(&supernode).is_some() {
            return;
        }
        if let Some((home, _)) = homes.registered().find(|(home, _)| *home != supernode) {
            self.inquiries.insert(now, supernode, Some(ip));
            send(&mut self.out, home, &Message::Lookup { peer: supernode });
        }
    }

    /// An advert came. If it is from a home of ours, which was asked for it, the address in it that it has been at is
    /// attested.
    pub(super) fn on_inquired(&mut self, now: Instant, (from, over): (PeerId, Option<IpAddr>), bytes: &[u8]) {
        let asked = |id: &PeerId| self.inquiries.get(id).and_then(|(_, ip)| *ip);
        let Some((id, ip)) = subject(bytes).and_then(|id| Some((id, asked(&id)?))) else { return };
        let Acting::Leaf(homes) = &self.acting else { return };
        if from == id || homes.registered().all(|(home, _)| home != from) {
            return;
        }
        let at = self.good_advert(now, bytes).and_then(|advert| advert.way(over));
        if at.is_some_and(|at| at.ip() == ip) {
            self.inquiries.insert(now, id, None);
            self.out.push_back(Output::Attested { ip });
        }
    }
}
