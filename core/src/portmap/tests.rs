//! The mapper against a router of a few lines, in virtual time.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::natpmp;
use super::*;
use crate::identity::SecretKey;
use crate::time::Instant;

const INTERNAL: &str = "192.168.1.2:4000";
const GATEWAY: &str = "192.168.1.1:5351";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How the router of a scene is.
struct Router {
    pcp: bool,
    nat_pmp: bool,
    upnp: bool,
    /// Answers what it does not speak with an ICMP error; otherwise it is silent.
    unreachable: bool,
    /// Refuses everything, with these codes for PCP, NAT-PMP and UPnP.
    refuses: Option<(u8, u16, u16)>,
    external: Ipv4Addr,
    lifetime_max_s: u32,
    taken: BTreeSet<u16>,
    booted: Instant,
    /// External port to the nonce, if PCP mapped it.
    mapped: BTreeMap<u16, Option<pcp::Nonce>>,
    on: bool,
}

impl Router {
    fn new() -> Self {
        Self {
            pcp: false,
            nat_pmp: false,
            upnp: false,
            unreachable: false,
            refuses: None,
            external: Ipv4Addr::new(203, 0, 113, 7),
            lifetime_max_s: 86_400,
            taken: BTreeSet::new(),
            booted: Instant::ZERO,
            mapped: BTreeMap::new(),
            on: true,
        }
    }

    fn reboot(&mut self, now: Instant) {
        self.mapped.clear();
        self.booted = now;
    }

    fn port(&self, wish: u16, own: u16) -> u16 {
        let wish = if wish == 0 { own } else { wish };
        (wish..=u16::MAX).find(|port| !self.taken.contains(port)).expect("a free port")
    }

    fn map(&mut self, own: u16, wish: u16, lifetime_s: u32, nonce: Option<pcp::Nonce>) -> (u16, u32) {
        if lifetime_s == 0 {
            self.mapped.clear();
            return (0, 0);
        }
        let port = self.port(wish, own);
        self.mapped.insert(port, nonce);
        (port, lifetime_s.min(self.lifetime_max_s))
    }

    /// The answer to a request; `Err` is an ICMP error.
    fn answer(&mut self, now: Instant, request: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        let epoch = (now.since(self.booted).as_secs() as u32).to_be_bytes();
        let spoken = if request[0] == 2 { self.pcp } else { self.nat_pmp };
        if !self.on {
            return Ok(None);
        }
        if !spoken && !self.pcp && !self.nat_pmp {
            return if self.unreachable { Err(()) } else { Ok(None) };
        }
        if !spoken {
            // RFC 6887 appendix A: in the version it speaks.
            let mut answer = vec![if self.pcp { 2 } else { 0 }, request[1] | 0x80, 0, 1];
            answer.resize(if self.pcp { 24 } else { 8 }, 0);
            return Ok(Some(answer));
        }
        let mut answer = request.to_vec();
        answer[1] |= 0x80;
        if request[0] == 2 {
            answer[8..12].copy_from_slice(&epoch);
            if let Some((code, ..)) = self.refuses {
                answer[3] = code;
                return Ok(Some(answer));
            }
            let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
            let lifetime_s = u32::from_be_bytes(request[4..8].try_into().expect("four"));
            let nonce = request[24..36].try_into().expect("twelve");
            let (port, granted) = self.map(number(40), number(42), lifetime_s, Some(nonce));
            answer[4..8].copy_from_slice(&granted.to_be_bytes());
            answer[42..44].copy_from_slice(&port.to_be_bytes());
            if request[8..18] == [0; 10] {
                answer[44..60].copy_from_slice(&self.external.to_ipv6_mapped().octets());
            } else {
                // IPv6: the own address.
                answer[44..60].copy_from_slice(&request[8..24]);
            }
            return Ok(Some(answer));
        }
        let code = self.refuses.map_or(0, |(_, code, _)| code);
        let mut answer = vec![0, request[1] | 0x80];
        answer.extend(code.to_be_bytes());
        answer.extend(epoch);
        if code != 0 {
            return Ok(Some(answer));
        }
        if request[1] == 0 {
            answer.extend(self.external.octets());
        } else {
            let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
            let lifetime_s = u32::from_be_bytes(request[8..12].try_into().expect("four"));
            let (port, granted) = self.map(number(4), number(6), lifetime_s, None);
            answer.extend(&request[4..6]);
            answer.extend(port.to_be_bytes());
            answer.extend(granted.to_be_bytes());
        }
        Ok(Some(answer))
    }

