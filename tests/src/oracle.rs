//! Which pairs must become direct, from RFC terms alone: no router is simulated here, and nothing of the core is used.
//!
//! Both sides know the other's external endpoint as a supernode saw it, and send there at once. Without prediction
//! and without birthday punching this decides the matter for every pair but those with an address-dependent mapping
//! on one side and any dependent one on the other: there it takes further rounds with peer-reflexive candidates,
//! which a node may or may not try.

use crate::nat::{Behavior, NatSpec};

/// What a pair of routers allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Direct.
    Direct,
    /// Never direct: it stays relayed.
    Relayed,
    /// Direct if peer-reflexive candidates are followed for more than one round.
    Either,
}

/// What two nodes behind these routers, with different external addresses, must reach.
pub fn expect(a: &NatSpec, b: &NatSpec) -> Expect {
    let independent = |spec: &NatSpec| spec.mapping == Behavior::EndpointIndependent;
    match (independent(a), independent(b)) {
        // RFC 5128 §3.3: both external endpoints are known beforehand, and each side's own datagram opens its filter
        // for exactly the other's endpoint.
        (true, true) => Expect::Direct,
        (true, false) => one_dependent(a),
        (false, true) => one_dependent(b),
        (false, false) => {
            let fully = |spec: &NatSpec| spec.mapping == Behavior::AddressAndPortDependent;
            // Each side's endpoint depends on the other's exact endpoint, so neither exists before the other.
            if fully(a) && fully(b) { Expect::Relayed } else { Expect::Either }
        }
    }
}

/// One side's endpoint toward the other is new and unknown; its datagrams come from there. They pass the independent
/// side's filter unless that asks for the exact port.
fn one_dependent(independent: &NatSpec) -> Expect {
    match independent.filtering {
        Behavior::EndpointIndependent | Behavior::AddressDependent => Expect::Direct,
        Behavior::AddressAndPortDependent => Expect::Relayed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_symmetric() {
        for m1 in Behavior::ALL {
            for f1 in Behavior::ALL {
                for m2 in Behavior::ALL {
                    for f2 in Behavior::ALL {
                        let (a, b) = (NatSpec::new(m1, f1), NatSpec::new(m2, f2));
                        assert_eq!(expect(&a, &b), expect(&b, &a));
                    }
                }
            }
        }
    }

    #[test]
    fn the_well_known_pairs() {
        use Behavior::*;
        let open = NatSpec::new(EndpointIndependent, EndpointIndependent);
        let home = NatSpec::port_restricted();
        let hard = NatSpec::fully_dependent();
        assert_eq!(expect(&home, &home), Expect::Direct);
        assert_eq!(expect(&open, &hard), Expect::Direct);
        assert_eq!(expect(&home, &hard), Expect::Relayed);
        assert_eq!(expect(&hard, &hard), Expect::Relayed);
    }
}
