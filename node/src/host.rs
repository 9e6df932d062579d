//! A node in this process: state directory locked, key loaded, endpoint running, local socket open; and finding one
//! that runs already.
//!
//! `supernode` and `leaf` are such a node and nothing else. `connect`, `pipe`, `ping` and `expose` use the node of the
//! state directory if one runs; if none does, they become one for their own lifetime ([`attach`]) and talk to it
//! through the same socket, so that each command knows one way only and a second command finds the first one's node.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use handfast_io::{ConfigError, Endpoint, Event, Notice, Options, PeerId};

use crate::cli::RouterArgs;
use crate::exit::{Exit, Failure, limit_words};
use crate::key_file;
use crate::local_api::client::Client;
use crate::local_api::server::Server;
use crate::report::{PathReport, RelayLimits, short};
use crate::signals::Signals;
use crate::state_dir::{Lock, LockError, StateDir};
use crate::talk;

/// How long the goodbyes may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another command may take from its lock to its socket.
const STARTING_MAX: Duration = Duration::from_secs(5);
/// How long a command waits for the first home of its own node.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// After so many looks at who else uses the node, the user is told.
const LOOKS_UNSAID: u32 = 10;
/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A node in this process.
pub(crate) struct Host {
    endpoint: Endpoint,
    server: Server,
    // Freed last: the next node may start only when this one is gone.
    _lock: Lock,
}

/// How a node is to start; key and state are those of its directory.
pub(crate) struct Plan {
    options: Options,
    /// For the error if one of these cannot be had.
    listen: Vec<SocketAddr>,
}

impl Plan {
    /// A node in the role and with the limits of `options`.
    pub(crate) fn new(
        options: Options,
        listen: Vec<SocketAddr>,
        bootstrap: &[(PeerId, SocketAddr)],
        router: &RouterArgs,
    ) -> Self {
        let options = options
            .listen(listen.iter().copied())
            .bootstrap(bootstrap.iter().copied())
            .lan(router.lan())
            .port_mapping(router.port_map());
        Self { options, listen }
    }

    /// A leaf on any port.
    pub(crate) fn leaf(bootstrap: &[(PeerId, SocketAddr)], router: &RouterArgs) -> Self {
        Self::new(Options::leaf(), Vec::new(), bootstrap, router)
    }
}

impl Host {
    /// Starts the node of a state directory; a second one there is refused.
    pub(crate) fn start(state: &StateDir, plan: Plan) -> Result<Self, Failure> {
        match state.lock() {
            Ok(lock) => Self::start_locked(state, lock, plan),
            Err(LockError::Held(pid)) => Err(state.taken(pid)),
            Err(LockError::Failed(failure)) => Err(failure),
        }
    }

    fn start_locked(state: &StateDir, lock: Lock, plan: Plan) -> Result<Self, Failure> {
        let key = load_key(state)?;
        let Plan { options, listen } = plan;
        let relay_limits = RelayLimits::of(options.config());
        let endpoint = Endpoint::start(options.key(key).state_file(state.saved()))
            .map_err(|error| cannot_start(&error, &listen, state))?;
        narrate(&endpoint, relay_limits)?;
        state.create_socket_directory()?;
        let server = Server::start(state.socket(), endpoint.clone(), relay_limits).map_err(|error| {
            let next = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another node uses it; stop that one, or give this one its own: --state-dir DIR"
                }
                _ => "choose a directory that you may write to: --state-dir DIR",
            };
            Failure::new(
                Exit::Failure,
                format!("cannot open the local socket {}: {error}", state.socket().display()),
                next,
            )
        })?;
        Ok(Self { endpoint, server, _lock: lock })
    }

    /// The node.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The local socket.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Waits while other commands use this node, for more than the stream `own`; a signal ends the waiting.
    fn linger(&self, signals: &Signals, own: Option<u64>) {
        // The command's own connections are closed; the node notices within a moment, which is not worth a word.
        let mut looks = 0;
        while self.server.is_used_besides(own) && !signals.wait_timeout(LOOK_EVERY) {
            looks += 1;
            if looks == LOOKS_UNSAID {
                talk::note("other commands use this node: staying until they are done");
            }
        }
    }

    /// Tells peers and homes goodbye.
    pub(crate) fn close(self) {
        let Self { endpoint, server, _lock } = self;
        drop(server);
        endpoint.shutdown(SHUTDOWN_TIMEOUT);
    }
}

/// A running node to talk to, wherever it runs.
pub(crate) struct Attached {
    state: StateDir,
    /// The node, if it is this process.
    pub(crate) host: Option<Host>,
}

/// What an [`Attached`] gives to the thread that does the work.
pub(crate) struct Way {
    state: StateDir,
    starting: Option<Endpoint>,
    known: Vec<(PeerId, SocketAddr)>,
    /// Whom the command is about.
    peer: Option<PeerId>,
}

