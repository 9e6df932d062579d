//! The whole machine, with nothing around it.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::home::testnet::{key, s};
use super::*;
use crate::api::{Config, Event, Role, Saved};
use crate::identity::PeerId;
use crate::introduce::LookupFailure;
use crate::keepalive::Duty;
use crate::link::Identity;
use crate::nat::Stand;
use crate::net::{Network, SocketId};
use crate::overlay::advert::{Advert, Capabilities};
use crate::random::Seed;
use crate::time::{Instant, WallTime};
use crate::wire::dialect::Dialect;
use crate::wire::message::{Load, Message, Refusal, SignedKind, decode_next};

const SHOWN: LinkUp = LinkUp { is_new: true, shows_us: true };
const WALL_S: u64 = 1_800_000_000;

fn id(n: u8) -> PeerId {
    key(n).peer_id()
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, n, 1], 4_000))
}

fn own() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 5_000))
}

fn overlay(role: Role) -> Overlay {
    let me = Arc::new(Identity::new(key(99)));
    let config = Config { role, ..Config::leaf() };
    let mut overlay = Overlay::new(s(1), &Seed::new([1; 32]), me, &config, &Saved::default());
    overlay.handle_wall_clock(s(0), WallTime::from_micros(WALL_S * 1_000_000));
    overlay
}

fn supernode() -> Overlay {
    let mut overlay = overlay(Role::Supernode { advertise: vec![own()] });
    timeout(&mut overlay, s(1), &Network::default());
    overlay
}

fn timeout(overlay: &mut Overlay, now: Instant, network: &Network) -> Vec<Output> {
    let situation = Situation { network, seen: None, lets_in: None, carried: Carried::default() };
    overlay.handle_timeout(now, &situation);
    drain(overlay)
}

fn drain(overlay: &mut Overlay) -> Vec<Output> {
    drain_at(overlay, s(1))
}

fn drain_at(overlay: &mut Overlay, now: Instant) -> Vec<Output> {
    core::iter::from_fn(|| overlay.poll_output(now)).collect()
}

/// The messages that go to `to`.
fn sent(outputs: &[Output], to: PeerId) -> Vec<&'static str> {
    let mut names = Vec::new();
    for output in outputs {
        let Output::Send { to: peer, messages } = output else { continue };
        let mut rest = &**messages;
        while *peer == to && !rest.is_empty() {
            names.push(match decode_next(&mut rest).expect("ours") {
                Message::LoadRequest => "load?",
                Message::Register { .. } => "register",
                Message::RegisterReply { refused: None, .. } => "registered",
                Message::RegisterReply { .. } => "refused",
                Message::Deregister => "deregister",
                Message::AdvertsRequest => "adverts?",
                Message::Signed { kind: SignedKind::Advert, .. } => "advert",
                Message::LookupReply { record: None, .. } => "no record",
                Message::LookupReply { .. } => "record",
                Message::Lookup { .. } => "lookup",
                Message::DialBackRequest { .. } => "dial back?",
                Message::Places(_) => "places",
                _ => "other",
            });
        }
    }
    names
}

/// The nonce of the dial-back that is asked for.
fn nonce(outputs: &[Output]) -> Option<[u8; 8]> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Send { messages, .. } => match decode_next(&mut &**messages) {
            Ok(Message::DialBackRequest { nonce, .. }) => Some(nonce),
            _ => None,
        },
        _ => None,
    })
}

fn advert(n: u8, capabilities: Capabilities) -> Box<[u8]> {
    let addresses = [address(n).into()].into_iter().collect();
    let advert = Advert {
        id: id(n),
        sequence: 1,
        issued_s: WALL_S,
        lifetime_s: 3_600,
        capabilities,
        leaves_max: 9,
        relay_kbps: 0,
        addresses,
    };
    advert.sign(&key(n))
}

