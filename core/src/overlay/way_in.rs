//! Whether packets that nobody asked for come in: dial-backs, and those who could be witnesses of it.
//!
//! A supernode that was sent something could come in through any router, so what leaves is noted, and the few that
//! nothing was sent to are spared. That is why it is decided here whom the router's examination may have dialled.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use super::output::{Output, When};
use super::serving::Situation;
use super::state::{Acting, Overlay};
use crate::identity::PeerId;
use crate::net::{Family, Network};
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::gossip::LISTING_LEAF_MAX;
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::message::{CONTACTED_MAX, Refusal};

/// A node that may serve dials supernodes for an examination only if that leaves so many to be its witnesses.
const WITNESSES_LEFT: usize = 4;

/// A port of the router's that leads to the main socket.
fn mapped_port(network: &Network) -> Option<u16> {
    let (socket, _) = network.main_socket(Family::V4)?;
    Some(network.mapped_address(socket)?.port()).filter(|port| *port != 0)
}

impl Overlay {
    // ---- what is known ----

    /// Whether unasked packets arrive, as far as is known.
    pub(crate) fn reachable(&self) -> Option<bool> {
        self.dial_back.reachable()
    }

    /// Whether a packet came in to where we are seen, not to a mapped port, from somebody whom nothing was sent to.
    pub(crate) fn is_open(&self) -> bool {
        self.dial_back.reachable() == Some(true) && self.dial_back.port().is_none()
    }

    /// Whether dial-backs are being asked for.
    pub(crate) fn is_asking(&self) -> bool {
        self.dial_back.is_trying()
    }

    /// Whether this peer, at this address, was sent nothing that could have opened a router for it.
    pub(crate) fn is_unasked(&self, now: Instant, id: &PeerId, ip: IpAddr) -> bool {
        self.dial_back.is_fresh(now, id, core::iter::once(ip))
    }

    // ---- what happens ----

    /// Something leaves for this address: nobody there can be a witness for a while.
    pub(crate) fn on_sent(&mut self, now: Instant, to: SocketAddr) {
        if !self.is_serving() {
            self.dial_back.on_sent(now, to.ip());
        }
    }

    /// A link came in from an address that we never sent anything to.
    pub(crate) fn on_unasked_link(&mut self, now: Instant) {
        self.dial_back.on_unasked_link(now);
    }

    /// An Init came with the nonce of a dial-back, and has not been answered.
    pub(crate) fn on_dialled_back(
        &mut self,
        now: Instant,
        id: &PeerId,
        remote: SocketAddr,
        nonce: [u8; 8],
        situation: &Situation<'_>,
    ) {
        if !self.dial_back.awaits(nonce) {
            // Any stranger can send one: it is not worth a look at all supernodes.
            return;
        }
        self.count_fresh(now);
        self.dial_back.on_dial_back(now, id, remote, nonce, &mut self.random, &mut self.out);
        self.consider_serving(now, situation);
    }

    pub(super) fn on_dial_back_reply(&mut self, now: Instant, from: &PeerId, nonce: [u8; 8], refused: Option<Refusal>) {
        if !self.dial_back.awaits(nonce) {
            return;
        }
        self.count_fresh(now);
        self.dial_back.on_reply(now, from, nonce, refused, &mut self.random, &mut self.out);
    }

    /// A supernode sees where our packets come from.
    pub(super) fn on_shown(&mut self, now: Instant, id: PeerId) {
        if self.dial_back.is_open() {
            self.count_fresh(now);
        }
        self.dial_back.on_link_up(now, id, &mut self.random, &mut self.out);
        self.out.push_back(Output::Seen);
    }

    /// On another network nothing holds that was found before.
    pub(super) fn begin_dial_backs(&mut self, now: Instant) {
        self.count_fresh(now);
        self.dial_back.reset(now, &mut self.random, &mut self.out);
    }

    /// A router maps other ports than before. Whether the address that is advertised still holds has been
    /// [checked](Self::check_address).
    pub(crate) fn on_mappings(&mut self, now: Instant, network: &Network) {
        if self.dial_back.port().is_some() || self.dial_back.reachable() == Some(false) {
            self.dial_back.set_port(now, mapped_port(network), &mut self.random, &mut self.out);
        }
    }