/// Finds the node of the state directory, or starts one that knows the supernodes `known`.
pub(crate) fn attach(
    state: &StateDir,
    known: &[(PeerId, SocketAddr)],
    router: &RouterArgs,
) -> Result<Attached, Failure> {
    let since = Instant::now();
    loop {
        if Client::connect(state.socket())?.is_some() {
            return Ok(Attached { state: state.clone(), host: None });
        }
        match state.lock() {
            Ok(lock) => {
                needs_someone(state, known, router)?;
                let host = Host::start_locked(state, lock, Plan::leaf(known, router))?;
                return Ok(Attached { state: state.clone(), host: Some(host) });
            }
            // A node between its lock and its socket.
            Err(LockError::Held(_)) if since.elapsed() < STARTING_MAX => thread::sleep(LOOK_EVERY),
            Err(LockError::Held(pid)) => return Err(state.taken(pid)),
            Err(LockError::Failed(failure)) => return Err(failure),
        }
    }
}

impl Attached {
    /// The way to the node, for another thread. `known` is passed on to a node that ran before.
    pub(crate) fn way(&self, known: &[(PeerId, SocketAddr)]) -> Way {
        Way {
            state: self.state.clone(),
            starting: self.host.as_ref().map(|host| host.endpoint.clone()),
            known: known.to_vec(),
            peer: None,
        }
    }

    /// The command is done, and with it the stream `own`: the node stays while others use it, then says goodbye.
    pub(crate) fn finish(self, signals: &Signals, own: Option<u64>) {
        if let Some(host) = self.host {
            host.linger(signals, own);
            host.close();
        }
    }

    /// The command was stopped: so is the node.
    pub(crate) fn abandon(self) {
        if let Some(host) = self.host {
            host.close();
        }
    }
}

impl Way {
    /// The same, for a command that is about this peer: it needs no supernode to reach a LAN node.
    pub(crate) fn towards(self, peer: PeerId) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// Waits until a node that was just started can be used: for its first home, or for the peer on the same LAN. One
    /// that knows no supernode has nothing to wait for; the core waits for LAN nodes.
    fn wait_usable(&self, endpoint: &Endpoint) -> bool {
        if !knows_someone(&self.state, &self.known) {
            return true;
        }
        let since = Instant::now();
        let is_near = |peer: PeerId| {
            endpoint.status().is_some_and(|status| status.lan_nodes.iter().any(|(near, _)| *near == peer))
        };
        while endpoint.wait_ready(LOOK_EVERY).is_err() {
            if self.peer.is_some_and(is_near) {
                return true;
            }
            if since.elapsed() >= READY_TIMEOUT {
                return false;
            }
        }
        true
    }

    /// A connection to the node, once it can be used.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let mut client = Client::connect_running(self.state.socket())?;
        match &self.starting {
            Some(endpoint) if !self.wait_usable(endpoint) => {
                return Err(Failure::new(
                    Exit::Unreachable,
                    format!("no supernode answers ({})", places(&self.known)),
                    "check that it is running, its address, and that UDP gets out of this network",
                ));
            }
            Some(_) => {}
            None => {
                for (supernode, at) in &self.known {
                    client.join(supernode, *at)?;
                }
            }
        }
        Ok(client)
    }

    /// A connection to the node, although it may not have found anybody.
    pub(crate) fn connect_even_lost(&self) -> Result<Client, Failure> {
        if let Some(endpoint) = &self.starting {
            // Found or not.
            let _ = endpoint.wait_ready(READY_TIMEOUT);
            return self.connect_again();
        }
        self.connect()
    }

    /// Another connection to the same node.
    pub(crate) fn connect_again(&self) -> Result<Client, Failure> {
        Client::connect_running(self.state.socket())
    }
}

/// Whether a node has any supernode to start from.
pub(crate) fn knows_someone(state: &StateDir, known: &[(PeerId, SocketAddr)]) -> bool {
    // An earlier run has left the supernodes it knew.
    !known.is_empty() || has_anchor(&state.saved())
}

/// A leaf that knows nobody, and may not look on the local network, can do nothing, and waiting does not help it.
pub(crate) fn needs_someone(
    state: &StateDir,
    known: &[(PeerId, SocketAddr)],
    router: &RouterArgs,
) -> Result<(), Failure> {
    if !knows_someone(state, known) && !router.lan() {
        return Err(Failure::usage(
            "this node knows no supernode yet",
            "name one with --bootstrap hf1…@HOST:PORT, or use a ticket (its owner gets it from: handfast ticket)",
        ));
    }
    Ok(())
}

/// Whether an earlier run kept a supernode in io's state file. Only looked at: io reads it, and complains if it cannot.
fn has_anchor(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with("anchor ")))
}

/// `at` with a port in place of 0 that is free for UDP and TCP. A supernode signs its port before it starts, so it has
/// to be known by then; another program could take it in the moment between, and then the start fails and says so.
pub(crate) fn free_port(at: SocketAddr) -> io::Result<SocketAddr> {
    if at.port() != 0 {
        return Ok(at);
    }
    let mut bound = UdpSocket::bind(at)?.local_addr()?;
    for _ in 0..16 {
        if TcpListener::bind(bound).is_ok() {
            break;
        }
        bound = UdpSocket::bind(at)?.local_addr()?;
    }
    Ok(bound)
}

