//! The start: whatever the spool holds is taken up again, and goes on where its last complete part ended.
//!
//! Blocking file work, done before the first socket is taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::machine;
use crate::media::Micros;
use crate::parallel;

use super::Pipeline;
use super::erase::{Erasure, TrackErasure, erasures};
use super::keeper::Keeper;
use super::lane::{Lane, View};
use super::recording::{Recording, RecordingParts};
use super::restore;
use super::state::{self, RecordingState};
use super::store::keys::{self, Name};
use super::store::manifest::State;
use super::store::recovery::{TakenUp, take_up};
use super::timeline::Mark;

/// A crash loop gets so many graces in all.
const GRACES_MAX: i64 = 3;

/// An unfinished recording of the spool.
pub(super) struct Found {
    folder: PathBuf,
    state: RecordingState,
    /// The folders of its tracks.
    tracks: Vec<PathBuf>,
    /// Tracks that are to be deleted.
    erased: Vec<TrackErasure>,
}

/// The name of a recording's folder.
fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads what is there of a recording. `None` where an operator has to look at it.
pub(super) fn look_at(folder: &Path) -> Result<Option<Found>, Box<dyn std::error::Error>> {
    let state = state::read(folder)?;
    if state.state == State::Unknown {
        return Err("state.json: a state that only another version of the program knows".into());
    }
    if state.state == State::Failed {
        tracing::warn!(folder = %folder.display(), "left alone: this recording failed, and an operator has to look at it");
        return Ok(None);
    }
    let tracks = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    // What is left of a deleted track may be half of it.
    let tracks = tracks.filter(|path| !state.deleted.contains_key(&name_of(path))).collect();
    Ok(Some(Found { folder: folder.to_owned(), state, tracks, erased: Vec::new() }))
}

/// Those of the recording in this folder of the spool.
fn erasures_of(erasures: &[Erasure], folder: String) -> impl Iterator<Item = &Erasure> {
    erasures.iter().filter(move |one| one.spool() == folder)
}

/// Takes a track that is to be deleted out of what was taken up, and leaves its books.
fn forget(state: &mut RecordingState, taken: &mut Vec<TakenUp>, erased: &TrackErasure) {
    let is_it = |track: &TakenUp| keys::track(&track.participant_id, track.kind) == erased.track;
    let books = taken.iter().find(|track| is_it(track)).map(|track| track.ledger.clone().deleted());
    // Where it has books already they were written after its last part.
    state.deleted.entry(erased.track.clone()).or_insert_with(|| books.unwrap_or_default());
    taken.retain(|track| !is_it(track));
    if taken.iter().all(|track| track.participant_id != erased.participant_id) {
        state.participants.retain(|who| who.id != erased.participant_id);
    }
}

impl Found {
    /// Reads its tracks. Blocking.
    ///
    /// # Errors
    /// Of the file system, or of a journal's form.
    pub(super) fn take_up_tracks(&self) -> io::Result<Vec<TakenUp>> {
        let taken = parallel::each(&self.tracks, machine::cores(), |dir| take_up(dir));
        let taken: io::Result<Vec<Option<TakenUp>>> = taken.into_iter().collect();
        Ok(taken?.into_iter().flatten().collect())
    }
}

impl Pipeline {
    /// Goes on with what earlier processes left: recordings, and what is to be deleted.
    pub(super) fn go_on(self: &Arc<Self>) {
        let erasures = erasures(&self.config.spool);
        self.take_up_spool(&erasures);
        erasures.into_iter().for_each(|erasure| self.go_on_erasing(erasure));
    }

    /// Takes up every unfinished recording of the spool but those that are to be deleted. What cannot be read is left alone
    /// and reported.
    pub fn take_up_spool(self: &Arc<Self>, erasures: &[Erasure]) {
        let start = self.clock.mono();
        let Ok(folders) = std::fs::read_dir(&self.config.spool) else { return };
        let folders = folders.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        // Folders of our own: what was half taken up from the store.
        let (ours, folders): (Vec<_>, Vec<_>) = folders.partition(|path| name_of(path).starts_with('.'));
        ours.iter()
            .filter(|path| restore::is_half(&name_of(path)))
            .for_each(|path| drop(std::fs::remove_dir_all(path)));
        let of = |path: &Path| erasures_of(erasures, name_of(path));
        let folders = folders.into_iter().filter(|path| of(path).all(|one| one.track().is_some()));
        // A finished recording, all of it gone but the folder, is no more. One that holds anything is not removed so.
        let folders = folders.filter(|path| std::fs::remove_dir(path).is_err());
        let folders: Vec<PathBuf> = folders.collect();
        let folders = folders.iter().inspect(|folder| self.registry.leave_alone(name_of(folder)));
        let mut found: Vec<Found> = folders.filter_map(|folder| self.reported(folder, look_at(folder))?).collect();
        for found in &mut found {
            found.erased = of(&found.folder).filter_map(Erasure::track).cloned().collect();
        }
        let dirs: Vec<&Path> = found.iter().flat_map(|found| &found.tracks).map(PathBuf::as_path).collect();
        let mut taken = parallel::each(&dirs, machine::cores(), |dir| take_up(dir)).into_iter();
        let (mut recordings, mut tracks) = (0, 0);
        for found in found.drain(..) {
            let of_recording: Vec<_> = taken.by_ref().take(found.tracks.len()).collect();
            let of_recording: io::Result<Vec<Option<TakenUp>>> = of_recording.into_iter().collect();
            if let Some(taken) = self.reported(&found.folder, of_recording.map_err(Into::into)) {
                let (folder, taken): (_, Vec<_>) = (found.folder.clone(), taken.into_iter().flatten().collect());
                let count = taken.len();
                if self.take_up_recording(found, taken).is_some() {
                    (recordings, tracks) = (recordings + 1, tracks + count);
                } else {
                    self.reported::<()>(&folder, Err("another folder has the same recording".into()));
                }
            }
        }
        if recordings > 0 {
            let took = (self.clock.mono() - start).as_secs_f64();
            tracing::info!(recordings, tracks, seconds = took, "took up unfinished recordings");
        }
    }

