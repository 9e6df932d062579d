//! What `status`, `ping` and `EVENTS` say: JSON whose names are a promise (they only grow), and the same for people.

mod router;
mod serving;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use handfast_core::wire::message::Load;
use handfast_core::{DropReason, Transport};
use handfast_core::{LimitedRelay, RelayLimit, RelayReason};
use handfast_io::{Config, Event, Notice, PathInfo, PeerId, PortMappingReport, Role, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[cfg(test)]
pub(crate) use self::router::AddressReport;
use self::router::mapping_word;
pub(crate) use self::router::{Ipv6Report, MappingOutcome, NatReport, PortMapping};
pub(crate) use self::serving::{ServingReport, VolunteerReport};

/// A node as it sees itself.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct StatusReport {
    pub(crate) schema: String,
    pub(crate) version: String,
    pub(crate) id: String,
    /// `leaf` or `supernode`.
    pub(crate) role: String,
    pub(crate) pid: u32,
    pub(crate) uptime_ms: u64,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) advertise: Vec<SocketAddr>,
    pub(crate) observed: Vec<ObservedReport>,
    /// RFC 4787: `endpoint-independent`, `address-dependent` or `address-and-port-dependent`; null while unknown.
    pub(crate) mapping: Option<String>,
    pub(crate) reachable: Option<bool>,
    /// Whether the node finds its role by itself.
    #[serde(default)]
    pub(crate) auto: bool,
    /// Whether UDP gets out and back; null until somebody answered.
    #[serde(default)]
    pub(crate) udp: Option<bool>,
    #[serde(default)]
    pub(crate) nat: NatReport,
    #[serde(default)]
    pub(crate) ipv6: Ipv6Report,
    /// What the router said to the wish for a mapped port; null where it is not asked.
    #[serde(default)]
    pub(crate) port_mapping: Option<PortMapping>,
    /// How long the router keeps an idle UDP binding; null until measured.
    #[serde(default)]
    pub(crate) binding_lifetime_ms: Option<u64>,
    /// After how much silence a keep-alive leaves.
    #[serde(default)]
    pub(crate) keepalive_interval_ms: Option<u64>,
    pub(crate) homes: Vec<PlaceReport>,
    /// Who announces itself on the local network, and where.
    #[serde(default)]
    pub(crate) neighbors: Vec<PlaceReport>,
    pub(crate) peers: Vec<PeerReport>,
    pub(crate) supernodes: Vec<SupernodeReport>,
    /// Relays that have said that they carry no more for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) limited_relays: Vec<LimitedReport>,
    pub(crate) load: LoadReport,
    /// What this node relays at most for a pair of peers; null for a leaf, which relays nothing.
    #[serde(default)]
    pub(crate) relay_limits: Option<RelayLimits>,
    pub(crate) leaves: usize,
    /// Of these, those that volunteer.
    #[serde(default)]
    pub(crate) volunteers: usize,
    /// What it does as a supernode besides; null where it is none.
    #[serde(default)]
    pub(crate) serving: Option<ServingReport>,
    /// What this node does as a volunteer; null where it was not asked to be one.
    #[serde(default)]
    pub(crate) volunteer: Option<VolunteerReport>,
    pub(crate) channels: usize,
    pub(crate) services: Vec<ServiceReport>,
    pub(crate) counters: CountersReport,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ObservedReport {
    pub(crate) address: SocketAddr,
    /// The supernode that saw us there.
    pub(crate) by: String,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct PlaceReport {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
}

/// A relay that carries no more for now: for this node and `peer`, or for nobody.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct LimitedReport {
    pub(crate) relay: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    pub(crate) retry_after_s: u64,
}

impl From<LimitedRelay> for LimitedReport {
    fn from(limited: LimitedRelay) -> Self {
        Self {
            relay: limited.relay.to_string(),
            peer: limited.peer.map(|peer| peer.to_string()),
            retry_after_s: limited.retry_after.as_secs(),
        }
    }
}

impl LimitedReport {
    fn to_text(&self) -> String {
        let (relay, wait) = (short(&self.relay), duration(self.retry_after_s));
        match &self.peer {
            Some(peer) => {
                format!("{relay} carries no more with {} for {wait}: the day's bytes are used up", short(peer))
            }
            None => format!("{relay} carries no more for {wait}: its own bytes are used up"),
        }
    }
}

