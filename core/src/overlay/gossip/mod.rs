//! How supernodes learn of each other, and notice who is gone.
//!
//! A supernode gossips with its [neighbours](circle): all others while these are few, and some of them otherwise. Three
//! ways, each covering for the one before. *Push*: who makes an advert sends it to its neighbours at once. *Push-pull*:
//! every half minute a supernode and two of them compare digests and send what the other lacks and has a place for,
//! which repairs lost pushes, and carries an advert from circle to circle. *Listing*: a newcomer asks one neighbour for
//! adverts, once. Nothing is ever sent to all, so that there is no number of supernodes at which this has to change.
//!
//! Before a supernode is any of that, this node has been to it: what is heard of others waits as
//! [hearsay](crate::overlay::advert::Hearsay) until they answered at the address that they advertise. Who is greeted by
//! a newcomer therefore asks it there before it passes anything on, and to pass an advert on says that one did.
//!
//! A [`Neighbour`](neighbour) is dialled, greeted when the link is up (own advert, digests: whatever was missed while
//! there was no link is made up for), and compared with in turn. Whether it and all others that are known live is
//! [watched](watch). The room is handed the stores that it fills, in [`Stores`]; it answers with [`Output`]s.

mod anchors;
mod checks;
mod circle;
mod neighbour;
mod records;
mod standing;
mod unreached;
mod watch;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use self::checks::Watch;
use self::neighbour::{NEIGHBOURS_MAX, Neighbour, State};
use self::unreached::Unreached;
use crate::account::{Rate, RateTable, Source};
use crate::identity::{PeerId, SecretKey};
use crate::overlay::advert::statement::speaks_of;
use crate::overlay::advert::{Hearsay, MembershipTable, OwnAdvert, Sequence, Suspicion, shelf};
use crate::overlay::directory::RecordStore;
use crate::overlay::output::Output;
use crate::overlay::pack::{self, Packer};
use crate::random::Generators;
use crate::time::{Aged, Deadlines, Instant, WallTime, earliest};
use crate::wire::message::{DIGEST_MAX, DigestEntry, Load, LoadHint, Message, SignedKind};
use crate::wire::places::Places;

/// Most links to supernodes that are no neighbours. At the limit the one heard longest ago is closed.
const RESTING_MAX: usize = 1_024;
/// Most of those remembered that had no place for this node; at the limit the oldest may be asked again.
const REFUSED_MAX: usize = 256;
/// They are not asked for so long.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Most newcomers that are to have a place because they have hardly any neighbours; at the limit the oldest goes.
const LONELY_MAX: usize = 64;
/// While fewer supernodes are known, whoever is told of is asked at once whether it is there.
const FEW: usize = 64;
/// A full table takes in some more for its sample so often: who is told of by two is asked within ten minutes.
const RENEW_EVERY: Duration = Duration::from_secs(20 * 60);
/// Time between two rounds, give or take [`ROUND_JITTER`].
const ROUND: Duration = Duration::from_secs(30);
/// Rounds of different nodes must not march in step.
const ROUND_JITTER: Duration = Duration::from_secs(6);
/// The next round comes so soon when the last one brought as much as one exchange can.
const ROUND_HURRIED: Duration = Duration::from_secs(1);
/// Neighbours compared with in a round.
const ROUND_PARTNERS: usize = 2;
/// Of a digest, entries that list the newest changes; the rest lists what is older, a stretch at a time.
const DIGEST_NEWEST: usize = 60;
/// Most statements that one digest is answered with.
const ANSWER_MAX: usize = 12;
/// Most adverts that a listing has when a supernode asks.
const LISTING_MAX: usize = 256;
/// Most adverts that a listing has when a leaf asks: enough to draw two homes from.
pub(crate) const LISTING_LEAF_MAX: usize = 16;
/// Most peers of whom it is known where they answered an Init of ours; at the limit the oldest is forgotten, and is
/// asked again when its advert comes.
const REACHED_MAX: usize = 2_048;
/// Neighbours learned from others are dialled within this time, so that not everybody dials a newcomer at once.
const DIAL_SPREAD: Duration = Duration::from_secs(2);
/// When one that was away is back, all that are away are dialled within this time,
const RECALL_SPREAD: Duration = Duration::from_secs(5);
/// and not again for so long.
const RECALL_EVERY: Duration = Duration::from_secs(30);
/// Most of those whose rate of questions is kept.
const ASKERS_MAX: usize = 4_096;
/// Most neighbours saved for the next run.
const ANCHORS_MAX: usize = 8;
/// First retransmission time-out of a greeting; doubles.
const GREETING_RTO: Duration = Duration::from_secs(1);
/// How often a neighbour is greeted on a new link; after that, in rounds.
const GREETINGS_MAX: u8 = 4;
/// First retransmission time-out of the request for a listing; doubles.
const LISTING_RTO: Duration = Duration::from_secs(1);
/// How often a neighbour is asked for a listing before another one is.
const LISTING_TRIES: u8 = 3;
/// How many neighbours are asked before rounds alone must do.
const LISTING_ASKED_MAX: u8 = 4;

