//! A [`Traversal`] with a few peers and nothing around it, driven by bytes: they name addresses, a victim's among them,
//! answer or not, tell how far they are, come, go and become direct, while time passes.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use super::attestation::Named;
use super::case::{Around, Case, Home, Output, View};
use super::traversal::Traversal;
use crate::account::Account;
use crate::identity::{PeerId, SecretKey};
use crate::net::{Network, PeerKey, SocketId};
use crate::operations::Bytes;
use crate::path::{Paths, Route};
use crate::peer::LinkUse;
use crate::random::Seed;
use crate::time::Instant;
use crate::wire::address::{Candidate, CandidateKind, Candidates};
use crate::wire::message::{Message, Whereabouts};
use crate::wire::nat::PunchState;
use crate::wire::nat::{FilteringBehavior, MappingBehavior, NatProfile, PortAssignment};
use crate::wire::packet::ChannelId;

/// One IP address that never answers and where no home sees anybody.
const VICTIM: [u8; 4] = [203, 0, 113, 66];
/// Its budget: three attempts begun a minute (threat D1), of ten packets each.
const VICTIM_PACKETS_MAX: usize = 30;
/// No more than three attempts send within so long: a minute, less the ten seconds that an attempt may take to its last
/// packet. In a whole minute there may also be the end of an earlier one.
const VICTIM_WINDOW: Duration = Duration::from_secs(50);

fn id(n: u8) -> PeerId {
    SecretKey::from_bytes(&[n; 32]).peer_id()
}

fn relayed() -> Route {
    let via = PeerKey { index: 99, generation: 0 };
    Route::Relayed { channel: ChannelId([7; 6]), via }
}

/// One peer as the node would know it.
pub(super) struct One {
    pub(super) key: PeerKey,
    pub(super) id: PeerId,
    pub(super) paths: Paths,
    /// Checks that were sent to it and may be answered.
    pub(super) checks: Vec<(SocketAddr, [u8; 8])>,
    asked: usize,
}

impl One {
    fn new(id: PeerId, key: PeerKey) -> Self {
        let mut one = Self { key, id, paths: Paths::default(), checks: Vec::new(), asked: 0 };
        one.set_direct(Instant::ZERO, None);
        one
    }

    fn set_direct(&mut self, now: Instant, remote: Option<SocketAddr>) {
        self.paths.remove(Route::is_direct);
        self.paths.on_handshake(now, relayed());
        if let Some(remote) = remote {
            self.paths.on_handshake(now, Route::Direct { socket: SocketId(0), remote });
        }
        self.paths.choose();
    }
}

/// All that a machine needs.
pub(super) struct Alone {
    pub(super) now: Instant,
    pub(super) machine: Traversal,
    pub(super) account: Account,
    me: PeerId,
    /// Who vouches for peers.
    pub(super) home: PeerId,
    network: Network,
    pub(super) peers: Vec<One>,
    profile: NatProfile,
    open: BTreeSet<SocketId>,
    next_socket: u32,
    /// When something went to the victim.
    to_victim: VecDeque<Instant>,
    pub(super) offers: usize,
}

