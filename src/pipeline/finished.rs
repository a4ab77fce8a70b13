//! Finished recordings of earlier processes, beside the start, so that the list has them: by their entries in `_ended`, never
//! by a list of what else the store holds. One listing for a thousand recordings that ever ended, and two small reads for
//! each of the newest ten thousand.
//! Not here: looking one up when a message or a request names it ([`super::known`]).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use object_store::ObjectStore;
use object_store::path::Path as Key;

use super::Pipeline;
use super::entries::{ENTRY_BYTES_MAX, EndedEntry};
use super::registry::ENDED_MAX;
use super::store::keys::{ENDED, Name};
use super::store::manifest::{Manifest, State};

/// Reads at a time: the start is in no hurry.
const READS: usize = 8;

impl Pipeline {
    /// Meets the finished recordings of the store.
    pub(super) async fn meet_finished(self: Arc<Self>) {
        let root = Key::from(ENDED);
        let mut listed = self.objects.store.list(Some(&root));
        let mut newest = BinaryHeap::new();
        while let Some(entry) = listed.next().await {
            match entry {
                Ok(meta) => newest.push(Reverse((meta.last_modified, meta.location))),
                Err(error) => return tracing::warn!(%error, "cannot list the finished recordings of the store"),
            }
            if newest.len() > ENDED_MAX {
                newest.pop();
            }
        }
        drop(listed);
        let oldest_first = newest.into_sorted_vec().into_iter().rev().map(|Reverse((_, key))| key);
        let mut read = stream::iter(oldest_first).map(|key| self.read_ended(key)).buffered(READS);
        while let Some(manifest) = read.next().await {
            if self.stop.is_rung() {
                return;
            }
            manifest.into_iter().for_each(|manifest| self.registry.note_ended(manifest));
        }
    }

    /// What cannot be read is left alone without a word: it is told when somebody asks for it.
    async fn read_ended(&self, key: Key) -> Option<Manifest> {
        let entry: EndedEntry = self.read_json(key.as_ref(), ENTRY_BYTES_MAX).await.ok()??;
        let name = Name::new(entry.tenant.as_deref(), &entry.recording_id);
        if entry.state == State::Deleted {
            self.registry.note_deleted(&name);
            return None;
        }
        let manifest = self.manifest_in(&entry.prefix).await.ok()??;
        (manifest.name() == name).then_some(Manifest { prefix: Some(entry.prefix), ..manifest })
    }
}
