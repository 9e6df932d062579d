//! What stands between this node and the internet, what it means for connecting, and what to do about it.
//!
//! A [`Diagnosis`] is made from a [`StatusReport`] and nothing else: the node has measured all of it already, and this
//! only finds the words. Each [`Finding`] is a fact with a verdict; `meaning` says what follows for connecting,
//! `advice` what its owner could do. A node is degraded if some peers can reach it only through a relay, or not at all.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::report::{MappingOutcome, StatusReport};

/// How good a finding is.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Not known (yet), or of no consequence.
    Neutral,
    /// It costs something.
    Warning,
    /// It does not work.
    Bad,
}

impl Verdict {
    const fn mark(self) -> char {
        match self {
            Self::Ok => '✓',
            Self::Neutral => '·',
            Self::Warning => '!',
            Self::Bad => '✗',
        }
    }
}

/// One fact.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// What was looked at: `udp`, `ipv4`, `ipv6`, `nat`, `port-mapping`, `reachable`, `homes`,
    /// `keep-alive` or `volunteer`.
    pub(crate) check: String,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
}

/// All of it.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Diagnosis {
    pub(crate) schema: String,
    /// Some peers can be reached only through a relay, or nobody at all.
    pub(crate) degraded: bool,
    pub(crate) findings: Vec<Finding>,
    pub(crate) meaning: Vec<String>,
    pub(crate) advice: Vec<String>,
    /// What it was concluded from.
    pub(crate) status: StatusReport,
}

/// Whether the node has measured what the diagnosis is about; a node that just started has not.
pub(crate) fn is_examined(status: &StatusReport) -> bool {
    let is_settled = status.nat.examined || status.udp == Some(false) || status.reachable == Some(true);
    let is_asked = status.port_mapping.as_ref().is_none_or(super::report::PortMapping::is_settled);
    is_settled && is_asked && (status.role == "supernode" || !status.homes.is_empty())
}

impl Diagnosis {
    /// The name of this form.
    pub(crate) const SCHEMA: &str = "handfast.doctor/1";

    pub(crate) fn of(status: StatusReport) -> Self {
        let mut findings = Vec::new();
        let mut add = |check: &str, verdict, text: String| {
            findings.push(Finding { check: check.into(), verdict, text });
        };
        let udp_blocked = status.udp == Some(false);
        match status.udp {
            Some(true) => add("udp", Verdict::Ok, "UDP gets out and back".into()),
            Some(false) => add("udp", Verdict::Bad, "UDP is blocked: links go over TCP".into()),
            None => add("udp", Verdict::Warning, "UDP: nobody has answered yet".into()),
        }
        match seen_at(&status) {
            Some((place, witnesses)) => {
                let agree = match witnesses {
                    1 => "1 witness".into(),
                    n => format!("{n} witnesses agree"),
                };
                add("ipv4", Verdict::Ok, format!("IPv4 {place} ({agree})"));
            }
            None => add("ipv4", Verdict::Neutral, "IPv4: no supernode has seen this node".into()),
        }
        match (&status.ipv6.address, status.ipv6.open) {
            (Some(ip), Some(true)) => add("ipv6", Verdict::Ok, format!("IPv6 {ip}, open to the internet")),
            (Some(ip), Some(false)) => {
                add("ipv6", Verdict::Ok, format!("IPv6 {ip}, behind a firewall that hole punching opens"));
            }
            (Some(ip), None) => add("ipv6", Verdict::Neutral, format!("IPv6 {ip}, firewall not examined")),
            (None, _) => add("ipv6", Verdict::Neutral, "IPv6: none seen from outside".into()),
        }
        let hard = matches!(status.mapping.as_deref(), Some("address-dependent" | "address-and-port-dependent"));
        let (verdict, text) = nat_words(&status, udp_blocked, hard);
        add("nat", verdict, text);
        let mapped = status.port_mapping.as_ref().and_then(crate::report::PortMapping::mapped);
        let (verdict, text) = mapping_words(&status, mapped.is_some(), hard);
        add("port-mapping", verdict, text);
        let open = status.reachable == Some(true);
        match status.reachable {
            Some(true) => add("reachable", Verdict::Ok, "the internet reaches this node unasked".into()),
            Some(false) => add("reachable", Verdict::Neutral, "packets that nobody asked for do not arrive".into()),
            None => add("reachable", Verdict::Neutral, "whether unasked packets arrive is not known".into()),
        }
        let lost = status.role != "supernode" && status.homes.is_empty();
        let known = status.supernodes.len();
        if lost {
            add("homes", Verdict::Bad, format!("no home: of {known} supernodes known, none answers"));
        } else if status.role == "supernode" {
            add("homes", Verdict::Ok, format!("this node is a supernode; {known} others known"));
        } else {
            let verdict = if status.homes.len() < 2 { Verdict::Warning } else { Verdict::Ok };
            add("homes", verdict, format!("registered at {} of {known} supernodes known", status.homes.len()));
        }
        if let Some(lifetime) = status.binding_lifetime_ms {
            let every = status
                .keepalive_interval_ms
                .map_or_else(String::new, |ms| format!(": a keep-alive after {} of silence", seconds(ms)));
            add("keep-alive", Verdict::Ok, format!("the router keeps a UDP binding for {}{every}", seconds(lifetime)));
        } else if !open {
            add("keep-alive", Verdict::Neutral, "how long the router keeps a binding is not measured yet".into());
        }

        if let Some(volunteer) = status.volunteer {
            let verdict = if volunteer.on { Verdict::Ok } else { Verdict::Neutral };
            add("volunteer", verdict, format!("volunteering: {}", volunteer.to_text()));
        }
        let reached = open || mapped.is_some();
        let degraded = udp_blocked || lost || status.udp.is_none() || (hard && !reached);
        let (meaning, advice) = consequences(&status, Consequence { udp_blocked, lost, hard, reached });
        Self { schema: Self::SCHEMA.into(), degraded, findings, meaning, advice, status }
    }

