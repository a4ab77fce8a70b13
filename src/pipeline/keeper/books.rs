//! Puts what would be lost with the spool: what happened, and the lists of segments.

use crate::config::Output;
use crate::pipeline::EVENTS;
use crate::pipeline::lane::Lane;
use crate::pipeline::store::objects::Class;
use crate::pipeline::store::spool::SEGMENTS;

use super::Keeper;
use super::published::{Source, put, tell_losses};

impl Keeper {
    /// Puts what happened, and the lists of segments that are new since the last time.
    pub(super) async fn put_books(&mut self) {
        self.put_events().await;
        for lane in self.recording.lanes().iter().filter(|_| self.pipeline.makes(Output::Hls)) {
            lane.unless_deleted(self.put_lists(lane)).await;
        }
    }

    async fn put_lists(&self, lane: &Lane) {
        let Some(published) = self.tracks.get(&lane.track) else { return };
        let mut published = published.lock().await;
        let (segments, epochs) = published.listed;
        if segments == published.segments {
            return;
        }
        for epoch in &published.epochs[epochs..] {
            let tail = format!("{}/{epoch}/{SEGMENTS}", lane.track);
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

    pub(super) async fn flush_events(&self) {
        tell_losses(&self.recording);
        self.pipeline.write_events(&self.recording);
        self.pipeline.sync_barrier().await;
    }

    pub(super) async fn put_events(&mut self) {
        self.flush_events().await;
        let path = self.recording.spool.join(EVENTS);
        let Ok(meta) = tokio::fs::metadata(&path).await else { return };
        if self.events_bytes != Some(meta.len()) {
            let key = self.recording.key(EVENTS);
            put(&self.pipeline, &self.recording, Class::Live, key, Source::File(&path)).await;
            self.events_bytes = Some(meta.len());
        }
    }
}
