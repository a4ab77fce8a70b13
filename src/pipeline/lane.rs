//! The running machinery of one track: its queues, its place on the ready lists, and what others may see of it.
//!
//! Captures enter at a socket ([`Expected::offer`]), ingest workers turn them into pictures, encoder workers hand those to
//! the [`TrackWriter`]. No thread and no timer belongs to a lane.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::channel::Channel;
use crate::media::{DiscardReason, Kind, Micros, Picture};
use crate::metrics::{Metrics, Queue, Stage};

use super::admission::{Load, REAL_TIME};
use super::budget::{Charge, LaneCharge};
use super::ingest::Capture;
use super::ingest::decode::{Decoded, Ingest, Last};
use super::schedule::{ReadyList, Turn, Worked};
use super::shed::Shedder;
use super::timeline::Mark;
use super::track::TrackWriter;

mod deletion;
mod expected;
mod lost;
mod room;
mod view;

pub use expected::Expected;
pub use lost::Lost;
pub use view::{Order, View};

/// Marks that wait for the encoder worker; when full the oldest is dropped, for newer ones say more about the present.
const MARKS_MAX: usize = 256;

/// A capture on its way, with the bytes it is charged for.
pub struct Queued {
    /// The capture.
    pub capture: Capture,
    /// Message, picture and the decoder's scratch.
    pub charge: Charge,
}

/// A capture after decoding.
pub struct Arrived {
    /// The capture; its base64 is gone.
    pub capture: Capture,
    /// Its picture, or that there is none.
    pub decoded: Option<Decoded>,
    /// What the picture is charged for.
    pub charge: Charge,
    /// When it was decoded (monotonic).
    pub since: Micros,
}

/// The workers' lists that a lane is called on.
pub struct Lists {
    /// Lanes with captures and room for pictures.
    pub ingest: ReadyList<Lane>,
    /// Lanes with pictures, a moved clock or an order.
    pub encode: ReadyList<Lane>,
    /// The work that it is to go through them.
    pub load: Arc<Load>,
}

/// The running machinery of one track.
pub struct Lane {
    /// Recording, for log lines.
    pub recording_id: String,
    /// The track's folder name.
    pub track: String,
    /// Recall's participant id.
    pub participant_id: String,
    /// Webcam or screenshare.
    pub kind: Kind,
    lists: Arc<Lists>,
    metrics: Arc<Metrics>,
    captures: Channel<Queued>,
    pictures: Channel<Arrived>,
    pub(super) ingest_turn: Turn,
    pub(super) encode_turn: Turn,
    numbers: AtomicU64,
    /// How fast its sender goes on, in thousandths of the clock.
    pace: AtomicU64,
    pending: AtomicU32,
    freed: AtomicI64,
    slot_freed: Notify,
    marks: Mutex<VecDeque<(Micros, Mark)>>,
    clock: AtomicI64,
    wants_clock: AtomicBool,
    order: Mutex<Option<Order>>,
    shedder: Mutex<Shedder>,
    last: Mutex<Last>,
    writer: Mutex<TrackWriter>,
    view: Mutex<View>,
    undecodable: AtomicU64,
    spool_errors: AtomicU64,
    /// Until it is closed.
    memory: Mutex<Option<LaneCharge>>,
    deletion: deletion::Deletion,
    /// Told when the view changed in a way that the recording's keeper cares about.
    pub(super) changed: Arc<Notify>,
}