/// What the room works on and does not own.
pub(crate) struct Stores<'a> {
    /// The wall clock, if known.
    pub wall: Option<WallTime>,
    /// Chance.
    pub random: &'a mut Generators,
    /// Adverts.
    pub members: &'a mut MembershipTable,
    /// Records.
    pub records: &'a mut RecordStore,
    /// What is to be done.
    pub out: &'a mut VecDeque<Output>,
}

struct Listing {
    from: PeerId,
    tries: u8,
    at: Instant,
}

/// A supernode's part in the gossip: its neighbours, when they are dialled and compared with, and the advert it tells.
pub(crate) struct Gossip {
    me: PeerId,
    own: OwnAdvert,
    load: Load,
    places: Places,
    hearsay: Hearsay,
    /// Where linked peers answered an Init of ours.
    reached: Aged<PeerId, SocketAddr, REACHED_MAX>,
    /// To whom a link has come up, and was not asked for yet.
    met: Vec<(PeerId, SocketAddr)>,
    /// Whether somebody became suspect since this was asked last.
    has_suspicion: bool,
    recalled_at: Option<Instant>,
    neighbours: BTreeMap<PeerId, Neighbour>,
    dials: Deadlines<PeerId>,
    /// Where to start from: as the user or an earlier run says.
    starts: BTreeMap<PeerId, SocketAddr>,
    /// Links to others than neighbours, and when each was last heard.
    resting: Aged<PeerId, (), RESTING_MAX>,
    /// Those that had no place for this node, or that it sent away.
    refused: Aged<PeerId, (), REFUSED_MAX>,
    /// Newcomers that have hardly any neighbours.
    lonely: Aged<PeerId, (), LONELY_MAX>,
    unreached: Unreached,
    /// Whom there is a place for although there is none.
    exceptions: RateTable<PeerId>,
    refill_at: Instant,
    sample_at: Instant,
    watch: Watch,
    round_at: Instant,
    /// New statements since the last round: many mean that more is to be had.
    fresh: usize,
    listing: Option<Listing>,
    /// How many neighbours were asked for a listing; at [`LISTING_ASKED_MAX`] once one has answered.
    listings_asked: u8,
    /// As last saved.
    anchors: Vec<(PeerId, SocketAddr)>,
    listings_given: RateTable<PeerId>,
    listings_of_source: RateTable<Source>,
    digests_taken: RateTable<PeerId>,
}