/// `direct` with `remote`, or `relay` with `via`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathReport {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<String>,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct PeerReport {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) path: PathReport,
    /// `udp` or `tcp`: what carries packets to the peer, or to the relay.
    #[serde(default)]
    pub(crate) transport: String,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) relayed_bytes: u64,
    /// The link only serves the network: a home, a registered leaf, another supernode.
    pub(crate) control: bool,
    /// Why packets go through a relay; absent when they do not, or for a link that only serves the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// How long the budget for attempts at unanswering addresses still holds the next one back, at most, unless others
    /// are first; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_ms: Option<u64>,
}

/// For people, and as stable as the rest of the report.
pub(crate) fn relay_words(why: RelayReason) -> Cow<'static, str> {
    Cow::Borrowed(match why {
        RelayReason::NotTriedYet => "nothing has been tried yet",
        RelayReason::Trying => "a direct path is being tried",
        RelayReason::BothRandom => "both routers pick ports that nobody can foresee",
        RelayReason::UdpBlocked => "one of the two networks lets no UDP out",
        RelayReason::TriedInVain => "every way was tried in vain; again later",
        RelayReason::BudgetHeld { wait } => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Cow::Owned(format!(
                "too many attempts there went unanswered: the next one waits, for {seconds} s at most unless others are first"
            ));
        }
        _ => "for a reason that this program has no words for",
    })
}

/// How long the budget still holds, if it is that.
pub(crate) fn held_ms(why: RelayReason) -> Option<u64> {
    match why {
        RelayReason::BudgetHeld { wait } => Some(whole_millis(wait)),
        _ => None,
    }
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct SupernodeReport {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) load: Option<LoadReport>,
}

/// Shares of capacity, 0 to 1.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub(crate) struct LoadReport {
    pub(crate) leaves: f64,
    pub(crate) introductions: f64,
    pub(crate) relay: f64,
}

/// Both ways together; 0 is unlimited.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RelayLimits {
    /// For a pair of peers.
    pub(crate) rate_bps: u64,
    /// For a pair of peers, each day.
    pub(crate) quota_bytes: u64,
    /// In all.
    #[serde(default)]
    pub(crate) total_rate_bps: u64,
    /// In all, in 30 days.
    #[serde(default)]
    pub(crate) total_quota_bytes: u64,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ServiceReport {
    pub(crate) name: String,
    /// The program behind it; null if one takes the streams through the local socket.
    pub(crate) target: Option<SocketAddr>,
    pub(crate) allow: Vec<String>,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct CountersReport {
    pub(crate) rx_datagrams: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_datagrams: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) forwarded_datagrams: u64,
    pub(crate) forwarded_bytes: u64,
    pub(crate) introductions: u64,
    pub(crate) introduction_datagrams: u64,
    pub(crate) introduction_bytes: u64,
    /// By reason.
    pub(crate) dropped: std::collections::BTreeMap<String, u64>,
}

/// Why datagrams are dropped, in the order in which the core counts them.
const DROP_REASONS: [(DropReason, &str); 11] = [
    (DropReason::Truncated, "truncated"),
    (DropReason::TooLong, "too_long"),
    (DropReason::Malformed, "malformed"),
    (DropReason::UnknownReceiver, "unknown_receiver"),
    (DropReason::Unauthentic, "unauthentic"),
    (DropReason::Replayed, "replayed"),
    (DropReason::Limited, "limited"),
    (DropReason::WrongPath, "wrong_path"),
    (DropReason::Quota, "quota"),
    (DropReason::BadContents, "bad_contents"),
    (DropReason::OtherVersion, "other_version"),
];

/// What the core does not know of its node.
pub(crate) struct Surroundings {
    pub(crate) uptime: Duration,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) relay_limits: RelayLimits,
    pub(crate) port_mapping: Option<PortMappingReport>,
    pub(crate) services: Vec<ServiceReport>,
}

impl StatusReport {
    /// The name of this form.
    pub(crate) const SCHEMA: &str = "handfast.status/1";

