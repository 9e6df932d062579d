//! TCP connections that carry packets where UDP does not get through: listening, connecting, and frames both ways.
//!
//! | file | what |
//! | --- | --- |
//! | `connection` | one connection: frames in, frames out |
//! | `table` | all of them by number, those being opened, the listeners |
//!
//! A connection is a socket to the core, with a number from [`SocketId::TCP_FIRST`](handfast_core::SocketId::TCP_FIRST)
//! on; what arrives on it is handed over packet by packet, as datagrams are. Which connections may live, and how long,
//! the core decides: all of them are announced to it, and [`Tcp::close`] carries out its verdict.

mod connection;
mod table;

pub(crate) use connection::TcpInbox;
pub(crate) use table::Tcp;
