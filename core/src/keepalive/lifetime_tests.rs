use super::*;
use std::collections::BTreeMap;

const RTT: Duration = Duration::from_millis(40);
/// IPv4, UDP header included.
const PROBE_BYTES: u64 = 74;
const ANSWER_BYTES: u64 = 72;

/// A router and a home, and what the measurement cost on the leaf's line.
struct Rig {
    lifetime: Lifetime,
    now: Instant,
    /// How long the router keeps a flow that has gone both ways for 2 s, and any other.
    timeout: Duration,
    young: Duration,
    inbound_refresh: bool,
    /// Of a thousand packets, so many are lost.
    loss: u64,
    dice: u64,
    sockets: u32,
    /// Per socket: when its binding began, and was refreshed.
    bindings: BTreeMap<SocketId, (Instant, Instant)>,
    /// Answers on their way: when they reach the router, to whom.
    answers: Vec<(Instant, SocketId, [u8; 8])>,
    bytes: u64,
    open: usize,
    open_max: usize,
}

impl Rig {
    fn new(lifetime: Lifetime, timeout_ms: u64) -> Self {
        let timeout = Duration::from_millis(timeout_ms);
        Self {
            lifetime,
            now: Instant::from_micros(1_000_000),
            timeout,
            young: timeout,
            inbound_refresh: true,
            loss: 0,
            dice: timeout_ms | 1,
            sockets: 0,
            bindings: BTreeMap::new(),
            answers: Vec::new(),
            bytes: 0,
            open: 0,
            open_max: 0,
        }
    }

    fn is_lost(&mut self) -> bool {
        // xorshift64
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1_000 < self.loss
    }

    fn binding(&self, socket: SocketId, at: Instant) -> Option<Instant> {
        let (began, refreshed) = *self.bindings.get(&socket)?;
        let is_stream = refreshed.since(began) >= Duration::from_secs(2);
        let keeps = if is_stream { self.timeout } else { self.young };
        (at.since(refreshed) < keeps).then_some(began)
    }

    fn send(&mut self, socket: SocketId, token: [u8; 8], delay: Duration) {
        self.bytes += PROBE_BYTES;
        let began = self.binding(socket, self.now).unwrap_or(self.now);
        self.bindings.insert(socket, (began, self.now));
        if !self.is_lost() {
            self.answers.push((self.now + RTT + delay, socket, token));
        }
    }

    fn drain(&mut self) {
        let mut token = u64::from(self.sockets) << 32;
        loop {
            let seed = self.now.as_micros() << 8;
            let next = self.lifetime.poll(self.now, || {
                token += 1;
                (seed ^ token).to_le_bytes()
            });
            match next {
                None => break,
                Some(Do::Open) => {
                    self.sockets += 1;
                    (self.open, self.open_max) = (self.open + 1, self.open_max.max(self.open + 1));
                    self.lifetime.on_asked(self.now, Some(SocketRequest(self.sockets)));
                    assert!(self.lifetime.on_socket(self.now, SocketRequest(self.sockets), SocketId(self.sockets)));
                }
                Some(Do::Probe { socket, token, delay }) => self.send(socket, token, delay),
                Some(Do::Close(socket)) => {
                    self.open -= 1;
                    assert!(self.bindings.remove(&socket).is_some() || self.loss > 0);
                }
            }
        }
    }

    /// Runs it to its end: how it ended, and after how long.
    fn run(&mut self) -> (Measured, Duration) {
        let began = self.now;
        self.drain();
        while self.lifetime.outcome().is_none() {
            let answer = self.answers.iter().map(|a| a.0).min();
            let next = earliest(self.lifetime.poll_timeout(), answer).expect("it never stalls");
            assert!(next >= self.now);
            self.now = next;
            if let Some(at) = self.answers.iter().position(|a| a.0 == next) {
                let (_, socket, token) = self.answers.swap_remove(at);
                if let Some(began) = self.binding(socket, next)
                    && !self.is_lost()
                {
                    self.bytes += ANSWER_BYTES;
                    if self.inbound_refresh {
                        self.bindings.insert(socket, (began, next));
                    }
                    self.lifetime.on_reply(next, socket, token);
                }
            }
            self.lifetime.handle_timeout(next);
            self.drain();
            assert!(self.now.since(began) < Duration::from_secs(7_200), "it never ends");
        }
        assert_eq!(self.open, 0, "all sockets are closed");
        assert!(self.open_max <= LANES_MAX);
        (self.lifetime.outcome().expect("ended"), self.now.since(began))
    }

