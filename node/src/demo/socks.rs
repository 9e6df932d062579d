//! The header in front of each datagram between a leaf and its router: RFC 1928 §7, without the rest of SOCKS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) use handfast_io::internal::HEADER_LEN_MAX;

// Two reserved bytes, fragment number, address type, IPv6 address, port.
const _: () = assert!(HEADER_LEN_MAX == 4 + 16 + 2);

const ATYP_V4: u8 = 1;
const ATYP_V6: u8 = 4;

/// The far address and the payload behind the header; `None` for anything else, fragments and names included.
pub(super) fn decode(datagram: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&[_, _, fragment, kind], rest) = datagram.split_first_chunk()?;
    let (ip, rest): (IpAddr, _) = match kind {
        ATYP_V4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (Ipv4Addr::from(*ip).into(), rest))?,
        ATYP_V6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (Ipv6Addr::from(*ip).into(), rest))?,
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk()?;
    // RFC 1928 §7: who does not support fragments drops datagrams whose fragment number is not 0.
    (fragment == 0).then(|| (SocketAddr::new(ip, u16::from_be_bytes(*port)), payload))
}

/// The far address and the length of the header that names it.
pub(super) fn unwrap(datagram: &[u8]) -> Option<(SocketAddr, usize)> {
    decode(datagram).map(|(far, payload)| (far, datagram.len() - payload.len()))
}

/// Writes the header that names `far` to the front of `buf` and returns its length.
pub(super) fn encode(far: SocketAddr, buf: &mut [u8; HEADER_LEN_MAX]) -> usize {
    buf[..3].fill(0);
    let len = match far.ip() {
        IpAddr::V4(ip) => {
            buf[3] = ATYP_V4;
            buf[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            buf[3] = ATYP_V6;
            buf[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    buf[len..len + 2].copy_from_slice(&far.port().to_be_bytes());
    len + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        for far in ["192.0.2.1:7441", "[2001:db8::1]:65535"] {
            let far: SocketAddr = far.parse().unwrap();
            let mut header = [0xff; HEADER_LEN_MAX];
            let len = encode(far, &mut header);
            let datagram = [&header[..len], b"payload"].concat();
            assert_eq!(decode(&datagram), Some((far, &b"payload"[..])));
            for cut in 0..len {
                assert_eq!(decode(&datagram[..cut]), None);
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        let mut header = [0; HEADER_LEN_MAX];
        let len = encode("192.0.2.1:258".parse().unwrap(), &mut header);
        assert_eq!(header[..len], [0, 0, 0, 1, 192, 0, 2, 1, 1, 2]);
    }

    #[test]
    fn fragments_and_names_are_dropped() {
        assert_eq!(decode(&[0, 0, 1, 1, 127, 0, 0, 1, 0, 80, b'x']), None);
        assert_eq!(decode(&[0, 0, 0, 3, 1, b'x', 0, 80, b'x']), None);
        assert_eq!(decode(&[]), None);
    }
}
