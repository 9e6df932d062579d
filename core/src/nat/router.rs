//! [`Nat`]: observations and examinations, and what comes of them.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use super::examine::{Ask, Examination, Examined, Subject};
use super::examiner::{Examiner, second_nat};
use super::kept::Kept;
use super::observed::Observations;
use super::probe_replies::{Alternates, Asked, ProbeReplies, ReplyOutput};
use crate::account::Account;
use crate::api::{Reachability, Save};
use crate::identity::PeerId;
use crate::keepalive::Place;
use crate::net::{DropReason, Family, Network, PeerKey, SocketId};
use crate::queue;
use crate::random::{KeyRng, Seed};
use crate::time::{Instant, earliest};
use crate::wire::address::canonical;
use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile};

/// Supernodes that an examination asks: three, so that one that lies is outvoted.
const TARGETS: usize = 3;
/// Of which so many are asked over IPv6, where only the firewall is in question.
const TARGETS_V6: usize = 2;
/// Time for the links to those that are dialled for an examination alone, and between two looks whether a dial-back
/// that goes first is over.
const WAIT: Duration = Duration::from_secs(2);

/// What this node is to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stand {
    /// A leaf.
    Leaf,
    /// A leaf that would serve.
    Willing {
        /// Supernodes are being asked for dial-backs: that comes first, an examination may use up witnesses.
        is_asking: bool,
    },
    /// It serves by its own decision, and makes sure that it still can.
    Volunteer,
    /// It serves because it was told to: whoever did so knows the way in.
    Appointed,
    /// It leaves.
    Leaving,
}

impl Stand {
    fn is_serving(self) -> bool {
        matches!(self, Self::Volunteer | Self::Appointed)
    }
}

/// What others know, for an examination that begins or is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    /// Sockets and interfaces.
    pub network: &'a Network,
    /// Supernodes that links are up to, with their addresses, the one in use first.
    pub supernodes: &'a [(PeerId, Vec<SocketAddr>)],
    /// What this node is to others.
    pub stand: Stand,
    /// Supernodes were dialled for the examination.
    pub has_helpers: bool,
    /// Unasked packets come in to where we are seen.
    pub is_open: bool,
}

/// Who tells where it sees us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reporter {
    /// Who.
    pub id: PeerId,
    /// Where it is, as we sent to it.
    pub address: SocketAddr,
    /// Whether it is known to be a supernode: nobody else is believed.
    pub is_supernode: bool,
}

/// The way in, as others know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayIn<'a> {
    /// Sockets and mappings.
    pub network: &'a Network,
    /// What peers are told of the router.
    pub profile: NatProfile,
    /// Whether unasked packets come in.
    pub reachable: Option<bool>,
    /// Whether UDP works at all.
    pub udp: Option<bool>,
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// A packet, or a socket.
    Ask(Ask),
    /// To be told what is around: [`Nat::on_around`] is awaited.
    Around,
    /// Links to so many more supernodes, at none of these addresses; if there are none, [`Nat::on_no_help`].
    Help {
        /// How many.
        missing: usize,
        /// The addresses of those linked.
        except: Vec<IpAddr>,
    },
    /// Those links are needed no longer.
    ReleaseHelp,
    /// A node that serves of its own accord was looked at.
    Checked {
        /// Where two supernodes agree that they see it.
        seen: Option<SocketAddr>,
        /// Whether an unasked packet came in, if that could be told.
        came_in: Option<bool>,
    },
    /// More is known of the router.
    Known,
    /// The router gave us another address in the same network, as this supernode sees it.
    Forgotten {
        /// Who says so.
        by: PeerId,
    },
    /// There are addresses that peers were not told of.
    Candidates,
    /// What is to be kept for the next run.
    Save(Save),
}

/// What stands between this node and the internet: what supernodes saw of it, the examination under way, and the
/// [`Output`]s that come of both.
pub(crate) struct Nat {
    /// Tokens of probes: whoever guesses one could make up an answer.
    keys: KeyRng,
    observations: Observations,
    examiner: Examiner,
    /// An examination is over, and what is around has been asked for.
    over: Option<Box<Examined>>,
    /// What is done for others who examine theirs.
    replies: ProbeReplies,
    /// What earlier runs found.
    kept: Kept,
    out: VecDeque<Output>,
}