    /// What a node is asked that could relay for strangers and was not asked to.
    pub(crate) fn question(&self) -> Option<&'static str> {
        let status = &self.status;
        let is_easy = status.mapping.as_deref() == Some("endpoint-independent") && status.udp == Some(true);
        let is_leaf = status.role == "leaf" && !status.homes.is_empty();
        (is_easy && is_leaf && status.volunteer.is_none()).then_some(QUESTION)
    }

    /// For a terminal.
    pub(crate) fn to_text(&self) -> String {
        let findings = self.findings.iter().map(|finding| format!("{} {}", finding.verdict.mark(), finding.text));
        let rest = self.meaning.iter().chain(&self.advice).map(|text| format!("→ {text}"));
        findings.chain(rest).collect::<Vec<_>>().join("\n")
    }
}

/// Asked once.
const QUESTION: &str = "? this router could help: some pairs of strangers cannot reach each other, and this node could relay \
    for them, at most 1 Mbit/s and 1 GB a day. They would learn its address, and could use nothing of it. \
    If you like: handfast run --volunteer    (this is not asked again)";

/// The IPv4 address that most supernodes see, with the port if they see one, and how many they are.
fn seen_at(status: &StatusReport) -> Option<(String, usize)> {
    let of = |ip: IpAddr| status.nat.addresses.iter().filter(move |seen| seen.address.ip() == ip);
    let count = |ip: IpAddr| of(ip).map(|seen| seen.witnesses).sum::<usize>();
    let ips = status.nat.addresses.iter().map(|seen| seen.address.ip()).filter(IpAddr::is_ipv4);
    let ip = ips.max_by_key(|ip| count(*ip))?;
    let mut all = of(ip);
    let place = match (all.next(), all.next()) {
        (Some(only), None) => only.address.to_string(),
        _ => ip.to_string(),
    };
    Some((place, count(ip)))
}

