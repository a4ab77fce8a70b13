//! One recording's life: its clock, its sockets, its lanes, its events, and what is told about it.
//!
//! Not here: publishing and finishing ([`super::keeper`]), pixels, sockets themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::clock::rfc3339;
use crate::ledger::Ledger;
use crate::media::{DiscardReason, GapReason, Grid, Kind, Micros, Tick};
use crate::shutdown::Stop;

use super::delivery::Offer;
use super::ingest::protocol::{Context, Participant, Timestamp};
use super::lane::Lane;
use super::state::{Kept, RecordingSettings, RecordingState};
use super::store::journal::SPOOL_VERSION;
use super::store::keys::Name;
use super::store::manifest::{Manifest, Overload, ParticipantManifest, SCHEMA, State, TrackManifest};
use super::timeline::Mark;
use super::timeline::clock::{Origin, RecordingClock, Verdict};

mod deleted;
mod overload;
mod people;
mod place;
mod socket;

pub use deleted::{Shows, participant_in};
use people::{NO_TIME, People, manifest_of};
use place::Place;
pub use socket::SocketState;

/// Event lines that wait for the sync thread; further ones are counted, and the count is an event.
const EVENTS_WAITING_MAX: usize = 4096;
/// And their bytes: a chat text may be long.
const EVENT_BYTES_WAITING_MAX: usize = 4 << 20;
/// Refused lanes that are told apart.
const REFUSED_MAX: usize = 1024;

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
    /// So often the spool came to say less, because a track was deleted.
    erased: u64,
    last_error: Option<String>,
    uploads_pending: usize,
}

impl Inner {
    fn leave_limbo(&mut self, wall: Micros) -> Vec<Offer> {
        let mut placed = Vec::new();
        for mut offer in std::mem::take(&mut self.limbo) {
            match self.clock.recheck(offer.capture.relative, offer.capture.absolute, wall) {
                Verdict::At(at) => {
                    (offer.capture.at, offer.capture.clock) = (at, self.clock.newest());
                    placed.push(offer);
                }
                Verdict::BadTimestamp => offer.lane.discard(DiscardReason::BadTimestamp, 1),
                Verdict::Limbo => self.limbo.push_back(offer),
            }
        }
        placed
    }

    /// The first captures of a socket that is back say since when it is, though not before it was lost: it may send
    /// again what it sent before.
    fn mark_back(&mut self, placed: &[Offer]) {
        let Some(at) = placed.iter().map(|offer| offer.capture.at).min() else { return };
        if let Some(lost) = self.back_since.take() {
            self.lanes.values().for_each(|lane| lane.mark(at.max(lost), Mark::SocketBack));
        }
    }
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

/// What `GET /api/v1/recordings/{id}` adds to the manifest.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Now {
    /// Open sockets.
    pub sockets: usize,
    /// Captures that are on their way, whose outcome is not known.
    pub captures_waiting: u64,
    /// Whether captures are shed for want of room in the spool.
    pub spool_full: bool,
    /// Lanes (participant and kind) that were not opened at some time, for want of memory or over the limit: 1024 at most
    /// are told apart.
    pub lanes_refused: usize,
    /// Captures that were not taken for that.
    pub captures_refused: u64,
    /// Objects that the store has not confirmed.
    pub uploads_pending: usize,
    /// The store's last error.
    pub last_error: Option<String>,
}

/// Why a lane was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The recording has as many as it may have.
    Recording,
    /// Its socket serves as many as one may.
    Socket,
    /// The process has as many as its memory carries.
    Memory,
    /// The recording takes no more media.
    Finished,
    /// Its track was deleted, and the capture is counted there.
    Deleted,
}

