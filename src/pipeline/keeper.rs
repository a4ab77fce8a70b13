//! The keeper of a recording: one tokio task that publishes what became durable, and carries the recording to its end.
//!
//! It does no pixel work and writes no file: it orders, waits, and puts objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as Key;

use crate::config::Output;
use crate::media::Tick;

use super::Pipeline;
use super::assembly::{self, AssembleJob};
use super::lane::{Lane, Order};
use super::package::playlist::{Entry, Playlist};
use super::recording::Recording;
use super::state::{RecordingState, STATE};
use super::store::manifest::{Manifest, State};
use super::store::objects::PutError;
use super::store::spool::{Closed, SEGMENTS};

/// The manifest is written at least this often while anything changes in it.
const MANIFEST_EVERY: Duration = Duration::from_secs(30);
/// A published playlist is read back only up to this size: some days of media.
const PLAYLIST_BYTES_MAX: u64 = 64 << 20;
/// Waiting between tries of a failed put: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// A track, as far as it is published.
#[derive(Default)]
struct Published {
    playlist: Option<Playlist>,
    segments: usize,
    inits: Vec<String>,
    /// Ticks and places of the segments, for the MP4.
    spans: Vec<(Tick, Tick, PathBuf)>,
    epochs: Vec<String>,
}

/// Keeps one recording until it is finished, or until the process is told to stop.
pub struct Keeper {
    pipeline: Arc<Pipeline>,
    recording: Arc<Recording>,
    tracks: BTreeMap<String, Published>,
    manifest: Option<Manifest>,
    state: Option<RecordingState>,
    /// An earlier process may have published some of it.
    resumed: bool,
}

impl Keeper {
    /// A keeper for a new recording.
    pub fn new(pipeline: Arc<Pipeline>, recording: Arc<Recording>) -> Keeper {
        Keeper { pipeline, recording, tracks: BTreeMap::new(), manifest: None, state: None, resumed: false }
    }

    /// A keeper for a recording that an earlier process began. What that published is published again, to the letter:
    /// a playlist follows from the segments alone.
    pub fn resume(pipeline: Arc<Pipeline>, recording: Arc<Recording>) -> Keeper {
        recording.changed.notify_one();
        Keeper { resumed: true, ..Keeper::new(pipeline, recording) }
    }

    /// Whose keeper this is.
    pub fn recording_id(&self) -> &str {
        &self.recording.id
    }

    /// The keeper's life.
    pub async fn run(mut self) {
        let mut stop = self.pipeline.stop_signal();
        if self.resumed && self.recording.is_to_finish() && self.was_finished().await {
            return;
        }
        loop {
            let told = tokio::select! {
                () = self.recording.changed.notified() => false,
                () = tokio::time::sleep(MANIFEST_EVERY) => true,
                () = stop.wait() => break self.suspend().await,
            };
            self.write_state();
            self.publish().await;
            self.put_manifest(told).await;
            if self.recording.is_to_finish() {
                tokio::select! {
                    () = self.finish() => {}
                    // What is not in the store yet is still in the spool.
                    () = stop.wait() => self.flush_events().await,
                }
                break;
            }
        }
    }

    /// Puts every durable segment, and after it the playlist that names it.
    async fn publish(&mut self) {
        if !self.pipeline.makes(Output::Hls) {
            return self.note_spans();
        }
        for lane in self.recording.lanes() {
            self.publish_lane(&lane).await;
        }
    }

    fn note_spans(&mut self) {
        for lane in self.recording.lanes() {
            let published = self.tracks.entry(lane.track.clone()).or_default();
            for closed in lane.view(|view| view.closed.get(published.segments..).unwrap_or_default().to_vec()) {
                published.note(closed);
            }
        }
    }

    /// An earlier process died between the last manifest and clearing the spool.
    async fn was_finished(&self) -> bool {
        let stored = self.pipeline.stored_manifest(&self.recording.id).await;
        let Ok(Some(manifest)) = stored else { return false };
        if manifest.state != State::Finished {
            return false;
        }
        self.recording.set_state(State::Finished);
        self.pipeline.registry.note_ended(manifest);
        self.clear_spool().await;
        self.pipeline.lanes_closed(self.recording.lanes().len());
        true
    }

    /// What an earlier process published of a track.
    async fn published_playlist(&self, track: &str) -> Option<Playlist> {
        let key = Key::parse(format!("{}/{track}/index.m3u8", self.recording.key)).ok()?;
        let text = self.pipeline.objects.get(&key, PLAYLIST_BYTES_MAX).await.ok()??;
        let text = String::from_utf8(text).ok()?;
        // One that does not read is written anew from the segments.
        Playlist::resume(self.recording.grid, self.recording.origin()?, &text).ok()
    }