/// A leaf that is told of one supernode, and registers there.
fn registered(role: Role) -> Overlay {
    let mut leaf = overlay(role);
    leaf.join(s(1), &[(id(1), address(1))]);
    assert_eq!(drain(&mut leaf), [Output::Dial { peer: id(1), address: address(1) }]);
    assert!(leaf.needs(&id(1)) && leaf.is_supernode(&id(1)) && !leaf.is_lost());
    leaf.on_link_up(s(2), id(1), SHOWN);
    let outputs = drain(&mut leaf);
    assert_eq!(sent(&outputs, id(1)), ["load?", "adverts?"]);
    assert!(outputs.contains(&Output::Keep { peer: id(1) }) && outputs.contains(&Output::Seen));
    let load = Message::LoadReply { load: Load::default(), time_s: WALL_S + 2 };
    assert_eq!(leaf.handle_message(s(2), id(1), load, &About::default()), None);
    for at in [3, 4] {
        drain(&mut leaf);
        if leaf.own_homes().is_empty() {
            timeout(&mut leaf, s(at), &Network::default());
        }
    }
    let reply = Message::RegisterReply { refused: None, load: Load::default() };
    assert_eq!(leaf.handle_message(s(4), id(1), reply, &About::default()), None);
    let outputs = drain(&mut leaf);
    assert!(outputs.contains(&Output::AtHome) && outputs.contains(&Output::Event(Event::Ready)));
    assert_eq!(leaf.own_homes(), [(id(1), address(1))]);
    leaf
}

#[test]
fn a_leaf_that_is_told_of_a_supernode_makes_it_its_home_and_says_goodbye_to_it() {
    let mut leaf = registered(Role::Leaf);
    leaf.leave(s(5));
    assert_eq!(sent(&drain(&mut leaf), id(1)), ["deregister"]);
    leaf.join(s(6), &[(id(2), address(2))]);
    assert_eq!(drain(&mut leaf), [], "who leaves dials nobody");
}

#[test]
fn a_home_that_is_gone_is_missed_and_nobody_is_left_to_ask() {
    let mut leaf = registered(Role::Leaf);
    assert_eq!(leaf.start_lookup(s(5), id(7)), None);
    assert_eq!(sent(&drain(&mut leaf), id(1)), ["lookup"]);
    leaf.on_link_down(s(6), &id(1));
    let outputs = drain(&mut leaf);
    assert!(outputs.contains(&Output::Event(Event::Homeless)));
    // It had been asked once, and is asked once more as long as the lookup stands.
    let located =
        |outputs: &[Output]| outputs.iter().any(|w| matches!(w, Output::Locate { peer, .. } if *peer == id(7)));
    let later = (7..30).any(|at| located(&timeout(&mut leaf, s(at), &Network::default())));
    assert!(located(&outputs) || later);
    assert_eq!(leaf.start_lookup(s(40), id(7)), Some(Err(LookupFailure::Nobody)));
    assert_eq!(overlay(Role::Leaf).start_lookup(s(1), id(7)), Some(Err(LookupFailure::Lost)));
}

#[test]
fn a_supernode_answers_a_question_of_load_at_once_and_a_lookup_before_anything_else_is_done() {
    let mut node = supernode();
    node.on_link_up(s(1), id(2), LinkUp { is_new: true, shows_us: false });
    let reply = node.handle_message(s(1), id(2), Message::LoadRequest, &About::default()).expect("at once");
    assert_eq!(sent(&drain(&mut node), id(2)), ["places"], "behind it");
    let first = About { dialect: Dialect::FIRST, ..About::default() };
    assert!(node.handle_message(s(1), id(2), Message::LoadRequest, &first).is_some());
    assert_eq!(drain(&mut node), [], "who speaks the first version is told nothing that it does not know");
    let expected = Message::LoadReply { load: Load { leaves: 0, introductions: 0, relay: 0 }, time_s: WALL_S + 1 };
    assert_eq!(decode_next(&mut &*reply), Ok(expected));
    assert!(!node.is_pressing());
    let lookup = Message::Lookup { peer: id(99) };
    assert_eq!(node.handle_message(s(1), id(2), lookup, &About::default()), None);
    assert!(node.is_pressing());
    assert_eq!(sent(&drain(&mut node), id(2)), ["advert", "no record"], "it is a supernode itself");
    assert!(!node.is_pressing());
    let early = Message::Lookup { peer: id(3) };
    assert!(node.answer_early(s(1), &early, Carried::default()).is_none(), "others may have it");
    assert!(overlay(Role::Leaf).answer_early(s(1), &early, Carried::default()).is_none());
}

