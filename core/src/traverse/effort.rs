//! An effort: an attempt that takes more than checks to the addresses told. Both sides make it at the same time.
//!
//! It begins on each side when that side knows both profiles, and goes three steps:
//!
//! 1. *Evidence.* Each side asks the other to have itself vouched for at a home of the asker's ([`PunchState::vouch`]):
//!    the other says to that home that it may tell, and the home tells where it sees it. Whoever is seen at an address
//!    receives what is sent there, and a supernode that the asker chose says so.
//! 2. *Agreement.* With that, and within its budget, a side is ready, and says so. Nothing is sent to many ports before
//!    both are: nobody is guessed at who does not want it.
//! 3. *Work*: prediction ([`Predictor`]) or birthday ([`Holder`], [`Guesser`]). A plain retry has no work of its own:
//!    the evidence lets the checks go on.
//!
//! What is told is a state and may come twice or not at all; it is repeated until the other side goes on. The effort
//! ends when a direct path works, or at its deadline. It is handed what happened (`on_*`) and says what to do
//! ([`Effort::step`]).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::birthday::{BIRTHDAY_MAX, Guesser, Holder};
use super::prediction::{Predictor, ROUND, ROUNDS_MAX};
use super::step::Step;
use super::strategy::Strategy;
use crate::identity::PeerId;
use crate::net::SocketId;
use crate::time::{Instant, earliest};
use crate::wire::address::{Address, CandidateKind, Candidates};
use crate::wire::nat::PunchState;

/// Both sides must be ready within this: it takes a link to another's home, and a few losses.
const AGREE_MAX: Duration = Duration::from_secs(6);
/// What is told is told again after this.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// To a peer that says again what it has said, not more often than this.
const TELL_AGAIN: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
enum Work {
    /// Not both are ready yet.
    Agreeing,
    Plain,
    Predict(Box<Predictor>),
    Hold(Holder),
    Guess(Guesser),
}

/// One effort: how far both sides are agreed, the work under way, and the evidence for where the peer is.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    strategy: Strategy,
    attempt: u8,
    work: Work,
    /// A home of ours, and where it is: who shall vouch for the peer.
    home: Option<(PeerId, Address)>,
    endpoints: Candidates,
    random: u64,
    deadline: Instant,
    attested: Option<IpAddr>,
    asked: bool,
    ready: bool,
    peer_ready: bool,
    told_at: Option<Instant>,
    tell_at: Option<Instant>,
}

impl Effort {
    /// Begins an attempt with a peer that told these candidates.
    pub(crate) fn new(
        now: Instant,
        strategy: Strategy,
        attempt: u8,
        home: Option<(PeerId, SocketAddr)>,
        candidates: &Candidates,
        random: u64,
    ) -> Self {
        Self {
            strategy,
            attempt,
            work: Work::Agreeing,
            home: home.map(|(id, at)| (id, at.into())),
            endpoints: candidates.clone(),
            random,
            deadline: now + AGREE_MAX,
            attested: None,
            asked: false,
            ready: false,
            peer_ready: false,
            told_at: None,
            tell_at: Some(now),
        }
    }

    /// Which attempt it is.
    pub(crate) const fn attempt(&self) -> u8 {
        self.attempt
    }

    /// What is done in it.
    pub(crate) const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whether both sides are at work.
    pub(crate) const fn is_at_work(&self) -> bool {
        !matches!(self.work, Work::Agreeing)
    }

    /// Whether this supernode was asked to vouch for the peer.
    pub(crate) fn asks(&self, home: &PeerId) -> bool {
        self.home.is_some_and(|(id, _)| id == *home)
    }

    /// What the peer is told.
    pub(crate) fn told(&self) -> PunchState {
        let (round, newest) = match &self.work {
            Work::Predict(p) => p.told(),
            _ => (0, 0),
        };
        let vouch = self.home.filter(|_| self.attested.is_none());
        PunchState { attempt: self.attempt, round, ready: self.ready, newest, vouch }
    }

    /// The peer told the same of itself.
    pub(crate) fn on_told(&mut self, now: Instant, state: &PunchState) {
        if state.attempt != self.attempt {
            return;
        }
        self.peer_ready |= state.ready;
        if let Work::Predict(p) = &mut self.work {
            p.on_told(now, state.round, state.newest);
        }
        // It may have missed what we said last.
        if self.tell_at.is_none() && self.told_at.is_none_or(|at| now.since(at) >= TELL_AGAIN) {
            self.tell_at = Some(now);
        }
    }

    /// A home of ours sees the peer there. Says whether that is the first word of it.
    pub(crate) fn on_attested(&mut self, ip: IpAddr) -> bool {
        let is_first = self.attested.is_none();
        self.attested.get_or_insert(ip);
        is_first
    }

    /// Whether the budget allows it.
    pub(crate) fn on_reserved(&mut self, now: Instant, granted: bool) {
        if granted {
            self.ready = true;
            self.tell_at = Some(now);
        } else {
            self.deadline = now;
        }
    }

