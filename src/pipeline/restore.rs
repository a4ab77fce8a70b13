//! A recording whose spool is lost, or on another machine, is taken up from the store alone: its segments and lists are
//! read back into the spool, and from there on it goes on as if this process had written them.
//!
//! Not here: whose recording it is ([`super::others`], [`super::known`]).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;

use super::entries::LiveEntry;
use super::ingest::protocol::Participant;
use super::known::StoredError;
use super::resume::look_at;
use super::state::{RecordingState, STATE};
use super::store::journal::{EpochLine, SPOOL_VERSION};
use super::store::keys;
use super::store::manifest::TrackManifest;
use super::store::retell::retell;
use super::store::space::if_there;
use super::store::spool::{JOURNAL, SEGMENTS, write_line, write_whole};
use super::{EVENTS, Pipeline};
use crate::ledger::Ledger;
use crate::media::{Canvas, Kind};

/// A folder of the spool that is not whole yet.
const HALF: &str = ".taking-up-";
/// Objects that are read back at a time.
const READS: usize = 8;

/// Whether this folder of the spool was left half by a death in the middle.
pub(super) fn is_half(folder: &str) -> bool {
    folder.starts_with(HALF)
}

/// What of a recording's objects is read back: all that cannot be made again.
fn is_wanted(tail: &str) -> bool {
    let safe = |part: &str| !part.is_empty() && !part.starts_with('.');
    let parts: Vec<&str> = tail.split('/').collect();
    let is_track =
        |name: &str| Kind::ALL.iter().any(|kind| name.strip_suffix(kind.name()).is_some_and(|id| id.ends_with('-')));
    parts.iter().all(|part| safe(part))
        && match parts[..] {
            [name] => name == EVENTS,
            [track, name] => is_track(track) && name.starts_with("init-"),
            [track, _, name] => is_track(track) && (name == SEGMENTS || name.ends_with(".m4s")),
            _ => false,
        }
}

