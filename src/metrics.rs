//! What the process counts, in Prometheus form. No label names a recording, participant, bot or tenant.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::media::{DiscardReason, Kind, Micros};

mod doors;
mod labels;
mod places;
mod store;

pub use labels::{EventLabel, KindLabel, LevelLabel, LossLabel, QueueLabel, ReasonLabel, StageLabel, StateLabel};
pub use places::{Queue, Stage};
pub use store::StoreMetrics;

/// Buckets of the delay that our own work puts on a part, in seconds.
const PART_DELAYS: [f64; 14] = [0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.5, 1.0, 4.0];

/// Buckets of the time that a capture waits in a queue, in seconds: from nothing to where a socket loses its patience.
const WAITS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 10.0];

/// Names of events that get a label of their own; more are counted together, so that a sender cannot grow the metrics.
const EVENT_NAMES_MAX: usize = 64;

/// Every metric of the process. Cheap to update from any thread.
pub struct Metrics {
    registry: Registry,
    captures_received: Family<KindLabel, Counter>,
    pictures_encoded: Family<KindLabel, Counter>,
    ticks_held: Family<KindLabel, Counter>,
    ticks_filled: Family<KindLabel, Counter>,
    captures_discarded: Family<LossLabel, Counter>,
    messages_rejected: Family<ReasonLabel, Counter>,
    messages_ignored: Family<EventLabel, Counter>,
    lanes_refused: Family<ReasonLabel, Counter>,
    stage_seconds: Family<StageLabel, Histogram>,
    part_delay: Histogram,
    queue_wait: Family<QueueLabel, Histogram>,
    /// Histograms of [`Queue::ALL`], looked up once.
    waits: [Histogram; 2],
    /// Histograms of [`Stage::ALL`], looked up once.
    stages: [Histogram; 7],
    /// Bytes of messages taken from sockets.
    pub bytes_received: Counter,
    /// Bytes put into the store.
    pub bytes_stored: Counter,
    /// Objects put into the store.
    pub objects_put: Counter,
    /// Puts that failed and are tried again.
    pub puts_failed: Counter,
    /// Requests to the store, and what it does with objects.
    pub store: StoreMetrics,
    /// Sockets opened since the start.
    pub sockets_opened: Counter,
    /// Upgrades refused, by reason.
    pub sockets_refused: Family<ReasonLabel, Counter>,
    /// Upgrades let in for recordings that are here alone, by reason.
    pub sockets_limited: Family<ReasonLabel, Counter>,
    /// Requests refused for want of permission, and connections over the limit, by reason.
    requests_refused: Family<ReasonLabel, Counter>,
    /// Events told, by what became of it.
    events_told: Family<ReasonLabel, Counter>,
    /// Seconds that sockets were held because a lane or the budget was full.
    pub socket_waited: Counter<f64, AtomicU64>,
    /// Marks that a lane dropped for newer ones.
    pub marks_dropped: Counter,
    /// Errors of encoders that cost a lane its encoder.
    pub encoders_failed: Counter,
    /// Errors of the spool that cost an epoch.
    pub spool_failed: Counter,
    sockets: Gauge,
    lanes: Gauge,
    lane_memory: Gauge,
    lane_memory_capacity: Gauge,
    load: Gauge<f64, AtomicU64>,
    overload: Gauge,
    overload_steps: Family<LevelLabel, Counter>,
    budget_used: Gauge,
    budget_capacity: Gauge,
    spool_used: Gauge,
    spool_quota: Gauge,
    spool_full: Gauge,
    half_received: Gauge,
    queue_depth: Family<QueueLabel, Gauge>,
    recordings: Family<StateLabel, Gauge>,
}