impl Nat {
    /// With what earlier runs found in which networks. Nothing is examined before a supernode is linked.
    pub(crate) fn new(seed: &Seed, routers: &[([u8; 8], u32)]) -> Self {
        Self {
            keys: seed.keys("nat"),
            observations: Observations::default(),
            examiner: Examiner::default(),
            over: None,
            replies: ProbeReplies::default(),
            kept: Kept::new(routers),
            out: VecDeque::new(),
        }
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    // ---- what happens ----

    /// The host's network changed: nothing that is known of the way out holds.
    pub(crate) fn handle_network(&mut self, now: Instant) {
        self.observations.clear();
        self.reset(now);
    }

    /// This node serves no longer: it is looked at as a leaf.
    pub(crate) fn on_ceased(&mut self, now: Instant) {
        self.reset(now);
    }

    fn reset(&mut self, now: Instant) {
        self.asking(|examiner, _, asks| examiner.end(asks));
        self.over = None;
        self.examiner.reset(now);
    }

    /// This node begins to serve.
    pub(crate) fn on_serving(&mut self, now: Instant) {
        self.examiner.on_serving(now);
    }

    /// A link is up to a supernode that sees where our packets come from.
    pub(crate) fn on_supernode(&mut self, now: Instant) {
        self.examiner.on_supernode(now);
    }

    /// A packet came in from somebody to whom nothing was sent.
    pub(crate) fn on_unasked(&mut self, now: Instant) {
        self.examiner.on_unasked(now);
    }

    /// What is known of the router does not agree with what happened: a traversal that should have worked did not, say.
    /// It is examined again soon, but not often.
    pub(crate) fn on_disagreement(&mut self, now: Instant) {
        self.examiner.on_disagreement(now);
    }

    /// The router is to be looked at now.
    pub(crate) fn examine_now(&mut self, now: Instant) {
        self.examiner.postpone(now, Duration::ZERO);
    }

    /// A node that serves is to be looked at in a moment: something changed that it may rest on.
    pub(crate) fn check_soon(&mut self, now: Instant) {
        self.examiner.check_again(now, true);
    }

    /// Somebody to whom we sent from `socket` tells where it saw that come from.
    pub(crate) fn on_observed(&mut self, now: Instant, reporter: &Reporter, socket: SocketId, seen: SocketAddr) {
        // The source of a TCP connection is nowhere that a datagram could be sent to.
        if socket.is_tcp() || !reporter.is_supernode {
            return;
        }
        let Reporter { id: reporter, address: reporter_address, .. } = *reporter;
        let before = self.observations.candidates(socket);
        if self.observations.on_observed(reporter, reporter_address, socket, seen) {
            self.out.push_back(Output::Forgotten { by: reporter });
        }
        let after = self.observations.candidates(socket);
        if after.iter().any(|a| !before.contains(a)) {
            self.out.push_back(Output::Candidates);
        }
        // A router that maps by destination shows every supernode another address.
        let was_one =
            self.examiner.known().is_some_and(|k| k.findings.mapping == Some(MappingBehavior::EndpointIndependent));
        if !before.is_empty() && before != after && was_one {
            self.examiner.on_disagreement(now);
        }
        self.out.push_back(Output::Known);
    }

    /// An answer to a probe came to a socket: whether it was for an examination.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        at: SocketId,
        from: SocketAddr,
        token: [u8; 8],
        seen: SocketAddr,
        alternate_port: u16,
    ) -> bool {
        let from = canonical(from);
        self.examiner.current().is_some_and(|current| current.on_reply(now, at, from, token, seen, alternate_port))
    }

    /// A Loop packet came; one that was not awaited is nobody's.
    pub(crate) fn on_loop(&mut self, now: Instant, token: &[u8; 16]) -> Result<(), DropReason> {
        let is_ours = self.examiner.current().is_some_and(|current| current.on_loop(now, token));
        if is_ours { Ok(()) } else { Err(DropReason::UnknownReceiver) }
    }

    /// A socket asked for is there, or could not be opened.
    pub(crate) fn on_socket(&mut self, now: Instant, opened: Option<(SocketId, SocketAddr)>) {
        self.asking(|examiner, keys, asks| examiner.on_socket(now, opened, keys, asks));
    }

