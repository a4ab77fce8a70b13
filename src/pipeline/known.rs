//! What the store knows of recordings that this process has not met.

use std::time::Duration;

use super::Pipeline;
use super::store::keys;
use super::store::manifest::Manifest;
use super::store::objects::is_too_large;

/// A manifest in the store is read only up to this size.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// How often a recording that goes on after its end is looked for.
const CONTINUATIONS_MAX: u32 = 100;
/// A store that says nothing for so long says nothing.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// Why the store's word on a recording is not known.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The store does not answer. Worth another try.
    #[error("{0}")]
    Store(object_store::Error),
    /// It does not answer in time.
    #[error("the store says nothing for {SAID_WITHIN:?}")]
    Silent,
    /// There is a manifest, and nobody can read it.
    #[error("recording.json: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// There is one, and it is too large to be one.
    #[error("recording.json: {0}")]
    TooLarge(object_store::Error),
    /// It goes on, and on.
    #[error("more than {CONTINUATIONS_MAX} recordings go on from each other")]
    TooMany,
}

impl Pipeline {
    /// The manifest that the store has of a recording.
    ///
    /// # Errors
    /// Of the store, or of the manifest's form.
    pub async fn stored_manifest(&self, id: &str) -> Result<Option<Manifest>, StoredError> {
        self.manifest_in(&keys::recording(id)).await
    }

    /// The manifest in a folder of the store.
    ///
    /// # Errors
    /// Of the store, or of the manifest's form.
    pub(super) async fn manifest_in(&self, folder: &str) -> Result<Option<Manifest>, StoredError> {
        let Ok(key) = object_store::path::Path::parse(format!("{folder}/recording.json")) else {
            return Ok(None);
        };
        let said = tokio::time::timeout(SAID_WITHIN, self.objects.get(&key, MANIFEST_BYTES_MAX));
        match said.await.map_err(|_| StoredError::Silent)? {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if is_too_large(&error) => Err(StoredError::TooLarge(error)),
            Err(error) => Err(StoredError::Store(error)),
        }
    }

    /// Learns what the store knows of a recording that this process does not: it was finished earlier, or its spool is
    /// lost. Either way it is never written to again; what comes opens `id~2`. That holds all the more where nobody can
    /// read what lies there.
    ///
    /// # Errors
    /// When the store does not say: then nobody knows whether there is something to be overwritten.
    pub async fn look_up(&self, id: &str) -> Result<(), StoredError> {
        for n in 1..=CONTINUATIONS_MAX {
            let name = if n == 1 { id.to_owned() } else { format!("{id}~{n}") };
            if self.registry.knows(&name) {
                continue;
            }
            match self.stored_manifest(&name).await {
                Ok(Some(manifest)) if manifest.recording_id == name => self.registry.note_ended(manifest),
                Ok(Some(other)) => {
                    tracing::error!(recording = name, of = other.recording_id, "left alone: a manifest of another one");
                    self.registry.note_unreadable(name);
                }
                Ok(None) => return Ok(()),
                Err(error @ (StoredError::Unreadable(_) | StoredError::TooLarge(_))) => {
                    tracing::error!(recording = name, %error, "left alone: nobody can read what the store has of it");
                    self.registry.note_unreadable(name);
                }
                Err(error) => {
                    tracing::warn!(recording = name, %error, "cannot look a recording up in the store");
                    return Err(error);
                }
            }
        }
        Err(StoredError::TooMany)
    }
}
