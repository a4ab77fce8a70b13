//! A recording's sign of life in the store: its entry in `_live`, written again and again while its keeper lives. Whoever
//! sees it stand still for long takes the recording up.

use std::sync::Arc;

use crate::pipeline::Pipeline;
use crate::pipeline::entries::beat_every;
use crate::pipeline::known::SAID_WITHIN;
use crate::pipeline::recording::Recording;
use crate::pipeline::store::objects::PutError;

/// How often the entry was written, while it may be: never beside its removal.
#[derive(Debug, Default)]
pub(super) struct Beat(tokio::sync::Mutex<Option<u64>>);

impl Beat {
    /// Writes the entry for the first time; from then on it is kept up.
    pub(super) async fn begin(&self, pipeline: &Pipeline, recording: &Recording) -> Result<(), PutError> {
        let mut count = self.0.lock().await;
        pipeline.put_live(&recording.persistent(), 0).await?;
        *count = Some(0);
        Ok(())
    }

    /// From here on it is not written any more.
    pub(super) async fn end(&self) {
        *self.0.lock().await = None;
    }

    async fn go_on(&self, pipeline: &Pipeline, recording: &Recording) {
        let mut count = self.0.lock().await;
        let Some(count) = count.as_mut() else { return };
        *count += 1;
        // One try: the next beat is another.
        let state = recording.persistent();
        let put = tokio::time::timeout(SAID_WITHIN, pipeline.put_live(&state, *count));
        if !matches!(put.await, Ok(Ok(()))) {
            tracing::debug!(recording = recording.id(), "the store did not take the sign of life");
        }
    }
}

/// Keeps the entry up; never ends.
pub(super) async fn run(beat: Arc<Beat>, pipeline: Arc<Pipeline>, recording: Arc<Recording>) {
    let mut every = tokio::time::interval(beat_every(pipeline.config.reconnect_grace));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        beat.go_on(&pipeline, &recording).await;
    }
}
