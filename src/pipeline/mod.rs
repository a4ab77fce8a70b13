//! Wiring only: every channel, thread and capacity of the pipeline is made here.

pub mod admission;
pub mod apart;
pub mod assembly;
pub mod budget;
mod current;
pub mod delivery;
mod disk;
pub mod encode;
pub mod entries;
pub mod erase;
mod finished;
mod heap;
pub mod ingest;
pub mod keeper;
pub mod known;
pub mod lane;
mod levels;
mod others;
pub mod outbox;
pub mod package;
pub mod pass;
pub mod recording;
pub mod registry;
mod restore;
pub mod resume;
mod retention;
pub mod schedule;
pub mod session;
pub mod shed;
pub mod state;
pub mod store;
mod telling;
mod threads;
pub mod timeline;
pub mod track;
mod units;
pub mod verify;

pub use current::Current;
pub use threads::Threads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, Output};
use crate::machine;
use crate::media::{Kind, Micros};
use crate::metrics::Metrics;
use crate::shutdown::{Stop, Stopped};

use admission::{Admission, Level};
use apart::apart;
use assembly::{ASSEMBLE_JOBS_MAX, Asked, AssembleJob, AssemblyError};
use budget::{Budget, LaneCharge, LaneMemory};
use encode::canvas::choose;
use ingest::png;
use ingest::protocol::Participant;
use keeper::Keeper;
use lane::{Lane, LaneParts, Lists};
use recording::{Recording, RecordingParts, Refused};
use registry::{Opened, Registry};
use schedule::ReadyList;
use state::RecordingSettings;
use store::keys::{self, Name};
use store::manifest::Mp4Manifest;
use store::objects::Objects;
use store::prefix::Prefix;
use store::recovery::TakenUp;
use store::space::Space;
use store::spool::TrackSpool;
use store::sync::{self, SYNC_JOBS_MAX, SyncJob};
use telling::Telling;
use threads::{hand_over, join, spawn, spawn_workers};
use track::{TrackSettings, TrackWriter};

/// Participant, clock and overload events, in the recording's folder.
pub const EVENTS: &str = "events.jsonl";
/// How often silent lanes are moved on.
const VISIT_EVERY: Duration = Duration::from_secs(1);

/// The five stages, running.
pub struct Pipeline {
    /// The options of `serve`.
    pub config: Config,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bytes in flight.
    pub budget: Budget,
    /// The media store.
    pub objects: Objects,
    /// The folder of a recording in the store, as `--store-prefix` words it.
    pub prefix: Prefix,
    /// Every recording.
    pub registry: Registry,
    settings: RecordingSettings,
    lists: Arc<Lists>,
    /// Room in the spool.
    pub space: Arc<Space>,
    /// Memory of open lanes.
    pub lane_memory: Arc<LaneMemory>,
    /// Who is let in.
    pub admission: Admission,
    cores: usize,
    writer: String,
    sync: Sender<SyncJob>,
    assemble: Sender<Asked>,
    keepers: Mutex<JoinSet<()>>,
    /// Taking up from the store: one at a time, so that none is taken up twice.
    taking_over: tokio::sync::Mutex<()>,
    /// Turns of what deletes.
    erasing: erase::Turns,
    /// Turns of tracks to be in a spool with little room once more, of all recordings.
    reading_back: tokio::sync::Semaphore,
    telling: Option<Telling>,
    stop: Stop,
}

