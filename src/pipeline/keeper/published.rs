//! What of a track is published, and putting an object for as long as it takes.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use object_store::path::Path as Key;

use crate::pipeline::Pipeline;
use crate::pipeline::lane::View;
use crate::pipeline::package::playlist::Playlist;
use crate::pipeline::recording::Recording;
use crate::pipeline::store::manifest::Manifest;
use crate::pipeline::store::objects::PutError;
use crate::pipeline::store::spool::Closed;

/// Waiting between tries of a failed put: doubled from the first to the last.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(250);
pub(super) const RETRY_LAST: Duration = Duration::from_secs(15);

/// A track, as far as it is published.
#[derive(Default)]
pub(super) struct Published {
    pub(super) playlist: Option<Playlist>,
    /// Length of the text that the store has: it only grows.
    pub(super) playlist_bytes: usize,
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

/// The manifest without what changes with every picture.
pub(super) fn without_counters(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for track in &mut manifest.tracks {
        track.ledger = Default::default();
        track.end_tick = None;
    }
    manifest
}

/// What an object is made of.
pub(super) enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This file of the spool.
    File(&'a Path),
}

/// Puts an object, for as long as it takes: the store's errors never fail a recording. Returns whether it is there: a file
/// that is gone from the spool never will be, and is told.
pub(super) async fn put(pipeline: &Pipeline, recording: &Recording, key: String, source: Source<'_>) -> bool {
    let key = Key::parse(key).expect("keys are made of safe components");
    let mut wait = RETRY_FIRST;
    loop {
        let result: Result<(), PutError> = match source {
            Source::Bytes(bytes) => pipeline.objects.put(&key, bytes.to_vec()).await,
            Source::File(path) => pipeline.objects.put_file(&key, path).await,
        };
        let Err(error) = result else {
            recording.note_uploads(0, None);
            return true;
        };
        recording.note_uploads(1, Some(error.to_string()));
        if let PutError::Spool { source, .. } = &error
            && source.kind() == ErrorKind::NotFound
        {
            tracing::error!(recording = recording.id(), %error, "a file is gone from the spool");
            recording
                .event("spool_file_lost", serde_json::json!({ "object": key.to_string(), "error": error.to_string() }));
            return false;
        }
        tracing::warn!(recording = recording.id(), %error, again_in = ?wait, "the store did not take an object");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}
