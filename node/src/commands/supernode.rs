//! `handfast supernode`: a node that helps others to find each other and relays for them.

use std::net::SocketAddr;

use handfast_io::Options;

use super::Wishes;
use crate::cli::SupernodeArgs;
use crate::exit::{Exit, Failure};
use crate::host::{self, Host};
use crate::report::RelayLimits;
use crate::state_dir::StateDir;
use crate::talk;
use crate::target;

pub(super) fn run(state: &StateDir, args: &SupernodeArgs) -> Result<Exit, Failure> {
    let wishes = Wishes::read(&args.node)?;
    let asked = args.listen.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    let claimed = args.advertise.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(vague) = asked.iter().find(|at| at.ip().is_unspecified()).filter(|_| claimed.is_empty()) {
        return Err(Failure::usage(
            format!("--listen {vague} does not say at which address others reach this supernode"),
            format!("add --advertise HOST:{}", vague.port()),
        ));
    }
    if let Some(wrong) = claimed.iter().find(|at| at.ip().is_unspecified() || at.ip().is_multicast()) {
        return Err(Failure::usage(
            format!("nobody can send to --advertise {wrong}"),
            "name the address at which the internet reaches this machine",
        ));
    }
    let listen_tcp = args.listen_tcp.iter().map(|text| target::resolve_one(text)).collect::<Result<Vec<_>, _>>()?;
    let listen = asked
        .iter()
        .map(|at| host::free_port(*at).map_err(|error| host::cannot_start(&error, &[*at], state)))
        .collect::<Result<Vec<_>, _>>()?;
    let advertise = advertised(&listen, &claimed);
    // Claimed or a listen address, and clap wants one of these: never empty.
    let first = advertise[0];
    let places: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let places = places.join(", ");

    let signals = super::signals()?;
    let options = args.duty.apply(Options::supernode(advertise)).listen_tcp(listen_tcp);
    let limits = RelayLimits::of(options.config()).to_text();
    let host = Host::start(state, wishes.plan(options, listen, &args.node.router))?;
    let _offers = wishes.offer(host.server())?;
    talk::note(format!("supernode  ON at UDP and TCP {places}, helping others within: {limits}"));
    super::announce(&format!("{}@{first}", host.endpoint().id()))?;
    Ok(super::serve(host, &signals))
}

/// What the advert says: the addresses claimed, port 0 meaning the bound one of the same family, or the listen
/// addresses themselves.
fn advertised(listen: &[SocketAddr], claimed: &[SocketAddr]) -> Vec<SocketAddr> {
    if claimed.is_empty() {
        return listen.to_vec();
    }
    let bound =
        |at: &SocketAddr| listen.iter().find(|l| l.is_ipv4() == at.is_ipv4()).or(listen.first()).map(SocketAddr::port);
    let port = |at: &SocketAddr| if at.port() == 0 { bound(at).unwrap_or(0) } else { at.port() };
    claimed.iter().map(|at| SocketAddr::new(at.ip(), port(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_the_bound_port() {
        let listen = host::free_port("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(listen.port(), 0);
        assert_eq!(host::free_port(listen).unwrap(), listen);
        assert_eq!(advertised(&[listen], &[]), [listen]);
        let claimed: [SocketAddr; 2] = ["192.0.2.1:0".parse().unwrap(), "192.0.2.1:5".parse().unwrap()];
        let expected = SocketAddr::new(claimed[0].ip(), listen.port());
        assert_eq!(advertised(&[listen], &claimed), [expected, claimed[1]]);
        let both = [listen, "[::1]:9".parse().unwrap()];
        let claimed: [SocketAddr; 2] = ["[2001:db8::1]:0".parse().unwrap(), "192.0.2.1:0".parse().unwrap()];
        assert_eq!(advertised(&both, &claimed).iter().map(SocketAddr::port).collect::<Vec<_>>(), [9, listen.port()]);
    }
}
