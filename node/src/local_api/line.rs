//! One line of the local API, and reading it from a socket that becomes something else right after it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::exit::{Exit, Failure};

/// Longest line that is read.
pub(crate) const LINE_LEN_MAX: usize = 8192;
/// Most `key=value` pairs in it.
const ARGUMENTS_MAX: usize = 16;

/// `VERB key=value …`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// What is asked or answered.
    pub(crate) verb: String,
    arguments: BTreeMap<String, String>,
}

impl Line {
    /// A line without arguments.
    pub(crate) fn new(verb: &str) -> Self {
        Self { verb: verb.into(), arguments: BTreeMap::new() }
    }

    /// Adds an argument.
    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.arguments.insert(key.into(), value.to_string());
        self
    }

    /// The value of an argument.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.arguments.get(key).map(String::as_str)
    }

    /// The value of an argument that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<&str, Failure> {
        self.get(key).ok_or_else(|| Failure::bare(Exit::Usage, format!("{} needs {key}=…", self.verb)))
    }

    /// A failure as an answer.
    pub(crate) fn error(failure: &Failure) -> Self {
        let line = Self::new("ERR").with("code", failure.exit.code()).with("text", &failure.cause);
        match &failure.next {
            Some(next) => line.with("next", next),
            None => line,
        }
    }

    /// An answer as what it says: `OK`, or the failure.
    pub(crate) fn into_result(self) -> Result<Self, Failure> {
        match self.verb.as_str() {
            "OK" => Ok(self),
            "ERR" => Err(Failure {
                exit: Exit::from_code(self.get("code").and_then(|code| code.parse().ok()).unwrap_or(1)),
                cause: self.get("text").unwrap_or("the node refused without a reason").into(),
                next: self.get("next").map(Into::into),
            }),
            verb => Err(Failure::bare(Exit::Failure, format!("the node answered {verb:?}, which is not understood"))),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verb)?;
        for (key, value) in &self.arguments {
            let plain =
                !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || c.is_control() || "\"\\".contains(c));
            if plain {
                write!(f, " {key}={value}")?;
                continue;
            }
            write!(f, " {key}=\"")?;
            for c in value.chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    // A line is one line, whatever an error text holds.
                    c if c.is_control() => f.write_str(" ")?,
                    c => write!(f, "{c}")?,
                }
            }
            f.write_str("\"")?;
        }
        Ok(())
    }
}

/// Why a line does not parse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LineError {
    Verb,
    Argument,
    Quote,
    TooMany,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verb => "a line starts with a VERB in capital letters",
            Self::Argument => "what follows the verb is key=value",
            Self::Quote => "a quote is not closed, or something follows it",
            Self::TooMany => "too many arguments, or one twice",
        })
    }
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let (verb, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        if verb.is_empty() || !verb.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(LineError::Verb);
        }
        let mut line = Self::new(verb);
        loop {
            rest = rest.trim_start_matches(' ');
            if rest.is_empty() {
                return Ok(line);
            }
            let (key, tail) = rest.split_once('=').ok_or(LineError::Argument)?;
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(LineError::Argument);
            }
            let value;
            (value, rest) = if let Some(quoted) = tail.strip_prefix('"') {
                unquote(quoted)?
            } else {
                let (bare, tail) = tail.split_once(' ').unwrap_or((tail, ""));
                if bare.contains('"') {
                    return Err(LineError::Quote);
                }
                (bare.into(), tail)
            };
            if line.arguments.len() == ARGUMENTS_MAX || line.arguments.insert(key.into(), value).is_some() {
                return Err(LineError::TooMany);
            }
        }
    }
}

/// The value up to the closing quote, and what follows it.
fn unquote(text: &str) -> Result<(String, &str), LineError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..).unwrap_or("");
                if !rest.is_empty() && !rest.starts_with(' ') {
                    return Err(LineError::Quote);
                }
                return Ok((value, rest));
            }
            '\\' => value.push(chars.next().ok_or(LineError::Quote)?.1),
            c => value.push(c),
        }
    }
    Err(LineError::Quote)
}

/// Reads one line, up to `len_max` bytes, within `deadline`; `None` when the other side closed before one began.
///
/// Byte by byte, since what follows the newline may be the first bytes of a stream and is not ours to take. Lines are
/// short and rare.
pub(crate) fn read_line(
    mut socket: &UnixStream,
    len_max: usize,
    deadline: Option<Duration>,
) -> io::Result<Option<String>> {
    let until = deadline.map(|deadline| Instant::now() + deadline);
    let mut bytes = Vec::new();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(left)?;
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if bytes.len() == len_max => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
            }
            Ok(_) => bytes.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    socket.set_read_timeout(None)?;
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the line is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_back_as_they_went() {
        let line = Line::new("ERR").with("code", 5).with("text", "you are \"not\" \\ allowed").with("empty", "");
        assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        let line: Line = "DIAL  peer=hf1x   service=\"a b\"".parse().unwrap();
        assert_eq!((line.get("peer"), line.get("service"), line.get("x")), (Some("hf1x"), Some("a b"), None));
        assert_eq!(line.need("x").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_line_stays_one_line() {
        let text = Line::new("ERR").with("text", "two\nlines\r\u{1b}").to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }

    #[test]
    fn junk_is_told_apart() {
        let error = |text: &str| text.parse::<Line>().unwrap_err();
        assert_eq!(error(""), LineError::Verb);
        assert_eq!(error("hello"), LineError::Verb);
        assert_eq!(error("GET / HTTP/1.1"), LineError::Argument);
        assert_eq!(error("PING peer"), LineError::Argument);
        assert_eq!(error("PING =x"), LineError::Argument);
        assert_eq!(error("PING peer=\"x"), LineError::Quote);
        assert_eq!(error("PING peer=\"x\\"), LineError::Quote);
        assert_eq!(error("PING peer=\"x\"y"), LineError::Quote);
        assert_eq!(error("PING a=1 a=2"), LineError::TooMany);
        let many = (0..=ARGUMENTS_MAX).fold(String::from("PING"), |text, n| format!("{text} k{n}=v"));
        assert_eq!(error(&many), LineError::TooMany);
    }

    #[test]
    fn failures_cross_the_socket_whole() {
        let failure = Failure::new(Exit::Refused, "it said \"no\"", "ask: nicely");
        let line: Line = Line::error(&failure).to_string().parse().unwrap();
        assert_eq!(line.into_result().unwrap_err(), failure);
        assert!(Line::new("OK").into_result().is_ok());
        assert_eq!(Line::new("WHAT").into_result().unwrap_err().exit, Exit::Failure);
    }

    #[test]
    fn reading_stops_right_behind_the_newline() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"DIAL peer=x\r\nraw bytes").unwrap();
        assert_eq!(read_line(&b, 100, None).unwrap().unwrap(), "DIAL peer=x");
        let mut raw = [0; 9];
        (&b).read_exact(&mut raw).unwrap();
        assert_eq!(&raw, b"raw bytes");
    }

    #[test]
    fn reading_has_limits() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[b'x'; 11]).unwrap();
        assert_eq!(read_line(&b, 10, None).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (_a, b) = UnixStream::pair().unwrap();
        assert_eq!(read_line(&b, 10, Some(Duration::from_millis(1))).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"x").unwrap();
        drop(a);
        assert_eq!(read_line(&b, 10, None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"\xff\n").unwrap();
        assert_eq!(read_line(&b, 10, None).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert_eq!(read_line(&b, 10, None).unwrap(), None);
    }
}
