//! The keeper of a recording: one tokio task that publishes what became durable, and carries the recording to its end.
//!
//! It does no pixel work and writes no file: it orders, waits, and puts objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use futures::stream::{self, StreamExt};
use tokio::sync::Mutex;

use crate::config::Output;
use crate::media::{Micros, Tick};

use super::Pipeline;
use super::delivery;
use super::lane::Order;
use super::recording::Recording;
use super::state::RecordingState;
use super::store::manifest::{Manifest, State};
use super::store::objects::Class;
use super::store::spool::SEGMENTS;

/// The manifest is written at least this often while anything changes in it.
const MANIFEST_EVERY: Duration = Duration::from_secs(30);
/// Tracks of a recording whose MP4 is in the making or on its way: one is put while the next is put together.
const FINISHING_AT_ONCE: usize = 2;

mod beat;
mod finish;
mod publish;
mod published;
mod settle;
mod stock;

use beat::Beat;
use finish::{beside, end_media, order, stop_writing};
use published::{Published, Source, forget_unwritten, put, tell_losses, without_counters};
use settle::Settled;

/// Keeps one recording until it is finished, or until the process is told to stop.
pub struct Keeper {
    pipeline: Arc<Pipeline>,
    recording: Arc<Recording>,
    /// Locked by whoever publishes a track, one at a time.
    tracks: BTreeMap<String, Arc<Mutex<Published>>>,
    /// The manifest that the store has, and since when.
    manifest: Option<(Manifest, Micros)>,
    state: Option<RecordingState>,
    /// An earlier process may have published some of it.
    resumed: bool,
    /// Where its objects lie is fixed, and the store has its entry.
    settled: bool,
    /// Length of the events that the store has: they only grow.
    events_bytes: u64,
    beat: Arc<Beat>,
}

impl Keeper {
    /// A keeper for a new recording.
    pub fn new(pipeline: Arc<Pipeline>, recording: Arc<Recording>) -> Keeper {
        Keeper {
            pipeline,
            recording,
            tracks: BTreeMap::new(),
            manifest: None,
            state: None,
            resumed: false,
            settled: false,
            events_bytes: 0,
            beat: Arc::default(),
        }
    }

    /// A keeper for a recording that an earlier process began. What that published is published again, to the letter:
    /// a playlist follows from the segments alone.
    pub fn resume(pipeline: Arc<Pipeline>, recording: Arc<Recording>) -> Keeper {
        recording.changed.notify_one();
        Keeper { resumed: true, ..Keeper::new(pipeline, recording) }
    }

    /// Whose keeper this is.
    pub fn recording(&self) -> Arc<Recording> {
        Arc::clone(&self.recording)
    }

    /// The keeper's life, and the store's sign of it.
    pub async fn run(self) {
        let (pipeline, recording) = (Arc::clone(&self.pipeline), self.recording());
        let beats = beat::run(Arc::clone(&self.beat), Arc::clone(&pipeline), Arc::clone(&recording));
        tokio::select! {
            () = self.live() => {}
            () = beats => {}
            // Whatever is on its way to the store ends here.
            () = recording.to_delete() => stop_writing(&recording).await,
        }
    }

    async fn live(mut self) {
        let mut stop = self.pipeline.stop_signal();
        let (pipeline, recording) = (Arc::clone(&self.pipeline), Arc::clone(&self.recording));
        let mut every = tokio::time::interval(self.books_every());
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        every.reset();
        loop {
            let told = tokio::select! {
                () = self.recording.changed.notified() => false,
                _ = every.tick() => true,
                () = stop.wait() => break self.suspend().await,
            };
            let turn = async {
                self.write_state();
                tell_losses(&self.recording);
                let settled = self.settle().await;
                if settled == Settled::Yes {
                    self.publish().await;
                    if told {
                        self.put_books().await;
                    }
                    self.put_manifest(told).await;
                }
                settled
            };
            // A store that fails must not keep the lanes from being flushed, nor the end from being begun.
            let (settled, ended) = tokio::select! {
                turned = beside(turn, &pipeline, &recording) => turned,
                () = stop.wait() => break self.suspend().await,
            };
            if settled == Settled::Elsewhere {
                return;
            }
            if self.recording.is_to_finish() {
                let finish = async {
                    let end = match ended {
                        Some(end) => end,
                        None => end_media(&pipeline, &recording).await,
                    };
                    self.finish(end).await
                };
                tokio::select! {
                    end = finish => if let Some(end) = end {
                        // Not cut short: once the store has its last manifest, no other one may follow.
                        self.seal(end).await;
                    },
                    () = stop.wait() => self.suspend().await,
                }
                break;
            }
        }
    }

    /// How often a track's playlist in the store is brought up to date, and the manifest on a change. A folder costs nothing.
    fn playlist_every(&self) -> Duration {
        let usual = if self.pipeline.objects.is_cloud() { MANIFEST_EVERY } else { Duration::ZERO };
        self.pipeline.config.store_options.store_playlist_every.unwrap_or(usual)
    }

    /// How often events, lists of segments, and the manifest's counters are: whoever wants them sooner asks the API.
    fn books_every(&self) -> Duration {
        let wanted = self.pipeline.config.store_options.store_playlist_every.unwrap_or(MANIFEST_EVERY);
        wanted.clamp(Duration::from_secs(1), MANIFEST_EVERY)
    }

    /// Keeps in the spool what a later process must know.
    fn write_state(&mut self) {
        let state = self.recording.persistent();
        if self.state.as_ref() != Some(&state) && self.pipeline.write_state(&self.recording, &state) {
            self.state = Some(state);
        }
    }