impl Pipeline {
    /// Takes up from the store a recording that is not here. It waits for its bot like any that a start takes up. `false`
    /// where it was taken up by somebody else meanwhile.
    ///
    /// # Errors
    /// Of the store or the spool; nothing has changed then.
    pub(super) async fn take_over(self: &Arc<Self>, entry: LiveEntry) -> Result<bool, StoredError> {
        let _one_at_a_time = self.taking_over.lock().await;
        let name = entry.name();
        if self.registry.knows(&name) {
            return Ok(false);
        }
        let (half, spool) =
            (self.spool_of(&format!("{HALF}{}", name.spool_folder())), self.spool_of(&name.spool_folder()));
        tokio::fs::remove_dir_all(&half).await.or_else(if_there)?;
        let taken = self.read_back(&entry, &half).await;
        if taken.is_err() {
            let _ = tokio::fs::remove_dir_all(&half).await;
        }
        let bytes = taken?;
        // From here on it is this process's; one that dies now leaves it as it was found.
        let state: RecordingState = serde_json::from_slice(&tokio::fs::read(half.join(STATE)).await?)
            .map_err(|error| StoredError::Unreadable { key: STATE.to_owned(), error })?;
        self.put_live(&state, 0).await.map_err(|error| StoredError::Spool(io::Error::other(error)))?;
        let moved = move || {
            std::fs::rename(&half, &spool)?;
            let taken = || {
                std::fs::File::open(spool.parent().unwrap_or(&spool))?.sync_all()?;
                let found = look_at(&spool).map_err(|error| io::Error::other(error.to_string()))?;
                let found = found.ok_or_else(|| io::Error::other("it failed"))?;
                Ok((found.take_up_tracks()?, found))
            };
            // The store has all of it: the next try must not find it in its way.
            taken().inspect_err(|_: &io::Error| drop(std::fs::remove_dir_all(&spool)))
        };
        let moved: io::Result<_> = tokio::task::spawn_blocking(moved).await.unwrap_or_else(|error| Err(error.into()));
        let (tracks, found) = moved?;
        // Not before it stays: what is thrown away is never counted.
        self.space.wrote(bytes);
        let count = tracks.len();
        if let Some(recording) = self.take_up_recording(found, tracks) {
            recording.event("taken_over", serde_json::json!({ "tracks": count, "bytes": bytes }));
            tracing::warn!(recording = name.id, tracks = count, bytes, "took a recording up from the store alone");
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads a recording back into a folder of the spool; gives its bytes.
    async fn read_back(&self, entry: &LiveEntry, half: &Path) -> Result<u64, StoredError> {
        let manifest = match self.manifest_in(entry.prefix()).await {
            Err(error) if error.is_unreadable() => None,
            manifest => manifest?,
        };
        let root = Key::parse(entry.prefix()).map_err(|error| StoredError::Store(error.into()))?;
        let mut wanted = Vec::new();
        let mut listed = self.objects.store.list(Some(&root));
        while let Some(meta) = listed.try_next().await.map_err(StoredError::Store)? {
            let tail = meta.location.as_ref().strip_prefix(entry.prefix()).and_then(|tail| tail.strip_prefix('/'));
            if let Some(tail) = tail.filter(|tail| is_wanted(tail)) {
                wanted.push((meta.location.clone(), half.join(tail), meta.size));
            }
        }
        drop(listed);
        let bytes = wanted.iter().map(|(.., size)| size).sum();
        // Live meetings are not to be shed for it.
        if !self.space.has_place_for(bytes) {
            return Err(
                io::Error::new(io::ErrorKind::StorageFull, format!("no room for {bytes} bytes in the spool")).into()
            );
        }
        let reads = futures::stream::iter(wanted).map(|(key, path, _)| self.read_object(key, path));
        reads.buffer_unordered(READS).try_collect::<()>().await?;
        let state = RecordingState {
            mark: keys::random_name(),
            unsure: false,
            participants: manifest.iter().flat_map(|manifest| &manifest.tracks).map(participant_of).collect(),
            alone_since: None,
            deleted: newer(manifest.iter().flat_map(|manifest| manifest.deleted_books()), &entry.recording.deleted),
            ..entry.recording.clone()
        };
        let half = half.to_owned();
        let books = move || {
            std::fs::create_dir_all(&half)?;
            write_whole(&half.join(STATE), &serde_json::to_vec_pretty(&state)?)?;
            manifest
                .iter()
                .flat_map(|manifest| &manifest.tracks)
                .try_for_each(|track| tell(&half.join(&track.track), track))
        };
        tokio::task::spawn_blocking(books).await.unwrap_or_else(|error| Err(error.into()))?;
        Ok(bytes)
    }

    async fn read_object(&self, key: Key, path: PathBuf) -> Result<(), StoredError> {
        let object = self.objects.store.get(&key).await.map_err(StoredError::Store)?;
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut file = tokio::fs::File::create(&path).await?;
        let mut bytes = object.into_stream();
        while let Some(chunk) = bytes.try_next().await.map_err(StoredError::Store)? {
            file.write_all(&chunk).await?;
        }
        file.sync_data().await?;
        Ok(())
    }
}

/// The books of deleted tracks, of two accounts: they only grow.
fn newer(one: impl Iterator<Item = (String, Ledger)>, other: &BTreeMap<String, Ledger>) -> BTreeMap<String, Ledger> {
    let mut newer = other.clone();
    for (track, books) in one {
        let known = newer.entry(track).or_default();
        if books.received > known.received {
            *known = books;
        }
    }
    newer
}

fn participant_of(track: &TrackManifest) -> Participant {
    let who = track.participant.clone();
    Participant { id: who.id, name: who.name, email: who.email, is_host: who.is_host, platform: who.platform }
}

/// Begins the journals of a track by what the manifest says of it, makes them whole from the segments, and books in them
/// what no segment tells.
fn tell(dir: &Path, track: &TrackManifest) -> io::Result<()> {
    let (Some(width), Some(height), Some(codecs)) = (track.width, track.height, track.codecs.clone()) else {
        return Ok(());
    };
    for epoch in &track.epochs {
        let dir = dir.join(&epoch.epoch);
        if !dir.is_dir() {
            continue;
        }
        let line = EpochLine {
            spool: SPOOL_VERSION,
            participant_id: track.participant.id.clone(),
            kind: track.kind,
            canvas: Canvas { width, height },
            codecs: codecs.clone(),
            first_tick: epoch.first_tick,
            init: epoch.init.clone(),
            encoder_options: epoch.encoder_options.clone(),
            holes: track.gaps.clone(),
        };
        write_line(&mut std::fs::File::create(dir.join(JOURNAL))?, &line)?;
    }
    if dir.is_dir() { retell(dir, track) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_again_is_read_back_and_nothing_else() {
        for wanted in
            ["events.jsonl", "1-webcam/init-0.mp4", "1-webcam/0-a/000000.m4s", "1-screenshare/0-a/segments.jsonl"]
        {
            assert!(is_wanted(wanted), "{wanted}");
        }
        for other in [
            "recording.json",
            "1-webcam/video.mp4",
            "1-webcam/index.m3u8",
            "x/0-a/000000.m4s",
            "1-webcam/../x/0.m4s",
            "a/1-webcam/0-a/0.m4s",
        ] {
            assert!(!is_wanted(other), "{other}");
        }
    }
}
