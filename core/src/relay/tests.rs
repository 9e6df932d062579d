use super::channel::REST_OF_OLD;
use super::fair::BURST_MIN;
use super::*;
use crate::identity::SecretKey;
use crate::net::SocketId;
use crate::wire::packet::Kind;

fn path(port: u16) -> Path {
    Path { socket: SocketId(0), remote: ([198, 51, 100, 1], port).into(), local: None }
}

fn end(n: u8) -> End {
    End {
        peer: PeerKey { index: n.into(), generation: 0 },
        id: SecretKey::from_bytes(&[n; 32]).peer_id(),
        path: Some(path(n.into())),
    }
}

fn at(s: u64) -> Instant {
    Instant::from_micros(s * 1_000_000)
}

/// A relay whose channels may carry so much each.
fn relaying(rate_bps: u64, quota_bytes: u64) -> Relay {
    let unlimited = Limits { rate_bps: 0, quota_bytes: 0 };
    Relay::new(at(0), &Seed::new([0; 32]), Limits { rate_bps, quota_bytes }, unlimited, Relayed::default())
}

/// One whose channels may carry so much together.
fn capped(rate_bps: u64, quota_bytes: u64, relayed: Relayed) -> Relay {
    let unlimited = Limits { rate_bps: 0, quota_bytes: 0 };
    Relay::new(at(0), &Seed::new([0; 32]), unlimited, Limits { rate_bps, quota_bytes }, relayed)
}

fn open(relay: &mut Relay, now: Instant, id: ChannelId, a: End, b: End) {
    let _ = relay.open(now, id, [a, b]);
}

const ID: ChannelId = ChannelId([9; 6]);

/// One packet of `bytes` bytes, with stream data.
fn forward(relay: &mut Relay, now: Instant, channel: ChannelId, from: &Path, bytes: usize) -> Result<Path, DropReason> {
    forward_kind(relay, Kind::Stream, now, channel, from, bytes)
}

fn forward_kind(
    relay: &mut Relay,
    kind: Kind,
    now: Instant,
    channel: ChannelId,
    from: &Path,
    bytes: usize,
) -> Result<Path, DropReason> {
    let mut packet = crate::wire::packet::relay_header(channel).to_vec();
    packet.push(kind as u8);
    packet.resize(bytes.max(packet.len()), 0);
    let forwarded = relay.forward(now, channel, from, packet.len(), &packet);
    forwarded.ok_or(DropReason::UnknownReceiver)??.to
}

