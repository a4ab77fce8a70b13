//! Deleting a recording everywhere: its lanes stop, its uploads end, its spool is emptied, and everything under the folder
//! where it was written goes from the store. What is left is `deleted.json`, which names nobody.
//!
//! That it is to be deleted is in the spool before anybody hears of it, and goes last: a process that dies in the middle
//! goes on with it at its next start.

mod track;

pub(super) use track::TrackErasure;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Mutex, RwLock};

use super::Pipeline;
use super::entries::EndedEntry;
use super::known::{SAID_WITHIN, Stored, StoredError};
use crate::clock::rfc3339;

use super::recording::Recording;
use super::registry::folder_of;
use super::store::keys::Name;
use super::store::manifest::{Manifest, SCHEMA, State};
use super::store::objects::{Objects, PutError, RECORD, RETRY_FIRST};
use super::store::space::if_there;
use super::store::spool::write_whole;

/// Where the spool keeps what is to be deleted.
const ERASING: &str = ".erasing";
/// What is left of a recording.
pub const DELETED: &str = "deleted.json";
/// Objects that are deleted at a time.
const DELETES: usize = 8;

/// Who deletes after whom.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Deleting recordings, and one at a time what makes others say less: nothing is written to one that is deleted.
    books: RwLock<()>,
    /// Keeping what is to be deleted: two who ask for the same at once begin it once.
    asked: Mutex<()>,
}

/// A recording or a track that is to be deleted: a file in [`ERASING`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Erasure {
    schema: u32,
    recording_id: String,
    tenant: Option<String>,
    /// Its folder in the store, where it got that far.
    prefix: Option<String>,
    /// Its folder in the spool.
    spool: String,
    /// The track, where it is not the recording.
    #[serde(default)]
    track: Option<TrackErasure>,
    /// What others are told of it once it is gone.
    #[serde(default, deserialize_with = "if_it_reads", skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
}

/// A manifest; nothing where it is one of another version, which must not keep the recording.
fn if_it_reads<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Manifest>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).ok())
}

impl Erasure {
    /// Whose recording it is.
    pub fn name(&self) -> Name {
        Name::new(self.tenant.as_deref(), &self.recording_id)
    }

    /// The recording's folder in the spool, which a start does not take up where all of it is to be deleted.
    pub fn spool(&self) -> &str {
        &self.spool
    }

    /// The track, where it is not the recording.
    pub(super) fn track(&self) -> Option<&TrackErasure> {
        self.track.as_ref()
    }
}

