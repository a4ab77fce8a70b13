//! Finished recordings of earlier processes: a folder as a store is read once, beside the start, so that the list has them.
//! Not here: looking one up when a message or a request names it ([`super::known`]).

use std::sync::Arc;

use object_store::ObjectStore;

use super::Pipeline;
use super::registry::ENDED_MAX;
use super::store::keys;
use super::store::manifest::State;
use super::store::objects::Objects;

impl Pipeline {
    /// Meets the finished recordings of the store, where that is a folder: a bucket is never listed.
    pub(super) async fn meet_finished(self: Arc<Self>) {
        if Objects::folder(&self.config.store).is_none() {
            return;
        }
        let listed = match self.objects.store.list_with_delimiter(None).await {
            Ok(listed) => listed.common_prefixes,
            Err(error) => return tracing::warn!(%error, "cannot list the recordings of the store"),
        };
        for folder in listed.into_iter().take(ENDED_MAX) {
            if self.stop.is_rung() {
                return;
            }
            // Anything that is no recording of ours is left alone without a word; `tilecast verify` tells of it.
            let Ok(Some(manifest)) = self.manifest_in(folder.as_ref()).await else { continue };
            if manifest.state == State::Finished && keys::recording(&manifest.recording_id) == folder.as_ref() {
                self.registry.note_ended(manifest);
            }
        }
    }
}
