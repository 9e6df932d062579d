//! A local program's side of the socket, as the commands use it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::line::{LINE_LEN_MAX, Line, read_line};
use super::{VERSION, socket};
use crate::exit::{Exit, Failure};
use crate::report::{PathReport, StatusReport};

/// How long a node may take for what needs no network.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Largest status that is read.
const STATUS_LEN_MAX: usize = 64 << 20;

/// A connection to a running node.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    /// The node's address.
    pub(crate) id: String,
}

impl Client {
    /// Connects to the node behind `path`; `None` if there is none.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>, Failure> {
        let socket = match socket::connect(path) {
            Ok(socket) => socket,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => {
                return Err(Failure::new(
                    Exit::Failure,
                    format!("cannot use the node's socket {}: {error}", path.display()),
                    "run the command as the node's user",
                ));
            }
        };
        let mut client = Self { socket, id: String::new() };
        let answer = client.ask(&Line::new("HELLO").with("version", VERSION), ANSWER_DEADLINE)?;
        client.id = answer.need("id")?.into();
        Ok(Some(client))
    }

    /// Connects to the node behind `path`, which has to be there.
    pub(crate) fn connect_running(path: &Path) -> Result<Self, Failure> {
        Self::connect(path)?.ok_or_else(|| {
            Failure::new(
                Exit::NotRunning,
                format!("no node is running (nobody listens on {})", path.display()),
                "start one with: handfast leaf --bootstrap hf1…@HOST:PORT",
            )
        })
    }

    /// Asks one thing and returns the answer, or why it failed.
    pub(crate) fn ask(&mut self, line: &Line, deadline: Duration) -> Result<Line, Failure> {
        self.send(line)?;
        self.answer(deadline)
    }

    /// Asks one thing whose answer may be long in coming.
    pub(crate) fn send(&mut self, line: &Line) -> Result<(), Failure> {
        self.socket.write_all(format!("{line}\n").as_bytes()).map_err(|error| lost(&error))
    }

    /// The answer to what was asked.
    pub(crate) fn answer(&mut self, deadline: Duration) -> Result<Line, Failure> {
        let text = read_line(&self.socket, LINE_LEN_MAX, Some(deadline)).map_err(|error| lost(&error))?;
        let text = text.ok_or_else(|| lost(&io::ErrorKind::UnexpectedEof.into()))?;
        text.parse::<Line>()
            .map_err(|error| Failure::bare(Exit::Failure, format!("the node's answer is not understood: {error}")))?
            .into_result()
    }

    /// What the node is and sees, as the JSON it sent and as what this version understands of it.
    pub(crate) fn status(&mut self) -> Result<(String, StatusReport), Failure> {
        let garbled = |why: &dyn std::fmt::Display| {
            Failure::bare(Exit::Failure, format!("the node's status is not understood: {why}"))
        };
        let answer = self.ask(&Line::new("STATUS"), ANSWER_DEADLINE)?;
        let len: usize = answer.need("length")?.parse().map_err(|error| garbled(&error))?;
        if len > STATUS_LEN_MAX {
            return Err(garbled(&"it is too long"));
        }
        let mut json = String::new();
        // One more byte: the newline behind it.
        (&self.socket).take(len as u64 + 1).read_to_string(&mut json).map_err(|error| lost(&error))?;
        let report = serde_json::from_str(&json).map_err(|error| garbled(&error))?;
        Ok((json.trim_end().into(), report))
    }

    /// Makes a supernode known to the node.
    pub(crate) fn join(&mut self, supernode: impl std::fmt::Display, at: SocketAddr) -> Result<(), Failure> {
        let line = Line::new("JOIN").with("supernode", format!("{supernode}@{at}"));
        self.ask(&line, ANSWER_DEADLINE).map(|_| ())
    }

    /// One round trip to `peer`: how long it took, by which way, and how long the budget still holds back an attempt at
    /// a better one.
    pub(crate) fn ping(&mut self, peer: &str, timeout: Duration) -> Result<(f64, PathReport, Option<u64>), Failure> {
        let answer = self.ask_peer(Line::new("PING").with("peer", peer), timeout)?;
        let rtt = answer.need("rtt_ms")?.parse().unwrap_or(0.0);
        let held_ms = answer.get("held_ms").and_then(|ms| ms.parse().ok());
        Ok((rtt, path(&answer), held_ms))
    }

    /// Asks something that the node may ask a peer for `timeout`.
    pub(crate) fn ask_peer(&mut self, line: Line, timeout: Duration) -> Result<Line, Failure> {
        let line = line.with("timeout_ms", timeout.as_millis());
        self.ask(&line, timeout + ANSWER_DEADLINE)
    }

    /// Waits until the node closes the connection.
    pub(crate) fn wait_closed(&self) {
        while let Ok(Some(_)) = read_line(&self.socket, LINE_LEN_MAX, None) {}
    }

    /// Another handle of the socket, to close it from another thread.
    pub(crate) fn try_clone_socket(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// The socket, which is a stream after `DIAL` and `ACCEPT`.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.socket
    }
}

/// The path an answer names.
pub(crate) fn path(answer: &Line) -> PathReport {
    PathReport {
        path: answer.get("path").unwrap_or("unknown").into(),
        remote: answer.get("remote").and_then(|text| text.parse().ok()),
        via: answer.get("via").map(Into::into),
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("the node does not answer on its local socket: {error}"),
        "see whether it is still running: handfast status",
    )
}
