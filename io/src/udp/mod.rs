//! UDP sockets: received in batches with GRO, sent as trains with GSO, never fatal.
//!
//! | file | what |
//! | --- | --- |
//! | `detour` | sending everything through a relay of datagrams, for experiments |
//! | `socket` | one bound socket: sending trains |
//! | `inbox` | the buffers that a batch is received into |
//! | `table` | all sockets by number: bound at start, opened on request, full, readable |
//! | `relay_batch` | what a relay forwards, gathered into GSO batches |
//!
//! A received buffer holds a *train*: datagrams of one size from one source, which stays one unit through the core and
//! out again. What the kernel cannot take at once is the caller's to keep ([`Sent::Blocked`]) or to drop; any other
//! error costs the datagrams it hit, is counted, and ends nothing.

mod detour;
mod inbox;
mod relay_batch;
mod socket;
mod table;

pub use detour::{Detour, HEADER_LEN_MAX};
pub(crate) use inbox::{Arrival, Inbox};
pub(crate) use relay_batch::RelayBatch;
pub(crate) use socket::{Sent, TRAIN_LEN_MAX};
pub(crate) use table::UdpSockets;
