//! Real nodes that ask a real `miniupnpd` for a port. Needs root; see `handfast_tests::netns`.
//!
//! The scene: three supernodes on the public segment; a leaf `a` behind a router that gives each destination another
//! port, and a leaf `b` behind a router with `miniupnpd`.

use std::time::Duration;

use handfast_tests::netns::handfast::Node;
use handfast_tests::netns::miniupnpd::{Miniupnpd, Setup};
use handfast_tests::netns::process::wait_for;
use handfast_tests::netns::{Host, Lab, Nat, Router};
use serde_json::Value;

/// How long anything that ought to take a few seconds may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 3] = ["pcp", "nat_pmp", "upnp"];

// Fields are dropped in this order: nodes before the lab that prints their logs and removes their namespaces.
struct Scene {
    a: Node,
    b: Node,
    daemon: Miniupnpd,
    _routers: [Router; 2],
    _supernodes: Vec<Node>,
    _lab: Lab,
}

fn scene(setup: Setup) -> Scene {
    let mut lab = Lab::new();
    let mut supernodes: Vec<Node> = Vec::new();
    let mut publics: Vec<Host> = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let host = lab.public_host(name);
        let known: Vec<String> = supernodes.iter().map(|node| node.ready.clone()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        supernodes.push(lab.supernode(&host, &known, &[]));
        publics.push(host);
    }
    let nat = if setup.hard { Nat::HARD } else { Nat::EASY };
    let mut routers = [lab.router(Nat::HARD), lab.router(nat)];
    let host_a = lab.lan_host(&mut routers[0], "a");
    let host_b = lab.lan_host(&mut routers[1], "b");
    // Before it starts: it speaks IPv6 only if the LAN does by then.
    Miniupnpd::give_ipv6(&routers[1], &host_b);
    let daemon = Miniupnpd::start(&lab, &routers[1], &publics, setup);
    daemon.reachable_from(&routers[0]);
    let [s1, s2, s3] = [0, 1, 2].map(|i: usize| supernodes[i].ready.clone());
    let dialer = lab.identity(&host_a);
    let b = lab.leaf(&host_b, &[&s2, &s3], &["--expose", "ssh=127.0.0.1:22", "--allow", &dialer]);
    let a = lab.leaf(&host_a, &[&s1, &s2], &["--port-map", "off"]);
    Scene { a, b, daemon, _routers: routers, _supernodes: supernodes, _lab: lab }
}

impl Scene {
    /// What `b` says of port mapping, once `wanted` takes it.
    #[track_caller]
    fn wait_mapping<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        self.b.wait_status(what, SOON, |status| wanted(&status["port_mapping"]))
    }

    /// Waits until `protocol` has mapped a port; its external address.
    #[track_caller]
    fn wait_mapped(&self, protocol: &str) -> String {
        self.wait_mapping(protocol, |said| {
            (said[protocol]["outcome"] == "mapped").then(|| said[protocol]["address"].as_str().map(str::to_owned))?
        })
    }

    /// The port that `b` is bound to.
    fn port(&self) -> u16 {
        let status = self.b.status();
        let mut bound = status["listen"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let v4 = bound.find_map(|text| text.strip_prefix("0.0.0.0:")).expect("an IPv4 socket");
        v4.parse().expect("a port")
    }

    /// Stops `b` as a user does, and checks that the router maps nothing any more.
    fn leave(&mut self) {
        self.b.process().signal("TERM");
        let ended = wait_for(SOON, || (!self.b.process().is_running()).then_some(()));
        assert!(ended.is_some(), "it ends");
        self.daemon.wait_mapped(&[], Duration::ZERO);
    }
}

/// One protocol alone: the port is mapped, the others say what they are, the mapping lets `a` in, and is gone with `b`.
fn works_alone(protocol: &str, setup: Setup, others: [(&str, &str); 2]) {
    let mut scene = scene(Setup { hard: true, ..setup });
    let external = scene.wait_mapped(protocol);
    assert_eq!(external, format!("{}:{}", scene.daemon.address, scene.port()));
    let said = scene.b.status()["port_mapping"].clone();
    assert_eq!(said["gateway"], "192.168.2.1");
    for (other, outcome) in others {
        assert_eq!(said[other]["outcome"], outcome, "{said:#}");
    }
    scene.daemon.wait_mapped(&[scene.port()], Duration::ZERO);
    // Neither router could be punched: only the mapped port lets anybody in.
    let (lines, code) = scene.a.ping(scene.b.id(), &["--until-direct"], SOON);
    assert_eq!(code, 0, "{lines:?}");
    let last = lines.last().expect("a line");
    assert_eq!((&last["path"], &last["remote"]), (&Value::from("direct"), &Value::from(external)), "{lines:?}");
    scene.leave();
}

#[test]
fn pcp_alone() {
    let setup = Setup { pcp: true, ..Setup::NONE };
    works_alone("pcp", setup, [("nat_pmp", "unknown"), ("upnp", "unknown")]);
}

#[test]
fn nat_pmp_alone() {
    let setup = Setup { nat_pmp: true, ..Setup::NONE };
    works_alone("nat_pmp", setup, [("pcp", "unknown"), ("upnp", "unknown")]);
}

#[test]
fn upnp_alone() {
    let setup = Setup { upnp: true, ..Setup::NONE };
    works_alone("upnp", setup, [("pcp", "none"), ("nat_pmp", "none")]);
}

