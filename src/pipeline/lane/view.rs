//! What a recording asks of a lane, and what the lane lets others see.

use std::sync::Arc;

use crate::ledger::Ledger;
use crate::media::{Canvas, Tick};
use crate::pipeline::store::manifest::{EpochManifest, Gap};
use crate::pipeline::store::spool::Closed;

use super::Lost;

/// What a recording asks of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Place every picture that waits: nothing more comes.
    Flush,
    /// Hold or fill up to this tick (exclusive) and close.
    Finish(Tick),
    /// Close what is open; a later process goes on.
    Suspend,
}

/// What others see of a lane. The encoder worker keeps it; it holds at every part.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Fixed by the first picture.
    pub canvas: Option<Canvas>,
    /// RFC 6381.
    pub codecs: Option<String>,
    /// First tick with a picture.
    pub first_tick: Option<Tick>,
    /// The tick after the last written one.
    pub end_tick: Option<Tick>,
    /// Runs of segments.
    pub epochs: Vec<EpochManifest>,
    /// Ranges without pictures.
    pub gaps: Vec<Gap>,
    /// The books.
    pub ledger: Ledger,
    /// The last order that was carried out.
    pub done: Option<Order>,
    /// Durable segments, in order; the keeper publishes them.
    pub closed: Vec<Closed>,
    /// So many of them the store's playlist names.
    pub stored: usize,
    /// So many of those left the spool, or need not be looked at again.
    pub left: usize,
    /// The playlist as of now, where the one in the store lags behind.
    pub playlist: Option<Arc<str>>,
    /// Segments that could not be made durable and were abandoned; the keeper makes events of them.
    pub lost: Vec<Lost>,
    /// Segments handed to the sync thread that it has not answered for.
    pub syncing: u32,
}
