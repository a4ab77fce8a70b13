//! Deleting one track: its lane stops, its uploads end, and everything under its folder goes, in the spool and in the
//! store. What is left are its books in the manifest. Where its participant has no other track, events and manifest come to
//! say nothing of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::pipeline::known::StoredError;
use crate::pipeline::lane::Lane;
use crate::pipeline::recording::{Recording, Shows, participant_in};
use crate::pipeline::registry::folder_of;
use crate::pipeline::state::{self, STATE};
use crate::pipeline::store::keys::Name;
use crate::pipeline::store::manifest::{Manifest, SCHEMA, State};
use crate::pipeline::store::objects::{Objects, RETRY_FIRST};
use crate::pipeline::store::space::if_there;
use crate::pipeline::store::spool::write_whole;
use crate::pipeline::store::sync::{SyncJob, keep_lines};
use crate::pipeline::threads::hand_over;
use crate::pipeline::{EVENTS, Pipeline};

use object_store::path::Path as Key;

use super::{EraseError, Erasure};

/// Events are read only up to this size: weeks of them.
const EVENTS_BYTES_MAX: u64 = 256 << 20;
/// A lane stops within milliseconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// A track that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackErasure {
    /// Its folder's name.
    pub track: String,
    /// Whom it shows.
    pub participant_id: String,
}

/// Whether nothing else of a recording shows this participant.
fn is_last_of(manifest: &Manifest, participant_id: &str) -> bool {
    manifest.tracks.iter().all(|track| track.participant.id != participant_id)
}

impl Pipeline {
    /// Deletes a track. Returns once that is sure to happen; `false` where there is no such recording or track.
    ///
    /// # Errors
    /// When the store does not say what it has, another process writes the recording, or the spool does not keep that the
    /// track is to be deleted.
    pub async fn erase_track(self: &Arc<Self>, name: &Name, track: &str) -> Result<bool, StoredError> {
        let here = self.registry.get(name).filter(|recording| recording.state() != State::Deleted);
        let (prefix, spool, participant_id) = match &here {
            // Nobody knows yet whether the name is its own.
            Some(recording) if recording.is_unsure() => return Err(StoredError::Silent),
            Some(recording) => match recording.shows(track) {
                Shows::Participant(id) => (recording.prefix(), folder_of(recording), id),
                Shows::Deleted => return Ok(true),
                Shows::Nobody => return Ok(false),
            },
            None => {
                let Some(manifest) = self.manifest_of(name).await? else { return Ok(false) };
                if manifest.deleted.iter().any(|deleted| deleted.track == track) {
                    return Ok(true);
                }
                let Some(found) = manifest.tracks.iter().find(|found| found.track == track) else { return Ok(false) };
                if !matches!(manifest.state, State::Finished | State::Failed) {
                    return Err(StoredError::Elsewhere);
                }
                (Some(manifest.folder()), name.spool_folder(), found.participant.id.clone())
            }
        };
        let Name { tenant, id } = name.clone();
        let track = Some(TrackErasure { track: track.to_owned(), participant_id });
        let erasure = Erasure { schema: SCHEMA, recording_id: id, tenant, prefix, spool, track, manifest: None };
        if !self.keep_erasure(&erasure).await? {
            return Ok(true);
        }
        let lane = here.and_then(|recording| recording.delete_track(&erasure.track.as_ref()?.track));
        self.until_stop(|pipeline| pipeline.erase_track_for_good(erasure, lane));
        Ok(true)
    }

    /// `lane`: what still writes it here.
    pub(super) async fn erase_track_for_good(self: Arc<Self>, mut erasure: Erasure, lane: Option<Arc<Lane>>) {
        let (name, Some(of)) = (erasure.name(), erasure.track.clone()) else { return };
        if let Some(recording) = self.registry.get(&name) {
            if let Some(lane) = lane {
                self.stop_for_good(&recording, &lane).await;
            }
            let ended = || matches!(recording.state(), State::Finished | State::Deleted);
            if !ended() {
                recording.event("track_deleted", serde_json::json!({ "track": of.track }));
                // With its books, and without its participant; before anything of it goes.
                self.keep_state(&recording).await;
            }
            // Where it ended meanwhile, nobody else would remove what was just kept.
            if ended() {
                let left = recording.spool.clone();
                let _ = self.remove_from_spool(left).await;
            }
            // It may have got its folder since it was asked for.
            erasure.prefix = recording.prefix().or(erasure.prefix);
        }
        let mut wait = RETRY_FIRST;
        while let Err(error) = self.try_to_erase_track(&erasure, &of).await {
            if !self.objects.is_away() {
                tracing::warn!(recording = name.id, track = of.track, %error, "cannot delete a track yet");
            }
            self.objects.wait_again(&mut wait).await;
        }
        tracing::info!(recording = name.id, tenant = name.tenant, track = of.track, "track deleted");
    }

    /// Stops a lane, and leaves its books.
    async fn stop_for_good(&self, recording: &Recording, lane: &Arc<Lane>) {
        // One whose encoder fails for ever must not keep the rest from being deleted.
        if tokio::time::timeout(STOPPED_WITHIN, lane.stopped()).await.is_err() {
            tracing::warn!(
                recording = recording.id(),
                track = lane.track,
                "a lane that is to be deleted does not stop"
            );
        }
        // Its last segments got their names.
        self.sync_barrier().await;
        recording.note_deleted(lane);
        lane.close();
    }

