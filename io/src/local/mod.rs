//! Local programs that speak TCP or Unix sockets: their connections, pumped to and from streams.
//!
//! | file | what |
//! | --- | --- |
//! | `socket` | a connected local socket, TCP or Unix |
//! | `pump` | one such socket and one stream, into one another |
//! | `listeners` | local TCP listeners, each of whose connections becomes a stream |
//!
//! Nothing here decides where a connection goes: that came with the listener, or with the offer of a service.

mod listeners;
mod pump;
mod socket;

pub(crate) use listeners::Listeners;
pub(crate) use pump::{CHUNK_LEN, Carried, Pump, Refused, Visit, offer};
pub(crate) use socket::Local;
pub use socket::LocalSocket;
