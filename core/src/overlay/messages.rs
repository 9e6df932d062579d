//! Messages for this room, by kind: each goes to the part that it is for.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::output::{Location, Output};
use super::state::{Acting, Overlay};
use crate::account::Source;
use crate::identity::PeerId;
use crate::introduce::LookupFailure;
use crate::overlay::advert::{Advert, Capabilities, MembershipTable, statement};
use crate::overlay::directory::{HOLDERS_MAX, LEAF_ASKED_MAX, LookupStart, Record, Whom};
use crate::overlay::gossip::Stores;
use crate::overlay::home::Carried;
use crate::overlay::pack::{PLAINTEXT_MAX, Packer, send};
use crate::overlay::role::OrderTo;
use crate::time::{Instant, WallTime};
use crate::wire::address::{Address, Range};
use crate::wire::dialect::Dialect;
use crate::wire::message::{self, Load, LoadHint, Message, NEAREST_MAX, Refusal, SignedKind};
use crate::wire::places::Places;

/// What the node knows of a message, and of the link that it came on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct About {
    /// Where it came from, if straight and by UDP.
    pub remote: Option<SocketAddr>,
    /// From which IP address, if straight and by a way that is proven.
    pub ip: Option<IpAddr>,
    /// The way that it came is proven to be the peer's.
    pub is_proven: bool,
    /// The round trip on that way, if it was measured.
    pub rtt: Option<Duration>,
    /// It orders a dial-back to a peer that there is a link to.
    pub is_linked: bool,
    /// It is the advert of a peer that this node calls: see [`advertiser`].
    pub is_called: bool,
    /// What both sides of the link speak.
    pub dialect: Dialect,
    /// What this node does for others.
    pub carried: Carried,
}

#[cfg(any(test, feature = "operations"))]
impl Default for About {
    fn default() -> Self {
        Self {
            remote: None,
            ip: None,
            is_proven: false,
            rtt: None,
            is_linked: false,
            is_called: false,
            dialect: Dialect::OWN,
            carried: Carried::default(),
        }
    }
}

/// Whose advert a message is, as it claims.
pub(crate) fn advertiser(message: &Message<'_>) -> Option<PeerId> {
    match message {
        Message::Signed { kind: SignedKind::Advert, bytes } => statement::subject(bytes),
        _ => None,
    }
}

/// Those other than this node that keep the record of `peer`.
pub(super) fn holders(members: &MembershipTable, me: PeerId, peer: &PeerId) -> Vec<(PeerId, SocketAddr)> {
    let mut holders = members.holders(peer, HOLDERS_MAX);
    holders.retain(|(holder, _)| *holder != me);
    holders
}

/// A leaf whose homes have no record of a peer asks others, too, when it looks for it again within this.
const DENIED_FOR: Duration = Duration::from_secs(60);
/// A question that comes again within this asks for something newer.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);

fn encoded(message: &Message<'_>) -> Option<Box<[u8]>> {
    let mut buf = [0; PLAINTEXT_MAX];
    let len = message::encode(message, &mut buf)?;
    Some(buf.get(..len)?.into())
}