    /// Writes the manifest when it changed in more than its counters, or when `every` interval is over; but for its state
    /// not sooner after the last one than a manifest is wanted.
    async fn put_manifest(&mut self, every: bool) {
        let manifest = self.recording.manifest();
        let sooner = |at: Micros| self.pipeline.clock.mono() - at < Micros::from(self.playlist_every());
        let same = self.manifest.as_ref().is_some_and(|(last, at)| match every {
            true => *last == manifest,
            false if last.state == manifest.state && sooner(*at) => true,
            false => without_counters(last) == without_counters(&manifest),
        });
        if !same {
            self.put_this(manifest).await;
        }
    }

    async fn put_this(&mut self, manifest: Manifest) {
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        let key = self.recording.key("recording.json");
        put(&self.pipeline, &self.recording, Class::Live, key, Source::Bytes(&text)).await;
        self.manifest = Some((manifest, self.pipeline.clock.mono()));
    }

    /// The uploads of the end, after the media's. Gives the tick after the last one when all is in the store but the last
    /// manifest; `None` when the recording failed.
    async fn finish(&mut self, end: Tick) -> Option<Tick> {
        if self.settle().await != Settled::Yes {
            return None;
        }
        self.put_manifest(true).await;
        let lanes = self.recording.lanes();
        self.publish().await;
        lanes.iter().for_each(|lane| lane.view(forget_unwritten));
        join_all(lanes.iter().map(|lane| self.end_playlist(lane))).await;
        let finished: Vec<_> = lanes.iter().map(|lane| self.finish_track(lane, end).boxed()).collect();
        let finished = stream::iter(finished).buffer_unordered(FINISHING_AT_ONCE);
        let whole = finished.fold(true, |whole, one| async move { whole && one }).await;
        if !whole {
            self.put_events().await;
            self.recording.set_state(State::Failed);
            self.pipeline.keep_state(&self.recording).await;
            self.put_manifest(true).await;
            lanes.iter().for_each(|lane| lane.close());
            tracing::error!(recording = self.recording.id(), "recording failed; its spool is kept");
            return None;
        }
        self.recording.event("finished", serde_json::json!({ "ticks": end }));
        self.put_events().await;
        Some(end)
    }

    /// The last manifest. Where the process stops before the store has taken it, the next one does this again.
    async fn seal(&mut self, end: Tick) {
        // It is finished when the store has confirmed that it is: the manifest last.
        self.put_this(Manifest { state: State::Finished, ..self.recording.manifest() }).await;
        self.put_ended().await;
        // From here on a start would find it finished in the store; only then does anybody hear of it.
        self.clear_spool().await;
        self.recording.set_state(State::Finished);
        let lanes = self.recording.lanes();
        lanes.iter().for_each(|lane| lane.close());
        tracing::info!(recording = self.recording.id(), tracks = lanes.len(), ticks = end, "recording finished");
    }

    async fn clear_spool(&self) {
        let removed = self.pipeline.remove_from_spool(self.recording.spool.clone()).await;
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(recording = self.recording.id(), %error, "cannot remove the finished recording from the spool");
        }
    }

    /// The process stops: what is open is closed early, made durable, and published as far as time allows. One that is
    /// being finished stays so, and is taken up again at its end.
    async fn suspend(&mut self) {
        let state = self.recording.state();
        if !matches!(state, State::Live | State::Finishing) {
            return;
        }
        let live = state == State::Live;
        if live {
            // From here on nothing more is taken.
            self.recording.set_state(State::Suspended);
        }
        let placed = self.recording.end_limbo(self.pipeline.clock.mono());
        // Before the lanes: their pictures wait for it, and the origin may be theirs.
        self.pipeline.keep_state(&self.recording).await;
        delivery::deliver_all(&self.pipeline, placed).await;
        order(&self.recording, Order::Suspend).await;
        if live {
            self.recording.event("suspended", serde_json::Value::Null);
        }
        self.pipeline.keep_state(&self.recording).await;
        self.flush_events().await;
        // One that had only just begun is not yet known to the store.
        if self.settle().await == Settled::Yes {
            self.publish().await;
            self.put_books().await;
            self.put_manifest(true).await;
        }
        tracing::info!(recording = self.recording.id(), "recording suspended");
    }

    /// Puts what would be lost with the spool: what happened, and the lists of segments that are new since the last time.
    async fn put_books(&mut self) {
        self.put_events().await;
        for (track, published) in self.tracks.iter().filter(|_| self.pipeline.makes(Output::Hls)) {
            let mut published = published.lock().await;
            let (segments, epochs) = published.listed;
            if segments == published.segments {
                continue;
            }
            for epoch in &published.epochs[epochs..] {
                let tail = format!("{track}/{epoch}/{SEGMENTS}");
                let path = self.recording.spool.join(&tail);
                // A full disk may not have taken a line yet.
                if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
                    continue;
                }
                let key = self.recording.key(&tail);
                put(&self.pipeline, &self.recording, Class::Live, key, Source::File(&path)).await;
            }
            published.listed = (published.segments, published.epochs.len().saturating_sub(1));
        }
    }

    async fn flush_events(&self) {
        tell_losses(&self.recording);
        self.pipeline.write_events(&self.recording);
        self.pipeline.sync_barrier().await;
    }

    async fn put_events(&mut self) {
        self.flush_events().await;
        let path = self.recording.spool.join(super::EVENTS);
        let bytes = tokio::fs::metadata(&path).await.map_or(0, |meta| meta.len());
        if bytes != self.events_bytes {
            let key = self.recording.key(super::EVENTS);
            put(&self.pipeline, &self.recording, Class::Live, key, Source::File(&path)).await;
            self.events_bytes = bytes;
        }
    }
}
