//! What of a track is published, and putting an object for as long as it takes.

use std::io::ErrorKind;

use object_store::path::Path as Key;

use crate::media::Micros;
use crate::pipeline::Pipeline;
use crate::pipeline::lane::View;
use crate::pipeline::package::playlist::Playlist;
use crate::pipeline::recording::Recording;
use crate::pipeline::store::manifest::Manifest;
pub(super) use crate::pipeline::store::objects::Source;
use crate::pipeline::store::objects::{Class, PutError, RETRY_FIRST};
use crate::pipeline::store::spool::Closed;

/// A track, as far as it is published.
#[derive(Default)]
pub(super) struct Published {
    pub(super) playlist: Option<Playlist>,
    /// Length of the text that the store has: it only grows.
    pub(super) playlist_bytes: usize,
    /// When that was put.
    pub(super) playlist_at: Option<Micros>,
    /// Whether the store was asked for what an earlier process published.
    pub(super) asked: bool,
    pub(super) segments: usize,
    pub(super) inits: Vec<String>,
    pub(super) epochs: Vec<String>,
    /// Segments that the lists in the store tell of, and epochs that they tell all of.
    pub(super) listed: (usize, usize),
}

impl Published {
    pub(super) fn note(&mut self, closed: &Closed) {
        self.segments += 1;
        if self.epochs.last() != Some(&closed.folder.name) {
            self.epochs.push(closed.folder.name.clone());
        }
    }
}

/// Takes out what no segment came of, because the disk was full or broke: epochs, and a first picture.
pub(super) fn forget_unwritten(view: &mut View) {
    let closed = &view.closed;
    view.first_tick = closed.first().map(|segment| segment.first_tick);
    if closed.is_empty() {
        // A track without a picture has no MP4 whose ticks could be filled.
        (view.canvas, view.codecs, view.ledger.filled) = (None, None, 0);
    }
    view.epochs.retain(|epoch| closed.iter().any(|segment| segment.folder.name == epoch.epoch));
}

/// An event for each segment that could not be made durable.
pub(super) fn tell_losses(recording: &Recording) {
    for lane in recording.lanes() {
        for lost in lane.view(|view| std::mem::take(&mut view.lost)) {
            let (from, to, error) = (lost.from_tick, lost.to_tick, lost.error);
            let detail = serde_json::json!({ "track": lane.track, "from_tick": from, "to_tick": to, "error": error });
            recording.event("segment_abandoned", detail);
        }
    }
}

/// The manifest without what changes with every tick.
pub(super) fn without_counters(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for track in &mut manifest.tracks {
        track.ledger = Default::default();
        track.end_tick = None;
        if let Some(last) = track.gaps.last_mut() {
            last.to_tick = last.from_tick;
        }
    }
    manifest
}

/// Puts an object, for as long as it takes: the store's errors never fail a recording. Returns whether it is there: a file
/// that is gone from the spool never will be, and is told.
pub(super) async fn put(
    pipeline: &Pipeline,
    recording: &Recording,
    class: Class,
    key: String,
    source: Source<'_>,
) -> bool {
    let key = Key::parse(key).expect("keys are made of safe components");
    let _on_its_way = pipeline.objects.await_one();
    let mut wait = RETRY_FIRST;
    for nth in 1_u64.. {
        let Err(error) = pipeline.objects.upload(&recording.id(), class, &key, source).await else {
            recording.note_uploads(0, None);
            return true;
        };
        recording.note_uploads(1, Some(error.to_string()));
        match &error {
            PutError::Spool { source, .. } if source.kind() == ErrorKind::NotFound => {
                tracing::error!(recording = recording.id(), %error, "a file is gone from the spool");
                let detail = serde_json::json!({ "object": key.to_string(), "error": error.to_string() });
                recording.event("spool_file_lost", detail);
                return false;
            }
            PutError::Damaged { .. } => tell_damage(recording, key.as_ref(), "other bytes than it was given"),
            // That the store is away is told once, for all.
            _ if pipeline.objects.is_away() => {}
            _ if nth.is_power_of_two() => {
                tracing::warn!(recording = recording.id(), nth, %error, "the store did not take an object");
            }
            _ => {}
        }
        // A store that is away is waited for where it is asked again.
        pipeline.objects.pause(&mut wait).await;
    }
    false
}

/// The store has something else than it was given.
pub(super) fn tell_damage(recording: &Recording, key: &str, has: &str) {
    tracing::error!(recording = recording.id(), object = key, has, "the store damaged an object");
    recording.event("object_damaged", serde_json::json!({ "object": key, "store_has": has }));
}
