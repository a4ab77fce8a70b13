//! The end of a recording: no more media, which no store can keep from happening; then the MP4 and lists of each track,
//! made and put into the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use crate::config::Output;
use crate::media::{Micros, Tick};
use crate::pipeline::Pipeline;
use crate::pipeline::assembly::{self, AssembleJob, AssemblyError};
use crate::pipeline::delivery;
use crate::pipeline::lane::{Lane, Order};
use crate::pipeline::recording::Recording;
use crate::pipeline::store::manifest::Mp4Manifest;
use crate::pipeline::store::objects::{Class, RETRY_FIRST, RETRY_LAST};
use crate::pipeline::store::spool::SEGMENTS;

use super::Keeper;
use super::published::{Source, put};
use super::stock::Item;

/// Lanes stop within milliseconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Goes on with `turn`, for as long as the store takes. Where the recording is to be finished meanwhile, its media end
/// beside it: then this gives the tick after the last one.
pub(super) async fn beside<T>(
    turn: impl Future<Output = T>,
    pipeline: &Pipeline,
    recording: &Arc<Recording>,
) -> (T, Option<Tick>) {
    let mut turn = std::pin::pin!(turn);
    tokio::select! {
        turned = &mut turn => (turned, None),
        () = recording.to_finish() => {
            let (turned, end) = tokio::join!(turn, end_media(pipeline, recording));
            (turned, Some(end))
        }
    }
}

/// Ends the media of a recording that is to be finished, and keeps in the spool that it is. Asks nothing of the store. Gives
/// the tick after the last one.
pub(super) async fn end_media(pipeline: &Pipeline, recording: &Arc<Recording>) -> Tick {
    let placed = recording.end_limbo(pipeline.clock.mono());
    pipeline.keep_state(recording).await;
    delivery::deliver_all(pipeline, placed).await;
    let lanes = order(recording, Order::Flush).await;
    let end = lanes.iter().filter_map(|lane| lane.view(|view| view.end_tick)).max().unwrap_or(0);
    let lanes = order(recording, Order::Finish(end)).await;
    // Their encoders are closed: however long MP4s and the store take, others find that memory.
    lanes.iter().for_each(|lane| lane.close());
    end
}

/// Orders all lanes, waits until each has carried it out and its segments are durable.
pub(super) async fn order(recording: &Recording, order: Order) -> Vec<Arc<Lane>> {
    let lanes = recording.lanes();
    lanes.iter().for_each(|lane| lane.order(order));
    let done = |lane: &Arc<Lane>| lane.is_deleted() || lane.view(|view| view.done == Some(order) && view.syncing == 0);
    while !lanes.iter().all(done) {
        recording.changed.notified().await;
    }
    lanes
}

/// Makes the lanes of a recording that is to be deleted write nothing any more.
pub(super) async fn stop_writing(recording: &Recording) {
    drop(recording.end_limbo(Micros(0)));
    // One whose encoder fails for ever must not keep the rest from being deleted.
    let stopped = tokio::time::timeout(STOPPED_WITHIN, order(recording, Order::Suspend)).await;
    if stopped.is_err() {
        tracing::warn!(recording = recording.id(), "a lane of a recording that is to be deleted does not stop");
    }
    recording.lanes().iter().for_each(|lane| lane.close());
}

