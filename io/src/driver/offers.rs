//! What is behind the services that this node offers: an address to connect to, or a program that takes the streams.
//!
//! Who may use a service is the core's business, and is asked first: only what it accepts stands here. A service has
//! one target at a time; a later offer takes its place. An offer has a number, so that an acceptor that is dropped late
//! does not withdraw its successor.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use handfast_core::ServiceName;

use super::command::Incoming;

/// Where the streams of a service go.
pub(super) enum Target {
    /// To a TCP connection each.
    Tcp(SocketAddr),
    /// To a program that holds the acceptor of this offer.
    Program { offer: u64, incoming: Incoming },
}

/// All of them.
#[derive(Default)]
pub(super) struct Offers {
    targets: BTreeMap<ServiceName, Target>,
    /// The number of the last one.
    last: u64,
}

impl Offers {
    /// Streams of the service go to TCP connections from now on.
    pub(super) fn expose(&mut self, service: ServiceName, target: SocketAddr) {
        self.targets.insert(service, Target::Tcp(target));
    }

    /// Streams of the service go to a program from now on. The number of this offer.
    pub(super) fn offer(&mut self, service: ServiceName, incoming: Incoming) -> u64 {
        self.last += 1;
        self.targets.insert(service, Target::Program { offer: self.last, incoming });
        self.last
    }

    /// Ends the offer, with a number only if that one still counts; whether the core is to be told.
    pub(super) fn withdraw(&mut self, service: &ServiceName, offer: Option<u64>) -> bool {
        let counts = match (self.targets.get(service), offer) {
            (_, None) => true,
            (Some(Target::Program { offer: current, .. }), Some(offer)) => *current == offer,
            (Some(Target::Tcp(_)) | None, Some(_)) => false,
        };
        if counts {
            self.targets.remove(service);
        }
        counts
    }

    /// What is behind a service.
    pub(super) fn target(&self, service: &ServiceName) -> Option<&Target> {
        self.targets.get(service)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn service() -> ServiceName {
        "web".parse().expect("a name")
    }

    #[test]
    fn an_old_acceptor_does_not_withdraw_what_took_its_place() {
        let mut offers = Offers::default();
        let first = offers.offer(service(), sync_channel(1).0);
        let second = offers.offer(service(), sync_channel(1).0);
        assert!(!offers.withdraw(&service(), Some(first)));
        assert!(matches!(offers.target(&service()), Some(Target::Program { offer, .. }) if *offer == second));
        offers.expose(service(), ([127, 0, 0, 1], 80).into());
        assert!(!offers.withdraw(&service(), Some(second)), "an address stands there now");
        assert!(offers.target(&service()).is_some());
    }

    #[test]
    fn without_a_number_it_ends_whatever_it_is_and_with_the_right_one_too() {
        let mut offers = Offers::default();
        offers.expose(service(), ([127, 0, 0, 1], 80).into());
        assert!(offers.withdraw(&service(), None));
        assert!(offers.target(&service()).is_none());
        assert!(offers.withdraw(&service(), None), "the core may know of one");
        let number = offers.offer(service(), sync_channel(1).0);
        assert!(offers.withdraw(&service(), Some(number)));
        assert!(!offers.withdraw(&service(), Some(number)));
    }
}
