//! [`Traversal`]: from relayed to direct, and back, for all user links.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::candidates::gather;
use super::case::{Around, Case, Output, View};
use super::strategy::{Strategy, choose};
use super::target::{Target, retry_wait};
use crate::account::{Account, Exposure, Scope};
use crate::api::RelayReason;
use crate::net::{Network, PeerKey, SocketId};
use crate::peer::LinkUse;
use crate::queue;
use crate::random::{ChoiceRng, KeyRng, Seed};
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::message::{Message, Whereabouts};
use crate::wire::nat::{NatProfile, PortAssignment};

/// A counter that rushed is looked at again after this.
const RUSH_AGE_MAX: Duration = Duration::from_secs(1_800);

/// All user links on their way from relayed to direct: a [`Target`] for each, and who waits for a budget.
pub(crate) struct Traversal {
    /// Tokens of checks.
    pub(super) keys: KeyRng,
    /// Where guesses begin.
    pub(super) choices: ChoiceRng,
    pub(super) targets: BTreeMap<PeerKey, Box<Target>>,
    /// For whom ports are guessed or held now, and what that link is for: for one at a time.
    pub(super) birthday: Option<(PeerKey, LinkUse)>,
    /// When our router's counter was last found to be moved on too fast.
    pub(super) counter_rushed: Option<Instant>,
    /// Those whose checks the budget holds back: when it frees for each, as far as is known, and whose turn it is.
    pub(super) queue: BTreeSet<(Instant, u64, PeerKey)>,
    /// The same ones by each address that they wait for.
    pub(super) awaited: BTreeSet<(Prefix, IpAddr, PeerKey)>,
    pub(super) turns: u64,
    pub(super) outputs: VecDeque<Output>,
}