/// Addresses of supernodes, for an error.
pub(crate) fn places(known: &[(PeerId, SocketAddr)]) -> String {
    if known.is_empty() {
        return "those of an earlier run".into();
    }
    let places: Vec<_> = known.iter().map(|(peer, at)| format!("{}@{at}", short(&peer.to_string()))).collect();
    places.join(", ")
}

/// The identity of a state directory; a new one is announced.
pub(crate) fn load_key(state: &StateDir) -> Result<handfast_io::SecretKey, Failure> {
    let path = state.key();
    let (key, new) = key_file::load_or_create(&path)?;
    if new {
        talk::note(format!("identity   new key saved to {}", path.display()));
    }
    Ok(key)
}

/// Says in the log what happens to the node.
fn narrate(endpoint: &Endpoint, relay_limits: RelayLimits) -> Result<(), Failure> {
    let events = endpoint.events();
    let tell = move || {
        for notice in events {
            let event = match notice {
                Notice::Event(event) => event,
                Notice::Lost(count) => {
                    tracing::warn!(count, "more happened than could be told");
                    continue;
                }
                _ => continue,
            };
            match event {
                Event::Ready => tracing::info!("ready"),
                Event::RoleChanged { supernode: true, addresses } => {
                    let at = addresses.iter().map(|at| format!("{at} (udp)")).collect::<Vec<_>>().join(", ");
                    talk::note(format!(
                        "supernode  ON at {at}, which others have dialled; helping others within: {}. Change: --rate, \
                         --quota; never: --role leaf",
                        relay_limits.to_text()
                    ));
                }
                Event::RoleChanged { supernode: false, .. } => {
                    talk::note("supernode  OFF: the internet reaches this node no longer; it goes on as a leaf");
                }
                Event::Unreached { address, by } => talk::note(format!(
                    "unreached  {address}: supernode {by} has been there in vain, and tells nobody of this one. Is UDP let in \
                     there by firewall and router, and is --advertise right?"
                )),
                Event::Volunteering { on: true } => talk::note(
                    "volunteer  ON: relaying for strangers who cannot reach each other; they learn this node's address, \
                     and may use nothing of it. Limits: --volunteer-rate, --volunteer-quota",
                ),
                Event::Volunteering { on: false } => {
                    talk::note(
                        "volunteer  OFF: it is a supernode now, or the router or the day's bytes do not allow it",
                    );
                }
                Event::Homeless => tracing::warn!("no home answers any more; trying others"),
                Event::PathChanged { peer, path } => {
                    let path = PathReport::from(path);
                    // An address is for those who asked to see it.
                    tracing::info!(peer = %short(&peer.to_string()), path = %path.path, "path");
                    tracing::debug!(peer = %peer, path = %path.to_text(), "path");
                }
                Event::RelayLimited { peer, relay, limit, .. } => {
                    let (peer, relay) = (short(&peer.to_string()), short(&relay.to_string()));
                    tracing::warn!(%peer, %relay, "{}; looking for another one", limit_words(limit));
                }
                Event::OtherVersion { remote, lowest, highest } => {
                    let who = remote.map_or_else(|| "a caller".to_owned(), |remote| remote.to_string());
                    let theirs = if lowest == highest { lowest.to_string() } else { format!("{lowest} to {highest}") };
                    tracing::warn!(
                        "{who} reads handshakes of version {theirs}, and this release those of version 1: install the \
                         newer release on the older side (handfast --version says which one this is)"
                    );
                }
                Event::PeerGone { peer } => tracing::info!(peer = %short(&peer.to_string()), "gone"),
                Event::ConnectFailed { peer, error } => {
                    tracing::info!(peer = %short(&peer.to_string()), %error, "cannot connect");
                }
                _ => {}
            }
        }
    };
    thread::Builder::new().name("narrator".into()).spawn(tell).map_err(|error| Failure::io("cannot start", &error))?;
    Ok(())
}

/// Why the node did not start.
pub(crate) fn cannot_start(error: &io::Error, listen: &[SocketAddr], state: &StateDir) -> Failure {
    let at = listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Exit::Failure,
            format!("UDP {at} is in use by another program"),
            "stop that one, or choose another --listen HOST:PORT",
        ),
        io::ErrorKind::AddrNotAvailable => Failure::new(
            Exit::Failure,
            format!("UDP {at} is no address of this machine"),
            "choose one of its own with --listen (and say with --advertise how others reach it)",
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::Failure,
            format!("this user may not listen on UDP {at}, or not write to {}", state.saved().display()),
            "choose a --listen port above 1023, and a --state-dir of your own",
        ),
        _ if is_about_advertising(error) => Failure::new(
            Exit::Failure,
            format!("cannot start the node: {error}"),
            "say with --advertise HOST:PORT how others reach it",
        ),
        _ => Failure::io("cannot start the node", error),
    }
}

/// Whether the core did not like the addresses that a supernode is to be reached at.
fn is_about_advertising(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(ConfigError::Advertise))
}
