//! The loop that drives the node: one thread with the node, its sockets and the clock, and the ways to it from other
//! threads.
//!
//! | file | what |
//! | --- | --- |
//! | `options`, `start` | how it is to start; from there to a running loop |
//! | `turn` | one turn: wait, read the clock, receive, tell the time, move bytes, drain |
//! | `tokens` | which mio token stands for what |
//! | `traffic`, `carriers`, `outbox` | packets in and out; what carries them; what waits for room |
//! | `surroundings` | what the node is told of the world around it |
//! | `programs` | what programs want, carried out; what the node says to them, carried on |
//! | `connections`, `exchange`, `bell` | streams in use here; what program and loop share of one; how the loop is called to it |
//! | `offers`, `waiting` | what is behind the services on offer; who waits for an answer |
//! | `board`, `subscription` | what every thread may read; who is told what happens |
//! | `command` | wishes and news, and how they reach the loop |
//!
//! The core decides, the other rooms hold the hands; here one is given to the other in a fixed order. Everything above
//! reaches the loop by [`LoopHandle`], the board and the ends of streams, all of which survive the loop and then say
//! that it is gone.

mod bell;
mod board;
mod carriers;
mod command;
mod connections;
mod exchange;
mod offers;
mod options;
mod outbox;
mod programs;
mod start;
mod subscription;
mod surroundings;
mod tokens;
mod traffic;
mod turn;
mod waiting;

pub(crate) use command::{LoopHandle, Reply, Wish};
pub(crate) use exchange::ProgramEnd;
pub use options::Options;
pub(crate) use start::{Running, start};
pub(crate) use subscription::Subscription;