impl Keeper {
    /// Whether all that was asked for of the track is in the store.
    pub(super) async fn finish_track(&self, lane: &Arc<Lane>, end: Tick) -> bool {
        let dir = self.recording.spool.join(&lane.track);
        let folder = self.recording.key(&lane.track);
        let Some(published) = self.tracks.get(&lane.track) else { return true };
        let published = published.lock().await;
        let job = AssembleJob {
            encoder: self.recording.settings.encoder(lane.kind).clone(),
            segment_ticks: self.recording.grid.segment_ticks,
            fill: self.recording.settings.fill,
            dir: dir.clone(),
            epochs: published.epochs.clone(),
            spans: lane.view(|view| view.closed.iter().map(|one| (one.first_tick, one.ticks, one.path())).collect()),
            ticks: end,
            canvas: lane.view(|view| view.canvas),
            gaps: lane.view(|view| view.gaps.clone()),
            title: self.recording.participant_name(&lane.participant_id),
            origin: self.recording.origin().unwrap_or_default(),
            mp4: self.pipeline.makes(Output::Mp4),
        };
        // What is gone from the spool may be in no store: nobody clears the rest away.
        let inits = published.inits.iter().map(|init| dir.join(init));
        for path in job.spans.iter().map(|span| span.2.clone()).chain(inits) {
            if !tokio::fs::try_exists(&path).await.unwrap_or(true) {
                let detail = serde_json::json!({ "track": lane.track, "file": path.display().to_string() });
                self.recording.event("spool_file_lost", detail);
                return false;
            }
        }
        let segments: Vec<PathBuf> = job.spans.iter().map(|span| span.2.clone()).collect();
        // The turn is held until what was read back may leave again.
        let Some((assembled, _turn)) = self.assemble(lane, job).await else { return false };
        let hls = self.pipeline.makes(Output::Hls);
        let lists = published.epochs.iter().filter(|_| hls).map(|epoch| dir.join(epoch).join(SEGMENTS));
        let mp4 = assembled.as_ref().map(|mp4| dir.join(&mp4.path));
        let item = |path: PathBuf| {
            let below = path.strip_prefix(&dir).expect("a track's files lie in its folder").display();
            Item { key: format!("{folder}/{below}"), path }
        };
        let last: Vec<Item> = lists.chain([dir.join(assembly::TICKS)]).chain(mp4.clone()).map(item).collect();
        let mut whole = true;
        for Item { key, path } in &last {
            let source = Source::File(path);
            whole &= put(&self.pipeline, &self.recording, Class::Finished, key.clone(), source).await;
        }
        let live = segments.into_iter().chain(published.inits.iter().map(|init| dir.join(init)));
        let items: Vec<Item> = live.filter(|_| hls).map(item).chain(last).collect();
        self.take_stock(&lane.track, &items).await;
        if let (Some(mp4), Some(path)) = (assembled, mp4) {
            self.recording.note_mp4(&lane.track, mp4);
            // Made again from the segments, should it come to that.
            if self.pipeline.config.spool_keep.is_none() {
                let space = Arc::clone(&self.pipeline.space);
                let _ = tokio::task::spawn_blocking(move || space.remove(&path)).await;
            }
        }
        if hls && whole {
            self.let_leave(&lane.view(|view| view.closed.clone())).await;
        }
        whole
    }

    /// Reads back what left of a track, in its turn, and assembles it: again and again where the disk is in the way; `None`
    /// when its segments are.
    async fn assemble(
        &self,
        lane: &Lane,
        job: AssembleJob,
    ) -> Option<(Option<Mp4Manifest>, Option<SemaphorePermit<'_>>)> {
        let mut wait = RETRY_FIRST;
        for nth in 1_u64.. {
            let left = self.left(lane).await;
            let turn = if left.is_empty() { None } else { self.pipeline.reading_back.acquire().await.ok() };
            let made = match self.read_back(lane, &left).await {
                Ok(true) => self.pipeline.assemble(job.clone()).await,
                Ok(false) => return None,
                Err(source) => Err(AssemblyError::Io { path: job.dir.clone(), source }),
            };
            let error = match made {
                Ok(assembled) => return Some((assembled, turn)),
                Err(error) => error,
            };
            if nth.is_power_of_two() {
                tracing::error!(recording = self.recording.id(), track = lane.track, %error, "cannot assemble the MP4");
            }
            self.recording.note_uploads(1, Some(format!("{}: {error}", lane.track)));
            if !error.is_transient() {
                let detail = serde_json::json!({ "track": lane.track, "error": error.to_string() });
                self.recording.event("assembly_failed", detail);
                return None;
            }
            // Whoever has the next turn may need the room.
            self.let_leave(&left).await;
            drop(turn);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
        None
    }
}
