//! Who may cost us a handshake: the first look at an Init that came from outside any link.
//!
//! A handshake costs about as much as 300 keyed hashes, and the source address of an Init may be a lie. So each Init
//! passes here first, as in WireGuard:
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
use crate::node::DropReason;
use crate::random::KeyRng;
use crate::time::Instant;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::address::{Prefix, canonical};
use crate::wire::packet::{COOKIE_LEN, INIT_HEADER_LEN, Kind, MAC_LEN, NOISE_1_OVERHEAD, Packet, TAG_LEN};

/// Inits with a right mac1 in one second, above which senders must prove their address. At 0.1 ms for a handshake
/// these are 5 % of a core on a server, and half of one on a computer of a tenth of its speed.
pub const LOADED_ABOVE: u32 = 500;
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
        true
    }
}
