//! Links as the rest of the node sees them: what they carry, whether they sleep, which path they use, how they end.

use core::net::SocketAddr;

use super::output::Output;
use super::peers::Peers;
use super::traffic::Traffic;
use super::ways::{Arrived, Chosen, Heard};
use crate::account::Account;
use crate::api::{Event, PathInfo};
use crate::identity::PeerId;
use crate::keepalive::Duty;
use crate::net::{DropReason, Path, PeerKey};
use crate::path::Route;
use crate::time::Instant;
use crate::wire::message::Message;

/// A peer that was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gone {
    /// Who it was.
    pub(crate) id: PeerId,
    /// Its link was up.
    pub(crate) was_up: bool,
    /// It was for the application.
    pub(crate) was_user: bool,
    /// A room needed it.
    pub(crate) was_wanted: bool,
}

/// See [`Peers::say_goodbye_by_all_relays`].
const GOODBYES: usize = 3;

impl Peers {
    // ---- user traffic ----

    /// A link carries user traffic from now on; if it slept, it wakes.
    pub(crate) fn make_user_link(&mut self, now: Instant, key: PeerKey) {
        let own_duty = self.own_duty();
        let Some(peer) = self.get_mut(key) else { return };
        let is_asleep = peer.is_asleep(now);
        peer.carry_traffic(now);
        peer.on_used(now);
        if matches!(peer.duty, Duty::None | Duty::Rest) {
            peer.duty = own_duty;
        }
        self.touch(key);
        if is_asleep {
            self.wake(now, key);
        }
    }

    /// The application uses a link that slept: its direct paths are asked first, and a new introduction is begun
    /// beside, with which checks start as on a first call. User bytes take whichever path shows itself first.
    fn wake(&mut self, now: Instant, key: PeerKey) {
        self.doubt_direct(key);
        let Some(peer) = self.get_mut(key) else { return };
        peer.on_woken(now);
        let id = peer.id;
        // A channel may stand although the peer is gone.
        self.want(Output::Challenge { peer: key, route: None });
        // Too many calls at once: the bytes go by relay, or when the failure detector revives the link.
        self.want(Output::Call { peer: id });
    }

    /// The peer wanted something on this route: while it does, the path is measured.
    pub(crate) fn on_lively(&mut self, now: Instant, key: PeerKey, route: &Route) {
        if self.get_mut(key).is_some_and(|peer| peer.on_lively(now, route)) {
            self.touch(key);
        }
    }

    // ---- what arrives ----

    /// A packet for a link came on this route: if the link slept, the peer found its direct paths doubtful, and so do
    /// we.
    pub(crate) fn wake_by_peer(&mut self, now: Instant, key: PeerKey, route: &Route) {
        self.touch(key);
        if !route.is_direct() && self.get(key).is_some_and(|peer| peer.is_asleep(now)) {
            self.doubt_direct(key);
        }
    }

    /// Something authentic came: it proves life, of the relay too that it came through. Whose it is, and whether a room
    /// hears of that one.
    pub(crate) fn on_authentic(
        &mut self,
        now: Instant,
        key: PeerKey,
        route: &Route,
        len: usize,
    ) -> Option<(PeerId, bool)> {
        let peer = self.get_mut(key)?;
        peer.on_authentic(now, route, len);
        let (id, is_watched) = (peer.id, peer.is_watched());
        if let Route::Relayed { via, .. } = *route {
            self.need(now, via);
        }
        Some((id, is_watched))
    }

    /// The way that it came: what that shows of the paths. `from`: the address, and how many bytes came from there.
    pub(crate) fn on_arrived(
        &mut self,
        now: Instant,
        account: &mut Account,
        key: PeerKey,
        arrived: &Arrived,
        from: Option<(SocketAddr, usize)>,
    ) -> Option<Heard> {
        let heard = self.get_mut(key)?.on_arrived(now, arrived)?;
        if let Some((remote, len)) = from.filter(|_| heard.unproven) {
            account.received(now, remote, len);
        }
        Some(heard)
    }

    /// A probe came, or an answer to one: authentic like everything on a link, but it says nothing of the link's paths,
    /// and its keys are in use, so nothing is confirmed by it. Whether this path is one of them, and proven.
    pub(crate) fn on_probe(
        &mut self,
        now: Instant,
        key: PeerKey,
        receiver: u32,
        path: Path,
        len: usize,
    ) -> Result<bool, DropReason> {
        let is_unconfirmed = self.is_unconfirmed(key, receiver);
        let peer = self.get_mut(key).filter(|p| p.is_up()).ok_or(DropReason::UnknownReceiver)?;
        if is_unconfirmed {
            return Err(DropReason::WrongPath);
        }
        let route = Route::from(path);
        peer.on_authentic(now, &route, len);
        let is_proven = peer.paths.is_proven(&route);
        self.touch(key);
        Ok(is_proven)
    }

    // ---- the path in use ----

    /// Chooses a link's path anew. If it is another one now, the application is told, and what waited for one goes.
    pub(crate) fn choose(&mut self, now: Instant, account: &mut Account, key: PeerKey) -> Option<Chosen> {
        let chosen = self.get_mut(key)?.choose(now)?;
        self.touch(key);
        chosen.new.and_then(|route| route.remote()).into_iter().for_each(|remote| account.proven(now, remote));
        self.announce(key);
        if chosen.is_first && self.is_up(key) {
            self.flush_waiting(key);
            self.send_waiting_pings(now, key);
        }
        Some(chosen)
    }

