//! What the process knows of its recordings: by the store where it has not met them, and as gauges.

use crate::metrics::Levels;

use super::Pipeline;
use super::store::keys;
use super::store::manifest::{Manifest, State};

/// A manifest in the store is read only up to this size.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// How often a recording that goes on after its end is looked for.
const CONTINUATIONS_MAX: u32 = 100;

impl Pipeline {
    /// The manifest that the store has of a recording.
    ///
    /// # Errors
    /// Of the store, or of the manifest's form.
    pub async fn stored_manifest(
        &self,
        id: &str,
    ) -> Result<Option<Manifest>, Box<dyn std::error::Error + Send + Sync>> {
        let Ok(key) = object_store::path::Path::parse(format!("{}/recording.json", keys::recording(id))) else {
            return Ok(None);
        };
        let Some(bytes) = self.objects.get(&key, MANIFEST_BYTES_MAX).await? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Learns what the store knows of a recording that this process does not: it was finished earlier, or its spool is
    /// lost. Either way it is never written to again; what comes opens `id~2`.
    pub async fn look_up(&self, id: &str) {
        for n in 1..=CONTINUATIONS_MAX {
            let name = if n == 1 { id.to_owned() } else { format!("{id}~{n}") };
            if self.registry.knows(&name) {
                continue;
            }
            match self.stored_manifest(&name).await {
                Ok(Some(manifest)) => self.registry.note_ended(manifest),
                Ok(None) => return,
                Err(error) => {
                    return tracing::warn!(recording = name, %error, "cannot look a recording up in the store");
                }
            }
        }
    }

    /// Gauges as of now.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels {
            lanes: self.lane_memory.lanes() as u64,
            budget_used: self.budget.used(),
            budget_capacity: self.budget.capacity(),
            spool_used: self.space.used(),
            spool_quota: self.space.quota(),
            spool_full: self.space.is_full(),
            ..Levels::default()
        };
        let (mut captures, mut pictures) = (0, 0);
        let mut states =
            [State::Live, State::Suspended, State::Finishing, State::Finished].map(|state| (state.name(), 0));
        for recording in self.registry.all() {
            levels.sockets += recording.now(false).sockets as u64;
            for (waiting, decoded) in recording.lanes().iter().map(|lane| lane.depths()) {
                captures += waiting as u64;
                pictures += decoded as u64;
            }
            if let Some(state) = states.iter_mut().find(|(name, _)| *name == recording.state().name()) {
                state.1 += 1;
            }
        }
        levels.queues = vec![
            ("captures", captures),
            ("pictures", pictures),
            ("ingest_ready", self.lists.ingest.len() as u64),
            ("encode_ready", self.lists.encode.len() as u64),
            ("sync", self.sync.len() as u64),
            ("assemble", self.assemble.len() as u64),
        ];
        levels.recordings = states.to_vec();
        levels
    }
}
