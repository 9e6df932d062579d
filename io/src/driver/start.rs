//! From [`Options`] to a running loop.
//!
//! Everything that can stand in the way is met here, before the thread starts: a damaged state file, an address that is
//! taken, a configuration that cannot work. The error names it, and nothing is left behind.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use handfast_core::{Node, PeerId, Role, SecretKey};
use mio::{Poll, Registry, Waker};

use super::bell::Bell;
use super::board::{Board, CloseOnDrop};
use super::carriers::Carriers;
use super::command::LoopHandle;
use super::options::Options;
use super::programs::Programs;
use super::surroundings::Surroundings;
use super::tokens::Source;
use super::traffic::Traffic;
use super::turn::{Loop, Queues};
use crate::host::{self, Clock, Lan, Watch};
use crate::portmap::PortMap;
use crate::save::{self, Saver};

/// A loop that runs, as its handles know it. Dropping it has the node leave.
pub(crate) struct Running {
    id: PeerId,
    listen: Vec<SocketAddr>,
    handle: LoopHandle,
    board: Arc<Board>,
}

impl Running {
    /// The node.
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Addresses the UDP sockets are bound to; the first is the main one.
    pub(crate) fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// Reaches the loop.
    pub(crate) fn handle(&self) -> &LoopHandle {
        &self.handle
    }

    /// What the loop tells every thread that looks.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.leave();
    }
}

/// Reads the state, binds the sockets, makes the node and starts the thread.
pub(crate) fn start(options: Options) -> io::Result<Running> {
    let Options { key, mut config, listen, listen_tcp, bootstrap, state_file, port_mapping, detour } = options;
    let key = key.map_or_else(|| host::fresh().map(|bytes| SecretKey::from_bytes(&bytes)), Ok)?;
    let id = key.peer_id();
    let saved = state_file.as_deref().map(save::load).transpose()?.unwrap_or_default();
    let clock = Clock::start();
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
    let (handle, commands) = LoopHandle::new(Arc::clone(&waker));
    let (bell, rung) = Bell::new(waker);

    let mut carriers = Carriers::new(poll.registry(), detour)?;
    carriers.bind(&listen, !matches!(config.role, Role::Leaf), &listen_tcp)?;
    let listen: Vec<SocketAddr> = carriers.main().iter().map(|(_, address)| *address).collect();
    fill_in_ports(&mut config.role, &listen);

    // A detour leads away from the router of this network, and from the LAN.
    let port_map =
        if port_mapping && detour.is_none() { port_map(&key, poll.registry(), &handle)? } else { PortMap::off() };
    let is_supernode = matches!(config.role, Role::Supernode { .. });
    let lan = if config.lan && detour.is_none() { lan(id, is_supernode, &listen, &handle) } else { None };
    let watch = Watch::new(clock.now(), poll.registry(), Source::Network.token());
    let mut surroundings = Surroundings::new(clock, watch, port_map, lan);

    let now = surroundings.now();
    let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut node =
        Node::new(now, surroundings.origin(), host::fresh()?, key, config, saved.clone()).map_err(refused)?;
    surroundings.introduce(&mut node, now, carriers.main());
    if !bootstrap.is_empty() {
        node.join(now, &bootstrap)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("bootstrap: {error}")))?;
    }

    let board = Arc::new(Board::default());
    let programs = Programs::new(poll.registry().try_clone()?, bell, Arc::clone(&board));
    if let Some(report) = surroundings.take_port_mapping() {
        programs.set_port_mapping(report);
    }
    let saver = Saver::start(state_file, saved)?;
    let traffic = Traffic::new(carriers, detour);
    let this = Loop::new(node, poll, Queues::new(commands, rung), traffic, surroundings, saver, programs);
    let close = CloseOnDrop::new(Arc::clone(&board));
    let run = move || {
        this.run();
        // Last of all, also when the loop panics: by now everything else is gone, and what is to be kept is written.
        drop(close);
    };
    std::thread::Builder::new().name("handfast".to_owned()).spawn(run)?;
    Ok(Running { id, listen, handle, board })
}

fn port_map(key: &SecretKey, registry: &Registry, handle: &LoopHandle) -> io::Result<PortMap> {
    let handle = handle.clone();
    let tell = Arc::new(move |internal, answer| handle.on_upnp(internal, answer));
    PortMap::new(key, registry.try_clone()?, Source::PortMap.token(), tell)
}

/// A host where multicast does not work hears of no LAN node, which is no reason not to run.
fn lan(id: PeerId, is_supernode: bool, bound: &[SocketAddr], handle: &LoopHandle) -> Option<Lan> {
    let handle = handle.clone();
    Lan::start(id, is_supernode, bound, move |news| handle.on_lan(news)).unwrap_or_else(|error| {
        tracing::info!(%error, "no LAN discovery");
        None
    })
}

/// Only io knows which port the system gave: it goes where the configuration left it open.
fn fill_in_ports(role: &mut Role, bound: &[SocketAddr]) {
    let Role::Supernode { advertise } = role else { return };
    if advertise.is_empty() {
        advertise.extend(bound.iter().filter(|address| !address.ip().is_unspecified()));
    }
    for address in advertise.iter_mut().filter(|address| address.port() == 0) {
        if let Some(same_family) = bound.iter().find(|bound| bound.is_ipv4() == address.is_ipv4()) {
            address.set_port(same_family.port());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_in_the_advertised_address_becomes_the_bound_one() {
        let bound = ["192.0.2.1:4000", "0.0.0.0:5000", "[2001:db8::1]:6000"].map(|text| text.parse().expect("address"));
        let filled = |advertise: &[&str]| {
            let advertise = advertise.iter().map(|text| text.parse().expect("address")).collect();
            let mut role = Role::Supernode { advertise };
            fill_in_ports(&mut role, &bound);
            match role {
                Role::Supernode { advertise } => advertise.iter().map(ToString::to_string).collect::<Vec<_>>(),
                _ => panic!("another role"),
            }
        };
        assert_eq!(filled(&[]), ["192.0.2.1:4000", "[2001:db8::1]:6000"]);
        assert_eq!(filled(&["203.0.113.5:0", "203.0.113.5:9"]), ["203.0.113.5:4000", "203.0.113.5:9"]);
        assert_eq!(filled(&["[2001:db8::2]:0"]), ["[2001:db8::2]:6000"]);
    }
}