#[test]
fn a_long_answer_needs_a_proven_path_and_a_dial_back_one_over_udp() {
    let mut node = supernode();
    for n in [2, 3] {
        node.on_link_up(s(1), id(n), LinkUp { is_new: true, shows_us: false });
    }
    let bytes = advert(3, Capabilities::ALL);
    let message = Message::Signed { kind: SignedKind::Advert, bytes: &bytes };
    let _ = node.handle_message(s(1), id(3), message, &About::default());
    assert_eq!(drain(&mut node), [Output::Vet { peer: id(3), address: address(3) }]);
    node.on_reached(s(1), id(3), address(3));
    assert!(!drain(&mut node).is_empty() && node.needs(&id(3)), "it is a neighbour now");
    let request = || Message::DialBackRequest { nonce: [5; 8], contacted: ArrayVec::new(), port: 0 };
    let proven = About { is_proven: true, ..About::default() };
    let direct = About { remote: Some(address(2)), ..proven };
    let unproven = About { is_proven: false, ..direct };
    for about in [About::default(), proven, unproven] {
        let _ = node.handle_message(s(1), id(2), request(), &about);
        assert_eq!(drain(&mut node), [], "{about:?}");
    }
    let _ = node.handle_message(s(1), id(2), request(), &direct);
    assert_eq!(sent(&drain(&mut node), id(3)), ["other"], "an order");
    let _ = node.handle_message(s(1), id(2), Message::AdvertsRequest, &unproven);
    assert_eq!(drain(&mut node), []);
    let _ = node.handle_message(s(1), id(2), Message::AdvertsRequest, &proven);
    assert_eq!(sent(&drain(&mut node), id(2)), ["advert", "advert", "other"]);
}

#[test]
fn the_advert_of_a_callee_says_where_it_is() {
    let mut leaf = registered(Role::Leaf);
    let bytes = advert(5, Capabilities::ALL);
    let message = || Message::Signed { kind: SignedKind::Advert, bytes: &bytes };
    assert_eq!(advertiser(&message()), Some(id(5)));
    let _ = leaf.handle_message(s(5), id(1), message(), &About::default());
    let is_located = |output: &Output| matches!(output, Output::Locate { .. });
    assert!(!drain(&mut leaf).iter().any(is_located));
    let called = About { is_called: true, ..About::default() };
    let _ = leaf.handle_message(s(5), id(1), message(), &called);
    let location = Ok(vec![(id(5), address(5))]);
    assert!(drain(&mut leaf).contains(&Output::Locate { peer: id(5), location }));
    let mut forged = bytes.to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    for bytes in [&forged[..], &advert(5, Capabilities::default())] {
        let message = Message::Signed { kind: SignedKind::Advert, bytes };
        let _ = leaf.handle_message(s(5), id(1), message, &called);
        assert!(!drain(&mut leaf).iter().any(is_located));
    }
}