    /// What could not be read is left alone.
    fn reported<T>(&self, folder: &Path, read: Result<T, Box<dyn std::error::Error>>) -> Option<T> {
        read.inspect_err(|error| {
            self.metrics.spool_failed.inc();
            tracing::error!(folder = %folder.display(), %error, "left alone: cannot take this recording up");
        })
        .ok()
    }

    /// Takes an unfinished recording up; `None` where it is here already.
    pub(super) fn take_up_recording(
        self: &Arc<Self>,
        mut found: Found,
        mut taken: Vec<TakenUp>,
    ) -> Option<Arc<Recording>> {
        for track in &mut taken {
            if let Some(books) = found.state.books.remove(&keys::track(&track.participant_id, track.kind)) {
                track.go_on_from(books);
            }
        }
        for erased in &found.erased {
            forget(&mut found.state, &mut taken, erased);
        }
        let recording = Arc::new(self.resumed(found.state, found.folder, &taken));
        // Before anybody can ask for them.
        for track in taken {
            recording.insert_lane(self.resumed_lane(&recording, track));
        }
        if !self.registry.insert(Arc::clone(&recording)) {
            return None;
        }
        self.keep(Keeper::resume(Arc::clone(self), Arc::clone(&recording)));
        Some(recording)
    }

    fn resumed(&self, state: RecordingState, spool: PathBuf, tracks: &[TakenUp]) -> Recording {
        let (now, unix) = (self.clock.mono(), self.clock.unix());
        let grace = Micros::from(self.config.reconnect_grace);
        // The grace begins anew with each start, but not for ever.
        let first = state.alone_since.unwrap_or(unix);
        let left = Micros((first.0 + GRACES_MAX * grace.0 - unix.0).clamp(0, grace.0));
        let last_at = tracks.iter().map(|track| track.last_at).max().unwrap_or_default();
        let next_tick = tracks.iter().map(|track| track.next_tick).max().unwrap_or(0);
        let last = last_at.max(state.settings.grid.time_of(next_tick));
        let finishing = state.state == State::Finishing;
        let recording = Recording::new(RecordingParts {
            spool,
            name: Name { tenant: state.tenant, id: state.recording_id },
            unsure: state.unsure,
            continues: state.continues,
            prefix: state.prefix,
            mark: state.mark,
            settings: state.settings,
            alone_since: now - (grace - left),
        });
        recording.go_on(state.origin, last, state.bot_id, state.metadata, state.participants, first);
        recording.go_on_after_overload(state.overload, next_tick);
        recording.go_on_without(state.deleted);
        let cut: u64 = tracks.iter().map(|track| track.bytes_cut).sum();
        let detail = serde_json::json!({ "tracks": tracks.len(), "end_tick": next_tick, "bytes_cut": cut });
        recording.event("taken_up", detail);
        if finishing {
            recording.go_on_finishing();
        }
        recording
    }

    fn resumed_lane(&self, recording: &Recording, track: TakenUp) -> Arc<Lane> {
        let memory = self.lane_memory.take(Lane::bytes(track.canvas));
        let lane = self.make_lane(recording, &track.participant_id, track.kind, memory, Some(&track));
        lane.go_on(track.next_capture);
        lane.mark(recording.newest(), Mark::SocketLost);
        lane.view(|view| {
            *view = View {
                canvas: Some(track.canvas),
                codecs: Some(track.codecs),
                first_tick: Some(track.first_tick),
                end_tick: Some(track.next_tick),
                epochs: track.epochs,
                gaps: track.gaps,
                ledger: track.ledger,
                closed: track.closed,
                ..View::default()
            };
        });
        lane
    }
}