    pub(crate) fn new(status: Status, around: Surroundings) -> Self {
        let (role, advertise, relay_limits) = match status.role {
            Role::Supernode { advertise } => ("supernode", advertise, Some(around.relay_limits)),
            // Who serves nobody.
            _ => ("leaf", Vec::new(), None),
        };
        let counters = status.counters;
        let reach = status.reachability;
        Self {
            schema: Self::SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            id: status.id.to_string(),
            role: role.into(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(around.uptime.as_millis()).unwrap_or(u64::MAX),
            listen: around.listen,
            advertise,
            observed: status
                .observed
                .into_iter()
                .map(|(by, address)| ObservedReport { address, by: by.to_string() })
                .collect(),
            mapping: status.mapping.map(|mapping| mapping_word(mapping).into()),
            reachable: status.reachable,
            auto: status.auto,
            udp: status.udp_works,
            nat: NatReport::from(&reach),
            ipv6: Ipv6Report::from(&reach),
            port_mapping: around.port_mapping.map(PortMapping::from),
            binding_lifetime_ms: status.binding_lifetime.map(whole_millis),
            keepalive_interval_ms: Some(whole_millis(status.keepalive_interval)),
            homes: places(status.homes),
            neighbors: places(status.lan_nodes),
            peers: status
                .peers
                .into_iter()
                .map(|peer| PeerReport {
                    id: peer.peer.to_string(),
                    path: peer.path.into(),
                    transport: match peer.transport {
                        Transport::Udp => "udp".into(),
                        Transport::Tcp => "tcp".into(),
                        _ => "other".into(),
                    },
                    rtt_ms: peer.rtt.map(millis),
                    rx_bytes: peer.rx_bytes,
                    tx_bytes: peer.tx_bytes,
                    relayed_bytes: peer.relayed_bytes,
                    control: peer.control,
                    why: peer.why.map(relay_words).map(Cow::into_owned),
                    held_ms: peer.why.and_then(held_ms),
                })
                .collect(),
            supernodes: status
                .supernodes
                .into_iter()
                .map(|known| SupernodeReport {
                    id: known.peer.to_string(),
                    address: known.address,
                    load: known.load.map(LoadReport::from),
                })
                .collect(),
            limited_relays: status.limited_relays.into_iter().map(LimitedReport::from).collect(),
            load: status.load.into(),
            relay_limits,
            leaves: status.leaves,
            volunteers: status.volunteers,
            serving: status.serving.map(ServingReport::from),
            volunteer: status.volunteer.map(VolunteerReport::from),
            channels: status.channels,
            services: around.services,
            counters: CountersReport {
                rx_datagrams: counters.rx_datagrams,
                rx_bytes: counters.rx_bytes,
                tx_datagrams: counters.tx_datagrams,
                tx_bytes: counters.tx_bytes,
                forwarded_datagrams: counters.forwarded_datagrams,
                forwarded_bytes: counters.forwarded_bytes,
                introductions: counters.introductions,
                introduction_datagrams: counters.introduction_datagrams,
                introduction_bytes: counters.introduction_bytes,
                dropped: DROP_REASONS
                    .iter()
                    .filter_map(|(reason, name)| Some(((*name).into(), *counters.dropped.get(*reason as usize)?)))
                    .collect(),
            },
        }
    }

    /// For a terminal.
    pub(crate) fn to_text(&self) -> String {
        let mut out = Vec::new();
        let mapping = self.mapping.as_deref().unwrap_or("not known yet");
        out.push(format!("id         {}", self.id));
        let reachable = match self.reachable {
            Some(true) => " · reachable from the internet",
            Some(false) => " · not reachable from the internet",
            None => "",
        };
        out.push(format!("role       {}{reachable} · up {}", self.role, duration(self.uptime_ms / 1000)));
        out.push(format!("listen     {}", list(&self.listen, "nothing")));
        let mut observed: Vec<_> = self.observed.iter().map(|seen| seen.address).collect();
        observed.sort_unstable();
        observed.dedup();
        out.push(format!("seen as    {} · mapping {mapping}", list(&observed, "nobody saw us yet")));
        if let Some(address) = self.port_mapping.as_ref().and_then(PortMapping::mapped) {
            out.push(format!("mapped to  {address}, says the router"));
        }
        if let Some(interval) = self.keepalive_interval_ms {
            let lifetime = self
                .binding_lifetime_ms
                .map_or_else(String::new, |lifetime| format!(" · the router remembers for {} s", lifetime / 1000));
            out.push(format!("keep-alive after {} s of silence{lifetime}", interval / 1000));
        }
        let homes: Vec<_> = self.homes.iter().map(|home| format!("{} at {}", short(&home.id), home.address)).collect();
        out.push(format!("homes      {}", list(&homes, "none")));
        if self.udp == Some(false) {
            out.push("transport  UDP does not get out of this network: links go over TCP".into());
        }
        if !self.neighbors.is_empty() {
            let near: Vec<_> =
                self.neighbors.iter().map(|near| format!("{} at {}", short(&near.id), near.address)).collect();
            out.push(format!("on the LAN {}", list(&near, "nobody")));
        }
        for service in &self.services {
            let target = service.target.map_or_else(|| "a local program".into(), |target| target.to_string());
            let allow = list(&service.allow.iter().map(|who| short(who)).collect::<Vec<_>>(), "nobody");
            out.push(format!("service    {} → {target} · allowed: {allow}", service.name));
        }
        if self.role == "supernode" {
            out.push(format!(
                "load       {} · {} leaves · {} channels · {} introductions · {} relayed",
                self.load.to_text(),
                self.leaves,
                self.channels,
                self.counters.introductions,
                bytes(self.counters.forwarded_bytes),
            ));
        }
        out.extend(self.serving.iter().flat_map(|serving| serving.to_text(self.leaves)));
        if let Some(limits) = self.relay_limits {
            out.push(format!("relaying   within: {}", limits.to_text()));
        }
        out.extend(self.volunteer.map(|volunteer| format!("volunteer  {}", volunteer.to_text())));
        out.extend(self.limited_relays.iter().map(|limited| format!("limited    {}", limited.to_text())));
        if !self.peers.is_empty() {
            out.push(String::new());
            out.push(format!(
                "{:<18} {:<42} {:>9}  {:>9} / {:<9}  {:>9}",
                "PEER", "PATH", "RTT", "DOWN", "UP", "RELAYED"
            ));
            for peer in &self.peers {
                let rtt = peer.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.1} ms"));
                let mut path = peer.path.to_text();
                if peer.transport == "tcp" {
                    path.push_str(" by TCP");
                }
                if peer.control {
                    path.push_str(" (network)");
                }
                out.push(format!(
                    "{:<18} {path:<42} {rtt:>9}  {:>9} / {:<9}  {:>9}",
                    short(&peer.id),
                    bytes(peer.rx_bytes),
                    bytes(peer.tx_bytes),
                    bytes(peer.relayed_bytes),
                ));
                if let Some(why) = peer.why.as_ref().filter(|_| peer.held_ms.is_some()) {
                    out.push(format!("{:<18} {why}", ""));
                }
            }
        }
        if !self.supernodes.is_empty() {
            out.push(String::new());
            out.push(format!("{:<18} {:<42} {:>9}", "SUPERNODE", "ADDRESS", "LOAD"));
            for known in &self.supernodes {
                let load = known.load.map_or_else(|| "-".into(), LoadReport::to_text);
                out.push(format!("{:<18} {:<42} {load:>9}", short(&known.id), known.address.to_string()));
            }
        }
        out.join("\n")
    }
}

