//! Real `handfast` processes behind real routers. Needs root; see `handfast_tests::netns`.
//!
//! The scene of every test is a [`Scene`]: three supernodes, and a leaf `a` that dials `b`. Everything goes through the
//! command line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use handfast_tests::netns::handfast::program;
use handfast_tests::netns::process::{Process, wait_for};
use handfast_tests::netns::scene::{GENEROUS, Pair, SOON, Scene, TRANSFER, WEB};
use handfast_tests::netns::{Host, Nat, Router};
use serde_json::Value;

const SSH: &str = "ssh=127.0.0.1:22";
const EASY_PAIR: Pair = Pair::homes(Nat::EASY, Nat::EASY);
const HARD_PAIR: Pair = Pair::homes(Nat::HARD, Nat::HARD);

/// Whether `id` stands anywhere in a part of a status.
fn mentions(value: &Value, id: &str) -> bool {
    value.to_string().contains(id)
}

#[test]
fn two_leaves_behind_two_routers_become_direct() {
    let scene = Scene::new(EASY_PAIR, SSH, &[]);
    scene.wait_direct();
    let (lines, code) = scene.a.ping(scene.b.id(), &["-c", "3"], SOON);
    assert_eq!(code, 0);
    assert_eq!(lines.len(), 3);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["schema"], "handfast.ping/1");
        assert_eq!(line["path"], "direct");
        let remote = line["remote"].as_str().expect("a remote");
        assert!(remote.starts_with(&format!("{}:", scene.routers[1].address)), "{remote}");
        assert!(line["rtt_ms"].as_f64().expect("a number") < 1000.0);
        assert_eq!(line["seq"].as_u64().expect("a number"), lines[0]["seq"].as_u64().expect("a number") + index as u64);
    }

    let status = scene.a.status();
    assert_eq!(status["schema"], "handfast.status/1");
    assert_eq!(status["id"], scene.a.id());
    assert_eq!(status["role"], "leaf");
    assert!(mentions(&status["peers"], scene.b.id()));
    assert!(mentions(&status["observed"], &scene.routers[0].address.to_string()), "{:#}", status["observed"]);
    // One home at once, the second when it has been found.
    scene.a.wait_status("two homes", SOON, |status| (status["homes"].as_array()?.len() == 2).then_some(()));
    let supernodes = &scene.supernodes;
    scene.a.wait_status("three supernodes known", SOON, |status| {
        supernodes.iter().all(|node| mentions(&status["supernodes"], node.id())).then_some(())
    });
    let status = supernodes[0].status();
    assert_eq!(status["role"], "supernode");
    assert!(mentions(&status["listen"], &supernodes[0].host().address.to_string()));
}

#[test]
fn ssh_session_through_pipe() {
    let scene = Scene::new(EASY_PAIR, SSH, &[]);
    let dir = scene.lab.dir().join("ssh");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("ours");
    let _sshd = sshd(scene.b.host(), &dir);
    let proxy =
        format!("{} pipe {} --state-dir {}", program().display(), scene.target("ssh"), scene.a.state_dir().display());
    let ssh = |script: &str| {
        let mut command = scene.a.host().command("sh");
        let options = "-F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes";
        let dir = dir.display();
        let line = format!(
            "ssh {options} -o ProxyCommand='{proxy}' -o UserKnownHostsFile={dir}/known -i {dir}/user root@nas {script}"
        );
        scene.a.host().run("ssh", command.args(["-c", &line]), SOON)
    };
    let text = ssh("'echo $((6 * 7)) $SSH_CONNECTION'").ok().text();
    assert!(text.starts_with("42 127.0.0.1 ") && text.trim().ends_with(" 127.0.0.1 22"), "{text}");
    // 1 MiB there and back.
    let mut content = vec![0; 1 << 20];
    blake3::Hasher::new().update(b"ssh").finalize_xof().fill(&mut content);
    fs::write(dir.join("in"), &content).expect("a file");
    let back = ssh(&format!("cat < {}/in", dir.display())).ok();
    assert_eq!(blake3::hash(&back.stdout), blake3::hash(&content));
    // The exit code of the far command comes through.
    assert_eq!(ssh("'exit 3'").code, 3);
}