/// Who a lane belongs to, and what it is made of.
pub struct LaneParts {
    /// Recording, for log lines.
    pub recording_id: String,
    /// The track's folder name.
    pub track: String,
    /// Recall's participant id.
    pub participant_id: String,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// Captures that may wait.
    pub captures_max: usize,
    /// Pictures that may wait.
    pub pictures_max: usize,
    /// Timeline, encoder, packaging, spool.
    pub writer: TrackWriter,
    /// What it is charged.
    pub memory: LaneCharge,
    /// The workers' lists.
    pub lists: Arc<Lists>,
    /// The process's counters.
    pub metrics: Arc<Metrics>,
    /// The recording's bell.
    pub changed: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked is a bug that is reported; the data it leaves is counters and queues, still valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// An empty lane.
    pub fn new(parts: LaneParts) -> Arc<Lane> {
        Arc::new(Lane {
            recording_id: parts.recording_id,
            track: parts.track,
            participant_id: parts.participant_id,
            kind: parts.kind,
            lists: parts.lists,
            metrics: parts.metrics,
            captures: Channel::new(parts.captures_max),
            pictures: Channel::new(parts.pictures_max),
            ingest_turn: Turn::default(),
            encode_turn: Turn::default(),
            numbers: AtomicU64::new(0),
            pace: AtomicU64::new(REAL_TIME),
            pending: AtomicU32::new(0),
            freed: AtomicI64::new(0),
            slot_freed: Notify::new(),
            marks: Mutex::default(),
            clock: AtomicI64::new(i64::MIN),
            wants_clock: AtomicBool::new(false),
            order: Mutex::new(None),
            shedder: Mutex::default(),
            last: Mutex::default(),
            writer: Mutex::new(parts.writer),
            view: Mutex::default(),
            undecodable: AtomicU64::new(0),
            spool_errors: AtomicU64::new(0),
            memory: Mutex::new(Some(parts.memory)),
            deletion: Default::default(),
            changed: parts.changed,
        })
    }

