//! What packets travel in: the main sockets, those beside them, and TCP where UDP does not work.
//!
//! [`Transports`] is one machine. It knows the main sockets and the addresses around them (`host.rs`); it keeps every
//! socket that the node has opened for some [`Purpose`], from the request to the closing (`sockets.rs`), and the TCP
//! connections (`connections.rs`); and it decides when TCP stands in for UDP and when UDP is asked again
//! (`transports.rs`). It touches no link: what it needs to know of links comes with each call, and what it wants done
//! with them it says ([`Output`]).

mod connections;
mod host;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod output;
mod sockets;
#[cfg(test)]
mod tests;
mod transports;

pub(crate) use output::{Link, Lost, Output, Survey, Tried, Use, Waiting, Why};
pub(crate) use sockets::Purpose;
pub(crate) use transports::Transports;
