//! What is counted of the store: requests, for they have a price; damage; how far uploads lag behind.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Levels;
use super::labels::OperationLabel;

/// The store's metrics.
#[derive(Default)]
pub struct StoreMetrics {
    /// Objects that the store had other bytes of than it was given.
    pub damaged: Counter,
    /// Answers of the store that say "slow down".
    pub throttled: Counter,
    /// Whether the store gives no answer: 1, else 0.
    pub away: Gauge,
    requests: Family<OperationLabel, Counter>,
    uploads: Gauge,
    uploads_limit: Gauge,
    upload_age: Gauge<f64, AtomicU64>,
}

impl StoreMetrics {
    /// Counts a request to a cloud's store.
    pub fn request(&self, operation: &'static str) {
        self.requests.get_or_create(&OperationLabel { operation }).inc();
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let damaged = self.damaged.clone();
        r.register("objects_damaged", "Objects that the store had other bytes of than it was given", damaged);
        r.register("store_away", "1 while the store gives no answer", self.away.clone());
        r.register("store_requests", "Requests to a cloud's store, by what they do", self.requests.clone());
        r.register("store_throttled", "Answers of the store that say slow down", self.throttled.clone());
        r.register("uploads", "Uploads under way", self.uploads.clone());
        r.register("uploads_limit", "Uploads that may be under way, as the store bears it", self.uploads_limit.clone());
        let age = self.upload_age.clone();
        r.register_with_unit("upload_age", "How long the oldest object on its way has waited", Unit::Seconds, age);
    }

    pub(super) fn set(&self, levels: &Levels) {
        self.uploads.set(levels.uploads.0 as i64);
        self.uploads_limit.set(levels.uploads.1 as i64);
        self.upload_age.set(levels.upload_age.as_secs_f64());
    }
}
