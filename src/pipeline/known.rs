//! What the store knows of recordings that this process has not met.

use super::Pipeline;
use super::store::keys;
use super::store::manifest::Manifest;

/// A manifest in the store is read only up to this size.
pub(super) const MANIFEST_BYTES_MAX: u64 = 16 << 20;
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
}