impl From<Load> for LoadReport {
    fn from(load: Load) -> Self {
        // Three decimals are more than 8 bits can say.
        let share = |part: u8| (f64::from(part) / 255.0 * 1000.0).round() / 1000.0;
        Self { leaves: share(load.leaves), introductions: share(load.introductions), relay: share(load.relay) }
    }
}

impl RelayLimits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            rate_bps: config.relay_rate_bps,
            quota_bytes: config.relay_quota_bytes,
            total_rate_bps: config.relay_total_rate_bps,
            total_quota_bytes: config.relay_total_quota_bytes,
        }
    }

    pub(crate) fn to_text(self) -> String {
        let mut parts = Vec::new();
        if self.total_rate_bps != 0 {
            parts.push(format!("{} total", rate(self.total_rate_bps)));
        }
        if self.rate_bps != 0 {
            parts.push(format!("{} per pair", rate(self.rate_bps)));
        }
        if self.quota_bytes != 0 {
            parts.push(format!("{} a day per pair", bytes(self.quota_bytes)));
        }
        if self.total_quota_bytes != 0 {
            parts.push(format!("{} in 30 days", bytes(self.total_quota_bytes)));
        }
        if parts.is_empty() { "no limit".into() } else { parts.join(" · ") }
    }
}

impl LoadReport {
    fn to_text(self) -> String {
        format!("{:.0}%", self.leaves.max(self.introductions).max(self.relay) * 100.0)
    }
}