impl Pipeline {
    /// Starts threads and the visiting task. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Text that names the option and the way out.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<(Arc<Pipeline>, Threads), String> {
        let metrics = Arc::new(Metrics::new());
        let grid = config.grid().map_err(|error| error.to_string())?;
        let prefix = config.store_prefix.parse::<Prefix>();
        let prefix = prefix.map_err(|why| format!("--store-prefix {}: {why}", config.store_prefix))?;
        encode::x264::check_all(&config).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&config.spool)
            .map_err(|error| format!("--spool {}: cannot make the folder: {error}", config.spool.display()))?;
        let space = Arc::new(Space::new(config.spool.clone(), config.spool_quota));
        let objects = Objects::open(&config.store, &config.store_options, Arc::clone(&metrics), Arc::clone(&clock))?;
        apart(&config)?;
        let cores = machine::cores();
        let workers = |asked: Option<u16>| asked.map_or(cores, usize::from);
        let (ingest_workers, encoder_workers) = (workers(config.ingest_workers), workers(config.encoder_workers));
        let lanes_max = config.lanes_max.map_or(usize::MAX, |lanes| lanes as usize);
        let lane_memory = LaneMemory::new(config.lane_memory.unwrap_or_else(|| machine::memory() / 2), lanes_max);
        let (sync, sync_jobs) = bounded(SYNC_JOBS_MAX);
        let (assemble, assemble_jobs) = bounded::<Asked>(ASSEMBLE_JOBS_MAX);
        let lists = Arc::new(Lists {
            ingest: ReadyList::new(|lane: &Lane| &lane.ingest_turn),
            encode: ReadyList::new(|lane: &Lane| &lane.encode_turn),
            load: Arc::default(),
        });
        let mut threads = Threads::default();
        spawn_workers(&mut threads, &lists, &clock, ingest_workers, encoder_workers)?;
        let (sync_clock, sync_metrics, sync_space) = (Arc::clone(&clock), Arc::clone(&metrics), Arc::clone(&space));
        threads.last.push(spawn("sync".to_owned(), move || {
            sync::run(&sync_jobs, &*sync_clock, &sync_metrics, sync_space);
        })?);
        let (assemble_clock, assemble_metrics, room) = (Arc::clone(&clock), Arc::clone(&metrics), Arc::clone(&space));
        threads.last.push(spawn("assemble".to_owned(), move || {
            assembly::run(&assemble_jobs, &*assemble_clock, &assemble_metrics, &room);
        })?);
        // Beside the start, which does not wait for it.
        let (counted, found) = (Arc::clone(&space), space.found());
        threads.last.push(spawn("count".to_owned(), move || counted.count(&found))?);
        let telling = Telling::start(&config, &metrics, &mut threads)?;
        let in_flight = config.in_flight.unwrap_or_else(|| machine::memory() / 4);
        let pipeline = Arc::new(Pipeline {
            clock,
            metrics,
            budget: Budget::new(in_flight),
            objects,
            prefix,
            registry: Registry::default(),
            settings: RecordingSettings::new(&config, grid),
            lists,
            space,
            lane_memory,
            admission: Admission::new(config.load_max),
            cores: cores.min(ingest_workers + encoder_workers),
            writer: keys::random_name(),
            sync,
            assemble,
            keepers: Mutex::default(),
            taking_over: tokio::sync::Mutex::default(),
            erasing: erase::Turns::default(),
            reading_back: tokio::sync::Semaphore::new(1),
            telling,
            stop: Stop::new(),
            config,
        });
        pipeline.begin();
        Ok((pipeline, threads))
    }

    /// Takes up what earlier processes left, and starts what is done beside the sockets.
    fn begin(self: &Arc<Self>) {
        self.go_on();
        tokio::spawn(Arc::clone(self).meet_finished());
        tokio::spawn(Arc::clone(self).watch_others());
        tokio::spawn(Arc::clone(self).keep_for_retention());
        tokio::spawn(Arc::clone(self).keep_copies());
        tokio::spawn(Arc::clone(self).give_memory_back());
        tokio::spawn(futures::future::join(Arc::clone(self).visit(), Arc::clone(self).watch_spool()));
    }

    /// Whether this output is made.
    pub fn makes(&self, output: Output) -> bool {
        self.config.outputs.contains(&output)
    }

    /// A listener for the end.
    pub fn stop_signal(&self) -> Stopped {
        self.stop.listen()
    }

    /// What takes the media of `asked`: a recording, opened where there is none. `unsure`: the store did not say whether
    /// the name is free. `None` when the process is stopping.
    pub fn open_recording(self: &Arc<Self>, asked: &Name, unsure: bool) -> Option<Opened> {
        if self.stop.is_rung() {
            return None;
        }
        let opened = self.registry.open(asked, |name, continues| {
            // The recording that has this name may be taken up from the store, or land elsewhere.
            let own = if unsure { format!(".{}", self.writer) } else { String::new() };
            Recording::new(RecordingParts {
                spool: self.spool_of(&(name.spool_folder() + &own)),
                name,
                unsure,
                continues,
                prefix: None,
                mark: keys::random_name(),
                settings: self.settings.clone(),
                alone_since: self.clock.mono(),
            })
        });
        if let Opened::New(recording) = &opened {
            let (name, continues) = (recording.name(), recording.continues());
            tracing::info!(recording = name.id, tenant = name.tenant, continues, unsure, "recording started");
            // Ahead of its events: without it a start could not take them up.
            self.write_state(recording, &recording.persistent());
            self.tell_started(recording);
            self.keep(Keeper::new(Arc::clone(self), Arc::clone(recording)));
            let level = self.lists.load.level();
            if level != Level::Normal {
                recording.overloaded(level, self.load_percent());
            }
        }
        Some(opened)
    }

    /// Starts the life of a keeper.
    fn keep(self: &Arc<Self>, keeper: Keeper) {
        let pipeline = Arc::clone(self);
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        while keepers.try_join_next().is_some() {}
        keepers.spawn(async move {
            let recording = keeper.recording();
            Box::pin(keeper.run()).await;
            pipeline.tell_ended(&recording);
            pipeline.registry.ended(&recording);
            recording.leave();
        });
    }

    fn spool_of(&self, key: &str) -> PathBuf {
        self.config.spool.join(key)
    }

    /// The lane of a participant and kind.
    ///
    /// # Errors
    /// When the recording or the process has as many lanes as it may. `first` is what its first capture says of itself.
    pub fn open_lane(
        self: &Arc<Self>,
        recording: &Recording,
        participant: &Participant,
        kind: Kind,
        first: Option<&png::Header>,
    ) -> Result<Arc<Lane>, Refused> {
        let mut is_new = false;
        let lane = recording.lane(participant, kind, self.config.recording_lanes_max as usize, |recording| {
            let (width, height) = first.map_or((0, 0), |header| (header.width, header.height));
            let canvas = choose(width, height, recording.settings.canvas_max);
            let memory = self.lane_memory.open(Lane::bytes(canvas))?;
            is_new = true;
            Some(self.make_lane(recording, &participant.id, kind, memory, None))
        })?;
        if is_new {
            self.tell_track_started(recording, &lane.track);
        }
        Ok(lane)
    }

    fn make_lane(
        &self,
        recording: &Recording,
        participant_id: &str,
        kind: Kind,
        memory: LaneCharge,
        taken: Option<&TakenUp>,
    ) -> Arc<Lane> {
        let track = keys::track(participant_id, kind);
        let settings = TrackSettings {
            rules: recording.settings.rules(kind),
            encoder: recording.settings.encoder(kind).clone(),
            kept: Arc::clone(&recording.kept),
            recording: recording.settings.clone(),
            spool: TrackSpool {
                dir: recording.spool.join(&track),
                writer: self.writer.clone(),
                sync: self.sync.clone(),
                space: Arc::clone(&self.space),
            },
            load: Arc::clone(&self.lists.load),
        };
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        let writer = match taken {
            None => TrackWriter::new(settings, clock, metrics),
            Some(taken) => TrackWriter::resume(settings, taken, clock, metrics),
        };
        Lane::new(LaneParts {
            recording_id: recording.id(),
            track,
            participant_id: participant_id.to_owned(),
            kind,
            captures_max: self.config.lane_captures.into(),
            pictures_max: self.config.lane_pictures.into(),
            writer,
            memory,
            lists: Arc::clone(&self.lists),
            metrics: Arc::clone(&self.metrics),
            changed: Arc::clone(&recording.changed),
        })
    }

    /// Assembles a track on the thread for it.
    ///
    /// # Errors
    /// Of the spool's files; when the process is stopping.
    pub async fn assemble(&self, job: AssembleJob) -> Result<Option<Mp4Manifest>, AssemblyError> {
        let (answer, hears) = oneshot::channel();
        hand_over(&self.assemble, (job, answer)).await;
        hears.await.unwrap_or(Err(AssemblyError::Stopping))
    }

    /// The one visit per recording and second.
    async fn visit(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let mut every = tokio::time::interval(VISIT_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let grace = Micros::from(self.config.reconnect_grace);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.wait() => return,
            }
            let now = self.clock.mono();
            self.look_at_load(now);
            for recording in self.registry.all() {
                recording.visit(now, grace);
                if !self.space.is_disk_full() {
                    self.write_events(&recording);
                }
                let placed = recording.leave_limbo(now);
                // Ahead of its first capture, whose time limbo may just have settled.
                self.write_missing_state(&recording);
                if !placed.is_empty() {
                    let pipeline = Arc::clone(&self);
                    tokio::spawn(async move { delivery::deliver_all(&pipeline, placed).await });
                }
            }
        }
    }

    /// Suspends every recording, within `limit`. Returns whether all keepers came to their end.
    pub async fn suspend(&self, limit: Duration) -> bool {
        self.stop.ring();
        let mut keepers = std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while keepers.join_next().await.is_some() {} };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// Ends the workers once their lists are empty: in data order, each stage after the one before it.
    pub fn stop_workers(&self, threads: &mut Threads) {
        threads.ingest.iter().for_each(|_| self.lists.ingest.stop_one());
        join(&mut threads.ingest);
        threads.encode.iter().for_each(|_| self.lists.encode.stop_one());
        join(&mut threads.encode);
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipeline")
    }
}