    fn upnp(&mut self, order: UpnpOrder) -> UpnpAnswer {
        match order {
            _ if !self.upnp || !self.on => UpnpAnswer::NoGateway,
            UpnpOrder::Map { internal, external_port, lifetime_s } => {
                if let Some((.., code)) = self.refuses {
                    return UpnpAnswer::Refused(code);
                }
                let (port, lifetime_s) = self.map(internal.port(), external_port, lifetime_s, None);
                UpnpAnswer::Mapped { external: SocketAddrV4::new(self.external, port), lifetime_s }
            }
            UpnpOrder::Unmap { external_port, .. } => {
                self.mapped.remove(&external_port);
                UpnpAnswer::Unmapped
            }
        }
    }
}

/// A mapper, its router, and what happened.
struct Scene {
    mapper: Mapper,
    router: Router,
    now: Instant,
    events: Vec<Event>,
    /// When what was sent.
    sent: Vec<(Duration, Vec<u8>)>,
}

fn mapper() -> Mapper {
    Mapper::new(&SecretKey::from_bytes(&[7; 32]), [1; 32])
}

fn wish() -> Wish {
    Wish { socket: SocketId(0), internal: addr(INTERNAL), gateway: Some(addr(GATEWAY)) }
}

impl Scene {
    fn new(router: Router) -> Self {
        Self::with(router, &[wish()])
    }

    fn with(router: Router, wishes: &[Wish]) -> Self {
        // Later than the router's boot.
        let now = Instant::ZERO + s(10_000);
        let mut scene = Self { mapper: mapper(), router, now, events: Vec::new(), sent: Vec::new() };
        scene.mapper.handle_wishes(now, wishes);
        scene.drain();
        scene
    }

    /// Everything that is wanted happens at once.
    fn drain(&mut self) {
        loop {
            if let Some(transmit) = self.mapper.poll_transmit() {
                self.sent.push((self.now.since(Instant::ZERO + s(10_000)), transmit.data.to_vec()));
                match self.router.answer(self.now, &transmit.data) {
                    Ok(Some(answer)) => self.mapper.handle_datagram(self.now, transmit.to, &answer),
                    Ok(None) => {}
                    Err(()) => self.mapper.handle_unreachable(self.now, transmit.to),
                }
            } else if let Some(order) = self.mapper.poll_upnp() {
                let answer = self.router.upnp(order);
                let internal = match order {
                    UpnpOrder::Map { internal, .. } | UpnpOrder::Unmap { internal, .. } => internal,
                };
                self.mapper.handle_upnp(self.now, internal.into(), answer);
            } else {
                break;
            }
        }
        while let Some(event) = self.mapper.poll_event() {
            self.events.push(event);
        }
        assert!(self.mapper.poll_timeout().is_none_or(|at| at > self.now), "a deadline in the past");
    }

    /// Time jumps from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.mapper.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.mapper.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    /// Passes time until IPv4 is decided; how long that took.
    fn settle(&mut self) -> Duration {
        let start = self.now;
        while !self.mapper.report().is_settled() {
            let at = self.mapper.poll_timeout().expect("something to wait for");
            self.pass(at.since(self.now));
        }
        self.now.since(start)
    }

    fn external(&self) -> Option<(SocketAddr, MappingProtocol)> {
        self.mapper.mappings().first().map(|mapping| (mapping.external, mapping.protocol))
    }
}

fn at(text: &str, protocol: MappingProtocol) -> Option<(SocketAddr, MappingProtocol)> {
    Some((addr(text), protocol))
}

#[test]
fn pcp_is_asked_first_and_is_enough() {
    let mut scene = Scene::new(Router { pcp: true, nat_pmp: true, upnp: true, ..Router::new() });
    assert_eq!(scene.settle(), s(0));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Pcp));
    assert_eq!(scene.sent.len(), 1);
    assert_eq!(scene.sent[0].1.len(), pcp::MAP_LEN);
    let report = scene.mapper.report();
    assert_eq!(report.gateway, Some(addr(GATEWAY).ip()));
    assert_eq!(report.pcp, Outcome::Mapped(addr("203.0.113.7:4000")));
    assert_eq!((report.nat_pmp, report.upnp), (Outcome::Unknown, Outcome::Unknown));
    scene.pass(s(100));
    assert_eq!(scene.sent.len(), 1, "and nothing else is asked");
}