impl From<PathInfo> for PathReport {
    fn from(path: PathInfo) -> Self {
        match path {
            PathInfo::Direct { remote } => Self { path: "direct".into(), remote: Some(remote), via: None },
            PathInfo::Relay { via } => Self { path: "relay".into(), remote: None, via: Some(via.to_string()) },
        }
    }
}

impl PathReport {
    /// Whether it is direct.
    pub(crate) fn is_direct(&self) -> bool {
        self.path == "direct"
    }

    pub(crate) fn to_text(&self) -> String {
        match (&self.remote, &self.via) {
            (Some(remote), _) => format!("{} {remote}", self.path),
            (None, Some(via)) => format!("{} {}", self.path, short(via)),
            (None, None) => self.path.clone(),
        }
    }
}

/// One ping: answered, or not.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct PingReport {
    pub(crate) schema: String,
    pub(crate) seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_ms: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathReport>,
    /// As in the status of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) timeout: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl PingReport {
    /// The name of this form.
    pub(crate) const SCHEMA: &str = "handfast.ping/1";

    pub(crate) fn answered(seq: u64, rtt_ms: f64, path: PathReport, held_ms: Option<u64>) -> Self {
        let (rtt_ms, path) = (Some(rtt_ms), Some(path));
        Self { schema: Self::SCHEMA.into(), seq, rtt_ms, path, held_ms, timeout: false, error: None }
    }

    pub(crate) fn unanswered(seq: u64, error: &str) -> Self {
        let error = Some(error.into());
        Self { schema: Self::SCHEMA.into(), seq, rtt_ms: None, path: None, held_ms: None, timeout: true, error }
    }

    pub(crate) fn to_text(&self) -> String {
        match (self.rtt_ms, &self.path) {
            (Some(rtt), Some(path)) => {
                let text = format!("{}  {rtt:.1} ms  {}", self.seq, path.to_text());
                match self
                    .held_ms
                    .map(|wait| relay_words(RelayReason::BudgetHeld { wait: Duration::from_millis(wait) }))
                {
                    Some(why) => format!("{text} · {why}"),
                    None => text,
                }
            }
            _ => format!("{}  no answer: {}", self.seq, self.error.as_deref().unwrap_or("timeout")),
        }
    }
}

/// An event for `EVENTS`; `None` for those that only matter inside the node.
pub(crate) fn notice(notice: &Notice) -> Option<Value> {
    let mut value = match notice {
        Notice::Event(event) => event_value(event)?,
        Notice::Lost(count) => json!({ "event": "lost", "count": count }),
        _ => return None,
    };
    value["schema"] = json!("handfast.event/1");
    Some(value)
}