impl Gossip {
    /// The room of the supernode `me`. Its first advert is due at once, its first round soon.
    pub(crate) fn new(now: Instant, me: PeerId, own: OwnAdvert, random: &mut Generators) -> Self {
        // A listing is up to 150 packets for one: seldom per asker, and bounded for all together.
        let listing = Rate { interval: Duration::from_secs(30), burst: 3 };
        let listings = Rate { interval: Duration::from_millis(20), burst: 200 };
        // Many leaves may share an address, and start at once.
        let of_source = Rate { interval: Duration::from_millis(200), burst: 50 };
        // A round of two neighbours that hurry, twice over.
        let digest = Rate { interval: Duration::from_millis(250), burst: 16 };
        let digests = Rate { interval: Duration::from_millis(2), burst: 500 };
        let exception = Rate { interval: Duration::from_secs(300), burst: 4 };
        let exceptions = Rate { interval: Duration::from_secs(5), burst: 32 };
        Self {
            me,
            own,
            load: Load::default(),
            places: Places::default(),
            hearsay: Hearsay::new(me),
            reached: Aged::default(),
            met: Vec::new(),
            has_suspicion: false,
            recalled_at: None,
            neighbours: BTreeMap::new(),
            dials: Deadlines::default(),
            starts: BTreeMap::new(),
            resting: Aged::default(),
            refused: Aged::default(),
            lonely: Aged::default(),
            unreached: Unreached::default(),
            exceptions: RateTable::new(exception, exceptions, NEIGHBOURS_MAX),
            refill_at: now + ROUND,
            sample_at: now + RENEW_EVERY,
            watch: Watch::new(now),
            round_at: now + random.jitter.jitter(ROUND_JITTER),
            fresh: 0,
            listing: None,
            listings_asked: 0,
            anchors: Vec::new(),
            listings_given: RateTable::new(listing, listings, ASKERS_MAX),
            listings_of_source: RateTable::new(of_source, listings, ASKERS_MAX),
            digests_taken: RateTable::new(digest, digests, ASKERS_MAX),
        }
    }

