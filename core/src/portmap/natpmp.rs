//! NAT-PMP (RFC 6886): the bytes of its two requests and of their answers. UDP only, and big-endian, as the RFC has it.
//!
//! Every function is a check and a copy: requests come as arrays, answers as [`Answer`]s that say what the router said
//! and nothing more. Whether an answer was asked for is [`super::Mapper`]'s to know.

use core::net::Ipv4Addr;

/// RFC 6886 §3.2: the version that NAT-PMP has in its first byte. PCP, at the same port, has 2 there.
pub const VERSION: u8 = 0;
/// RFC 6886 §3.2.1.
const OP_ADDRESS: u8 = 0;
/// RFC 6886 §3.3: map a UDP port.
const OP_MAP_UDP: u8 = 1;
/// RFC 6886 §3.1: set in the opcode of what a router sends.
const RESPONSE: u8 = 128;
/// RFC 6886 §3.5: the version of the request is not spoken here.
pub const UNSUPPORTED_VERSION: u16 = 1;
/// RFC 6886 §3.5: the router has no address itself.
pub const NETWORK_FAILURE: u16 = 3;

/// The request for the external address (RFC 6886 §3.2).
pub const fn address_request() -> [u8; 2] {
    [VERSION, OP_ADDRESS]
}

/// The request to map a UDP port for so many seconds (RFC 6886 §3.3). `external` is a wish, 0 is none; a lifetime of 0
/// with the wish 0 ends the mapping (§3.4).
pub fn map_request(internal: u16, external: u16, lifetime_s: u32) -> [u8; 12] {
    let mut out = [0; 12];
    out[0] = VERSION;
    out[1] = OP_MAP_UDP;
    out[4..6].copy_from_slice(&internal.to_be_bytes());
    out[6..8].copy_from_slice(&external.to_be_bytes());
    out[8..].copy_from_slice(&lifetime_s.to_be_bytes());
    out
}

/// What a router says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Seconds since the router forgot all mappings, as it says.
    pub epoch_s: u32,
    /// About what.
    pub body: Body,
}

/// What an [`Answer`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// The external address: the answer to [`address_request`], or an announcement.
    Address(Ipv4Addr),
    /// A UDP port is mapped, or with a lifetime of 0 no more.
    Mapped {
        /// The port asked for.
        internal: u16,
        /// The port at the external address.
        external: u16,
        /// For how long, in seconds.
        lifetime_s: u32,
    },
    /// The router refuses the address request (false) or the map request (true), with a result code of RFC 6886 §3.5.
    Refused {
        /// Which request.
        map: bool,
        /// Never 0.
        code: u16,
    },
}

impl Answer {
    /// Reads an answer; `None` if it is none, or not one of these two.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let (&[version, op, c0, c1, e0, e1, e2, e3], rest) = data.split_first_chunk()?;
        let map = match op {
            _ if version != VERSION => return None,
            op if op == RESPONSE | OP_ADDRESS => false,
            op if op == RESPONSE | OP_MAP_UDP => true,
            _ => return None,
        };
        let body = match (u16::from_be_bytes([c0, c1]), map, rest) {
            // Behind a result code nothing counts; some routers end there, others fill up.
            (code @ 1.., ..) => Body::Refused { map, code },
            (0, false, &[a, b, c, d]) => Body::Address(Ipv4Addr::new(a, b, c, d)),
            (0, true, &[i0, i1, x0, x1, l0, l1, l2, l3]) => Body::Mapped {
                internal: u16::from_be_bytes([i0, i1]),
                external: u16::from_be_bytes([x0, x1]),
                lifetime_s: u32::from_be_bytes([l0, l1, l2, l3]),
            },
            _ => return None,
        };
        Some(Self { epoch_s: u32::from_be_bytes([e0, e1, e2, e3]), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_requests() {
        assert_eq!(address_request(), [0, 0]);
        assert_eq!(map_request(0x1234, 0x5678, 7_200), [0, 1, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1C, 0x20]);
        assert_eq!(map_request(4_660, 0, 0), [0, 1, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn golden_answers() {
        let address = [0, 128, 0, 0, 0, 0, 1, 2, 192, 0, 2, 7];
        let body = Body::Address(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(Answer::decode(&address), Some(Answer { epoch_s: 258, body }));
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1C, 0x20];
        let body = Body::Mapped { internal: 0x1234, external: 0x5678, lifetime_s: 7_200 };
        assert_eq!(Answer::decode(&mapped), Some(Answer { epoch_s: 9, body }));
        let refused = Some(Answer { epoch_s: 9, body: Body::Refused { map: true, code: 2 } });
        assert_eq!(Answer::decode(&[0, 129, 0, 2, 0, 0, 0, 9]), refused);
        assert_eq!(Answer::decode(&[0, 129, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]), refused);
    }

    #[test]
    fn what_is_no_answer_of_these_is_none() {
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1C, 0x20];
        for len in 0..mapped.len() {
            assert_eq!(Answer::decode(&mapped[..len]), None, "cut to {len}");
        }
        assert_eq!(Answer::decode(&[&mapped[..], &[0]].concat()), None, "longer");
        for (at, byte) in [(0, 1), (0, 2), (1, 1), (1, 130), (1, 0)] {
            let mut wrong = mapped;
            wrong[at] = byte;
            assert_eq!(Answer::decode(&wrong), None, "byte {at} is {byte}");
        }
        assert_eq!(Answer::decode(&map_request(1, 2, 3)), None, "a request is no answer");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(data: Vec<u8>) {
            if let Some(answer) = Answer::decode(&data) {
                prop_assert!(data.len() >= 8 && data[0] == VERSION && data[1] >= RESPONSE);
                prop_assert_eq!(data[4..8].to_vec(), answer.epoch_s.to_be_bytes());
            }
        }

        #[test]
        fn every_mapping_is_read_as_it_was_written(internal: u16, external: u16, lifetime_s: u32, epoch_s: u32) {
            let mut answer = vec![0, 129, 0, 0];
            answer.extend(epoch_s.to_be_bytes());
            answer.extend(&map_request(internal, external, lifetime_s)[4..]);
            let body = Body::Mapped { internal, external, lifetime_s };
            prop_assert_eq!(Answer::decode(&answer), Some(Answer { epoch_s, body }));
        }
    }
}
