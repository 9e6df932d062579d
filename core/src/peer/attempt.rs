//! Handshakes that are not finished: those that we began, and those that we answered.

use core::time::Duration;

use super::traffic::LinkUse;
use crate::identity::PeerId;
use crate::link::{Epoch, Initiation};
use crate::net::Path;
use crate::path::Route;
use crate::time::Instant;
use crate::wire::dialect::Dialect;

/// An Init to an address is sent three times, after 0, 0.5 and 1.5 s, and given up after 3.5.
pub(super) const ATTEMPT_WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// How often it is sent.
const SENDS_MAX: u8 = 3;
const _: () = assert!(SENDS_MAX as usize == ATTEMPT_WAITS.len());
/// One that is sent once is given up after as long.
const ONCE_WAIT: Duration = Duration::from_millis(3_500);

/// Where one of our Inits went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttemptRoute {
    /// To an address.
    Direct(Path),
    /// Through an existing channel.
    Relayed(Route),
    /// Inside an introduction by this home; the call repeats it.
    Introduced(PeerId),
}

/// Who says that a peer is where an Init of ours goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The user does, or this node found it there before: no stranger aims us.
    Own,
    /// Somebody else: the address may be a victim's, and what it gets is on one account for all that name it.
    Hearsay,
}

/// How an Init is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manner {
    /// Whose word its address rests on.
    pub(crate) origin: Origin,
    /// How often, while it is not answered.
    pub(super) sends_max: u8,
}

impl Manner {
    /// As often as any, by this word.
    pub(crate) const fn by(origin: Origin) -> Self {
        Self { origin, sends_max: SENDS_MAX }
    }

    /// To an address that nobody has been found at yet, once: it costs its owner no more than its naming cost.
    pub(crate) const ONCE: Self = Self { origin: Origin::Hearsay, sends_max: 1 };
}

impl AttemptRoute {
    /// Along a route that the link has.
    pub(super) fn along(route: Route) -> Self {
        route.path().map_or(Self::Relayed(route), Self::Direct)
    }
}

/// One Init of ours that is not answered yet.
pub(super) struct Attempt {
    pub(super) initiation: Initiation,
    pub(super) index: u32,
    pub(super) route: AttemptRoute,
    pub(super) manner: Manner,
    pub(super) packet: Box<[u8]>,
    /// The plaintext body, to build the Init again with a cookie.
    pub(super) body: Box<[u8]>,
    pub(super) sent: u8,
    pub(super) at: Instant,
    pub(super) first: Instant,
    pub(super) cookie_used: bool,
}

impl Attempt {
    /// When it is repeated or given up. Introduced ones are the call's business, but end in any case.
    pub(super) fn due(&self) -> Instant {
        match self.route {
            AttemptRoute::Introduced(_) => self.first + Duration::from_secs(12),
            _ if self.manner == Manner::ONCE => self.at + ONCE_WAIT,
            _ => self.at + ATTEMPT_WAITS[usize::from(self.sent.saturating_sub(1)).min(ATTEMPT_WAITS.len() - 1)],
        }
    }
}

/// A handshake that we answered; it becomes the link when its first Data arrives.
pub(super) struct Pending {
    pub(super) epoch: Epoch,
    pub(super) ephemeral: [u8; 32],
    pub(super) session: u64,
    pub(super) dialect: Dialect,
    pub(super) time_us: u64,
    pub(super) at: Instant,
    /// Where the Init came from and the Response went.
    pub(super) route: Route,
    /// The Init came from where nothing was sent to, as far as is known: nothing but a way in that is open let it in.
    pub(super) unasked: bool,
    /// The Response, to be sent again when its Init comes again from there.
    pub(super) response: Box<[u8]>,
    pub(super) link_use: LinkUse,
}
