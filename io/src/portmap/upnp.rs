//! UPnP-IGD, for port mapping: carries out [`UpnpOrder`]s on a thread of its own, because the crate that speaks it
//! waits.
//!
//! [`Upnp`] is handed orders and answers each once, by the function that it was made with ([`TellUpnp`]). Its thread
//! starts with the first order and ends when [`Upnp`] does; an order under way then is not waited for. A router that
//! was found is kept until it fails.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use handfast_core::portmap::{UpnpAnswer, UpnpOrder};
use igd_next::{
    AddAnyPortError, AddPortError, Gateway, GetExternalIpError, PortMappingProtocol, RequestError, SearchOptions,
    search_gateway,
};

/// How long to listen for a router; UPnP ones may take two seconds to answer, and are asked for a description then.
const SEARCH_MAX: Duration = Duration::from_secs(4);
/// What the mapping is called in the router's list.
const NAME: &str = "handfast";
/// UPnP's words for "there is no such number": a network failure or an answer that does not parse.
const NO_CODE: u16 = 0;
/// UPnP Device Architecture: action not authorized.
const NOT_AUTHORIZED: u16 = 606;
/// WANIPConnection: conflict in mapping entry.
const CONFLICT: u16 = 718;
/// WANIPConnection:2: no port maps available.
const NO_PORTS: u16 = 728;

/// Takes the answer to an order, and the own address that it was for.
pub(crate) type TellUpnp = Arc<dyn Fn(SocketAddr, UpnpAnswer) + Send + Sync>;

/// Reaches the thread.
pub(super) struct Upnp {
    tell: TellUpnp,
    orders: Option<Sender<UpnpOrder>>,
}

impl Upnp {
    pub(super) fn new(tell: TellUpnp) -> Self {
        Self { tell, orders: None }
    }

    /// Takes an order; the answer is told.
    pub(super) fn order(&mut self, order: UpnpOrder) {
        let orders = self.orders.get_or_insert_with(|| {
            let (orders, receiver) = channel();
            let tell = Arc::clone(&self.tell);
            let serve = move || serve(&receiver, &tell);
            if let Err(error) = std::thread::Builder::new().name("handfast-upnp".to_owned()).spawn(serve) {
                tracing::debug!(%error, "no thread for UPnP");
            }
            orders
        });
        // The thread could not start, or panicked over an answer.
        if orders.send(order).is_err() {
            (self.tell)(internal_of(&order).into(), UpnpAnswer::NoGateway);
        }
    }
}

fn internal_of(order: &UpnpOrder) -> SocketAddrV4 {
    match order {
        UpnpOrder::Map { internal, .. } | UpnpOrder::Unmap { internal, .. } => *internal,
    }
}

fn serve(orders: &Receiver<UpnpOrder>, tell: &TellUpnp) {
    let mut known: Option<(IpAddr, Gateway)> = None;
    while let Ok(order) = orders.recv() {
        let internal = internal_of(&order);
        let own = IpAddr::V4(*internal.ip());
        let kept = known.take().filter(|(ip, _)| *ip == own).map(|(_, gateway)| gateway);
        let answer = match order {
            UpnpOrder::Map { external_port, lifetime_s, .. } => {
                let ask = |gateway: Gateway| match map(&gateway, internal, external_port, lifetime_s) {
                    UpnpAnswer::NoGateway => None,
                    answer => Some((answer, gateway)),
                };
                // One that was found earlier may have gone, or have another port now: then it is sought again.
                match kept.and_then(ask).or_else(|| search(own).and_then(ask)) {
                    Some((answer, gateway)) => {
                        known = Some((own, gateway));
                        answer
                    }
                    None => UpnpAnswer::NoGateway,
                }
            }
            UpnpOrder::Unmap { external_port, .. } => {
                if let Some(gateway) = kept {
                    if let Err(error) = gateway.remove_port(PortMappingProtocol::UDP, external_port) {
                        tracing::debug!(%error, "the router keeps a mapping");
                    }
                    known = Some((own, gateway));
                }
                UpnpAnswer::Unmapped
            }
        };
        tell(internal.into(), answer);
    }
}