    async fn publish_lane(&mut self, lane: &Lane) {
        let known = self.tracks.entry(lane.track.clone()).or_default();
        let closed = lane.view(|view| view.closed.get(known.segments..).unwrap_or_default().to_vec());
        if closed.is_empty() {
            return;
        }
        if self.resumed && known.playlist.is_none() {
            let playlist = self.published_playlist(&lane.track).await;
            self.tracks.entry(lane.track.clone()).or_default().playlist = playlist;
        }
        let published = self.tracks.entry(lane.track.clone()).or_default();
        let folder = format!("{}/{}", self.recording.key, lane.track);
        for closed in closed {
            let end = closed.line.first_tick + closed.line.ticks;
            if published.playlist.as_ref().and_then(Playlist::end_tick).is_some_and(|named| end <= named) {
                published.note(closed);
                continue;
            }
            if !published.inits.contains(&closed.init) {
                let path = self.recording.spool.join(&lane.track).join(&closed.init);
                put(&self.pipeline, &self.recording, format!("{folder}/{}", closed.init), Source::File(&path)).await;
                published.inits.push(closed.init.clone());
            }
            let name = closed.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let key = format!("{folder}/{}/{name}", closed.epoch);
            put(&self.pipeline, &self.recording, key, Source::File(&closed.path)).await;
            // The origin is fixed by the first capture, long before a segment closes.
            let origin = self.recording.origin().unwrap_or_default();
            let playlist = published.playlist.get_or_insert_with(|| Playlist::new(self.recording.grid, origin));
            playlist.push(&Entry {
                epoch: closed.epoch.clone(),
                first_tick: closed.line.first_tick,
                ticks: closed.line.ticks,
                init: closed.init.clone(),
            });
            published.note(closed);
        }
        self.put_playlist(&lane.track).await;
    }

    async fn put_playlist(&self, track: &str) {
        let Some(playlist) = self.tracks.get(track).and_then(|published| published.playlist.as_ref()) else { return };
        let key = format!("{}/{track}/index.m3u8", self.recording.key);
        put(&self.pipeline, &self.recording, key, Source::Bytes(playlist.text().as_bytes())).await;
    }

    /// Keeps in the spool what a later process must know.
    fn write_state(&mut self) {
        let state = self.recording.persistent();
        // Without an origin nothing was placed yet, and there is nothing to go on with.
        if state.origin.is_none() || self.state.as_ref() == Some(&state) {
            return;
        }
        let bytes = serde_json::to_vec_pretty(&state).expect("a state is plain data");
        if self.pipeline.write_whole(self.recording.spool.join(STATE), bytes) {
            self.state = Some(state);
        }
    }

    /// Keeps the state, and returns when it is durable.
    async fn keep_state(&mut self) {
        self.state = None;
        while self.state.is_none() && self.recording.origin().is_some() {
            self.write_state();
            self.pipeline.sync_barrier().await;
        }
    }

    /// Writes the manifest when it changed in more than its counters, or when `every` interval is over.
    async fn put_manifest(&mut self, every: bool) {
        let manifest = self.recording.manifest();
        let same = self.manifest.as_ref().is_some_and(|last| {
            if every { *last == manifest } else { without_counters(last) == without_counters(&manifest) }
        });
        if !same {
            self.put_this(manifest).await;
        }
    }

    async fn put_this(&mut self, manifest: Manifest) {
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        put(&self.pipeline, &self.recording, format!("{}/recording.json", self.recording.key), Source::Bytes(&text))
            .await;
        self.manifest = Some(manifest);
    }

    /// Orders all lanes, waits until each has carried it out and its segments are durable.
    async fn order(&self, order: Order) {
        self.recording.order(order);
        let lanes = self.recording.lanes();
        let done = |lane: &Arc<Lane>| lane.view(|view| view.done == Some(order) && view.syncing == 0);
        while !lanes.iter().all(done) {
            self.recording.changed.notified().await;
        }
    }

    /// The end: no more media, then uploads, the manifest last.
    async fn finish(&mut self) {
        self.recording.set_state(State::Finishing);
        self.keep_state().await;
        self.put_manifest(true).await;
        self.recording.end_limbo();
        self.order(Order::Flush).await;
        let lanes = self.recording.lanes();
        let end = lanes.iter().filter_map(|lane| lane.view(|view| view.end_tick)).max().unwrap_or(0);
        self.order(Order::Finish(end)).await;
        self.publish().await;
        for track in self.tracks.keys().cloned().collect::<Vec<_>>() {
            if let Some(playlist) = self.tracks.get_mut(&track).and_then(|published| published.playlist.as_mut()) {
                playlist.end();
            }
            self.put_playlist(&track).await;
        }
        for lane in &lanes {
            self.finish_track(lane, end).await;
        }
        self.recording.event("finished", serde_json::json!({ "ticks": end }));
        self.put_events().await;
        // It is finished when the store has confirmed that it is: the manifest last.
        self.put_this(Manifest { state: State::Finished, ..self.recording.manifest() }).await;
        self.recording.set_state(State::Finished);
        self.clear_spool().await;
        self.pipeline.lanes_closed(lanes.len());
        tracing::info!(recording = self.recording.id, tracks = lanes.len(), ticks = end, "recording finished");
    }