#[test]
fn b1_forwards_only_from_where_its_legs_are_or_just_were() {
    let mut relay = relaying(0, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    assert_eq!(forward(&mut relay, at(0), ID, &path(1), 100), Ok(path(2)));
    assert_eq!(forward(&mut relay, at(0), ID, &path(2), 100), Ok(path(1)));
    assert_eq!(forward(&mut relay, at(0), ID, &path(3), 100), Err(DropReason::WrongPath));
    assert_eq!(forward(&mut relay, at(0), ChannelId([8; 6]), &path(1), 1), Err(DropReason::UnknownReceiver));
    relay.set_path(end(1).peer, Some(path(11)));
    assert_eq!(forward(&mut relay, at(0), ID, &path(1), 100), Ok(path(2)), "what was on its way");
    assert_eq!(forward(&mut relay, at(0), ID, &path(11), 100), Ok(path(2)));
    assert_eq!(forward(&mut relay, at(0), ID, &path(2), 100), Ok(path(11)));
    relay.set_path(end(1).peer, Some(path(12)));
    assert_eq!(forward(&mut relay, at(0), ID, &path(1), 100), Err(DropReason::WrongPath));
}

#[test]
fn b2_the_rate_is_kept_and_refills() {
    let mut relay = relaying(2_000_000, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    let mut passed = 0u64;
    for ms in 0..10_000 {
        let now = Instant::from_micros(ms * 1_000);
        if forward(&mut relay, now, ID, &path(1), 1_200).is_ok() {
            passed += 1_200;
        }
    }
    let fair = 2_000_000 / 8 * 10 + BURST_MIN;
    assert!((fair * 98 / 100..=fair).contains(&passed), "{passed} of {fair}");
}

#[test]
fn b2_the_quota_belongs_to_the_pair_not_to_the_channel() {
    let mut relay = relaying(0, 1_000);
    open(&mut relay, at(0), ID, end(1), end(2));
    assert!(forward(&mut relay, at(0), ID, &path(1), 900).is_ok());
    assert_eq!(forward(&mut relay, at(0), ID, &path(1), 200), Err(DropReason::Quota));
    relay.close(at(1), ID);
    open(&mut relay, at(1), ChannelId([7; 6]), end(2), end(1));
    assert_eq!(forward(&mut relay, at(1), ChannelId([7; 6]), &path(1), 200), Err(DropReason::Quota));
    relay.close(at(2), ChannelId([7; 6]));
    open(&mut relay, at(90_000), ChannelId([6; 6]), end(2), end(1));
    assert!(forward(&mut relay, at(90_000), ChannelId([6; 6]), &path(1), 900).is_ok(), "a new day");
}

#[test]
fn an_idle_channel_closes_and_both_legs_are_told() {
    let mut relay = relaying(0, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    assert!(relay.handle_timeout(at(599)).is_empty());
    let at_timeout = relay.poll_timeout().expect("a sweep is due");
    let closed = relay.handle_timeout(at_timeout.max(at(600)));
    assert_eq!(closed.len(), 2);
    assert!(relay.len() == 0);
    assert_eq!(relay.poll_timeout(), None);
}

#[test]
fn the_channels_closed_are_those_that_a_search_through_all_finds_idle() {
    let mut chance = crate::random::ChoiceRng::new([3; 32]);
    let (mut relay, mut last) = (relaying(0, 0), BTreeMap::new());
    let ends: Vec<[End; 2]> = (0..30).map(|n| [end(2 * n), end(2 * n + 1)]).collect();
    for s in (0..20_000).step_by(10) {
        let (n, now) = (chance.below(ends.len()), at(s));
        let id = ChannelId([u8::try_from(n).expect("small"); 6]);
        match chance.below(8) {
            0 => drop((relay.close(now, id), last.remove(&id))),
            1..=3 if !last.contains_key(&id) => {
                let _ = relay.open(now, id, ends[n]);
                last.insert(id, now);
            }
            4 if forward(&mut relay, now, id, &path(2 * n as u16), 100).is_ok() => drop(last.insert(id, now)),
            _ => {}
        }
        let is_due = relay.poll_timeout().is_some_and(|at| at <= now);
        let mut closed: Vec<ChannelId> = relay.handle_timeout(now).iter().map(|closed| closed.channel).collect();
        closed.dedup();
        let idle = last.iter().filter(|(_, at)| is_due && now - **at >= CHANNEL_IDLE_MAX);
        assert_eq!(closed, idle.map(|(id, _)| *id).collect::<Vec<_>>());
        last.retain(|id, _| !closed.contains(id));
        assert_eq!((relay.len(), relay.looks.len()), (last.len(), last.len()));
    }
}

#[test]
fn of_too_many_pairs_the_one_whose_day_began_first_is_forgotten() {
    let mut relay = relaying(0, 1_000);
    let ids: Vec<PeerId> = (0..600u16)
        .map(|n| {
            let mut secret = [1; 32];
            secret[..2].copy_from_slice(&n.to_be_bytes());
            SecretKey::from_bytes(&secret).peer_id()
        })
        .collect();
    let [a, b] = [end(1), end(2)];
    let ends = |n: usize| [End { id: ids[n % 256], ..a }, End { id: ids[256 + n / 256], ..b }];
    let pair_of = |n: usize| pair(ends(n)[0].id, ends(n)[1].id);
    let use_some = |relay: &mut Relay, us: usize, n: usize| {
        let now = Instant::from_micros(us as u64);
        open(relay, now, ID, ends(n)[0], ends(n)[1]);
        assert!(forward(relay, now, ID, &path(1), 100).is_ok());
        relay.close(now, ID);
    };
    (0..PAIRS_MAX).for_each(|n| use_some(&mut relay, n, n));
    // What it uses later in its day does not make it a newer one.
    (0..10).for_each(|n| use_some(&mut relay, PAIRS_MAX, n));
    assert_eq!(relay.days.get(&pair_of(0)), Some(&(Instant::from_micros(0), 200)));
    for n in 0..1_000 {
        use_some(&mut relay, PAIRS_MAX, PAIRS_MAX + n);
        assert!(relay.days.get(&pair_of(n)).is_none() && relay.days.get(&pair_of(n + 1)).is_some());
    }
    assert!(relay.days.is_full());
}

#[test]
fn a_link_that_ends_takes_its_channels_along() {
    let mut relay = relaying(0, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    assert_eq!(relay.close_leg(at(1), end(1).peer, |_| false), [Closed { channel: ID, leg: end(2).peer }]);
    assert!(relay.len() == 0);
}

#[test]
fn regression_an_older_channel_of_a_pair_does_not_double_its_rate() {
    let mut relay = relaying(2_000_000, 0);
    let (old, new) = (ID, ChannelId([7; 6]));
    open(&mut relay, at(0), old, end(1), end(2));
    open(&mut relay, at(0), new, end(1), end(2));
    let mut passed = 0u64;
    for ms in 0..10_000 {
        let now = Instant::from_micros(ms * 1_000);
        for channel in [old, new] {
            passed += if forward(&mut relay, now, channel, &path(1), 1_200).is_ok() { 1_200 } else { 0 };
        }
    }
    let fair = 2_000_000 / 8 * 10 + BURST_MIN + REST_OF_OLD;
    assert!(passed <= fair, "{passed} of {fair}");
}

#[test]
fn regression_opening_channels_one_after_the_other_does_not_fill_the_bucket() {
    let mut relay = relaying(1_000, 0);
    let mut passed = 0u64;
    for n in 0..50 {
        let id = ChannelId([n; 6]);
        open(&mut relay, at(0), id, end(1), end(2));
        while forward(&mut relay, at(0), id, &path(1), 1_200).is_ok() {
            passed += 1_200;
        }
    }
    assert!(passed <= BURST_MIN, "{passed}");
}

#[test]
fn the_relays_own_rate_bounds_all_pairs_together() {
    let mut relay = capped(2_000_000, 0, Relayed::default());
    for n in 0..10 {
        open(&mut relay, at(0), ChannelId([n; 6]), end(2 * n), end(2 * n + 1));
    }
    let mut passed = [0u64; 10];
    for ms in 0..10_000 {
        let now = Instant::from_micros(ms * 1_000);
        for n in 0..10 {
            let from = path(u16::from(2 * n));
            if forward(&mut relay, now, ChannelId([n; 6]), &from, 1_200).is_ok() {
                passed[usize::from(n)] += 1_200;
            }
        }
    }
    let all: u64 = passed.iter().sum();
    let fair = 2_000_000 / 8 * 10;
    assert!((fair * 9 / 10..=fair + 3 * BURST_MIN).contains(&all), "{all} of {fair}");
    let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
    assert!(most - least <= 2 * BURST_MIN, "{passed:?}");
}

#[test]
fn a_relay_whose_30_days_are_used_up_forwards_nothing_more_and_closes() {
    let wall = |days: u64| WallTime::from_micros(days * 86_400 * 1_000_000);
    let mut relay = capped(0, 1_000, Relayed { since_s: 100 * 86_400, bytes: 700 });
    relay.on_wall_clock(wall(101));
    open(&mut relay, at(0), ID, end(1), end(2));
    assert!(forward(&mut relay, at(0), ID, &path(1), 200).is_ok());
    assert!(matches!(relay.poll_keep(), Some(Save::Relayed(kept)) if kept.bytes >= 900));
    assert!(!relay.is_exhausted());
    assert_eq!(forward(&mut relay, at(0), ID, &path(1), 200), Err(DropReason::Quota));
    assert!(relay.is_exhausted());
    assert_eq!(relay.close_all(at(1)).len(), 2);
    relay.on_wall_clock(wall(131));
    assert!(!relay.is_exhausted());
}

#[test]
fn a_volunteer_has_caps_of_its_own_until_it_serves() {
    let saved = Saved { relayed: Relayed { since_s: 5, bytes: 200_000_000_000 }, ..Saved::default() };
    let config = Config { volunteer: true, ..Config::auto() };
    let mut relay = Relay::of(at(0), &Seed::new([0; 32]), &config, &saved);
    let volunteers = Limits { rate_bps: 1_000_000, quota_bytes: 1_000_000_000 };
    let supernodes = Limits { rate_bps: 2_000_000, quota_bytes: 1 << 30 };
    assert!(relay.is_exhausted() && !relay.caps.is_exhausted(), "30 days are one thing, a day is another");
    relay.caps.quota.as_mut().expect("it is capped").take(1_000);
    assert!(matches!(relay.poll_keep(), Some(Save::Volunteered(kept)) if kept.bytes >= 1_000));
    for (serving, limits) in [(false, volunteers), (true, supernodes), (true, supernodes), (false, volunteers)] {
        relay.set_serving(at(1), serving);
        assert_eq!(relay.caps.limits, limits, "{serving}");
        assert_eq!(relay.relayed().bytes, 200_000_000_000);
    }
    assert_eq!(relay.volunteer_status().expect("it is to be one").relayed.bytes, 1_000);
    // Who was not asked to, and who serves anyway, does not volunteer.
    for config in [Config::auto(), Config { volunteer: true, ..Config::supernode(vec![path(1).remote]) }] {
        let relay = Relay::of(at(0), &Seed::new([0; 32]), &config, &saved);
        assert!(relay.volunteer_status().is_none());
    }
}

/// The kinds of what a channel's ends are told: which limit, for how long.
fn told(relay: &mut Relay) -> Vec<(u32, RelayLimit, u32)> {
    let output = core::iter::from_fn(|| relay.poll_output());
    let told = output.filter_map(|output| match output {
        Output::Send { peer, message: Message::ChannelLimited { channel, limit, retry_after_s } } => {
            assert_eq!(channel, ID);
            Some((peer.index, limit, retry_after_s))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn both_ends_are_told_that_the_pairs_bytes_are_used_up_and_not_again_at_once() {
    let mut relay = relaying(0, 10_000);
    open(&mut relay, at(0), ID, end(1), end(2));
    while forward(&mut relay, at(600), ID, &path(1), 1_000).is_ok() {}
    let pair = RelayLimit::Pair;
    assert_eq!(told(&mut relay), [(1, pair, 85_801), (2, pair, 85_801)]);
    assert_eq!(forward(&mut relay, at(602), ID, &path(2), 1_000), Err(DropReason::Quota));
    assert_eq!(told(&mut relay), []);
    assert_eq!(forward(&mut relay, at(603), ID, &path(2), 1_000), Err(DropReason::Quota));
    assert_eq!(told(&mut relay).len(), 2);
    assert!(forward(&mut relay, at(86_400), ID, &path(1), 1_000).is_ok(), "another day");
}

#[test]
fn what_is_no_stream_data_passes_beyond_the_limit_until_the_reserve_is_used_up() {
    let mut relay = relaying(0, 10_000);
    open(&mut relay, at(0), ID, end(1), end(2));
    while forward(&mut relay, at(0), ID, &path(1), 1_000).is_ok() {}
    let passed =
        (0..100).take_while(|_| forward_kind(&mut relay, Kind::Data, at(0), ID, &path(1), 1_000).is_ok()).count();
    assert_eq!(passed, 32);
    assert_eq!(told(&mut relay).len(), 2);
    // Another channel does not have it again.
    let other = ChannelId([8; 6]);
    open(&mut relay, at(1), other, end(1), end(2));
    assert_eq!(forward_kind(&mut relay, Kind::Data, at(1), other, &path(1), 1_000), Err(DropReason::Quota));
}

#[test]
fn a_rate_that_is_exceeded_is_no_news() {
    let mut relay = relaying(1_000, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    while forward(&mut relay, at(0), ID, &path(1), 1_000).is_ok() {}
    assert_eq!(told(&mut relay), []);
}

#[test]
fn an_older_channel_of_a_pair_closes_when_what_is_left_to_it_is_used_up() {
    let mut relay = relaying(0, 0);
    open(&mut relay, at(0), ID, end(1), end(2));
    open(&mut relay, at(0), ChannelId([8; 6]), end(1), end(2));
    let mut passed = 0;
    while forward(&mut relay, at(0), ID, &path(1), 1_000).is_ok() {
        passed += 1_000;
    }
    assert_eq!((passed, relay.contains(ID), relay.contains(ChannelId([8; 6]))), (65_000, false, true));
    let closed = |output| match output {
        Output::Send { peer, message: Message::ChannelClosed { channel: ID } } => peer,
        other => panic!("{other:?}"),
    };
    let mut legs: Vec<PeerKey> = core::iter::from_fn(|| relay.poll_output()).map(closed).collect();
    legs.sort_unstable();
    assert_eq!(legs, [end(1).peer, end(2).peer], "both are told, and nothing else");
}

#[test]
fn a_relay_that_is_used_up_says_so_and_closes_a_moment_later() {
    let mut relay = capped(0, 1_000, Relayed::default());
    relay.on_wall_clock(WallTime::from_micros(86_400_000_000));
    open(&mut relay, at(0), ID, end(1), end(2));
    while forward(&mut relay, at(0), ID, &path(1), 500).is_ok() {}
    assert_eq!(told(&mut relay), [(1, RelayLimit::Relay, 30 * 86_400 + 1), (2, RelayLimit::Relay, 30 * 86_400 + 1)]);
    assert!(forward_kind(&mut relay, Kind::Data, at(0), ID, &path(1), 500).is_ok(), "the reserve");
    assert!(!relay.is_closing(at(4)));
    assert_eq!(relay.poll_timeout(), Some(at(5)));
    assert!(relay.is_closing(at(5)) && !relay.is_closing(at(5)));
}

#[test]
fn a_channel_of_ours_is_closed_by_its_relay_alone_and_goes_with_either_peer() {
    let mut relay = relaying(0, 0);
    let [a, via, other] = [1, 2, 3].map(|n| end(n).peer);
    relay.add_end(ID, Way { end: a, via });
    assert!(relay.on_closed(other, ID).is_none() && relay.end(ID).is_some());
    assert!(relay.on_closed(via, ID).is_some() && relay.end(ID).is_none());
    assert!(relay.on_closed(via, ID).is_none(), "it is gone");
    for gone in [a, via] {
        relay.add_end(ID, Way { end: a, via });
        assert!(relay.relays_for_us(via));
        assert_eq!(relay.ends_through(via).collect::<Vec<_>>(), [(ID, a)]);
        assert_eq!(relay.forget(at(0), gone), []);
        assert_eq!(relay.end(ID), None);
    }
}
