//! What packets travel in: the sockets beside the main ones, and TCP where UDP does not work.
//!
//! [`ExtraSockets`] keeps every socket that the node has opened for some [`Purpose`], from the request to the closing.
//! [`Transports`] decides when TCP stands in for UDP and when UDP is asked again; it knows the TCP connections
//! (`connections.rs`) and asks [`ExtraSockets`] for the numbers of those that it opens. Neither touches a link: what
//! they need to know of links comes with each call, and what they want done with them they say ([`Output`]).

mod connections;
#[cfg(any(test, feature = "operations"))]
pub(crate) mod operations;
mod output;
mod sockets;
#[cfg(test)]
mod tests;
mod transports;

pub(crate) use output::{Link, Lost, Output, Survey, Use, Waiting, Why};
pub(crate) use sockets::{ExtraSockets, Purpose};
pub(crate) use transports::Transports;
