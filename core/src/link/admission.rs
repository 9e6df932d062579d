//! Who may cost us a handshake: the first look at an Init that came from outside any link.
//!
//! A handshake costs as much as several hundred keyed hashes, and the source address of an Init may be a lie. So each
//! Init passes here first, as in WireGuard:
//!
//! 1. mac1: does it name our key? One keyed hash; nothing is remembered and nothing allocated.
//! 2. Under load ([`LOADED_ABOVE`] Inits with a right mac1 within a second): does mac2 prove that its sender receives
//!    what we send to its address? If not, the answer is a Cookie, made without any memory of it, shorter than the
//!    Init, and sealed so that only who saw the Init can use it. The initiator then repeats its Init under the cookie.
//! 3. A token bucket per prefix. A sender without a cookie who finds it empty gets a Cookie too, and one with a cookie
//!    draws from a bucket apart: so nobody can shut a victim out by emptying its bucket with a forged address.
//!
//! It is handed the packet, its source and the time, and says what to do; answering, and counting what was answered,
//! is the caller's. Sources in loopback and private ranges have no bucket.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use aws_lc_rs::aead::Aad;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::crypto::{aead, nonce};
use super::keys::{Identity, mac, mac2};
use super::{INIT_FIXED_LEN, equal};
use crate::identity::PeerId;
use crate::net::DropReason;
use crate::random::KeyRng;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::{Prefix, canonical};
use crate::wire::packet::{COOKIE_LEN, INIT_HEADER_LEN, Kind, MAC_LEN, NOISE_1_OVERHEAD, Packet, TAG_LEN};

/// Inits with a right mac1 in one second, above which senders must prove their address. At 0.1 to 0.15 ms for a
/// handshake these are 5 to 8 % of a core on a server, and well under a whole one on a computer of a tenth of its
/// speed.
pub(crate) const LOADED_ABOVE: u32 = 500;
/// How long a second of load is remembered.
const LOAD_MEMORY: Duration = Duration::from_secs(1);
/// Age at which the secret behind cookies is replaced; the one before it still counts. As in WireGuard.
const SECRET_LIFETIME: Duration = Duration::from_secs(120);
/// Handshakes per second and prefix. As in WireGuard, which counts addresses.
const BUCKET_RATE: u64 = 20;
/// Handshakes that a quiet prefix may begin at once. As in WireGuard.
const BUCKET_BURST: u64 = 5;
/// Time that a token takes to come back.
const TOKEN_US: u64 = 1_000_000 / BUCKET_RATE;
/// Most prefixes with a bucket that is not full. At it, buckets that have filled up are forgotten, and if none has,
/// who has no bucket is treated as having an empty one. A bucket is full again after a quarter of a second, so that it
/// takes 16 000 prefixes a second to get here.
const BUCKETS_MAX: usize = 4096;

/// A source of Inits that did not go through anything: the shortest one, with no body.
const INIT_LEN_MIN: usize = INIT_HEADER_LEN + NOISE_1_OVERHEAD + INIT_FIXED_LEN + 2 * MAC_LEN;

// A Cookie must not be longer than what it answers.
const _: () = assert!(COOKIE_LEN <= INIT_LEN_MIN);

/// What to do with an Init.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Go on with the handshake.
    Pass,
    /// Send this back, and forget the Init.
    Cookie([u8; COOKIE_LEN]),
    /// Drop it.
    Drop(DropReason),
}

/// The gate of one node.
pub struct Gate {
    secret: CookieSecret,
    load: Load,
    buckets: Buckets,
}

impl Gate {
    /// A gate without a memory.
    pub fn new(keys: &mut KeyRng) -> Self {
        Self { secret: CookieSecret::new(keys), load: Load::default(), buckets: Buckets::default() }
    }

    /// From now on, asks every sender for a cookie, or no longer does. For tests.
    pub fn force_load(&mut self, on: bool) {
        self.load.forced = on;
    }