    /// Tells the application which path a user link uses now, unless it has been told.
    pub(crate) fn announce(&mut self, key: PeerKey) {
        let Some(route) = self.route_in_use(key) else { return };
        let Some(path) = self.path_info(&route) else { return };
        let Some(peer) = self.get_mut(key) else { return };
        let id = peer.id;
        if let Some(traffic) = peer.traffic.as_mut().filter(|traffic| traffic.announced != Some(route)) {
            traffic.announced = Some(route);
            self.want(Output::Event(Event::PathChanged { peer: id, path }));
        }
    }

    /// The application is told again which path it is.
    pub(crate) fn announce_again(&mut self, id: &PeerId) {
        if let Some(traffic) = self.key_of(id).and_then(|key| self.get_mut(key)?.traffic.as_mut()) {
            traffic.announced = None;
        }
    }

    /// Where the packets of a link that is up go.
    fn route_in_use(&self, key: PeerKey) -> Option<Route> {
        self.get(key).filter(|p| p.is_up())?.paths.current()
    }

    /// How a route is shown.
    pub(crate) fn path_info(&self, route: &Route) -> Option<PathInfo> {
        Some(match route {
            Route::Direct { remote, .. } => PathInfo::Direct { remote: *remote },
            Route::Relayed { via, .. } => PathInfo::Relay { via: self.get(*via)?.id },
        })
    }

    /// Those that have a path which `gone` names.
    pub(crate) fn with_paths(&self, gone: impl Fn(&Route) -> bool) -> Vec<PeerKey> {
        self.iter().filter(|(_, p)| p.paths.routes().any(|r| gone(&r))).map(|(key, _)| key).collect()
    }

    /// Whether a link has such a path.
    pub(crate) fn has_path(&self, key: PeerKey, is_meant: impl Fn(&Route) -> bool) -> bool {
        self.get(key).is_some_and(|peer| peer.paths.routes().any(|route| is_meant(&route)))
    }

    /// Removes such paths from one link. [`Self::choose`] is to be called after it.
    pub(crate) fn remove_paths(&mut self, key: PeerKey, gone: impl Fn(&Route) -> bool) {
        if let Some(peer) = self.get_mut(key) {
            peer.paths.remove(gone);
        }
    }

    /// This path carries no more: any other one is better. [`Self::choose`] is to be called after it.
    pub(crate) fn avoid(&mut self, key: PeerKey, route: &Route) {
        if let Some(peer) = self.get_mut(key) {
            peer.paths.set_worse(route, true);
        }
    }

    /// Whether a link that is used has no path at all.
    pub(crate) fn is_cut_off(&self, now: Instant, key: PeerKey) -> bool {
        self.get(key).is_some_and(|p| p.is_up() && p.paths.current().is_none() && !p.is_dormant(now))
    }

    /// A path that nothing has been heard on, so that it can be asked. Whether there is such a link.
    pub(crate) fn add_path(&mut self, now: Instant, key: PeerKey, route: Route) -> bool {
        let peer = self.get_mut(key);
        peer.map(|peer| peer.paths.add(now, route)).is_some()
    }

    /// A handshake that began at `since` over this TCP connection has succeeded.
    pub(crate) fn on_stand_in(&mut self, key: PeerKey, route: &Route, since: Instant) {
        if let Some(peer) = self.get_mut(key) {
            peer.paths.on_stand_in(route, since);
        }
    }

    // ---- ends ----

    /// The other side is new under the same key, or we are to it: nothing of the old link holds.
    pub(crate) fn on_replaced(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.get_mut(key) else { return };
        peer.paths.remove(|_| true);
        peer.detector.on_heard();
        if let Some(traffic) = &mut peer.traffic {
            **traffic = Traffic::new(now);
        }
        self.drop_epochs(key);
    }

    /// Whether a peer is not worth an entry: its link never came up, and nothing is under way.
    pub(crate) fn is_idle(&self, key: PeerKey) -> bool {
        self.get(key).is_some_and(|peer| !peer.is_up() && peer.is_at_rest())
    }

    /// Forgets a peer with its handshakes, but for how late its last Init was.
    pub(crate) fn forget(&mut self, key: PeerKey) -> Option<Gone> {
        self.drop_pending(key);
        let peer = self.remove(key)?;
        self.freshness.remember(peer.id, peer.last_init_us);
        Some(Gone { id: peer.id, was_up: peer.is_up(), was_user: peer.is_user(), was_wanted: peer.wanted })
    }

    /// Queues a goodbye on the path in use. It is sealed now: the keys will be gone when it is polled.
    pub(crate) fn say_goodbye(&mut self, now: Instant, key: PeerKey) {
        let Some(route) = self.route_in_use(key) else { return };
        self.send_sealed(now, key, route, &Message::Close);
    }

    /// The same on each relayed path, for a link that ends because the relay in use carries no more. Nobody answers it,
    /// and who misses it waits for minutes: it is said [`GOODBYES`] times.
    pub(crate) fn say_goodbye_by_all_relays(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.get(key).filter(|peer| peer.is_up()) else { return };
        let relayed: Vec<Route> = peer.paths.routes().filter(|route| !route.is_direct()).collect();
        for route in relayed.into_iter().flat_map(|route| [route; GOODBYES]) {
            self.send_sealed(now, key, route, &Message::Close);
        }
    }

    /// All, in the order of their goodbyes: user links first, since a relayed goodbye needs the link to the relay.
    pub(crate) fn in_order_of_leaving(&self) -> Vec<PeerKey> {
        let of = |is_user| self.iter().filter(move |(_, p)| p.is_user() == is_user).map(|(key, _)| key);
        of(true).chain(of(false)).collect()
    }
}
