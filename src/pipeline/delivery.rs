//! A capture's way from its socket into its lane: the budget first, then a place, for as long as the socket has patience.

use std::sync::Arc;
use std::time::Duration;

use crate::media::Micros;

use super::Pipeline;
use super::budget::Charge;
use super::ingest::Capture;
use super::lane::{Expected, Queued};
use super::shed::Patience;

/// A capture that wants into a lane.
pub struct Offer {
    /// Where it belongs, and is expected.
    pub lane: Expected,
    /// The capture.
    pub capture: Capture,
    /// Bytes of its message.
    pub message_bytes: u64,
    /// Bytes of the picture it becomes, decoder's scratch included.
    pub picture_bytes: u64,
}

/// Waits for the budget and for a place in the lane. When the patience ends first, the capture is shed.
pub async fn deliver(pipeline: &Pipeline, patience: &mut Patience, offer: Offer) {
    let Offer { mut lane, capture, message_bytes, picture_bytes } = offer;
    let clock = &pipeline.clock;
    let since = clock.mono();
    let at = capture.at;
    if lane.sheds_next() {
        return lane.shed(at);
    }
    let Some(charge) = charge(pipeline, message_bytes + picture_bytes).await else {
        patience.held(since, clock.mono());
        return lane.shed(at);
    };
    let mut queued = Queued { capture, charge };
    loop {
        // Heard of from before the offer on, so that no slot is missed.
        let of = Arc::clone(&lane);
        let mut freed = std::pin::pin!(of.freed().notified());
        freed.as_mut().enable();
        match lane.offer(queued) {
            Ok(()) => break,
            Err(back) => (lane, queued) = back,
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

/// Delivers captures that come from no socket now: their doubt is over.
pub async fn deliver_all(pipeline: &Pipeline, offers: Vec<Offer>) {
    let mut patience = Patience::new(Micros::from(pipeline.config.patience));
    for offer in offers {
        deliver(pipeline, &mut patience, offer).await;
    }
}

/// Waits for the budget while others give bytes back. `None` when nobody did for as long as the patience lasts: what
/// holds the budget then are pictures that wait for a time that only further messages bring.
async fn charge(pipeline: &Pipeline, bytes: u64) -> Option<Charge> {
    let mut charge = std::pin::pin!(pipeline.budget.charge(bytes));
    loop {
        let before = pipeline.budget.given_back();
        match tokio::time::timeout(pipeline.config.patience, &mut charge).await {
            Ok(charge) => return Some(charge),
            Err(_) if pipeline.budget.given_back() == before => return None,
            Err(_) => {}
        }
    }
}