#[test]
fn pcp_opens_the_firewall_for_ipv6() {
    let mut scene = scene(Setup { pcp: true, ..Setup::NONE });
    let hole = scene.wait_mapping("a pinhole", |said| {
        let holes = said["pinholes"].as_array()?;
        holes.iter().find(|hole| hole["outcome"] == "mapped").cloned()
    });
    assert_eq!(hole["internal"], hole["address"], "IPv6 is not translated");
    let address: std::net::SocketAddr = hole["address"].as_str().expect("an address").parse().expect("an address");
    assert_eq!(address.ip().to_string(), "2001:db8:2:2::2");
    assert_eq!(scene.daemon.pinholes(), [address.port()]);
    scene.leave();
    assert_eq!(scene.daemon.pinholes(), [] as [u16; 0]);
}

#[test]
fn without_any_of_them_two_hard_routers_are_relayed() {
    let scene = scene(Setup { upnp: true, deny: true, hard: true, ..Setup::NONE });
    scene.wait_mapping("refused", |said| (said["upnp"]["outcome"] == "refused").then_some(()));
    let (lines, code) = scene.a.ping(scene.b.id(), &["-c", "1"], SOON);
    assert_eq!((code, &lines[0]["path"]), (0, &Value::from("relay")), "{lines:?}");
}

#[test]
fn a_refusal_is_told_for_each_protocol() {
    let scene = scene(Setup { deny: true, ..Setup::ALL });
    let said = scene.wait_mapping("everybody refused", |said| {
        PROTOCOLS.iter().all(|protocol| said[protocol]["outcome"] == "refused").then(|| said.clone())
    });
    for protocol in PROTOCOLS {
        assert!(said[protocol]["code"].as_u64().is_some_and(|code| code > 0), "{said:#}");
    }
    assert_eq!(scene.daemon.mapped(), [] as [u16; 0]);
    let doctor = scene.b.run(&["doctor", "--timeout", "1"], SOON);
    assert!(doctor.text().contains("PCP refused (2)"), "{}", doctor.text());
}

#[test]
fn a_router_that_lies_about_its_address_is_reported_and_breaks_nothing() {
    let lie = "45.99.1.1".parse().expect("an address");
    let scene = scene(Setup { claim: Some(lie), ..Setup::ALL });
    let external = scene.wait_mapped("pcp");
    assert_eq!(external, format!("45.99.1.1:{}", scene.port()));
    // Supernodes say otherwise, and both can be compared.
    let observed = scene.b.wait_status("seen", SOON, |status| {
        status["observed"].as_array().filter(|seen| !seen.is_empty()).map(|seen| seen[0]["address"].clone())
    });
    assert_eq!(observed, format!("{}:{}", scene.daemon.address, scene.port()));
    let (lines, code) = scene.a.ping(scene.b.id(), &["--until-direct"], SOON);
    let last = lines.last().expect("a line");
    assert_eq!((code, &last["remote"]), (0, &observed), "{lines:?}");
}

#[test]
fn a_rebooted_router_maps_the_port_again() {
    for setup in [Setup { pcp: true, ..Setup::NONE }, Setup { nat_pmp: true, ..Setup::NONE }] {
        let mut scene = scene(Setup { hard: true, ..setup });
        let port = scene.port();
        scene.daemon.wait_mapped(&[port], SOON);
        // A clock that has hardly begun cannot be seen to begin anew.
        std::thread::sleep(Duration::from_secs(6));
        scene.daemon.reboot();
        // Long before anything is due for renewal: by its announcement, or its epoch.
        scene.daemon.wait_mapped(&[port], SOON);
        let (lines, code) = scene.a.ping(scene.b.id(), &["--until-direct"], SOON);
        assert_eq!(code, 0, "{lines:?}");
    }
}

#[test]
fn a_short_promise_is_renewed_in_time() {
    let scene = scene(Setup { pcp: true, lifetime_max_s: 10, ..Setup::NONE });
    let port = scene.port();
    scene.daemon.wait_mapped(&[port], SOON);
    let asked = || scene.daemon.log().matches("PCP request received").count();
    let first = asked();
    let renewed = wait_for(SOON, || {
        assert_eq!(scene.daemon.mapped(), [port], "never gone");
        (asked() >= first + 4).then_some(())
    });
    assert!(renewed.is_some(), "{}", scene.daemon.log());
}

#[test]
fn a_node_that_crashed_gets_its_own_mapping_back() {
    let mut scene = scene(Setup { pcp: true, ..Setup::NONE });
    let port = scene.port();
    scene.daemon.wait_mapped(&[port], SOON);
    scene.b.kill();
    assert_eq!(scene.daemon.mapped(), [port], "nobody gave it back");
    let listen = format!("0.0.0.0:{port}");
    scene.b.start_again_with(&["--listen", &listen]);
    let external = scene.wait_mapped("pcp");
    assert_eq!(external, format!("{}:{port}", scene.daemon.address));
}

#[test]
fn switched_off_nothing_is_asked() {
    let mut scene = scene(Setup::ALL);
    scene.wait_mapped("pcp");
    scene.leave();
    let before = scene.daemon.log().len();
    scene.b.start_again_with(&["--port-map", "off"]);
    assert_eq!(scene.b.status()["port_mapping"], Value::Null);
    // It is connected, so it has had the time to ask.
    let (lines, code) = scene.a.ping(scene.b.id(), &["-c", "1"], SOON);
    assert_eq!(code, 0, "{lines:?}");
    let said = scene.daemon.log().split_off(before);
    assert!(!said.contains("192.168.2.2"), "{said}");
}