    /// Forgets the buckets once all are full again. Costs a comparison.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.buckets.all_full_at <= now {
            self.buckets.full_at.clear();
        }
    }

    /// Decides about an Init for `me` that came from `source`, outside any link.
    pub fn admit(
        &mut self,
        now: Instant,
        me: &Identity,
        source: SocketAddr,
        packet: &[u8],
        keys: &mut KeyRng,
    ) -> Admission {
        if packet.len() > DATAGRAM_LEN_MAX {
            return Admission::Drop(DropReason::TooLong);
        }
        let Ok(Packet::Init { sender, .. }) = Packet::decode(packet) else {
            return Admission::Drop(DropReason::Malformed);
        };
        if packet.len() < INIT_LEN_MIN {
            return Admission::Drop(DropReason::Truncated);
        }
        let Some((before_mac2, got_mac2)) = packet.split_last_chunk::<MAC_LEN>() else {
            return Admission::Drop(DropReason::Truncated);
        };
        let Some((before_mac1, got_mac1)) = before_mac2.split_last_chunk::<MAC_LEN>() else {
            return Admission::Drop(DropReason::Truncated);
        };
        if !equal(got_mac1, &me.mac1(before_mac1)) {
            return Admission::Drop(DropReason::Unauthentic);
        }

        let source = canonical(source);
        self.secret.renew(now, keys);
        // Zero is what an initiator writes who has no cookie: no need to hash for it.
        let proven = *got_mac2 != [0; MAC_LEN] && self.secret.proves(source, before_mac2, got_mac2);
        if self.load.count(now) && !proven {
            return Admission::Cookie(self.secret.cookie_packet(me, sender, source, got_mac1, keys));
        }
        if Prefix::is_exempt(source.ip()) || self.buckets.take(now, Prefix::of(source.ip()), proven) {
            return Admission::Pass;
        }
        if proven {
            return Admission::Drop(DropReason::Limited);
        }
        Admission::Cookie(self.secret.cookie_packet(me, sender, source, got_mac1, keys))
    }
}

/// Whether handshakes are in such demand that senders must prove their address.
#[derive(Default)]
struct Load {
    since: Instant,
    inits: u32,
    loaded_until: Instant,
    forced: bool,
}

impl Load {
    /// Counts one Init and says whether there is load. Demand is counted, not what was let in: otherwise load would
    /// end the moment cookies keep a flood out.
    fn count(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.inits = 0;
        }
        self.inits = self.inits.saturating_add(1);
        if self.inits > LOADED_ABOVE {
            self.loaded_until = now + LOAD_MEMORY;
        }
        self.forced || now < self.loaded_until
    }
}

/// What cookies are made of: a cookie is a keyed hash of the address that it proves, so none is remembered.
#[derive(Zeroize, ZeroizeOnDrop)]
struct CookieSecret {
    current: [u8; 32],
    previous: [u8; 32],
    #[zeroize(skip)]
    made: Option<Instant>,
}

impl CookieSecret {
    fn new(keys: &mut KeyRng) -> Self {
        Self { current: keys.bytes(), previous: keys.bytes(), made: None }
    }

    fn renew(&mut self, now: Instant, keys: &mut KeyRng) {
        let age = now.since(*self.made.get_or_insert(now));
        if age < SECRET_LIFETIME {
            return;
        }
        // One that is as old as two would be has no successor to be remembered beside.
        self.previous = if age < 2 * SECRET_LIFETIME { self.current } else { keys.bytes() };
        self.current = keys.bytes();
        self.made = Some(now);
    }

    fn proves(&self, source: SocketAddr, before_mac2: &[u8], got_mac2: &[u8; MAC_LEN]) -> bool {
        let under = |secret| equal(got_mac2, &mac2(&cookie(secret, source), before_mac2));
        under(&self.current) || under(&self.previous)
    }

    fn cookie_packet(
        &self,
        me: &Identity,
        receiver: u32,
        source: SocketAddr,
        mac1: &[u8; MAC_LEN],
        keys: &mut KeyRng,
    ) -> [u8; COOKIE_LEN] {
        let seal_nonce: [u8; 24] = keys.bytes();
        let mut cookie = cookie(&self.current, source);
        let tag = aead(&cookie_key(&me.id(), &seal_nonce))
            .seal_in_place_separate_tag(nonce(0), Aad::from(mac1), &mut cookie)
            .expect("16 bytes are far below the cipher's limit");
        let mut packet = [0; COOKIE_LEN];
        packet[0] = Kind::Cookie as u8;
        packet[1..5].copy_from_slice(&receiver.to_le_bytes());
        packet[5..29].copy_from_slice(&seal_nonce);
        packet[29..45].copy_from_slice(&cookie);
        packet[45..].copy_from_slice(tag.as_ref());
        packet
    }
}

/// The cookie of a source, which is canonical: 16 bytes that only we can make for it.
fn cookie(secret: &[u8; 32], source: SocketAddr) -> [u8; MAC_LEN] {
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&source.port().to_be_bytes());
    mac(secret, &bytes)
}

