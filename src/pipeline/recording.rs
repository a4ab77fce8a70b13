//! One recording: what it holds, and how it begins or is gone on with. Its life is in the modules below: captures' times,
//! sockets, lanes, people, events, its end, and what is told of it.
//!
//! Not here: publishing and finishing ([`super::keeper`]), pixels, sockets themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::ledger::Ledger;
use crate::media::{Grid, Kind, Micros, Tick};
use crate::shutdown::Stop;

use super::delivery::Offer;
use super::ingest::protocol::{Context, Participant};
use super::lane::Lane;
use super::state::{Kept, RecordingSettings, RecordingState};
use super::store::journal::SPOOL_VERSION;
use super::store::keys::Name;
use super::store::manifest::{Overload, State};
use super::timeline::clock::{Origin, RecordingClock};

mod deleted;
mod end;
mod events;
mod lanes;
mod overload;
mod people;
mod place;
mod socket;
mod times;
mod told;

pub use deleted::{Shows, participant_in};
pub use lanes::Refused;
use people::People;
use place::Place;
pub use socket::SocketState;
pub use told::Now;

/// What changes in a recording's life.
struct Inner {
    state: State,
    clock: RecordingClock,
    sockets: Vec<Arc<SocketState>>,
    /// When the last socket left (monotonic); also set at the start.
    alone_since: Option<Micros>,
    /// A socket is back, and no capture has said since when: the time of the loss.
    back_since: Option<Micros>,
    /// When a process first took it up with no socket since (unix).
    alone_since_unix: Option<Micros>,
    lanes: BTreeMap<(String, Kind), Arc<Lane>>,
    people: People,
    bot_id: Option<String>,
    metadata: BTreeMap<String, serde_json::Value>,
    /// Captures whose time is in doubt; the clock bounds them.
    limbo: VecDeque<Offer>,
    events: Vec<String>,
    event_bytes: usize,
    events_dropped: u64,
    /// The first of those that were refused a lane.
    refused: BTreeSet<(String, Kind)>,
    captures_refused: u64,
    mp4: BTreeMap<String, super::store::manifest::Mp4Manifest>,
    overload: Vec<Overload>,
    /// The books of tracks that were deleted.
    deleted: BTreeMap<String, Ledger>,
    /// Of them those whose lanes still write.
    stopping: BTreeSet<String>,
    /// So often the spool came to say less, because a track was deleted.
    erased: u64,
    last_error: Option<String>,
    uploads_pending: usize,
}

/// One recording.
pub struct Recording {
    place: Mutex<Place>,
    /// Made for this spool's part of it.
    pub mark: String,
    /// The recording's folder in the spool.
    pub spool: PathBuf,
    /// What its first writer fixed.
    pub settings: RecordingSettings,
    /// Its grid, which is part of that.
    pub grid: Grid,
    /// Rung when something changed that the keeper cares about.
    pub changed: Arc<Notify>,
    /// Whether its state is in the spool.
    pub kept: Arc<Kept>,
    /// Recall says that its bot does not come back.
    bot_gone: AtomicBool,
    told_to_finish: Notify,
    told_to_delete: Notify,
    /// Rung once nothing serves it any more.
    left: Stop,
    /// As of which change for deleted tracks the store says less.
    erased_told: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

/// Who a recording is.
pub struct RecordingParts {
    /// Recall's id, with `~2` and up, and the tenant whose token the bot came with.
    pub name: Name,
    /// The store has not said whether that name is free.
    pub unsure: bool,
    /// The finished recording that this one goes on from.
    pub continues: Option<String>,
    /// The recording's folder in the store, once that is resolved.
    pub prefix: Option<String>,
    /// Made for this spool's part of it.
    pub mark: String,
    /// The recording's folder in the spool.
    pub spool: PathBuf,
    /// What its first writer fixed.
    pub settings: RecordingSettings,
    /// From when its grace is counted (monotonic) until a socket joins.
    pub alone_since: Micros,
}

impl Recording {
    /// A recording that no socket has reached yet.
    pub fn new(parts: RecordingParts) -> Recording {
        Recording {
            place: Mutex::new(Place {
                name: parts.name,
                unsure: parts.unsure,
                continues: parts.continues,
                prefix: parts.prefix,
            }),
            mark: parts.mark,
            spool: parts.spool,
            grid: parts.settings.grid,
            settings: parts.settings,
            changed: Arc::new(Notify::new()),
            kept: Arc::default(),
            bot_gone: AtomicBool::new(false),
            told_to_finish: Notify::new(),
            told_to_delete: Notify::new(),
            left: Stop::new(),
            erased_told: watch::Sender::new(0),
            inner: Mutex::new(Inner {
                state: State::Live,
                clock: RecordingClock::new(),
                sockets: Vec::new(),
                alone_since: Some(parts.alone_since),
                alone_since_unix: None,
                back_since: None,
                lanes: BTreeMap::new(),
                people: People::default(),
                bot_id: None,
                metadata: BTreeMap::new(),
                limbo: VecDeque::new(),
                events: Vec::new(),
                event_bytes: 0,
                events_dropped: 0,
                refused: BTreeSet::new(),
                captures_refused: 0,
                mp4: BTreeMap::new(),
                overload: Vec::new(),
                deleted: BTreeMap::new(),
                stopping: BTreeSet::new(),
                erased: 0,
                last_error: None,
                uploads_pending: 0,
            }),
        }
    }

