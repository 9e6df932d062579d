//! Who may use what: the services of this node and whom they let in.
//!
//! Handed the application's offers, it answers for a peer whether anything is open to it at all, and for a stream
//! whether its service takes it. What already runs is not its business: a change of mind holds for what comes after.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::api::{Access, CommandError, StreamEnd};
use crate::identity::PeerId;
use crate::wire::ServiceName;

/// Most services. At the limit an offer is refused.
const SERVICES_MAX: usize = 1_024;

/// The services offered, and who may use each.
#[derive(Debug)]
pub(crate) struct Services {
    offered: BTreeMap<ServiceName, Access>,
    /// How many of them, and of the contacts, let everybody in.
    open: usize,
    /// How many let in each peer that they name, so that who knocks costs no look at every service.
    granted: BTreeMap<PeerId, usize>,
}

impl Services {
    /// As configured; `contacts` may link to this node where no service lets them in.
    pub(crate) fn new(offered: BTreeMap<ServiceName, Access>, contacts: &Access) -> Self {
        let mut services = Self { offered: BTreeMap::new(), open: 0, granted: BTreeMap::new() };
        for access in offered.values().chain([contacts]) {
            services.grant(access);
        }
        Self { offered, ..services }
    }

    /// Offers a service, or changes who may use it.
    pub(crate) fn offer(&mut self, service: ServiceName, access: Access) -> Result<(), CommandError> {
        if self.offered.len() >= SERVICES_MAX && !self.offered.contains_key(&service) {
            return Err(CommandError::Limit);
        }
        self.grant(&access);
        if let Some(former) = self.offered.insert(service, access) {
            self.revoke(&former);
        }
        Ok(())
    }

    /// Withdraws one.
    pub(crate) fn withdraw(&mut self, service: &ServiceName) {
        if let Some(former) = self.offered.remove(service) {
            self.revoke(&former);
        }
    }

    /// Whether anything at all is open to this peer.
    pub(crate) fn let_in(&self, id: &PeerId) -> bool {
        self.open > 0 || self.granted.contains_key(id)
    }

    /// Why this peer's stream to a service is refused, if it is.
    pub(super) fn refusal(&self, service: &ServiceName, id: &PeerId) -> Option<StreamEnd> {
        match self.offered.get(service) {
            None => Some(StreamEnd::UnknownService),
            Some(access) if !access.allows(id) => Some(StreamEnd::NotAllowed),
            Some(_) => None,
        }
    }

    fn grant(&mut self, access: &Access) {
        match access {
            Access::Any => self.open += 1,
            Access::Peers(peers) => peers.iter().for_each(|id| *self.granted.entry(*id).or_default() += 1),
        }
    }

    fn revoke(&mut self, access: &Access) {
        let Access::Peers(peers) = access else {
            self.open -= 1;
            return;
        };
        for id in peers {
            if let Entry::Occupied(mut grants) = self.granted.entry(*id) {
                *grants.get_mut() -= 1;
                if *grants.get() == 0 {
                    grants.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::identity::SecretKey;
    use crate::random::Seed;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).peer_id()
    }

    fn name(text: &str) -> ServiceName {
        text.parse().expect("a service name")
    }

    #[test]
    fn who_may_use_what() {
        let only = |n: &[u8]| Access::Peers(n.iter().map(|n| id(*n)).collect());
        let mut services = Services::new(BTreeMap::new(), &only(&[9]));
        // (peer, let in at all, answer of "a", answer of "b")
        let check = |services: &Services, table: &[(u8, bool, Option<StreamEnd>, Option<StreamEnd>)]| {
            for (n, let_in, a, b) in table {
                let answers = (services.refusal(&name("a"), &id(*n)), services.refusal(&name("b"), &id(*n)));
                assert_eq!((services.let_in(&id(*n)), answers.0, answers.1), (*let_in, *a, *b), "peer {n}");
            }
        };
        let unknown = Some(StreamEnd::UnknownService);
        check(&services, &[(1, false, unknown, unknown), (9, true, unknown, unknown)]);
        services.offer(name("a"), only(&[1])).expect("room");
        let not = Some(StreamEnd::NotAllowed);
        check(&services, &[(1, true, None, unknown), (2, false, not, unknown), (9, true, not, unknown)]);
        services.offer(name("b"), Access::Any).expect("room");
        check(&services, &[(1, true, None, None), (2, true, not, None)]);
        services.offer(name("b"), Access::Peers(BTreeSet::new())).expect("it is only narrowed");
        services.withdraw(&name("a"));
        check(&services, &[(1, false, unknown, not), (2, false, unknown, not)]);
    }

    #[test]
    fn there_is_an_end_to_services() {
        let mut services = Services::new(BTreeMap::new(), &Access::Any);
        for n in 0..SERVICES_MAX {
            services.offer(name(&format!("s{n}")), Access::Any).expect("room");
        }
        assert_eq!(services.offer(name("more"), Access::Any), Err(CommandError::Limit));
        services.offer(name("s0"), Access::Peers(BTreeSet::new())).expect("no further one");
        services.withdraw(&name("s1"));
        services.offer(name("more"), Access::Any).expect("room again");
    }

    #[test]
    fn who_is_let_in_is_who_some_service_allows() {
        let mut choices = Seed::new([7; 32]).choices("test");
        let mut below = |n| choices.below(n) as u8;
        let contacts = Access::Peers([id(0)].into());
        let mut model: BTreeMap<ServiceName, Access> = [(name("s0"), Access::Any)].into();
        let mut services = Services::new(model.clone(), &contacts);
        for _ in 0..2_000 {
            let service = name(&format!("s{}", below(6)));
            if below(2) == 0 {
                services.withdraw(&service);
                model.remove(&service);
            } else {
                let some = (0..6).filter(|_| below(4) == 0).map(id).collect();
                let access = if below(8) == 0 { Access::Any } else { Access::Peers(some) };
                services.offer(service, access.clone()).expect("room");
                model.insert(service, access);
            }
            for n in 0..6 {
                let allowed = model.values().chain([&contacts]).any(|access| access.allows(&id(n)));
                assert_eq!(services.let_in(&id(n)), allowed, "peer {n} of {model:?}");
            }
        }
        for service in model.keys() {
            services.withdraw(service);
        }
        assert_eq!((services.open, services.granted), (0, [(id(0), 1)].into()), "nothing is left of services gone");
    }
}