fn nat_words(status: &StatusReport, udp_blocked: bool, hard: bool) -> (Verdict, String) {
    let nat = &status.nat;
    if udp_blocked {
        return (Verdict::Neutral, "NAT: cannot be examined while UDP is blocked".into());
    }
    let Some(mapping) = status.mapping.as_deref() else {
        return (Verdict::Neutral, "NAT: not examined yet".into());
    };
    let mut more = vec![format!("mapping {mapping}")];
    more.extend(nat.filtering.as_ref().map(|filtering| format!("filtering {filtering}")));
    match (nat.ports.as_deref(), nat.step, nat.block) {
        (Some("sequential"), Some(step), _) => more.push(format!("ports in sequence ({step:+})")),
        (Some("block"), _, Some((first, width))) => {
            more.push(format!("ports within {first}-{}", u32::from(first) + u32::from(width).saturating_sub(1)));
        }
        (Some(ports), ..) => more.push(format!("ports {ports}")),
        (None, ..) => {}
    }
    if nat.pooled == Some(true) {
        more.push("several public addresses".into());
    }
    if nat.second_nat == Some(true) {
        more.push("a second NAT beyond the router (CGN)".into());
    }
    match nat.hairpinning {
        Some(true) => more.push("hairpinning".into()),
        Some(false) => more.push("no hairpinning".into()),
        None => {}
    }
    let more = more.join(", ");
    if nat.none {
        (Verdict::Ok, "NAT: none, this machine has a public address".into())
    } else if hard {
        (Verdict::Warning, format!("NAT: hard: the port differs per destination ({more})"))
    } else {
        (Verdict::Ok, format!("NAT: easy: one port for all destinations ({more})"))
    }
}

fn mapping_words(status: &StatusReport, is_mapped: bool, hard: bool) -> (Verdict, String) {
    let Some(asked) = &status.port_mapping else {
        return (Verdict::Neutral, "port mapping: off".into());
    };
    if status.nat.none {
        return (Verdict::Neutral, "port mapping: not needed".into());
    }
    let words = |name: &str, outcome: &MappingOutcome| match outcome.outcome.as_str() {
        "mapped" => format!("{name} mapped {}", outcome.address.map_or_else(String::new, |at| at.to_string())),
        "refused" => {
            let code = outcome.code.map_or_else(String::new, |code| format!(" ({code})"));
            format!("{name} refused{code}")
        }
        other => format!("{name} {other}"),
    };
    let text = [("PCP", &asked.pcp), ("NAT-PMP", &asked.nat_pmp), ("UPnP", &asked.upnp)]
        .map(|(name, outcome)| words(name, outcome))
        .join(", ");
    let verdict = match (is_mapped, hard) {
        (true, _) => Verdict::Ok,
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Neutral,
    };
    (verdict, format!("port mapping: {text}"))
}

struct Consequence {
    udp_blocked: bool,
    lost: bool,
    hard: bool,
    reached: bool,
}

