//! How supernodes learn of each other, and notice who is gone.
//!
//! Three ways, each covering for the one before. *Push*: who makes an advert sends it to every supernode at once. *Push-pull*: every half minute a supernode and two others compare digests and send
//! what the other lacks, which repairs lost pushes. *Listing*: a newcomer asks one neighbour for all adverts, once.
//!
//! Up to [`LINKS_MAX`] supernodes everybody keeps a link to everybody, which is what "to every supernode" rests on;
//! larger networks need a view, which comes between [`MembershipTable`] and the neighbours here.
//!
//! Before a supernode is any of that, this node has been to it: what is heard of others waits as
//! [hearsay](crate::overlay::advert::Hearsay) until they answered at the address that they advertise. Who is greeted by
//! a newcomer therefore asks it there before it passes anything on, and to pass an advert on says that one did.
//!
//! A [`Neighbour`](neighbour) is a supernode that we were told to join, or whose advert is in the membership table. It
//! is dialled, greeted when the link is up (own advert, digests: whatever was missed while there was no link is made up
//! for), compared with in turn, and suspected when it does not answer. The room is handed the stores that it fills, in
//! [`Stores`]; it answers with [`Output`]s.

mod anchors;
mod neighbour;
mod standing;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use self::neighbour::{Neighbour, State};
use crate::account::{Rate, RateTable};
use crate::identity::{PeerId, SecretKey};
use crate::overlay::advert::statement::{speaks_of, subject};
use crate::overlay::advert::{Hearsay, MembershipTable, OwnAdvert, Sequence, Suspicion, shelf};
use crate::overlay::directory::{HOLDERS_MAX, Putter, RecordStore};
use crate::overlay::output::Output;
use crate::overlay::pack::{self, Packer};
use crate::random::Generators;
use crate::time::{Aged, Deadlines, Instant, WallTime, earliest};
use crate::wire::address::Prefix;
use crate::wire::message::{DIGEST_MAX, DigestEntry, Load, LoadHint, Message, SignedKind};
use crate::wire::places::Places;

/// Most neighbours that links are kept to.
pub(crate) const LINKS_MAX: usize = 64;
/// Most neighbours remembered. At the limit, what is new is not dialled.
const NEIGHBOURS_MAX: usize = 1024;
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
/// A question unanswered for so many rounds makes a suspect.
const MISSED_MAX: u8 = 3;
/// A suspect that stays silent so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(300);
/// Neighbours learned from others are dialled within this time, so that not everybody dials a newcomer at once.
const DIAL_SPREAD: Duration = Duration::from_secs(2);
/// When one that was away is back, all that are away are dialled within this time,
const RECALL_SPREAD: Duration = Duration::from_secs(5);
/// and not again for so long.
const RECALL_EVERY: Duration = Duration::from_secs(30);
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
    recalled_at: Option<Instant>,
    neighbours: BTreeMap<PeerId, Neighbour>,
    dials: Deadlines<PeerId>,
    round_at: Instant,
    /// New statements since the last round: many mean that more is to be had.
    fresh: usize,
    listing: Option<Listing>,
    /// How many neighbours were asked for a listing; at [`LISTING_ASKED_MAX`] once one has answered.
    listings_asked: u8,
    /// As last saved.
    anchors: Vec<(PeerId, SocketAddr)>,
    listings_given: RateTable<PeerId>,
    digests_taken: RateTable<PeerId>,
}

impl Gossip {
    /// The room of the supernode `me`. Its first advert is due at once, its first round soon.
    pub(crate) fn new(now: Instant, me: PeerId, own: OwnAdvert, random: &mut Generators) -> Self {
        // A listing is up to 150 packets for one: seldom per asker, and bounded for all together.
        let listing = Rate { interval: Duration::from_secs(30), burst: 3 };
        let listings = Rate { interval: Duration::from_millis(20), burst: 200 };
        // A round of two neighbours that hurry, twice over.
        let digest = Rate { interval: Duration::from_millis(250), burst: 16 };
        let digests = Rate { interval: Duration::from_millis(2), burst: 500 };
        Self {
            me,
            own,
            load: Load::default(),
            places: Places::default(),
            hearsay: Hearsay::new(me),
            reached: Aged::default(),
            met: Vec::new(),
            recalled_at: None,
            neighbours: BTreeMap::new(),
            dials: Deadlines::default(),
            round_at: now + random.jitter.jitter(ROUND_JITTER),
            fresh: 0,
            listing: None,
            listings_asked: 0,
            anchors: Vec::new(),
            listings_given: RateTable::new(listing, listings, 4 * NEIGHBOURS_MAX),
            digests_taken: RateTable::new(digest, digests, NEIGHBOURS_MAX),
        }
    }

