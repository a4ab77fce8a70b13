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
use super::known::StoredError;
use super::registry::ENDED_MAX;
use super::store::keys::{ENDED, Name};
use super::store::manifest::{Manifest, State};
use super::store::objects::RETRY_FIRST;

/// Reads at a time: the start is in no hurry.
const READS: usize = 8;

impl Pipeline {
    /// Meets the finished recordings of the store, be it away at the start.
    pub(super) async fn meet_finished(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let mut wait = RETRY_FIRST;
        for nth in 1_u64.. {
            let Err(error) = self.try_to_meet_finished().await else { return };
            if nth.is_power_of_two() && !self.objects.is_away() {
                tracing::warn!(%error, "cannot list the finished recordings of the store yet");
            }
            tokio::select! {
                () = self.objects.wait_again(&mut wait) => {}
                () = stop.wait() => return,
            }
        }
    }

    async fn try_to_meet_finished(&self) -> Result<(), StoredError> {
        let root = Key::from(ENDED);
        let mut listed = self.objects.store.list(Some(&root));
        let mut newest = BinaryHeap::new();
        while let Some(entry) = listed.next().await {
            let meta = entry.map_err(StoredError::Store)?;
            newest.push(Reverse((meta.last_modified, meta.location)));
            if newest.len() > ENDED_MAX {
                newest.pop();
            }
        }
        drop(listed);
        let oldest_first = newest.into_sorted_vec().into_iter().rev().map(|Reverse((_, key))| key);
        let mut read = stream::iter(oldest_first).map(|key| self.read_ended(key)).buffered(READS);
        while let Some(manifest) = read.next().await {
            if self.stop.is_rung() {
                break;
            }
            match manifest {
                Ok(manifest) => manifest.into_iter().for_each(|manifest| self.registry.note_ended(manifest)),
                // All once more when it is back: those that are known are noted once.
                Err(error) if self.objects.is_away() => return Err(error),
                Err(error) => tracing::warn!(%error, "left out of the list of finished recordings"),
            }
        }
        Ok(())
    }

    /// What does not read is left alone without a word: it is told when somebody asks for it.
    async fn read_ended(&self, key: Key) -> Result<Option<Manifest>, StoredError> {
        let entry: Option<EndedEntry> = said_or_none(self.read_json(key.as_ref(), ENTRY_BYTES_MAX).await)?;
        let Some(entry) = entry else { return Ok(None) };
        let name = Name::new(entry.tenant.as_deref(), &entry.recording_id);
        if entry.state == State::Deleted {
            self.registry.note_deleted(&name);
            return Ok(None);
        }
        let manifest = said_or_none(self.manifest_in(&entry.prefix).await)?;
        let manifest = manifest.filter(|manifest| manifest.name() == name);
        Ok(manifest.map(|manifest| Manifest { prefix: Some(entry.prefix), ..manifest }))
    }
}

/// Nothing, where what there is does not read.
fn said_or_none<T>(read: Result<Option<T>, StoredError>) -> Result<Option<T>, StoredError> {
    match read {
        Err(error) if error.is_unreadable() => Ok(None),
        read => read,
    }
}
