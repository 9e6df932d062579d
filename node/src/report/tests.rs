use super::*;

#[test]
fn events_have_a_schema_and_those_that_were_lost_are_counted() {
    let ready = notice(&Notice::Event(Event::Ready)).expect("worth telling");
    assert_eq!((&ready["schema"], &ready["event"]), (&json!("handfast.event/1"), &json!("ready")));
    let lost = notice(&Notice::Lost(7)).expect("worth telling");
    assert_eq!((&lost["schema"], &lost["event"], &lost["count"]), (&ready["schema"], &json!("lost"), &json!(7)));
    assert_eq!(
        notice(&Notice::Event(Event::Datagram { peer: handfast_io::SecretKey::from_bytes(&[1; 32]).peer_id() })),
        None
    );
}

#[test]
fn a_relay_that_carries_no_more_is_named_with_whom_and_how_long() {
    let mut report = StatusReport::for_tests();
    let [relay, peer] = [2, 3].map(|seed| handfast_io::SecretKey::from_bytes(&[seed; 32]).peer_id());
    for limited in [Some(peer), None].map(|peer| LimitedRelay::new(relay, peer, Duration::from_secs(7_200))) {
        report.limited_relays.push(limited.into());
    }
    let text = report.to_text();
    assert!(text.contains("carries no more with") && text.contains("for 2 h 00 min: its own bytes"), "{text}");
    let value = serde_json::to_value(report).unwrap();
    assert_eq!(value["limited_relays"][0]["retry_after_s"], 7_200);
}

#[test]
fn the_names_of_the_status_are_a_promise() {
    let value = serde_json::to_value(StatusReport::for_tests()).unwrap();
    assert_eq!(value["schema"], "handfast.status/1");
    for name in ["id", "role", "listen", "observed", "mapping", "reachable", "homes", "peers", "supernodes", "load"] {
        assert!(value.get(name).is_some(), "{name}");
    }
    for name in [
        "neighbors",
        "leaves",
        "channels",
        "counters",
        "uptime_ms",
        "services",
        "version",
        "pid",
        "advertise",
        "relay_limits",
    ] {
        assert!(value.get(name).is_some(), "{name}");
    }
    let peer = &value["peers"][0];
    assert_eq!((&peer["path"], &peer["rtt_ms"]), (&json!("relay"), &json!(12.345)));
    assert!(peer["via"].as_str().unwrap().starts_with("hf1"));
    assert_eq!(value["mapping"], "endpoint-independent");
    assert_eq!(value["supernodes"][0]["load"], json!({ "leaves": 1.0, "introductions": 0.0, "relay": 0.2 }));
    assert_eq!(value["counters"]["dropped"]["replayed"], 9);
    let back: StatusReport = serde_json::from_value(value).unwrap();
    assert!(back.to_text().contains("192.0.2.1:7441") && back.to_text().contains("12.3 ms"));
}

#[test]
fn drop_reasons_are_in_the_order_of_the_core() {
    for (at, (reason, _)) in DROP_REASONS.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
}

#[test]
fn a_ping_line_has_only_what_it_knows() {
    let path = PathReport { path: "direct".into(), remote: Some("192.0.2.1:1".parse().unwrap()), via: None };
    let value = serde_json::to_value(PingReport::answered(1, 1.5, path, None)).unwrap();
    assert_eq!(
        value,
        json!({ "schema": "handfast.ping/1", "seq": 1, "rtt_ms": 1.5, "path": "direct", "remote": "192.0.2.1:1" })
    );
    let value = serde_json::to_value(PingReport::unanswered(2, "no answer in time")).unwrap();
    assert_eq!(value, json!({ "schema": "handfast.ping/1", "seq": 2, "timeout": true, "error": "no answer in time" }));
}

#[test]
fn a_budget_that_holds_is_said_and_until_when() {
    let why = RelayReason::BudgetHeld { wait: Duration::from_millis(12_001) };
    assert_eq!(held_ms(why), Some(12_001));
    assert_eq!(held_ms(RelayReason::Trying), None);
    assert!(relay_words(why).contains(" 13 s "), "{}", relay_words(why));
    let path = PathReport { path: "relay".into(), remote: None, via: Some("hf1x".into()) };
    let ping = PingReport::answered(1, 1.5, path.clone(), held_ms(why));
    assert_eq!(serde_json::to_value(&ping).unwrap()["held_ms"], 12_001);
    assert!(ping.to_text().contains(" 13 s ") && !PingReport::answered(1, 1.5, path, None).to_text().contains("13"));
    let mut status = StatusReport::for_tests();
    let peer = &mut status.peers[0];
    (peer.why, peer.held_ms) = (Some(relay_words(why).into_owned()), held_ms(why));
    assert!(status.to_text().contains(" 13 s "));
}

#[test]
fn relay_limits_read_well() {
    let text = |rate_bps, quota_bytes, total_rate_bps, total_quota_bytes| {
        RelayLimits { rate_bps, quota_bytes, total_rate_bps, total_quota_bytes }.to_text()
    };
    assert_eq!(text(0, 0, 0, 0), "no limit");
    assert_eq!(text(2_000_000, 1_000_000_000, 0, 0), "2 Mbit/s per pair · 1.0 GB a day per pair");
    assert_eq!(
        text(500_000, 0, 20_000_000, 200_000_000_000),
        "20 Mbit/s total · 500 kbit/s per pair · 200 GB in 30 days"
    );
}

#[test]
fn sizes_read_well() {
    let words = [0, 999, 1000, 9_940, 9_960, 999_400, 999_600, 64 << 20, u64::MAX].map(bytes);
    assert_eq!(words, ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "67 MB", "18447 PB"]);
}
