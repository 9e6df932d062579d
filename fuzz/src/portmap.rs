//! Targets for what routers say about port mapping.

use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

use handfast_core::portmap::{Mapper, PORT, UpnpAnswer, UpnpOrder, WISHES_MAX, Wish, natpmp, pcp};
use handfast_core::{Instant, SecretKey, SocketId};

use crate::bytes::{Bytes, ignore};

/// An answer of NAT-PMP: what decodes has its numbers where RFC 6886 puts them.
pub fn nat_pmp(data: &[u8]) {
    let Some(answer) = natpmp::Answer::decode(data) else { return };
    assert_eq!(data[4..8], answer.epoch_s.to_be_bytes());
    match answer.body {
        natpmp::Body::Address(ip) => assert_eq!(data[8..], ip.octets()),
        natpmp::Body::Mapped { internal, external, lifetime_s } => {
            assert_eq!(data[8..], natpmp::map_request(internal, external, lifetime_s)[4..]);
        }
        natpmp::Body::Refused { code, .. } => assert_eq!(data[2..4], code.to_be_bytes()),
    }
}

/// An answer of PCP: what decodes has its numbers where RFC 6887 puts them.
pub fn pcp(data: &[u8]) {
    let Some(answer) = pcp::Answer::decode(data) else { return };
    assert!(data.len() <= pcp::LEN_MAX && data[0] == answer.version && data[3] == answer.result);
    let pcp::Body::Map { nonce, internal, external } = answer.body else { return };
    let request = pcp::MapRequest {
        nonce,
        internal: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), internal),
        external,
        lifetime_s: answer.lifetime_s,
    };
    let bytes = request.encode();
    assert_eq!(data[24..37], bytes[24..37]);
    assert_eq!(data[40..44], bytes[40..44]);
    // Every IPv6 address is read as itself, and the mapped form as what it means.
    assert_eq!(data[44..60], bytes[44..60]);
    assert_eq!(data[4..8], bytes[4..8]);
}

/// A mapper and a router that says anything at any time: no panic, no deadline in the past, no flood, and an end.
pub fn mapper(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut mapper = Mapper::new(&SecretKey::from_bytes(&[7; 32]), [bytes.u8(); 32]);
    let gateway = SocketAddr::from(([192, 168, 1, 1], PORT));
    let wish = |n: u8| Wish {
        socket: SocketId(u32::from(n)),
        internal: if n % 4 == 3 {
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)], 4_000))
        } else {
            SocketAddr::from(([192, 168, 1, 2], 4_000 + u16::from(n % 4)))
        },
        gateway: (n % 5 != 4).then_some(gateway),
    };
    let mut now = Instant::from_micros(1);
    let mut sent = 0_u64;
    let mut heard = 0_u64;
    let mut request: Vec<u8> = Vec::new();
    mapper.handle_wishes(now, &[wish(0)]);
    while !bytes.is_empty() {
        heard += 1;
        match bytes.below(9) {
            0 => {
                let wishes: Vec<Wish> = (0..bytes.below(WISHES_MAX + 2)).map(|_| wish(bytes.u8())).collect();
                mapper.handle_wishes(now, &wishes);
            }
            1 => now = now + Duration::from_millis(bytes.u64() & 0xFF_FFFF),
            2 => mapper.handle_datagram(now, gateway, bytes.slice(80)),
            // An answer to what was asked, with some bytes other than they were.
            3 if !request.is_empty() => {
                let mut answer = request.clone();
                answer[1] |= 0x80;
                if answer[0] == 0 && answer.len() > 2 {
                    answer.splice(4..4, [0; 4]);
                } else if answer.len() == 2 {
                    answer.extend([0, 0, 0, 0, 0, 1, 203, 0, 113, 7]);
                }
                for _ in 0..bytes.below(4) {
                    let at = bytes.below(answer.len());
                    answer[at] = bytes.u8();
                }
                mapper.handle_datagram(now, gateway, &answer);
            }
            4 => mapper.handle_unreachable(now, gateway),
            5 => {
                let external = SocketAddrV4::new(Ipv4Addr::from(bytes.u64() as u32), bytes.u16());
                let answer = match bytes.below(4) {
                    0 => UpnpAnswer::Mapped { external, lifetime_s: bytes.u64() as u32 },
                    1 => UpnpAnswer::NoGateway,
                    2 => UpnpAnswer::Refused(bytes.u16()),
                    _ => UpnpAnswer::Unmapped,
                };
                mapper.handle_upnp(now, wish(bytes.u8()).internal, answer);
            }
            6 => mapper.handle_change(now),
            7 if bytes.u8() == 0 => mapper.release(now),
            _ => {
                if let Some(at) = mapper.poll_timeout() {
                    now = now.max(at);
                }
            }
        }
        mapper.handle_timeout(now);
        while let Some(transmit) = mapper.poll_transmit() {
            assert_eq!(transmit.to, gateway);
            request = transmit.data.to_vec();
            sent += 1;
        }
        while let Some(order) = mapper.poll_upnp() {
            let (UpnpOrder::Map { internal, .. } | UpnpOrder::Unmap { internal, .. }) = order;
            assert_eq!(*internal.ip(), Ipv4Addr::new(192, 168, 1, 2));
        }
        while let Some(event) = mapper.poll_event() {
            ignore(event);
        }
        assert!(mapper.poll_timeout().is_none_or(|at| at > now), "a deadline in the past");
        assert!(mapper.mappings().len() <= WISHES_MAX);
        ignore(mapper.report());
    }
    // Each thing that happens makes a lease send two datagrams at most, twice if it begins anew.
    assert!(sent <= (heard + 1) * 4 * WISHES_MAX as u64, "{sent} datagrams for {heard} operations");
    mapper.release(now);
    while let Some(at) = mapper.poll_timeout() {
        mapper.handle_timeout(at);
    }
    assert!(mapper.is_released());
}
