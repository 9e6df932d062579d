//! [`Options`]: how an endpoint is to start, in one builder.
//!
//! It stands with the driver, which is made from it, and not with the endpoint, which only hands it out: so nothing has
//! to be copied from one form into another, and its fields are seen by [`start`](super::start) alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use handfast_core::{Access, Config, PeerId, SecretKey};

use crate::udp::Detour;

/// How an [`Endpoint`](crate::Endpoint) starts: what it is to others ([`Options::leaf`], [`Options::supernode`],
/// [`Options::auto`]), then whatever should be different from usual.
///
/// Most programs say who they are ([`key`](Options::key)), whom to start from ([`bootstrap`](Options::bootstrap)) and
/// where to keep what the node learns ([`state_file`](Options::state_file)). What takes several of something adds to
/// what was said before.
///
/// ```
/// use handfast_io::{Options, generate_key};
///
/// let options = Options::leaf()
///     .key(generate_key()?)
///     .listen(["127.0.0.1:0".parse()?])
///     .port_mapping(false)
///     .lan(true);
/// assert!(options.config().lan);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Options {
    pub(super) key: Option<SecretKey>,
    pub(super) config: Config,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) listen_tcp: Vec<SocketAddr>,
    pub(super) bootstrap: Vec<(PeerId, SocketAddr)>,
    pub(super) state_file: Option<PathBuf>,
    pub(super) port_mapping: bool,
    pub(super) detour: Option<Detour>,
}

impl Options {
    /// A node that uses others and serves nobody: registered at supernodes, reached through them or directly.
    pub fn leaf() -> Self {
        Self::new(Config::leaf())
    }

    /// A node that serves others if it can, within small caps since nobody set it up for that: 20 Mbit/s, and 200 GB in
    /// 30 days.
    pub fn auto() -> Self {
        Self::new(Config::auto())
    }

    /// A node that others reach at these addresses, and that serves them. Port 0 stands for the port that gets bound,
    /// and no address at all for every address it [listens](Options::listen) at that names an interface.
    pub fn supernode(advertise: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new(Config::supernode(advertise.into_iter().collect()))
    }

    fn new(config: Config) -> Self {
        Self {
            key: None,
            config,
            listen: Vec::new(),
            listen_tcp: Vec::new(),
            bootstrap: Vec::new(),
            state_file: None,
            port_mapping: true,
            detour: None,
        }
    }

    /// This node's identity: what others know it by. Without one, a new one is made that nobody knows yet, and that is
    /// gone with the endpoint; see [`generate_key`](crate::generate_key).
    pub fn key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }

    /// UDP addresses to bind. Without any: `0.0.0.0:0` and `[::]:0` (IPv6 where the host has it).
    pub fn listen(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.listen.extend(addresses);
        self
    }

    /// TCP addresses to take links at, beside those of [`listen`](Options::listen), at all of which a supernode takes
    /// them anyway: port 443, say, for leaves in networks that let little else out.
    pub fn listen_tcp(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.listen_tcp.extend(addresses);
        self
    }

    /// Supernodes to start from.
    pub fn bootstrap(mut self, supernodes: impl IntoIterator<Item = (PeerId, SocketAddr)>) -> Self {
        self.bootstrap.extend(supernodes);
        self
    }

    /// Keeps in this file what the node needs to find back after a restart. Without one, nothing is kept.
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// Whether the router is asked to map the UDP ports, by PCP, NAT-PMP or UPnP. Usually it is.
    pub fn port_mapping(mut self, on: bool) -> Self {
        self.port_mapping = on;
        self
    }

    /// Whether the node is announced on the local network by multicast DNS, and finds others there. Usually not: the
    /// announcement shows everybody on the LAN who this is.
    pub fn lan(mut self, on: bool) -> Self {
        self.config.lan = on;
        self
    }

    /// Who may link to this node where no service lets them in: enough for pings, and for datagrams. Usually nobody.
    pub fn contacts(mut self, access: Access) -> Self {
        self.config.contacts = access;
        self
    }

    /// Most bits per second that a pair of peers may have relayed here, both ways together; 0 is unlimited.
    pub fn pair_rate_bps(mut self, rate_bps: u64) -> Self {
        self.config.relay_rate_bps = rate_bps;
        self
    }

    /// Most bytes that a pair of peers may have relayed here in a day, both ways together; 0 is unlimited.
    pub fn pair_quota_bytes(mut self, quota_bytes: u64) -> Self {
        self.config.relay_quota_bytes = quota_bytes;
        self
    }

    /// Most bits per second that this node relays for all together; 0 is unlimited.
    pub fn total_rate_bps(mut self, rate_bps: u64) -> Self {
        self.config.relay_total_rate_bps = rate_bps;
        self
    }

    /// Most bytes that this node relays in 30 days; 0 is unlimited.
    pub fn total_quota_bytes(mut self, quota_bytes: u64) -> Self {
        self.config.relay_total_quota_bytes = quota_bytes;
        self
    }

    /// Whether a node that is no supernode relays for strangers all the same, where its router allows it: at most so much
    /// for all together that a household does not notice. Usually not: they learn its address.
    pub fn volunteer(mut self, on: bool) -> Self {
        self.config.volunteer = on;
        self
    }

    /// Most bits per second that a volunteer relays for all together; 0 is unlimited.
    pub fn volunteer_rate_bps(mut self, rate_bps: u64) -> Self {
        self.config.volunteer_rate_bps = rate_bps;
        self
    }

    /// Most bytes that a volunteer relays in a day; 0 is unlimited.
    pub fn volunteer_quota_bytes(mut self, quota_bytes: u64) -> Self {
        self.config.volunteer_quota_bytes = quota_bytes;
        self
    }

    /// What the core will be told, as it stands.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sends all UDP on a detour, where neither router nor LAN is looked for.
    #[doc(hidden)]
    pub fn detour(mut self, detour: Detour) -> Self {
        self.detour = Some(detour);
        self
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::Role;

    use super::*;

    #[test]
    fn what_is_said_twice_is_added_or_replaced() {
        let peer = SecretKey::from_bytes(&[1; 32]).peer_id();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let options = Options::supernode([at(0)])
            .listen([at(1)])
            .listen([at(2)])
            .listen_tcp([at(3)])
            .bootstrap([(peer, at(4))])
            .total_rate_bps(5)
            .total_rate_bps(6)
            .contacts(Access::Any);
        assert_eq!(options.listen, [at(1), at(2)]);
        assert_eq!((options.listen_tcp, options.bootstrap), (vec![at(3)], vec![(peer, at(4))]));
        assert_eq!(options.config.role, Role::Supernode { advertise: vec![at(0)] });
        assert_eq!((options.config.relay_total_rate_bps, options.config.contacts), (6, Access::Any));
        assert!(options.port_mapping && !options.config.lan && options.state_file.is_none());
    }
}