impl Overlay {
    /// A message came over the link to `from`. Gives the answer that goes back at once, if there is one.
    #[must_use]
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        from: PeerId,
        message: Message<'_>,
        about: &About,
    ) -> Option<Box<[u8]>> {
        match message {
            Message::Lookup { peer } => self.on_lookup(now, (from, about.ip), peer),
            Message::LookupReply { peer, record } => {
                let wall = self.wall_time(now);
                self.lookups.on_reply(now, &from, wall, peer, record, &mut self.out);
                if let Some(bytes) = record {
                    self.on_record_found(now, from, peer, bytes);
                }
            }
            Message::Register { other_home, record } => {
                self.on_register(now, (from, about.ip), other_home, record, about.carried);
            }
            Message::RegisterReply { refused, load } => self.on_register_reply(now, from, refused, load),
            Message::Deregister => {
                if let Some((s, mut stores)) = self.supernode(now) {
                    s.registrations.on_deregister(now, &from, &mut stores);
                }
            }
            Message::HomeDown { home } => {
                if let Some((homes, mut m)) = self.leaf(now) {
                    homes.on_silent(now, home, Some(from), &mut m);
                }
            }
            Message::AdvertsRequest => {
                // The answer is long: only over a path that is proven.
                if about.is_proven
                    && let Some((s, mut stores)) = self.supernode(now)
                {
                    s.gossip.on_adverts_request(now, (from, about.ip), &mut stores);
                }
            }
            Message::Signed { kind, bytes } => self.on_signed(now, (from, about.ip), kind, bytes, about.is_called),
            Message::Digest { kind, pull, entries } => {
                if let Some((s, mut stores)) = self.supernode(now) {
                    s.gossip.on_digest(now, from, kind, pull, &entries, &mut stores);
                }
            }
            Message::Hints(hints) => self.on_hints(now, from, &hints),
            Message::LoadRequest => {
                if about.dialect.has(Dialect::HOMES) {
                    self.tell_room(from);
                }
                return encoded(&self.load_reply(now, about.carried));
            }
            Message::LoadReply { load, time_s } => self.on_load_reply(now, from, load, time_s, about),
            Message::DialBackRequest { nonce, contacted, port } => {
                if let Some(remote) = about.remote.filter(|_| about.is_proven) {
                    self.on_dial_back_request(now, from, remote, nonce, &contacted, port);
                }
            }
            Message::DialBackOrder { peer, address, nonce } => {
                let Self { acting, out, members, .. } = self;
                if let Acting::Supernode(s) = acting
                    && Range::is_heard_right(SocketAddr::from(address).ip(), about.ip)
                {
                    let has_link = about.is_linked;
                    s.dial_backs.on_order(now, &from, peer, address.into(), nonce, has_link, members, out);
                }
            }
            Message::Places(_) | Message::Rooms(_) | Message::Partners(_) | Message::Elsewhere { .. } => {
                self.on_word_of_room(now, (from, about.ip), message);
            }
            Message::Neighbour(_)
            | Message::PingFor { .. }
            | Message::Alive { .. }
            | Message::Seek { .. }
            | Message::Nearest { .. }
            | Message::Renew(_)
            | Message::Wanted(_) => self.on_word_of_views(now, from, message, about),
            Message::Trial { init } => self.on_trial(now, (from, about.ip), init),
            Message::TrialReply { refused } => self.on_trial_reply(now, &from, refused),
            Message::DialBackReply { nonce, refused } => self.on_dial_back_reply(now, &from, nonce, refused),
            // It was an early message, and taken as such.
            Message::DialBack { .. } => {}

            Message::Confirm
            | Message::Challenge { .. }
            | Message::ChallengeReply { .. }
            | Message::Candidates(_)
            | Message::Close
            | Message::Introduce { .. }
            | Message::Introduced { .. }
            | Message::IntroducedReply { .. }
            | Message::IntroduceReply { .. }
            | Message::ChannelClosed { .. }
            | Message::Upgrade(_)
            | Message::Datagram(_)
            | Message::Probe { .. }
            | Message::ProbeReply { .. }
            | Message::Punch(_)
            | Message::Vouch { .. }
            | Message::Vouched { .. }
            | Message::ChannelLimited { .. }
            | Message::RelayOffer { .. }
            | Message::RelayPick { .. }
            | Message::RelayJoin { .. }
            | Message::RelayJoined { .. }
            | Message::Volunteer { .. }
            | Message::VolunteerReply { .. }
            | Message::VolunteersRequest
            | Message::Volunteers { .. } => debug_assert!(false, "for another room"),
        }
        None
    }

    /// How much room supernodes have, and where a leaf had best be at home.
    fn on_word_of_room(&mut self, now: Instant, (from, ip): (PeerId, Option<IpAddr>), message: Message<'_>) {
        match message {
            Message::Places(places) => self.on_places(now, from, places),
            Message::Rooms(rooms) => {
                if let Some((homes, mut m)) = self.leaf(now) {
                    homes.on_rooms(now, &from, &rooms, &mut m);
                }
            }
            Message::Partners(partners) => {
                if let Some((homes, mut m)) = self.leaf(now) {
                    homes.on_partners(now, (from, ip), &partners, &mut m);
                }
            }
            Message::Elsewhere { retry_after_s, supernodes } => {
                if let Some((homes, mut m)) = self.leaf(now) {
                    homes.on_elsewhere(now, (from, ip), retry_after_s, &supernodes, &mut m);
                }
                self.keep(from);
            }
            _ => debug_assert!(false, "no word of room"),
        }
    }

    /// Who is whose neighbour, who lives, and who is nearest to a place.
    fn on_word_of_views(&mut self, now: Instant, from: PeerId, message: Message<'_>, about: &About) {
        match message {
            Message::Neighbour(word) => {
                if let Some((s, mut stores)) = self.supernode(now) {
                    s.gossip.on_neighbour(now, from, word, &mut stores);
                }
            }
            Message::PingFor { peer } => {
                if let Some((s, mut stores)) = self.supernode(now) {
                    s.gossip.on_ping_for(now, from, peer, &mut stores);
                }
            }
            Message::Alive { peer } => {
                if let Some((s, _)) = self.supernode(now) {
                    s.gossip.on_alive(&from, &peer);
                }
            }
            Message::Seek { peer, record } => {
                // The answer is long: only over a path that is proven.
                if about.is_proven {
                    self.on_seek(now, (from, about.ip), peer, record);
                }
            }
            Message::Nearest { peer, supernodes } => self.on_nearest(now, (from, about.ip), peer, &supernodes),
            Message::Renew(renewals) => {
                if let Some((s, mut stores)) = self.supernode(now) {
                    s.gossip.on_renew(now, (from, about.ip), &renewals, &mut stores);
                }
            }
            Message::Wanted(renewals) => {
                let Self { acting, records, out, .. } = self;
                // The answer is long: only over a path that is proven.
                if about.is_proven
                    && let Acting::Supernode(s) = acting
                {
                    s.placing.on_wanted(now, from, &renewals, records, out);
                }
            }
            _ => debug_assert!(false, "no word of views"),
        }
    }

    /// The early message of an Init that is fresh: the answer, if it has one.
    #[must_use]
    pub(crate) fn answer_early(&self, now: Instant, early: &Message<'_>, carried: Carried) -> Option<Box<[u8]>> {
        match early {
            // What others keep is asked of them when it comes again.
            Message::Lookup { peer } if self.is_serving() && self.records.get(peer).is_some() => {
                encoded(&self.records.answer(*peer))
            }
            Message::LoadRequest => encoded(&self.load_reply(now, carried)),
            // Nothing else may be repeated safely, or is worth it.
            _ => None,
        }
    }

    // ---- to a supernode ----

    fn on_lookup(&mut self, now: Instant, (from, ip): (PeerId, Option<IpAddr>), peer: PeerId) {
        if !self.is_serving() {
            return;
        }
        // Who serves others has no home, and is found by its advert. It may have been a leaf when it was looked for
        // last.
        if let Some(bytes) = self.members.bytes(&peer) {
            send(&mut self.out, from, &Message::Signed { kind: SignedKind::Advert, bytes });
        }
        self.is_pressing = true;
        // Who asks again soon was not helped by what it heard.
        let is_again = match &mut self.acting {
            Acting::Supernode(s) if !self.members.contains(&from) => {
                s.asked_lately.forget_while(|at| now.since(at) >= AGAIN_WITHIN);
                let mut asked = s.asked_lately.get(&from).map(|(_, asked)| asked.clone()).unwrap_or_default();
                let again = asked.contains(&peer);
                asked.retain(|other| *other != peer);
                asked.truncate(asked.capacity() - 1);
                asked.insert(0, peer);
                s.asked_lately.insert(now, from, asked);
                again
            }
            _ => false,
        };
        // Another supernode asks those that keep it by itself.
        if !is_again && self.records.get(&peer).is_some()
            || self.members.contains(&peer)
            || self.members.contains(&from)
        {
            return send(&mut self.out, from, &self.records.answer(peer));
        }
        let by = self.standing(now);
        if let Acting::Supernode(s) = &mut self.acting
            && s.lookups_taken.take(now, Source::of(from, ip))
        {
            self.lookups.is_seeking = self.members.is_partial();
            let all = holders(&self.members, self.me.id(), &peer);
            let whom = if is_again { Whom::AllHolders(all) } else { Whom::Holders(all) };
            // What is kept here is the newest there is where none of them has a newer one.
            let own = self.records.get(&peer).filter(|_| is_again);
            let own = own.map(|bytes| (self.clock.time(now, by), bytes));
            self.lookups.start_for(now, from, peer, &whom, own, &mut self.out);
        }
    }

    /// Another supernode has this record of a peer: what is kept here becomes as new as that. A leaf that is registered
    /// here, and says by it that it is at home elsewhere, has gone without a word that arrived.
    fn on_record_found(&mut self, now: Instant, from: PeerId, peer: PeerId, bytes: &[u8]) {
        let Some(own) = self.records.get(&peer).filter(|own| *own != bytes) else { return };
        let (own, me) = (Record::read_unchecked(own).map_or(0, |own| own.sequence), self.me.id());
        let Some((s, mut stores)) = self.supernode(now) else { return };
        let has_left = |r: Record| r.id == peer && r.sequence > own && !r.names(&me);
        if s.registrations.contains(&peer) && Record::verify(bytes).is_ok_and(has_left) {
            s.registrations.on_deregister(now, &peer, &mut stores);
        }
        s.gossip.on_signed(now, (from, None), SignedKind::Record, bytes, &mut stores);
    }

    /// A supernode looks for those that are nearest to a place, or for the record that belongs there.
    fn on_seek(&mut self, now: Instant, (from, ip): (PeerId, Option<IpAddr>), peer: PeerId, record: bool) {
        let me = self.me.id();
        let Self { acting, members, records, out, .. } = self;
        let Acting::Supernode(s) = acting else { return };
        if !s.seeks_taken.take(now, Source::of(from, ip)) {
            return;
        }
        self.is_pressing = true;
        if record && let Some(bytes) = records.get(&peer) {
            return send(out, from, &Message::LookupReply { peer, record: Some(bytes) });
        }
        let others = members.holders(&peer, NEAREST_MAX + 2).into_iter().filter(|(id, _)| *id != me && *id != from);
        let supernodes = others.take(NEAREST_MAX).map(|(id, at)| (id, at.into())).collect();
        send(out, from, &Message::Nearest { peer, supernodes });
    }

    fn on_nearest(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        peer: PeerId,
        supernodes: &[(PeerId, Address)],
    ) {
        let me = self.me.id();
        self.lookups.on_nearest(now, (&from, ip), &me, peer, supernodes, &mut self.out);
        if let Some((s, Stores { records, members, out, .. })) = self.supernode(now) {
            s.placing.on_nearest(now, (&from, ip), peer, supernodes, records, members, out);
        }
    }

    fn on_register(
        &mut self,
        now: Instant,
        (leaf, ip): (PeerId, Option<IpAddr>),
        other_home: Option<PeerId>,
        record: &[u8],
        carried: Carried,
    ) {
        let load = self.load(carried);
        if let Some((s, stores)) = self.supernode(now)
            && s.gossip.wake(&leaf)
        {
            // It was a supernode, and its link rested: a leaf keeps its link alive.
            stores.out.push_back(Output::Release { peer: leaf });
        }
        let Some((s, mut stores)) = self.supernode(now) else {
            // It was a supernode when the leaf heard of it.
            let refused = Some(Refusal::NotASupernode);
            return send(&mut self.out, leaf, &Message::RegisterReply { refused, load: Load::FULL });
        };
        let from = (leaf, Source::of(leaf, ip));
        let registered = s.registrations.on_register(now, from, other_home, record, load, &mut stores);
        match (registered.is_record_new, registered.was_here) {
            (true, true) => s.placing.put_later(now, leaf, &mut stores.random.jitter),
            (true, false) => s.placing.put(now, record, stores.members, &mut stores.random.jitter, stores.out),
            (false, _) => {}
        }
    }

    fn on_dial_back_request(
        &mut self,
        now: Instant,
        from: PeerId,
        remote: SocketAddr,
        nonce: [u8; 8],
        contacted: &[[u8; 4]],
        port: u16,
    ) {
        let Self { acting, out, random, .. } = self;
        if let Acting::Supernode(s) = acting {
            let linked: Vec<PeerId> = s.gossip.linked().copied().collect();
            let to = OrderTo { linked: &linked, choice: &mut random.peer_choice };
            s.dial_backs.on_request(now, from, remote, nonce, contacted, port, to, out);
        }
    }

    // ---- to a leaf ----

    fn on_register_reply(&mut self, now: Instant, from: PeerId, refused: Option<Refusal>, load: Load) {
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_register_reply(now, from, refused, load, &mut m);
        }
        self.out.push_back(Output::AtHome);
        self.keep(from);
    }

    // ---- to either ----

    fn on_signed(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        kind: SignedKind,
        bytes: &[u8],
        is_called: bool,
    ) {
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_signed(now, (from, ip), kind, bytes, &mut stores);
            s.hand_over(now, &mut stores);
        }
        if kind == SignedKind::Advert {
            if is_called {
                self.on_callee_advert(now, bytes);
            }
            self.on_inquired(now, (from, ip), bytes);
            if let Some((homes, mut m)) = self.leaf(now) {
                homes.on_advert(now, (from, ip), bytes, &mut m);
            }
            if !self.is_serving() && self.dial_back.reachable().is_none() {
                self.count_fresh(now);
            }
        }
        self.keep(from);
    }

    /// An advert of somebody whom this leaf calls: it is found where that says, whether there is room for it in the
    /// membership table or not.
    fn on_callee_advert(&mut self, now: Instant, bytes: &[u8]) {
        if self.is_serving() {
            return;
        }
        if let Some(advert) = self.good_advert(now, bytes) {
            let homes = advert.addresses.iter().map(|address| (advert.id, (*address).into())).collect();
            self.out.push_back(Output::Locate { peer: advert.id, location: Ok(homes) });
        }
    }

    /// The advert of a supernode that takes leaves, if it is in order.
    pub(super) fn good_advert(&mut self, now: Instant, bytes: &[u8]) -> Option<Advert> {
        let advert = statement::parse::<Advert>(bytes).ok().filter(|a| a.capabilities.has(Capabilities::HOME))?;
        statement::time_left(&advert, self.wall_time(now)).ok()?;
        statement::verify(&advert, bytes).ok()?;
        Some(advert)
    }

    fn on_hints(&mut self, now: Instant, from: PeerId, hints: &[LoadHint]) {
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_hints(now, from, hints, &mut stores);
        }
        if let Some((homes, mut m)) = self.leaf(now) {
            m.members.on_hints(now, &from, hints);
            homes.on_listed(now, from, &mut m);
        }
        self.keep(from);
    }

    fn on_load_reply(&mut self, now: Instant, from: PeerId, load: Load, time_s: u64, about: &About) {
        if self.is_supernode(&from) {
            let by = self.standing(now);
            let ip = self.members.address(&from).filter(|_| self.is_serving()).map(|at| at.ip()).or(about.ip);
            self.clock.on_told(now, from, ip, time_s, by);
        }
        if let Some((homes, mut m)) = self.leaf(now) {
            homes.on_load_reply(now, from, load, (about.rtt, about.dialect.has(Dialect::HOMES)), &mut m);
        }
        if let Some((s, mut stores)) = self.supernode(now) {
            s.gossip.on_load_reply(now, from, load, &mut stores);
            s.registrations.on_heard(now, &from);
        }
    }

    /// Behind the answer to whoever asks for our load: our room, and for a leaf those that it had best be at home at
    /// besides.
    fn tell_room(&mut self, to: PeerId) {
        let Acting::Supernode(s) = &self.acting else { return };
        let is_leaf = !self.members.contains(&to);
        let mut packer = Packer::new(to, &mut self.out);
        let partners = s.registrations.partners(&mut self.random.peer_choice);
        if is_leaf && !partners.is_empty() {
            packer.push(&Message::Partners(partners));
        }
        packer.push(&Message::Places(s.registrations.places()));
    }

    /// A supernode says how much room it has.
    fn on_places(&mut self, now: Instant, from: PeerId, places: Places) {
        match self.leaf(now) {
            Some((homes, mut m)) => homes.on_places(now, from, places, &mut m),
            None => self.members.on_places(now, &from, places),
        }
    }

    fn load_reply(&self, now: Instant, carried: Carried) -> Message<'static> {
        Message::LoadReply { load: self.load(carried), time_s: self.own_wall(now).map_or(0, WallTime::as_secs) }
    }

    // ---- records ----

    /// Asks supernodes for a peer's record. Where nobody need be asked, or nobody can be, that is said at once; else a
    /// [`Output::Locate`] follows.
    #[must_use]
    pub(crate) fn start_lookup(&mut self, now: Instant, peer: PeerId) -> Option<Location> {
        let whom = match &self.acting {
            Acting::Leaf(homes) => {
                self.denied.forget_while(|at| now.since(at) >= DENIED_FOR);
                // Homes may all lie: somebody whom they did not name is asked, and first where they said no.
                let denied = self.denied.get(&peer).filter(|_| homes.registered().next().is_some());
                let is_first = denied.is_some_and(|(_, failure)| *failure == LookupFailure::Unknown);
                let other = denied.and_then(|_| homes.known_stranger(now, &mut self.random.peer_choice));
                let other = other.map(|(peer, address)| (peer, Some(address)));
                let mut all: Vec<_> = homes.linked().map(|home| (home, None)).collect();
                let at = if is_first { 0 } else { all.len().min(LEAF_ASKED_MAX - 1) };
                all.splice(at..at, other);
                Whom::Homes(all)
            }
            Acting::Supernode(_) => Whom::Holders(holders(&self.members, self.me.id(), &peer)),
        };
        self.lookups.is_seeking = self.is_serving() && self.members.is_partial();
        match self.lookups.start(now, peer, &whom, &mut self.out) {
            LookupStart::Cached(record) => Some(Ok(record.addresses())),
            LookupStart::Unknown => Some(Err(LookupFailure::Unknown)),
            LookupStart::Pending => None,
            LookupStart::Nobody => Some(Err(if self.is_lost() { LookupFailure::Lost } else { LookupFailure::Nobody })),
            LookupStart::Full => Some(Err(LookupFailure::NoAnswer)),
        }
    }

    /// A lookup of this node's has ended.
    pub(super) fn on_located(&mut self, now: Instant, peer: PeerId, location: &Location) {
        if let Err(failure) = location
            && !self.is_serving()
        {
            self.denied.insert(now, peer, *failure);
        }
        self.on_trial_located(now, peer, location);
    }

    /// An earlier answer did not help: the next lookup asks anew.
    pub(crate) fn forget_record(&mut self, peer: &PeerId) {
        self.lookups.forget(peer);
    }
}
