//! This host, as the node has to know it: time, chance, the network around.
//!
//! | file | what |
//! | --- | --- |
//! | `clock` | the only place that reads the clock; how long threads wait |
//! | `entropy` | randomness of the operating system |
//! | `seldom` | log lines that must not become a flood |
//! | `routing_table` | the text in which Linux writes its routes down |
//! | `gateway` | which router leads out of here |
//! | `notices` | the kernel's word that the network changed |
//! | `network` | what the network looks like, and when to look again |
//! | `lan` | announcing the node by multicast DNS, and who else is announced |
//!
//! Nothing here knows sockets that carry packets, nor the loop: each part is asked by it, or is handed a function to
//! call.

mod clock;
mod entropy;
mod gateway;
mod lan;
mod network;
mod notices;
mod routing_table;
mod seldom;

pub(crate) use clock::{Clock, Until};
pub(crate) use entropy::{Refresh, fresh};
pub(crate) use gateway::{Gateways, own_ipv4};
pub(crate) use lan::{Lan, LanNews};
pub(crate) use network::Watch;
pub(crate) use seldom::{SELDOM, Seldom};
