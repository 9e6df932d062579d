//! The simulator: many real [`Node`](handfast_core::Node)s, one clock, one wire, and everything that goes wrong there.
//!
//! [`World`] owns the clock and the hosts. A [`host`] runs one node and one [`app`]lication; it sits on the internet
//! or behind a router, whose behaviour [`nat`] takes from RFC 4787. The [`wire`] carries datagrams in the order of
//! `(deliver_at, seq)` and does to them what [`fault`] says. After every call the [`invariant`]s are checked, and
//! everything that moves goes into the [`trace`], whose hash is equal for equal seeds. The [`oracle`] says, from RFC
//! terms alone, which pairs must become direct; a [`survey`] lets many pairs of all [`kinds`] try, and a [`report`] of
//! it is kept in the repository.
//!
//! Time is virtual and jumps exactly to the next delivery or deadline: a forgotten deadline stalls a test instead of
//! being rescued by a tick. A failing test prints its seed, step and time; `HANDFAST_SEED=…` runs it again,
//! `HANDFAST_TRACE=1` prints every datagram.

pub mod app;
mod carry;
pub mod fault;
pub mod host;
pub mod invariant;
pub mod kinds;
pub mod ledger;
pub mod liar;
pub mod members;
pub mod nat;
pub mod netns;
pub mod oracle;
pub mod random;
pub mod report;
pub mod scale;
pub mod script;
mod site;
pub mod storm;
pub mod stranger;
pub mod survey;
pub mod sybil;
pub mod tcp;
pub mod topology;
pub mod trace;
mod window;
pub mod wire;
pub mod world;

pub use app::{Side, TransferId, XFER};
pub use fault::{Chance, FaultCounts, Faults};
pub use host::{Host, HostId, Traffic};
pub use nat::{Behavior, FilterScope, HairpinSource, Nat, NatSpec, Pooling, PortAssignment};
pub use topology::Place;
pub use wire::{Datagram, LanId, RouterId, Way};
pub use world::World;

use core::time::Duration;

/// So many seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The seeds a campaign runs over: `0..n`, or the one that `HANDFAST_SEED` names.
pub fn seeds(n: u64) -> Vec<u64> {
    match seed_from_env() {
        Some(seed) => vec![seed],
        None => (0..n).collect(),
    }
}

pub(crate) fn seed_from_env() -> Option<u64> {
    std::env::var("HANDFAST_SEED").ok().map(|text| text.parse().expect("HANDFAST_SEED is a number"))
}
