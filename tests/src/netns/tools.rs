//! The system's tools that build a laboratory: `ip`, `nft`, `conntrack`, and what is left behind by killed runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::process;

/// What all namespaces of all labs are called at first: `hflab<pid>-<number>-<host>`.
pub(super) const PREFIX: &str = "hflab";

/// Runs `ip` with these words. Panics with what it said when it fails.
#[track_caller]
pub(super) fn ip(words: &[&str]) {
    run(Command::new("ip").args(words));
}

/// Runs `ip -n NAMESPACE` with the words of a line.
#[track_caller]
pub(super) fn ip_in(namespace: &str, line: &str) {
    run(Command::new("ip").args(["-n", namespace]).args(line.split_whitespace()));
}

/// Feeds rules to `nft` in a namespace.
#[track_caller]
pub(super) fn nft(namespace: &str, rules: &str) {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", namespace, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft starts");
    nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads");
    if !nft.wait().expect("nft ends").success() {
        let short: Vec<String> = rules.lines().map(|line| line.chars().take(200).collect()).collect();
        panic!("nft refused:\n{}", short.join("\n"));
    }
}

/// Replaces a table of our own in a namespace; an empty `content` only removes it.
#[track_caller]
pub(super) fn nft_table(namespace: &str, name: &str, content: &str) {
    let table = if content.is_empty() { String::new() } else { format!("table inet {name} {{\n{content}\n}}\n") };
    nft(namespace, &format!("add table inet {name}\ndelete table inet {name}\n{table}"));
}

/// Sets kernel parameters of a namespace, by their path below `/proc/sys`.
#[track_caller]
pub(super) fn set_kernel(namespace: &str, settings: &[(&str, &str)]) {
    let mut script = String::from("set -e\n");
    for (name, value) in settings {
        let _ = writeln!(script, "echo {value} > /proc/sys/{name}");
    }
    run(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", &script]));
}

/// Adds a bridge to a namespace. It only switches: where the kernel would send switched packets through the rules for
/// routed ones, that is turned off.
#[track_caller]
pub(super) fn add_bridge(namespace: &str, name: &str) {
    ip_in(namespace, &format!("link add name {name} type bridge mcast_snooping 0"));
    ip_in(namespace, &format!("link set {name} up"));
    let quiet = "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || echo 0 > $file; done";
    run(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", quiet]));
}

/// Runs a command to its end and gives back what it wrote. Panics with what it said when it fails.
#[track_caller]
pub(super) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.stdout
}

/// Panics, and says why, where a laboratory cannot be built.
pub(super) fn check_tools() {
    let me = std::fs::metadata("/proc/self").expect("Linux with /proc").uid();
    assert!(me == 0, "network-namespace tests need root: run them with sudo, or leave out `--features netns`");
    let mut missing = String::new();
    for (tool, flag, package) in [("ip", "-V", "iproute2"), ("nft", "-v", "nftables"), ("conntrack", "-V", "conntrack")]
    {
        let found = Command::new(tool).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            let _ = write!(missing, " {tool} (Debian package {package})");
        }
    }
    assert!(missing.is_empty(), "network-namespace tests need these tools:{missing}");
}

/// All namespaces of this machine that have a name.
pub(super) fn namespaces() -> BTreeSet<String> {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return BTreeSet::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Deletes what earlier, killed runs left behind: namespaces whose process is gone.
pub(super) fn sweep() {
    for namespace in namespaces() {
        let Some(rest) = namespace.strip_prefix(PREFIX) else { continue };
        let Some((pid, _)) = rest.split_once('-') else { continue };
        if pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists() {
            remove_namespace(&namespace);
        }
    }
}

/// Kills whatever runs inside, then deletes it. Says nothing when another sweep was faster.
pub(super) fn remove_namespace(namespace: &str) {
    if let Ok(pids) = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).output() {
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            process::signal(pid, "KILL");
        }
    }
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
}