impl Alone {
    pub(super) fn new(peers: u32) -> Self {
        let bound = SocketAddr::from(([0, 0, 0, 0], 7));
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            machine: Traversal::new(&Seed::new([1; 32])),
            account: Account::default(),
            me: id(100),
            home: id(101),
            network: Network { sockets: vec![(SocketId(0), bound)], ..Network::default() },
            peers: (0..peers).zip(1..).map(|(index, n)| One::new(id(n), PeerKey { index, generation: 0 })).collect(),
            profile: NatProfile::default(),
            open: BTreeSet::new(),
            next_socket: 10,
            to_victim: VecDeque::new(),
            offers: 0,
        }
    }

    pub(super) fn around(&self) -> Around {
        Around {
            me: self.me,
            profile: self.profile,
            is_udp_blocked: false,
            reflexive: vec![SocketAddr::from(([198, 51, 100, 200], 7))],
            homes: vec![Home {
                id: self.home,
                address: SocketAddr::from(([198, 18, 0, 1], 7)),
                key: PeerKey { index: 98, generation: 0 },
                direct: Some(SocketAddr::from(([198, 18, 0, 1], 7))),
            }],
        }
    }

    pub(super) fn view(one: &One) -> View<'_> {
        View { id: one.id, is_up: true, link_use: LinkUse::User, is_dormant: false, paths: &one.paths }
    }

    /// One call about one peer, and what it wants.
    pub(super) fn call(&mut self, nth: usize, act: impl FnOnce(&mut Traversal, &mut Case<'_>)) {
        let around = self.around();
        let one = &self.peers[nth];
        let mut case = Case {
            now: self.now,
            key: one.key,
            peer: Self::view(one),
            around,
            network: &self.network,
            account: &mut self.account,
        };
        act(&mut self.machine, &mut case);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Check { peer, socket, remote, token } => {
                    assert!(socket == SocketId(0) || self.open.contains(&socket), "from a socket that is open");
                    if remote.ip() == IpAddr::from(VICTIM) {
                        self.to_victim.push_back(self.now);
                    }
                    if let Some(one) = self.peers.iter_mut().find(|one| one.key == peer) {
                        one.checks.push((remote, token));
                    }
                }
                Output::Open { peer } => {
                    if let Some(one) = self.peers.iter_mut().find(|one| one.key == peer) {
                        one.asked += 1;
                    }
                }
                Output::Close { sockets } => {
                    for socket in sockets {
                        assert!(self.open.remove(&socket), "closed once");
                    }
                }
                Output::Send { message: Message::Upgrade(_), .. } => self.offers += 1,
                Output::Send { .. } | Output::Probe { .. } | Output::Vouch { .. } | Output::Disagreement => {}
            }
        }
    }

    /// Does what is due now, as the node does.
    pub(super) fn settle(&mut self) {
        for nth in 0..self.peers.len() {
            if self.machine.poll_timeout_of(self.peers[nth].key).is_some_and(|at| at <= self.now) {
                self.call(nth, Traversal::handle_timeout);
                self.call(nth, Traversal::handle_sweep);
                self.call(nth, Traversal::handle_retry);
            }
        }
        while let Some((key, held)) = self.machine.poll_turn(self.now) {
            let nth = self.peers.iter().position(|one| one.key == key).expect("who is gone does not wait");
            self.call(nth, |t, case| t.handle_turn(case, &held));
        }
    }

    /// Lets time pass, and does all that is due meanwhile.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            self.check();
            let next = self.peers.iter().filter_map(|one| self.machine.poll_timeout_of(one.key));
            let Some(at) = next.chain(self.machine.poll_timeout()).min().filter(|at| *at <= end) else { break };
            assert!(at > self.now, "a deadline does not advance");
            self.now = at;
        }
        self.now = end;
    }

    fn check(&mut self) {
        let now = self.now;
        self.to_victim.retain(|at| now.since(*at) < VICTIM_WINDOW);
        assert!(self.to_victim.len() <= VICTIM_PACKETS_MAX, "{} packets to a victim", self.to_victim.len());
        self.machine.assert_consistent();
    }

    pub(super) fn tell(&mut self, nth: usize, addresses: &[SocketAddr], attempt: u8, nat: NatProfile) {
        let candidate = |a: &SocketAddr| Candidate { kind: CandidateKind::ServerReflexive, address: (*a).into() };
        let candidates: Candidates = addresses.iter().map(candidate).collect();
        self.call(nth, |t, case| t.on_whereabouts(case, Whereabouts { nat, attempt, candidates }));
    }

    /// The peer answers a check that came, if any did.
    pub(super) fn answer(&mut self, nth: usize) -> bool {
        let one = &mut self.peers[nth];
        let Some((remote, token)) = one.checks.pop().filter(|(to, _)| to.ip() != IpAddr::from(VICTIM)) else {
            return false;
        };
        let (key, account) = (one.key, &mut self.account);
        let answered = self.machine.on_check_reply(self.now, key, remote, token, account).is_some();
        if answered {
            self.machine.attest(self.now, key, remote.ip(), account);
        }
        answered
    }

    /// Answers one request for a socket.
    fn open(&mut self, nth: usize, works: bool) {
        let one = &mut self.peers[nth];
        if one.asked == 0 {
            return;
        }
        one.asked -= 1;
        let key = one.key;
        let socket = works.then_some(SocketId(self.next_socket));
        self.next_socket += 1;
        self.open.extend(socket);
        let is_wanted = self.machine.on_socket(key, socket);
        if let Some(socket) = socket.filter(|_| !is_wanted) {
            self.open.remove(&socket);
        }
        self.call(nth, Traversal::run_effort);
    }

    fn forget(&mut self, nth: usize) {
        let PeerKey { index, generation } = self.peers[nth].key;
        self.machine.forget(self.peers[nth].key);
        self.carry_out();
        let id = self.peers[nth].id;
        self.peers[nth] = One::new(id, PeerKey { index, generation: generation + 1 });
    }
}

fn profile(byte: u8) -> NatProfile {
    use FilteringBehavior as Filter;
    use MappingBehavior as Map;
    let mapping =
        [None, Some(Map::EndpointIndependent), Some(Map::AddressDependent), Some(Map::AddressAndPortDependent)];
    let filtering = [
        None,
        Some(Filter::EndpointIndependent),
        Some(Filter::AddressDependent),
        Some(Filter::AddressAndPortDependent),
    ];
    let ports = [
        PortAssignment::Unknown,
        PortAssignment::Sequential { step: 1, newest: 2_000 },
        PortAssignment::Block { first: 2_048, width: 64 },
        PortAssignment::Random,
    ];
    let at = |shift: u8| usize::from(byte >> shift & 3);
    NatProfile { mapping: mapping[at(0)], filtering: filtering[at(2)], ports: ports[at(4)], udp_blocked: byte >= 0xf0 }
}

