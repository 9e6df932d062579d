//! A supernode that a leaf may make its home: what is known of it, and what it was asked.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::identity::PeerId;
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::message::Load;

/// Of the link to a prospect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// There is none.
    Down,
    /// Asked for.
    Dialling,
    /// There is one.
    Up,
}

/// What a prospect was asked and has not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// Its load, to choose by.
    Load,
    /// How much room it has, which comes right behind its load.
    Room,
    /// To be our home, or to go on being it with a newer record.
    Register,
    /// Whether it lives: the other home says that it does not.
    Alive,
}

impl Question {
    /// First retransmission time-out; doubles with each try.
    pub(super) const fn rto(self) -> Duration {
        match self {
            Self::Register => Duration::from_secs(1),
            Self::Load | Self::Alive => Duration::from_millis(500),
            Self::Room => Duration::from_millis(100),
        }
    }

    /// How often it is asked.
    pub(super) const fn tries_max(self) -> u8 {
        match self {
            Self::Register => 3,
            Self::Load | Self::Alive => 2,
            Self::Room => 1,
        }
    }
}

/// All that a leaf knows, in boxes: a tree's node has room for eleven, and a leaf at rest knows two or three.
pub(super) type Prospects = BTreeMap<PeerId, Box<Prospect>>;

/// One that may become a home, or is one.
#[derive(Clone, Debug)]
pub(super) struct Prospect {
    pub(super) address: SocketAddr,
    /// Told by the user or kept from an earlier run: never forgotten in favour of others.
    pub(super) is_joined: bool,
    pub(super) link: Link,
    /// Was linked in this run.
    pub(super) is_proven: bool,
    /// Was a home when the last run ended: others may hold tickets that name it.
    pub(super) was_home: bool,
    /// Drawn to be compared with others and perhaps become a home.
    pub(super) is_drawn: bool,
    /// Was dialled since the current sweep over all prospects began.
    pub(super) is_tried: bool,
    pub(super) is_registered: bool,
    /// It was sent another record before it had answered for the last one: the next answer may be for that.
    pub(super) is_overtaken: bool,
    /// It was asked whether it lives when it was sent another record: the next load that it tells answers that.
    pub(super) owes_life: bool,
    /// A home named it, and nobody else did: it may be a friend of that home's.
    pub(super) is_named: bool,
    /// Left as a home that brought nobody: what it says does not bring it back sooner.
    pub(super) is_left: bool,
    /// Refused us, or was left: not asked again before.
    pub(super) refused_until: Option<Instant>,
    pub(super) question: Option<(Question, u8)>,
    /// It did not answer the last one, or was dialled and has not answered yet.
    pub(super) is_silent: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) load: Option<Load>,
    /// How many leaves it has and takes, as it said itself, as levels: of those without an advert.
    pub(super) places: Option<(u8, u8)>,
    /// The round trip, as the power of two of microseconds below it: smaller differences are none.
    pub(super) distance: Option<u8>,
}

impl Prospect {
    pub(super) fn new(address: SocketAddr, is_joined: bool) -> Self {
        Self {
            address,
            is_joined,
            link: Link::Down,
            is_proven: false,
            was_home: false,
            is_drawn: false,
            is_tried: false,
            is_registered: false,
            is_overtaken: false,
            owes_life: false,
            is_named: false,
            is_left: false,
            refused_until: None,
            question: None,
            is_silent: false,
            deadline: None,
            load: None,
            places: None,
            distance: None,
        }
    }

    /// Whether it shares a network prefix with another one, where that counts.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let (a, b) = (self.address.ip(), other.address.ip());
        !Prefix::is_exempt(a) && Prefix::of(a) == Prefix::of(b)
    }

    /// The same of any of those named.
    pub(super) fn is_near_any(&self, of: &[PeerId], all: &Prospects) -> bool {
        of.iter().filter_map(|peer| all.get(peer)).any(|other| other.is_near(self))
    }

    pub(super) fn is_refusing(&self, now: Instant) -> bool {
        self.refused_until.is_some_and(|until| until > now)
    }

    /// Whether it leaves open what it was asked, or that it was dialled, for longer than is usual: another one is drawn
    /// beside it.
    pub(super) fn is_slow(&self) -> bool {
        match self.link {
            Link::Up => self.is_silent || self.question.is_some_and(|(_, tries)| tries > 1),
            Link::Dialling => self.is_silent,
            Link::Down => false,
        }
    }

    /// Whether its load is known, or was asked for in vain.
    pub(super) fn is_weighed(&self) -> bool {
        self.question.is_none_or(|(q, _)| !matches!(q, Question::Load | Question::Room))
    }
}
