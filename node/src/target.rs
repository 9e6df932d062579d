//! Addresses as people type them: peers, services, tickets, and where a supernode is.
//!
//! Everything that names somebody becomes a [`Target`], whatever its form:
//!
//! ```text
//! hf1…                 a peer, to be looked up
//! hf1…/ssh             a service of it
//! hf1…@HOST:PORT       a supernode and where it is; /NAME may follow
//! hft1…                a ticket: peer, homes, perhaps a service; /NAME may follow and wins
//! -                    one of these, on the first line of standard input
//! ```

use std::io::{self, BufRead, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use handfast_io::{Access, PeerId, ServiceName, Ticket};

use crate::exit::Failure;

/// Longest line taken from standard input; a ticket has about 250 characters.
const LINE_LEN_MAX: u64 = 4096;
/// Most addresses taken from one host name.
const RESOLVED_MAX: usize = 4;

/// Somebody to talk to. A ticket says all there is to know; a bare peer is one without homes or service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// Who, where its homes are if we were told, and what to open there.
    pub(crate) ticket: Ticket,
}

impl Target {
    /// Reads a target from the command line; `-` means standard input.
    pub(crate) fn from_argument(text: &str) -> Result<Self, Failure> {
        if text != "-" {
            return text.parse();
        }
        let mut line = String::new();
        io::stdin().lock().take(LINE_LEN_MAX).read_line(&mut line).map_err(|error| {
            Failure::usage(format!("cannot read an address from standard input: {error}"), EXPECTED)
        })?;
        line.trim().parse()
    }

    /// Whom.
    pub(crate) fn peer(&self) -> PeerId {
        self.ticket.peer
    }

    /// The service, which `connect` and `pipe` cannot do without.
    pub(crate) fn service(&self) -> Result<ServiceName, Failure> {
        self.ticket.service.ok_or_else(|| {
            let peer = self.ticket.peer;
            Failure::usage("the address names no service", format!("say which one: {peer}/NAME"))
        })
    }
}

const EXPECTED: &str = "expected a peer (hf1…), a service of it (hf1…/NAME) or a ticket (hft1…)";

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if text.is_empty() {
            return Err(Failure::usage("the address is empty", EXPECTED));
        }
        // The first slash ends the address: a service name may have slashes of its own, an address has none.
        let (address, service) = match text.split_once('/') {
            Some((address, name)) => (address, Some(service_name(name)?)),
            None => (text, None),
        };
        let mut ticket = if starts_with(address, "hft1") {
            address.parse::<Ticket>().map_err(|error| {
                Failure::usage(format!("ticket {} {error}", shortened(address)), "copy it again from: handfast ticket")
            })?
        } else if let Some((peer, place)) = address.split_once('@') {
            let peer = peer_id(peer)?;
            let homes = resolve(place)?.into_iter().take(1).map(|at| (peer, at)).collect();
            Ticket { peer, homes, service: None }
        } else {
            Ticket { peer: peer_id(address)?, homes: std::iter::empty().collect(), service: None }
        };
        ticket.service = service.or(ticket.service);
        Ok(Self { ticket })
    }
}

/// Reads `hf1…`.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, Failure> {
    if !starts_with(text, "hf1") {
        return Err(Failure::usage(format!("\"{}\" is not an address", shortened(text)), EXPECTED));
    }
    text.parse().map_err(|error| {
        Failure::usage(
            format!("address {} {error}", shortened(text)),
            "copy it again; its owner gets it from: handfast id",
        )
    })
}

/// Reads `hf1…@HOST:PORT`; a name may stand for several addresses.
pub(crate) fn bootstrap(text: &str) -> Result<Vec<(PeerId, SocketAddr)>, Failure> {
    let (peer, place) = text.split_once('@').ok_or_else(|| {
        Failure::usage(
            format!("--bootstrap {} does not say where the supernode is", shortened(text)),
            "write it as handfast supernode prints it: hf1…@HOST:PORT",
        )
    })?;
    let peer = peer_id(peer)?;
    Ok(resolve(place)?.into_iter().map(|at| (peer, at)).collect())
}

