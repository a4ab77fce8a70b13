//! Two small objects by which any process finds a recording by its name alone, wherever its folder in the store is:
//! `_live/{tenant}/{recording}.json` from before its first object until it is finished, `_ended/{tenant}/{recording}.json`
//! from then on. Neither holds anything of a participant.

use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::media::Micros;

use super::Pipeline;
use super::known::{SAID_WITHIN, StoredError};
use super::state::RecordingState;
use super::store::keys::{ENDED, LIVE, Name};
use super::store::manifest::{SCHEMA, State};
use super::store::objects::{PutError, is_too_large};

/// An entry is read only up to this size: metadata may be some of it.
pub(super) const ENTRY_BYTES_MAX: u64 = 4 << 20;
/// A recording's writer says that it is there at least this often.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(60);

/// A recording that is not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveEntry {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The entry is written again this often, for as long as its writer lives.
    pub beat_every: Micros,
    /// Counts them, so that no two are alike.
    pub beat: u64,
    /// What a later process must know: folder, fixed settings, tick 0, bot. Of participants nothing.
    pub recording: RecordingState,
}

/// A recording that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedEntry {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Recall's id, with `~2` and up.
    pub recording_id: String,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Its writer's, as in `state.json`.
    pub mark: String,
    /// Its folder in the store.
    pub prefix: String,
    /// Finished or deleted.
    pub state: State,
}

impl LiveEntry {
    /// Whose it is.
    pub fn name(&self) -> Name {
        Name::new(self.recording.tenant.as_deref(), &self.recording.recording_id)
    }

    /// Its folder in the store.
    pub fn prefix(&self) -> &str {
        self.recording.prefix.as_deref().unwrap_or_default()
    }
}

/// How often the writer of a recording says that it is there: a few times within the grace.
pub fn beat_every(grace: Duration) -> Duration {
    (grace / 4).clamp(Duration::from_millis(1), BEAT_EVERY_MAX)
}

impl Pipeline {
    /// What `_live` says of a recording.
    ///
    /// # Errors
    /// Of the store, or of the entry's form.
    pub(super) async fn live_entry(&self, name: &Name) -> Result<Option<LiveEntry>, StoredError> {
        let entry: Option<LiveEntry> = self.entry(name, LIVE).await?;
        Ok(entry.filter(|entry| entry.name() == *name && !entry.prefix().is_empty()))
    }

    /// What `_ended` says of a recording.
    ///
    /// # Errors
    /// Of the store, or of the entry's form.
    pub(super) async fn ended_entry(&self, name: &Name) -> Result<Option<EndedEntry>, StoredError> {
        let entry: Option<EndedEntry> = self.entry(name, ENDED).await?;
        Ok(entry.filter(|entry| Name::new(entry.tenant.as_deref(), &entry.recording_id) == *name))
    }

    async fn entry<T: DeserializeOwned>(&self, name: &Name, list: &str) -> Result<Option<T>, StoredError> {
        self.read_json(&name.entry(list), ENTRY_BYTES_MAX).await
    }

    /// A small JSON object of the store.
    ///
    /// # Errors
    /// Of the store, or of the object's form.
    pub(super) async fn read_json<T: DeserializeOwned>(
        &self,
        key: &str,
        bytes_max: u64,
    ) -> Result<Option<T>, StoredError> {
        let Ok(key) = Key::parse(key) else { return Ok(None) };
        let said = tokio::time::timeout(SAID_WITHIN, self.objects.get(&key, bytes_max));
        match said.await.map_err(|_| StoredError::Silent)? {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StoredError::Unreadable { key: key.to_string(), error }),
            Err(error) if is_too_large(&error) => Err(StoredError::TooLarge { key: key.to_string(), error }),
            Err(error) => Err(StoredError::Store(error)),
        }
    }

    /// Writes that a recording is not ended, and who writes it.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn put_live(&self, state: &RecordingState, beat: u64) -> Result<(), PutError> {
        let recording =
            RecordingState { participants: Vec::new(), alone_since: None, books: Default::default(), ..state.clone() };
        let beat_every = beat_every(self.config.reconnect_grace).into();
        let entry = LiveEntry { schema: SCHEMA, beat_every, beat, recording };
        self.put_json(&entry.name().entry(LIVE), &entry).await
    }

    /// Writes that a recording is ended; then it is not among the others any more.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn put_ended(&self, entry: &EndedEntry) -> Result<(), PutError> {
        let name = Name::new(entry.tenant.as_deref(), &entry.recording_id);
        self.put_json(&name.entry(ENDED), entry).await?;
        self.remove_object(&name.entry(LIVE)).await
    }

    async fn put_json(&self, key: &str, value: &impl Serialize) -> Result<(), PutError> {
        let bytes = serde_json::to_vec_pretty(value).expect("an entry is plain data");
        let key = Key::parse(key).expect("keys are made of safe components");
        self.objects.put(&key, bytes).await
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn remove_object(&self, key: &str) -> Result<(), PutError> {
        let parsed = Key::parse(key).expect("keys are made of safe components");
        let failed = |source| PutError::Store { key: key.to_owned(), source };
        match tokio::time::timeout(SAID_WITHIN, self.objects.store.delete(&parsed)).await {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => {
                Err(failed(object_store::Error::Generic { store: "tilecast", source: Box::new(StoredError::Silent) }))
            }
        }
    }
}