/// An OpenSSH server at 127.0.0.1:22 of `host`, with keys of its own in `dir`.
fn sshd(host: &Host, dir: &Path) -> Process {
    let own = |command: &mut Command| {
        let output = command.output().expect("ssh-keygen starts (Debian package openssh-client)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for name in ["host", "user"] {
        own(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)));
    }
    fs::copy(dir.join("user.pub"), dir.join("authorized")).expect("a file");
    let host_key = fs::read_to_string(dir.join("host.pub")).expect("a key");
    fs::write(dir.join("known"), format!("nas {host_key}")).expect("a file");
    // Debian's sshd insists on this directory even where it does not use it.
    fs::create_dir_all("/run/sshd").expect("root");
    let config = format!(
        "ListenAddress 127.0.0.1:22\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nPidFile none\n\
         UsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nStrictModes no\n",
        dir = dir.display()
    );
    fs::write(dir.join("config"), config).expect("a file");
    let mut command = host.command("/usr/sbin/sshd");
    let mut sshd = host.spawn("sshd", command.args(["-D", "-e", "-f"]).arg(dir.join("config")));
    let listens = wait_for(SOON, || {
        assert!(sshd.is_running(), "sshd ended at once");
        let sockets = host.run("ss", host.command("cat").arg("/proc/net/tcp"), SOON).text();
        sockets.contains("0100007F:0016 00000000:0000 0A").then_some(())
    });
    assert!(listens.is_some(), "sshd does not listen");
    sshd
}

#[test]
fn curl_of_100_mib_through_connect() {
    let scene = Scene::new(EASY_PAIR, WEB, &[]);
    let download = scene.serve(100 << 20);
    let curl = download.start("1G");
    download.finish(curl);
    let path = scene.wait_ping(SOON);
    assert_eq!(path["path"], "direct");
}

#[test]
fn transfer_survives_router_reboots() {
    let scene = Scene::new(EASY_PAIR, WEB, GENEROUS);
    let download = scene.serve(40 << 20);
    let curl = download.start("8M");
    download.wait_part(20);
    scene.wait_direct();
    scene.routers[1].reboot();
    download.wait_part(40);
    scene.routers[0].reboot();
    download.wait_part(60);
    scene.routers.iter().for_each(Router::reboot);
    download.finish(curl);
}

#[test]
fn transfer_survives_a_new_public_address() {
    let mut scene = Scene::new(EASY_PAIR, WEB, GENEROUS);
    let download = scene.serve(40 << 20);
    let curl = download.start("8M");
    download.wait_part(20);
    scene.wait_direct();
    scene.routers[1].renumber();
    download.wait_part(60);
    scene.routers[0].renumber();
    download.finish(curl);
    scene.wait_direct();
}

#[test]
fn transfer_survives_roaming() {
    let mut scene = Scene::new(EASY_PAIR, WEB, GENEROUS);
    let download = scene.serve(40 << 20);
    let curl = download.start("8M");
    download.wait_part(20);
    scene.wait_direct();
    // The one who offers moves to another network, then the one who dials, to a worse one; the interface is a new one.
    let mut other = scene.lab.router(Nat::MOVED);
    other.take(&mut scene.b.host().clone());
    download.wait_part(50);
    let mut mobile = scene.lab.router(Nat::HARD);
    mobile.take(&mut scene.a.host().clone());
    download.wait_part(80);
    download.finish(curl);
    let back = scene.wait_ping(SOON);
    assert!(
        back["path"] == "relay" || back["remote"].as_str().expect("a remote").starts_with(&other.address.to_string())
    );
}