    async fn clear_spool(&self) {
        let spool = self.recording.spool.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(spool)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(recording = self.recording.id, %error, "cannot remove the finished recording from the spool");
        }
    }

    async fn finish_track(&self, lane: &Arc<Lane>, end: Tick) {
        let dir = self.recording.spool.join(&lane.track);
        let folder = format!("{}/{}", self.recording.key, lane.track);
        let Some(published) = self.tracks.get(&lane.track) else { return };
        for epoch in &published.epochs {
            if self.pipeline.makes(Output::Hls) {
                let path = dir.join(epoch).join(SEGMENTS);
                put(&self.pipeline, &self.recording, format!("{folder}/{epoch}/{SEGMENTS}"), Source::File(&path)).await;
            }
        }
        let job = AssembleJob {
            encoder: self.recording.settings.encoder.clone(),
            segment_ticks: self.recording.grid.segment_ticks,
            dir: dir.clone(),
            epochs: published.epochs.clone(),
            spans: published.spans.clone(),
            ticks: end,
            canvas: lane.view(|view| view.canvas),
            gaps: lane.view(|view| view.gaps.clone()),
            title: self.recording.participant_name(&lane.participant_id),
            origin: self.recording.origin().unwrap_or_default(),
            mp4: self.pipeline.makes(Output::Mp4),
        };
        match self.pipeline.assemble(job).await {
            Ok(assembled) => {
                let ticks = assembly::TICKS;
                put(&self.pipeline, &self.recording, format!("{folder}/{ticks}"), Source::File(&dir.join(ticks))).await;
                if let Some(mp4) = assembled {
                    let path = dir.join(&mp4.path);
                    put(&self.pipeline, &self.recording, format!("{folder}/{}", mp4.path), Source::File(&path)).await;
                    self.recording.note_mp4(&lane.track, mp4);
                }
            }
            Err(error) => {
                tracing::error!(recording = self.recording.id, track = lane.track, %error, "cannot assemble the MP4");
                self.recording.note_uploads(0, Some(format!("{}: {error}", lane.track)));
                self.recording
                    .event("assembly_failed", serde_json::json!({ "track": lane.track, "error": error.to_string() }));
            }
        }
    }

    /// The process stops: what is open is closed early, made durable, and published as far as time allows.
    async fn suspend(&mut self) {
        if self.recording.state() != State::Live {
            return self.flush_events().await;
        }
        self.recording.end_limbo();
        self.order(Order::Suspend).await;
        self.recording.event("suspended", serde_json::Value::Null);
        self.recording.set_state(State::Suspended);
        self.keep_state().await;
        self.publish().await;
        self.put_events().await;
        self.put_manifest(true).await;
        tracing::info!(recording = self.recording.id, "recording suspended");
    }

    async fn flush_events(&self) {
        self.pipeline.write_events(&self.recording);
        self.pipeline.sync_barrier().await;
    }

    async fn put_events(&self) {
        self.flush_events().await;
        let path = self.recording.spool.join(super::EVENTS);
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            let key = format!("{}/{}", self.recording.key, super::EVENTS);
            put(&self.pipeline, &self.recording, key, Source::File(&path)).await;
        }
    }
}

impl Published {
    fn note(&mut self, closed: Closed) {
        self.segments += 1;
        if self.epochs.last() != Some(&closed.epoch) {
            self.epochs.push(closed.epoch.clone());
        }
        self.spans.push((closed.line.first_tick, closed.line.ticks, closed.path));
    }
}

/// The manifest without what changes with every picture.
fn without_counters(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for track in &mut manifest.tracks {
        track.ledger = Default::default();
        track.end_tick = None;
    }
    manifest
}

enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Puts an object, for as long as it takes: the store's errors never fail a recording.
async fn put(pipeline: &Pipeline, recording: &Recording, key: String, source: Source<'_>) {
    let key = Key::parse(key).expect("keys are made of safe components");
    let mut wait = RETRY_FIRST;
    loop {
        let result: Result<(), PutError> = match source {
            Source::Bytes(bytes) => pipeline.objects.put(&key, bytes.to_vec()).await,
            Source::File(path) => pipeline.objects.put_file(&key, path).await,
        };
        let Err(error) = result else { return recording.note_uploads(0, None) };
        tracing::warn!(recording = recording.id, %error, again_in = ?wait, "the store did not take an object");
        recording.note_uploads(1, Some(error.to_string()));
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}
