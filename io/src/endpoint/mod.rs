//! What programs hold of a running node.
//!
//! | file | what |
//! | --- | --- |
//! | `handle` | [`Endpoint`]: the node itself |
//! | `peer` | [`Peer`]: one other node, as seen from here |
//! | `stream` | [`Stream`]: a blocking stream |
//! | `acceptor` | [`Acceptor`]: takes the streams of a service |
//! | `forward` | [`Forward`]: a local TCP listener whose connections become streams |
//! | `events` | [`Events`]: what happens |
//!
//! All of them are thin: they put a wish into the loop's queue and wait, or look at what they share with the loop. Any
//! may be used from any thread. None but [`Endpoint`] keeps the node running; once it has stopped, the others say so.

mod acceptor;
mod events;
mod forward;
mod handle;
mod peer;
mod stream;

pub use acceptor::Acceptor;
pub use events::Events;
pub use forward::Forward;
pub use handle::{Endpoint, generate_key};
pub use peer::Peer;
pub use stream::Stream;
