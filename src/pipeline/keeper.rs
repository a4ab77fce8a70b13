//! The keeper of a recording: one tokio task that publishes what became durable, and carries the recording to its end.
//!
//! It does no pixel work and writes no file: it orders, waits, and puts objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use futures::stream::{self, StreamExt};
use tokio::sync::Mutex;

use crate::media::{Micros, Tick};

use super::Pipeline;
use super::delivery;
use super::lane::Order;
use super::recording::Recording;
use super::state::RecordingState;
use super::store::manifest::{Manifest, State};
use super::store::objects::Class;

/// The manifest is written at least this often while anything changes in it.
const MANIFEST_EVERY: Duration = Duration::from_secs(30);
/// Tracks of a recording whose MP4 is in the making or on its way: one is put while the next is put together.
pub(super) const FINISHING_AT_ONCE: usize = 2;

mod back;
mod beat;
mod books;
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
    /// Length of the events that the store has: they only grow, until a track is deleted.
    events_bytes: Option<u64>,
    /// As of which change for deleted tracks the store has events and manifest.
    erased: u64,
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
            events_bytes: None,
            erased: 0,
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
            biased;
            // Whatever is on its way to the store ends here.
            () = recording.to_delete() => stop_writing(&recording).await,
            () = self.live() => {}
            () = beats => {}
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
                    self.put_without_deleted().await;
                    self.publish().await;
                    // Its bell may have been heard there.
                    self.put_without_deleted().await;
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

    /// Puts events and manifest at once where they are to say less, because a track was deleted.
    async fn put_without_deleted(&mut self) {
        let erased = self.recording.erased();
        if erased == self.erased {
            return;
        }
        self.events_bytes = None;
        self.put_events().await;
        self.put_this(self.recording.manifest()).await;
        self.erased = erased;
        self.recording.tell_erased(erased);
    }

    /// The uploads of the end, after the media's. Gives the tick after the last one when all is in the store but the last
    /// manifest; `None` when the recording failed.
    async fn finish(&mut self, end: Tick) -> Option<Tick> {
        if self.settle().await != Settled::Yes {
            return None;
        }
        self.put_without_deleted().await;
        self.put_manifest(true).await;
        let lanes = self.recording.lanes();
        self.publish().await;
        lanes.iter().for_each(|lane| lane.view(forget_unwritten));
        join_all(lanes.iter().map(|lane| lane.unless_deleted(self.end_playlist(lane)))).await;
        let finished: Vec<_> =
            lanes.iter().map(|lane| lane.unless_deleted(self.finish_track(lane, end)).boxed()).collect();
        let finished = stream::iter(finished).buffer_unordered(FINISHING_AT_ONCE);
        let whole = finished.fold(true, |whole, one| async move { whole && one != Some(false) }).await;
        if !whole {
            self.put_events().await;
            self.recording.set_state(State::Failed);
            self.pipeline.keep_state(&self.recording).await;
            self.put_manifest(true).await;
            tracing::error!(recording = self.recording.id(), "recording failed; its spool is kept");
            return None;
        }
        self.recording.event("finished", serde_json::json!({ "ticks": end }));
        self.put_events().await;
        Some(end)
    }

    /// The last manifest. Where the process stops before the store has taken it, the next one does this again.
    async fn seal(&mut self, end: Tick) {
        let erased = self.recording.erased();
        if erased != self.erased {
            self.events_bytes = None;
            self.put_events().await;
        }
        // It is finished when the store has confirmed that it is: the manifest last.
        let manifest = Manifest { state: State::Finished, ..self.recording.manifest() };
        self.put_this(manifest.clone()).await;
        self.keep_beside("recording.json", &serde_json::to_vec_pretty(&manifest).unwrap_or_default()).await;
        self.recording.tell_erased(erased);
        self.put_ended().await;
        // From here on a start would find it finished in the store; only then does anybody hear of it.
        self.clear_spool().await;
        self.recording.set_state(State::Finished);
        let tracks = self.recording.lanes().len();
        tracing::info!(recording = self.recording.id(), tracks, ticks = end, "recording finished");
    }

    /// Keeps in the spool what else only the store has, where a copy is to stay.
    async fn keep_beside(&self, name: &str, bytes: &[u8]) {
        if self.pipeline.config.spool_keep.is_none() {
            return;
        }
        match tokio::fs::write(self.recording.spool.join(name), bytes).await {
            Ok(()) => self.pipeline.space.wrote(bytes.len() as u64),
            Err(error) => tracing::warn!(recording = self.recording.id(), name, %error, "not in the local copy"),
        }
    }

    async fn clear_spool(&self) {
        // What an earlier process began to put in parts, and this one put whole.
        if let Err(error) = self.pipeline.abort_uploads(&self.recording.spool).await {
            tracing::warn!(recording = self.recording.id(), %error, "an upload in parts stays open in the store");
        }
        if let Err(error) = self.pipeline.leave_spool(&self.recording).await {
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
}
