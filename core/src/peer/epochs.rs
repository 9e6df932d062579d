//! The keys of a link as they come and go.

use super::peers::Peers;
use super::state::OLD_EPOCH_AGE_MAX;
use crate::link::Epoch;
use crate::net::PeerKey;
use crate::time::Instant;

impl Peers {
    /// New keys come into use; the ones before are accepted for a while.
    pub(super) fn rotate_epoch(&mut self, now: Instant, key: PeerKey, epoch: Epoch) {
        let Some(peer) = self.table.get_mut(key) else { return };
        if let Some(old) = peer.old_epoch.take() {
            self.indices.free(old.0.local_index());
        }
        if let Some(mut old) = peer.epoch.take() {
            old.rest();
            peer.old_epoch = Some(Box::new((*old, now)));
        }
        peer.epoch = Some(Box::new(epoch));
        peer.epoch_since = now;
        peer.newest = 0;
        self.touch(key);
    }

    /// The link is another one from now on: its keys are void.
    pub(super) fn drop_epochs(&mut self, key: PeerKey) {
        let Some(peer) = self.table.get_mut(key) else { return };
        let epoch = peer.epoch.take().map(|epoch| epoch.local_index());
        let old = peer.old_epoch.take().map(|old| old.0.local_index());
        for index in epoch.into_iter().chain(old) {
            self.indices.free(index);
        }
    }

    /// Keys that were replaced long enough ago are void.
    pub(super) fn drop_old_epoch_if_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.table.get_mut(key) else { return };
        if peer.old_epoch.as_ref().is_some_and(|old| now.since(old.1) >= OLD_EPOCH_AGE_MAX)
            && let Some(old) = peer.old_epoch.take()
        {
            self.indices.free(old.0.local_index());
        }
    }
}
