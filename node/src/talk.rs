//! What the command says to a person: everything on stderr, so that stdout carries data only.
//!
//! Three voices: [`note`] (what is going on), [`warn`] (what to look at) and [`failure`] (why it ended), and the log
//! of the libraries below, through `tracing`. With `--log-format json` all of them are one JSON object a line.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::exit::Failure;

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Sets the format of everything said from now on, and starts the log. `RUST_LOG` wins over `verbose`.
pub(crate) fn start(format: LogFormat, verbose: u8) {
    if FORMAT.set(format).is_err() {
        return;
    }
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The journal stamps every line itself.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second logger can only come from a test in the same process; the first one stays.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text if in_journal => builder.with_ansi(false).without_time().try_init(),
        LogFormat::Text => builder.with_ansi(colour).try_init(),
    };
}

/// Says what is going on.
pub(crate) fn note(text: impl AsRef<str>) {
    line("info", None, text.as_ref());
}

/// Says what to look at.
pub(crate) fn warn(text: impl AsRef<str>) {
    line("warn", Some("warning"), text.as_ref());
}

/// Says why the command failed.
pub(crate) fn failure(failure: &Failure) {
    if FORMAT.get() == Some(&LogFormat::Json) {
        let text = json!({
            "schema": "handfast.error/1",
            "level": "error",
            "code": failure.exit.code(),
            "message": failure.cause,
            "next": failure.next,
        });
        raw(&text.to_string());
    } else {
        line("error", Some("error"), &failure.to_string());
    }
}

fn line(level: &str, prefix: Option<&str>, text: &str) {
    if FORMAT.get() == Some(&LogFormat::Json) {
        raw(&json!({ "level": level, "message": text }).to_string());
    } else {
        match prefix {
            Some(prefix) => raw(&format!("{prefix}: {text}")),
            None => raw(text),
        }
    }
}

/// One whole line in one write, so that lines of several threads do not mix. A closed stderr is nobody's failure.
fn raw(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Prints one line of data and flushes it, for a reader at the other end of a pipe.
pub(crate) fn data(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{}\n", text.as_ref()).as_bytes())?;
    out.flush()
}
