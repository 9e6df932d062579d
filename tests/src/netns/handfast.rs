//! Real `handfast` nodes in a laboratory, driven through nothing but their command line and its JSON.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::process::{Finished, Process, wait_for};
use super::{Host, Lab};

/// The UDP port of supernodes.
pub const PORT: u16 = 7441;
/// How long a node may take until it says that it is ready.
const READY: Duration = Duration::from_secs(20);
/// How long a question to a running node may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The program: what `HANDFAST_BIN` names, or a release build made now.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("HANDFAST_BIN") {
            return PathBuf::from(path);
        }
        // This runs from `<target>/<profile>/deps/<test>`.
        let own = std::env::current_exe().expect("a path of our own");
        let target = own.ancestors().nth(3).expect("a target directory");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--package", "handfast", "--target-dir"])
            .arg(target)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        assert!(built.expect("cargo starts").success(), "handfast does not build");
        target.join("release/handfast")
    })
}

/// A node that runs in a host of the lab, with a state directory of its own.
pub struct Node {
    host: Host,
    state: PathBuf,
    arguments: Vec<String>,
    process: Process,
    /// The line it said when it was ready: `hf1…@HOST:PORT` of a supernode, `hf1…` of a leaf.
    pub ready: String,
}

impl Lab {
    /// The `hf1…` of the node that will run in `host`; makes its key if there is none.
    pub fn identity(&self, host: &Host) -> String {
        let mut command = command(host, &self.dir().join(host.name()), &["id"]);
        host.run("id", &mut command, ANSWER).ok().text().trim().to_owned()
    }

    /// A supernode on a public host, joined to the network by `bootstrap`.
    pub fn supernode(&self, host: &Host, bootstrap: &[&str], more: &[&str]) -> Node {
        let listen = format!("{}:{PORT}", host.address);
        let mut arguments = vec!["supernode".to_owned(), "--listen".to_owned(), listen];
        extend(&mut arguments, bootstrap, more);
        Node::start(host, self.dir(), arguments)
    }

    /// The same, reachable by IPv6 too.
    pub fn supernode_with_ipv6(&self, host: &Host, bootstrap: &[&str], more: &[&str]) -> Node {
        let v6 = host.address6.expect("an IPv6 address");
        let mut arguments = vec!["supernode".to_owned()];
        for address in [format!("{}:{PORT}", host.address), format!("[{v6}]:{PORT}")] {
            arguments.extend(["--listen".to_owned(), address]);
        }
        extend(&mut arguments, bootstrap, more);
        Node::start(host, self.dir(), arguments)
    }

    /// A node that finds its role by itself.
    pub fn auto(&self, host: &Host, bootstrap: &[&str], more: &[&str]) -> Node {
        let mut arguments = vec!["run".to_owned()];
        extend(&mut arguments, bootstrap, more);
        Node::start(host, self.dir(), arguments)
    }

    /// A leaf, joined to the network by `bootstrap`.
    pub fn leaf(&self, host: &Host, bootstrap: &[&str], more: &[&str]) -> Node {
        let mut arguments = vec!["leaf".to_owned()];
        extend(&mut arguments, bootstrap, more);
        Node::start(host, self.dir(), arguments)
    }
}

/// A node that was started, and may not be ready yet.
pub struct Starting {
    node: Node,
}

impl Lab {
    /// Starts `handfast ARGUMENTS` as one of many nodes in `host`, with a state directory called after `name`. It is not
    /// waited for, so that many start at once.
    pub fn begin(&self, host: &Host, name: &str, arguments: Vec<String>) -> Starting {
        let state = self.dir().join(name);
        let process = launch(host, &state, &arguments, name);
        Starting { node: Node { host: host.clone(), state, arguments, process, ready: String::new() } }
    }
}

impl Starting {
    /// Waits until it is ready.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Node {
        self.node.ready = self.node.process.wait_line(limit, is_ready);
        self.node
    }
}

fn extend(arguments: &mut Vec<String>, bootstrap: &[&str], more: &[&str]) {
    for known in bootstrap {
        arguments.extend(["--bootstrap".to_owned(), (*known).to_owned()]);
    }
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
}

impl Node {
    fn start(host: &Host, dir: &Path, arguments: Vec<String>) -> Self {
        let state = dir.join(host.name());
        let (process, ready) = spawn(host, &state, &arguments);
        Self { host: host.clone(), state, arguments, process, ready }
    }

    /// Its `hf1…`.
    pub fn id(&self) -> &str {
        self.ready.split('@').next().unwrap_or(&self.ready)
    }

    /// Its state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it at once, without a goodbye.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, with the same key and arguments, after it has ended.
    pub fn start_again(&mut self) {
        self.process.kill();
        let (process, ready) = spawn(&self.host, &self.state, &self.arguments);
        assert_eq!(ready, self.ready, "a restarted node is who it was");
        self.process = process;
    }

    /// The same with more arguments.
    pub fn start_again_with(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self.start_again();
    }

    /// The command `handfast ARGUMENTS` of this node's state directory, in its host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(&self.host, &self.state, arguments)
    }

    /// Runs `handfast ARGUMENTS` beside the node, to its end.
    pub fn run(&self, arguments: &[&str], limit: Duration) -> Finished {
        self.host.run(arguments.first().unwrap_or(&"none"), &mut self.command(arguments), limit)
    }

    /// Starts `handfast ARGUMENTS` beside the node.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        self.host.spawn(arguments.first().unwrap_or(&"none"), &mut self.command(arguments))
    }

    /// `handfast status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let finished = self.run(&["status", "--json"], ANSWER).ok();
        serde_json::from_slice(&finished.stdout).expect("status --json is JSON")
    }

    /// Asks for the status until `wanted` takes it. Panics with the last one when `limit` passes before that.
    #[track_caller]
    pub fn wait_status<T>(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        let found = wait_for(limit, || {
            last = self.status();
            wanted(&last)
        });
        found.unwrap_or_else(|| panic!("{}: not within {limit:?}: {what}. Last status: {last:#}", self.host.name()))
    }

    /// `handfast ping PEER --json ARGUMENTS`: one value for each line, and the exit code.
    pub fn ping(&self, peer: &str, arguments: &[&str], limit: Duration) -> (Vec<Value>, i32) {
        let finished = self.run(&[&["ping", peer, "--json"], arguments].concat(), limit);
        let lines = finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        (lines, finished.code)
    }
}

fn command(host: &Host, state: &Path, arguments: &[&str]) -> Command {
    let mut command = host.command(program());
    // Flags of ours must win over whatever the shell around the tests has set.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HANDFAST_") {
            command.env_remove(name);
        }
    }
    // On one segment of a lab everybody would be everybody's neighbour: tests that want that say so.
    command.env("HANDFAST_LAN", "off").args(arguments).arg("--state-dir").arg(state);
    command
}

fn spawn(host: &Host, state: &Path, arguments: &[String]) -> (Process, String) {
    let mut process = launch(host, state, arguments, &arguments[0]);
    let ready = process.wait_line(READY, is_ready);
    (process, ready)
}

fn launch(host: &Host, state: &Path, arguments: &[String], label: &str) -> Process {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(host, state, &words);
    host.spawn(label, command.arg("-v"))
}

fn is_ready(line: &str) -> Option<String> {
    line.starts_with("hf1").then(|| line.to_owned())
}