    // ---- time ----

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.examiner.is_due(now) {
            self.examiner.rest();
            self.out.push_back(Output::Around);
        }
        if let Some(outcome) = self.asking(|examiner, keys, asks| examiner.run(now, keys, asks)) {
            self.over = Some(Box::new(outcome));
            self.out.push_back(Output::Around);
        }
    }

    /// When something is next to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.examiner.poll_timeout(), self.replies.poll_timeout())
    }

    /// What is wanted next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        queue::pop(&mut self.out, 0)
    }

    /// Has the examiner do something, and notes what it asks for.
    fn asking<T>(&mut self, act: impl FnOnce(&mut Examiner, &mut KeyRng, &mut Vec<Ask>) -> T) -> T {
        let mut asks = Vec::new();
        let result = act(&mut self.examiner, &mut self.keys, &mut asks);
        self.out.extend(asks.into_iter().map(Output::Ask));
        result
    }

    // ---- examinations ----

    /// What is around, as it was [asked for](Output::Around): an examination begins, or is concluded.
    pub(crate) fn on_around(&mut self, now: Instant, around: &Around<'_>) {
        match self.over.take() {
            Some(outcome) => self.conclude(now, &outcome, around),
            None => self.begin(now, around),
        }
    }

    /// There is nobody to help: it goes without.
    pub(crate) fn on_no_help(&mut self) {
        self.examiner.rest();
        self.out.push_back(Output::Around);
    }

    fn begin(&mut self, now: Instant, around: &Around<'_>) {
        let is_known = self.examiner.known().is_some();
        match around.stand {
            Stand::Leaving | Stand::Appointed => return,
            Stand::Volunteer if is_known && self.examiner.had_unasked(now) => {
                self.examiner.check_again(now, false);
                return self.out.push_back(Output::Checked { seen: None, came_in: Some(true) });
            }
            Stand::Willing { is_asking: true } => return self.examiner.postpone(now, WAIT),
            Stand::Leaf | Stand::Willing { .. } | Stand::Volunteer => {}
        }
        let is_serving = around.stand.is_serving();
        if !is_known && self.recall(now, around) {
            return;
        }
        let targets = targets(around, Family::V4, TARGETS);
        if targets.len() < TARGETS && !around.has_helpers && !is_serving && !self.examiner.wants_help() {
            self.examiner.postpone(now, WAIT);
            let except = targets.iter().map(|(_, address)| address.ip()).collect();
            return self.out.push_back(Output::Help { missing: TARGETS - targets.len(), except });
        }
        if !self.examine(now, Family::V4, &targets, is_serving && is_known, around) && !self.examine_v6(now, around) {
            if is_serving {
                self.examiner.check_again(now, false);
            } else {
                self.out.push_back(Output::ReleaseHelp);
            }
        }
    }

    /// A leaf was in this network before, and nothing but IPv4 is to be looked at: it knows the router.
    fn recall(&mut self, now: Instant, around: &Around<'_>) -> bool {
        let is_plain = around.stand == Stand::Leaf && targets(around, Family::V6, 1).is_empty();
        let Some(network) = self.network(around.network).filter(|_| is_plain) else { return false };
        let Some((known, found)) = self.kept.at_start(network) else { return false };
        self.examiner.recall(now, known);
        self.out.extend([Output::Save(Save::Router { network, found }), Output::ReleaseHelp, Output::Known]);
        true
    }

    /// The name of the network that this is.
    fn network(&self, network: &Network) -> Option<[u8; 8]> {
        let (socket, _) = network.main_socket(Family::V4)?;
        Some(Place::new(network, socket, self.observations.agreed(socket)?).network)
    }

    fn examine_v6(&mut self, now: Instant, around: &Around<'_>) -> bool {
        self.examine(now, Family::V6, &targets(around, Family::V6, TARGETS_V6), true, around)
    }

    /// Begins, if there is somebody to ask.
    fn examine(
        &mut self,
        now: Instant,
        family: Family,
        targets: &[(PeerId, SocketAddr)],
        filter_only: bool,
        around: &Around<'_>,
    ) -> bool {
        let Some((socket, bound)) = around.network.main_socket(family).filter(|_| !targets.is_empty()) else {
            return false;
        };
        let own = around.network.interfaces.clone();
        let subject = Subject { socket, port: bound.port(), own, filter_only };
        self.asking(|examiner, keys, asks| {
            examiner.begin(family, Examination::new(now, subject, targets, keys, asks));
        });
        true
    }

    /// One is over, or the last part of it is.
    fn conclude(&mut self, now: Instant, outcome: &Examined, around: &Around<'_>) {
        let is_serving = around.stand.is_serving();
        if is_serving && self.examiner.known().is_some() {
            if around.stand == Stand::Volunteer {
                let (seen, came_in) = (outcome.seen_by_two(), outcome.came_in());
                self.examiner.check_again(now, came_in == Some(false));
                self.out.push_back(Output::Checked { seen, came_in });
            }
            return;
        }
        let family = self.examiner.on_over(now, outcome, around.is_open);
        if family == Some(Family::V4) && self.examine_v6(now, around) {
            return;
        }
        self.out.push_back(Output::ReleaseHelp);
        if is_serving {
            self.examiner.check_again(now, false);
        }
        if let (Some(network), Some(known), Stand::Leaf) =
            (self.network(around.network), self.examiner.known(), around.stand)
            && let Some(found) = self.kept.on_examined(network, known)
        {
            self.out.push_back(Output::Save(Save::Router { network, found }));
        }
        self.out.push_back(Output::Known);
    }

    // ---- others' probes ----

    /// A leaf asks where we see it. A leaf answers no probes.
    pub(crate) fn on_probe(
        &mut self,
        now: Instant,
        account: &mut Account,
        alternates: &Alternates,
        asked: &Asked,
    ) -> Result<(), DropReason> {
        self.replies.on_probe(now, account, alternates, asked)
    }

    /// Late answers that are due.
    pub(crate) fn handle_replies(&mut self, now: Instant, alternates: &Alternates) {
        self.replies.handle_timeout(now, alternates);
    }

    /// The next answer, or what one takes.
    pub(crate) fn poll_reply(&mut self) -> Option<ReplyOutput> {
        self.replies.poll_output()
    }

    /// A link is gone, and nothing waits for it.
    pub(crate) fn forget(&mut self, peer: PeerKey) {
        self.replies.forget(peer);
    }

    // ---- what is known ----

    /// Where a supernode, at this address, saw a socket of ours, if that is remembered.
    pub(crate) fn seen_from(&self, id: &PeerId, remote: SocketAddr, socket: SocketId) -> Option<SocketAddr> {
        self.observations.seen_from(id, remote, socket)
    }

    /// Addresses that supernodes see us at, per socket, the most agreed on first.
    pub(crate) fn reflexive(&self, network: &Network) -> Vec<SocketAddr> {
        let of_socket =
            |(socket, _): &(SocketId, SocketAddr)| self.observations.candidates(*socket).into_iter().take(2);
        network.sockets.iter().flat_map(of_socket).collect()
    }

    /// Where supernodes agree that they see the main socket.
    pub(crate) fn agreed(&self, network: &Network) -> Option<SocketAddr> {
        let main = [Family::V4, Family::V6].into_iter().find_map(|family| network.main_socket(family));
        self.observations.agreed(main?.0)
    }

    /// When an examination found that the router lets packets in from ports that nothing was sent to; none if it found
    /// the opposite, or could not tell.
    pub(crate) fn lets_in(&self) -> Option<Instant> {
        use FilteringBehavior::{AddressDependent, EndpointIndependent};
        let known = self.examiner.known()?;
        let lets_in = matches!(known.findings.filtering, Some(EndpointIndependent | AddressDependent));
        known.at.filter(|_| lets_in)
    }

    /// Who saw us where, the newest last.
    pub(crate) fn observed(&self) -> Vec<(PeerId, SocketAddr)> {
        self.observations.list().collect()
    }

    /// How the router maps, by what supernodes saw.
    pub(crate) fn mapping(&self, network: &Network) -> Option<MappingBehavior> {
        let (socket, _) = network.sockets.first()?;
        self.observations.mapping(*socket)
    }

    /// What was found out about the router. `is_open`: unasked packets come in to where we are seen.
    pub(crate) fn profile(&self, network: &Network, is_open: bool) -> NatProfile {
        self.examiner.profile(self.mapping(network), is_open)
    }

    /// All that is known of the way in and out.
    pub(crate) fn reachability(&self, now: Instant, way_in: &WayIn<'_>) -> Reachability {
        let WayIn { network, profile, reachable, udp } = *way_in;
        let known = self.examiner.known();
        let main = network.main_socket(Family::V4);
        let seen = main.and_then(|(socket, _)| self.observations.agreed(socket));
        let seen = seen.or(known.and_then(|k| k.seen));
        let claimed = main.and_then(|(socket, _)| network.mapped_address(socket));
        let mut public_addresses: Vec<(SocketAddr, usize)> =
            network.sockets.iter().flat_map(|(socket, _)| self.observations.counted(*socket)).collect();
        public_addresses.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        Reachability {
            translated: known.and_then(|k| k.translated),
            mapping: profile.mapping,
            filtering: profile.filtering,
            ports: profile.ports,
            pooled: known.and_then(|k| k.findings.pooled),
            hairpinning: known.and_then(|k| k.hairpinning),
            second_nat: second_nat(claimed.map(|a| a.ip()), seen),
            udp,
            v6: known.and_then(|k| k.v6),
            public_addresses,
            reachable,
            witnesses: known.map_or(0, |k| k.witnesses),
            age: known.and_then(|k| k.at).map(|at| now - at),
        }
    }
}

/// Those with an address of this family, at most so many: different addresses first.
fn targets(around: &Around<'_>, family: Family, max: usize) -> Vec<(PeerId, SocketAddr)> {
    let mut all: Vec<(PeerId, SocketAddr)> = Vec::new();
    for (id, addresses) in around.supernodes {
        if let Some(address) = addresses.iter().find(|a| Family::of(a) == family)
            && all.iter().all(|(other, _)| other != id)
        {
            all.push((*id, *address));
        }
    }
    let mut ips = BTreeSet::new();
    let (mut first, again): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, a)| ips.insert(a.ip()));
    first.extend(again);
    first.truncate(max);
    first
}