    /// Supernodes to start from: bootstrap addresses and anchors. They are dialled now, and whenever nobody else is there.
    pub(crate) fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)], s: &mut Stores<'_>) {
        for (peer, address) in known {
            self.note_start(*peer, *address);
            self.meet(now, *peer, now, s);
        }
        self.dial_due(now, s);
    }

    /// This node is a supernode no longer: those linked are told, and drop its advert.
    pub(crate) fn withdraw(&mut self, key: &SecretKey, sequence: &mut Sequence, s: &mut Stores<'_>) {
        let number = sequence.next(s.wall, s.out);
        let bytes = self.own.withdrawal(s.wall, key, number);
        self.push(SignedKind::Advert, &bytes, s.out);
    }

    /// All neighbours, and where each was last said to be.
    pub(crate) fn addresses(&self, members: &MembershipTable) -> Vec<(PeerId, SocketAddr)> {
        self.neighbours
            .keys()
            .filter_map(|peer| Some((*peer, members.address(peer).or_else(|| self.starts.get(peer).copied())?)))
            .collect()
    }

    /// The own load and room, as they are told next.
    pub(crate) fn set_load(&mut self, load: Load, places: Places) {
        (self.load, self.places) = (load, places);
    }

    /// Whether the link to `peer` is wanted here.
    pub(crate) fn needs(&self, peer: &PeerId) -> bool {
        self.neighbours.contains_key(peer)
    }

    /// Neighbours that links are up to.
    pub(crate) fn linked(&self) -> impl Iterator<Item = &PeerId> {
        self.neighbours.iter().filter(|(_, n)| n.state == State::Up).map(|(peer, _)| peer)
    }

    /// What is said first on a new link, and again until an answer shows that it was heard: who we are, and what we
    /// have.
    fn greet(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let again = now + GREETING_RTO * (1 << neighbour.greetings);
        neighbour.greetings += 1;
        let due = (neighbour.greetings < GREETINGS_MAX).then_some(again);
        self.dials.set(peer, &mut neighbour.due, due);
        if let Some(bytes) = s.members.bytes(&self.me) {
            pack::send(s.out, peer, &Message::Signed { kind: SignedKind::Advert, bytes });
        }
        self.exchange(now, peer, s);
        self.ask_listing(now, s);
    }

    /// Opens a comparison: hints and both digests, asking for the other's.
    fn exchange(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let mut hints = s.members.hints(now);
        let [a, b, c, d, ..] = s.wall.map_or(now.as_secs(), WallTime::as_secs).to_le_bytes();
        // The table leaves one place free for this.
        let _ = hints.try_push(LoadHint {
            id_prefix: shelf::id_prefix(&self.me),
            sequence: [a, b, c, d],
            load: self.load,
            suspicion: Suspicion::Alive as u8,
        });
        let others = DIGEST_MAX - DIGEST_NEWEST;
        let adverts = s.members.digest(DIGEST_NEWEST, others).into_iter().collect();
        let mut packer = Packer::new(peer, s.out);
        packer.push(&Message::Hints(hints));
        packer.push(&Message::Digest { kind: SignedKind::Advert, pull: true, entries: adverts });
        // First-hand load, and the time.
        packer.push(&Message::LoadRequest);
        packer.push(&Message::Places(self.places));
    }

    /// A neighbour says what it has. It is sent what it lacks, and told what we lack; if it asks, also what we have.
    pub(crate) fn on_digest(
        &mut self,
        now: Instant,
        from: PeerId,
        kind: SignedKind,
        pull: bool,
        entries: &[DigestEntry],
        s: &mut Stores<'_>,
    ) {
        if kind != SignedKind::Advert {
            // Records go to those that keep them, and to nobody else.
            return;
        }
        let is_neighbour = self.neighbours.contains_key(&from);
        // Who asks wants to be a neighbour; a mere answer comes late.
        let may_ask = is_neighbour || (pull && s.members.contains(&from));
        if !may_ask || !self.digests_taken.take(now, from) {
            return;
        }
        if !is_neighbour && !self.take(now, from, false, s) {
            return;
        }
        self.unreached.on_reached(&Source::of(from, s.members.speaks_from(&from, None)));
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if !core::mem::replace(&mut neighbour.knows_us, true) && neighbour.state == State::Up {
            self.dials.set(from, &mut neighbour.due, None);
        }
        self.on_heard(now, &from, s);
        let mut packer = Packer::new(from, s.out);
        let mut sent = 0;
        let send = |bytes: &[u8]| {
            sent += 1;
            if sent <= ANSWER_MAX {
                packer.push(&Message::Signed { kind, bytes });
            }
        };
        // Only so many are sent: those with the lowest places, which come first, are to have no advantage.
        let mut asked = entries.to_vec();
        asked.rotate_left(s.random.peer_choice.below(entries.len()));
        let mut answer = s.members.compare(&asked, send);
        if pull {
            let others = DIGEST_MAX - DIGEST_NEWEST;
            let ours = s.members.digest(DIGEST_NEWEST, others);
            // What both sides listed has been compared above.
            let is_listed = |ours: &DigestEntry| entries.iter().any(|theirs| theirs.id_prefix == ours.id_prefix);
            answer.extend(ours.into_iter().filter(|ours| !is_listed(ours)));
        }
        // An empty answer to a pull is still an answer: it says that we live.
        if pull || !answer.is_empty() {
            let entries: ArrayVec<_, DIGEST_MAX> = answer.into_iter().take(DIGEST_MAX).collect();
            packer.push(&Message::Digest { kind, pull: false, entries });
        }
    }

    /// Signed bytes came over the link to `from`, straight from the address `ip` if there is one. Returns whether they
    /// were new.
    pub(crate) fn on_signed(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        kind: SignedKind,
        bytes: &[u8],
        s: &mut Stores<'_>,
    ) -> bool {
        // A stranger may say who it is, nothing else.
        let is_introduction = kind == SignedKind::Advert && speaks_of(bytes, &from);
        // Where not everybody can be known, who puts a record need not be.
        let is_put = kind == SignedKind::Record && ip.is_some() && s.members.is_partial();
        if !is_introduction && !is_put && !self.neighbours.contains_key(&from) && !s.members.contains(&from) {
            return false;
        }
        self.on_heard(now, &from, s);
        // Its own advert also comes as a greeting; anybody else's, even ours, shows that the listing arrived.
        if self.listing.as_ref().is_some_and(|l| l.from == from)
            && kind == SignedKind::Advert
            && !speaks_of(bytes, &from)
        {
            self.listing = None;
            self.listings_asked = LISTING_ASKED_MAX;
        }
        match kind {
            SignedKind::Advert => self.on_advert(now, from, ip, bytes, s),
            SignedKind::Record => self.on_record(now, (from, ip), bytes, s),
        }
    }

    fn count_fresh(&mut self, now: Instant, fresh: bool, s: &mut Stores<'_>) {
        self.fresh += usize::from(fresh);
        if self.fresh >= ANSWER_MAX {
            let soon = now + ROUND_HURRIED + s.random.jitter.jitter(ROUND_HURRIED);
            self.round_at = self.round_at.min(soon);
        }
    }

    /// Load hints came.
    pub(crate) fn on_hints(&mut self, now: Instant, from: PeerId, hints: &[LoadHint], s: &mut Stores<'_>) {
        if self.neighbours.contains_key(&from) {
            self.on_heard(now, &from, s);
            s.members.on_hints(now, &from, hints);
        }
    }

    /// A supernode told its load.
    pub(crate) fn on_load_reply(&mut self, now: Instant, from: PeerId, load: Load, s: &mut Stores<'_>) {
        self.on_heard(now, &from, s);
        s.members.on_load(now, &from, load);
    }

    /// Somebody asks for all adverts. Only to be called for a link whose path is proven: the answer is long.
    pub(crate) fn on_adverts_request(
        &mut self,
        now: Instant,
        (from, ip): (PeerId, Option<IpAddr>),
        s: &mut Stores<'_>,
    ) {
        let source = Source::of(from, ip);
        if !self.listings_of_source.allows(now, &source) || !self.listings_given.take(now, from) {
            return;
        }
        self.listings_of_source.charge(now, source);
        let max = if s.members.contains(&from) { LISTING_MAX } else { LISTING_LEAF_MAX };
        let mut packer = Packer::new(from, s.out);
        let mut listed = Vec::new();
        for (id, bytes) in s.members.listing(max, &mut s.random.peer_choice) {
            packer.push(&Message::Signed { kind: SignedKind::Advert, bytes });
            listed.push(id);
        }
        let rooms = s.members.rooms(now, &listed);
        if max == LISTING_LEAF_MAX && !rooms.is_empty() {
            packer.push(&Message::Rooms(rooms));
        }
        // With these a listing ends.
        packer.push(&Message::Hints(s.members.hints(now)));
    }

    fn push(&self, kind: SignedKind, bytes: &[u8], out: &mut VecDeque<Output>) {
        for peer in self.linked() {
            pack::send(out, *peer, &Message::Signed { kind, bytes });
        }
    }

    fn ask_listing(&mut self, now: Instant, s: &mut Stores<'_>) {
        if self.listings_asked >= LISTING_ASKED_MAX || self.listing.is_some() {
            return;
        }
        let linked: Vec<PeerId> = self.linked().copied().collect();
        let Some(from) = linked.get(s.random.peer_choice.below(linked.len())).copied() else { return };
        self.listings_asked += 1;
        self.listing = Some(Listing { from, tries: 1, at: now + LISTING_RTO });
        pack::send(s.out, from, &Message::AdvertsRequest);
    }

    /// Does what is due: renews the own advert, dials, compares, suspects.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        key: &SecretKey,
        sequence: &mut Sequence,
        s: &mut Stores<'_>,
    ) {
        self.listings_given.handle_timeout(now);
        self.listings_of_source.handle_timeout(now);
        self.digests_taken.handle_timeout(now);
        self.exceptions.handle_timeout(now);
        self.renew(now, key, sequence, s);
        self.hearsay.handle_timeout(now);
        self.unreached.handle_timeout(now);
        self.ask_heard(now, s.out);
        if self.refill_at <= now {
            self.refill_at = now + ROUND;
            self.refill(now, s);
        }
        self.dial_due(now, s);
        self.watch_due(now, s);
        if self.sample_at <= now {
            self.sample_at = now + RENEW_EVERY;
            s.members.renew_sample(&mut s.random.peer_choice);
        }
        if self.listing.as_ref().is_some_and(|l| l.at <= now) {
            self.repeat_listing(now, s);
        }
        if self.round_at <= now {
            self.round_at = now + ROUND - ROUND_JITTER / 2 + s.random.jitter.jitter(ROUND_JITTER);
            self.fresh = 0;
            self.round(now, s);
        }
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = [self.own.renew_at(), self.refill_at, self.sample_at, self.watch.poll_timeout()];
        let next = next.into_iter().fold(self.round_at, Instant::min);
        let others = [self.dials.next(), self.hearsay.poll_timeout(), self.listing.as_ref().map(|l| l.at)];
        others.into_iter().fold(Some(next), earliest)
    }

    fn renew(&mut self, now: Instant, key: &SecretKey, sequence: &mut Sequence, s: &mut Stores<'_>) {
        if self.own.renew_at() <= now {
            let number = sequence.next(s.wall, s.out);
            let (advert, bytes) = self.own.make(now, s.wall, key, number, &mut s.random.jitter);
            s.members.put_own(now, advert, &bytes);
            self.push(SignedKind::Advert, &bytes, s.out);
        }
    }

    fn dial_due(&mut self, now: Instant, s: &mut Stores<'_>) {
        while let Some(peer) = self.dials.pop_due(now) {
            self.dial(now, peer, s);
        }
    }

    fn dial(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.due = None;
        match neighbour.state {
            State::Down => {}
            State::Dialling => return,
            State::Up => return self.greet(now, peer, s),
        }
        // The advert is newer than what we were told to start from, but only that needs no advert; odd tries take the
        // other one, since an advert may name an address that we cannot reach.
        let (told, said) = (self.starts.get(&peer).copied(), s.members.address(&peer));
        let address = if neighbour.failures % 2 == 0 { said.or(told) } else { told.or(said) };
        let Some(address) = address else {
            // Its advert has expired and nobody told us to join it.
            self.neighbours.remove(&peer);
            return;
        };
        neighbour.state = State::Dialling;
        s.out.push_back(Output::Dial { peer, address });
    }

    fn repeat_listing(&mut self, now: Instant, s: &mut Stores<'_>) {
        let Some(listing) = &mut self.listing else { return };
        if listing.tries >= LISTING_TRIES {
            self.listing = None;
            self.ask_listing(now, s);
            return;
        }
        listing.at = now + LISTING_RTO * (1 << listing.tries);
        listing.tries += 1;
        pack::send(s.out, listing.from, &Message::AdvertsRequest);
    }

    /// Compares with two neighbours: one drawn, and the one not heard from for longest.
    fn round(&mut self, now: Instant, s: &mut Stores<'_>) {
        self.drop_expired(s);
        self.save_anchors(s);
        if let Some(bytes) = s.members.bytes(&self.me) {
            let strange = self.neighbours.iter().filter(|(_, n)| n.state == State::Up && !n.knows_us);
            for (peer, _) in strange {
                pack::send(s.out, *peer, &Message::Signed { kind: SignedKind::Advert, bytes });
            }
        }
        let up = self.neighbours.iter().filter(|(_, n)| n.state == State::Up);
        let mut partners: ArrayVec<PeerId, ROUND_PARTNERS> = ArrayVec::new();
        partners.extend(up.min_by_key(|(_, n)| n.heard_at).map(|(peer, _)| *peer));
        let linked: Vec<PeerId> = self.linked().filter(|peer| !partners.contains(peer)).copied().collect();
        if let Some(peer) = linked.get(s.random.peer_choice.below(linked.len())) {
            let _ = partners.try_push(*peer);
        }
        for peer in partners {
            self.exchange(now, peer, s);
        }
    }

    /// Neighbours whose adverts have expired are neighbours no longer, unless we were told to start from them.
    fn drop_expired(&mut self, s: &mut Stores<'_>) {
        let gone = |peer: &&PeerId| !self.starts.contains_key(peer) && !s.members.contains(peer);
        let gone: Vec<PeerId> = self.neighbours.keys().filter(gone).copied().collect();
        for peer in gone {
            self.remove(&peer, s);
        }
    }

    /// Links that rest.
    pub(crate) fn resting(&self) -> impl Iterator<Item = &PeerId> {
        self.resting.keys()
    }

    /// Somebody with a link that rested is something else now: what that link is kept for others say.
    pub(crate) fn wake(&mut self, peer: &PeerId) -> bool {
        self.resting.remove(peer).is_some()
    }
}

#[cfg(test)]
mod tests;
