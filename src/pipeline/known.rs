//! What the store knows of recordings that this process has not met.

use std::time::Duration;

use super::Pipeline;
use super::entries::LiveEntry;
use super::store::keys::Name;
use super::store::manifest::{Manifest, State};

/// A manifest in the store is read only up to this size.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// How often a recording that goes on after its end is looked for.
const CONTINUATIONS_MAX: u32 = 100;
/// A store that says nothing for so long says nothing.
pub(super) const SAID_WITHIN: Duration = Duration::from_secs(10);

/// Why the store's word on a recording is not known.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The store does not answer. Worth another try.
    #[error("{0}")]
    Store(object_store::Error),
    /// It does not answer in time.
    #[error("the store says nothing for {SAID_WITHIN:?}")]
    Silent,
    /// There is something, and nobody can read it.
    #[error("{key}: {error}")]
    Unreadable {
        /// The object.
        key: String,
        /// The cause.
        error: serde_json::Error,
    },
    /// There is something, and it is too large.
    #[error("{key}: {error}")]
    TooLarge {
        /// The object.
        key: String,
        /// The cause.
        error: object_store::Error,
    },
    /// The spool does not take what the store has.
    #[error("cannot take it up from the store: {0}")]
    Spool(#[from] std::io::Error),
    /// What is asked for is for its writer to do.
    #[error("another process writes this recording: ask there, or when it is finished")]
    Elsewhere,
    /// It goes on, and on.
    #[error("more than {CONTINUATIONS_MAX} recordings go on from each other")]
    TooMany,
}

impl StoredError {
    /// Whether the store has something that will never read.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, StoredError::Unreadable { .. } | StoredError::TooLarge { .. })
    }
}

/// What the store has under a name.
#[derive(Debug)]
pub enum Stored {
    /// Nothing: the name is free.
    Nothing,
    /// A recording that is not ended.
    Live(Box<LiveEntry>),
    /// One that is, or that nobody takes up any more.
    Ended(Box<Manifest>),
    /// One that was deleted, from this folder.
    Deleted(String),
    /// Something that is not this recording.
    Other,
}

impl Pipeline {
    /// What the store has under a name. Costs three small requests where it is free.
    ///
    /// # Errors
    /// Of the store, or of an object's form.
    pub async fn stored(&self, name: &Name) -> Result<Stored, StoredError> {
        if let Some(entry) = self.ended_entry(name).await? {
            return match entry.state {
                State::Deleted => Ok(Stored::Deleted(entry.prefix)),
                _ => Ok(match self.manifest_in(&entry.prefix).await? {
                    Some(manifest) if manifest.name() == *name => {
                        Stored::Ended(Box::new(in_folder(manifest, entry.prefix)))
                    }
                    _ => Stored::Other,
                }),
            };
        }
        if let Some(entry) = self.live_entry(name).await? {
            return Ok(Stored::Live(Box::new(entry)));
        }
        // Without an entry: put there by hand, or taken away from the entries.
        let Some(folder) = self.prefix.by_name(name) else { return Ok(Stored::Nothing) };
        Ok(match self.manifest_in(&folder).await? {
            None => Stored::Nothing,
            Some(manifest) if manifest.name() == *name => Stored::Ended(Box::new(in_folder(manifest, folder))),
            Some(_) => Stored::Other,
        })
    }

    /// What is told of a recording, wherever it is; `None` where there is none.
    ///
    /// # Errors
    /// When the store does not say, or what it has does not read.
    pub async fn manifest_of(&self, name: &Name) -> Result<Option<Manifest>, StoredError> {
        if self.registry.is_deleted(name) {
            return Ok(None);
        }
        if let Some(recording) = self.registry.get(name) {
            return Ok(Some(recording.manifest()));
        }
        if let Some(manifest) = self.registry.ended_manifest(name) {
            return Ok(Some((*manifest).clone()));
        }
        match self.stored(name).await? {
            Stored::Ended(manifest) => {
                self.registry.note_ended((*manifest).clone());
                Ok(Some(*manifest))
            }
            Stored::Live(entry) => self.manifest_in(entry.prefix()).await,
            Stored::Nothing | Stored::Deleted(_) | Stored::Other => Ok(None),
        }
    }

    /// The folder in the store of a recording, wherever it is; `None` where there is none, or nothing was put yet.
    ///
    /// # Errors
    /// When the store does not say, or what it has does not read.
    pub async fn folder_of(&self, name: &Name) -> Result<Option<String>, StoredError> {
        match self.registry.get(name).filter(|recording| recording.state() != State::Deleted) {
            Some(recording) => Ok(recording.prefix()),
            None => match self.registry.ended_folder(name) {
                Some(folder) => Ok(Some(folder)),
                None => Ok(self.manifest_of(name).await?.map(|manifest| manifest.folder())),
            },
        }
    }

    /// The manifest in a folder of the store.
    ///
    /// # Errors
    /// Of the store, or of the manifest's form.
    pub(super) async fn manifest_in(&self, folder: &str) -> Result<Option<Manifest>, StoredError> {
        self.read_json(&format!("{folder}/recording.json"), MANIFEST_BYTES_MAX).await
    }

    /// Learns what the store knows of a recording that this process does not. One that is not ended, and whose spool is
    /// lost or elsewhere, is taken up from the store. One that is ended is never written to again; what comes opens `id~2`.
    /// That holds all the more where nobody can read what lies there.
    ///
    /// # Errors
    /// When the store does not say, or what it has cannot be taken up now.
    pub async fn look_up(self: &std::sync::Arc<Self>, asked: &Name) -> Result<(), StoredError> {
        for n in 1..=CONTINUATIONS_MAX {
            let name = asked.nth(n);
            if self.registry.knows(&name) {
                continue;
            }
            match self.learn(&name).await {
                Ok(Stored::Nothing) => return Ok(()),
                Ok(Stored::Live(entry)) => {
                    self.take_over(*entry).await?;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(recording = name.id, %error, "cannot look a recording up in the store");
                    return Err(error);
                }
            }
        }
        Err(StoredError::TooMany)
    }

    /// Asks the store for a name, and remembers what is there.
    ///
    /// # Errors
    /// When the store does not say.
    pub(super) async fn learn(&self, name: &Name) -> Result<Stored, StoredError> {
        let stored = match self.stored(name).await {
            Err(error) if error.is_unreadable() => {
                tracing::error!(recording = name.id, %error, "left alone: nobody can read what the store has of it");
                self.registry.note_unreadable(name.clone());
                return Ok(Stored::Other);
            }
            stored => stored?,
        };
        match &stored {
            Stored::Nothing | Stored::Live(_) => {}
            Stored::Ended(manifest) => self.registry.note_ended((**manifest).clone()),
            Stored::Deleted(_) => self.registry.note_deleted(name),
            Stored::Other => {
                tracing::error!(recording = name.id, "left alone: the store has something else under its name");
                self.registry.note_unreadable(name.clone());
            }
        }
        Ok(stored)
    }
}

/// A manifest says where it lies; one that was moved lies where it was found.
fn in_folder(manifest: Manifest, folder: String) -> Manifest {
    Manifest { prefix: Some(folder), ..manifest }
}
