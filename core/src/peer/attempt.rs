//! Handshakes that are not finished: those that we began, and those that we answered.

use core::time::Duration;

use crate::identity::PeerId;
use crate::link::{Epoch, Initiation};
use crate::net::Path;
use crate::path::Route;
use crate::time::Instant;

/// An Init to an address is sent three times, after 0, 0.5 and 1.5 s, and given up after 3.5.
pub(crate) const ATTEMPT_WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

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

/// One Init of ours that is not answered yet.
pub(crate) struct Attempt {
    pub(crate) initiation: Initiation,
    pub(crate) index: u32,
    pub(crate) route: AttemptRoute,
    pub(crate) packet: Box<[u8]>,
    /// The plaintext body, to build the Init again with a cookie.
    pub(crate) body: Box<[u8]>,
    pub(crate) sent: u8,
    pub(crate) at: Instant,
    pub(crate) first: Instant,
    pub(crate) cookie_used: bool,
}

impl Attempt {
    /// When it is repeated or given up. Introduced ones are the call's business, but end in any case.
    pub(crate) fn due(&self) -> Instant {
        match self.route {
            AttemptRoute::Introduced(_) => self.first + Duration::from_secs(12),
            _ => self.at + ATTEMPT_WAITS[usize::from(self.sent.saturating_sub(1)).min(ATTEMPT_WAITS.len() - 1)],
        }
    }
}

/// A handshake that we answered; it becomes the link when its first Data arrives.
pub(crate) struct Pending {
    pub(crate) epoch: Epoch,
    pub(crate) ephemeral: [u8; 32],
    pub(crate) session: u64,
    pub(crate) time_us: u64,
    pub(crate) at: Instant,
    /// Where the Init came from and the Response went.
    pub(crate) route: Route,
    /// The Init came from where nothing was sent to, as far as is known: nothing but a way in that is open let it in.
    pub(crate) unasked: bool,
    /// The Response, to be sent again when its Init comes again from there.
    pub(crate) response: Box<[u8]>,
    pub(crate) user: bool,
}
