use super::*;
use crate::net::Network;

const HOME: PeerKey = PeerKey { index: 0, generation: 1 };
const MAIN: SocketId = SocketId(0);
/// What the home answers takes so long.
const RTT: Duration = Duration::from_millis(40);

/// A router that keeps a binding for so long, and a home behind it.
struct Rig {
    measuring: Measuring,
    now: Instant,
    keeps: Duration,
    view: View,
    is_helper_up: bool,
    answers: Vec<(Instant, SocketId, [u8; 8])>,
    sockets: u32,
    open: usize,
    paces: Vec<Pace>,
    saved: Vec<Save>,
    challenges: usize,
}

impl Rig {
    fn new(keeps_s: u64, bindings: &[([u8; 8], u32)]) -> Self {
        let place = Some(Place { network: [1; 8], is_own: false });
        let home = Home { key: HOME, socket: MAIN, remote: ([198, 51, 100, 1], 4_000).into(), place };
        Self {
            measuring: Measuring::new(&Seed::new([3; 32]), bindings),
            now: Instant::ZERO,
            keeps: Duration::from_secs(keeps_s),
            view: View { home: Some(home), is_helper_up: false, is_serving: false, is_reachable: Some(false) },
            is_helper_up: true,
            answers: Vec::new(),
            sockets: 0,
            open: 0,
            paces: Vec::new(),
            saved: Vec::new(),
            challenges: 0,
        }
    }

    fn view(&self) -> View {
        View { is_helper_up: self.is_helper_up && self.measuring.helper().is_some(), ..self.view }
    }

    fn carry(&mut self) {
        let view = self.view();
        let mut opened = Vec::new();
        while let Some(output) = self.measuring.poll_output(self.now, &view) {
            match output {
                Output::Open(Family::V4) => {
                    self.sockets += 1;
                    self.measuring.on_asked(self.now, Some(SocketRequest(self.sockets)));
                    opened.push(self.sockets);
                }
                Output::Open(Family::V6) => panic!("the home is reached by IPv4"),
                Output::Probe { home, from, token, delay } => {
                    assert_eq!(home, HOME);
                    if delay <= self.keeps {
                        self.answers.push((self.now + RTT + delay, from.socket, token));
                    }
                }
                Output::Close(_) => self.open -= 1,
                Output::SetPace(pace) => self.paces.push(pace),
                Output::Challenge { .. } => self.challenges += 1,
                Output::Save(save) => self.saved.push(save),
            }
        }
        for n in opened {
            self.open += 1;
            self.measuring.on_socket(self.now, SocketRequest(n), SocketId(n));
            self.carry();
        }
    }

    /// Until then, or nothing is awaited any more.
    fn run(&mut self, until_s: u64) {
        let until = Instant::from_micros(until_s * 1_000_000);
        loop {
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            let Some(at) = earliest(answer, self.measuring.poll_timeout()).filter(|at| *at <= until) else { break };
            self.now = at;
            if let Some(n) = self.answers.iter().position(|(due, ..)| *due == at) {
                let (_, socket, token) = self.answers.remove(n);
                let _ = self.measuring.on_reply(at, HOME, socket, token);
            } else {
                let view = self.view();
                self.measuring.handle_timeout(at, &view);
            }
            self.carry();
            assert!(self.measuring.poll_timeout().is_none_or(|next| next > at || answer == Some(at)));
        }
        self.now = until;
    }
}

#[test]
fn a_lifetime_is_measured_saved_and_sets_the_pace() {
    let mut rig = Rig::new(120, &[]);
    rig.measuring.on_home(rig.now);
    rig.run(1_800);
    let lifetime = rig.measuring.lifetime(Duty::Binding).expect("it was measured");
    assert!((108..=120).contains(&lifetime.as_secs()), "{lifetime:?}");
    assert_eq!(rig.paces.last(), Some(&Pace::for_lifetime(lifetime)));
    let lifetime_ms = lifetime.as_millis() as u32;
    assert_eq!(rig.saved, [Save::Binding { network: [1; 8], lifetime_ms }]);
    assert_eq!((rig.open, rig.measuring.helper()), (0, None));
    assert_eq!((rig.measuring.lifetime(Duty::Liveness), rig.measuring.interval(Duty::Liveness)), (None, PROOF_AGE_MAX));
    let due = rig.measuring.poll_timeout().expect("it is checked");
    assert!(due.since(rig.now) >= CHECK_AFTER - Duration::from_secs(1_800));
    // A network where we were before costs nothing.
    let sockets = rig.sockets;
    rig.measuring.on_network(rig.now);
    rig.carry();
    assert_eq!(rig.paces.last(), Some(&Pace::UNKNOWN));
    rig.run(1_900);
    assert_eq!((rig.measuring.lifetime(Duty::Binding), rig.sockets), (Some(lifetime), sockets));
}