fn event_value(event: &Event) -> Option<Value> {
    let path = |path: &PathInfo| json!(PathReport::from(*path));
    Some(match event {
        Event::Ready => json!({ "event": "ready" }),
        Event::Homeless => json!({ "event": "homeless" }),
        Event::Volunteering { on } => json!({ "event": "volunteering", "on": on }),
        Event::Unreached { address, by } => {
            json!({ "event": "unreached", "address": address, "by": by.to_string() })
        }
        Event::RoleChanged { supernode, addresses } => {
            let role = if *supernode { "supernode" } else { "leaf" };
            json!({ "event": "role", "role": role, "addresses": addresses })
        }
        Event::PathChanged { peer, path: to } => {
            let mut value = path(to);
            value["event"] = json!("path");
            value["peer"] = json!(peer.to_string());
            value
        }
        Event::RelayLimited { peer, relay, limit, retry_after } => json!({
            "event": "relay-limited",
            "peer": peer.to_string(),
            "relay": relay.to_string(),
            "limit": if *limit == RelayLimit::Pair { "pair-day" } else { "relay" },
            "retry_after_s": retry_after.as_secs(),
        }),
        Event::OtherVersion { remote, lowest, highest } => json!({
            "event": "other-version",
            "remote": remote,
            "lowest": lowest,
            "highest": highest,
        }),
        Event::PeerGone { peer } => json!({ "event": "peer-gone", "peer": peer.to_string() }),
        Event::ConnectFailed { peer, error } => {
            json!({ "event": "connect-failed", "peer": peer.to_string(), "error": error.to_string() })
        }
        Event::Left => json!({ "event": "left" }),
        // Of single pings, streams and datagrams, or between core and loop.
        _ => return None,
    })
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with microsecond digits.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A rate for people.
fn rate(bps: u64) -> String {
    match bps {
        0..1_000_000 => format!("{} kbit/s", bps.div_ceil(1_000)),
        _ => format!("{:.1} Mbit/s", bps as f64 / 1e6).replace(".0 Mbit", " Mbit"),
    }
}

/// A size for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if size < 9.95 { format!("{size:.1} {}", UNITS[unit]) } else { format!("{size:.0} {}", UNITS[unit]) }
}

/// Enough of an address for a table.
pub(crate) fn short(id: &str) -> String {
    match (id.get(..9), id.len().checked_sub(4).and_then(|at| id.get(at..))) {
        (Some(head), Some(tail)) if id.len() > 16 => format!("{head}…{tail}"),
        _ => id.into(),
    }
}

fn places(of: Vec<(PeerId, SocketAddr)>) -> Vec<PlaceReport> {
    of.into_iter().map(|(id, address)| PlaceReport { id: id.to_string(), address }).collect()
}

fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
        _ => format!("{} d {} h", secs / 86_400, secs / 3600 % 24),
    }
}

fn list<T: ToString>(items: &[T], none: &str) -> String {
    if items.is_empty() { none.into() } else { items.iter().map(T::to_string).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
impl StatusReport {
    /// A leaf with one home and one relayed peer.
    pub(crate) fn for_tests() -> Self {
        use handfast_core::{PeerStatus, SupernodeStatus};
        use handfast_io::SecretKey;

        let [me, home, other] = [1, 2, 3].map(|seed| SecretKey::from_bytes(&[seed; 32]).peer_id());
        let at: SocketAddr = "192.0.2.1:7441".parse().unwrap();
        let mut status = Status::new(me, Role::Leaf, Duration::from_secs(15));
        status.observed = vec![(home, at)];
        status.mapping = Some(handfast_core::wire::nat::MappingBehavior::EndpointIndependent);
        status.homes = vec![(home, at)];
        status.lan_nodes = vec![(other, at)];
        let mut peer = PeerStatus::new(other, PathInfo::Relay { via: home }, Transport::Udp);
        peer.why = Some(handfast_core::RelayReason::BothRandom);
        peer.rtt = Some(Duration::from_micros(12_345));
        (peer.rx_bytes, peer.tx_bytes, peer.relayed_bytes) = (1, 2, 3);
        status.peers = vec![peer];
        let mut supernode = SupernodeStatus::new(home, at);
        supernode.load = Some(Load { leaves: 255, introductions: 0, relay: 51 });
        status.supernodes = vec![supernode];
        status.counters.introductions = 3;
        status.counters.dropped[DropReason::Replayed as usize] = 9;
        let services = vec![ServiceReport { name: "ssh".into(), target: Some(at), allow: Vec::new() }];
        let relay_limits = RelayLimits { rate_bps: 2_000_000, quota_bytes: 0, total_rate_bps: 0, total_quota_bytes: 0 };
        let around = Surroundings {
            uptime: Duration::from_secs(61),
            listen: vec![at],
            relay_limits,
            port_mapping: None,
            services,
        };
        Self::new(status, around)
    }
}

#[cfg(test)]
mod tests;