#[test]
fn a_home_that_has_been_there_vouches_for_a_supernode_when_it_is_asked() {
    let mut leaf = registered(Role::Leaf);
    let bytes = advert(5, Capabilities::ALL);
    let message = || Message::Signed { kind: SignedKind::Advert, bytes: &bytes };
    let is_attested = |leaf: &mut Overlay, now, from| {
        let about = About { ip: Some(address(from).ip()), ..About::default() };
        let _ = leaf.handle_message(now, id(from), message(), &about);
        drain(leaf).contains(&Output::Attested { ip: address(5).ip() })
    };
    assert!(!is_attested(&mut leaf, s(5), 1), "unasked");
    leaf.inquire(s(5), id(5), address(5).ip());
    assert_eq!(sent(&drain(&mut leaf), id(1)), ["lookup"], "it asks its home");
    leaf.inquire(s(14), id(5), address(5).ip());
    assert_eq!(drain(&mut leaf), [], "not so soon again");
    assert!(!is_attested(&mut leaf, s(14), 5), "its own word is none");
    assert!(!is_attested(&mut leaf, s(14), 3), "nor is a stranger's");
    assert!(is_attested(&mut leaf, s(14), 1));
    assert!(!is_attested(&mut leaf, s(14), 1), "once");
    leaf.inquire(s(24), id(5), address(6).ip());
    assert_eq!(sent(&drain(&mut leaf), id(1)), ["lookup"]);
    assert!(!is_attested(&mut leaf, s(24), 1), "it is elsewhere");
}

/// A leaf in role `auto`, confirmed by a dial-back; what it wanted when it began to serve.
fn serving(network: &Network) -> (Overlay, Vec<Output>) {
    let mut node = registered(Role::Auto);
    node.join(s(5), &[(id(2), address(2))]);
    drain(&mut node);
    node.on_link_up(s(6), id(2), SHOWN);
    let nonce = nonce(&drain(&mut node)).expect("two are linked");
    let situation = Situation { network, seen: Some(own()), lets_in: None, carried: Carried::default() };
    let exhausted = Carried { is_exhausted: true, ..Carried::default() };
    node.on_dialled_back(s(7), &id(9), address(9), nonce, &Situation { carried: exhausted, ..situation });
    assert!(node.is_open() && !node.is_pressing(), "who may relay no more does not serve");
    node.consider_serving(s(7), &situation);
    assert!(node.is_pressing() && !node.is_serving(), "first the homes are told");
    let outputs = drain(&mut node);
    assert!(node.is_serving() && !node.is_pressing());
    (node, outputs)
}

#[test]
fn a_dial_back_that_nobody_waits_for_has_no_supernodes_counted() {
    let network = Network::default();
    let situation = Situation { network: &network, seen: Some(own()), lets_in: None, carried: Carried::default() };
    let mut node = registered(Role::Auto);
    node.join(s(5), &[(id(2), address(2))]);
    node.on_link_up(s(6), id(2), SHOWN);
    let asked = nonce(&drain(&mut node)).expect("two are linked");
    let bytes = advert(3, Capabilities::HOME);
    let message = Message::Signed { kind: SignedKind::Advert, bytes: &bytes };
    let _ = node.handle_message(s(6), id(1), message, &About::default());
    assert!(node.members.get(&id(3)).is_some(), "one that could be a witness");
    // A count that finds one would have it asked again at once.
    let starve = |node: &mut Overlay, now| {
        node.dial_back.set_fresh(now, 0, true, Vec::new());
        node.dial_back.handle_timeout(now, &mut node.random, &mut node.out);
        node.dial_back.poll_timeout()
    };
    let again_at = starve(&mut node, s(11));
    assert!(again_at > Some(s(12)));
    node.on_dialled_back(s(12), &id(9), address(9), asked, &situation);
    node.on_dial_back_reply(s(12), &id(9), asked, None);
    assert_eq!((node.dial_back.poll_timeout(), node.reachable()), (again_at, None));
    node.count_fresh(s(12));
    assert_eq!(node.dial_back.poll_timeout(), Some(s(12)));
}

fn place(outputs: &[Output], wanted: &Output) -> usize {
    outputs.iter().position(|output| output == wanted).unwrap_or_else(|| panic!("{wanted:?} is not wanted"))
}

#[test]
fn who_is_confirmed_tells_its_homes_goodbye_and_then_serves() {
    let network = Network { sockets: vec![(SocketId(0), own())], ..Network::default() };
    let (node, outputs) = serving(&network);
    assert_eq!(sent(&outputs[..1], id(1)), ["deregister"], "before anything else");
    let began = Event::RoleChanged { supernode: true, addresses: vec![own()] };
    let order = [Output::Duty(Duty::Liveness), Output::Serving, Output::Event(began), Output::Review];
    assert!(order.iter().map(|output| place(&outputs, output)).is_sorted(), "{outputs:?}");
    assert_eq!(outputs.last(), Some(&Output::Review));
    assert!(!outputs.contains(&Output::Event(Event::Ready)), "it was told before");
    assert_eq!(node.present_role(), Role::Supernode { advertise: vec![own()] });
}

