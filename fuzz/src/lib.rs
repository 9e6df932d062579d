//! The bodies of the fuzz targets: functions of bytes that must neither panic nor break what they assert, whatever
//! the bytes are.
//!
//! `cargo +nightly fuzz run NAME` drives one of them; the plain test `corpus` replays the committed inputs in
//! `corpus/NAME/` through all of them. [`TARGETS`] has them by name.

mod bytes;
mod link;
mod node;
mod operations;
mod portmap;
mod statement;
mod stream;
mod wire;

pub use link::{cookie, handshake};
pub use node::{datagram, peer};
pub use operations::{
    account, application, calls, introductions, lan, measuring, nat, overlay, peers, probe_replies, relay, transport,
    traverse,
};
pub use portmap::{mapper, nat_pmp, pcp};
pub use statement::{advert, record};
pub use stream::stream;
pub use wire::{frames, init_body, message, packet, response_body, roundtrip, ticket};

/// A body.
pub type Target = fn(&[u8]);

/// Every target, by the name of its program and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("account", account),
    ("advert", advert),
    ("application", application),
    ("calls", calls),
    ("cookie", cookie),
    ("datagram", datagram),
    ("frames", frames),
    ("handshake", handshake),
    ("init_body", init_body),
    ("introductions", introductions),
    ("lan", lan),
    ("mapper", mapper),
    ("measuring", measuring),
    ("message", message),
    ("nat", nat),
    ("nat_pmp", nat_pmp),
    ("overlay", overlay),
    ("packet", packet),
    ("pcp", pcp),
    ("peer", peer),
    ("peers", peers),
    ("probe_replies", probe_replies),
    ("record", record),
    ("relay", relay),
    ("response_body", response_body),
    ("roundtrip", roundtrip),
    ("stream", stream),
    ("ticket", ticket),
    ("transport", transport),
    ("traverse", traverse),
];
