//! Text that can be shown to strangers: addresses and ids become numbered names, the same one each time.
//!
//! Ports stay, and whether an address is private does too: a diagnosis is about these. So do addresses that say
//! nothing, such as `0.0.0.0` and `127.0.0.1`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What is replaced so far, and by what.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(&mut self, kind: &str, what: String) -> String {
        let n = self.0.values().filter(|name| name.rsplit_once('-').is_some_and(|(of, _)| of == kind)).count() + 1;
        self.0.entry(what).or_insert_with(|| format!("{kind}-{n}")).clone()
    }

    fn ip(&mut self, ip: IpAddr) -> String {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_loopback() {
            return ip.to_string();
        }
        let is_private = match ip {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        let reach = if is_private { "private" } else { "public" };
        self.of(&format!("{reach}-{family}"), ip.to_string())
    }

    /// What stands for this word, if something does.
    fn word(&mut self, word: &str) -> Option<String> {
        if word.starts_with("hf1") || word.starts_with("hf:") {
            return Some(self.of("id", word.to_owned()));
        }
        if let Ok(at) = word.parse::<SocketAddr>() {
            let ip = self.ip(at.ip());
            // What still is an address is written as one.
            return Some(if ip.contains(':') { at.to_string() } else { format!("{ip}:{}", at.port()) });
        }
        word.parse().ok().map(|ip| self.ip(ip))
    }
}

/// The same text without any address or id.
pub(crate) fn redact(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".:[]%…".contains(c);
    let mut names = Names::default();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(from) = rest.find(is_part) {
        let (before, after) = rest.split_at(from);
        let len = after.find(|c| !is_part(c)).unwrap_or(after.len());
        let (word, next) = after.split_at(len);
        // A sentence may go on, or a list end, right behind an address.
        let ends = [word, word.trim_end_matches(['.', ':', ']']), word.trim_matches(['.', ':', '[', ']'])];
        let found = ends.into_iter().find_map(|end| Some((end, names.word(end)?)));
        out.push_str(before);
        match found {
            Some((end, name)) => {
                let at = word.find(end).unwrap_or(0);
                out.push_str(&word[..at]);
                out.push_str(&name);
                out.push_str(&word[at + end.len()..]);
            }
            None => out.push_str(word),
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ids_are_replaced_and_nothing_else() {
        let cases = [
            ("✓ IPv4 198.51.100.4 (3 witnesses agree)", "✓ IPv4 public-ipv4-1 (3 witnesses agree)"),
            ("mapped 198.51.100.4:7441, from 192.168.1.7.", "mapped public-ipv4-1:7441, from private-ipv4-1."),
            (
                "IPv6 2001:db8::7: open; [2001:db8::7]:5, fe80::1",
                "IPv6 public-ipv6-1: open; public-ipv6-1:5, private-ipv6-1",
            ),
            ("hf1qqqq@203.0.113.1:1 and hf1pppp, hf1qqqq", "id-1@public-ipv4-1:1 and id-2, id-1"),
            (
                r#"{"listen":["0.0.0.0:7441","[::]:7441"],"v":"0.1.0"}"#,
                r#"{"listen":["0.0.0.0:7441","[::]:7441"],"v":"0.1.0"}"#,
            ),
            ("ports within 1024-2047, 12:30 o'clock", "ports within 1024-2047, 12:30 o'clock"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
        }
    }
}
