//! The check lists of a [`Traversal`]: which addresses are worth a check, and what leaves when.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::case::{Case, Wish};
use super::checks::Checks;
use super::traversal::Traversal;
use crate::path::Route;
use crate::wire::address::{CandidateKind, Prefix, is_sendable};

/// Addresses behind our own router are tried from outside only when the way inside has not worked for so long.
const HAIRPIN_AFTER: Duration = Duration::from_millis(200);

/// What a candidate costs, cheapest first; the router's strategy concerns those from [`Cost::Reflexive`] on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cost {
    Host,
    Ipv6,
    Mapped,
    Reflexive,
    /// On our own external address.
    Hairpin,
}

impl Cost {
    fn of(kind: CandidateKind, address: SocketAddr, own: &[IpAddr]) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            _ if address.is_ipv6() => Self::Ipv6,
            _ if own.contains(&address.ip()) => Self::Hairpin,
            CandidateKind::Mapped => Self::Mapped,
            CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => Self::Reflexive,
        }
    }
}

impl Traversal {
    /// Starts a check list over the peer's candidates, unless a direct path works.
    pub(crate) fn start_checks(&mut self, case: &mut Case<'_>) {
        let now = case.now;
        let paths = case.peer.paths;
        if paths.current().is_some_and(|route| route.is_direct()) && paths.has_direct() {
            return;
        }
        let mut known = self.worth_checking(case);
        let target = self.target(case.key);
        let running = target.checks.clone().filter(|checks| checks.is_young(now));
        if let Some(checks) = &running {
            known.retain(|(_, address)| !checks.contains(*address));
        }
        let granted = case.account.take_attempts(now, known.iter().map(|(_, address)| *address));
        let mut checks = running.unwrap_or_else(|| Checks::new(now));
        for (cost, remote) in known.into_iter().filter(|(_, address)| granted.contains(address)) {
            let start = if cost == Cost::Hairpin { now + HAIRPIN_AFTER } else { now };
            checks.add(start, remote, self.keys.bytes());
        }
        self.target(case.key).checks = Some(checks);
        self.run_checks(case);
        self.start_effort(case);
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
                target.checks = None;
                return;
            }
            let Some((remote, token)) = checks.pop_due(now, &mut target.exposure) else { return };
            let Some(socket) = case.network.socket_for(remote) else { continue };
            if target.exposure.is_attested(now, remote.ip()) || case.account.unasked(now, remote) {
                self.wishes.push_back(Wish::Check { peer: key, socket, remote, token });
            }
        }
    }
}