impl Refused {
    /// The name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Recording => "recording_lanes",
            Refused::Socket => "socket_lanes",
            Refused::Memory => "memory",
            Refused::Finished => "finished",
            Refused::Deleted => "deleted",
        }
    }
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
            deleted: inner.deleted.clone(),
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

    /// Whether its bot may be on the way back: it takes media, and no socket brings any. A socket that is silent may be half
    /// open, with nobody at its other end.
    pub fn waits_for_bot(&self, now: Micros) -> bool {
        let inner = self.lock();
        inner.state == State::Live && inner.sockets.iter().all(|socket| socket.is_silent(now))
    }

    /// Moves it to another state.
    pub fn set_state(&self, state: State) {
        self.lock().state = state;
        self.changed.notify_one();
    }

    /// A socket begins to serve it.
    pub fn join_socket(&self, socket: &Arc<SocketState>) {
        let mut inner = self.lock();
        inner.sockets.push(Arc::clone(socket));
        inner.alone_since_unix = None;
        if inner.alone_since.take().is_some() && inner.sockets.len() == 1 {
            // When that is on the recording's time line, its first capture says: the clock stands still without a socket.
            inner.back_since = (!inner.lanes.is_empty()).then(|| inner.clock.newest());
        }
    }

    /// A socket is gone. Returns whether it was the last one.
    pub fn leave_socket(&self, socket: &Arc<SocketState>, wall: Micros) -> bool {
        let mut inner = self.lock();
        inner.sockets.retain(|other| !Arc::ptr_eq(other, socket));
        let alone = inner.sockets.is_empty();
        if alone && inner.alone_since.is_none() {
            inner.alone_since = Some(wall);
            let at = inner.clock.newest();
            inner.lanes.values().for_each(|lane| lane.mark(at, Mark::SocketLost));
            self.note(&mut inner, at, "sockets_lost", None, serde_json::Value::Null);
        }
        alone
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

    /// Reads the clocks of a capture of `who` that was just taken from a socket. Returns the captures that are placed by now, in
    /// the order in which they were read: usually this one alone; none while its time is in doubt; earlier ones in front
    /// of it when it settled theirs.
    pub fn read(&self, mut offer: Offer, who: &Participant, time: Timestamp, wall: Micros, unix: Micros) -> Vec<Offer> {
        let mut inner = self.lock();
        let verdict = inner.clock.read(time.relative, time.absolute, wall, unix);
        if let Some(event) = inner.clock.take_rebased() {
            let detail = serde_json::json!({ "zero_before": rfc3339(event.from), "zero_after": rfc3339(event.to) });
            self.note(&mut inner, event.at, "clock_rebased", None, detail);
        }
        let mut placed = inner.leave_limbo(wall);
        offer.capture.clock = inner.clock.newest();
        match verdict {
            Verdict::At(at) => {
                offer.capture.at = at;
                placed.push(offer);
                self.note_seen(&mut inner, who, at);
            }
            doubtful => {
                // Better than no name at all, though as of no time.
                self.note_seen(&mut inner, who, NO_TIME);
                match doubtful {
                    Verdict::Limbo => inner.limbo.push_back(offer),
                    _ => offer.lane.discard(DiscardReason::BadTimestamp, 1),
                }
            }
        }
        inner.mark_back(&placed);
        placed
    }

    /// Captures whose doubt is over by time alone; asked once a second.
    pub fn leave_limbo(&self, wall: Micros) -> Vec<Offer> {
        let mut inner = self.lock();
        let placed = inner.leave_limbo(wall);
        inner.mark_back(&placed);
        placed
    }

    /// No more captures come that could settle those in doubt: gives those that are believed all the same.
    pub fn end_limbo(&self, wall: Micros) -> Vec<Offer> {
        self.lock().clock.end_limbo();
        self.leave_limbo(wall)
    }

    /// The lane of a participant and kind, opened by `open` where there is none.
    pub fn lane(
        &self,
        participant: &Participant,
        kind: Kind,
        lanes_max: usize,
        open: impl FnOnce(&Recording) -> Option<Arc<Lane>>,
    ) -> Result<Arc<Lane>, Refused> {
        let mut inner = self.lock();
        let key = (participant.id.clone(), kind);
        if let Some(lane) = inner.lanes.get(&key) {
            return Ok(Arc::clone(lane));
        }
        if inner.state == State::Live && inner.counts_as_deleted(&participant.id, kind) {
            return Err(Refused::Deleted);
        }
        let refused = if inner.state != State::Live {
            Refused::Finished
        } else if inner.lanes.len() >= lanes_max {
            Refused::Recording
        } else if let Some(lane) = open(self) {
            inner.lanes.insert(key, Arc::clone(&lane));
            self.changed.notify_one();
            return Ok(lane);
        } else {
            Refused::Memory
        };
        self.note_refused(&mut inner, participant, kind, refused);
        Err(refused)
    }

    /// A lane was refused by somebody else.
    pub fn refuse(&self, participant: &Participant, kind: Kind, refused: Refused) {
        self.note_refused(&mut self.lock(), participant, kind, refused);
    }

    fn note_refused(&self, inner: &mut Inner, participant: &Participant, kind: Kind, refused: Refused) {
        inner.captures_refused += 1;
        if inner.refused.len() < REFUSED_MAX && inner.refused.insert((participant.id.clone(), kind)) {
            let (reason, kind_name) = (refused.name(), kind.name());
            tracing::warn!(
                recording = self.id(),
                kind = kind_name,
                reason,
                "a participant's lane was refused: no pictures of it"
            );
            let at = inner.clock.newest();
            let detail = serde_json::json!({ "reason": refused.name(), "kind": kind, "so_far": inner.refused.len() });
            self.note(inner, at, "lane_refused", Some(participant), detail);
        }
    }

    /// Notes an event of the recording itself.
    pub fn event(&self, name: &str, detail: serde_json::Value) {
        let mut inner = self.lock();
        let at = inner.clock.newest();
        self.note(&mut inner, at, name, None, detail);
    }

    fn note(&self, inner: &mut Inner, at: Micros, name: &str, who: Option<&Participant>, detail: serde_json::Value) {
        if inner.events.len() >= EVENTS_WAITING_MAX || inner.event_bytes >= EVENT_BYTES_WAITING_MAX {
            inner.events_dropped += 1;
            return;
        }
        if who.is_some_and(|who| inner.is_forgotten(&who.id)) {
            return;
        }
        let mut line = serde_json::json!({
            "schema": SCHEMA,
            "tick": self.grid.tick_at(at),
            "relative": at.as_secs_f64(),
            "event": name,
        });
        if let Some(origin) = inner.clock.origin() {
            line["time"] = rfc3339(origin.unix + at).into();
        }
        if let Some(who) = who {
            line["participant"] = serde_json::json!(manifest_of(who));
        }
        if !detail.is_null() {
            line["detail"] = detail;
        }
        let line = format!("{line}\n");
        inner.event_bytes += line.len();
        inner.events.push(line);
    }

    /// Event lines that are not written yet.
    pub fn take_events(&self) -> Option<String> {
        let mut inner = self.lock();
        if inner.events_dropped > 0 {
            let dropped = std::mem::take(&mut inner.events_dropped);
            let at = inner.clock.newest();
            inner.events.pop();
            inner.event_bytes = 0;
            self.note(&mut inner, at, "events_dropped", None, serde_json::json!({ "count": dropped + 1 }));
        }
        inner.event_bytes = 0;
        (!inner.events.is_empty()).then(|| std::mem::take(&mut inner.events).concat())
    }

    /// Puts event lines back that could not be handed on.
    pub fn return_events(&self, text: String) {
        let mut inner = self.lock();
        // Somebody may have been forgotten meanwhile.
        let text = inner.without_forgotten(text);
        inner.event_bytes += text.len();
        inner.events.insert(0, text);
    }

    /// The visit that each recording gets once a second: silent lanes move on, and a recording that was alone for
    /// longer than `grace` is to be finished. Nothing moves while no socket is connected: a replay may still come.
    pub fn visit(&self, wall: Micros, grace: Micros) {
        let mut inner = self.lock();
        if inner.state != State::Live {
            return;
        }
        let gone = self.bot_gone.load(SeqCst);
        if gone && inner.sockets.iter().all(|socket| socket.is_silent(wall)) {
            self.begin_to_finish(&mut inner);
            return;
        }
        if let Some(since) = inner.alone_since {
            if wall - since >= grace {
                self.begin_to_finish(&mut inner);
            }
            return;
        }
        let busy = inner.sockets.iter().any(|socket| socket.busy.load(SeqCst));
        let idle = !busy && inner.limbo.is_empty() && inner.lanes.values().all(|lane| lane.is_drained());
        let clock = inner.clock.now(wall, idle);
        inner.lanes.values().for_each(|lane| lane.advance(clock));
    }

    /// Its bot does not come back: it is finished once nothing comes any more, without its grace. What is on its way still
    /// belongs to it.
    pub fn bot_is_gone(&self) {
        self.bot_gone.store(true, SeqCst);
    }

    /// Its bot records nothing until its next pictures come.
    pub fn bot_is_paused(&self) {
        let mut inner = self.lock();
        if inner.state != State::Live {
            return;
        }
        let at = inner.clock.newest();
        // Behind the newest picture, which would answer it.
        inner.lanes.values().for_each(|lane| lane.mark(at + Micros(1), Mark::Off(GapReason::Paused)));
        self.note(&mut inner, at, "paused", None, serde_json::Value::Null);
    }

    /// Goes on with an end that an earlier process began.
    pub fn go_on_finishing(&self) {
        self.begin_to_finish(&mut self.lock());
    }

    /// From here on it takes no media, whatever the keeper waits for.
    fn begin_to_finish(&self, inner: &mut Inner) {
        inner.state = State::Finishing;
        self.told_to_finish.notify_one();
        self.changed.notify_one();
    }

    /// Asks for the end of the recording. Returns whether it was live.
    pub fn ask_to_finish(&self) -> bool {
        let mut inner = self.lock();
        let live = inner.state == State::Live;
        if live {
            self.begin_to_finish(&mut inner);
        }
        live
    }

    /// Whether it is being finished: by a call, or because its grace is over.
    pub fn is_to_finish(&self) -> bool {
        self.state() == State::Finishing
    }

    /// Returns when it is to be finished. For its keeper alone.
    pub async fn to_finish(&self) {
        while !self.is_to_finish() {
            self.told_to_finish.notified().await;
        }
    }

    /// From here on it takes nothing and publishes nothing: it is to be deleted.
    pub fn ask_to_delete(&self) {
        self.lock().state = State::Deleted;
        self.told_to_delete.notify_one();
    }

    /// Returns when it is to be deleted. For its keeper alone.
    pub async fn to_delete(&self) {
        while self.state() != State::Deleted {
            self.told_to_delete.notified().await;
        }
    }

    /// Its keeper came to its end.
    pub fn leave(&self) {
        self.left.ring();
    }

    /// Returns when its keeper came to its end.
    pub async fn left(&self) {
        self.left.listen().wait().await;
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

    /// What happens right now; whether the spool is full is the process's to say.
    pub fn now(&self, spool_full: bool) -> Now {
        let inner = self.lock();
        Now {
            sockets: inner.sockets.len(),
            spool_full,
            captures_waiting: inner.lanes.values().map(|lane| u64::from(lane.pending())).sum(),
            lanes_refused: inner.refused.len(),
            captures_refused: inner.captures_refused,
            uploads_pending: inner.uploads_pending,
            last_error: inner.last_error.clone(),
        }
    }

    /// `recording.json` as of now.
    pub fn manifest(&self) -> Manifest {
        let place = self.place();
        let inner = self.lock();
        let origin = inner.clock.origin();
        Manifest {
            schema: SCHEMA,
            recording_id: place.name.id,
            tenant: place.name.tenant,
            bot_id: inner.bot_id.clone(),
            metadata: inner.metadata.clone(),
            state: inner.state,
            continues: place.continues,
            prefix: place.prefix,
            origin: origin.as_ref().map(|origin| rfc3339(origin.unix)),
            origin_from_server: origin.is_some_and(|origin| origin.from_server),
            fps: self.grid.fps,
            segment_ticks: self.grid.segment_ticks,
            fill: self.settings.fill,
            overload: inner.overload.clone(),
            tracks: inner.lanes.values().map(|lane| track_manifest(&inner, lane)).collect(),
            deleted: inner.deleted_tracks(),
        }
    }
}

fn track_manifest(inner: &Inner, lane: &Lane) -> TrackManifest {
    let participant = inner.people.get(&lane.participant_id).map(manifest_of).unwrap_or_default();
    lane.view(|view| TrackManifest {
        track: lane.track.clone(),
        participant: ParticipantManifest { id: lane.participant_id.clone(), ..participant },
        kind: lane.kind,
        width: view.canvas.map(|canvas| canvas.width),
        height: view.canvas.map(|canvas| canvas.height),
        codecs: view.codecs.clone(),
        first_tick: view.first_tick,
        end_tick: view.end_tick,
        epochs: view.epochs.clone(),
        gaps: view.gaps.clone(),
        ledger: view.ledger.clone(),
        mp4: inner.mp4.get(&lane.track).cloned().into_iter().collect(),
    })
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({})", self.id())
    }
}
