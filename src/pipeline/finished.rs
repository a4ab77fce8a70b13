//! Finished recordings of earlier processes: a folder as a store is read once, beside the start, so that the list has them.
//! Not here: looking one up when a message or a request names it ([`super::known`]).

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path as Key;

use super::Pipeline;
use super::known::MANIFEST_BYTES_MAX;
use super::registry::ENDED_MAX;
use super::store::keys;
use super::store::manifest::{Manifest, State};
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
            let Some(manifest) = self.read_manifest(&folder).await else { continue };
            if manifest.state == State::Finished && keys::recording(&manifest.recording_id) == folder.to_string() {
                self.registry.note_ended(manifest);
            }
        }
    }

    async fn read_manifest(&self, folder: &Key) -> Option<Manifest> {
        let key = Key::parse(format!("{folder}/recording.json")).ok()?;
        let bytes = self.objects.get(&key, MANIFEST_BYTES_MAX).await.ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}
