//! A thin mio loop around [`handfast_core::Node`], and the handle that programs use: [`Endpoint`].
//!
//! The core decides; this crate only carries. It owns sockets, buffers, the clock and the seed. Its rooms, from the
//! bottom up; each uses those below it only:
//!
//! | room | what |
//! | --- | --- |
//! | `api` | the words in which programs and the loop talk |
//! | `host` | this host: clock, entropy, the network around, the LAN |
//! | `save` | what the core wants kept on disk |
//! | `udp`, `tcp` | the sockets that carry packets |
//! | `local` | local programs' sockets, pumped to and from streams |
//! | `portmap` | asking the router for a port |
//! | `driver` | the loop: one thread with the node, and the ways to it |
//! | `endpoint` | what programs hold: [`Endpoint`], [`Peer`], [`Stream`], [`Acceptor`], [`Forward`], [`Events`] |
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::time::Duration;
//!
//! use handfast_io::{Endpoint, Options, PeerId, ServiceName};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (supernode, address): (PeerId, std::net::SocketAddr) = ("hf1…".parse()?, "203.0.113.10:7441".parse()?);
//! # let server: PeerId = "hf1…".parse()?;
//! let patience = Duration::from_secs(10);
//! let endpoint = Endpoint::start(Options::leaf().bootstrap([(supernode, address)]))?;
//! endpoint.wait_ready(patience)?;
//! let service: ServiceName = "echo".parse()?;
//! let mut stream = endpoint.peer(server).open(&service, patience)?;
//! stream.write_all(b"hello")?;
//! stream.finish()?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::too_many_lines, clippy::too_many_arguments, clippy::missing_errors_doc, clippy::missing_panics_doc)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "numbers that tests make small"))]

mod api;
mod driver;
mod endpoint;
mod host;
mod local;
mod portmap;
mod save;
mod tcp;
mod udp;

pub use api::{Notice, OpenError, Pong, WaitError};
pub use driver::Options;
pub use endpoint::{Acceptor, Endpoint, Events, Forward, Peer, Stream, generate_key};
pub use handfast_core::MappingProtocol;
pub use handfast_core::portmap::{Outcome as PortMappingOutcome, Report as PortMappingReport};
pub use handfast_core::{
    Access, CommandError, Config, ConfigError, ConnectError, Event, LimitedRelay, PathInfo, PeerId, PeerStatus,
    RelayLimit, RelayReason, Role, SecretKey, ServiceName, Serving, Status, StreamEnd, Ticket, Transport,
    VolunteerStatus,
};
pub use local::LocalSocket;

/// For programs that come with this crate; nothing in it is kept as it is.
#[doc(hidden)]
pub mod internal {
    pub use crate::udp::{Detour, HEADER_LEN_MAX};
}