impl Traversal {
    pub(crate) fn new(seed: &Seed) -> Self {
        Self {
            keys: seed.keys("traverse"),
            choices: seed.choices("traverse"),
            targets: BTreeMap::new(),
            birthday: None,
            counter_rushed: None,
            queue: BTreeSet::new(),
            awaited: BTreeSet::new(),
            turns: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Fresh entropy for what is secret.
    pub(crate) fn mix(&mut self, fresh: &[u8; 32]) {
        self.keys.mix(fresh);
    }

    /// What to do next. To be asked after every call, until there is nothing.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        queue::pop(&mut self.outputs, 0)
    }

    /// When there is something to do for a peer.
    pub(crate) fn poll_timeout_of(&self, key: PeerKey) -> Option<Instant> {
        self.targets.get(&key)?.poll_timeout()
    }

    /// Time passed: checks and efforts. To be followed by [`Self::handle_sweep`] and [`Self::handle_retry`], each told
    /// anew what is known of the peer.
    pub(crate) fn handle_timeout(&mut self, case: &mut Case<'_>) {
        self.run_checks(case);
        self.run_effort(case);
    }

    /// A relayed link tries again, if it is time.
    pub(crate) fn handle_retry(&mut self, case: &mut Case<'_>) {
        let now = case.now;
        let strategy = self.strategy(case.key, now, &case.peer, &case.around);
        let Some(target) = self.existing(case.key) else { return };
        let Some((_, tries)) = target.retry.filter(|(at, _)| *at <= now) else { return };
        let tries = tries + 1;
        if case.peer.paths.has_direct() || case.peer.is_dormant {
            target.retry = None;
            return;
        }
        if target.effort.is_some() || target.held.is_some() {
            // One attempt at a time, and none before its turn.
            target.retry = Some((now + retry_wait(0), tries - 1));
            return;
        }
        // Unless a router turns out to be another, nothing will help.
        let is_hopeless = matches!(strategy, Strategy::RelayOnly(_));
        target.retry = Some((now + retry_wait(if is_hopeless { u32::MAX } else { tries }), tries));
        self.upgrade(case);
    }

    // ---- what the node is told, and tells ----

    /// Where peers may try to reach us, and what that takes, for the given attempt.
    pub(crate) fn whereabouts(
        &self,
        now: Instant,
        around: &Around,
        network: &Network,
        (attempt, link_use): (u8, LinkUse),
    ) -> Whereabouts {
        let candidates = gather(network, &around.reflexive, link_use);
        Whereabouts { nat: self.profile(now, around), attempt, candidates }
    }

    /// What is known of our router, as peers are told: a counter that others move on too fast is as good as none.
    pub(crate) fn profile(&self, now: Instant, around: &Around) -> NatProfile {
        let mut profile = around.profile;
        let rushed = self.counter_rushed.is_some_and(|at| now.since(at) < RUSH_AGE_MAX);
        if rushed && matches!(profile.ports, PortAssignment::Sequential { .. }) {
            profile.ports = PortAssignment::Random;
        }
        profile.udp_blocked = around.is_udp_blocked;
        profile
    }

    /// The peer told where it is with its handshake, and was told where we are, or not.
    pub(crate) fn on_introduced(&mut self, key: PeerKey, told: bool, whereabouts: Whereabouts) {
        let target = self.target(key);
        (target.told, target.whereabouts, target.is_announced) = (told, whereabouts, true);
    }

    /// The peer is told where we are with our handshake.
    pub(crate) fn on_told(&mut self, key: PeerKey) {
        self.target(key).told = true;
    }

    /// The peer told us where it is.
    pub(crate) fn on_whereabouts(&mut self, case: &mut Case<'_>, whereabouts: Whereabouts) {
        if whereabouts.candidates.is_empty() {
            return;
        }
        let target = self.target(case.key);
        target.attempt = target.attempt.max(whereabouts.attempt);
        target.whereabouts = whereabouts;
        self.start_checks(case);
    }

    /// The peer told us where it is and asks the same.
    pub(crate) fn on_upgrade(&mut self, case: &mut Case<'_>, whereabouts: Whereabouts) {
        self.target(case.key).told = true;
        let mine = self.whereabouts(case.now, &case.around, case.network, (whereabouts.attempt, case.peer.link_use));
        self.outputs.push_back(Output::Send { peer: case.key, message: Message::Candidates(mine) });
        self.on_whereabouts(case, whereabouts);
    }

    /// Offers our candidates and asks for the peer's; checks start on both sides.
    pub(crate) fn upgrade(&mut self, case: &mut Case<'_>) {
        if case.peer.is_up {
            self.offer(case);
            self.start_checks(case);
        }
    }

    /// Offers our candidates and asks for the peer's.
    pub(super) fn offer(&mut self, case: &Case<'_>) {
        let target = self.target(case.key);
        target.told = true;
        let tries = target.retry.map_or(0, |(_, tries)| u8::try_from(tries).unwrap_or(u8::MAX));
        target.attempt = target.attempt.max(tries);
        let attempt = target.attempt;
        let mine = self.whereabouts(case.now, &case.around, case.network, (attempt, case.peer.link_use));
        self.outputs.push_back(Output::Send { peer: case.key, message: Message::Upgrade(mine) });
    }

    /// Our addresses changed, as others see them: a peer that we reach only by relay is told, if it was told before.
    pub(crate) fn on_candidates_changed(&mut self, case: &mut Case<'_>) {
        let was_told = self.existing(case.key).is_some_and(|target| target.told);
        if was_told && !case.peer.paths.has_direct() && !case.peer.is_dormant {
            self.upgrade(case);
        }
    }

    /// The link is up. Of a peer that is new under the same key, checks may not have begun with its Init: a direct path
    /// to where it was before stood in the way.
    pub(crate) fn on_link_up(&mut self, case: &mut Case<'_>) {
        let is_renewed = self.existing(case.key).is_some_and(|target| {
            target.is_announced = false;
            core::mem::take(&mut target.is_renewed)
        });
        if is_renewed {
            self.start_checks(case);
        } else {
            self.start_effort(case);
        }
    }

    /// Another path is in use, or none.
    pub(crate) fn on_path_changed(&mut self, now: Instant, key: PeerKey, is_direct: bool) {
        if is_direct {
            self.stop_waiting(key);
            self.target(key).start_over();
        } else {
            self.target(key).retry.get_or_insert((now + retry_wait(0), 0));
        }
    }

    /// A direct path is gone, and there is no other: one is looked for soon.
    pub(crate) fn retry_soon(&mut self, now: Instant, key: PeerKey) {
        self.target(key).retry.get_or_insert((now + retry_wait(0), 0));
    }

    /// This node may be elsewhere: its router is another one.
    pub(crate) fn on_network_changed(&mut self) {
        self.counter_rushed = None;
    }

    /// The same for one peer: from here the addresses that got nothing back may be reached.
    pub(crate) fn forget_exposure(&mut self, key: PeerKey) {
        if let Some(target) = self.existing(key) {
            target.exposure = Exposure::default();
        }
    }

    /// The peer answered from this address.
    pub(crate) fn attest(&mut self, now: Instant, key: PeerKey, ip: IpAddr, account: &mut Account) {
        self.target(key).exposure.attest(now, ip);
        account.peer_seen(now, ip);
        self.wake(Scope::Proven(ip));
    }

    /// Whether the peer is known to be at this address: it answered from there, or a home of ours said so.
    pub(crate) fn is_attested(&self, now: Instant, key: PeerKey, ip: IpAddr) -> bool {
        self.targets.get(&key).is_some_and(|target| target.exposure.is_attested(now, ip))
    }

    /// An answer to a check came from there: the round trip, if it is one.
    pub(crate) fn on_check_reply(
        &mut self,
        now: Instant,
        key: PeerKey,
        remote: SocketAddr,
        token: [u8; 8],
        account: &mut Account,
    ) -> Option<Duration> {
        let rtt = self.existing(key)?.checks.as_mut()?.on_reply(now, remote, token)?;
        self.give_back(key, account, false);
        Some(rtt)
    }

    /// The link is another one to the same peer. What was tried for the old one is over, but the new one may go through
    /// a socket of it.
    pub(crate) fn restart(&mut self, now: Instant, key: PeerKey) {
        self.end_birthday(key);
        self.stop_waiting(key);
        if let Some(target) = self.existing(key) {
            target.renew();
            target.sweep_later(now);
        }
    }

    /// The peer is gone, and all that was tried for it. Its sockets are to be closed.
    pub(crate) fn forget(&mut self, key: PeerKey) {
        self.end_birthday(key);
        self.stop_waiting(key);
        let Some(target) = self.targets.remove(&key) else { return };
        if self.targets.is_empty() {
            // An empty tree would keep its root.
            self.targets = BTreeMap::new();
        }
        self.close(target.sockets);
    }

    /// All peers of whom anything is known here.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.targets.keys().copied()
    }