#[test]
fn a_nat_pmp_router_says_so_and_is_asked_at_once() {
    let mut scene = Scene::new(Router { nat_pmp: true, ..Router::new() });
    assert_eq!(scene.settle(), s(0));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::NatPmp));
    assert_eq!(scene.mapper.report().pcp, Outcome::None);
    // PCP, then address and port.
    assert_eq!(scene.sent.iter().map(|(_, data)| data.len()).collect::<Vec<_>>(), [60, 2, 12]);
}

#[test]
fn an_icmp_error_leads_to_upnp_at_once() {
    let mut scene = Scene::new(Router { upnp: true, unreachable: true, ..Router::new() });
    assert_eq!(scene.settle(), s(0));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Upnp));
    let report = scene.mapper.report();
    assert_eq!((report.pcp, report.nat_pmp), (Outcome::None, Outcome::None));
}

#[test]
fn a_silent_router_is_asked_as_the_rfcs_say_and_given_up_in_five_seconds() {
    let mut scene = Scene::new(Router { upnp: true, ..Router::new() });
    let took = scene.settle();
    assert!(took < s(5), "{took:?}");
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Upnp));
    let ms = |wanted: usize| -> Vec<u128> {
        scene.sent.iter().filter(|(_, data)| data.len() == wanted).map(|(at, _)| at.as_millis()).collect()
    };
    assert_eq!(ms(12), [1_000, 1_250, 1_750, 2_750], "RFC 6886 §3.1");
    let pcp = ms(pcp::MAP_LEN);
    assert_eq!((pcp.len(), pcp[0]), (2, 0));
    assert!((2_700..=3_300).contains(&pcp[1]), "RFC 6887 §8.1.1: {pcp:?}");
}

#[test]
fn refusals_are_told_by_protocol_and_tried_again_later() {
    let mut scene =
        Scene::new(Router { pcp: true, nat_pmp: true, upnp: true, refuses: Some((2, 2, 718)), ..Router::new() });
    scene.settle();
    let report = scene.mapper.report();
    assert_eq!(
        [report.pcp, report.nat_pmp, report.upnp],
        [Outcome::Refused(2), Outcome::Refused(2), Outcome::Refused(718)]
    );
    let refused = |protocol, code| Event::Refused { protocol, code };
    let expected =
        [refused(MappingProtocol::Pcp, 2), refused(MappingProtocol::NatPmp, 2), refused(MappingProtocol::Upnp, 718)];
    assert_eq!(scene.events, expected);
    assert_eq!(scene.mapper.mappings(), []);
    assert_eq!(MappingProtocol::Upnp.refusal(718), "conflict with another mapping");
    // A day of no: hourly in the end.
    scene.pass(s(86_400));
    assert!((25..32).contains(&(scene.events.len() / 3)), "{}", scene.events.len());
    scene.router.refuses = None;
    scene.pass(s(4_200));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Pcp));
}

#[test]
fn without_a_gateway_only_upnp_is_asked() {
    let wish = Wish { gateway: None, ..wish() };
    let mut scene = Scene::with(Router { pcp: true, upnp: true, ..Router::new() }, &[wish]);
    scene.settle();
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Upnp));
    assert_eq!(scene.sent, []);
}

#[test]
fn another_port_than_the_wish_is_taken_and_kept() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp, MappingProtocol::Upnp] {
        let mut router = Router { unreachable: true, taken: [4_000, 4_001].into(), ..Router::new() };
        match protocol {
            MappingProtocol::Pcp => router.pcp = true,
            MappingProtocol::NatPmp => router.nat_pmp = true,
            MappingProtocol::Upnp => router.upnp = true,
        }
        let mut scene = Scene::new(router);
        scene.settle();
        assert_eq!(scene.external(), at("203.0.113.7:4002", protocol));
        // The one that had it goes; ours stays what it was.
        scene.router.taken.clear();
        scene.pass(s(86_400));
        assert_eq!(scene.external(), at("203.0.113.7:4002", protocol));
        assert_eq!(scene.events.len(), 1, "{:?}", scene.events);
    }
}

#[test]
fn short_promises_are_renewed_before_they_end() {
    for (pcp, nat_pmp) in [(true, false), (false, true)] {
        let mut scene = Scene::new(Router { pcp, nat_pmp, lifetime_max_s: 20, ..Router::new() });
        scene.settle();
        let before = scene.sent.len();
        scene.pass(s(600));
        let rounds = (scene.sent.len() - before) / if pcp { 1 } else { 2 };
        assert!((48..=60).contains(&rounds), "every 10 to 12.5 s: {rounds}");
        assert_eq!(scene.events.len(), 1, "never lost: {:?}", scene.events);
    }
}

