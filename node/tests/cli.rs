//! The command as a shell sees it: what it prints where, its exit codes, and what it leaves on disk.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A real address that nobody has.
const NOBODY: &str = "hf1vpzx3e4gcvh55pva0qg7hzdnwsp8pvkezxpelecfnnupappr3rzq7js82y";

/// No start takes this long.
const READY_MAX: Duration = Duration::from_secs(60);

/// A state directory of its own, and commands that use it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command.env("HANDFAST_STATE_DIR", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn id(&self) -> String {
        let output = self.run(&["id"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        stdout(&output)
    }

    /// Starts a command that stays, and reads the one line it prints when it is ready.
    fn start(&self, args: &[&str]) -> (Running, String) {
        let mut child = self.command(args).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let child = Ending(child);
        let (ready, line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let _ = ready.send((line, out));
        });
        // Only so that what never gets ready is a failure and not a test that hangs.
        let (line, out) = line.recv_timeout(READY_MAX).unwrap_or_else(|_| panic!("handfast {args:?} is never ready"));
        assert!(!line.is_empty(), "handfast {args:?} ended before it was ready");
        (Running { child, out }, line.trim_end().into())
    }
}

/// A child that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    child: Ending,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn signal(&self, signal: &str) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.0.wait().unwrap().code()
    }
}

/// The command in an empty environment and without standard input.
fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handfast"));
    // What router and what neighbours this machine has is none of these tests' business.
    command.args(args).env_clear().env("HANDFAST_PORT_MAP", "off").env("HANDFAST_LAN", "off").stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().into()
}

/// The error: one line on stderr, nothing on stdout, and this exit code.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(stdout(output), "");
    let mut errors = text.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_else(|| panic!("no error line in {text:?}")).to_owned();
    assert_eq!(errors.next(), None);
    assert!(error.contains("; "), "no next step in {error:?}");
    error
}

