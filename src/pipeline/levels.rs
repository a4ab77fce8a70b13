//! What the pipeline says of itself as a whole: gauges, and whether there is room for more.

use crate::machine::process_cpu;
use crate::media::{Canvas, Micros};
use crate::metrics::Levels;

use super::Pipeline;
use super::admission::{Full, Level};
use super::lane::Lane;
use super::store::manifest::State;

/// What a bot sends of most cameras: where no lane of it fits, a new bot would be let in for nothing.
const USUAL: Canvas = Canvas { width: 640, height: 360 };

impl Pipeline {
    /// Gauges as of now, but for the sockets': those are the listener's to count.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels {
            lanes: self.lane_memory.lanes() as u64,
            lane_memory_used: self.lane_memory.used(),
            lane_memory_capacity: self.lane_memory.capacity(),
            load: self.admission.load(),
            overload: self.lists.load.level() as u8,
            budget_used: self.budget.used(),
            budget_capacity: self.budget.capacity(),
            spool_used: self.space.used(),
            spool_quota: self.space.quota(),
            spool_full: self.space.is_full(),
            uploads: self.objects.uploads(),
            upload_age: self.objects.oldest_awaited(),
            ..Levels::default()
        };
        let (mut captures, mut pictures) = (0, 0);
        let mut states =
            [State::Live, State::Suspended, State::Finishing, State::Finished].map(|state| (state.name(), 0));
        for recording in self.registry.all() {
            for (waiting, decoded) in recording.lanes().iter().map(|lane| lane.depths()) {
                captures += waiting as u64;
                pictures += decoded as u64;
            }
            if let Some(state) = states.iter_mut().find(|(name, _)| *name == recording.state().name()) {
                state.1 += 1;
            }
        }
        levels.queues = vec![
            ("captures", captures),
            ("pictures", pictures),
            ("ingest_ready", self.lists.ingest.len() as u64),
            ("encode_ready", self.lists.encode.len() as u64),
            ("sync", self.sync.len() as u64),
            ("assemble", self.assemble.len() as u64),
        ];
        levels.recordings = states.to_vec();
        levels
    }

    /// Looks at the load; tells of a step of overload, or out of it.
    pub(super) fn look_at_load(&self, now: Micros) {
        let Some(level) = self.admission.look(&self.lists.load, now, process_cpu(), self.cores) else { return };
        let load = self.load_percent();
        tracing::warn!(level = level.name(), load_percent = load, "overload");
        self.metrics.overloaded(level.name());
        for recording in self.registry.all() {
            recording.overloaded(level, load);
        }
    }

    pub(super) fn load_percent(&self) -> f64 {
        (self.admission.load() * 100.0).round()
    }

    /// Why a new bot is refused now, if it is.
    pub fn full(&self) -> Option<Full> {
        if self.space.is_full() {
            return Some(Full::Spool);
        }
        if self.lane_memory.is_full_for(Lane::bytes(USUAL)) {
            return Some(Full::Memory);
        }
        (self.lists.load.level() == Level::Refusing).then_some(Full::Load)
    }
}
