//! What the overlay wants done: small intents that the node carries out.

use core::net::{IpAddr, SocketAddr};

use crate::api::Event;
use crate::identity::PeerId;
use crate::introduce::LookupFailure;
use crate::keepalive::Duty;
use crate::wire::message::{Load, Message, Refusal};

/// Where a peer is at home, or why that is not known.
pub(crate) type Location = Result<Vec<(PeerId, SocketAddr)>, LookupFailure>;

/// One intent. The parts of the room push them to one queue; [`Overlay::poll_output`](super::Overlay::poll_output)
/// gives them out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Send encoded messages over the link to this peer, as one Data packet; dropped if there is no link.
    Send {
        /// To whom.
        to: PeerId,
        /// One or more encoded [`Message`](crate::wire::message::Message)s, at most 1 100 bytes.
        messages: Box<[u8]>,
    },
    /// The same, but where there is no link one is opened at this address, and closed by the node when it is not used.
    SendAt {
        /// To whom.
        to: PeerId,
        /// Where that is.
        address: SocketAddr,
        /// As above.
        messages: Box<[u8]>,
    },
    /// Ask whether a peer lives that there is a link to, with as few bytes as can be; anything authentic that comes is
    /// an answer.
    AskAlive {
        /// Whom.
        peer: PeerId,
    },
    /// Open a link to a supernode at this address if there is none; `on_link_up` or `on_link_down` follows. Where a
    /// link is up already, `on_link_up` comes at once.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
    },
    /// Ask a supernode that is known by hearsay, with one Init, whether it is where it says, also where a link is up:
    /// [`on_reached`](super::Overlay::on_reached) follows if it answers, and
    /// [`on_vet_refused`](super::Overlay::on_vet_refused) at once if nothing may be sent there now.
    Vet {
        /// Whom.
        peer: PeerId,
        /// Where it says that it is.
        address: SocketAddr,
    },
    /// Open a link to this address, from which no packet of the peer ever came here, with
    /// [`Message::DialBack`](crate::wire::message::Message::DialBack) as its early message. Nobody waits for it; the
    /// node closes it when nothing else needs it.
    DialBack {
        /// Whom.
        peer: PeerId,
        /// Where another supernode sees it.
        address: SocketAddr,
        /// What it waits for.
        nonce: [u8; 8],
    },
    /// Keep the link to this peer, if there is one: a part of this room needs it.
    Keep {
        /// Whose.
        peer: PeerId,
    },
    /// Leave the link to this supernode alone: nothing is sent to keep it, and it is not closed.
    Rest {
        /// Whose.
        peer: PeerId,
    },
    /// A part of this room needs the link to this peer no longer; the node closes it when nothing else does.
    Release {
        /// Whose.
        peer: PeerId,
    },
    /// Ask of every link whether it is needed: this node is something else to others now.
    Review,
    /// A leaf is at home here no longer: [`dismissal`](super::dismissal) says what becomes of its link.
    Dismiss {
        /// Whom.
        leaf: PeerId,
    },
    /// Relay nothing for anybody any more.
    CloseChannels,
    /// Links that this node needs are kept alive so from now on.
    Duty(Duty),
    /// Say where a peer is at home to whoever looks for it.
    Locate {
        /// Whom.
        peer: PeerId,
        /// Where.
        location: Location,
    },
    /// A home of this leaf has been at an address that was inquired about.
    Attested {
        /// Which.
        ip: IpAddr,
    },
    /// A home has taken this leaf, once more or for the first time.
    AtHome,
    /// A link to a supernode is up that shows it where our packets come from.
    Seen,
    /// What stands before this node is to be looked at: at once or in a moment.
    Examine(When),
    /// This node has begun to serve others.
    Serving,
    /// It has ceased to.
    Ceased,
    /// Tell the caller.
    Event(Event),
}

/// When the router is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// What was found before may be so again.
    Now,
    /// Something that holds by the router may have changed.
    Soon,
}

/// What a leaf is sent that is at home here no longer; nothing where its link carries nothing else, and is closed.
pub(crate) fn dismissal(carries_user: bool) -> Option<Message<'static>> {
    carries_user.then_some(Message::RegisterReply { refused: Some(Refusal::NotASupernode), load: Load::FULL })
}