#[test]
fn id_makes_a_key_once_and_prints_only_the_address() {
    let place = Place::new();
    let id = place.id();
    assert!(id.starts_with("hf1") && !id.contains(char::is_whitespace));
    assert_eq!(place.id(), id);
    assert_eq!(fs::metadata(place.path("key")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn the_state_directory_follows_flag_environment_and_xdg() {
    let [flag, env, home] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let dir = |dir: &tempfile::TempDir| dir.path().to_str().unwrap().to_owned();
    let run = |args: &[&str], with_env: bool| {
        let mut command = bare(args);
        command.env("HOME", home.path());
        if with_env {
            command.env("HANDFAST_STATE_DIR", env.path());
        }
        assert!(command.output().unwrap().status.success());
    };
    run(&["id", "--state-dir", &dir(&flag)], true);
    assert!(flag.path().join("key").exists() && !env.path().join("key").exists());
    run(&["id"], true);
    assert!(env.path().join("key").exists());
    run(&["id"], false);
    assert!(home.path().join(".local/state/handfast/key").exists());
    refused(&bare(&["id"]).output().unwrap(), 2);
}

#[test]
fn bad_flags_are_usage_errors() {
    let place = Place::new();
    for args in [
        &["--no-such-flag"][..],
        &["leef"],
        &["ping"],
        &["ping", NOBODY, "-c", "0"],
        &["ping", NOBODY, "-c", "many"],
        &["leaf", "--log-format", "xml"],
        &["supernode"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn wrong_addresses_say_what_is_wrong() {
    let place = Place::new();
    // The last character is another one.
    let typo = format!("{}{}", &NOBODY[..NOBODY.len() - 1], if NOBODY.ends_with('q') { 'p' } else { 'q' });
    for command in ["ping", "pipe", "connect"] {
        let error = refused(&place.run(&[command, &typo]), 2);
        assert!(error.contains("has a typing mistake (checksum)"), "{error}");
        let error = refused(&place.run(&[command, "nas/ssh"]), 2);
        assert!(error.contains("not an address"), "{error}");
    }
    let error = refused(&place.run(&["pipe", NOBODY]), 2);
    assert!(error.contains("names no service") && error.contains("/NAME"), "{error}");
    refused(&place.run(&["ping", "hft1qqqqqqqq"]), 2);
    refused(&place.run(&["pipe", &format!("{NOBODY}/Ssh")]), 2);
    refused(&place.run(&["expose", "ssh"]), 2);
    refused(&place.run(&["expose", "ssh=127.0.0.1:22", "--allow", "everyone"]), 2);
    refused(&place.run(&["leaf", "--bootstrap", NOBODY]), 2);
    refused(&place.run(&["leaf", "--bootstrap", &format!("{NOBODY}@no-such-host.invalid:1")]), 2);
    refused(&place.run(&["leaf", "--listen", "somewhere", "--bootstrap", &format!("{NOBODY}@127.0.0.1:1")]), 2);
    refused(&place.run(&["supernode", "--listen", "127.0.0.1"]), 2);
    let error = refused(&place.run(&["supernode", "--listen", "0.0.0.0:7441"]), 2);
    assert!(error.contains("--advertise"), "{error}");
}

#[test]
fn an_address_may_come_on_standard_input() {
    let place = Place::new();
    let mut child = place
        .command(&["pipe", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{NOBODY}\n").as_bytes()).unwrap();
    let error = refused(&child.wait_with_output().unwrap(), 2);
    assert!(error.contains("names no service"), "{error}");
}

#[test]
fn a_node_that_knows_nobody_says_what_it_needs() {
    let place = Place::new();
    for args in [&["leaf"][..], &["ping", NOBODY], &["connect", &format!("{NOBODY}/ssh")], &["expose", "ssh=22"]] {
        let error = refused(&place.run(args), 2);
        assert!(error.contains("--bootstrap") && error.contains("ticket"), "{error}");
    }
}

#[test]
fn commands_that_need_a_running_node_say_how_to_start_one() {
    let place = Place::new();
    for args in [&["status"][..], &["status", "--json"], &["ticket"], &["ticket", "ssh"]] {
        let error = refused(&place.run(args), 3);
        assert!(error.contains("handfast leaf"), "{error}");
    }
}

#[test]
fn an_unwritable_state_directory_is_named() {
    // Below a plain file: nobody can make a directory there, root included.
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("state");
    for args in [&["id"][..], &["supernode", "--listen", "127.0.0.1:0"]] {
        let output = bare(args).env("HANDFAST_STATE_DIR", &dir).output().unwrap();
        let error = refused(&output, 1);
        assert!(error.contains(dir.to_str().unwrap()) && error.contains("--state-dir"), "{error}");
    }
}

#[test]
fn a_key_that_cannot_be_trusted_is_left_alone() {
    let place = Place::new();
    place.id();
    let key = place.path("key");
    let check = |why: &str| {
        let before = fs::read(&key).unwrap();
        for args in [&["id"][..], &["supernode", "--listen", "127.0.0.1:0"]] {
            let error = refused(&place.run(args), 6);
            assert!(error.contains(key.to_str().unwrap()) && error.contains(why), "{error}");
        }
        assert_eq!(fs::read(&key).unwrap(), before);
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    check("others can read it");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let good = fs::read_to_string(&key).unwrap();
    fs::write(&key, &good[..good.len() / 2]).unwrap();
    check("damaged");
    fs::write(&key, "").unwrap();
    check("damaged");
}

#[test]
fn errors_are_json_when_asked_for() {
    let output = Place::new().run(&["status", "--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&line["schema"], &line["code"]), (&"handfast.error/1".into(), &3.into()));
}

// From here on real nodes run.

fn supernode(place: &Place) -> (Running, String) {
    let (running, address) = place.start(&["supernode", "--listen", "127.0.0.1:0"]);
    assert!(address.starts_with(&format!("{}@127.0.0.1:", place.id())), "{address}");
    (running, address)
}

/// A TCP service that sends everything back, and its address.
fn echo_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut &client, &mut &client));
        }
    });
    address
}

#[test]
fn a_second_node_on_the_same_state_directory_is_refused() {
    let place = Place::new();
    let (first, address) = supernode(&place);
    let error = refused(&place.run(&["supernode", "--listen", "127.0.0.1:0"]), 1);
    assert!(error.contains(&first.child.0.id().to_string()), "{error}");
    let error = refused(&place.run(&["leaf", "--bootstrap", &address]), 1);
    assert!(error.contains("--state-dir"), "{error}");
    assert_eq!(first.end("-TERM"), Some(0));
    let (again, _) = supernode(&place);
    assert_eq!(again.end("-INT"), Some(0));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let error = refused(&Place::new().run(&["supernode", "--listen", &at]), 1);
    assert!(error.contains(&at) && error.contains("--listen"), "{error}");
}

#[test]
fn status_is_for_people_and_programs() {
    let place = Place::new();
    let (_node, address) = supernode(&place);
    assert_eq!(fs::metadata(place.path("socket")).unwrap().mode() & 0o777, 0o600);
    let output = place.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["schema"], "handfast.status/1");
    assert_eq!(status["role"], "supernode");
    assert_eq!(format!("{}@{}", status["id"].as_str().unwrap(), status["listen"][0].as_str().unwrap()), address);
    assert!(stdout(&place.run(&["status"])).contains(status["id"].as_str().unwrap()));
}

#[test]
fn the_socket_goes_with_the_node() {
    let place = Place::new();
    let (node, _) = supernode(&place);
    assert_eq!(node.end("-TERM"), Some(0));
    assert!(!place.path("socket").exists());
    refused(&place.run(&["status"]), 3);
}

#[test]
fn an_unknown_peer_is_unreachable() {
    let (home, here) = (Place::new(), Place::new());
    let (_node, address) = supernode(&home);
    let target = format!("{NOBODY}/ssh");
    for args in [
        &["pipe", &target, "--bootstrap", &address, "--timeout", "5"][..],
        &["connect", &target, "--bootstrap", &address, "--timeout", "5"],
    ] {
        refused(&here.run(args), 4);
    }
    let output = here.run(&["ping", NOBODY, "-c", "1", "--json", "--bootstrap", &address]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["schema"], &line["timeout"]), (&"handfast.ping/1".into(), &true.into()));
}

#[test]
fn services_are_reached_refused_or_unknown() {
    let (home, there, friend, stranger) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (_supernode, address) = supernode(&home);
    let expose = format!("echo={}", echo_service());
    let (leaf, id) = there.start(&[
        "leaf",
        "--bootstrap",
        &address,
        "--expose",
        &expose,
        "--allow",
        &friend.id(),
        "--allow",
        NOBODY,
    ]);
    assert_eq!(id, there.id());

    let error = refused(&friend.run(&["pipe", &format!("{id}/nothing"), "--bootstrap", &address]), 5);
    assert!(error.contains("offers no service \"nothing\""), "{error}");
    // Somebody whom no service is open to is not even introduced.
    let error = refused(&stranger.run(&["connect", &format!("{id}/echo"), "--bootstrap", &address]), 5);
    assert!(error.contains("refuses") && error.contains("--allow"), "{error}");

    let ticket = stdout(&there.run(&["ticket", "echo"]));
    assert!(ticket.starts_with("hft1"), "{ticket}");
    for target in [&format!("{id}/echo"), &ticket] {
        assert_eq!(piped(&friend, target, &address, b"there and back"), b"there and back");
    }
    // More than fits into any buffer on the way, so that back-pressure and half-close both have to work.
    let long: Vec<u8> = (0..8 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(piped(&friend, &ticket, &address, &long) == long, "the bytes changed");

    let (connect, listener) = friend.start(&["connect", &ticket]);
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&listener).unwrap();
        stream.write_all(b"over tcp").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"over tcp");
    }
    // A command beside it uses the node of the first.
    let output = friend.run(&["ping", &id, "-c", "1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(connect.end("-INT"), Some(130));
    assert_eq!(leaf.end("-TERM"), Some(0));
}

/// What comes back when `input` is piped to a service and standard input ends.
fn piped(place: &Place, target: &str, bootstrap: &str, input: &[u8]) -> Vec<u8> {
    let mut child = place
        .command(&["pipe", target, "--bootstrap", bootstrap])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        stdout.read_to_end(&mut back).unwrap();
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    back
}

/// A pipe that stays open, with both its ends.
fn open_pipe(place: &Place, target: &str, bootstrap: &str) -> (Running, ChildStdin) {
    let mut command = place.command(&["pipe", target, "--bootstrap", bootstrap]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (stdin, out) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    (Running { child: Ending(child), out }, stdin)
}

/// Sends a line and waits until it came back.
fn echoed((running, stdin): &mut (Running, ChildStdin), text: &str) {
    stdin.write_all(format!("{text}\n").as_bytes()).unwrap();
    let mut line = String::new();
    running.out.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), text);
}

#[test]
fn a_hang_up_of_one_session_does_not_cut_off_another() {
    let (home, there, here) = (Place::new(), Place::new(), Place::new());
    let (_supernode, address) = supernode(&home);
    let expose = format!("echo={}", echo_service());
    let (_leaf, id) = there.start(&["leaf", "--bootstrap", &address, "--expose", &expose, "--allow", "any"]);
    let target = format!("{id}/echo");
    // No node runs here: the first session becomes one, and the second finds it.
    let mut first = open_pipe(&here, &target, &address);
    echoed(&mut first, "one");
    let mut second = open_pipe(&here, &target, &address);
    echoed(&mut second, "two");
    // What ssh does to its ProxyCommand at the end of a session.
    first.0.signal("-HUP");
    echoed(&mut second, "three");
    let mut rest = String::new();
    drop(second.1);
    second.0.out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(second.0.child.0.wait().unwrap().code(), Some(0));
    assert_eq!(first.0.child.0.wait().unwrap().code(), Some(130));
}

#[test]
fn ping_tells_the_path() {
    let (home, there, here) = (Place::new(), Place::new(), Place::new());
    let (_supernode, address) = supernode(&home);
    let expose = ["--expose", "web=80", "--allow", &here.id()];
    let (_leaf, id) = there.start(&[&["leaf", "--bootstrap", &address][..], &expose].concat());
    let output = here.run(&["ping", &id, "--until-direct", "--json", "--bootstrap", &address]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["path"], &last["seq"]), (&"direct".into(), &lines.len().into()));
    assert!(last["remote"].as_str().unwrap().contains(':') && last["rtt_ms"].as_f64().is_some());
}

#[test]
fn expose_lives_as_long_as_its_command() {
    let (home, there, here) = (Place::new(), Place::new(), Place::new());
    let (_supernode, address) = supernode(&home);
    let (_leaf, id) = there.start(&["leaf", "--bootstrap", &address]);
    let target = format!("echo={}", echo_service());
    let (expose, line) = there.start(&["expose", &target, "--allow", "any"]);
    assert_eq!(line, format!("{id}/echo"));
    let error = refused(&there.run(&["expose", &target, "--allow", "any"]), 1);
    assert!(error.contains("already"), "{error}");
    assert_eq!(piped(&here, &line, &address, b"hello"), b"hello");
    assert_eq!(expose.end("-INT"), Some(130));
    refused(&here.run(&["pipe", &line, "--bootstrap", &address]), 5);
}

#[test]
fn any_program_can_use_the_local_socket() {
    use std::os::unix::net::UnixStream;
    let attach = |place: &Path| {
        let mut socket = UnixStream::connect(place.join("socket")).unwrap();
        socket.write_all(b"HELLO version=1\n").unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("OK ") && line.contains(" id=hf1"), "{line}");
        (socket, reader)
    };
    let ask = |(socket, reader): &mut (UnixStream, BufReader<UnixStream>), request: &str| {
        socket.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let (home, there) = (Place::new(), Place::new());
    let (_supernode, address) = supernode(&home);
    let (_leaf, id) = there.start(&["leaf", "--bootstrap", &address]);

    let mut registration = attach(there.dir.path());
    assert_eq!(ask(&mut registration, "REGISTER service=chat allow=any"), "OK");
    let mut acceptor = attach(there.dir.path());
    acceptor.0.write_all(b"ACCEPT service=chat\n").unwrap();
    let mut dialer = attach(home.dir.path());
    assert!(ask(&mut dialer, &format!("DIAL peer={id} service=chat")).starts_with("OK "));
    let mut line = String::new();
    acceptor.1.read_line(&mut line).unwrap();
    assert!(line.starts_with("OK ") && line.contains(&format!("peer={}", home.id())), "{line}");
    dialer.0.write_all(b"raw").unwrap();
    dialer.0.shutdown(std::net::Shutdown::Write).unwrap();
    let mut raw = String::new();
    acceptor.1.read_to_string(&mut raw).unwrap();
    assert_eq!(raw, "raw");

    let mut junk = attach(there.dir.path());
    assert!(ask(&mut junk, "DANCE").starts_with("ERR code=2 "));
    assert!(ask(&mut junk, "ACCEPT service=other").starts_with("ERR code=1 "));
    assert!(ask(&mut junk, &format!("DIAL peer={id} service=chat")).starts_with("ERR code=2 "), "its own address");
    let mut dialer = attach(home.dir.path());
    assert!(ask(&mut dialer, &format!("DIAL peer={id} service=other")).starts_with("ERR code=5 "));
    drop(registration);
}