#[test]
fn a_reboot_is_noticed_by_asking_and_sooner_by_an_announcement() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp, MappingProtocol::Upnp] {
        let mut router = Router { unreachable: true, ..Router::new() };
        match protocol {
            MappingProtocol::Pcp => router.pcp = true,
            MappingProtocol::NatPmp => router.nat_pmp = true,
            MappingProtocol::Upnp => router.upnp = true,
        }
        let mut scene = Scene::new(router);
        scene.settle();
        scene.pass(s(1_000));
        scene.router.reboot(scene.now);
        scene.pass(if protocol == MappingProtocol::Upnp { LOOK_EVERY_UPNP } else { LOOK_EVERY });
        assert_eq!(scene.router.mapped.keys().copied().collect::<Vec<_>>(), [4_000], "{protocol}");

        if protocol == MappingProtocol::Upnp {
            continue;
        }
        scene.pass(s(50));
        scene.router.reboot(scene.now);
        let announcement: &[u8] = if protocol == MappingProtocol::Pcp {
            &[2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        } else {
            &[0, 128, 0, 0, 0, 0, 0, 0, 203, 0, 113, 7]
        };
        scene.mapper.handle_datagram(scene.now, addr("192.168.1.9:5351"), announcement);
        scene.mapper.handle_datagram(scene.now, addr("192.168.1.1:5350"), announcement);
        scene.pass(s(6));
        assert!(scene.router.mapped.is_empty(), "only the gateway is believed");
        scene.mapper.handle_datagram(scene.now, addr(GATEWAY), announcement);
        scene.pass(s(6));
        assert_eq!(scene.router.mapped.len(), 1, "{protocol}");
    }
}

/// miniupnpd announces in PCP alone, also to those who speak NAT-PMP with it.
#[test]
fn regression_an_announcement_in_another_version_counts() {
    let mut scene = Scene::new(Router { nat_pmp: true, ..Router::new() });
    scene.settle();
    scene.pass(s(50));
    scene.router.reboot(scene.now);
    let mut announcement = [0; 24];
    announcement[..2].copy_from_slice(&[2, 0x80]);
    scene.mapper.handle_datagram(scene.now, addr(GATEWAY), &announcement);
    scene.pass(s(6));
    assert_eq!(scene.router.mapped.len(), 1);
}

#[test]
fn announcements_make_no_flood() {
    let mut scene = Scene::new(Router { pcp: true, ..Router::new() });
    scene.settle();
    let before = scene.sent.len();
    let mut announcement = [0; 24];
    announcement[..2].copy_from_slice(&[2, 0x80]);
    for n in 0..10_000_u32 {
        // Each says that the router rebooted.
        announcement[11] = u8::try_from(n % 2 * 100).expect("small");
        scene.mapper.handle_datagram(scene.now, addr(GATEWAY), &announcement);
        scene.drain();
        scene.pass(Duration::from_millis(10));
    }
    let sent = scene.sent.len() - before;
    assert!(sent <= 25, "{sent} requests in 100 s");
}

#[test]
fn another_external_address_is_told() {
    let mut scene = Scene::new(Router { nat_pmp: true, ..Router::new() });
    scene.settle();
    scene.router.external = Ipv4Addr::new(198, 51, 100, 9);
    scene.pass(LOOK_EVERY);
    assert_eq!(scene.external(), at("198.51.100.9:4000", MappingProtocol::NatPmp));
    assert_eq!(scene.events.len(), 2);
}

#[test]
fn what_is_not_renewed_is_lost_and_sought_again() {
    let mut scene = Scene::new(Router { pcp: true, ..Router::new() });
    scene.settle();
    let mapping = scene.mapper.mappings()[0];
    scene.router.on = false;
    scene.pass(s(400));
    assert_eq!(scene.mapper.mappings(), []);
    assert!(scene.events.contains(&Event::Lost { mapping }));
    scene.router = Router { upnp: true, unreachable: true, ..Router::new() };
    scene.mapper.handle_change(scene.now);
    scene.drain();
    scene.pass(s(15));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::Upnp));
}

/// The change came while the old network's silence was being waited out, and the next try two minutes later.
#[test]
fn regression_a_change_while_answers_are_awaited_is_not_forgotten() {
    let mut scene = Scene::new(Router::new());
    scene.pass(s(4));
    scene.router = Router { nat_pmp: true, ..Router::new() };
    scene.router.on = false;
    scene.mapper.handle_change(scene.now);
    scene.pass(s(1));
    scene.router.on = true;
    scene.pass(s(8));
    assert_eq!(scene.external(), at("203.0.113.7:4000", MappingProtocol::NatPmp));
}

