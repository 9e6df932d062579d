//! PCP, the Port Control Protocol (RFC 6887): the bytes of a MAP request for UDP, of its answer, and of an ANNOUNCE.
//!
//! Of PCP this is what a host needs for itself: no THIRD_PARTY, no PEER, no options. For IPv4 a MAP is a port of the
//! router's address, for IPv6 a hole in its firewall; the bytes are the same, IPv4 addresses are written v4-mapped.
//! Every function is a check and a copy, as in [`super::natpmp`].

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The version spoken here (RFC 6887 §7).
pub const VERSION: u8 = 2;
/// RFC 6887 §7.4: result codes used here.
pub const UNSUPP_VERSION: u8 = 1;
/// No PCP message is longer (RFC 6887 §7).
pub const LEN_MAX: usize = 1_100;
/// Length of a MAP request, and of its answer without options.
pub const MAP_LEN: usize = HEADER_LEN + 36;

const HEADER_LEN: usize = 24;
/// RFC 6887 §7.1: set beside the opcode in what a server sends.
const RESPONSE: u8 = 0x80;
const OP_ANNOUNCE: u8 = 0;
const OP_MAP: u8 = 1;
/// IANA's number of UDP.
const UDP: u8 = 17;

/// Ties answers, renewals and the release to one mapping (RFC 6887 §11.1).
pub type Nonce = [u8; 12];

/// A MAP request for UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRequest {
    /// The mapping's nonce.
    pub nonce: Nonce,
    /// Own address, from which the request is sent, and own port.
    pub internal: SocketAddr,
    /// The external address and port wished for; unspecified and 0 are no wish.
    pub external: SocketAddr,
    /// For how long, in seconds; 0 ends the mapping.
    pub lifetime_s: u32,
}