#[test]
fn transfer_survives_an_interface_that_goes_and_comes() {
    let scene = Scene::new(EASY_PAIR, WEB, GENEROUS);
    let download = scene.serve(40 << 20);
    let curl = download.start("8M");
    for (percent, node) in [(20, &scene.b), (50, &scene.a)] {
        download.wait_part(percent);
        scene.wait_direct();
        node.host().set_interface(false);
        std::thread::sleep(Duration::from_secs(2));
        node.host().set_interface(true);
    }
    download.finish(curl);
    scene.wait_direct();
}

#[test]
fn hard_pair_stays_on_relay_and_works() {
    let scene = Scene::new(HARD_PAIR, WEB, &[]);
    let (lines, code) = scene.a.ping(scene.b.id(), &["-c", "4"], SOON);
    assert_eq!(code, 0, "{lines:?}");
    for line in &lines {
        assert_eq!(line["path"], "relay");
        let via = line["via"].as_str().expect("via");
        assert!(scene.supernodes.iter().any(|node| node.id() == via), "{via}");
    }
    let (_, code) = scene.a.ping(scene.b.id(), &["-c", "2", "--until-direct"], SOON);
    assert_ne!(code, 0, "it never became direct");
    // The default limit of a stranger's pair is 2 Mbit/s.
    let download = scene.serve(2 << 20);
    let curl = download.start("1G");
    download.finish(curl);
}

#[test]
fn killed_relay_is_replaced_and_comes_back() {
    let mut scene = Scene::new(HARD_PAIR, WEB, GENEROUS);
    for leaf in [&scene.a, &scene.b] {
        leaf.wait_status("two homes", SOON, |status| (status["homes"].as_array()?.len() == 2).then_some(()));
    }
    let download = scene.serve(40 << 20);
    let curl = download.start("4M");
    download.wait_part(20);
    let via = scene.wait_ping(SOON)["via"].as_str().expect("relayed").to_owned();
    let relay = scene.supernodes.iter().position(|node| node.id() == via).expect("one of ours");
    scene.supernodes[relay].kill();
    download.wait_part(60);
    let other = scene.wait_ping(SOON)["via"].as_str().expect("relayed").to_owned();
    assert_ne!(other, via);
    scene.supernodes[relay].start_again();
    download.finish(curl);
    // Both others die: only the restarted one is left, and it is found again.
    for (index, node) in scene.supernodes.iter_mut().enumerate() {
        if index != relay {
            node.kill();
        }
    }
    assert_eq!(scene.wait_ping(TRANSFER)["via"], via.as_str());
}

#[test]
fn killed_leaf_comes_back_under_its_key() {
    let mut scene = Scene::new(EASY_PAIR, WEB, &[]);
    scene.wait_direct();
    scene.b.kill();
    scene.b.start_again();
    scene.wait_ping(SOON);
    let download = scene.serve(1 << 20);
    let curl = download.start("1G");
    download.finish(curl);
}

#[test]
fn terminated_leaf_says_goodbye() {
    let mut scene = Scene::new(EASY_PAIR, WEB, &[]);
    scene.wait_direct();
    let id = scene.b.id().to_owned();
    let home = scene.supernodes.iter().find(|node| mentions(&node.status()["peers"], &id)).expect("a home of b");
    scene.b.process().signal("TERM");
    let gone = Duration::from_secs(2);
    home.wait_status("the leaf is gone", gone, |status| (!mentions(&status["peers"], &id)).then_some(()));
    scene.a.wait_status("the peer is gone", gone, |status| (!mentions(&status["peers"], &id)).then_some(()));
    let ended = wait_for(SOON, || (!scene.b.process().is_running()).then_some(()));
    assert!(ended.is_some(), "SIGTERM ends it");
}

#[test]
fn who_is_not_allowed_is_refused() {
    let mut scene = Scene::new(EASY_PAIR, WEB, &[]);
    let host = scene.lab.lan_host(&mut scene.routers[0], "c");
    let stranger = scene.lab.leaf(&host, &[&scene.supernodes[2].ready], &[]);
    let refused = stranger.run(&["pipe", &scene.target("web")], SOON);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert_eq!(refused.stdout, b"");
    let unknown = scene.a.run(&["pipe", &scene.target("nothing")], SOON);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
}