    /// Whether time may bring something to do for a peer.
    pub(crate) fn is_busy(&self, key: PeerKey) -> bool {
        self.poll_timeout_of(key).is_some()
    }

    /// Why a link is relayed, if it is. Most are not, and need not be told what is around.
    pub(crate) fn relay_reason(
        &self,
        now: Instant,
        key: PeerKey,
        peer: &View<'_>,
        around: impl FnOnce() -> Around,
    ) -> Option<RelayReason> {
        if peer.paths.current()?.is_direct() {
            return None;
        }
        let Some(target) = self.targets.get(&key).filter(|t| !t.whereabouts.candidates.is_empty()) else {
            return Some(RelayReason::NotTriedYet);
        };
        if let Strategy::RelayOnly(why) = self.strategy(key, now, peer, &around()) {
            Some(why)
        } else if let Some(held) = &target.held {
            Some(RelayReason::BudgetHeld { wait: held.until.since(now) })
        } else if target.effort.is_some() || target.checks.is_some() {
            Some(RelayReason::Trying)
        } else {
            Some(RelayReason::TriedInVain)
        }
    }

    // ---- inside ----

    /// What this attempt with a peer asks for.
    pub(super) fn strategy(&self, key: PeerKey, now: Instant, peer: &View<'_>, around: &Around) -> Strategy {
        let controls = around.me < peer.id;
        let (theirs, attempt) =
            self.targets.get(&key).map_or((NatProfile::default(), 0), |t| (t.whereabouts.nat, t.attempt));
        choose(&self.profile(now, around), &theirs, attempt, controls)
    }

    pub(super) fn target(&mut self, key: PeerKey) -> &mut Target {
        self.targets.entry(key).or_default()
    }

    pub(super) fn existing(&mut self, key: PeerKey) -> Option<&mut Target> {
        self.targets.get_mut(&key).map(|target| &mut **target)
    }

    /// Nothing more is guessed or held for this peer.
    pub(super) fn end_birthday(&mut self, key: PeerKey) {
        self.birthday = self.birthday.filter(|(holder, _)| *holder != key);
    }

    pub(super) fn close(&mut self, sockets: BTreeSet<SocketId>) {
        if !sockets.is_empty() {
            self.outputs.push_back(Output::Close { sockets });
        }
    }
}
