//! A capture's way from its socket into its lane: the budget first, then a place, for as long as the socket has patience.

use std::sync::Arc;
use std::time::Duration;

use crate::media::Micros;

use super::Pipeline;
use super::ingest::Capture;
use super::lane::{Lane, Queued};
use super::shed::Patience;

/// A capture that wants into a lane.
pub struct Offer {
    /// Where it belongs.
    pub lane: Arc<Lane>,
    /// The capture.
    pub capture: Capture,
    /// Bytes of its message.
    pub message_bytes: u64,
    /// Bytes of the picture it becomes, decoder's scratch included.
    pub picture_bytes: u64,
}

/// Waits for the budget and for a place in the lane. When the patience ends first, the capture is shed.
pub async fn deliver(pipeline: &Pipeline, patience: &mut Patience, offer: Offer) {
    let Offer { lane, capture, message_bytes, picture_bytes } = offer;
    let clock = &pipeline.clock;
    let since = clock.mono();
    let at = capture.at;
    if lane.sheds_next() {
        return lane.shed(at);
    }
    let charge = pipeline.budget.charge(message_bytes + picture_bytes).await;
    let mut queued = Queued { capture, charge, message_bytes };
    loop {
        let mut freed = std::pin::pin!(lane.freed().notified());
        freed.as_mut().enable();
        match lane.offer(queued) {
            Ok(()) => break,
            Err(back) => queued = back,
        }
        let now = clock.mono();
        let until = patience.until(since, lane.freed_at(), now);
        if now >= until {
            lane.shed_more();
            lane.shed(at);
            break;
        }
        let wait = Duration::from_micros((until - now).0.max(0) as u64);
        let _ = tokio::time::timeout(wait, freed).await;
    }
    let now = clock.mono();
    patience.held(since, now);
    // Below a millisecond nothing was full.
    if now - since > Micros(1000) {
        pipeline.metrics.socket_waited.inc_by((now - since).as_secs_f64());
    }
}