    fn known(&mut self) -> (f64, Duration) {
        match self.run() {
            (Measured::Known(lifetime), took) => (lifetime.as_secs_f64(), took),
            (Measured::Failed, took) => panic!("{:?} failed after {took:?}", self.timeout),
        }
    }
}

#[test]
fn every_router_is_measured_right_within_a_tenth() {
    let (mut dearest, mut longest) = (0, Duration::ZERO);
    for timeout_ms in (6_000..300_000).step_by(500) {
        let mut rig = Rig::new(Lifetime::new(), timeout_ms);
        let (known, took) = rig.known();
        let truth = timeout_ms as f64 / 1e3;
        assert!(known <= truth, "{known} s for {truth} s");
        assert!(known >= truth / 1.1 - 0.1, "{known} s for {truth} s");
        if timeout_ms % 30_000 == 0 || timeout_ms == 10_000 {
            eprintln!("{truth} s: {known} s, {} bytes, {took:?}", rig.bytes);
        }
        dearest = dearest.max(rig.bytes);
        longest = longest.max(took);
    }
    eprintln!("at most {dearest} bytes and {longest:?}");
    assert!(dearest <= 3_400, "{dearest} bytes");
    assert!(longest <= Duration::from_secs(30 * 60), "{longest:?}");
}

#[test]
fn typical_routers_take_two_and_a_half_kilobytes_and_minutes() {
    for (timeout_s, bytes, minutes) in [
        (10, 3_000, 2),
        (30, 2_500, 4),
        (60, 2_500, 5),
        (120, 2_500, 8),
        (180, 2_500, 12),
        (240, 2_500, 20),
        (400, 1_700, 11),
        (900, 1_700, 11),
    ] {
        let mut rig = Rig::new(Lifetime::new(), timeout_s * 1_000);
        let (known, took) = rig.known();
        assert!(known >= (timeout_s as f64).min(300.0) / 1.1, "{known} for {timeout_s}");
        assert!(rig.bytes <= bytes, "{timeout_s} s: {} bytes", rig.bytes);
        assert!(took <= Duration::from_secs(minutes * 60), "{timeout_s} s: {took:?}");
    }
}

#[test]
fn a_flow_that_is_promoted_late_is_measured_by_its_long_timeout() {
    // Linux: 30 s at first, then 120.
    let mut rig = Rig::new(Lifetime::new(), 120_000);
    rig.young = Duration::from_secs(30);
    assert!(rig.known().0 >= 109.0);
}

#[test]
fn routers_that_only_outbound_packets_remind_are_measured_as_well() {
    for timeout_s in [10, 30, 60, 120, 180] {
        let mut rig = Rig::new(Lifetime::new(), timeout_s * 1_000);
        rig.inbound_refresh = false;
        let (known, _) = rig.known();
        assert!(known <= timeout_s as f64 && known >= timeout_s as f64 / 1.1 - 0.1, "{known} for {timeout_s}");
    }
}

#[test]
fn loss_makes_it_dearer_but_not_wrong() {
    let (mut right, mut low, mut failed) = (0, 0, 0);
    for seed in 0..300u64 {
        let timeout_ms = [10_000, 30_000, 45_000, 60_000, 120_000, 180_000][seed as usize % 6];
        let mut rig = Rig::new(Lifetime::new(), timeout_ms);
        (rig.loss, rig.dice) = (20, seed * 7_919 + 1);
        match rig.run().0 {
            Measured::Known(known) => {
                // A hit is certain, whatever is lost.
                assert!(known <= rig.timeout, "{known:?} for {:?}", rig.timeout);
                let is_right = known >= rig.timeout.mul_f64(1.0 / 1.1) - Duration::from_millis(100);
                (right, low) = if is_right { (right + 1, low) } else { (right, low + 1) };
            }
            Measured::Failed => failed += 1,
        }
        assert!(rig.bytes <= u64::from(PROBES_MAX + 4) * (PROBE_BYTES + ANSWER_BYTES));
    }
    eprintln!("2 % loss each way: {right} right, {low} too low, {failed} failed");
    assert!(right >= 285, "{right} right, {low} too low, {failed} failed");
}

