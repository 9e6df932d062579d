//! Calls made to see whether a leaf can be called: what a supernode does for a leaf of others that asks for it.
//!
//! The leaf gives an Init that only it can read ([`Message::Trial`]). It is looked up, and the homes that are found are
//! asked to bring it, as by any caller, twice ([`HOME_WAITS`]). A leaf that gets it refuses it, and by that refusal the
//! home is known to have brought it. When all have answered, or have had their time, and none brought it, the
//! record may have been an old one: the newest is looked for, and homes that it names besides are asked. Then the leaf is
//! told.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::account::{Rate, RateTable, Source};
use crate::identity::PeerId;
use crate::introduce::ephemeral_of;
use crate::overlay::output::Output;
use crate::overlay::pack::{Packer, send};
use crate::queue;
use crate::time::{Deadlines, Instant};
use crate::wire::message::{Message, Refusal};

/// Trials made for one prefix, where many may share an address,
const TRIALS_OF_ONE: Rate = Rate { interval: Duration::from_secs(1), burst: 16 };
/// and for all: each costs up to sixteen questions, and eight Inits that are brought. Homes are whom the leaf's records
/// name, four at most, so that in ten minutes no more of them may be new than the account of hearsay has places.
const TRIALS: Rate = Rate { interval: Duration::from_secs(1), burst: 64 };
/// Most prefixes, and peers where these do not count, whose rate is kept.
const TRIERS_MAX: usize = 1_024;
/// Most at a time; beyond, they are refused.
const TRIALS_MAX: usize = 256;
/// Longest Init that is taken: any that a home brings.
const INIT_MAX: usize = 512;
/// A lookup is over by then.
const LOOKUP_MAX: Duration = Duration::from_secs(8);
/// Homes have so long for each of the two times that they are asked.
const HOME_WAITS: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(2_500)];

struct Trial {
    init: Box<[u8]>,
    /// Those that were found and have not answered; nothing as long as they are looked for.
    asked: Option<Vec<(PeerId, SocketAddr)>>,
    /// How often they were asked.
    times: usize,
    /// All that ever were.
    tried: Vec<PeerId>,
    was_brought: bool,
    was_busy: bool,
    /// This is the second round, in which the newest record counts.
    is_again: bool,
    deadline: Option<Instant>,
}

