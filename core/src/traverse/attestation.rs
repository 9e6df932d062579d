//! The evidence of a [`Traversal`] that a peer is where its packets are to go: a peer that is asked to has a supernode
//! say where it sees it, and only to the leaf that asked.

use core::net::SocketAddr;
use core::time::Duration;

use super::case::{Case, Output};
use super::strategy::Strategy;
use super::traversal::Traversal;
use crate::account::Scope;
use crate::identity::PeerId;
use crate::wire::nat::PunchState;

/// A supernode is asked to vouch for us once in this, for one peer.
const VOUCH_EVERY: Duration = Duration::from_millis(400);
/// Another supernode is dialled on a peer's word once in this.
const DIAL_EVERY: Duration = Duration::from_secs(5);
/// What a dial may cost an address that the peer named: three Inits, each this long at most.
const DIAL_PACKETS: u8 = 3;
const DIAL_BYTES: u16 = 3 * 224;

/// What is known of a home that a peer names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The link to it is up.
    Linked,
    /// It has told from there where it sees us.
    Answered,
    /// Nothing.
    Unknown,
}

impl Traversal {
    /// The peer tells how far it is, and perhaps names a home.
    pub(crate) fn on_punch(&mut self, case: &mut Case<'_>, state: &PunchState, home: Named) {
        if case.peer.paths.has_direct() {
            return;
        }
        let target = self.target(case.key);
        target.attempt = target.attempt.max(state.attempt);
        if let Some((home_id, address)) = state.vouch {
            self.be_vouched_for(case, home_id, address.into(), home);
        }
        self.start_effort(case);
        let now = case.now;
        if let Some(effort) = self.effort_of(case.key) {
            effort.on_told(now, state);
            self.run_effort(case);
        }
    }

    /// The peer wants a supernode's word on where we are.
    fn be_vouched_for(&mut self, case: &mut Case<'_>, home: PeerId, address: SocketAddr, named: Named) {
        let now = case.now;
        let target = self.target(case.key);
        let wait = if named == Named::Linked { VOUCH_EVERY } else { DIAL_EVERY };
        // One that has come up since it was dialled has got what waited for it.
        if target.vouched.is_some_and(|(asked, at)| now.since(at) < if asked == home { wait } else { DIAL_EVERY }) {
            return;
        }
        // The one account outlives the link, the other one counts more closely. What either refuses is charged to
        // neither: the first is shared with everybody whose way leads to that prefix.
        let (ip, exposure) = (address.ip(), &mut target.exposure);
        let may_ask = match named {
            Named::Linked => true,
            // A home that we have heard from there is nobody's victim: it may be asked again within the ten minutes.
            Named::Answered => case.account.take_attempt(now, address),
            Named::Unknown => {
                exposure.has_room(now, ip, DIAL_PACKETS, DIAL_BYTES)
                    && case.account.take_attempt(now, address)
                    && exposure.admit(now, ip, DIAL_PACKETS, DIAL_BYTES)
            }
        };
        if !may_ask {
            return;
        }
        target.vouched = Some((home, now));
        self.outputs.push_back(Output::Vouch { home, address, peer: case.peer.id });
    }

    /// A home of ours tells where it sees a peer that we asked about.
    pub(crate) fn on_vouched(&mut self, case: &mut Case<'_>, home: &PeerId, address: SocketAddr) {
        let (now, ip) = (case.now, address.ip());
        let Some(target) = self.existing(case.key) else { return };
        let Some(effort) = target.effort.as_mut().filter(|e| e.asks(home) && address.is_ipv4()) else { return };
        target.exposure.attest(now, ip);
        target.seen = Some((address, now));
        let is_news = effort.on_attested(ip);
        let is_plain = effort.strategy() == Strategy::Plain;
        case.account.peer_seen(now, ip);
        self.wake(Scope::Proven(ip));
        if is_news && is_plain {
            self.restart_checks(case, address);
        }
        self.run_effort(case);
    }

    /// The checks to an IP address begin anew. They cost nothing at exactly the address where the peer is seen.
    fn restart_checks(&mut self, case: &mut Case<'_>, seen: SocketAddr) {
        let now = case.now;
        let Some(checks) = self.targets.get_mut(&case.key).and_then(|target| target.checks.as_mut()) else { return };
        let is_other = |to: SocketAddr| to.ip() == seen.ip() && to != seen;
        let others_too = checks.addresses().any(is_other) && case.account.take_attempt(now, seen);
        let keys = &mut self.keys;
        checks.restart(now, |to| to == seen || (others_too && is_other(to)), || keys.bytes());
        self.run_checks(case);
    }
}
