//! A capture's way from its socket into its lane: the budget first, then a place, for as long as the socket has patience.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::media::{Kind, Micros};

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
    /// Bytes of its message, which it keeps whole.
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
    if lane.sheds_next(patience.lasts_for_ever(since, lane.freed_at())) {
        return lane.shed(at);
    }
    let Some(charge) = charge(pipeline, patience, lane.kind, since, message_bytes + picture_bytes).await else {
        patience.held(since, clock.mono());
        lane.shed_more();
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
        let until = patience.until(lane.kind, since, lane.freed_at(), now);
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

/// Waits for the budget while others give bytes back, as long as the patience lasts. `None` when it ended: at real-time pace
/// there is too much to do; else nobody gave any back, and what holds the budget are pictures that wait for a time that only
/// further messages bring.
async fn charge(pipeline: &Pipeline, patience: &Patience, kind: Kind, since: Micros, bytes: u64) -> Option<Charge> {
    let (clock, budget) = (&pipeline.clock, &pipeline.budget);
    let mut charge = std::pin::pin!(budget.charge(bytes));
    let (mut given_back, mut freed) = (budget.given_back(), since);
    loop {
        if let Poll::Ready(charge) = futures::poll!(&mut charge) {
            return Some(charge);
        }
        let now = clock.mono();
        let until = patience.until(kind, since, freed, now);
        if now >= until {
            return None;
        }
        let wait = Duration::from_micros((until - now).0.max(0) as u64);
        if let Ok(charge) = tokio::time::timeout(wait, &mut charge).await {
            return Some(charge);
        }
        if budget.given_back() != given_back {
            (given_back, freed) = (budget.given_back(), clock.mono());
        }
    }
}