/// Why a recording is not deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum EraseError {
    #[error("{0}")]
    Store(#[from] object_store::Error),
    #[error("the store says nothing for {SAID_WITHIN:?}")]
    Silent,
    #[error(transparent)]
    Put(#[from] PutError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("the spool: {0}")]
    Spool(#[from] io::Error),
}

/// Whether an object under a recording's folder is the recording's: another one may lie in a folder below, by another
/// wording of the prefix.
fn is_ours(tail: &str) -> bool {
    match tail.split_once('/') {
        None => tail != DELETED,
        Some((folder, _)) => {
            folder.ends_with("-webcam") || folder.ends_with("-screenshare") || folder.ends_with("-audio")
        }
    }
}

/// What tells of uploads that are under way, in a recording's folder of the spool and those of its tracks.
fn records(spool: &Path) -> Vec<PathBuf> {
    let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let (tracks, own): (Vec<_>, Vec<_>) = files(spool).partition(|path| path.is_dir());
    let all = own.into_iter().chain(tracks.iter().flat_map(|track| files(track).collect::<Vec<_>>()));
    all.filter(|path| path.extension().is_some_and(|extension| extension == RECORD)).collect()
}

/// Removes from a folder of a store what no listing tells of: what a death in the middle of a put left, and empty folders.
fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))?;
        match path.is_dir() {
            true if is_ours(&format!("{name}/")) => std::fs::remove_dir_all(&path)?,
            false if is_ours(&name) => std::fs::remove_file(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// What the spool has of recordings that are to be deleted.
pub(super) fn erasures(spool: &Path) -> Vec<Erasure> {
    let files = std::fs::read_dir(spool.join(ERASING)).into_iter().flatten().flatten();
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    files.filter_map(|entry| read(entry.path())).collect()
}

impl Pipeline {
    /// Deletes a recording. Returns once that is sure to happen; `false` where there is no such recording.
    ///
    /// # Errors
    /// When the store does not say what it has, another process writes it, or the spool does not keep that it is to be deleted.
    pub async fn erase(self: &Arc<Self>, name: &Name) -> Result<bool, StoredError> {
        if self.registry.is_deleted(name) {
            return Ok(true);
        }
        let (prefix, spool) = match self.registry.get(name) {
            // Nobody knows yet whether the name is its own.
            Some(recording) if recording.is_unsure() => return Err(StoredError::Silent),
            Some(recording) => (recording.prefix(), Some(folder_of(&recording))),
            None => match self.place_of(name).await? {
                Some(prefix) => (Some(prefix), None),
                None => return Ok(false),
            },
        };
        self.begin_to_erase(name, prefix, spool.unwrap_or_else(|| name.spool_folder())).await?;
        Ok(true)
    }

    /// Deletes a recording that is here and that nobody wants any more: the one of its name was deleted, from this folder.
    ///
    /// # Errors
    /// When the spool does not keep that it is to be deleted.
    pub(super) async fn erase_this(self: &Arc<Self>, recording: &Recording, prefix: String) -> Result<(), StoredError> {
        self.begin_to_erase(&recording.name(), Some(prefix), folder_of(recording)).await
    }

    async fn begin_to_erase(
        self: &Arc<Self>,
        name: &Name,
        prefix: Option<String>,
        spool: String,
    ) -> Result<(), StoredError> {
        let Name { tenant, id } = name.clone();
        let manifest = self.last_words(name).await;
        let erasure = Erasure { schema: SCHEMA, recording_id: id, tenant, prefix, spool, track: None, manifest };
        if self.keep_erasure(&erasure).await? {
            self.go_on_erasing(erasure);
        }
        Ok(())
    }

    /// Keeps in the spool that something is to be deleted; `false` where somebody is at it already.
    async fn keep_erasure(&self, erasure: &Erasure) -> io::Result<bool> {
        let _turn = self.erasing.asked.lock().await;
        let path = self.erasure_path(erasure);
        if tokio::fs::try_exists(&path).await? {
            return Ok(false);
        }
        let text = serde_json::to_vec_pretty(erasure).expect("an erasure is plain data");
        let kept = move || {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder)?;
            write_whole(&path, &text)?;
            std::fs::File::open(folder)?.sync_all()
        };
        tokio::task::spawn_blocking(kept).await.unwrap_or_else(|error| Err(error.into())).map(|()| true)
    }

    /// The folder in the store of a recording that is not here, readable or not.
    async fn place_of(&self, name: &Name) -> Result<Option<String>, StoredError> {
        if let Some(entry) = self.ended_entry(name).await? {
            return Ok(Some(entry.prefix));
        }
        Ok(match self.stored(name).await? {
            // Whoever writes it would put all of it there again.
            Stored::Live(_) => return Err(StoredError::Elsewhere),
            Stored::Ended(manifest) => Some(manifest.folder()),
            Stored::Deleted(prefix) => Some(prefix),
            Stored::Nothing | Stored::Other => None,
        })
    }

    fn erasure_path(&self, erasure: &Erasure) -> PathBuf {
        let track = erasure.track.as_ref().map_or_else(String::new, |track| format!("@{}", track.track));
        self.config.spool.join(ERASING).join(format!("{}{track}.json", erasure.name().spool_folder()))
    }

    /// Deletes, beside everything else.
    pub(super) fn go_on_erasing(self: &Arc<Self>, erasure: Erasure) {
        if erasure.track.is_some() {
            return self.until_stop(|pipeline| pipeline.erase_track_for_good(erasure, None));
        }
        // From here on nothing is opened for it.
        self.registry.note_deleted(&erasure.name());
        self.until_stop(|pipeline| pipeline.erase_for_good(erasure));
    }

    /// Does something beside everything else, until it is done or the process stops.
    fn until_stop<W: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, work: impl FnOnce(Arc<Pipeline>) -> W) {
        let (work, mut stop) = (work(Arc::clone(self)), self.stop.listen());
        tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.wait() => {}
            }
        });
    }

    async fn erase_for_good(self: Arc<Self>, mut erasure: Erasure) {
        let name = erasure.name();
        if let Some(recording) = self.registry.get(&name) {
            recording.ask_to_delete();
            recording.left().await;
            // It may have got its folder since it was asked for.
            erasure.prefix = recording.prefix().or(erasure.prefix);
            erasure.manifest = erasure.manifest.map(|_| recording.manifest());
        }
        let mut wait = RETRY_FIRST;
        while let Err(error) = self.try_to_erase(&erasure).await {
            if !self.objects.is_away() {
                tracing::warn!(recording = name.id, %error, "cannot delete a recording yet");
            }
            self.objects.wait_again(&mut wait).await;
        }
        tracing::info!(recording = name.id, tenant = name.tenant, "recording deleted");
    }

    /// What the spool says is under way: parts of an upload that nobody lists.
    pub(super) async fn abort_uploads(&self, folder: &Path) -> Result<(), EraseError> {
        let folder = folder.to_owned();
        let found = tokio::task::spawn_blocking(move || records(&folder)).await;
        for record in found.map_err(io::Error::from)? {
            self.objects.abort_recorded(&record).await?;
        }
        Ok(())
    }

    async fn try_to_erase(&self, erasure: &Erasure) -> Result<(), EraseError> {
        let _erases = self.erasing.books.read().await;
        self.abort_uploads(&self.spool_of(&erasure.spool)).await?;
        for folder in [self.spool_of(&erasure.spool), self.kept(&erasure.name())] {
            self.remove_from_spool(folder).await?;
        }
        if let Some(prefix) = &erasure.prefix {
            // What was on its way when its upload ended may land behind a look.
            while self.erase_folder(prefix, is_ours).await? > 0 {}
            if let Some(root) = Objects::folder(&self.config.store) {
                let folder = root.join(prefix);
                tokio::task::spawn_blocking(move || sweep(&folder)).await.unwrap_or_else(|error| Err(error.into()))?;
            }
            let deleted = serde_json::json!({
                "schema": SCHEMA, "recording_id": erasure.recording_id, "tenant": erasure.tenant,
                "state": State::Deleted, "deleted_at": rfc3339(self.clock.unix()),
            });
            let key = Key::parse(format!("{prefix}/{DELETED}")).map_err(object_store::Error::from)?;
            self.objects.put(&key, format!("{deleted:#}\n").into_bytes()).await?;
        }
        let (mark, state) = (String::new(), State::Deleted);
        let Name { tenant, id: recording_id } = erasure.name();
        let prefix = erasure.prefix.clone().unwrap_or_default();
        self.put_ended(&EndedEntry { schema: SCHEMA, recording_id, tenant, mark, prefix, state }).await?;
        // Before it is forgotten that there is something to tell.
        self.tell_deleted(&erasure.name(), erasure.prefix.as_deref(), erasure.manifest.clone()).await;
        self.forget_erasure(erasure).await?;
        Ok(())
    }

    /// It is done.
    async fn forget_erasure(&self, erasure: &Erasure) -> io::Result<()> {
        tokio::fs::remove_file(self.erasure_path(erasure)).await.or_else(if_there)
    }

    /// Deletes what is in a folder of the store and is `ours` by its name there; gives how many objects that were.
    async fn erase_folder(&self, prefix: &str, is_ours: fn(&str) -> bool) -> Result<usize, EraseError> {
        let root = Key::parse(prefix).map_err(object_store::Error::from)?;
        let store = &self.objects.store;
        let ours = |meta: &object_store::ObjectMeta| {
            let tail = meta.location.as_ref().strip_prefix(prefix).and_then(|tail| tail.strip_prefix('/'));
            tail.is_some_and(is_ours)
        };
        let listed = store.list(Some(&root)).try_filter(|meta| std::future::ready(ours(meta)));
        let delete = |meta: object_store::ObjectMeta| async move {
            match tokio::time::timeout(SAID_WITHIN, store.delete(&meta.location)).await {
                Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(1),
                Ok(Err(error)) => Err(EraseError::Store(error)),
                Err(_) => Err(EraseError::Silent),
            }
        };
        let deleted = listed.map_err(EraseError::Store).map_ok(delete).try_buffer_unordered(DELETES);
        deleted.try_fold(0, |sum, one| std::future::ready(Ok(sum + one))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_deleted_is_read_whatever_its_manifest_is() {
        let erasure = r#""schema": 1, "recording_id": "r", "tenant": null, "prefix": "r", "spool": "r""#;
        for manifest in ["", r#", "manifest": null"#, r#", "manifest": {"schema": 9}"#, r#", "manifest": "r.json""#] {
            let read: Erasure = serde_json::from_str(&format!("{{{erasure}{manifest}}}")).unwrap();
            assert!(read.spool() == "r" && read.manifest.is_none(), "{manifest}");
        }
    }

    #[test]
    fn every_upload_that_is_under_way_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let track = dir.path().join("1-webcam");
        std::fs::create_dir_all(track.join("0000000-abcdef")).unwrap();
        for name in ["events.jsonl", "events.jsonl.upload", "1-webcam/video.mp4", "1-webcam/video.mp4.upload"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut found = records(dir.path());
        found.sort();
        assert_eq!(found, [track.join("video.mp4.upload"), dir.path().join("events.jsonl.upload")]);
        assert!(records(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn what_lies_in_a_recordings_folder_and_is_another_one_stays() {
        for ours in ["recording.json", "events.jsonl", "1-webcam/video.mp4", "x1-screenshare/0-a/000000.m4s"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [DELETED, "other/recording.json", "other/1-webcam/video.mp4"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