/// All `--bootstrap` options. A name that does not resolve is passed over while another one does.
pub(crate) fn bootstraps(
    texts: &[String],
    mut complain: impl FnMut(&Failure),
) -> Result<Vec<(PeerId, SocketAddr)>, Failure> {
    let mut known = Vec::new();
    let mut failed = None;
    for text in texts {
        match bootstrap(text) {
            Ok(found) => known.extend(found),
            Err(failure) if is_unresolved(&failure) => {
                complain(&failure);
                failed = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    match failed {
        Some(failure) if known.is_empty() => Err(failure),
        _ => Ok(known),
    }
}

/// Reads a service name.
pub(crate) fn service_name(text: &str) -> Result<ServiceName, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("\"{text}\" is not a service name"), format!("{error}")))
}

/// Reads `HOST:PORT`. The host may be a name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn resolve(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let well_formed = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([':', '/', '@', ' ']) && port.parse::<u16>().is_ok()
    });
    if !well_formed {
        return Err(Failure::usage(
            format!("\"{text}\" is not HOST:PORT"),
            "write for example 192.0.2.10:7441, [2001:db8::10]:7441 or example.org:7441",
        ));
    }
    let unresolved = |why: String| {
        Failure::usage(format!("{UNRESOLVED} \"{text}\"{why}"), "check the name, or write the IP address")
    };
    let found: Vec<_> =
        text.to_socket_addrs().map_err(|error| unresolved(format!(": {error}")))?.take(RESOLVED_MAX).collect();
    if found.is_empty() { Err(unresolved(String::new())) } else { Ok(found) }
}

const UNRESOLVED: &str = "cannot find the host of";

fn is_unresolved(failure: &Failure) -> bool {
    failure.cause.starts_with(UNRESOLVED)
}

/// Reads `HOST:PORT` where one address is enough.
pub(crate) fn resolve_one(text: &str) -> Result<SocketAddr, Failure> {
    // resolve never gives an empty list.
    resolve(text)?.first().copied().ok_or_else(|| Failure::usage(format!("{UNRESOLVED} \"{text}\""), EXPECTED))
}

/// A service to offer: `NAME=HOST:PORT`, or `NAME=PORT` on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exposure {
    /// The name.
    pub(crate) service: ServiceName,
    /// The program behind it.
    pub(crate) target: SocketAddr,
}

impl FromStr for Exposure {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (name, place) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("\"{text}\" is not NAME=HOST:PORT"), "write for example ssh=127.0.0.1:22")
        })?;
        let service = service_name(name)?;
        let target = match place.parse::<u16>() {
            Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => resolve_one(place)?,
        };
        if target.port() == 0 {
            return Err(Failure::usage(format!("port 0 of \"{text}\" is no program"), "name the port it listens on"));
        }
        Ok(Self { service, target })
    }
}

/// The `--allow` options: `any`, or the peers named. None means nobody.
pub(crate) fn access(texts: &[String]) -> Result<Access, Failure> {
    let mut peers = std::collections::BTreeSet::new();
    let mut any = false;
    for text in texts {
        if text == "any" {
            any = true;
        } else {
            // A ticket names a peer too; handy when it is what the other side sent.
            peers.insert(if starts_with(text, "hft1") { text.parse::<Target>()?.peer() } else { peer_id(text)? });
        }
    }
    Ok(if any { Access::Any } else { Access::Peers(peers) })
}