    /// Supernodes to start from: bootstrap addresses and anchors. They are dialled for ever, adverts or not.
    pub(crate) fn join(&mut self, now: Instant, known: &[(PeerId, SocketAddr)], s: &mut Stores<'_>) {
        for (peer, address) in known {
            self.meet(now, *peer, Some(*address), now);
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
        self.neighbours.iter().filter_map(|(peer, n)| Some((*peer, members.address(peer).or(n.joined)?))).collect()
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

    /// Makes a neighbour, to be dialled at `dial_at`.
    fn meet(&mut self, now: Instant, peer: PeerId, joined: Option<SocketAddr>, dial_at: Instant) {
        if peer == self.me {
            return;
        }
        let is_known = self.neighbours.contains_key(&peer);
        if !is_known && self.neighbours.len() >= NEIGHBOURS_MAX {
            return;
        }
        let neighbour = self.neighbours.entry(peer).or_insert_with(|| Neighbour::new(now));
        neighbour.joined = joined.or(neighbour.joined);
        if !is_known {
            self.dials.set(peer, &mut neighbour.due, Some(dial_at));
        }
    }

    /// A link is up, whoever opened it. With those that turn out to be supernodes, words are exchanged.
    pub(crate) fn on_link_up(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        if !self.neighbours.contains_key(&peer) && s.members.contains(&peer) {
            self.meet(now, peer, None, now);
        }
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        self.dials.set(peer, &mut neighbour.due, None);
        let was_away = neighbour.was_away();
        neighbour.on_up();
        if let Some(address) = s.members.address(&peer)
            && !self.met.contains(&(peer, address))
        {
            self.met.push((peer, address));
        }
        self.on_heard(now, &peer, s.members);
        self.greet(now, peer, s);
        if was_away && self.recalled_at.is_none_or(|at| now.since(at) >= RECALL_EVERY) {
            self.recalled_at = Some(now);
            self.recall(now, s);
        }
    }

    /// One that was away is back: what kept it away may have kept others.
    fn recall(&mut self, now: Instant, s: &mut Stores<'_>) {
        for (peer, neighbour) in self.neighbours.iter_mut().filter(|(_, n)| n.state == State::Down) {
            let soon = now + s.random.jitter.jitter(RECALL_SPREAD);
            if neighbour.due.is_some_and(|due| due > soon) {
                self.dials.set(*peer, &mut neighbour.due, Some(soon));
            }
        }
    }

    /// A link ended, or could not be opened.
    pub(crate) fn on_link_down(&mut self, now: Instant, peer: PeerId, s: &mut Stores<'_>) {
        self.reached.remove(&peer);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let delay = neighbour.on_down(&mut s.random.jitter);
        self.dials.set(peer, &mut neighbour.due, Some(now + delay));
        self.suspect(now, peer, s.members);
        if self.listing.as_ref().is_some_and(|l| l.from == peer) {
            self.listing = None;
            self.ask_listing(now, s);
        }
    }

    /// Anything authentic came from `peer`: it lives.
    pub(crate) fn on_heard(&mut self, now: Instant, peer: &PeerId, members: &mut MembershipTable) {
        if let Some(neighbour) = self.neighbours.get_mut(peer) {
            neighbour.on_heard(now);
            members.set_suspicion(peer, Suspicion::Alive);
        }
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
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.missed = neighbour.missed.saturating_add(1);
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
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if !self.digests_taken.take(now, from) {
            return;
        }
        if !core::mem::replace(&mut neighbour.knows_us, true) && neighbour.state == State::Up {
            self.dials.set(from, &mut neighbour.due, None);
        }
        self.on_heard(now, &from, s.members);
        let mut packer = Packer::new(from, s.out);
        let mut sent = 0;
        let send = |bytes: &[u8]| {
            sent += 1;
            if sent <= ANSWER_MAX {
                packer.push(&Message::Signed { kind, bytes });
            }
        };
        let mut answer = s.members.compare(entries, send);
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
        if !is_introduction && !self.neighbours.contains_key(&from) {
            return false;
        }
        self.on_heard(now, &from, s.members);
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
            SignedKind::Record => self.on_record(now, from, bytes, s),
        }
    }

    /// A record came, for this supernode to keep.
    fn on_record(&mut self, now: Instant, from: PeerId, bytes: &[u8], s: &mut Stores<'_>) -> bool {
        let Some(at) = s.members.address(&from) else { return false };
        // Views differ: somebody a little further away keeps it as well.
        let is_near = |id| s.members.holders(&id, 2 * HOLDERS_MAX).iter().any(|(holder, _)| *holder == self.me);
        if !subject(bytes).is_some_and(is_near) {
            return false;
        }
        let putter = if Prefix::is_exempt(at.ip()) { Putter::Peer(from) } else { Putter::Prefix(Prefix::of(at.ip())) };
        s.records.insert(now, &from, s.wall, bytes, putter).is_ok()
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
            self.on_heard(now, &from, s.members);
            s.members.on_hints(now, &from, hints);
        }
    }