    /// Its place is somebody else's now: it ends when it is next asked what to do.
    pub(crate) fn give_up(&mut self, now: Instant) {
        self.deadline = now;
    }

    /// A socket that was asked for, or none; false if it is not wanted.
    pub(crate) fn on_socket(&mut self, socket: Option<SocketId>) -> bool {
        match (&mut self.work, socket) {
            (Work::Hold(holder), socket) => {
                holder.on_socket(socket);
                true
            }
            (Work::Predict(p), Some(socket)) => p.on_socket(socket),
            _ => false,
        }
    }

    /// A home saw a socket of ours at this port.
    pub(crate) fn on_seen(&mut self, now: Instant, socket: SocketId, port: u16) {
        if let Work::Predict(p) = &mut self.work {
            p.on_seen(now, socket, port);
            self.tell_at = Some(now);
            if p.rushes() {
                self.deadline = now;
            }
        }
    }

    /// Whether our router's counter turned out to be moved by others too fast to be foreseen.
    pub(crate) fn rushes(&self) -> bool {
        matches!(&self.work, Work::Predict(p) if p.rushes())
    }

    /// What to do now; to be asked until there is nothing.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        if now >= self.deadline {
            return Some(Step::Over);
        }
        if let Some(ip) = self.attested.filter(|_| !self.asked) {
            self.asked = true;
            return Some(Step::Reserve(ip));
        }
        if self.ready && self.peer_ready && !self.is_at_work() {
            self.begin(now);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.told_at = Some(now);
            self.tell_at = self.repeats().then_some(now + TELL_EVERY);
            return Some(Step::Tell);
        }
        match &mut self.work {
            Work::Agreeing | Work::Plain => None,
            Work::Predict(p) => p.step(now),
            Work::Hold(h) => h.step(now),
            Work::Guess(g) => g.step(now),
        }
    }

    /// What was told is told again while the other side is awaited; where ports are told, all the time.
    const fn repeats(&self) -> bool {
        matches!(self.work, Work::Agreeing | Work::Predict(_))
    }

    fn begin(&mut self, now: Instant) {
        let Some(ip) = self.attested else { return };
        let at_ip = |kind: Option<CandidateKind>| {
            self.endpoints
                .iter()
                .filter(move |c| kind.is_none_or(|kind| c.kind == kind))
                .map(|c| SocketAddr::from(c.address))
                .filter(move |to| to.ip() == ip)
        };
        // What supernodes saw, before a port that the router claims to map.
        let endpoints = || at_ip(Some(CandidateKind::ServerReflexive)).chain(at_ip(None));
        (self.work, self.deadline) = match (self.strategy, endpoints().next()) {
            (Strategy::Plain | Strategy::RelayOnly(_), _) => (Work::Plain, now + AGREE_MAX),
            (Strategy::Predict { own, peer }, _) => {
                let work = Predictor::new(now, own, peer, ip, at_ip(Some(CandidateKind::ServerReflexive)));
                (Work::Predict(Box::new(work)), now + ROUND * u32::from(ROUNDS_MAX))
            }
            (Strategy::Guess { first, width, tries }, _) => {
                (Work::Guess(Guesser::new(now, ip, first, width, tries, self.random)), now + BIRTHDAY_MAX)
            }
            (Strategy::Hold { sockets }, Some(to)) => (Work::Hold(Holder::new(now, to, sockets)), now + BIRTHDAY_MAX),
            // It is not where it says.
            (Strategy::Hold { .. }, None) => (Work::Plain, now),
        };
        self.tell_at = Some(now);
    }

    /// When there is something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let work = match &self.work {
            Work::Agreeing | Work::Plain => None,
            Work::Predict(p) => p.poll_timeout(),
            Work::Hold(h) => h.poll_timeout(),
            Work::Guess(g) => g.poll_timeout(),
        };
        earliest(Some(self.deadline), earliest(self.tell_at, work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SecretKey;
    use crate::wire::address::Candidate;

    const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn home() -> (PeerId, SocketAddr) {
        (SecretKey::from_bytes(&[7; 32]).peer_id(), SocketAddr::from(([203, 0, 113, 1], 7)))
    }

    fn effort(strategy: Strategy) -> Effort {
        let address = SocketAddr::new(PEER, 9).into();
        let candidates = [Candidate { kind: CandidateKind::ServerReflexive, address }].into_iter().collect();
        Effort::new(at(0), strategy, 1, Some(home()), &candidates, 5)
    }

    fn drain(effort: &mut Effort, ms: u64) -> Vec<Step> {
        core::iter::from_fn(|| effort.step(at(ms))).take(1_000).take_while(|s| *s != Step::Over).collect()
    }

    const READY: PunchState = PunchState { attempt: 1, round: 0, ready: true, newest: 0, vouch: None };
    const GUESS: Strategy = Strategy::Guess { first: 1_024, width: 64_512, tries: 2_000 };

    #[test]
    fn nothing_is_sent_without_evidence_or_before_both_are_ready() {
        let mut e = effort(GUESS);
        let asked = |e: &Effort| e.told().vouch.is_some();
        assert_eq!(drain(&mut e, 0), [Step::Tell]);
        assert!(asked(&e) && !e.told().ready);
        e.on_told(at(10), &READY);
        let all: Vec<Step> = (11..2_990).flat_map(|ms| drain(&mut e, ms)).collect();
        assert!(all.iter().all(|s| *s == Step::Tell) && all.len() == 5, "{all:?}");
        e.on_attested(PEER);
        assert_eq!(drain(&mut e, 2_995), [Step::Reserve(PEER)]);
        e.on_reserved(at(3_000), true);
        assert!(!asked(&e) && e.told().ready);
        let steps = drain(&mut e, 3_000);
        assert!(matches!(steps[..], [Step::Tell, Step::Send { socket: None, to }] if to.ip() == PEER), "{steps:?}");
        assert!(e.is_at_work());
        assert_eq!(e.poll_timeout(), Some(at(3_010)));
    }

    #[test]
    fn it_ends_without_evidence_without_agreement_and_without_budget() {
        let over = |e: &mut Effort, ms| e.step(at(ms)) == Some(Step::Over);
        let mut e = effort(GUESS);
        drain(&mut e, 0);
        assert!(!over(&mut e, 5_999) && over(&mut e, 6_000));
        let mut e = effort(GUESS);
        e.on_attested(PEER);
        drain(&mut e, 0);
        e.on_reserved(at(0), true);
        e.on_told(at(10), &PunchState { attempt: 2, ..READY });
        assert!((0..6_000).all(|ms| drain(&mut e, ms).iter().all(|s| *s == Step::Tell)), "another attempt's");
        assert!(over(&mut e, 6_000));
        let mut e = effort(GUESS);
        e.on_attested(PEER);
        drain(&mut e, 0);
        e.on_reserved(at(20), false);
        assert!(over(&mut e, 20) && !e.told().ready);
    }

    fn at_work(strategy: Strategy) -> Effort {
        let mut e = effort(strategy);
        e.on_attested(PEER);
        e.on_told(at(0), &READY);
        assert_eq!(drain(&mut e, 0)[0], Step::Reserve(PEER));
        e.on_reserved(at(0), true);
        e
    }

    #[test]
    fn a_birthday_ends_after_20_seconds_and_2000_packets() {
        let mut e = at_work(GUESS);
        let sends = |steps: Vec<Step>| steps.iter().filter(|s| matches!(s, Step::Send { .. })).count();
        let sent: usize = (0..60_000).map(|ms| sends(drain(&mut e, ms))).sum();
        assert_eq!(sent, 2_000);
        assert_eq!(e.step(at(20_000)), Some(Step::Over));

        let mut e = at_work(Strategy::Hold { sockets: 256 });
        let mut sent = 0;
        let mut next = 0;
        for ms in 0..20_000 {
            for step in drain(&mut e, ms) {
                match step {
                    Step::Open => {
                        next += 1;
                        assert!(e.on_socket(Some(SocketId(next))));
                    }
                    Step::Send { socket, to } => {
                        assert_eq!((socket.is_some(), to), (true, SocketAddr::new(PEER, 9)));
                        sent += 1;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(next, 256);
        assert!((256..=2_000).contains(&sent), "{sent}");
        assert_eq!(e.step(at(20_000)), Some(Step::Over));
    }

    #[test]
    fn a_peer_seen_elsewhere_than_it_says_is_not_held_for() {
        let mut e = effort(Strategy::Hold { sockets: 256 });
        e.on_attested([198, 51, 100, 1].into());
        e.on_told(at(0), &READY);
        drain(&mut e, 0);
        e.on_reserved(at(0), true);
        assert!(drain(&mut e, 0).iter().all(|s| *s == Step::Tell));
        assert_eq!(e.step(at(0)), Some(Step::Over));
    }

    #[test]
    fn what_was_missed_is_told_again() {
        let mut e = at_work(GUESS);
        drain(&mut e, 0);
        e.on_told(at(200), &READY);
        assert!(!drain(&mut e, 200).contains(&Step::Tell), "just told");
        e.on_told(at(400), &READY);
        assert!(drain(&mut e, 400).contains(&Step::Tell));
    }

    #[test]
    fn ports_that_were_foreseen_are_told() {
        let mut e = at_work(Strategy::Predict { own: Some(1), peer: None });
        assert_eq!(drain(&mut e, 0), [Step::Tell, Step::Open]);
        assert!(e.on_socket(Some(SocketId(3))));
        assert_eq!(drain(&mut e, 1)[0], Step::Probe { socket: SocketId(3) });
        e.on_seen(at(40), SocketId(3), 5_000);
        assert_eq!(drain(&mut e, 40), [Step::Tell]);
        assert_eq!((e.told().newest, e.told().ready), (5_000, true));
    }
}