#[test]
fn what_the_router_forgot_is_measured_anew_but_not_often() {
    let mut rig = Rig::new(60, &[([1; 8], 200_000)]);
    rig.measuring.on_home(rig.now);
    rig.run(10);
    assert_eq!(rig.measuring.lifetime(Duty::Binding), Some(Duration::from_secs(200)), "from an earlier run");
    let view = rig.view();
    rig.measuring.on_forgotten(rig.now, &view);
    let began = rig.measuring.poll_timeout().expect("it is measured");
    rig.run(20);
    let mut now_s = 20;
    while rig.measuring.helper().is_some() {
        now_s += 10;
        rig.run(now_s);
    }
    let lifetime = rig.measuring.lifetime(Duty::Binding).expect("it was measured");
    assert!((54..=60).contains(&lifetime.as_secs()), "{lifetime:?}");
    let view = rig.view();
    rig.measuring.on_forgotten(rig.now, &view);
    assert_eq!(rig.measuring.poll_timeout(), Some((began + MISS_EVERY).max(rig.now + SETTLE)));
    assert_eq!(rig.measuring.lifetime(Duty::Binding), None);
}

#[test]
fn where_packets_come_in_to_our_own_address_nothing_is_measured() {
    let mut rig = Rig::new(60, &[]);
    rig.view.home.iter_mut().for_each(|home| home.place = Some(Place { network: [1; 8], is_own: true }));
    rig.view.is_reachable = None;
    rig.measuring.on_home(rig.now);
    rig.run(30);
    assert_eq!((rig.sockets, rig.paces.len()), (0, 0), "a dial-back has yet to tell");
    rig.view.is_reachable = Some(true);
    rig.run(60);
    assert_eq!((rig.sockets, &rig.paces[..]), (0, &[Pace::OPEN][..]));
    let view = rig.view();
    rig.measuring.on_forgotten(rig.now, &view);
    assert!(!rig.measuring.may_be_forgotten());
    rig.view.is_reachable = Some(false);
    rig.run(4_000);
    assert_eq!(rig.paces.get(1), Some(&Pace::UNKNOWN));
    assert!(rig.measuring.lifetime(Duty::Binding).is_some());
}

#[test]
fn without_a_home_that_sees_us_it_waits_or_asks() {
    let mut rig = Rig::new(60, &[]);
    let home = rig.view.home.take();
    rig.measuring.on_home(rig.now);
    rig.run(100);
    assert_eq!((rig.sockets, rig.measuring.poll_timeout()), (0, None), "the next home begins it");
    rig.view.home = home.map(|home| Home { place: None, ..home });
    rig.measuring.on_home(rig.now);
    rig.run(109);
    assert_eq!((rig.challenges, rig.sockets), (4, 0), "where does it see us?");
    rig.measuring.leave();
    rig.view.home = home;
    rig.run(200);
    assert_eq!((rig.sockets, rig.measuring.poll_timeout()), (0, None));
}

#[test]
fn a_measurement_ends_with_its_home_and_when_we_serve() {
    for is_serving in [false, true] {
        let mut rig = Rig::new(600, &[]);
        rig.measuring.on_home(rig.now);
        rig.run(20);
        assert!(rig.open > 0 && rig.measuring.helper() == Some(HOME));
        if is_serving {
            rig.view.is_serving = true;
        } else {
            rig.is_helper_up = false;
            rig.view.home = None;
        }
        rig.run(2_000);
        assert_eq!((rig.open, rig.measuring.helper(), rig.measuring.poll_timeout()), (0, None, None));
    }
}

#[test]
fn a_home_that_answers_nothing_is_asked_ever_more_seldom() {
    let mut rig = Rig::new(0, &[]);
    rig.keeps = Duration::ZERO;
    rig.measuring.on_home(rig.now);
    let mut begins = Vec::new();
    for hour in 0..24 {
        let before = rig.sockets;
        rig.answers.clear();
        rig.run(hour * 3_600 + 3_600);
        begins.push(rig.sockets - before);
    }
    assert!(begins[0] > begins[12..].iter().copied().max().unwrap_or(0), "{begins:?}");
    assert_eq!((rig.open, rig.saved.len()), (0, 0));
}

#[test]
fn a_place_is_what_a_home_shows() {
    let mut network = Network::default();
    network.sockets.push((MAIN, ([0, 0, 0, 0], 7).into()));
    network.interfaces.push([203, 0, 113, 1].into());
    let mut rig = Rig::new(60, &[]);
    let place = Place::new(&network, MAIN, ([203, 0, 113, 1], 7).into());
    rig.view.home.iter_mut().for_each(|home| home.place = Some(place));
    rig.view.is_reachable = Some(true);
    rig.measuring.on_home(rig.now);
    rig.run(10);
    assert_eq!(rig.paces, [Pace::OPEN]);
}