fn search(own: IpAddr) -> Option<Gateway> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(own, 0);
    options.timeout = Some(SEARCH_MAX);
    options.single_search_timeout = Some(SEARCH_MAX);
    match search_gateway(options) {
        Ok(gateway) => Some(gateway),
        Err(error) => {
            tracing::debug!(%error, "no UPnP router");
            None
        }
    }
}

fn map(gateway: &Gateway, internal: SocketAddrV4, external_port: u16, lifetime_s: u32) -> UpnpAnswer {
    let ip = match gateway.get_external_ip() {
        Ok(IpAddr::V4(ip)) => ip,
        Ok(IpAddr::V6(_)) => return UpnpAnswer::Refused(NO_CODE),
        Err(GetExternalIpError::ActionNotAuthorized) => return UpnpAnswer::Refused(NOT_AUTHORIZED),
        Err(GetExternalIpError::RequestError(error)) => return failed(&error),
    };
    let mapped = |port, lifetime_s| UpnpAnswer::Mapped { external: SocketAddrV4::new(ip, port), lifetime_s };
    let add = |port, lifetime_s| gateway.add_port(PortMappingProtocol::UDP, port, internal.into(), lifetime_s, NAME);
    match add(external_port, lifetime_s) {
        Ok(()) => mapped(external_port, lifetime_s),
        Err(AddPortError::OnlyPermanentLeasesSupported) => match add(external_port, 0) {
            Ok(()) => mapped(external_port, 0),
            Err(error) => refused(&error),
        },
        Err(AddPortError::SamePortValuesRequired) => match add(internal.port(), lifetime_s) {
            Ok(()) => mapped(internal.port(), lifetime_s),
            Err(error) => refused(&error),
        },
        // Somebody else's, or an older one of ours that says it is: another port will do.
        Err(AddPortError::PortInUse) => {
            match gateway.add_any_port(PortMappingProtocol::UDP, internal.into(), lifetime_s, NAME) {
                Ok(port) => mapped(port, lifetime_s),
                Err(AddAnyPortError::RequestError(error)) => failed(&error),
                Err(AddAnyPortError::ActionNotAuthorized) => UpnpAnswer::Refused(NOT_AUTHORIZED),
                Err(AddAnyPortError::NoPortsAvailable) => UpnpAnswer::Refused(NO_PORTS),
                Err(_) => UpnpAnswer::Refused(CONFLICT),
            }
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &AddPortError) -> UpnpAnswer {
    tracing::debug!(%error, "the UPnP router refuses");
    match error {
        AddPortError::ActionNotAuthorized => UpnpAnswer::Refused(NOT_AUTHORIZED),
        AddPortError::PortInUse => UpnpAnswer::Refused(CONFLICT),
        AddPortError::SamePortValuesRequired => UpnpAnswer::Refused(724),
        AddPortError::OnlyPermanentLeasesSupported => UpnpAnswer::Refused(725),
        AddPortError::RequestError(error) => failed(error),
        AddPortError::InternalPortZeroInvalid
        | AddPortError::ExternalPortZeroInvalid
        | AddPortError::DescriptionTooLong => UpnpAnswer::Refused(NO_CODE),
    }
}

/// A request that failed: with a code it is a refusal; if the router could not be asked, there is none.
fn failed(error: &RequestError) -> UpnpAnswer {
    tracing::debug!(%error, "a UPnP request failed");
    match error {
        RequestError::ErrorCode(code, _) => UpnpAnswer::Refused(*code),
        RequestError::UnsupportedAction(_) => UpnpAnswer::Refused(401),
        RequestError::InvalidResponse(_) => UpnpAnswer::Refused(NO_CODE),
        RequestError::AttoHttpError(_) | RequestError::IoError(_) => UpnpAnswer::NoGateway,
        #[allow(unreachable_patterns, reason = "other features of the crate have more")]
        _ => UpnpAnswer::NoGateway,
    }
}
