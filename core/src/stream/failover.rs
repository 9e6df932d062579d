//! What becomes of a connection's measurements when its packets take another path.
//!
//! [`Failover`] is told when the path changes, and of the time and of all that QUIC heard in between; it has probes
//! leave ([`Failover::wants_fire`]) and makes QUIC forget what it measured when that no longer holds. It begins and
//! ends with no change pending.

use core::time::Duration;
use std::time::Instant as StdInstant;

use super::connection::Conn;
use crate::time::Instant;

/// Most round-trip time that is believed after an outage: the first samples then measure the outage.
const RTT_MAX: Duration = Duration::from_millis(500);
/// Least round-trip time to assume of a path that is not measured yet.
const WATCH_RTT_MIN: Duration = Duration::from_millis(150);
/// How soon a failover's probe is repeated for the first time; each further time it takes twice as long.
const PROBE_AGAIN: Duration = Duration::from_millis(60);
/// Most probes of a failover; after them QUIC's own loss timer goes on.
const PROBES_MAX: u32 = 8;
/// Timers that quinn may have armed on an established connection that is set up as ours: loss detection, pacing,
/// delayed acknowledgement, discarding of old keys.
const TIMERS_MAX: u32 = 4;

/// What a change of path waits for. A failover: before QUIC forgets what it measured on the old path.
///
/// After an outage all that was under way is lost, and the congestion window is full of it. In a full window quinn
/// sends nothing, not even acknowledgements while there is data to send, except the probes of the loss timer (RFC 9002
/// §6.2.4), which has backed off to many seconds. So that timer is made to fire at once, and again until an
/// acknowledgement has come: where both ends send, it is the second probe that acknowledges the peer's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    None,
    /// More ACK frames than so many.
    Ack { seen: u64, probe_at: Option<Instant>, probes: u32 },
    /// What was under way on the old path to be taken for lost. Otherwise it would count against the new path's window.
    Settled { at: Instant },
    /// After starting over: to see whether more packets than so many are taken for lost. Those will be of the old path
    /// (packets overtaken on a faster one, probes of its MTU), and will have ended the new path's slow start before it
    /// began. Then once more; but not a third time, since it may be the new path that loses.
    Watched { at: Instant, lost: u64 },
}

/// How far a connection has come to terms with its last change of path.
#[derive(Default)]
pub(super) struct Failover {
    phase: Phase,
    /// How many timers may still be made to fire to get a probe out.
    fires: u32,
}

impl Failover {
    /// Another path, and the old one still works. While a failover is being probed that goes on, on the new path: in a
    /// window full of lost packets nothing else moves.
    pub(super) fn on_upgrade(&mut self, now: Instant, at: StdInstant, conn: Option<&mut Conn>) {
        match self.phase {
            Phase::Ack { .. } => self.on_failover(now, conn),
            Phase::None | Phase::Settled { .. } | Phase::Watched { .. } => self.start_over(now, at, conn),
        }
    }

    /// Another path because the old one is dead, or an outage is over.
    pub(super) fn on_failover(&mut self, now: Instant, conn: Option<&mut Conn>) {
        if let Some(conn) = conn {
            let seen = conn.quic.stats().frame_rx.acks;
            self.probe(now, conn, seen, 0);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, at: StdInstant, conn: Option<&mut Conn>) {
        match self.phase {
            Phase::Settled { at: due } if due <= now => self.start_over(now, at, conn),
            Phase::Watched { at: due, lost } if due <= now => {
                self.phase = Phase::None;
                if let Some(conn) = conn.filter(|conn| conn.quic.stats().path.lost_packets > lost) {
                    conn.quic.path_changed(at);
                }
            }
            Phase::Ack { seen, probe_at: Some(due), probes } if due <= now => {
                if let Some(conn) = conn {
                    self.probe(now, conn, seen, probes);
                }
            }
            Phase::Settled { .. } | Phase::Watched { .. } | Phase::Ack { .. } | Phase::None => {}
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Settled { at } | Phase::Watched { at, .. } => Some(at),
            Phase::Ack { probe_at, .. } => probe_at,
            Phase::None => None,
        }
    }

    /// QUIC has heard something, perhaps.
    pub(super) fn on_change(&mut self, now: Instant, conn: Option<&Conn>) {
        let (Phase::Ack { seen, .. }, Some(conn)) = (self.phase, conn) else { return };
        if conn.quic.stats().frame_rx.acks > seen {
            let rtt = conn.quic.rtt().min(RTT_MAX);
            self.phase = Phase::Settled { at: now + rtt * 3 / 2 };
        }
    }

    /// QUIC has nothing to send: whether a timer is to be made to fire, so that a probe leaves.
    pub(super) fn wants_fire(&self) -> bool {
        self.fires > 0
    }

    /// One was.
    pub(super) fn on_fired(&mut self) {
        self.fires -= 1;
    }

    /// A packet leaves: that is the probe, if one is awaited.
    pub(super) fn on_sent(&mut self) {
        self.fires = 0;
    }

    /// Makes QUIC forget what it measured, and watches what comes of it.
    fn start_over(&mut self, now: Instant, at: StdInstant, conn: Option<&mut Conn>) {
        self.phase = Phase::None;
        let Some(conn) = conn else { return };
        let path = conn.quic.stats().path;
        let watch = now + path.rtt.clamp(WATCH_RTT_MIN, RTT_MAX) * 3 / 2;
        self.phase = Phase::Watched { at: watch, lost: path.lost_packets };
        conn.quic.path_changed(at);
    }

    /// Has one probe leave with the next `poll_transmit`, and the next one after a while.
    fn probe(&mut self, now: Instant, conn: &mut Conn, seen: u64, probes: u32) {
        conn.quic.ping();
        self.fires = TIMERS_MAX;
        let again = now + PROBE_AGAIN * (1 << probes);
        self.phase = Phase::Ack { seen, probe_at: (probes < PROBES_MAX).then_some(again), probes: probes + 1 };
    }
}
