//! A thin mio loop around [`handfast_core::Node`], and the handle that programs use: [`Endpoint`].
//!
//! The core decides; this crate only carries. It owns sockets, buffers, the clock and the seed. Where to find what:
//!
//! | file | what |
//! | --- | --- |
//! | `endpoint`, `stream` | what programs use: [`Endpoint`], [`Acceptor`], [`Forward`], blocking [`Stream`]s |
//! | `command`, `requests` | how their wishes reach the loop; how they are carried out |
//! | `run_loop` | one turn: wait, read the clock, receive, tell the time, move bytes, drain |
//! | `events` | how the core's events are carried out |
//! | `clock`, `entropy`, `network`, `save` | what the core is told of the world, and what it wants kept |
//! | `lan` | announcing the node by multicast DNS, and who else is announced |
//! | `portmap`, `upnp`, `gateway` | asking the router for a port: sockets, UPnP on a thread, which router |
//! | `udp`, `transmit`, `forward` | UDP sockets in batches; what the node sends; what a relay forwards |
//! | `tcp` | TCP connections, where UDP does not get through |
//! | [`socks`] | the header that datagrams through a UDP relay carry |
//! | `connections` | streams in use here, by whom, and which are due for a visit |
//! | `listeners`, `local`, `pump` | local TCP and Unix sockets, pumped to and from streams |
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

mod board;
mod clock;
mod command;
mod connections;
mod endpoint;
mod entropy;
mod events;
mod forward;
mod gateway;
mod lan;
mod listeners;
mod local;
mod network;
mod portmap;
mod pump;
mod requests;
mod run_loop;
mod save;
mod seldom;
pub mod socks;
mod stream;
mod tcp;
mod transmit;
mod udp;
mod upnp;
mod waiting;

pub use endpoint::{Acceptor, Endpoint, Forward, OpenError, Pong};
pub use handfast_core::MappingProtocol;
pub use handfast_core::portmap::{Outcome as PortMappingOutcome, Report as PortMappingReport};
pub use handfast_core::{
    Access, CommandError, Config, ConnectError, Event, PathInfo, PeerId, Role, Save, Saved, SecretKey, ServiceName,
    Status, StreamEnd, Ticket,
};
pub use local::LocalSocket;
pub use stream::Stream;

/// How an [`Endpoint`] starts.
#[derive(Debug)]
pub struct Options {
    /// This node's identity.
    pub key: SecretKey,
    /// How the core is set up. Among a supernode's addresses, port 0 stands for the port that gets bound, and none at
    /// all for every address in `listen` that names an interface. With `lan`, the node is announced on the local network
    /// by multicast DNS, and finds others there; not behind a `udp_proxy`.
    pub config: Config,
    /// UDP addresses to bind. Empty: 0.0.0.0:0 and [::]:0 (IPv6 where the host has it).
    pub listen: Vec<SocketAddr>,
    /// TCP addresses to take links at beside those in `listen`, at all of which a supernode takes them anyway: port 443,
    /// say, for leaves in networks that let little else out.
    pub listen_tcp: Vec<SocketAddr>,
    /// Supernodes to start from.
    pub bootstrap: Vec<(PeerId, SocketAddr)>,
    /// File that keeps what the core asks to save (clock mark, sequence, anchors); none: nothing is kept.
    pub state_file: Option<PathBuf>,
    /// Send all UDP through this relay, each datagram behind an RFC 1928 §7 request header (RSV 0, FRAG 0, ATYP, address,
    /// port); datagrams from anywhere else are dropped. None: send straight.
    pub udp_proxy: Option<SocketAddr>,
    /// Ask the router to map the UDP ports, by PCP, NAT-PMP or UPnP. Not done behind a `udp_proxy`.
    pub port_map: bool,
}

impl Options {
    /// Any port, no supernode known, nothing kept: what most programs change is `bootstrap` and `state_file`.
    pub fn new(key: SecretKey, config: Config) -> Self {
        Self {
            key,
            config,
            listen: Vec::new(),
            listen_tcp: Vec::new(),
            bootstrap: Vec::new(),
            state_file: None,
            udp_proxy: None,
            port_map: true,
        }
    }
}

/// A new identity, from the operating system's randomness. Keep it: it is what others know this node by.
pub fn generate_key() -> io::Result<SecretKey> {
    Ok(SecretKey::from_bytes(&entropy::fresh()?))
}