/// A mapping without an end has to be found gone by asking.
#[test]
fn regression_a_permanent_upnp_mapping_does_not_outlive_its_router() {
    let mut scene = Scene::new(Router { upnp: true, unreachable: true, lifetime_max_s: 0, ..Router::new() });
    scene.settle();
    assert!(scene.external().is_some());
    scene.router.on = false;
    scene.pass(s(900));
    assert_eq!(scene.external(), None);
}

#[test]
fn everything_is_given_back() {
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp, MappingProtocol::Upnp] {
        let mut router = Router { unreachable: true, ..Router::new() };
        match protocol {
            MappingProtocol::Pcp => router.pcp = true,
            MappingProtocol::NatPmp => router.nat_pmp = true,
            MappingProtocol::Upnp => router.upnp = true,
        }
        let mut scene = Scene::new(router);
        scene.settle();
        assert_eq!(scene.router.mapped.len(), 1);
        assert!(!scene.mapper.is_released());
        scene.mapper.release(scene.now);
        scene.drain();
        assert!(scene.mapper.is_released(), "{protocol}");
        assert_eq!(scene.router.mapped.len(), 0, "{protocol}");
        assert_eq!(scene.mapper.mappings(), []);
        assert_eq!(scene.mapper.poll_timeout(), None);
        scene.mapper.handle_wishes(scene.now, &[wish()]);
        scene.drain();
        assert_eq!(scene.router.mapped.len(), 0, "nothing is begun any more");
    }
}

#[test]
fn giving_back_to_a_silent_router_is_tried_twice_and_ends() {
    let mut scene = Scene::new(Router { pcp: true, ..Router::new() });
    scene.settle();
    scene.router.on = false;
    let before = scene.sent.len();
    scene.mapper.release(scene.now);
    scene.drain();
    scene.pass(RELEASE_MAX);
    assert!(scene.mapper.is_released());
    let released: Vec<&[u8]> = scene.sent[before..].iter().map(|(_, data)| &data[4..8]).collect();
    assert_eq!(released, [[0; 4]; 2], "a lifetime of zero");
    let nothing = Scene::with(Router::new(), &[]);
    let mut mapper = nothing.mapper;
    mapper.release(nothing.now);
    assert!(mapper.is_released(), "nothing was asked for");
}

/// The order left before the end; what it made must not stay.
#[test]
fn regression_a_upnp_answer_that_comes_during_the_release_is_given_back_too() {
    let mut mapper = mapper();
    let now = Instant::ZERO;
    mapper.handle_wishes(now, &[Wish { gateway: None, ..wish() }]);
    let Some(UpnpOrder::Map { internal, .. }) = mapper.poll_upnp() else { panic!("an order") };
    mapper.release(now);
    assert!(!mapper.is_released());
    let external = "203.0.113.7:4000".parse().expect("an address");
    mapper.handle_upnp(now, internal.into(), UpnpAnswer::Mapped { external, lifetime_s: 60 });
    assert_eq!(mapper.poll_upnp(), Some(UpnpOrder::Unmap { internal, external_port: 4_000 }));
    mapper.handle_upnp(now, internal.into(), UpnpAnswer::Unmapped);
    assert!(mapper.is_released());
}

