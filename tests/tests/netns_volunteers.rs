//! Volunteers as real processes behind routers of the kernel. Needs root; see `handfast_tests::netns`.

use std::time::Duration;

use handfast_tests::netns::scene::{Pair, Scene, TRANSFER, WEB, place, supernodes};
use handfast_tests::netns::{Lab, Nat};
use serde_json::json;

/// How long a leaf may take to find out that its router can be punched, and to tell its homes.
const EXAMINED: Duration = Duration::from_secs(120);

#[test]
fn two_hard_routers_go_on_through_a_volunteer_behind_an_easy_one() {
    let mut lab = Lab::new();
    // They carry a third of it for a pair.
    let supernodes = supernodes(&mut lab, &["--relay-rate", "0", "--relay-quota", "4M"]);
    let mut routers = Vec::new();
    let hosts = place(&mut lab, &mut routers, Pair::homes(Nat::HARD, Nat::HARD));
    let mut router = lab.router(Nat::EASY);
    let host = lab.lan_host(&mut router, "v");
    routers.push(router);
    let known = [&*supernodes[0].ready.clone(), &*supernodes[2].ready.clone()];
    let volunteer = lab.leaf(&host, &known, &["--volunteer", "--volunteer-rate", "20M"]);
    volunteer.wait_status("it volunteers", EXAMINED, |status| (status["volunteer"]["on"] == true).then_some(()));
    let mut scene = Scene::with_hosts(lab, supernodes, routers, &hosts, WEB);
    // Among the nodes, which are ended before the laboratory is taken down.
    scene.supernodes.push(volunteer);
    let volunteer = &scene.supernodes[3];
    let told = |status: &serde_json::Value| status["volunteers"].as_u64().filter(|n| *n > 0);
    let known: u64 = scene.supernodes[..3].iter().filter_map(|node| told(&node.status())).sum();
    assert_eq!(known, 2, "both its homes know of it");

    let download = scene.serve(12_000_000);
    let curl = download.start("2M");
    download.finish(curl);
    let relayed =
        volunteer.wait_status("it has relayed", TRANSFER, |status| status["volunteer"]["relayed_bytes"].as_u64());
    assert!(relayed > 6_000_000, "{relayed} bytes");
    let status = scene.a.status();
    let peers = status["peers"].as_array().expect("a list");
    let b = peers.iter().find(|peer| peer["id"] == scene.b.id()).expect("linked");
    assert_eq!((&b["path"], &b["via"]), (&json!("relay"), &json!(volunteer.id())), "{b}");
}