/// All that are under way, by the leaf that is called.
pub(crate) struct Trials {
    by_leaf: BTreeMap<PeerId, Box<Trial>>,
    deadlines: Deadlines<PeerId>,
    /// Those that are to be looked up once more.
    again: VecDeque<PeerId>,
    taken: RateTable<Source>,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            by_leaf: BTreeMap::new(),
            deadlines: Deadlines::default(),
            again: VecDeque::new(),
            taken: RateTable::new(TRIALS_OF_ONE, TRIALS, TRIERS_MAX),
        }
    }

    /// Whether one is under way for this leaf.
    pub(crate) fn contains(&self, leaf: &PeerId) -> bool {
        self.by_leaf.contains_key(leaf)
    }

    /// Begins one, unless that would be too much.
    pub(crate) fn begin(&mut self, now: Instant, leaf: PeerId, by: Source, init: &[u8]) -> Result<(), Refusal> {
        let has_room = self.by_leaf.len() < TRIALS_MAX && init.len() <= INIT_MAX;
        if !has_room || ephemeral_of(init).is_none() || !self.taken.take(now, by) {
            return Err(Refusal::Busy);
        }
        let mut trial = Trial {
            init: init.into(),
            asked: None,
            times: 0,
            tried: Vec::new(),
            was_brought: false,
            was_busy: false,
            is_again: false,
            deadline: None,
        };
        self.deadlines.set(leaf, &mut trial.deadline, Some(now + LOOKUP_MAX));
        self.by_leaf.insert(leaf, Box::new(trial));
        Ok(())
    }

    /// Where the leaf is at home could not be found out: that says nothing of its homes.
    pub(crate) fn on_no_answer(&mut self, leaf: PeerId, out: &mut VecDeque<Output>) {
        if self.by_leaf.get(&leaf).is_some_and(|trial| trial.asked.is_none()) {
            self.end(leaf, out);
        }
    }

    /// The leaf is at home there, or nobody knows of it.
    pub(crate) fn on_homes(
        &mut self,
        now: Instant,
        leaf: PeerId,
        homes: impl Iterator<Item = (PeerId, SocketAddr)>,
        out: &mut VecDeque<Output>,
    ) {
        if let Some(trial) = self.by_leaf.get_mut(&leaf).filter(|trial| trial.asked.is_none()) {
            let asked: Vec<_> = homes.filter(|(home, _)| !trial.tried.contains(home)).collect();
            trial.tried.extend(asked.iter().map(|(home, _)| *home));
            trial.asked = Some(asked);
            trial.times = 0;
            self.ask(now, leaf, out);
        }
    }

    /// Where the record that was found did not help, it may be an old one: who is to be looked up once more, for the
    /// newest.
    pub(crate) fn poll_again(&mut self) -> Option<PeerId> {
        queue::pop(&mut self.again, 0)
    }

    /// Asks those that have not answered, unless they have had their time.
    fn ask(&mut self, now: Instant, leaf: PeerId, out: &mut VecDeque<Output>) {
        let Some(trial) = self.by_leaf.get_mut(&leaf) else { return };
        let asked = trial.asked.as_deref().unwrap_or_default();
        let Some(wait) = HOME_WAITS.get(trial.times).filter(|_| !asked.is_empty()) else {
            return self.end_round(now, leaf, out);
        };
        for (home, address) in asked {
            Packer::dialling(*home, *address, out).push(&Message::Introduce { peer: leaf, init: &trial.init });
        }
        trial.times += 1;
        self.deadlines.set(leaf, &mut trial.deadline, Some(now + *wait));
    }

    /// All that were found have answered, or had their time.
    fn end_round(&mut self, now: Instant, leaf: PeerId, out: &mut VecDeque<Output>) {
        let Some(trial) = self.by_leaf.get_mut(&leaf) else { return };
        if trial.was_brought || trial.asked.is_none() || core::mem::replace(&mut trial.is_again, true) {
            return self.end(leaf, out);
        }
        trial.asked = None;
        self.again.push_back(leaf);
        self.deadlines.set(leaf, &mut trial.deadline, Some(now + LOOKUP_MAX));
    }

    /// A home says what the leaf made of it. Whether that is about a trial.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        home: &PeerId,
        leaf: &PeerId,
        refusal: Refusal,
        out: &mut VecDeque<Output>,
    ) -> bool {
        let Some(trial) = self.by_leaf.get_mut(leaf) else { return false };
        let Some(asked) = &mut trial.asked else { return false };
        if !asked.iter().any(|(other, _)| other == home) {
            return false;
        }
        if refusal == Refusal::Busy {
            // It is asked once more.
            trial.was_busy = true;
            return true;
        }
        asked.retain(|(other, _)| other != home);
        // The leaf's own word.
        trial.was_brought |= refusal == Refusal::NotAllowed;
        if asked.is_empty() {
            self.end_round(now, *leaf, out);
        }
        true
    }

    fn end(&mut self, leaf: PeerId, out: &mut VecDeque<Output>) {
        let Some(mut trial) = self.by_leaf.remove(&leaf) else { return };
        self.deadlines.set(leaf, &mut trial.deadline, None);
        let in_vain = match trial.asked {
            // It says nothing of them.
            None => Refusal::Busy,
            Some(_) if trial.was_busy => Refusal::NoAnswer,
            Some(_) => Refusal::NotRegistered,
        };
        let refused = (!trial.was_brought).then_some(in_vain);
        send(out, leaf, &Message::TrialReply { refused });
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        while let Some(leaf) = self.deadlines.pop_due(now) {
            if let Some(trial) = self.by_leaf.get_mut(&leaf) {
                trial.deadline = None;
            }
            self.ask(now, leaf, out);
        }
        self.taken.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Identity, InitFixed, Macs, PeerKeys, initiate};
    use crate::overlay::home::testnet::{key, s};
    use crate::random::KeyRng;
    use crate::wire::DATAGRAM_LEN_MAX;
    use crate::wire::message::decode_next;

    const LEAF: u8 = 1;

    /// Any Init.
    fn init() -> Box<[u8]> {
        let (me, mut keys) = (Identity::new(key(LEAF)), KeyRng::new([7; 32]));
        let own = PeerKeys::new(me.id()).unwrap();
        let mut out = [0; DATAGRAM_LEN_MAX];
        let fixed = InitFixed { time_us: 1, session: 1 };
        let (_, len) = initiate(&me, &own, &mut keys, 1, fixed, &[0; 40], Macs::None, &mut out).unwrap();
        out[..len].into()
    }

    fn id(n: u8) -> PeerId {
        key(n).peer_id()
    }

    fn at(n: u8) -> (PeerId, SocketAddr) {
        (id(n), SocketAddr::from(([203, 0, n, 1], 4_000)))
    }

    /// Who was asked, and what the leaf was told.
    fn said(out: &mut VecDeque<Output>) -> (Vec<PeerId>, Vec<Option<Refusal>>) {
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        for output in out.drain(..) {
            match output {
                Output::SendAt { to, messages, .. } => {
                    let Ok(Message::Introduce { peer, init: brought }) = decode_next(&mut &*messages) else { panic!() };
                    assert_eq!((peer, brought), (id(LEAF), &*init()));
                    asked.push(to);
                }
                Output::Send { to, messages } => {
                    let Ok(Message::TrialReply { refused }) = decode_next(&mut &*messages) else { panic!() };
                    assert_eq!(to, id(LEAF));
                    told.push(refused);
                }
                other => panic!("{other:?}"),
            }
        }
        (asked, told)
    }

    fn begun() -> (Trials, VecDeque<Output>) {
        let mut trials = Trials::new();
        assert_eq!(trials.begin(s(0), id(LEAF), Source::Peer(id(LEAF)), &init()), Ok(()));
        (trials, VecDeque::new())
    }

    #[test]
    fn the_leafs_own_refusal_says_that_it_was_brought() {
        let (mut trials, mut out) = begun();
        trials.on_homes(s(1), id(LEAF), [at(2), at(3)].into_iter(), &mut out);
        assert_eq!(said(&mut out), (vec![id(2), id(3)], vec![]));
        assert!(!trials.on_answer(s(1), &id(4), &id(LEAF), Refusal::NotAllowed, &mut out), "it was not asked");
        assert!(trials.on_answer(s(1), &id(2), &id(LEAF), Refusal::NotAllowed, &mut out));
        assert!(!trials.on_answer(s(1), &id(2), &id(LEAF), Refusal::NotAllowed, &mut out), "once");
        assert!(trials.on_answer(s(1), &id(3), &id(LEAF), Refusal::NotRegistered, &mut out));
        assert_eq!(said(&mut out), (vec![], vec![None]));
        assert_eq!(trials.poll_timeout(), None);
    }

    #[test]
    fn homes_that_refuse_or_are_silent_have_not_brought_it() {
        let (mut trials, mut out) = begun();
        trials.on_homes(s(1), id(LEAF), [at(2), at(3)].into_iter(), &mut out);
        assert!(trials.on_answer(s(1), &id(2), &id(LEAF), Refusal::NotRegistered, &mut out));
        assert_eq!(said(&mut out), (vec![id(2), id(3)], vec![]));
        for _ in 0..2 {
            trials.handle_timeout(trials.poll_timeout().unwrap(), &mut out);
        }
        assert_eq!(said(&mut out), (vec![id(3)], vec![]));
        // The record may be an old one.
        assert_eq!((trials.poll_again(), trials.poll_again()), (Some(id(LEAF)), None));
        trials.on_homes(s(6), id(LEAF), [at(3), at(4)].into_iter(), &mut out);
        assert_eq!(said(&mut out), (vec![id(4)], vec![]), "who was asked was asked");
        assert!(trials.on_answer(s(6), &id(4), &id(LEAF), Refusal::NotRegistered, &mut out));
        assert_eq!(said(&mut out), (vec![], vec![Some(Refusal::NotRegistered)]));
        assert_eq!((trials.poll_again(), trials.poll_timeout()), (None, None));
    }

    #[test]
    fn one_that_nobody_knows_is_looked_up_once_more() {
        let (mut trials, mut out) = begun();
        trials.on_homes(s(1), id(LEAF), core::iter::empty(), &mut out);
        assert_eq!((said(&mut out), trials.poll_again()), ((vec![], vec![]), Some(id(LEAF))));
        trials.on_homes(s(2), id(LEAF), [at(2)].into_iter(), &mut out);
        assert!(trials.on_answer(s(2), &id(2), &id(LEAF), Refusal::NotAllowed, &mut out));
        assert_eq!(said(&mut out), (vec![id(2)], vec![None]));
    }

    #[test]
    fn who_is_busy_is_asked_once_more_and_then_it_is_said_that_it_was() {
        let (mut trials, mut out) = begun();
        trials.on_homes(s(1), id(LEAF), [at(2)].into_iter(), &mut out);
        for _ in 0..2 {
            assert_eq!(said(&mut out), (vec![id(2)], vec![]));
            assert!(trials.on_answer(s(1), &id(2), &id(LEAF), Refusal::Busy, &mut out));
            trials.handle_timeout(trials.poll_timeout().unwrap(), &mut out);
        }
        assert_eq!(trials.poll_again(), Some(id(LEAF)));
        trials.on_homes(s(6), id(LEAF), [at(2)].into_iter(), &mut out);
        assert_eq!(said(&mut out), (vec![], vec![Some(Refusal::NoAnswer)]));
    }

    #[test]
    fn a_lookup_that_never_ends_or_fails_says_nothing_of_the_homes() {
        let (mut trials, mut out) = begun();
        trials.on_no_answer(id(LEAF), &mut out);
        assert_eq!(said(&mut out), (vec![], vec![Some(Refusal::Busy)]));
        let (mut trials, mut out) = begun();
        let end = trials.poll_timeout().unwrap();
        trials.handle_timeout(end, &mut out);
        assert_eq!(said(&mut out), (vec![], vec![Some(Refusal::Busy)]));
        // It ends after all.
        trials.on_homes(end, id(LEAF), [at(2)].into_iter(), &mut out);
        assert_eq!(said(&mut out), (vec![], vec![]));
    }

    #[test]
    fn one_prefix_gets_a_few_and_the_others_get_theirs() {
        let mut trials = Trials::new();
        let mut take = |n: u8, by: Source| trials.begin(s(0), id(n), by, &init());
        let of = |n: u8| Source::of(id(n), Some(core::net::IpAddr::from([203, 0, 113, n])));
        let taken = (1..=40).filter(|n| take(*n, of(*n)).is_ok()).count();
        assert_eq!(taken, 16);
        assert_eq!(take(41, of(41)), Err(Refusal::Busy));
        let others = (50..=250).filter(|n| take(*n, Source::Peer(id(*n))).is_ok()).count();
        assert_eq!(taken + others, 64, "all together");
        let mut trials = Trials::new();
        let long = [&*init(), &[0; INIT_MAX]].concat();
        for init in [&[][..], &long] {
            assert_eq!(trials.begin(s(0), id(1), of(1), init), Err(Refusal::Busy));
        }
    }
}
