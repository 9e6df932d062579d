//! The check lists of a [`Traversal`]: which addresses are worth a check, and what leaves when.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::candidates::Cost;
use super::case::{Case, Output};
use super::checks::Checks;
use super::target::Queued;
use super::traversal::Traversal;
use crate::account::Grant;
use crate::path::Route;
use crate::peer::LinkUse;
use crate::wire::address::{Prefix, is_sendable};

/// Addresses behind our own router are tried from outside only when the way inside has not worked for so long.
const HAIRPIN_AFTER: Duration = Duration::from_millis(200);

impl Traversal {
    /// Starts a check list over the peer's candidates, unless a direct path works.
    pub(crate) fn start_checks(&mut self, case: &mut Case<'_>) {
        let paths = case.peer.paths;
        if paths.current().is_some_and(|route| route.is_direct()) && paths.has_direct() {
            return self.stop_waiting(case.key);
        }
        let known = self.worth_checking(case);
        self.list(case, known, None);
        self.run_checks(case);
        self.start_effort(case);
    }

    /// The turn has come of addresses that the budget held back.
    pub(crate) fn handle_turn(&mut self, case: &mut Case<'_>, held: &Queued) {
        let peer = case.peer;
        if peer.paths.has_direct() || peer.is_dormant || !peer.is_up {
            return;
        }
        let mut known = self.worth_checking(case);
        known.retain(|(_, address)| held.addresses.contains(address));
        if self.list(case, known, Some(held.turn)) {
            // The peer's own checks may be over by now.
            self.offer(case);
        }
        self.run_checks(case);
        self.start_effort(case);
    }

    /// Puts addresses on the check list, as far as the budget allows, and others in the queue: at its end, or where
    /// they were. Says whether any are new on the list.
    fn list(&mut self, case: &mut Case<'_>, mut known: Vec<(Cost, SocketAddr)>, turn: Option<u64>) -> bool {
        let (now, key) = (case.now, case.key);
        if self.existing(key).is_some_and(|t| t.checks.as_ref().is_some_and(|checks| !checks.is_young(now))) {
            self.end_checks(case);
        }
        // Those whose time has come go first.
        let must_wait = turn.is_none() && self.is_turn_due(now);
        let target = self.targets.entry(key).or_default();
        let mut checks = target.checks.take().unwrap_or_else(|| Checks::new(now));
        known.retain(|(_, address)| !checks.contains(*address));
        known.retain(|(_, address)| !target.held.as_ref().is_some_and(|held| held.addresses.contains(address)));
        // An address costs nothing where a home of ours sees the peer exactly there.
        let is_free = |address: &SocketAddr| Prefix::is_exempt(address.ip()) || target.is_seen_at(now, *address);
        let costly = known.iter().map(|(_, address)| *address).filter(|address| !is_free(address));
        let grants = if must_wait {
            costly.map(|address| (address, Grant::Held(now))).collect()
        } else {
            case.account.charge_attempts(now, costly)
        };
        let (mut is_any, mut held) = (false, Vec::new());
        for (cost, remote) in known {
            let grant = grants.iter().find(|(address, _)| *address == remote).map(|(_, grant)| *grant);
            let charge = match grant {
                None if !is_free(&remote) => continue,
                Some(Grant::Held(until)) => {
                    held.push((remote, until));
                    continue;
                }
                None => None,
                Some(Grant::Given(charge)) => charge,
            };
            let start = if cost == Cost::Hairpin { now + HAIRPIN_AFTER } else { now };
            is_any |= checks.add(start, remote, self.keys.bytes(), charge);
        }
        target.checks = Some(checks);
        self.hold(key, &held, turn);
        is_any
    }

    /// The check list is over: what was charged for nothing is given back.
    fn end_checks(&mut self, case: &mut Case<'_>) {
        self.give_back(case.key, case.account, true);
        if let Some(target) = self.existing(case.key) {
            target.checks = None;
        }
    }

    /// The addresses where the peer may be, those first that cost least.
    fn worth_checking(&mut self, case: &Case<'_>) -> Vec<(Cost, SocketAddr)> {
        let around = &case.around;
        let reflexive_too = self.strategy(case.key, case.now, &case.peer, around).checks_reflexive();
        let own: Vec<IpAddr> = around.reflexive.iter().map(SocketAddr::ip).collect();
        let target = self.target(case.key);
        let candidates = target.whereabouts.candidates.iter().map(|c| (c.kind, SocketAddr::from(c.address)));
        let mut known: Vec<(Cost, SocketAddr)> = candidates
            .map(|(kind, address)| (Cost::of(kind, address, &own), address))
            .filter(|(cost, _)| reflexive_too || *cost < Cost::Reflexive)
            .collect();
        // Where the peer was before may work again.
        known.extend(case.peer.paths.proven().filter_map(|route| match route {
            Route::Direct { remote, socket } => (!socket.is_tcp()).then_some((Cost::Reflexive, remote)),
            Route::Relayed { .. } => None,
        }));
        // Where UDP does not get out, the LAN is all that there is to try.
        known.retain(|(_, address)| !around.is_udp_blocked || Prefix::is_exempt(address.ip()));
        // A stranger has no say in what is sent to our neighbours.
        known.retain(|(_, address)| case.peer.link_use != LinkUse::Leg || !Prefix::is_exempt(address.ip()));
        let network = case.network;
        known.retain(|(_, address)| {
            is_sendable(*address) && network.socket_for(*address).is_some() && !network.is_own(*address)
        });
        known.sort_unstable();
        known
    }

    /// Sends the checks that are due.
    pub(super) fn run_checks(&mut self, case: &mut Case<'_>) {
        let (now, key) = (case.now, case.key);
        loop {
            let Some(target) = self.existing(key) else { return };
            let Some(checks) = target.checks.as_mut() else { return };
            if case.peer.paths.has_direct() || checks.is_over(now) {
                return self.end_checks(case);
            }
            let Some((remote, token)) = checks.pop_due(now, &mut target.exposure) else { return };
            let Some(socket) = case.network.socket_for(remote) else { continue };
            if target.exposure.is_attested(now, remote.ip()) || case.account.unasked(now, remote) {
                self.outputs.push_back(Output::Check { peer: key, socket, remote, token });
            }
        }
    }
}
