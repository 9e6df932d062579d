//! The supernode's side of a dial-back: ordering one, and carrying one out.
//!
//! Both are limited, and the address dialled is never one that the requester names: it is the one that the supernode
//! asked sees its packets come from, passed on by that supernode; only the port may be another one, which the router at
//! that address maps to it. What a dishonest supernode can do with that is make others dial an address of its choice,
//! three Inits of 163 bytes a dial, twice and then once a minute each; what anybody else can do is make them dial the
//! host or router that its own packets come from.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use crate::account::{Rate, RateTable};
use crate::identity::PeerId;
use crate::overlay::advert::MembershipTable;
use crate::overlay::advert::shelf::id_prefix;
use crate::overlay::output::Output;
use crate::overlay::pack::send;
use crate::random::ChoiceRng;
use crate::time::Instant;
use crate::wire::address::{Prefix, canonical, is_sendable};
use crate::wire::message::{Message, Refusal};

/// One request in ten seconds, and one try more: a try that brought nothing is followed by a second.
const EACH: Rate = Rate { interval: Duration::from_secs(10), burst: 2 };
/// The dials of one address, by all who ask: 6 packets and 972 bytes in the first minute (threat D1: 10 and 1 024).
const EACH_ADDRESS: Rate = Rate { interval: Duration::from_secs(60), burst: 2 };
/// All requests and all orders together.
const ALL: Rate = Rate { interval: Duration::from_millis(50), burst: 40 };
/// Most requesters, and most target prefixes, whose rate is kept.
const SOURCES_MAX: usize = 4096;

/// Whom a request may be passed to.
pub(crate) struct OrderTo<'a> {
    /// Supernodes with links that are up.
    pub linked: &'a [PeerId],
    /// To draw one of them.
    pub choice: &'a mut ChoiceRng,
}

/// How much dialling a supernode still does for others: rates by requester, by supernode that orders, and by address.
pub(crate) struct DialBackOrders {
    requests: RateTable<PeerId>,
    /// By whom is dialled and by where: an order names both, and neither must become a flood.
    dials: RateTable<PeerId>,
    addresses: RateTable<SocketAddr>,
    prefixes: RateTable<Prefix>,
    /// By the prefix of whoever orders.
    orderers: RateTable<Prefix>,
}

impl DialBackOrders {
    /// Nobody has asked yet.
    pub(crate) fn new() -> Self {
        Self {
            requests: RateTable::new(EACH, ALL, SOURCES_MAX),
            dials: RateTable::new(EACH, ALL, SOURCES_MAX),
            addresses: RateTable::new(EACH_ADDRESS, ALL, SOURCES_MAX),
            prefixes: RateTable::new(Rate { interval: Duration::from_millis(500), burst: 20 }, ALL, SOURCES_MAX),
            orderers: RateTable::new(Rate { interval: Duration::from_secs(1), burst: 20 }, ALL, SOURCES_MAX),
        }
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.requests.handle_timeout(now);
        self.dials.handle_timeout(now);
        self.addresses.handle_timeout(now);
        self.prefixes.handle_timeout(now);
        self.orderers.handle_timeout(now);
    }

    /// `requester`, whose packets come from `seen_address` on a proven direct path, wants to be dialled by a
    /// supernode that it has not contacted, at the port that it is seen at or, if one is named, at that. It is told
    /// whether one was ordered to.
    #[expect(clippy::too_many_arguments, reason = "a message with whose it is, and what the overlay lends")]
    pub(crate) fn on_request(
        &mut self,
        now: Instant,
        requester: PeerId,
        seen_address: SocketAddr,
        nonce: [u8; 8],
        contacted: &[[u8; 4]],
        port: u16,
        to: OrderTo<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let mut refused = None;
        if self.requests.take(now, requester) {
            let fits = |peer: &&PeerId| **peer != requester && !contacted.contains(&id_prefix(peer));
            let fitting: Vec<&PeerId> = to.linked.iter().filter(fits).collect();
            match fitting.get(to.choice.below(fitting.len())) {
                Some(&&supernode) => {
                    let port = if port == 0 { seen_address.port() } else { port };
                    let address = SocketAddr::new(seen_address.ip(), port).into();
                    send(out, supernode, &Message::DialBackOrder { peer: requester, address, nonce });
                }
                None => refused = Some(Refusal::Unknown),
            }
        } else {
            refused = Some(Refusal::Busy);
        }
        send(out, requester, &Message::DialBackReply { nonce, refused });
    }

    /// A supernode passes a request on. `has_link` says whether there is a link to the peer: then its router lets us
    /// in anyway, and a dial would prove nothing.
    #[expect(clippy::too_many_arguments, reason = "a message with whose it is, and what the overlay lends")]
    pub(crate) fn on_order(
        &mut self,
        now: Instant,
        from: &PeerId,
        peer: PeerId,
        address: SocketAddr,
        nonce: [u8; 8],
        has_link: bool,
        members: &MembershipTable,
        out: &mut VecDeque<Output>,
    ) {
        let address = canonical(address);
        if !members.contains(from) || has_link || !is_sendable(address) {
            return;
        }
        let prefix = Prefix::of(address.ip());
        let is_exempt = Prefix::is_exempt(address.ip());
        let orderer = members.address(from).and_then(|at| Prefix::counted(at.ip()));
        let is_free = self.dials.allows(now, &peer)
            && self.addresses.allows(now, &address)
            && orderer.is_none_or(|orderer| self.orderers.allows(now, &orderer));
        if !is_free || (!is_exempt && !self.prefixes.allows(now, &prefix)) {
            return;
        }
        self.dials.charge(now, peer);
        self.addresses.charge(now, address);
        if !is_exempt {
            self.prefixes.charge(now, prefix);
        }
        if let Some(orderer) = orderer {
            self.orderers.charge(now, orderer);
        }
        out.push_back(Output::DialBack { peer, address, nonce });
    }
}
