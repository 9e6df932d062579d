//! Port mapping's hands: what the core's [`Mapper`](handfast_core::portmap::Mapper) needs of this host.
//!
//! | file | what |
//! | --- | --- |
//! | `wishes` | which ports of which own addresses are worth asking for |
//! | `sockets` | sockets towards routers, and one for their announcements |
//! | `upnp` | UPnP-IGD, on a thread of its own |
//! | `port_map` | the whole: told of networks, drives the mapper, says which mappings there are |
//!
//! The router is asked over sockets of this room alone; no packet of the node goes through them, and the node learns
//! only of mappings.

mod port_map;
mod sockets;
mod upnp;
mod wishes;

pub(crate) use port_map::PortMap;