    async fn try_to_erase_track(&self, erasure: &Erasure, of: &TrackErasure) -> Result<(), EraseError> {
        let spool = self.spool_of(&erasure.spool);
        self.abort_uploads(&spool.join(&of.track)).await?;
        for folder in [&spool, &self.kept(&erasure.name())].map(|folder| folder.join(&of.track)) {
            hand_over(&self.sync, SyncJob::Forget(folder.clone())).await;
            self.sync_barrier().await;
            let space = Arc::clone(&self.space);
            let removed = tokio::task::spawn_blocking(move || space.remove(&folder));
            removed.await.unwrap_or_else(|error| Err(error.into()))?;
        }
        if let Some(prefix) = &erasure.prefix {
            let folder = format!("{prefix}/{}", of.track);
            // What was on its way when its upload ended may land behind a look.
            while self.erase_folder(&folder, |_| true).await? > 0 {}
            if let Some(root) = Objects::folder(&self.config.store) {
                let swept =
                    tokio::task::spawn_blocking(move || std::fs::remove_dir_all(root.join(folder)).or_else(if_there));
                swept.await.unwrap_or_else(|error| Err(error.into()))?;
            }
        }
        match self.registry.get(&erasure.name()) {
            Some(recording) => {
                if recording.is_forgotten(&of.participant_id) {
                    self.forget_in_spool(&spool.join(EVENTS), &of.participant_id).await?;
                }
                let erased = recording.note_erased();
                tokio::select! {
                    () = recording.erased_told(erased) => {}
                    // Its keeper came to its end, and may not have told it.
                    () = recording.left() => self.change_stored(erasure, of).await?,
                }
            }
            None => self.change_stored(erasure, of).await?,
        }
        self.forget_erasure(erasure).await?;
        Ok(())
    }

    /// Takes a participant's lines out of events in the spool.
    async fn forget_in_spool(&self, path: &Path, participant_id: &str) -> Result<(), EraseError> {
        let (done, hears) = oneshot::channel();
        let id = participant_id.to_owned();
        let keep = Box::new(move |line: &str| participant_in(line).as_ref() != Some(&id));
        hand_over(&self.sync, SyncJob::Filter { path: path.to_owned(), keep, done }).await;
        hears.await.unwrap_or_else(|_| Err(std::io::Error::other("the process is stopping")))?;
        Ok(())
    }

    /// Changes events and manifest of a recording that nobody writes, in the store and in what is left of it in the spool.
    async fn change_stored(&self, erasure: &Erasure, of: &TrackErasure) -> Result<(), EraseError> {
        let _alone = self.erasing.books.write().await;
        let name = erasure.name();
        let ended = self.ended_entry(&name).await?;
        if self.registry.is_deleted(&name) || ended.is_some_and(|ended| ended.state == State::Deleted) {
            return Ok(());
        }
        let Some(prefix) = &erasure.prefix else { return Ok(()) };
        let Some(mut manifest) = self.manifest_in(prefix).await? else { return Ok(()) };
        manifest.delete_track(&of.track);
        if is_last_of(&manifest, &of.participant_id) {
            let key = Key::parse(format!("{prefix}/{EVENTS}")).map_err(object_store::Error::from)?;
            if let Some(events) = self.objects.get(&key, EVENTS_BYTES_MAX).await? {
                let id = Some(of.participant_id.clone());
                let kept = keep_lines(&String::from_utf8_lossy(&events), |line| participant_in(line) != id);
                self.objects.put(&key, kept.into_bytes()).await?;
            }
            for folder in [self.spool_of(&erasure.spool), self.kept(&erasure.name())] {
                self.forget_in_spool(&folder.join(EVENTS), &of.participant_id).await?;
            }
        }
        let key = Key::parse(format!("{prefix}/recording.json")).map_err(object_store::Error::from)?;
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        self.objects.put(&key, text.clone()).await?;
        self.change_kept_state(&self.spool_of(&erasure.spool), &manifest, None).await?;
        self.change_kept_state(&self.kept(&erasure.name()), &manifest, Some(text)).await?;
        self.registry.note_changed(Manifest { prefix: Some(prefix.clone()), ..manifest });
        Ok(())
    }

    /// The spool of a recording that failed is kept, and maybe a copy of one that is finished; `text` is its manifest.
    async fn change_kept_state(&self, spool: &Path, manifest: &Manifest, text: Option<Vec<u8>>) -> std::io::Result<()> {
        let Ok(mut kept) = state::read(spool) else { return Ok(()) };
        kept.deleted.extend(manifest.deleted_books());
        kept.participants.retain(|who| !is_last_of(manifest, &who.id));
        let (state, spool) = (serde_json::to_vec_pretty(&kept)?, spool.to_owned());
        let written = move || {
            write_whole(&spool.join(STATE), &state)?;
            text.map_or(Ok(()), |text| write_whole(&spool.join("recording.json"), &text))
        };
        tokio::task::spawn_blocking(written).await.unwrap_or_else(|error| Err(error.into()))
    }
}
