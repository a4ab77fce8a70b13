//! What is counted at the doors: who was refused, who was let in for less, what was told to others.

use prometheus_client::registry::Registry;

use super::{Metrics, ReasonLabel};

impl Metrics {
    pub(super) fn register_doors(&self, r: &mut Registry) {
        r.register("sockets_refused", "Connections and upgrades refused", self.sockets_refused.clone());
        let refused = "Requests refused for want of permission, and connections over the limit";
        r.register("events_told", "Tries to tell an event", self.events_told.clone());
        r.register("requests_refused", refused, self.requests_refused.clone());
        r.register(
            "sockets_limited",
            "Upgrades let in for recordings that are here alone",
            self.sockets_limited.clone(),
        );
    }

    /// Counts an upgrade that was refused; says the how manieth of this reason it is.
    pub fn socket_refused(&self, reason: &'static str) -> u64 {
        self.sockets_refused.get_or_create(&ReasonLabel { reason }).inc() + 1
    }

    /// Counts a connection that was one too many; says the how manieth it is.
    pub fn connection_refused(&self) -> u64 {
        self.socket_refused("connections")
    }

    /// Counts an upgrade that was let in for recordings that are here alone.
    pub fn socket_limited(&self, reason: &'static str) {
        self.sockets_limited.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a request that was refused for want of permission, or a connection over the limit.
    pub fn request_refused(&self, reason: &'static str) {
        self.requests_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a try to tell an event: taken, failed, given_up, or lost before it was kept. Says the how manieth of this
    /// outcome it is.
    pub fn event_told(&self, reason: &'static str) -> u64 {
        self.events_told.get_or_create(&ReasonLabel { reason }).inc() + 1
    }
}