#[test]
fn a_check_costs_four_probes_when_nothing_changed() {
    for timeout_s in [10, 30, 58, 120, 180] {
        let (known, _) = Rig::new(Lifetime::new(), timeout_s * 1_000).known();
        let mut rig = Rig::new(Lifetime::check(Duration::from_secs_f64(known)), timeout_s * 1_000);
        let (again, _) = rig.known();
        assert!(again >= known && again <= timeout_s as f64);
        assert!(rig.bytes <= 600, "{timeout_s} s: {} bytes", rig.bytes);
    }
    let mut rig = Rig::new(Lifetime::check(Duration::from_secs(300)), 900_000);
    assert!((rig.known().0 - 300.0).abs() < 0.001);
    assert!(rig.bytes <= 300, "{} bytes", rig.bytes);
}

#[test]
fn a_check_follows_a_router_that_changed() {
    for (before, after) in [(120, 30), (30, 120), (60, 10), (180, 300), (300, 45), (58, 62), (58, 55)] {
        let mut rig = Rig::new(Lifetime::check(Duration::from_secs(before)), after * 1_000);
        let (known, _) = rig.known();
        let truth = (after as f64).min(300.0);
        assert!(known <= truth && known >= truth / 1.1 - 0.1, "{known} for {after}, {before} before");
    }
}

#[test]
fn a_home_that_does_not_answer_is_given_up_after_a_few_probes() {
    let mut rig = Rig::new(Lifetime::new(), 120_000);
    rig.loss = 1_000;
    let (outcome, took) = rig.run();
    assert_eq!(outcome, Measured::Failed);
    assert!(took <= Duration::from_secs(5) && rig.bytes <= 9 * PROBE_BYTES, "{took:?}, {} bytes", rig.bytes);
}

#[test]
fn a_home_that_answers_at_once_only_teaches_nothing() {
    // Its table of late answers is full, say. Such a router would forget after less than 5 s.
    let mut rig = Rig::new(Lifetime::new(), 2_700);
    let (outcome, _) = rig.run();
    assert_eq!((outcome, rig.lifetime.at_least()), (Measured::Failed, None));
}

#[test]
fn a_socket_that_io_refuses_or_forgets_ends_it() {
    let mut lifetime = Lifetime::new();
    let now = Instant::from_micros(1);
    assert_eq!(lifetime.poll(now, || [0; 8]), Some(Do::Open));
    lifetime.on_asked(now, None);
    assert_eq!(lifetime.outcome(), Some(Measured::Failed));
    let mut lifetime = Lifetime::new();
    assert_eq!(lifetime.poll(now, || [0; 8]), Some(Do::Open));
    lifetime.on_asked(now, Some(SocketRequest(7)));
    let due = lifetime.poll_timeout().expect("it waits no longer than this");
    lifetime.handle_timeout(due);
    assert_eq!(lifetime.outcome(), Some(Measured::Failed));
    assert!(!lifetime.on_socket(due, SocketRequest(7), SocketId(9)), "nobody wants it any more");
}

#[test]
fn answers_to_nothing_change_nothing() {
    let mut rig = Rig::new(Lifetime::new(), 120_000);
    rig.drain();
    for socket in 0..5 {
        assert!(!rig.lifetime.on_reply(rig.now, SocketId(socket), [0; 8]));
    }
    assert_eq!(rig.lifetime.at_least(), None);
    assert!(size_of::<Lifetime>() <= 512, "{} bytes", size_of::<Lifetime>());
}