fn consequences(status: &StatusReport, it: Consequence) -> (Vec<String>, Vec<String>) {
    let mut meaning = Vec::new();
    let mut advice = Vec::new();
    let port = status.listen.first().map_or_else(|| "its UDP port".into(), |at| format!("UDP {}", at.port()));
    let router = status
        .port_mapping
        .as_ref()
        .and_then(|asked| asked.gateway)
        .map_or_else(|| "the router".into(), |gateway| gateway.to_string());
    if it.lost {
        meaning.push("nobody can find this node, and it can find nobody, until a supernode answers".into());
        advice.push("check the network, and name another supernode: --bootstrap hf1…@HOST:PORT".into());
    } else if it.udp_blocked {
        meaning.push("every connection goes through a supernode over TCP: slower, but it works".into());
        advice.push(format!("to be direct: let UDP out of this network (at {router}), from {port}"));
    } else if it.reached {
        meaning.push("direct with every peer that gets UDP out of its own network".into());
    } else if it.hard {
        meaning.push(match status.nat.ports.as_deref() {
            Some("sequential") => "direct with most peers: this router's next port can be foretold".into(),
            _ => {
                "direct with peers behind an easy NAT (after some seconds of trying), a mapped port or IPv6; by relay \
                  with peers whose NAT is as hard as this one"
                    .into()
            }
        });
        advice.push(format!(
            "to be direct with everyone: enable UPnP or NAT-PMP on {router}, or forward {port} to this machine"
        ));
    } else {
        meaning.push("direct with nearly every peer; those behind a hard NAT take some seconds of trying".into());
    }
    (meaning, advice)
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) || ms >= 20_000 {
        format!("{} s", (ms + 500) / 1000)
    } else {
        format!("{:.1} s", ms as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{AddressReport, PlaceReport, PortMapping};

    fn healthy() -> StatusReport {
        let mut status = StatusReport::for_tests();
        status.role = "leaf".into();
        status.udp = Some(true);
        status.mapping = Some("endpoint-independent".into());
        status.reachable = Some(false);
        status.nat.examined = true;
        status.nat.addresses =
            vec![AddressReport { address: "198.51.100.4:7441".parse().expect("address"), witnesses: 3 }];
        status.port_mapping = Some(PortMapping::default());
        let home = || PlaceReport { id: "hf1home".into(), address: "192.0.2.1:1".parse().expect("address") };
        status.homes = vec![home(), home()];
        status
    }

    #[test]
    fn an_easy_router_is_fine() {
        let told = Diagnosis::of(healthy());
        assert!(!told.degraded, "{}", told.to_text());
        assert!(told.to_text().contains("✓ IPv4 198.51.100.4:7441 (3 witnesses agree)"), "{}", told.to_text());
        assert!(told.advice.is_empty());
    }

    #[test]
    fn whoever_could_volunteer_is_asked_and_nobody_else() {
        assert!(Diagnosis::of(healthy()).question().is_some_and(|text| text.contains("--volunteer")));
        let mut hard = healthy();
        hard.mapping = Some("address-and-port-dependent".into());
        let mut willing = healthy();
        willing.volunteer = Some(crate::report::VolunteerReport { on: true, guests: 2, relayed_bytes: 0 });
        let mut supernode = healthy();
        supernode.role = "supernode".into();
        let told = Diagnosis::of(willing);
        assert!(told.to_text().contains("✓ volunteering: on · 2 strangers linked"), "{}", told.to_text());
        for told in [told, Diagnosis::of(hard), Diagnosis::of(supernode)] {
            assert_eq!(told.question(), None);
        }
    }

    #[test]
    fn a_hard_router_is_degraded_unless_a_port_is_mapped() {
        let mut status = healthy();
        status.mapping = Some("address-and-port-dependent".into());
        status.nat.ports = Some("random".into());
        let seen = |port: u16| AddressReport { address: ([198, 51, 100, 4], port).into(), witnesses: 1 };
        status.nat.addresses = [50_112, 50_113, 61_000].map(seen).to_vec();
        let told = Diagnosis::of(status);
        assert!(told.degraded);
        assert!(told.to_text().contains("✓ IPv4 198.51.100.4 (3 witnesses agree)"), "{}", told.to_text());
        assert!(told.to_text().contains("! NAT: hard") && told.to_text().contains("→ to be direct with everyone"));

        let mut status = healthy();
        status.mapping = Some("address-and-port-dependent".into());
        let pcp = MappingOutcome {
            outcome: "mapped".into(),
            code: None,
            address: Some("198.51.100.4:7441".parse().expect("address")),
        };
        status.port_mapping = Some(PortMapping { pcp, ..PortMapping::default() });
        assert!(!Diagnosis::of(status).degraded, "a mapped port makes up for it");
    }

    #[test]
    fn blocked_udp_and_no_home_are_degraded_and_say_what_to_do() {
        let mut status = healthy();
        status.udp = Some(false);
        let told = Diagnosis::of(status);
        assert!(told.degraded && told.to_text().contains("✗ UDP is blocked") && !told.advice.is_empty());

        let mut status = healthy();
        status.homes.clear();
        let told = Diagnosis::of(status);
        assert!(told.degraded && told.to_text().contains("--bootstrap"), "{}", told.to_text());
    }
}
