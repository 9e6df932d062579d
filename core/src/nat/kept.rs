//! What is kept of a router for the next run: a leaf that starts again in the same network does not examine it again.
//!
//! Only of a router that maps by endpoint, whose ports need not be foretold: of another one the last ports would be old.
//! That it still maps so shows as soon as two supernodes see this node; that it filters otherwise, when what should have
//! worked does not. Both have it [examined](super::Nat::on_disagreement), and so does every eighth start: routers are
//! replaced, and a clock that would tell how old this is may be wrong.

use super::classify::Findings;
use super::examiner::Known;
use crate::api::{BINDINGS_MAX, keep_of_network};
use crate::wire::nat::{FilteringBehavior, MappingBehavior, PortAssignment};

/// Starts in a network at which it is not examined, in a row.
const RECALLS_MAX: u32 = 7;

/// Of a router that was another one before: [`unpack`] makes nothing of it.
const NOTHING: u32 = u32::MAX;

/// Routers by network, the one used last at the end, each as [`pack`] has it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    routers: Vec<([u8; 8], u32)>,
}

impl Kept {
    pub(super) fn new(routers: &[([u8; 8], u32)]) -> Self {
        Self { routers: routers[routers.len().saturating_sub(BINDINGS_MAX)..].to_vec() }
    }

    /// What is known of this network's router, at one more start in it, and what is to be kept of that; nothing if it is
    /// to be examined.
    pub(super) fn at_start(&mut self, network: [u8; 8]) -> Option<(Known, u32)> {
        let (_, found) = self.routers.iter().find(|(other, _)| *other == network)?;
        let (known, starts) = unpack(*found)?;
        let found = pack(&known, starts + 1).filter(|_| starts < RECALLS_MAX)?;
        keep_of_network(&mut self.routers, network, found);
        Some((known, found))
    }

    /// It was examined. What is to be kept of that, if anything is; in the place of what was known before.
    pub(super) fn on_examined(&mut self, network: [u8; 8], known: &Known) -> Option<u32> {
        if known.at.is_none() || known.witnesses == 0 {
            // Nobody answered: this is what an earlier run found.
            return None;
        }
        let was_known = self.routers.iter().any(|(other, found)| *other == network && *found != NOTHING);
        let found = pack(known, 0).or_else(|| was_known.then_some(NOTHING))?;
        keep_of_network(&mut self.routers, network, found);
        Some(found)
    }
}

/// From the lowest bit: 3 of starts, 2 of filtering, 1 of ports, 2 each of pooled, translated and hairpinning, 4 of
/// witnesses. None of what is not to be kept.
fn pack(known: &Known, starts: u32) -> Option<u32> {
    let Findings { mapping, filtering, ports, pooled } = known.findings;
    if mapping != Some(MappingBehavior::EndpointIndependent) || known.v6.is_some() {
        return None;
    }
    let filtering = match filtering? {
        FilteringBehavior::EndpointIndependent => 0,
        FilteringBehavior::AddressDependent => 1,
        FilteringBehavior::AddressAndPortDependent => 2,
    };
    let ports = u32::from(ports == PortAssignment::Preserving);
    let witnesses = u32::try_from(known.witnesses).unwrap_or(u32::MAX).min(15);
    let [pooled, translated, hairpinning] = [pooled, known.translated, known.hairpinning].map(of_option);
    let fields =
        [(starts, 3), (filtering, 2), (ports, 1), (pooled, 2), (translated, 2), (hairpinning, 2), (witnesses, 4)];
    Some(fields.into_iter().rev().fold(0, |packed, (field, bits)| packed << bits | field))
}

/// The same, back, unless this is nothing that was packed.
fn unpack(mut packed: u32) -> Option<(Known, u32)> {
    let mut take = |bits: u32| {
        let field = packed & ((1 << bits) - 1);
        packed >>= bits;
        field
    };
    let starts = take(3);
    let filtering = match take(2) {
        0 => FilteringBehavior::EndpointIndependent,
        1 => FilteringBehavior::AddressDependent,
        2 => FilteringBehavior::AddressAndPortDependent,
        _ => return None,
    };
    let ports = if take(1) == 1 { PortAssignment::Preserving } else { PortAssignment::Unknown };
    let (pooled, translated, hairpinning) = (option_of(take(2)), option_of(take(2)), option_of(take(2)));
    let witnesses = usize::try_from(take(4)).ok()?;
    let mapping = Some(MappingBehavior::EndpointIndependent);
    let findings = Findings { mapping, filtering: Some(filtering), ports, pooled };
    let known = Known { findings, translated, hairpinning, seen: None, v6: None, witnesses, at: None };
    (packed == 0).then_some((known, starts))
}

fn of_option(value: Option<bool>) -> u32 {
    value.map_or(0, |value| 1 + u32::from(value))
}

fn option_of(field: u32) -> Option<bool> {
    [None, Some(false), Some(true)].get(field as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let findings = Findings {
            mapping: Some(MappingBehavior::EndpointIndependent),
            filtering: Some(FilteringBehavior::AddressAndPortDependent),
            ports: PortAssignment::Preserving,
            pooled: Some(true),
        };
        let (translated, hairpinning) = (Some(true), Some(false));
        Known {
            findings,
            translated,
            hairpinning,
            seen: None,
            v6: None,
            witnesses: 3,
            at: Some(crate::time::Instant::ZERO),
        }
    }

    #[test]
    fn what_was_found_is_known_for_seven_starts() {
        let mut kept = Kept::default();
        assert_eq!(kept.at_start([1; 8]), None);
        let mut found = kept.on_examined([1; 8], &known()).unwrap();
        for _ in 0..RECALLS_MAX {
            let mut next = Kept::new(&[([1; 8], found)]);
            assert_eq!(next.at_start([2; 8]), None, "another network");
            let (again, to_keep) = next.at_start([1; 8]).unwrap();
            assert_eq!(again, Known { at: None, ..known() });
            found = to_keep;
        }
        assert_eq!(Kept::new(&[([1; 8], found)]).at_start([1; 8]), None);
    }

    #[test]
    fn of_a_router_that_counts_ports_or_of_ipv6_nothing_is_kept() {
        let dependent = Findings { mapping: Some(MappingBehavior::AddressDependent), ..known().findings };
        let unclear = Findings { filtering: None, ..known().findings };
        for findings in [dependent, unclear] {
            let other = Known { findings, ..known() };
            assert_eq!(Kept::default().on_examined([1; 8], &other), None);
            // It was an easy one before.
            let mut kept = Kept::default();
            let found = kept.on_examined([1; 8], &known()).unwrap();
            assert_eq!(kept.on_examined([1; 8], &other), Some(NOTHING));
            assert_eq!((kept.at_start([1; 8]), unpack(NOTHING)), (None, None));
            assert_eq!(kept.on_examined([1; 8], &known()), Some(found));
        }
        let unanswered = Known { at: None, ..known() };
        assert_eq!(Kept::default().on_examined([1; 8], &unanswered), None, "of an earlier run");
    }

    #[test]
    fn any_number_is_something_that_was_packed_or_nothing() {
        for found in (0..1 << 17).chain([u32::MAX, 1 << 20]) {
            if let Some((known, starts)) = unpack(found) {
                let again = pack(&known, starts).unwrap();
                assert_eq!(unpack(again), Some((known, starts)));
            }
        }
    }
}
