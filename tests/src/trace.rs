//! What happened, as one hash: a run with the same seed must give the same one, bit for bit.

use core::net::SocketAddr;

use handfast_core::Instant;

/// What a trace entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Entry {
    /// A node sent a datagram.
    Sent = 1,
    /// A datagram reached a node.
    Delivered = 2,
    /// A relay sent a datagram on.
    Forwarded = 3,
    /// A deadline fired.
    Timeout = 4,
    /// A node said something to its application; the bytes are the event's debug text.
    Event = 5,
    /// The script did something: a crash, a cut, a reboot.
    Script = 6,
}

/// The running hash over all entries.
pub struct Trace {
    hasher: blake3::Hasher,
    entries: u64,
    print: bool,
}

impl Default for Trace {
    fn default() -> Self {
        let print = std::env::var_os("HANDFAST_TRACE").is_some();
        Self { hasher: blake3::Hasher::new(), entries: 0, print }
    }
}

impl Trace {
    /// Adds one entry about a datagram.
    pub fn datagram(&mut self, now: Instant, entry: Entry, host: usize, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        if self.print {
            let kind = data.first().copied().unwrap_or(0);
            let inner = if kind == 5 { data.get(7).copied().unwrap_or(0) } else { 0 };
            eprintln!("{now:?} h{host} {entry:?} {from} -> {to} kind {kind}.{inner} len {}", data.len());
        }
        self.head(now, entry, host);
        let mut text = [0u8; 19 * 2];
        encode(from, &mut text[..19]);
        encode(to, &mut text[19..]);
        self.hasher.update(&text);
        self.bytes(data);
    }

    /// Adds one entry about something else.
    pub fn note(&mut self, now: Instant, entry: Entry, host: usize, text: &str) {
        if self.print {
            eprintln!("{now:?} h{host} {entry:?} {text}");
        }
        self.head(now, entry, host);
        self.bytes(text.as_bytes());
    }

    /// Adds that a deadline fired.
    pub fn timeout(&mut self, now: Instant, host: usize) {
        self.head(now, Entry::Timeout, host);
    }

    /// The hash so far.
    pub fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// How many entries it covers.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn head(&mut self, now: Instant, entry: Entry, host: usize) {
        self.entries += 1;
        self.hasher.update(&[entry as u8]);
        self.hasher.update(&now.as_micros().to_le_bytes());
        self.hasher.update(&(host as u64).to_le_bytes());
    }

    fn bytes(&mut self, data: &[u8]) {
        self.hasher.update(&(data.len() as u64).to_le_bytes());
        self.hasher.update(data);
    }
}

fn encode(addr: SocketAddr, out: &mut [u8]) {
    match addr.ip() {
        core::net::IpAddr::V4(ip) => {
            out[0] = 4;
            out[1..5].copy_from_slice(&ip.octets());
        }
        core::net::IpAddr::V6(ip) => {
            out[0] = 6;
            out[1..17].copy_from_slice(&ip.octets());
        }
    }
    out[17..19].copy_from_slice(&addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_entry_counts() {
        let a: SocketAddr = "1.2.3.4:5".parse().unwrap();
        let b: SocketAddr = "[2001:db8::1]:6".parse().unwrap();
        let hash = |us: u64, entry, host, from, to, data: &[u8]| {
            let mut trace = Trace::default();
            trace.datagram(Instant::from_micros(us), entry, host, from, to, data);
            trace.hash()
        };
        let base = hash(1, Entry::Sent, 0, a, b, b"x");
        assert_eq!(base, hash(1, Entry::Sent, 0, a, b, b"x"));
        for other in [
            hash(2, Entry::Sent, 0, a, b, b"x"),
            hash(1, Entry::Delivered, 0, a, b, b"x"),
            hash(1, Entry::Sent, 1, a, b, b"x"),
            hash(1, Entry::Sent, 0, b, a, b"x"),
            hash(1, Entry::Sent, 0, a, b, b"y"),
            hash(1, Entry::Sent, 0, a, b, b""),
        ] {
            assert_ne!(base, other);
        }
    }
}