fn place(byte: u8) -> SocketAddr {
    let ip = match byte >> 4 {
        0..=3 => VICTIM,
        4..=7 => [203, 0, 113, byte & 3],
        8..=11 => [198, 51, 100, byte & 3],
        12 => [198, 51, 100, 200],
        _ => [192, 168, 1, byte & 3],
    };
    SocketAddr::from((ip, 1_000 + u16::from(byte & 7)))
}

/// Reads operations from bytes, each upon one of a few peers.
///
/// # Panics
/// Where the machine breaks a promise: that is a fault found.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut alone = Alone::new(6);
    let other = id(102);
    while !bytes.is_empty() {
        let op = bytes.u8();
        let nth = usize::from(op & 7) % alone.peers.len();
        let key = alone.peers[nth].key;
        match op >> 3 {
            0..=3 => {
                let (nat, attempt) = (profile(bytes.u8()), op >> 3);
                let addresses: Vec<SocketAddr> = bytes.take(3).iter().map(|b| place(*b)).collect();
                alone.tell(nth, &addresses, attempt, nat);
            }
            4 | 5 => alone.call(nth, Traversal::upgrade),
            6..=8 => drop(alone.answer(nth)),
            9 => {
                let remote = place(bytes.u8());
                let is_honest = remote.ip() != IpAddr::from(VICTIM);
                let now = alone.now;
                alone.peers[nth].set_direct(now, is_honest.then_some(remote));
                alone.machine.on_path_changed(now, key, is_honest);
            }
            10 => {
                let now = alone.now;
                alone.peers[nth].set_direct(now, None);
                alone.machine.on_path_changed(now, key, false);
            }
            11 | 12 => {
                let [a, b] = [bytes.u8(), bytes.u8()];
                let vouch = (a & 1 == 1).then(|| (other, place(a).into()));
                let newest = 1_024 + u16::from(b) * 8;
                let state = PunchState { attempt: b & 7, round: a >> 6, ready: a & 2 == 2, newest, vouch };
                let home = if a & 4 == 4 { Named::Linked } else { Named::Unknown };
                alone.call(nth, |t, case| t.on_punch(case, &state, home));
            }
            13 | 14 => {
                let address = place(bytes.u8() | 0x40);
                let home = alone.home;
                alone.call(nth, |t, case| t.on_vouched(case, &home, address));
            }
            15..=18 => alone.open(nth, op >> 3 != 15),
            19 => {
                let socket = SocketId(10 + u32::from(bytes.u8()));
                alone.call(nth, |t, case| t.on_seen(case, socket, place(0xa1)));
            }
            20 => {
                let candidate = Candidate { kind: CandidateKind::Mapped, address: place(bytes.u8()).into() };
                let candidates = Candidates::from_iter([candidate]);
                alone.machine.on_introduced(key, true, Whereabouts { candidates, ..Whereabouts::default() });
                if bytes.u8() & 1 == 0 {
                    alone.machine.restart(alone.now, key);
                }
                alone.call(nth, Traversal::on_link_up);
            }
            21 => alone.forget(nth),
            22 => alone.profile = profile(bytes.u8()),
            23 => alone.call(nth, Traversal::on_candidates_changed),
            24..=27 => alone.run_for(Duration::from_millis(u64::from(op & 7) * 40)),
            _ => alone.run_for(Duration::from_millis(u64::from(bytes.u16()))),
        }
        alone.settle();
        alone.check();
    }
    for nth in 0..alone.peers.len() {
        alone.forget(nth);
    }
    assert_eq!(alone.machine.poll_timeout(), None);
    assert!(alone.machine.peers().next().is_none() && alone.open.is_empty(), "all is over, and nothing is left");
}

#[cfg(test)]
mod tests {
    use crate::operations::drive_at_random;

    #[test]
    fn whatever_peers_say_a_victim_gets_little_and_nothing_stays() {
        super::drive(&[]);
        drive_at_random(150, 200, super::drive);
    }

    /// One attempt at a slow pace, two in the middle, and a minute after the first another one of many ports, whose
    /// packets leave at once: the end of the first falls in the same minute.
    #[test]
    fn regression_the_end_of_an_attempt_is_sent_after_it_has_stopped_to_count() {
        const WAIT: u8 = 0xf8;
        super::drive(
            &[
                [0, 0, 0, 0, 0].as_slice(),
                &[WAIT, 0x40, 0x9c],
                &[1, 0, 1, 2, 3, 2, 0, 4, 5, 6],
                &[WAIT, 0x20, 0x4e],
                &[3, 0, 7, 1, 4],
                &[WAIT, 0xe8, 3],
            ]
            .concat(),
        );
    }
}
