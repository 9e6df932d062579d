//! What this node offers at the moment, each offer held by whoever made it: a command line flag or a local program's
//! connection. An offer ends when its [`Offer`] is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handfast_io::{Acceptor, Access, CommandError, Endpoint, ServiceName};

use crate::exit::{Exit, Failure};
use crate::report::ServiceReport;

/// The table of offers of one node.
pub(crate) struct Offers {
    endpoint: Endpoint,
    table: Mutex<BTreeMap<ServiceName, Entry>>,
}

struct Entry {
    target: Option<SocketAddr>,
    access: Access,
    acceptor: Option<Arc<Mutex<Acceptor>>>,
}

/// Holds an offer.
pub(crate) struct Offer {
    offers: Arc<Offers>,
    service: ServiceName,
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.offers.table().remove(&self.service);
        self.offers.endpoint.withdraw(&self.service);
    }
}

impl Offers {
    /// An empty table.
    pub(crate) fn new(endpoint: Endpoint) -> Arc<Self> {
        Arc::new(Self { endpoint, table: Mutex::default() })
    }

    /// Offers the program that listens at `target`.
    pub(crate) fn expose(
        self: &Arc<Self>,
        service: ServiceName,
        target: SocketAddr,
        access: Access,
    ) -> Result<Offer, Failure> {
        self.add(service, access, |access| self.endpoint.expose(service, target, access).map(|()| (Some(target), None)))
    }

    /// Offers a program that takes its streams with `ACCEPT`.
    pub(crate) fn register(self: &Arc<Self>, service: ServiceName, access: Access) -> Result<Offer, Failure> {
        self.add(service, access, |access| {
            self.endpoint.offer(service, access).map(|acceptor| (None, Some(Arc::new(Mutex::new(acceptor)))))
        })
    }

    fn add(
        self: &Arc<Self>,
        service: ServiceName,
        access: Access,
        offer: impl FnOnce(Access) -> Result<(Option<SocketAddr>, Option<Arc<Mutex<Acceptor>>>), CommandError>,
    ) -> Result<Offer, Failure> {
        let mut table = self.table();
        if table.contains_key(&service) {
            return Err(Failure::new(
                Exit::Failure,
                format!("this node offers \"{service}\" already"),
                "choose another name, or end the command that offers it",
            ));
        }
        let (target, acceptor) = offer(access.clone()).map_err(|error| match error {
            CommandError::Limit => Failure::new(Exit::Failure, "the node offers too many services", "end one first"),
            error => Failure::bare(Exit::Failure, format!("the node cannot offer \"{service}\": {error}")),
        })?;
        table.insert(service, Entry { target, access, acceptor });
        Ok(Offer { offers: Arc::clone(self), service })
    }

    /// Where the streams of a registered service come out.
    pub(crate) fn acceptor(&self, service: &ServiceName) -> Option<Arc<Mutex<Acceptor>>> {
        self.table().get(service)?.acceptor.clone()
    }

    /// All of them, for `status`.
    pub(crate) fn list(&self) -> Vec<ServiceReport> {
        let table = self.table();
        table
            .iter()
            .map(|(service, entry)| ServiceReport {
                name: service.to_string(),
                target: entry.target,
                allow: match &entry.access {
                    Access::Any => vec!["any".into()],
                    Access::Peers(peers) => peers.iter().map(ToString::to_string).collect(),
                },
            })
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Entry>> {
        // The table is whole after every statement, so a panic elsewhere does not make it wrong.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
