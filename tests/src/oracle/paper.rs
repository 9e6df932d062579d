//! Punching on paper: two sides, each behind one router given by its rules, send to whatever endpoint they learn of
//! until nothing new is learned. No ports, no time, no loss: only who may know and reach what.
//!
//! An [`Endpoint`] is a side and the number of one of its bindings; number 0 is the one that supernodes saw. The other
//! side knows that one from the introduction, those that packets came from, and, where a router's next port can be
//! foreseen, all of that router's.

use std::collections::BTreeSet;

use crate::nat::{Behavior, FilterScope};

/// More endpoints than this means that each question makes another one, without end.
const BINDINGS_MAX: usize = 6;

/// What of a side's routers matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) mapping: Behavior,
    pub(super) filtering: Behavior,
    pub(super) scope: FilterScope,
    /// Each binding has an address that cannot be foreseen.
    pub(super) scattered: bool,
    /// The other side knows each binding as soon as it is made.
    pub(super) foreseen: bool,
}

/// One side's binding: side 0 or 1, and its number.
type Endpoint = (usize, usize);

/// Two endpoints are on the same address if these are equal.
type Address = (usize, Option<usize>);

/// What a binding was made for, and whom it has sent to.
#[derive(Clone, Debug, Default)]
struct Binding {
    made_for: Option<For>,
    sent_to: BTreeSet<Endpoint>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum For {
    Address(Address),
    Endpoint(Endpoint),
}

/// The sheet of paper.
struct Sheet {
    rules: [Rules; 2],
    bindings: [Vec<Binding>; 2],
    /// Endpoints of the other side that a side knows.
    known: [BTreeSet<Endpoint>; 2],
}

/// Whether the two sides end with a pair of endpoints that reach each other.
pub(super) fn meets(rules: [Rules; 2]) -> bool {
    let mut sheet = Sheet {
        rules,
        bindings: [vec![Binding::default()], vec![Binding::default()]],
        known: [BTreeSet::from([(1, 0)]), BTreeSet::from([(0, 0)])],
    };
    loop {
        let before = sheet.size();
        for side in 0..2 {
            for to in sheet.known[side].clone() {
                sheet.send(side, to);
            }
        }
        if sheet.has_met() {
            return true;
        }
        if sheet.size() == before || sheet.bindings.iter().any(|b| b.len() > BINDINGS_MAX) {
            return false;
        }
    }
}

impl Sheet {
    /// Grows with each round that brought anything.
    fn size(&self) -> usize {
        let sent = |b: &Vec<Binding>| b.iter().map(|b| 1 + b.sent_to.len()).sum::<usize>();
        self.bindings.iter().map(sent).sum::<usize>() + self.known.iter().map(BTreeSet::len).sum::<usize>()
    }

    fn address(&self, (side, number): Endpoint) -> Address {
        (side, self.rules[side].scattered.then_some(number))
    }

    /// RFC 4787 §4.1: which binding a packet to `to` takes.
    fn binding_for(&self, side: usize, to: Endpoint) -> Result<usize, For> {
        let wanted = match self.rules[side].mapping {
            Behavior::EndpointIndependent => return Ok(0),
            Behavior::AddressDependent => For::Address(self.address(to)),
            Behavior::AddressAndPortDependent => For::Endpoint(to),
        };
        self.bindings[side].iter().position(|b| b.made_for == Some(wanted)).ok_or(wanted)
    }

    fn send(&mut self, side: usize, to: Endpoint) {
        let number = self.binding_for(side, to).unwrap_or_else(|wanted| {
            self.bindings[side].push(Binding { made_for: Some(wanted), ..Binding::default() });
            self.bindings[side].len() - 1
        });
        self.bindings[side][number].sent_to.insert(to);
        let from = (side, number);
        if self.rules[side].foreseen || self.admits(to, from) {
            self.known[1 - side].insert(from);
        }
    }

    /// RFC 4787 §5: whether what `from` sends to `to` gets in.
    fn admits(&self, to: Endpoint, from: Endpoint) -> bool {
        let (side, number) = to;
        let rules = self.rules[side];
        let mine = self.bindings[side].iter().enumerate();
        let openers = mine.filter(|(n, _)| rules.scope == FilterScope::InternalEndpoint || *n == number);
        let mut sent_to = openers.flat_map(|(_, b)| &b.sent_to);
        match rules.filtering {
            // Binding 0 is open since it sent to supernodes; any other was made by sending.
            Behavior::EndpointIndependent => true,
            Behavior::AddressDependent => sent_to.any(|to| self.address(*to) == self.address(from)),
            Behavior::AddressAndPortDependent => sent_to.any(|to| *to == from),
        }
    }

    fn has_met(&self) -> bool {
        let numbers = |side: usize| 0..self.bindings[side].len();
        let meet = |a: Endpoint, b: Endpoint| {
            self.known[0].contains(&b)
                && self.known[1].contains(&a)
                && self.binding_for(0, b) == Ok(a.1)
                && self.binding_for(1, a) == Ok(b.1)
                && self.admits(b, a)
                && self.admits(a, b)
        };
        numbers(0).any(|a| numbers(1).any(|b| meet((0, a), (1, b))))
    }
}