    /// A supernode told its load.
    pub(crate) fn on_load_reply(&mut self, now: Instant, from: PeerId, load: Load, s: &mut Stores<'_>) {
        self.on_heard(now, &from, s.members);
        s.members.on_load(now, &from, load);
    }

    /// Somebody asks for all adverts. Only to be called for a link whose path is proven: the answer is long.
    pub(crate) fn on_adverts_request(&mut self, now: Instant, from: PeerId, s: &mut Stores<'_>) {
        if !self.listings_given.take(now, from) {
            return;
        }
        let max = if self.neighbours.contains_key(&from) { LISTING_MAX } else { LISTING_LEAF_MAX };
        let mut packer = Packer::new(from, s.out);
        let mut listed = Vec::new();
        for (id, bytes) in s.members.listing(max, &mut s.random.peer_choice) {
            packer.push(&Message::Signed { kind: SignedKind::Advert, bytes });
            listed.push(id);
        }
        packer.push(&Message::Hints(s.members.hints(now)));
        let rooms = s.members.rooms(now, &listed);
        if max == LISTING_LEAF_MAX && !rooms.is_empty() {
            packer.push(&Message::Rooms(rooms));
        }
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
        self.digests_taken.handle_timeout(now);
        self.renew(now, key, sequence, s);
        self.hearsay.handle_timeout(now);
        self.ask_heard(now, s.out);
        self.dial_due(now, s);
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
        let next = self.round_at.min(self.own.renew_at());
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
        let open = self.neighbours.values().filter(|n| n.state != State::Down).count();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.due = None;
        match neighbour.state {
            State::Down => {}
            State::Dialling => return,
            State::Up => return self.greet(now, peer, s),
        }
        // The advert is newer than what we were told to join, but only that needs no advert; odd tries take the
        // other one, since an advert may name an address that we cannot reach.
        let (told, said) = (neighbour.joined, s.members.address(&peer));
        let address = if neighbour.failures % 2 == 0 { said.or(told) } else { told.or(said) };
        let Some(address) = address else {
            // Its advert has expired and nobody told us to join it.
            self.neighbours.remove(&peer);
            return;
        };
        if open >= LINKS_MAX {
            let later = now + ROUND + s.random.jitter.jitter(ROUND);
            self.dials.set(peer, &mut neighbour.due, Some(later));
            return;
        }
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

    /// Compares with two neighbours: one drawn, and the one not heard from for longest. Repeats unanswered questions.
    fn round(&mut self, now: Instant, s: &mut Stores<'_>) {
        self.drop_expired(s);
        self.save_anchors(s);
        let all: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for peer in &all {
            let Some(neighbour) = self.neighbours.get_mut(peer) else { continue };
            if neighbour.missed > 0 && neighbour.state == State::Up {
                neighbour.missed = neighbour.missed.saturating_add(1);
                pack::send(s.out, *peer, &Message::LoadRequest);
                if let Some(bytes) = s.members.bytes(&self.me).filter(|_| !neighbour.knows_us) {
                    pack::send(s.out, *peer, &Message::Signed { kind: SignedKind::Advert, bytes });
                }
            }
            self.suspect(now, *peer, s.members);
        }
        let quiet = self.neighbours.iter().filter(|(_, n)| n.state == State::Up && n.missed == 0);
        let mut partners: ArrayVec<PeerId, ROUND_PARTNERS> = ArrayVec::new();
        partners.extend(quiet.min_by_key(|(_, n)| n.heard_at).map(|(peer, _)| *peer));
        let linked: Vec<PeerId> = self.linked().filter(|peer| !partners.contains(peer)).copied().collect();
        if let Some(peer) = linked.get(s.random.peer_choice.below(linked.len())) {
            let _ = partners.try_push(*peer);
        }
        for peer in partners {
            self.exchange(now, peer, s);
        }
    }

    /// Neighbours whose adverts have expired are neighbours no longer, unless we were told to join them.
    fn drop_expired(&mut self, s: &mut Stores<'_>) {
        let gone = |(peer, n): &(&PeerId, &Neighbour)| n.joined.is_none() && !s.members.contains(peer);
        let gone: Vec<PeerId> = self.neighbours.iter().filter(gone).map(|(peer, _)| *peer).collect();
        for peer in gone {
            if let Some(mut neighbour) = self.neighbours.remove(&peer) {
                self.dials.set(peer, &mut neighbour.due, None);
                s.out.push_back(Output::Release { peer });
            }
        }
    }

    /// Writes into the membership table what own questions found.
    fn suspect(&mut self, now: Instant, peer: PeerId, members: &mut MembershipTable) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.missed > MISSED_MAX {
            let since = *neighbour.suspect_since.get_or_insert(now);
            let is_dead = now - since >= DEAD_AFTER;
            members.set_suspicion(&peer, if is_dead { Suspicion::Dead } else { Suspicion::Suspect });
        }
    }
}

#[cfg(test)]
mod tests;