#[test]
fn ipv6_gets_a_hole_in_the_firewall_by_pcp_alone() {
    let gateway = SocketAddr::from(core::net::SocketAddrV6::new("fe80::1".parse().expect("an address"), PORT, 0, 3));
    let v6 = Wish { socket: SocketId(1), internal: addr("[2001:db8::2]:4000"), gateway: Some(gateway) };
    let mut scene = Scene::with(Router { pcp: true, ..Router::new() }, &[wish(), v6]);
    scene.settle();
    let external: Vec<SocketAddr> = scene.mapper.mappings().iter().map(|mapping| mapping.external).collect();
    assert_eq!(external, [addr("203.0.113.7:4000"), addr("[2001:db8::2]:4000")]);
    assert_eq!(scene.mapper.report().pinholes, [(v6.internal, Outcome::Mapped(v6.internal))]);

    let mut silent = Scene::with(Router { upnp: true, ..Router::new() }, &[v6]);
    silent.pass(s(15));
    assert_eq!(silent.mapper.report().pinholes, [(v6.internal, Outcome::None)]);
    assert!(silent.sent.iter().all(|(_, data)| data.len() == pcp::MAP_LEN), "NAT-PMP knows no IPv6");
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn answers_that_were_not_asked_for_change_nothing() {
    let mut mapper = mapper();
    let now = Instant::ZERO;
    mapper.handle_wishes(now, &[wish()]);
    let request = mapper.poll_transmit().expect("a request").data;
    let good = |change: Change<'_>| {
        let mut answer = request.to_vec();
        answer[1] |= 0x80;
        answer[44..60].copy_from_slice(&Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped().octets());
        change(&mut answer);
        answer
    };
    let changes: [Change<'_>; 7] = [
        &|answer| answer[24] ^= 1,
        &|answer| answer[41] ^= 1,
        &|answer| answer[36] = 6,
        &|answer| answer[4..8].fill(0),
        &|answer| answer[42..44].fill(0),
        &|answer| answer[56..60].fill(0),
        &|answer| answer.truncate(56),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        mapper.handle_datagram(now, addr(GATEWAY), &good(change));
        assert_eq!(mapper.mappings(), [], "change {number}");
    }
    let nat_pmp = [0, 129, 0, 0, 0, 0, 0, 9, 0x0F, 0xA0, 0x0F, 0xA0, 0, 0, 0x1C, 0x20];
    mapper.handle_datagram(now, addr(GATEWAY), &nat_pmp);
    mapper.handle_datagram(now, addr(GATEWAY), &[0, 128, 0, 0, 0, 0, 0, 9, 192, 0, 2, 1]);
    mapper.handle_upnp(
        now,
        addr(INTERNAL),
        UpnpAnswer::Mapped { external: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), lifetime_s: 9 },
    );
    assert_eq!(mapper.mappings(), [], "of protocols not asked yet");
    mapper.handle_datagram(now, addr("192.168.1.3:5351"), &good(&|_| {}));
    mapper.handle_datagram(now, addr("192.168.1.1:5352"), &good(&|_| {}));
    assert_eq!(mapper.mappings(), [], "of somebody else");
    mapper.handle_datagram(now, addr(GATEWAY), &good(&|_| {}));
    assert_eq!(mapper.mappings().len(), 1, "and the true one does");
}

#[test]
fn a_router_without_an_address_of_its_own_is_a_refusal() {
    let mut scene = Scene::new(Router { nat_pmp: true, external: Ipv4Addr::UNSPECIFIED, ..Router::new() });
    scene.settle();
    assert_eq!(scene.mapper.report().nat_pmp, Outcome::Refused(natpmp::NETWORK_FAILURE));
    assert_eq!(scene.mapper.mappings(), []);
}

#[test]
fn wishes_come_and_go() {
    let mut scene = Scene::new(Router { pcp: true, ..Router::new() });
    scene.settle();
    let other = Wish { internal: addr("192.168.1.2:5000"), ..wish() };
    let before = scene.sent.len();
    scene.mapper.handle_wishes(scene.now, &[wish(), other]);
    scene.drain();
    assert_eq!(scene.sent.len(), before + 1, "what stands is not asked for again");
    assert_eq!(scene.mapper.mappings().len(), 2);
    scene.mapper.handle_wishes(scene.now, &[other]);
    scene.drain();
    assert_eq!(scene.external(), at("203.0.113.7:5000", MappingProtocol::Pcp));
    assert!(matches!(scene.events.last(), Some(Event::Lost { .. })));
    let many: Vec<Wish> =
        (1..100).map(|port| Wish { internal: SocketAddr::new(wish().internal.ip(), port), ..wish() }).collect();
    scene.mapper.handle_wishes(scene.now, &many);
    scene.drain();
    assert_eq!(scene.mapper.mappings().len(), WISHES_MAX);
}

/// Whoever crashed must not meet its own mapping as a stranger's.
#[test]
fn the_nonce_is_the_same_in_the_next_run_and_differs_by_key_and_port() {
    let nonce = |key: u8, wish: Wish| {
        let mut mapper = Mapper::new(&SecretKey::from_bytes(&[key; 32]), [key; 32]);
        mapper.handle_wishes(Instant::ZERO, &[wish]);
        mapper.poll_transmit().expect("a request").data[24..36].to_vec()
    };
    assert_eq!(nonce(1, wish()), nonce(1, wish()));
    assert_ne!(nonce(1, wish()), nonce(2, wish()));
    assert_ne!(nonce(1, wish()), nonce(1, Wish { internal: addr("192.168.1.2:4001"), ..wish() }));
}