/// Gauges, measured when they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// Open sockets.
    pub sockets: u64,
    /// Open lanes.
    pub lanes: u64,
    /// Bytes that open lanes take.
    pub lane_memory_used: u64,
    /// Bytes that open lanes may take.
    pub lane_memory_capacity: u64,
    /// The load that decides who is let in: 1 is all that the workers can do.
    pub load: f64,
    /// What overload has led to: 0 nothing, 1 cheaper encoder options, 2 new bots are refused.
    pub overload: u8,
    /// Bytes in flight.
    pub budget_used: u64,
    /// Bytes that may be in flight.
    pub budget_capacity: u64,
    /// Bytes of the spool's files.
    pub spool_used: u64,
    /// Bytes that they may have.
    pub spool_quota: Option<u64>,
    /// Whether nothing is written for want of room.
    pub spool_full: bool,
    /// Bytes of messages that are not complete yet.
    pub half_received: u64,
    /// Uploads under way, and how many there may be.
    pub uploads: (usize, usize),
    /// How long the oldest object on its way to the store has waited.
    pub upload_age: Micros,
    /// Items in queues, by queue.
    pub queues: Vec<(&'static str, u64)>,
    /// Recordings by state.
    pub recordings: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// All at zero, each loss reason shown.
    pub fn new() -> Metrics {
        // Decoding takes milliseconds, an upload seconds: 0.25 ms to 16 s, doubling.
        let family = Family::<StageLabel, Histogram>::new_with_constructor(|| {
            Histogram::new((0..17).map(|power| 0.00025 * f64::from(1 << power)))
        });
        let stages = Stage::ALL.map(|stage| family.get_or_create_owned(&StageLabel { stage: stage.name() }));
        let queue_wait = Family::<QueueLabel, Histogram>::new_with_constructor(|| Histogram::new(WAITS));
        let waits = Queue::ALL.map(|queue| queue_wait.get_or_create_owned(&QueueLabel { queue: queue.name() }));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tilecast"),
            captures_received: Family::default(),
            pictures_encoded: Family::default(),
            ticks_held: Family::default(),
            ticks_filled: Family::default(),
            captures_discarded: Family::default(),
            messages_rejected: Family::default(),
            messages_ignored: Family::default(),
            lanes_refused: Family::default(),
            stage_seconds: family,
            stages,
            part_delay: Histogram::new(PART_DELAYS),
            queue_wait,
            waits,
            bytes_received: Counter::default(),
            bytes_stored: Counter::default(),
            objects_put: Counter::default(),
            puts_failed: Counter::default(),
            store: StoreMetrics::default(),
            sockets_opened: Counter::default(),
            sockets_refused: Family::default(),
            sockets_limited: Family::default(),
            requests_refused: Family::default(),
            events_told: Family::default(),
            socket_waited: Counter::default(),
            marks_dropped: Counter::default(),
            encoders_failed: Counter::default(),
            spool_failed: Counter::default(),
            sockets: Gauge::default(),
            lanes: Gauge::default(),
            lane_memory: Gauge::default(),
            lane_memory_capacity: Gauge::default(),
            load: Gauge::default(),
            overload: Gauge::default(),
            overload_steps: Family::default(),
            budget_used: Gauge::default(),
            budget_capacity: Gauge::default(),
            spool_used: Gauge::default(),
            spool_quota: Gauge::default(),
            spool_full: Gauge::default(),
            half_received: Gauge::default(),
            queue_depth: Family::default(),
            recordings: Family::default(),
        };
        for kind in [Kind::Webcam, Kind::Screenshare] {
            for reason in DiscardReason::ALL {
                let _ =
                    metrics.captures_discarded.get_or_create(&LossLabel { kind: kind.name(), reason: reason.name() });
            }
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let mut registry = Registry::with_prefix("tilecast");
        let r = &mut registry;
        r.register("captures_received", "Captures whose outcome is known", self.captures_received.clone());
        r.register("pictures_encoded", "Captures that are pictures of the output", self.pictures_encoded.clone());
        r.register("ticks_held", "Ticks that show the picture before them again", self.ticks_held.clone());
        r.register("ticks_filled", "Ticks that show the fill picture", self.ticks_filled.clone());
        r.register("captures_discarded", "Captures that are not in the output", self.captures_discarded.clone());
        r.register("messages_rejected", "Messages that no capture could be made of", self.messages_rejected.clone());
        r.register("messages_ignored", "Messages of events that are not ours", self.messages_ignored.clone());
        r.register(
            "lanes_refused",
            "Captures that were not taken, for their lane was not opened",
            self.lanes_refused.clone(),
        );
        let stages = self.stage_seconds.clone();
        r.register_with_unit("stage_duration", "Time spent on one item", Unit::Seconds, stages);
        let waits = self.queue_wait.clone();
        r.register_with_unit(
            "queue_wait",
            "Time a capture waited: from being read, or decoded, to a worker of the next stage",
            Unit::Seconds,
            waits,
        );
        let delay = self.part_delay.clone();
        r.register_with_unit(
            "part_delay",
            "From a part's newest picture being read to the part's end in the spool",
            Unit::Seconds,
            delay,
        );
        let received = self.bytes_received.clone();
        r.register_with_unit("received", "Bytes of messages taken from sockets", Unit::Bytes, received);
        r.register_with_unit("stored", "Bytes put into the store", Unit::Bytes, self.bytes_stored.clone());
        r.register("objects_put", "Objects put into the store", self.objects_put.clone());
        r.register("puts_failed", "Puts that failed and are tried again", self.puts_failed.clone());
        self.store.register(r);
        r.register("sockets_opened", "Sockets opened", self.sockets_opened.clone());
        self.register_doors(r);
        let waited = self.socket_waited.clone();
        r.register_with_unit("socket_waited", "Time sockets were held by a full lane or budget", Unit::Seconds, waited);
        let dropped = self.marks_dropped.clone();
        r.register("marks_dropped", "Words of sources (on, off, ...) that a lane dropped for newer ones", dropped);
        r.register("encoders_failed", "Encoder errors", self.encoders_failed.clone());
        r.register("spool_failed", "Spool errors that ended an epoch", self.spool_failed.clone());
        self.register_levels(r);
        self.registry = registry;
    }

    fn register_levels(&self, r: &mut Registry) {
        r.register("sockets", "Open sockets", self.sockets.clone());
        r.register("lanes", "Open lanes", self.lanes.clone());
        r.register_with_unit("lane_memory", "Bytes that open lanes are charged", Unit::Bytes, self.lane_memory.clone());
        let capacity = self.lane_memory_capacity.clone();
        r.register_with_unit("lane_memory_capacity", "Bytes that open lanes may take", Unit::Bytes, capacity);
        r.register_with_unit(
            "load",
            "Work of live meetings over what the workers can do",
            Unit::Ratios,
            self.load.clone(),
        );
        r.register(
            "overload_level",
            "0 normal, 1 cheaper encoder options, 2 new bots are refused",
            self.overload.clone(),
        );
        r.register("overload_steps", "Changes of the overload level, by the new one", self.overload_steps.clone());
        r.register_with_unit("in_flight", "Bytes of captures and pictures", Unit::Bytes, self.budget_used.clone());
        let capacity = self.budget_capacity.clone();
        r.register_with_unit("in_flight_capacity", "Bytes that may be in flight", Unit::Bytes, capacity);
        r.register_with_unit("spool_used", "Bytes of the spool's files", Unit::Bytes, self.spool_used.clone());
        let quota = self.spool_quota.clone();
        r.register_with_unit("spool_quota", "Bytes that the spool may take; 0: no quota", Unit::Bytes, quota);
        r.register("spool_full", "1 while captures are shed for want of room in the spool", self.spool_full.clone());
        let half = self.half_received.clone();
        r.register_with_unit(
            "half_received",
            "Bytes of messages that are not complete, or not in flight yet",
            Unit::Bytes,
            half,
        );
        r.register("queue_depth", "Items waiting", self.queue_depth.clone());
        r.register("recordings", "Recordings by state", self.recordings.clone());
    }

    /// Counts a capture that became a picture.
    pub fn encoded(&self, kind: Kind, n: u64) {
        let kind = KindLabel { kind: kind.name() };
        self.captures_received.get_or_create(&kind).inc_by(n);
        self.pictures_encoded.get_or_create(&kind).inc_by(n);
    }

    /// Counts ticks that were held.
    pub fn held(&self, kind: Kind, n: u64) {
        self.ticks_held.get_or_create(&KindLabel { kind: kind.name() }).inc_by(n);
    }

    /// Counts ticks that were filled.
    pub fn filled(&self, kind: Kind, n: u64) {
        self.ticks_filled.get_or_create(&KindLabel { kind: kind.name() }).inc_by(n);
    }

    /// Counts captures that are not in the output.
    pub fn discarded(&self, kind: Kind, reason: DiscardReason, n: u64) {
        self.captures_received.get_or_create(&KindLabel { kind: kind.name() }).inc_by(n);
        self.captures_discarded.get_or_create(&LossLabel { kind: kind.name(), reason: reason.name() }).inc_by(n);
    }

    /// Counts a message that no capture could be made of.
    pub fn rejected(&self, reason: &'static str) {
        self.messages_rejected.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a message of an event that is not ours. `known` says how many names were met: see [`EVENT_NAMES_MAX`].
    pub fn ignored(&self, event: &str) {
        let label = EventLabel { event: event.chars().take(64).collect() };
        let known = self.messages_ignored.get(&label).is_some();
        let room = known || self.event_names() < EVENT_NAMES_MAX;
        let label = if room { label } else { EventLabel { event: "other".to_owned() } };
        self.messages_ignored.get_or_create(&label).inc();
    }

    fn event_names(&self) -> usize {
        let mut text = String::new();
        // A family does not tell its size; new names are rare, so counting lines is good enough.
        let mut only = Registry::default();
        only.register("n", "n", self.messages_ignored.clone());
        let _ = prometheus_client::encoding::text::encode(&mut text, &only);
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    /// Counts a lane that was not opened.
    pub fn lane_refused(&self, reason: &'static str) {
        self.lanes_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a step of overload, or out of it.
    pub fn overloaded(&self, level: &'static str) {
        self.overload_steps.get_or_create(&LevelLabel { level }).inc();
    }

    /// Notes how long it took from the last byte of a part's newest picture until the part was in the spool.
    pub fn part_delayed(&self, time: Micros) {
        self.part_delay.observe(Duration::from_micros(time.0.max(0) as u64).as_secs_f64());
    }

    /// Notes how long a stage worked on one item.
    pub fn took(&self, stage: Stage, time: Micros) {
        self.stages[stage as usize].observe(Duration::from_micros(time.0.max(0) as u64).as_secs_f64());
    }

    /// Notes how long a capture waited in a queue.
    pub fn waited(&self, queue: Queue, time: Micros) {
        self.waits[queue as usize].observe(Duration::from_micros(time.0.max(0) as u64).as_secs_f64());
    }

    /// Everything in Prometheus' text form.
    pub fn text(&self, levels: &Levels) -> Result<String, fmt::Error> {
        self.sockets.set(levels.sockets as i64);
        self.lanes.set(levels.lanes as i64);
        self.lane_memory.set(levels.lane_memory_used as i64);
        self.lane_memory_capacity.set(levels.lane_memory_capacity as i64);
        self.load.set(levels.load);
        self.overload.set(levels.overload.into());
        self.budget_used.set(levels.budget_used as i64);
        self.budget_capacity.set(levels.budget_capacity as i64);
        self.spool_used.set(levels.spool_used as i64);
        self.spool_quota.set(levels.spool_quota.unwrap_or(0) as i64);
        self.spool_full.set(levels.spool_full.into());
        self.half_received.set(levels.half_received as i64);
        self.store.set(levels);
        for (queue, depth) in &levels.queues {
            self.queue_depth.get_or_create(&QueueLabel { queue }).set(*depth as i64);
        }
        for (state, count) in &levels.recordings {
            self.recordings.get_or_create(&StateLabel { state }).set(*count as i64);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_losses_show_zeros() {
        let metrics = Metrics::new();
        metrics.encoded(Kind::Webcam, 2);
        metrics.discarded(Kind::Webcam, DiscardReason::Late, 1);
        metrics.took(Stage::Decode, Micros(1500));
        let levels = Levels { lanes: 3, recordings: vec![("live", 1)], ..Levels::default() };
        let text = metrics.text(&levels).unwrap();
        for line in [
            r#"tilecast_pictures_encoded_total{kind="webcam"} 2"#,
            r#"tilecast_captures_received_total{kind="webcam"} 3"#,
            r#"tilecast_captures_discarded_total{kind="webcam",reason="late"} 1"#,
            r#"tilecast_captures_discarded_total{kind="screenshare",reason="shed"} 0"#,
            r#"tilecast_stage_duration_seconds_count{stage="decode"} 1"#,
            "tilecast_lanes 3",
            r#"tilecast_recordings{state="live"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    /// The names of ours in a text: `tilecast_` and what follows of a name.
    fn names(text: &str) -> BTreeSet<&str> {
        let starts = text.match_indices("tilecast_").map(|(at, _)| &text[at..]);
        let end = |name: &str| name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        starts.map(|name| &name[..end(name)]).collect()
    }

    #[test]
    fn the_dashboard_shows_all_there_is_and_nothing_else() {
        let dashboard = include_str!("../docker/grafana.json");
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        // What was never counted is not in the text.
        let metrics = Metrics::new();
        metrics.encoded(Kind::Webcam, 1);
        metrics.held(Kind::Webcam, 1);
        metrics.filled(Kind::Webcam, 1);
        metrics.ignored("transcript.data");
        metrics.rejected("not_json");
        metrics.lane_refused("memory");
        metrics.socket_refused("overloaded");
        metrics.socket_limited("stale_signature");
        metrics.request_refused("unauthorized");
        metrics.event_told("taken");
        metrics.overloaded("cheaper");
        metrics.store.request("put");
        let levels = Levels { queues: vec![("captures", 1)], recordings: vec![("live", 1)], ..Levels::default() };
        let text = metrics.text(&levels).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut there = BTreeSet::new();
        for (name, kind) in types {
            let suffix = match kind {
                "counter" => "_total",
                "histogram" => "_bucket",
                _ => "",
            };
            there.insert(format!("{name}{suffix}"));
        }
        let shown: BTreeSet<String> = names(dashboard).into_iter().map(str::to_owned).collect();
        assert_eq!(shown.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "no such metrics");
        assert_eq!(there.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "shown nowhere");
    }

    #[test]
    fn a_sender_cannot_grow_the_metrics() {
        let metrics = Metrics::new();
        for n in 0..200 {
            metrics.ignored(&format!("event{n}"));
        }
        assert!(metrics.event_names() <= EVENT_NAMES_MAX + 1);
    }
}