/// The key that a cookie is sealed under: fresh for each, so that the cipher's nonce can stay zero.
fn cookie_key(responder: &PeerId, seal_nonce: &[u8; 24]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key("handfast v1 cookie");
    hasher.update(responder.as_bytes()).update(seal_nonce);
    Zeroizing::new(hasher.finalize().into())
}

/// Opens the cookie of a Cookie packet that answers our Init to `peer` with this `mac1`.
pub fn open_cookie(
    peer: &PeerId,
    mac1: &[u8; MAC_LEN],
    seal_nonce: &[u8; 24],
    sealed: &[u8; 32],
) -> Option<[u8; MAC_LEN]> {
    let (text, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
    let mut cookie = [0; MAC_LEN];
    aead(&cookie_key(peer, seal_nonce)).open_separate_gather(nonce(0), Aad::from(mac1), text, tag, &mut cookie).ok()?;
    Some(cookie)
}

/// The token buckets of prefixes whose bucket is not full. A bucket is the moment at which it will be full again.
#[derive(Default)]
struct Buckets {
    full_at: BTreeMap<(Prefix, bool), Instant>,
    /// From then on all of them are full.
    all_full_at: Instant,
    swept: Instant,
}

impl Buckets {
    fn take(&mut self, now: Instant, prefix: Prefix, proven: bool) -> bool {
        let token = Duration::from_micros(TOKEN_US);
        let room = Duration::from_micros(TOKEN_US * BUCKET_BURST);
        let key = (prefix, proven);
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now) + token;
        if full_at.since(now) > room {
            return false;
        }
        if self.full_at.len() >= BUCKETS_MAX && !self.full_at.contains_key(&key) {
            // Not more often than buckets can fill up, or a flood would make us sweep for each packet.
            if now.since(self.swept) >= room {
                self.full_at.retain(|_, full_at| *full_at > now);
                self.swept = now;
            }
            if self.full_at.len() >= BUCKETS_MAX {
                return false;
            }
        }
        self.full_at.insert(key, full_at);
        self.all_full_at = self.all_full_at.max(full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{InitFixed, Macs, PeerKeys, initiate};
    use super::*;
    use crate::identity::SecretKey;

    const PUBLIC: &str = "203.0.113.7:4000";

    struct Setting {
        gate: Gate,
        me: Identity,
        caller: Identity,
        keys: KeyRng,
    }

    fn setting() -> Setting {
        let mut keys = KeyRng::new([1; 32]);
        Setting {
            gate: Gate::new(&mut keys),
            me: Identity::new(SecretKey::from_bytes(&[2; 32])),
            caller: Identity::new(SecretKey::from_bytes(&[3; 32])),
            keys,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn source(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    impl Setting {
        fn init(&mut self, macs: Macs<'_>) -> Vec<u8> {
            let peer = PeerKeys::new(self.me.id()).expect("an honest key");
            let mut out = [0; DATAGRAM_LEN_MAX];
            let fixed = InitFixed { time_us: 1, session: 2 };
            let (_, len) =
                initiate(&self.caller, &peer, &mut self.keys, 77, fixed, b"", macs, &mut out).expect("an Init");
            out[..len].to_vec()
        }

        fn admit(&mut self, now: Instant, from: &str, packet: &[u8]) -> Admission {
            self.gate.admit(now, &self.me, source(from), packet, &mut self.keys)
        }

        /// The cookie inside a Cookie packet that answers `init`.
        fn opened(&self, init: &[u8], cookie: &[u8; COOKIE_LEN]) -> Option<[u8; MAC_LEN]> {
            let Ok(Packet::Cookie { receiver: 77, nonce, sealed }) = Packet::decode(cookie) else {
                panic!("not a Cookie for the Init")
            };
            open_cookie(&self.me.id(), &mac1_of(init), nonce, sealed)
        }
    }

    fn mac1_of(init: &[u8]) -> [u8; MAC_LEN] {
        let end = init.len() - MAC_LEN;
        init[end - MAC_LEN..end].try_into().expect("16 bytes")
    }

    fn cookie_in(admission: Admission) -> [u8; COOKIE_LEN] {
        match admission {
            Admission::Cookie(packet) => packet,
            other => panic!("{other:?} instead of a Cookie"),
        }
    }

    #[test]
    fn an_init_for_us_passes_and_any_damage_before_mac2_is_seen() {
        let mut s = setting();
        let init = s.init(Macs::Plain);
        assert_eq!(s.admit(at(0), PUBLIC, &init), Admission::Pass);
        for bit in 0..(init.len() - MAC_LEN) * 8 {
            let mut forged = init.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(s.admit(at(0), PUBLIC, &forged), Admission::Drop(_)), "bit {bit}");
        }
        for len in 0..init.len() {
            assert!(matches!(s.admit(at(0), PUBLIC, &init[..len]), Admission::Drop(_)), "length {len}");
        }
        s.me = Identity::new(SecretKey::from_bytes(&[9; 32]));
        assert_eq!(s.admit(at(0), PUBLIC, &init), Admission::Drop(DropReason::Unauthentic));
    }

    #[test]
    fn no_length_of_junk_passes_or_panics() {
        let mut s = setting();
        for kind in 0..=9 {
            for len in (0..=1500).chain([65_535]) {
                let mut junk = vec![0x5A; len];
                if let [first, second, ..] = &mut junk[..] {
                    (*first, *second) = (kind, 1);
                }
                assert!(matches!(s.admit(at(0), PUBLIC, &junk), Admission::Drop(_)));
            }
        }
    }

    /// Threat A3: under load, an Init without a cookie is answered with one; with it, it passes.
    #[test]
    fn a3_under_load_a_cookie_is_asked_for_and_honoured() {
        let mut s = setting();
        s.gate.force_load(true);
        let first = s.init(Macs::Plain);
        let packet = cookie_in(s.admit(at(0), PUBLIC, &first));
        let cookie = s.opened(&first, &packet).expect("our cookie");

        let second = s.init(Macs::Cookie(&cookie));
        assert_eq!(s.admit(at(10), PUBLIC, &second), Admission::Pass);
        // The cookie proves one address and port.
        for other in ["203.0.113.7:4001", "203.0.113.8:4000", "[2001:db8::1]:4000"] {
            cookie_in(s.admit(at(10), other, &second));
        }
        // However the same address is written.
        assert_eq!(s.admit(at(10), "[::ffff:203.0.113.7]:4000", &second), Admission::Pass);
        let wrong = s.init(Macs::Cookie(&[1; MAC_LEN]));
        cookie_in(s.admit(at(10), PUBLIC, &wrong));
    }

    #[test]
    fn a_cookie_opens_only_for_who_saw_the_init() {
        let mut s = setting();
        s.gate.force_load(true);
        let (init, other) = (s.init(Macs::Plain), s.init(Macs::Plain));
        let packet = cookie_in(s.admit(at(0), PUBLIC, &init));
        assert_eq!(s.opened(&other, &packet), None);
        for bit in 5 * 8..COOKIE_LEN * 8 {
            let mut forged = packet;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(s.opened(&init, &forged), None, "bit {bit}");
        }
        assert!(s.opened(&init, &packet).is_some());
    }

    /// The secret changes every two minutes; a cookie outlives one change and not two.
    #[test]
    fn cookies_expire() {
        let mut s = setting();
        s.gate.force_load(true);
        let init = s.init(Macs::Plain);
        let packet = cookie_in(s.admit(at(0), PUBLIC, &init));
        let cookie = s.opened(&init, &packet).expect("our cookie");
        let proven = s.init(Macs::Cookie(&cookie));
        assert_eq!(s.admit(at(119_999), PUBLIC, &proven), Admission::Pass);
        assert_eq!(s.admit(at(239_999), PUBLIC, &proven), Admission::Pass);
        cookie_in(s.admit(at(359_999), PUBLIC, &proven));

        // A long silence counts as both changes.
        let mut s = setting();
        s.gate.force_load(true);
        let init = s.init(Macs::Plain);
        let packet = cookie_in(s.admit(at(0), PUBLIC, &init));
        let cookie = s.opened(&init, &packet).expect("our cookie");
        let proven = s.init(Macs::Cookie(&cookie));
        cookie_in(s.admit(at(240_000), PUBLIC, &proven));
    }

    /// Threat A1: a Cookie is never longer than the Init that it answers.
    #[test]
    fn a1_a_cookie_is_shorter_than_any_init() {
        let mut s = setting();
        s.gate.force_load(true);
        let init = s.init(Macs::Plain);
        assert!(cookie_in(s.admit(at(0), PUBLIC, &init)).len() <= init.len());
        assert_eq!((COOKIE_LEN, init.len()), (61, 151));
    }

    /// Threat A4: five at once and twenty a second from a prefix that proved its address.
    #[test]
    fn a4_a_prefix_gets_its_share_and_no_more() {
        for (from, neighbour, stranger) in [
            (PUBLIC, "203.0.113.99:9", "203.0.114.7:4000"),
            ("[2001:db8:1:2::3]:5", "[2001:db8:1:ffff::1]:5", "[2001:db8:2::3]:5"),
        ] {
            let mut s = setting();
            let init = s.init(Macs::Plain);
            for _ in 0..5 {
                assert_eq!(s.admit(at(0), from, &init), Admission::Pass);
            }
            // Without a cookie, it is asked for one: the address may be forged.
            let packet = cookie_in(s.admit(at(0), from, &init));
            cookie_in(s.admit(at(0), neighbour, &init));
            assert_eq!(s.admit(at(0), stranger, &init), Admission::Pass);
            // With a cookie, a victim of forgery still has its own bucket.
            let cookie = s.opened(&init, &packet).expect("our cookie");
            let proven = s.init(Macs::Cookie(&cookie));
            for _ in 0..5 {
                assert_eq!(s.admit(at(0), from, &proven), Admission::Pass);
            }
            assert_eq!(s.admit(at(0), from, &proven), Admission::Drop(DropReason::Limited));
            // One token each 50 ms.
            let passed = (0..1000).filter(|ms| s.admit(at(*ms), from, &proven) == Admission::Pass).count();
            assert_eq!(passed, 19);
            // Not more than five are saved up.
            let passed = (0..10).filter(|_| s.admit(at(60_000), from, &proven) == Admission::Pass).count();
            assert_eq!(passed, 5);
        }
    }

    #[test]
    fn loopback_and_private_sources_have_no_bucket() {
        let mut s = setting();
        let init = s.init(Macs::Plain);
        for from in ["127.0.0.1:1", "10.1.2.3:4", "192.168.0.1:5", "[::1]:6", "[fd00::1]:7"] {
            for _ in 0..20 {
                assert_eq!(s.admit(at(0), from, &init), Admission::Pass);
            }
        }
    }

    #[test]
    fn load_comes_with_demand_and_goes_with_it() {
        let mut s = setting();
        let init = s.init(Macs::Plain);
        let from = "10.0.0.1:1";
        for _ in 0..LOADED_ABOVE {
            assert_eq!(s.admit(at(0), from, &init), Admission::Pass);
        }
        cookie_in(s.admit(at(0), from, &init));
        cookie_in(s.admit(at(999), from, &init));
        assert_eq!(s.admit(at(1999), from, &init), Admission::Pass);

        // A flood that is kept out is still load, second after second.
        let mut passed = 0;
        for ms in 3000..7000 {
            for _ in 0..2 {
                passed += u32::from(s.admit(at(ms), from, &init) == Admission::Pass);
            }
        }
        assert_eq!(passed, LOADED_ABOVE, "only the beginning of a flood gets in");

        // Junk is no demand.
        let mut s = setting();
        for _ in 0..10_000 {
            let _ = s.admit(at(0), from, &[1; 200]);
        }
        assert_eq!(s.admit(at(0), from, &init), Admission::Pass);
    }

    /// Threat A5: the one table is bounded, and forgets by itself.
    #[test]
    fn a5_the_buckets_are_bounded() {
        let mut buckets = Buckets::default();
        let prefix = |i: usize| Prefix::V4([(i >> 16) as u8, (i >> 8) as u8, i as u8]);
        for i in 0..BUCKETS_MAX {
            assert!(buckets.take(at(1000), prefix(i), true));
        }
        assert!(!buckets.take(at(1000), prefix(BUCKETS_MAX), true), "at the limit, a new prefix waits");
        assert!(buckets.take(at(1000), prefix(0), true), "and known ones go on");
        assert_eq!(buckets.full_at.len(), BUCKETS_MAX);
        assert!(buckets.take(at(1250), prefix(BUCKETS_MAX), true), "full buckets are forgotten");
        assert_eq!(buckets.full_at.len(), 1);
    }

    #[test]
    fn same_seed_same_cookies() {
        let run = || {
            let mut s = setting();
            s.gate.force_load(true);
            let init = s.init(Macs::Plain);
            cookie_in(s.admit(at(5), PUBLIC, &init))
        };
        assert_eq!(run(), run());
    }
}