#[test]
fn whose_address_is_gone_dismisses_its_leaves_and_finds_homes() {
    let network = Network { sockets: vec![(SocketId(0), own())], ..Network::default() };
    let (mut node, _) = serving(&network);
    node.on_link_up(s(8), id(4), LinkUp { is_new: true, shows_us: false });
    let register = Message::Register { other_home: None, record: &[] };
    let _ = node.handle_message(s(8), id(4), register, &About::default());
    assert_eq!(sent(&drain(&mut node), id(4)), ["registered", "places"]);
    assert_eq!((node.leaves(), node.homes_of(&id(4))), (1, vec![(id(99), own())]));

    node.check_address(s(9), &network);
    assert_eq!(drain(&mut node), [Output::Examine(When::Soon)], "it is still there");
    node.check_address(s(9), &Network::default());
    assert!(node.is_pressing() && node.is_serving(), "first the neighbours are told");
    node.on_relay_exhausted(s(9));
    let outputs = drain(&mut node);
    let ceased = Event::RoleChanged { supernode: false, addresses: vec![own()] };
    let order = [
        Output::Duty(Duty::Binding),
        Output::Dismiss { leaf: id(4) },
        Output::CloseChannels,
        Output::Ceased,
        Output::Event(ceased),
        Output::Event(Event::Homeless),
        Output::Review,
    ];
    assert!(order.iter().map(|output| place(&outputs, output)).is_sorted(), "{outputs:?}");
    assert_eq!(outputs.iter().filter(|output| **output == Output::Ceased).count(), 1, "once");
    assert!(!node.is_serving() && node.leaves() == 0);
    assert!(outputs.iter().any(|output| matches!(output, Output::Dial { .. })), "those it served with may be homes");

    // It may serve again only after a while, however well it is reached.
    let situation = Situation { network: &network, seen: Some(own()), lets_in: None, carried: Carried::default() };
    node.consider_serving(s(10), &situation);
    assert!(!node.is_pressing());
    let wait = node.poll_timeout().expect("something");
    assert!(wait > s(9) && wait - s(9) <= Duration::from_secs(120));
}

#[test]
fn three_failed_checks_or_being_seen_elsewhere_end_it() {
    let network = Network { sockets: vec![(SocketId(0), own())], ..Network::default() };
    let (mut node, _) = serving(&network);
    for came_in in [Some(false), Some(false), None, Some(true), Some(false), Some(false)] {
        node.on_checked(s(8), Some(own()), came_in);
        assert!(!node.is_pressing());
    }
    node.on_checked(s(8), Some(own()), Some(false));
    assert!(node.is_pressing());
    let (mut node, _) = serving(&network);
    node.on_checked(s(8), Some(address(3)), Some(true));
    assert!(node.is_pressing());
}

#[test]
fn helpers_are_those_that_can_be_spared() {
    let mut leaf = registered(Role::Leaf);
    for n in 2..=4 {
        let bytes = advert(n, Capabilities::ALL);
        let message = Message::Signed { kind: SignedKind::Advert, bytes: &bytes };
        let _ = leaf.handle_message(s(5), id(1), message, &About::default());
    }
    drain(&mut leaf);
    let linked = [id(1), id(2)].into();
    assert!(leaf.call_helpers(s(5), 2, &[address(1).ip(), address(3).ip()], &linked));
    assert_eq!(drain(&mut leaf), [Output::Dial { peer: id(4), address: address(4) }], "the only one left");
    assert!(leaf.needs(&id(4)) && leaf.askable().contains(&id(4)));
    leaf.release_helpers();
    assert_eq!(drain(&mut leaf), [Output::Release { peer: id(4) }]);
    assert!(!leaf.has_helpers());
    // One that would serve needs four that nothing was sent to.
    let mut auto = registered(Role::Auto);
    assert!(!auto.call_helpers(s(5), 2, &[], &[id(1)].into()) && drain(&mut auto).is_empty());
}

