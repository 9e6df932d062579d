//! The local socket of a running node: how programs on this machine, in any language, use it. The commands of this
//! binary are its first clients and use nothing else.
//!
//! A Unix stream socket that only the node's user can open (mode 0600), shaped like I2P's SAM bridge: UTF-8 lines
//! `VERB key=value …`, values with spaces in double quotes with `\"` and `\\` inside. A client says
//! `HELLO version=1`, is answered `OK version=1 id=hf1…`, and then asks:
//!
//! | line | answer, and what follows |
//! | --- | --- |
//! | `STATUS` | `OK length=N`, then N bytes of JSON (`handfast.status/1`) and a newline |
//! | `TICKET [service=NAME]` | `OK ticket=hft1…` |
//! | `JOIN supernode=hf1…@IP:PORT` | `OK`; the node knows that supernode from now on |
//! | `PING peer=PEER [timeout_ms=N]` | `OK rtt_ms=… path=direct remote=IP:PORT`, or `path=relay via=hf1… [held_ms=N]` |
//! | `DIAL peer=PEER service=NAME [timeout_ms=N]` | `OK peer=hf1… path=… stream=N`; **the socket is the stream now** |
//! | `WAIT stream=N` | when that stream is over: `OK`, or `ERR` with the reason if it broke; ends the talk |
//! | `FORWARD peer=PEER service=NAME listen=IP:PORT` | `OK address=IP:PORT`: a TCP listener, until this socket closes |
//! | `EXPOSE service=NAME target=IP:PORT allow=any\|hf1…,hf1…` | `OK`: offered until this socket closes |
//! | `REGISTER service=NAME allow=…` | `OK`: offered until this socket closes; streams come by `ACCEPT` |
//! | `ACCEPT service=NAME` | `OK peer=hf1… path=… stream=N` when one came; **the socket is the stream now** |
//! | `EVENTS` | `OK`, then lines of JSON (`handfast.event/1`); `lost` counts those that came too fast to be told |
//!
//! Events: `ready`, `homeless`, `role`, `volunteering`, `path`, `relay-limited`, `other-version`, `unreached`, `peer-gone`,
//! `connect-failed`, `left`, `lost`.
//!
//! PEER is anything that [`Target`](crate::target::Target) reads but `-`. What fails is answered
//! `ERR code=N text="…" next="…"` with the numbers of [`Exit`](crate::exit::Exit). Bytes sent right behind a `DIAL`
//! or `ACCEPT` line belong to the stream. Unknown keys are ignored, so that a newer client works with an older node.
//!
//! `WAIT` exists because a Unix socket has no reset: a broken stream and a finished one both end as end-of-file.

pub(crate) mod client;
pub(crate) mod line;
mod offers;
pub(crate) mod server;
pub(crate) mod socket;
mod streams;

use std::time::Duration;

pub(crate) use offers::Offer;
pub(crate) use streams::{CopyError, copy};

/// The only version there is.
pub(crate) const VERSION: &str = "1";
/// Most connections at a time, streams and their `WAIT`s not counted; more are told so and closed.
const CONNECTIONS_MAX: usize = 32;
/// Most streams at a time that a node carries for local programs, and most `WAIT`s for them; two threads each.
const STREAMS_MAX: usize = 256;
/// A client says its first line within this time.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// A client that keeps its connection for more requests sends the next one within this time.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long `PING` and `DIAL` wait, unless told.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest they may be told to wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// How often a wait looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);