impl MapRequest {
    /// The bytes (RFC 6887 §7.1 and §11.1).
    pub fn encode(&self) -> [u8; MAP_LEN] {
        let mut out = [0; MAP_LEN];
        out[0] = VERSION;
        out[1] = OP_MAP;
        out[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
        out[8..24].copy_from_slice(&octets(self.internal.ip()));
        out[24..36].copy_from_slice(&self.nonce);
        out[36] = UDP;
        out[40..42].copy_from_slice(&self.internal.port().to_be_bytes());
        out[42..44].copy_from_slice(&self.external.port().to_be_bytes());
        out[44..60].copy_from_slice(&octets(self.external.ip()));
        out
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What a server says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The version it was said in.
    pub version: u8,
    /// 0 is success; others are of RFC 6887 §7.4.
    pub result: u8,
    /// Of a success: how long the mapping lives. Of an error: how long it will not change. Seconds.
    pub lifetime_s: u32,
    /// Seconds since the server forgot all mappings, as it says (RFC 6887 §8.5).
    pub epoch_s: u32,
    /// About what.
    pub body: Body,
}

/// What an [`Answer`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// The server is there: the answer to an ANNOUNCE, or unasked after it lost its state (RFC 6887 §14.1).
    Announce,
    /// A mapping of a UDP port.
    Map {
        /// The request's.
        nonce: Nonce,
        /// The port asked for.
        internal: u16,
        /// The address and port at which it is mapped. Of an error: the wish.
        external: SocketAddr,
    },
    /// An error too short to say what it is about: a server of another version.
    Bare,
}

impl Answer {
    /// Reads an answer; `None` if it is none, or about what is never asked here.
    pub fn decode(data: &[u8]) -> Option<Self> {
        if data.len() > LEN_MAX {
            return None;
        }
        // RFC 6887 §9: the first four bytes are the same in every version, PCP 0 (NAT-PMP) included.
        let (&[version, op, _, result], _) = data.split_first_chunk()?;
        let bare = |lifetime_s| Self { version, result, lifetime_s, epoch_s: 0, body: Body::Bare };
        if version != VERSION {
            return (op & RESPONSE != 0 && version != 0 && result == UNSUPP_VERSION).then(|| bare(0));
        }
        // RFC 6887 §8.3: a length that is no multiple of four is invalid.
        if op & RESPONSE == 0 || !data.len().is_multiple_of(4) {
            return None;
        }
        let (header, rest) = data.split_first_chunk::<HEADER_LEN>()?;
        let lifetime_s = u32_at(header, 4);
        let body = match op & !RESPONSE {
            OP_ANNOUNCE => Body::Announce,
            OP_MAP => match rest.first_chunk() {
                Some(map) => decode_map(map)?,
                None if result != 0 => Body::Bare,
                None => return None,
            },
            _ => return None,
        };
        Some(Self { version, result, lifetime_s, epoch_s: u32_at(header, 8), body })
    }
}

/// Options may follow; they change nothing that was asked for without any.
fn decode_map(map: &[u8; MAP_LEN - HEADER_LEN]) -> Option<Body> {
    let (nonce, rest) = map.split_first_chunk::<12>()?;
    let (&[protocol, _, _, _, i0, i1, x0, x1], ip) = rest.split_first_chunk()?;
    let ip = Ipv6Addr::from(*ip.first_chunk::<16>()?).to_canonical();
    (protocol == UDP).then_some(Body::Map {
        nonce: *nonce,
        internal: u16::from_be_bytes([i0, i1]),
        external: SocketAddr::new(ip, u16::from_be_bytes([x0, x1])),
    })
}

fn u32_at(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(*bytes.expect("both places lie inside the header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> MapRequest {
        MapRequest {
            nonce: *b"twelve bytes",
            internal: "192.168.1.2:4660".parse().expect("an address"),
            external: "203.0.113.9:22136".parse().expect("an address"),
            lifetime_s: 7_200,
        }
    }

    /// What a server makes of a request: the same with its own header.
    fn granted(request: &MapRequest, result: u8, epoch_s: u32) -> Vec<u8> {
        let mut answer = request.encode().to_vec();
        answer[1] |= RESPONSE;
        answer[3] = result;
        answer[8..12].copy_from_slice(&epoch_s.to_be_bytes());
        answer[12..24].fill(0);
        answer
    }

    #[test]
    fn golden_request() {
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x1C, 0x20];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 168, 1, 2]);
        expected.extend(b"twelve bytes");
        expected.extend([17, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 203, 0, 113, 9]);
        assert_eq!(request().encode().to_vec(), expected);
    }

    #[test]
    fn golden_answers() {
        let request = request();
        let body = Body::Map { nonce: request.nonce, internal: 4_660, external: request.external };
        let answer = Answer { version: 2, result: 0, lifetime_s: 7_200, epoch_s: 77, body };
        assert_eq!(Answer::decode(&granted(&request, 0, 77)), Some(answer));
        assert_eq!(Answer::decode(&granted(&request, 2, 77)), Some(Answer { result: 2, ..answer }));
        let mut announce = vec![2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        announce.resize(24, 0);
        let body = Body::Announce;
        let answer = Answer { version: 2, result: 0, lifetime_s: 0, epoch_s: 5, body };
        assert_eq!(Answer::decode(&announce), Some(answer));
    }

    #[test]
    fn servers_of_other_versions_are_understood() {
        let bare = |version| Answer { version, result: 1, lifetime_s: 0, epoch_s: 0, body: Body::Bare };
        assert_eq!(Answer::decode(&[1, 0x81, 0, 1, 0, 0, 0, 0]), Some(bare(1)));
        assert_eq!(Answer::decode(&[3, 0x81, 0, 1]), Some(bare(3)));
        assert_eq!(Answer::decode(&[3, 0x81, 0, 0]), None, "a success in a language that was not asked for");
        assert_eq!(Answer::decode(&[0, 0x81, 0, 1, 0, 0, 0, 0]), None, "NAT-PMP is read by its own room");
        // miniupnpd answers a NAT-PMP request without NAT-PMP in 24 bytes of version 2.
        let mut short = vec![2, 0x81, 0, 1];
        short.resize(24, 0);
        assert_eq!(Answer::decode(&short), Some(bare(2)));
    }

    #[test]
    fn what_is_no_answer_of_these_is_none() {
        let good = granted(&request(), 0, 77);
        for len in 0..good.len() {
            assert_eq!(Answer::decode(&good[..len]), None, "cut to {len}");
        }
        let with_option = [&good[..], &[0; 8]].concat();
        assert!(Answer::decode(&with_option).is_some(), "options are skipped");
        assert_eq!(Answer::decode(&[&good[..], &[0; 3]].concat()), None);
        assert_eq!(Answer::decode(&[&good[..], &[0; LEN_MAX]].concat()), None);
        for (at, byte) in [(0, 0), (0, 3), (1, 1), (1, 0x82), (36, 6)] {
            let mut wrong = good.clone();
            wrong[at] = byte;
            assert_eq!(Answer::decode(&wrong), None, "byte {at} is {byte}");
        }
        assert_eq!(Answer::decode(&request().encode()), None, "a request is no answer");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(data: Vec<u8>) {
            let _ = Answer::decode(&data);
        }

        #[test]
        fn every_mapping_is_read_as_it_was_written(
            nonce: [u8; 12], internal: u16, ip: [u8; 16], port: u16, lifetime_s: u32, epoch_s: u32, result: u8,
        ) {
            let internal = SocketAddr::new([10, 0, 0, 1].into(), internal);
            let external = SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port);
            let request = MapRequest { nonce, internal, external, lifetime_s };
            let body = Body::Map { nonce, internal: internal.port(), external };
            let answer = Answer { version: 2, result, lifetime_s, epoch_s, body };
            prop_assert_eq!(Answer::decode(&granted(&request, result, epoch_s)), Some(answer));
        }
    }
}