    pub(super) fn on_dial_backs_due(&mut self, now: Instant, situation: &Situation<'_>) {
        if self.dial_back.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.count_fresh(now);
        let before = self.dial_back.reachable();
        self.dial_back.handle_timeout(now, &mut self.random, &mut self.out);
        if self.dial_back.reachable() == Some(false) && before != Some(false) {
            // The way in may be another port, which the router maps.
            let mapped = mapped_port(situation.network);
            if self.dial_back.port().is_none() && mapped.is_some() {
                self.dial_back.set_port(now, mapped, &mut self.random, &mut self.out);
            }
        }
        self.consider_serving(now, situation);
    }

    /// The time has come when this node may serve again.
    pub(super) fn on_role_due(&mut self, now: Instant, situation: &Situation<'_>) {
        if self.role.handle_timeout(now) {
            // What dial-backs confirmed before may be so again.
            self.out.push_back(Output::Examine(When::Now));
            self.is_pressing = true;
            self.consider_serving(now, situation);
        }
    }

    // ---- witnesses ----

    /// How many known supernodes could be witnesses: of different prefixes, and sent nothing.
    pub(super) fn count_fresh(&mut self, now: Instant) {
        let Self { members, dial_back, acting, .. } = self;
        let (mut prefixes, mut fresh, mut stale) = (BTreeSet::new(), 0, Vec::new());
        for ((id, advert), (_, at)) in members.iter().zip(members.addresses()) {
            let ips = advert.addresses.iter().map(|a| SocketAddr::from(*a).ip());
            if !dial_back.is_fresh(now, id, ips) {
                stale.push(id_prefix(id));
            } else if Prefix::is_exempt(at.ip()) || prefixes.insert(Prefix::of(at.ip())) {
                fresh += 1;
            }
        }
        // A leaf is told of so many at a time; as long as it knows fewer, it knows them all.
        let are_all = match acting {
            Acting::Leaf(homes) => {
                // Those that were named, and have not said yet who they are.
                let named = homes.known().filter(|(id, ..)| members.get(id).is_none());
                let is_fresh = |id: &PeerId, at: SocketAddr| dial_back.is_fresh(now, id, core::iter::once(at.ip()));
                stale.extend(named.filter(|(id, at, _)| !is_fresh(id, *at)).map(|(id, ..)| id_prefix(&id)));
                homes.had_listing() && members.len() < LISTING_LEAF_MAX
            }
            Acting::Supernode(_) => true,
        };
        stale.truncate(CONTACTED_MAX);
        dial_back.set_fresh(now, fresh, are_all, stale);
    }

    // ---- helpers ----

    /// Whom the router's examination may ask: those linked, and those that were dialled for it.
    pub(crate) fn askable(&self) -> Vec<PeerId> {
        let mut all = self.linked();
        if !self.is_serving() {
            all.extend(&self.helpers);
        }
        all
    }

    /// Whether supernodes are linked, or being dialled, for an examination alone.
    pub(crate) fn has_helpers(&self) -> bool {
        !self.helpers.is_empty()
    }

    /// Dials so many more supernodes, at none of these addresses, for an examination alone; those `linked` need not be.
    /// Says whether there are any.
    #[must_use]
    pub(crate) fn call_helpers(
        &mut self,
        now: Instant,
        missing: usize,
        except: &[IpAddr],
        linked: &BTreeSet<PeerId>,
    ) -> bool {
        let (mut unlinked, mut left) = (Vec::new(), 0);
        for (id, address) in self.members.addresses().filter(|(_, address)| address.is_ipv4()) {
            if !linked.contains(id) && !except.contains(&address.ip()) {
                unlinked.push((*id, address));
            }
            left += usize::from(self.dial_back.is_fresh(now, id, core::iter::once(address.ip())));
        }
        let wants_witnesses = self.terms.is_auto() && self.dial_back.reachable() != Some(false);
        if wants_witnesses && left < WITNESSES_LEFT {
            return false;
        }
        for _ in 0..if wants_witnesses { 1 } else { missing } {
            if unlinked.is_empty() {
                break;
            }
            let (peer, address) = unlinked.swap_remove(self.random.peer_choice.below(unlinked.len()));
            self.helpers.push(peer);
            self.out.push_back(Output::Dial { peer, address });
        }
        self.has_helpers()
    }

    /// The examination is over.
    pub(crate) fn release_helpers(&mut self) {
        let released = core::mem::take(&mut self.helpers).into_iter();
        self.out.extend(released.map(|peer| Output::Release { peer }));
    }
}