/// In which words to tell who may use a service.
pub(crate) fn access_words(access: &Access) -> String {
    match access {
        Access::Any => "anyone".into(),
        Access::Peers(peers) if peers.is_empty() => "nobody".into(),
        Access::Peers(peers) => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// bech32m is all lower or all upper case, as in a QR code.
fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Enough of an address to recognise it by, without filling the line. Nothing that a terminal would act on.
fn shortened(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let count = text.chars().count();
    if count <= 24 {
        return text;
    }
    let tail: String = text.chars().skip(count - 6).collect();
    text.chars().take(10).chain(['…']).collect::<String>() + &tail
}

#[cfg(test)]
mod tests {
    use handfast_io::SecretKey;

    use super::*;
    use crate::exit::Exit;

    fn peer() -> PeerId {
        SecretKey::from_bytes(&[7; 32]).peer_id()
    }

    fn refused(text: &str) -> Failure {
        let failure = text.parse::<Target>().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.next.is_some());
        failure
    }

    #[test]
    fn every_form_names_the_peer() {
        let id = peer();
        let ssh: ServiceName = "ssh".parse().unwrap();
        for text in [format!("{id}"), format!("{id}").to_uppercase()] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.peer(), target.ticket.service, target.ticket.homes.len()), (id, None, 0));
            assert_eq!(target.service().unwrap_err().exit, Exit::Usage);
        }
        let target: Target = format!("{id}/ssh").parse().unwrap();
        assert_eq!((target.peer(), target.service().unwrap()), (id, ssh));
        let target: Target = format!("{id}@127.0.0.1:7441/ssh").parse().unwrap();
        assert_eq!(target.service().unwrap(), ssh);
        assert_eq!(target.ticket.homes[..], [(id, "127.0.0.1:7441".parse().unwrap())]);
    }

    #[test]
    fn a_ticket_is_a_target_and_a_named_service_wins() {
        let ticket = Ticket {
            peer: peer(),
            homes: [(peer(), "192.0.2.1:7441".parse().unwrap())].into_iter().collect(),
            service: Some("web".parse().unwrap()),
        };
        let target: Target = ticket.to_string().parse().unwrap();
        assert_eq!(target.ticket, ticket);
        let target: Target = format!("{ticket}/a/b").parse().unwrap();
        assert_eq!(target.service().unwrap().as_str(), "a/b");
    }

    #[test]
    fn mistakes_are_told_apart() {
        let good = peer().to_string();
        let mut typo = good.clone();
        typo.replace_range(20..21, if &good[20..21] == "q" { "p" } else { "q" });
        assert!(refused(&typo).cause.contains("has a typing mistake (checksum)"));
        assert!(refused("nas").cause.contains("not an address"));
        assert!(refused("").cause.contains("empty"));
        assert!(refused(&format!("{good}/UPPER")).cause.contains("service name"));
        assert!(refused(&format!("{good}/")).cause.contains("service name"));
        assert!(refused("hft1qqqqqqqq").cause.contains("ticket"));
        assert!(refused("\u{1b}[2Jhf1").cause.chars().all(|c| !c.is_control()));
        assert!(refused("ä").cause.contains("not an address"));
    }

    #[test]
    fn places_resolve_or_say_why() {
        assert_eq!(resolve_one("[::1]:5").unwrap(), "[::1]:5".parse().unwrap());
        assert!(resolve_one("localhost:80").unwrap().ip().is_loopback());
        for text in ["", "x", "x:", ":80", "x:99999", "::1:80", "a b:80", "http://x:80"] {
            assert!(resolve_one(text).unwrap_err().cause.contains("is not HOST:PORT"), "{text}");
        }
        assert!(resolve_one("no-such-host.invalid:80").unwrap_err().cause.contains(UNRESOLVED));
    }

    #[test]
    fn one_dead_name_among_bootstraps_is_only_a_complaint() {
        let (good, dead) = (format!("{}@192.0.2.1:1", peer()), format!("{}@no-such-host.invalid:1", peer()));
        let mut complaints = 0;
        let known = bootstraps(&[dead.clone(), good.clone()], |_| complaints += 1).unwrap();
        assert_eq!((known.len(), complaints), (1, 1));
        bootstraps(std::slice::from_ref(&dead), |_| {}).unwrap_err();
        bootstraps(&[good, "junk".into()], |_| {}).unwrap_err();
        assert!(bootstrap(&peer().to_string()).unwrap_err().cause.contains("does not say where"));
    }

    #[test]
    fn exposures_and_access() {
        let exposure: Exposure = "ssh=127.0.0.1:22".parse().unwrap();
        assert_eq!((exposure.service.as_str(), exposure.target.port()), ("ssh", 22));
        assert_eq!("ssh=22".parse::<Exposure>().unwrap().target, exposure.target);
        for text in ["ssh", "=127.0.0.1:22", "SSH=127.0.0.1:22", "ssh=", "ssh=127.0.0.1", "ssh=0", "ssh=127.0.0.1:0"] {
            assert_eq!(text.parse::<Exposure>().unwrap_err().exit, Exit::Usage, "{text}");
        }
        assert_eq!(access(&["any".into()]).unwrap(), Access::Any);
        let id = peer().to_string();
        assert!(access(std::slice::from_ref(&id)).unwrap().allows(&peer()));
        assert!(!access(&[]).unwrap().allows(&peer()));
        assert_eq!(access_words(&access(&[]).unwrap()), "nobody");
        access(&["anybody".into()]).unwrap_err();
    }
}
