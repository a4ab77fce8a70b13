//! The end of a recording: no more media, which no store can keep from happening; then the MP4 and lists of each track,
//! made and put into the store.

use std::sync::Arc;

use crate::config::Output;
use crate::media::Tick;
use crate::pipeline::Pipeline;
use crate::pipeline::assembly::{self, AssembleJob};
use crate::pipeline::delivery;
use crate::pipeline::lane::{Lane, Order};
use crate::pipeline::recording::Recording;
use crate::pipeline::store::manifest::Mp4Manifest;
use crate::pipeline::store::spool::SEGMENTS;

use super::Keeper;
use super::published::{RETRY_FIRST, RETRY_LAST, Source, put};

/// Goes on with `turn`, for as long as the store takes. Where the recording is to be finished meanwhile, its media end
/// beside it: then this gives the tick after the last one.
pub(super) async fn beside(
    turn: impl Future<Output = ()>,
    pipeline: &Pipeline,
    recording: &Arc<Recording>,
) -> Option<Tick> {
    let mut turn = std::pin::pin!(turn);
    tokio::select! {
        () = &mut turn => None,
        () = recording.to_finish() => {
            let ((), end) = tokio::join!(turn, end_media(pipeline, recording));
            Some(end)
        }
    }
}

/// Ends the media of a recording that is to be finished, and keeps in the spool that it is. Asks nothing of the store. Gives
/// the tick after the last one.
pub(super) async fn end_media(pipeline: &Pipeline, recording: &Arc<Recording>) -> Tick {
    let placed = recording.end_limbo(pipeline.clock.mono());
    keep_state(pipeline, recording).await;
    delivery::deliver_all(pipeline, placed).await;
    let lanes = order(recording, Order::Flush).await;
    let end = lanes.iter().filter_map(|lane| lane.view(|view| view.end_tick)).max().unwrap_or(0);
    order(recording, Order::Finish(end)).await;
    end
}

/// Keeps what a later process must know, and returns when the disk has been asked to take it.
pub(super) async fn keep_state(pipeline: &Pipeline, recording: &Arc<Recording>) {
    while !pipeline.write_state(recording, &recording.persistent()) {
        pipeline.sync_barrier().await;
    }
    pipeline.sync_barrier().await;
}

/// Orders all lanes, waits until each has carried it out and its segments are durable.
pub(super) async fn order(recording: &Recording, order: Order) -> Vec<Arc<Lane>> {
    let lanes = recording.lanes();
    lanes.iter().for_each(|lane| lane.order(order));
    let done = |lane: &Arc<Lane>| lane.view(|view| view.done == Some(order) && view.syncing == 0);
    while !lanes.iter().all(done) {
        recording.changed.notified().await;
    }
    lanes
}

impl Keeper {
    /// Whether all that was asked for of the track is in the store.
    pub(super) async fn finish_track(&self, lane: &Arc<Lane>, end: Tick) -> bool {
        let dir = self.recording.spool.join(&lane.track);
        let folder = format!("{}/{}", self.recording.key, lane.track);
        let Some(published) = self.tracks.get(&lane.track) else { return true };
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
        let Some(assembled) = self.assemble(lane, job).await else { return false };
        let mut whole = true;
        for epoch in published.epochs.iter().filter(|_| self.pipeline.makes(Output::Hls)) {
            let path = dir.join(epoch).join(SEGMENTS);
            let key = format!("{folder}/{epoch}/{SEGMENTS}");
            whole &= put(&self.pipeline, &self.recording, key, Source::File(&path)).await;
        }
        let ticks = assembly::TICKS;
        whole &=
            put(&self.pipeline, &self.recording, format!("{folder}/{ticks}"), Source::File(&dir.join(ticks))).await;
        if let Some(mp4) = assembled {
            let path = dir.join(&mp4.path);
            whole &= put(&self.pipeline, &self.recording, format!("{folder}/{}", mp4.path), Source::File(&path)).await;
            self.recording.note_mp4(&lane.track, mp4);
            // Made again from the segments, should it come to that.
            let space = Arc::clone(&self.pipeline.space);
            let _ = tokio::task::spawn_blocking(move || space.remove(&path)).await;
        }
        whole
    }

    /// Assembles a track: again and again where the disk is in the way; `None` when its segments are.
    async fn assemble(&self, lane: &Lane, job: AssembleJob) -> Option<Option<Mp4Manifest>> {
        let mut wait = RETRY_FIRST;
        for nth in 1_u64.. {
            let error = match self.pipeline.assemble(job.clone()).await {
                Ok(assembled) => return Some(assembled),
                Err(error) => error,
            };
            if nth.is_power_of_two() {
                tracing::error!(recording = self.recording.id, track = lane.track, %error, "cannot assemble the MP4");
            }
            self.recording.note_uploads(1, Some(format!("{}: {error}", lane.track)));
            if !error.is_transient() {
                let detail = serde_json::json!({ "track": lane.track, "error": error.to_string() });
                self.recording.event("assembly_failed", detail);
                return None;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
        None
    }
}