    /// The number of the next capture.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, SeqCst)
    }

    /// An earlier process counted this many captures.
    pub fn go_on(&self, captures: u64) {
        self.numbers.store(captures, SeqCst);
        self.wants_clock.store(true, SeqCst);
    }

    /// Announces a capture: no order is carried out until it is placed or booked.
    pub fn expect(self: &Arc<Self>) -> Expected {
        self.pending.fetch_add(1, SeqCst);
        Expected(Some(Arc::clone(self)))
    }

    /// Told when a worker took a capture out.
    pub fn freed(&self) -> &Notify {
        &self.slot_freed
    }

    /// When a worker last took a capture out (monotonic).
    pub fn freed_at(&self) -> Micros {
        Micros(self.freed.load(SeqCst))
    }

    /// Whether this capture is to be dropped at once, because the lane is shedding. `moves`: its sender runs ahead of the
    /// clock, and only waits as long as the lane does not stand still.
    pub fn sheds_next(&self, moves: bool) -> bool {
        lock(&self.shedder).drops_next(moves || self.captures.is_empty())
    }

    /// The socket's patience ended here: shed more.
    pub fn shed_more(&self) {
        lock(&self.shedder).more();
    }

    /// Says how fast its sender goes on, in thousandths of the clock.
    pub fn set_pace(&self, pace: u64) {
        self.pace.store(pace, SeqCst);
    }

    /// Notes the time that a worker's visit took.
    pub fn worked(&self, time: Micros) {
        self.lists.load.worked(time, self.pace.load(SeqCst));
    }

    /// Notes how old a picture is that comes to the encoder.
    pub fn aged(&self, age: Micros) {
        self.lists.load.aged(age, self.pace.load(SeqCst));
    }

    /// Books a capture that was shed.
    pub fn shed(&self, at: Micros) {
        self.lists.load.shed();
        self.discard(DiscardReason::Shed, 1);
        self.mark(at, Mark::Shed);
    }

    /// Books captures that never became a picture.
    pub fn discard(&self, reason: DiscardReason, n: u64) {
        lock(&self.view).ledger.discard(reason, n);
        self.metrics.discarded(self.kind, reason, n);
    }

    /// Notes what the source did.
    pub fn mark(&self, at: Micros, mark: Mark) {
        let mut marks = lock(&self.marks);
        if marks.len() == MARKS_MAX {
            marks.pop_front();
            self.metrics.marks_dropped.inc();
        }
        marks.push_back((at, mark));
    }

    /// Whether no capture is on its way.
    pub fn is_drained(&self) -> bool {
        self.pending.load(SeqCst) == 0
    }

    /// Captures whose outcome is not known.
    pub fn pending(&self) -> u32 {
        self.pending.load(SeqCst)
    }

    /// Captures and pictures that wait.
    pub fn depths(&self) -> (usize, usize) {
        (self.captures.len(), self.pictures.len())
    }

    /// Lets a silent lane go on to `clock`. A lane with captures on their way moves by those.
    pub fn advance(self: &Arc<Self>, clock: Micros) {
        if self.wants_clock.load(SeqCst) && self.is_drained() {
            self.clock.fetch_max(clock.0, SeqCst);
            self.lists.encode.call(self);
        }
    }

    /// What its pictures waited for is there.
    pub fn state_tried(self: &Arc<Self>) {
        self.lists.encode.call(self);
    }

    /// Gives an order; its end is seen in [`View::done`].
    pub fn order(self: &Arc<Self>, order: Order) {
        let mut given = lock(&self.order);
        // Of one that is deleted nothing is written any more.
        if order == Order::Suspend || !self.is_deleted() {
            *given = Some(order);
        }
        drop(given);
        self.lists.encode.call(self);
    }

    /// A look at the lane's books and segments.
    pub fn view<T>(&self, look: impl FnOnce(&mut View) -> T) -> T {
        look(&mut lock(&self.view))
    }

    /// An ingest worker's visit: one capture becomes a picture.
    pub fn ingest_one(self: &Arc<Self>, ingest: &mut Ingest, clock: &dyn crate::clock::Clock) -> Worked {
        // Full: the encoder worker calls again when it has taken a picture.
        if self.pictures.is_full() {
            return Worked::Nothing;
        }
        let Some(mut queued) = self.captures.take() else { return Worked::Nothing };
        let start = clock.mono();
        self.freed.store(start.0, SeqCst);
        self.slot_freed.notify_waiters();
        self.metrics.waited(Queue::Captures, start - queued.capture.read_at);
        let decoded = ingest.decode(&queued.capture, &mut lock(&self.last));
        let since = clock.mono();
        self.metrics.took(Stage::Decode, since - start);
        let decoded = match decoded {
            Ok(decoded) => Some(decoded),
            Err(error) => {
                self.note_undecodable(&queued.capture, &error);
                None
            }
        };
        queued.capture.base64 = bytes::Bytes::new();
        // The message is gone, and so is what the decoder needed.
        let picture = decoded.as_ref().map_or(0, |decoded| {
            let (width, height) = (decoded.picture.width(), decoded.picture.height());
            Picture::bytes(width, height) as u64
        });
        queued.charge.shrink_to(picture);
        let arrived = Arrived { capture: queued.capture, decoded, charge: queued.charge, since };
        let offered = self.pictures.offer(arrived);
        assert!(offered.is_ok(), "only one ingest worker at a time fills a lane, and it looked first");
        self.lists.encode.call(self);
        Worked::One
    }

    fn note_undecodable(&self, capture: &Capture, error: &super::ingest::png::PngError) {
        self.metrics.rejected(error.name());
        let nth = self.undecodable.fetch_add(1, SeqCst) + 1;
        // The first, then ever rarer: a broken sender must not fill the log.
        if nth.is_power_of_two() {
            tracing::warn!(
                recording = self.recording_id,
                track = self.track,
                capture = capture.number,
                base64_bytes = capture.base64.len(),
                so_far = nth,
                %error,
                "undecodable capture"
            );
        }
    }

    /// An encoder worker's visit: one picture is placed and written, or the clock moves on, or an order is carried out.
    pub fn encode_one(self: &Arc<Self>) -> Worked {
        let mut writer = lock(&self.writer);
        for (at, mark) in lock(&self.marks).drain(..) {
            writer.mark(at, mark);
        }
        if writer.takes_pictures()
            && let Some(arrived) = self.pictures.take()
        {
            self.lists.ingest.call(self);
            writer.take(self, arrived);
            self.pending.fetch_sub(1, SeqCst);
            self.wants_clock.store(writer.wants_clock(), SeqCst);
            return Worked::One;
        }
        if !self.is_drained() {
            return Worked::Nothing;
        }
        let clock = self.clock.swap(i64::MIN, SeqCst);
        if clock != i64::MIN {
            writer.advance(self, Micros(clock));
            return Worked::One;
        }
        let Some(order) = lock(&self.order).take() else { return Worked::Nothing };
        writer.carry_out(self, order);
        self.view(|view| view.done = Some(order));
        self.deletion.obeyed.notify_one();
        self.changed.notify_one();
        Worked::One
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({}/{})", self.recording_id, self.track)
    }
}

#[cfg(test)]
mod tests;