    /// Goes on from what an earlier process left: its origin, and the newest time that it wrote.
    pub fn go_on(
        &self,
        origin: Option<Origin>,
        last: Micros,
        bot_id: Option<String>,
        metadata: BTreeMap<String, serde_json::Value>,
        participants: Vec<Participant>,
        alone_since_unix: Micros,
    ) {
        let mut inner = self.lock();
        if let Some(origin) = origin {
            inner.clock = RecordingClock::resume(origin, last);
            self.kept.tried(true);
        }
        (inner.bot_id, inner.metadata) = (bot_id, metadata);
        inner.people = People::resume(participants);
        inner.alone_since_unix = Some(alone_since_unix);
    }

    /// Goes on with what an earlier process noted of overload; what lasted then is over.
    pub fn go_on_after_overload(&self, mut overload: Vec<Overload>, end: Tick) {
        overload.iter_mut().filter(|range| range.to_tick.is_none()).for_each(|range| range.to_tick = Some(end));
        self.lock().overload = overload;
    }

    /// Puts a lane in that an earlier process began.
    pub fn insert_lane(&self, lane: Arc<Lane>) {
        self.lock().lanes.insert((lane.participant_id.clone(), lane.kind), lane);
    }

    /// What a later process must know.
    pub fn persistent(&self) -> RecordingState {
        let place = self.place();
        let inner = self.lock();
        // While it lives its journals carry them, and change with every part.
        let lanes = inner.lanes.values().filter(|_| inner.state != State::Live);
        let books = lanes.map(|lane| (lane.track.clone(), lane.view(|view| view.ledger.clone()))).collect();
        RecordingState {
            spool: SPOOL_VERSION,
            recording_id: place.name.id,
            tenant: place.name.tenant,
            continues: place.continues,
            mark: self.mark.clone(),
            unsure: place.unsure,
            prefix: place.prefix,
            state: inner.state,
            settings: self.settings.clone(),
            origin: inner.clock.origin(),
            bot_id: inner.bot_id.clone(),
            metadata: inner.metadata.clone(),
            participants: inner.people.all(),
            deleted: inner.kept_deleted(),
            overload: inner.overload.clone(),
            alone_since: inner.alone_since_unix,
            books,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sync thread tried to write its state: its lanes go on.
    pub fn state_tried(&self, written: bool) {
        let waited = !self.kept.is_tried();
        self.kept.tried(written);
        if waited {
            self.lanes().iter().for_each(|lane| lane.state_tried());
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// Moves it to another state, unless it is deleted.
    pub fn set_state(&self, state: State) {
        let mut inner = self.lock();
        if inner.state != State::Deleted {
            inner.state = state;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Notes what every message says about the recording's bot.
    pub fn note_context(&self, context: &Context) {
        let mut inner = self.lock();
        if inner.bot_id.is_none() {
            inner.bot_id.clone_from(&context.bot_id);
        }
        for (name, raw) in ["bot", "recording", "realtime_endpoint"].into_iter().zip(&context.metadata) {
            if let Some(raw) = raw
                && !inner.metadata.contains_key(name)
                && let Ok(value) = serde_json::from_str(&raw.0)
            {
                inner.metadata.insert(name.to_owned(), value);
            }
        }
    }

    /// Every lane.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lock().lanes.values().cloned().collect()
    }

    /// Keeps a finished MP4.
    pub fn note_mp4(&self, track: &str, mp4: super::store::manifest::Mp4Manifest) {
        self.lock().mp4.insert(track.to_owned(), mp4);
    }

    /// Keeps what the keeper has to say about uploads.
    pub fn note_uploads(&self, pending: usize, error: Option<String>) {
        let mut inner = self.lock();
        inner.uploads_pending = pending;
        if error.is_some() {
            inner.last_error = error;
        }
    }

    /// Its clock: the newest time read.
    pub fn newest(&self) -> Micros {
        self.lock().clock.newest()
    }

    /// The absolute time of tick 0, where it is known.
    pub fn origin(&self) -> Option<Micros> {
        self.lock().clock.origin().map(|origin| origin.unix)
    }

    /// Recall's `bot.id`, where a message named it.
    pub fn bot_id(&self) -> Option<String> {
        self.lock().bot_id.clone()
    }

    /// The name that is shown for a participant.
    pub fn participant_name(&self, id: &str) -> Option<String> {
        self.lock().people.get(id).and_then(|participant| participant.name.clone())
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({})", self.id())
    }
}