#[test]
fn what_a_node_is_to_others_and_where_it_is_asked_for() {
    let stands = [overlay(Role::Leaf), overlay(Role::Auto), supernode()].map(|node| node.stand());
    assert_eq!(stands, [Stand::Leaf, Stand::Willing { is_asking: false }, Stand::Appointed]);
    assert_eq!(supernode().contacts(), [(key(99).peer_id(), own())]);
    let mut leaf = registered(Role::Leaf);
    assert_eq!(leaf.contacts(), leaf.own_homes());
    assert!(leaf.is_home(&id(1)) && !leaf.is_home(&id(2)));
    leaf.leave(s(5));
    assert_eq!((leaf.stand(), leaf.is_leaving()), (Stand::Leaving, true));
}

#[test]
fn hearsay_is_of_use_to_those_without_a_home_and_a_ticket_to_those_who_know_nobody() {
    let dials = |node: &mut Overlay| {
        let outputs = drain(node).into_iter();
        outputs.filter_map(|o| if let Output::Dial { peer, .. } = o { Some(peer) } else { None }).collect::<Vec<_>>()
    };
    let mut leaf = overlay(Role::Leaf);
    leaf.start_from(s(1), &[]);
    assert!(leaf.is_lost() && dials(&mut leaf).is_empty());
    leaf.start_from(s(1), &[(id(1), address(1))]);
    assert_eq!(dials(&mut leaf), [id(1)]);
    leaf.start_from(s(1), &[(id(2), address(2))]);
    assert_eq!(dials(&mut leaf), [], "one is known");
    let mut leaf = overlay(Role::Leaf);
    leaf.hear_of(s(1), &[(id(2), address(2))]);
    assert_eq!(dials(&mut leaf), [id(2)]);
    let mut leaf = registered(Role::Leaf);
    leaf.hear_of(s(5), &[(id(2), address(2))]);
    assert_eq!(dials(&mut leaf), [], "it has a home");
}

#[test]
fn a_leaf_is_dismissed_with_a_word_where_its_link_stays() {
    let word = Message::RegisterReply { refused: Some(Refusal::NotASupernode), load: Load::FULL };
    assert_eq!((dismissal(true), dismissal(false)), (Some(word), None));
}

#[test]
fn where_homes_have_no_record_somebody_whom_they_did_not_name_is_asked_first() {
    let mut leaf = registered(Role::Leaf);
    leaf.join(s(5), &[(id(2), address(2))]);
    // It was there, and is a home no longer.
    leaf.on_link_up(s(6), id(2), SHOWN);
    leaf.on_link_down(s(6), &id(2));
    drain(&mut leaf);
    let asked_at = |leaf: &mut Overlay, at: u64| {
        assert_eq!(leaf.start_lookup(s(at), id(7)), None);
        let outputs = drain_at(leaf, s(at));
        let reply = |from| (from, Message::LookupReply { peer: id(7), record: None });
        let first = outputs.iter().find_map(|output| match output {
            Output::SendAt { to, .. } | Output::Send { to, .. } => Some(*to),
            _ => None,
        });
        let first = first.expect("one is asked");
        for (from, reply) in [reply(first), reply(id(1))] {
            let _ = leaf.handle_message(s(at), from, reply, &About::default());
        }
        let unknown = Output::Locate { peer: id(7), location: Err(LookupFailure::Unknown) };
        assert!(drain_at(leaf, s(at)).contains(&unknown));
        first
    };
    assert_eq!(asked_at(&mut leaf, 7), id(1));
    assert_eq!(asked_at(&mut leaf, 8), id(2));
    assert_eq!(asked_at(&mut leaf, 100), id(1), "that was long ago");
}
