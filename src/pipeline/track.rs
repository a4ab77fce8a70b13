//! One track's life on an encoder worker: timeline -> encoder -> packager -> spool, and the books of it all.
//!
//! Used by one worker at a time. Not here: queues and turns ([`super::lane`]), making durable, publishing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::{Clock, rfc3339};
use crate::config::Fill;
use crate::media::{AccessUnit, Canvas, DiscardReason, GapReason, Grid, Micros, Picture, Tick};
use crate::metrics::{Metrics, Stage};

use super::encode::canvas::{Fitter, choose};
use super::encode::filler::Filler;
use super::encode::x264::X264;
use super::encode::{EncodeError, Encoder, EncoderSettings, nal};
use super::lane::{Arrived, Lane, Order, View};
use super::package::boxes::{self, Track};
use super::package::segmenter::{Part, Segmenter};
use super::store::journal::{self, Run, RunKind};
use super::store::manifest::{EpochManifest, Gap};
use super::store::spool::{EpochWriter, PartBooks, TrackSpool, WhenClosed};
use super::timeline::{Mark, Rules, Stamp, Step, Timeline};

/// A track's first picture must be at least this large on both sides to fix the canvas: smaller ones are placeholders.
const CANVAS_SIDE_MIN: u32 = 64;

/// What is fixed for a track.
#[derive(Clone, Debug)]
pub struct TrackSettings {
    /// The recording's grid.
    pub grid: Grid,
    /// The timeline's rules.
    pub rules: Rules,
    /// What encoders are opened with.
    pub encoder: EncoderSettings,
    /// Larger pictures are scaled down to this.
    pub canvas_max: Canvas,
    /// What a gap shows.
    pub fill: Fill,
    /// Where the track is written.
    pub spool: TrackSpool,
}

/// A picture on its way through the timeline.
struct Taken {
    arrived: Arrived,
    picture: Arc<Picture>,
}

/// What is fixed by the first picture, and open while media is written.
struct Opened {
    canvas: Canvas,
    encoder: Box<dyn Encoder>,
    options: String,
    init: Vec<u8>,
    /// The picture that the encoder would repeat.
    shown: Option<Arc<Picture>>,
}

/// A prepared GOP in use.
struct Gop {
    filler: Arc<Filler>,
    /// What its IDR has to differ from.
    before: Option<u32>,
    /// Units used since its IDR.
    used: usize,
}

/// Writes one track.
pub struct TrackWriter {
    settings: TrackSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    timeline: Timeline<Taken>,
    steps: Vec<Step<Taken>>,
    canvas: Option<Canvas>,
    opened: Option<Opened>,
    fitter: Fitter,
    shown: Option<Arc<Picture>>,
    segmenter: Segmenter,
    epoch: Option<EpochWriter>,
    /// The runs of the part that is being collected.
    runs: VecDeque<Run>,
    last_at: Micros,
    /// The prepared GOP of the gap that is open.
    filler: Option<Gop>,
    /// `idr_pic_id` of the last unit, where that was an IDR: two in a row must differ (H.264, 7.4.3).
    last_idr: Option<u32>,
}

/// Why a tick could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
    #[error("packaging: {0}")]
    Package(#[from] super::package::segmenter::SegmentError),
}

impl TrackWriter {
    /// A track without pictures.
    pub fn new(settings: TrackSettings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> TrackWriter {
        TrackWriter {
            timeline: Timeline::new(settings.rules),
            segmenter: Segmenter::new(settings.grid),
            settings,
            clock,
            metrics,
            steps: Vec::new(),
            canvas: None,
            opened: None,
            fitter: Fitter::new(),
            shown: None,
            epoch: None,
            runs: VecDeque::new(),
            last_at: Micros(0),
            filler: None,
            last_idr: None,
        }
    }

    /// Notes what the source did.
    pub fn mark(&mut self, at: Micros, mark: Mark) {
        self.timeline.mark(at, mark);
    }

    /// Whether a moved clock may change anything.
    pub fn wants_clock(&self) -> bool {
        self.timeline.wants_clock()
    }

    /// Takes a decoded capture, in the order of arrival.
    pub fn take(&mut self, lane: &Arc<Lane>, mut arrived: Arrived) {
        let (at, clock) = (arrived.capture.at, arrived.capture.clock);
        let Some(decoded) = &mut arrived.decoded else {
            lane.discard(DiscardReason::Undecodable, 1);
            self.timeline.mark(at, Mark::Undecodable);
            return self.advance(lane, clock);
        };
        let picture = Arc::clone(&decoded.picture);
        if self.canvas.is_none() {
            if picture.width() < CANVAS_SIDE_MIN || picture.height() < CANVAS_SIDE_MIN {
                lane.discard(DiscardReason::Placeholder, 1);
                return self.advance(lane, clock);
            }
            self.canvas = Some(choose(picture.width(), picture.height(), self.settings.canvas_max));
        }
        let stamp = Stamp { capture: arrived.capture.number, at };
        let mut steps = std::mem::take(&mut self.steps);
        self.timeline.take(stamp, Taken { arrived, picture }, clock, &mut steps);
        self.write(lane, steps);
    }

    /// Moves the clock on.
    pub fn advance(&mut self, lane: &Arc<Lane>, clock: Micros) {
        let mut steps = std::mem::take(&mut self.steps);
        self.timeline.advance(clock, &mut steps);
        self.write(lane, steps);
    }

    /// Carries out what the recording asks for.
    pub fn carry_out(&mut self, lane: &Arc<Lane>, order: Order) {
        let mut steps = std::mem::take(&mut self.steps);
        match order {
            Order::Flush | Order::Suspend => self.timeline.flush(&mut steps),
            Order::Finish(end) => self.timeline.finish(end, &mut steps),
        }
        self.write(lane, steps);
        if order != Order::Flush {
            self.close_epoch(lane);
            self.opened = None;
        }
    }

    fn write(&mut self, lane: &Arc<Lane>, mut steps: Vec<Step<Taken>>) {
        for step in steps.drain(..) {
            match step {
                Step::Picture { tick, stamp, payload } => self.write_picture(lane, tick, stamp, &payload),
                Step::Held { first, ticks, reason } => self.write_held(lane, first, ticks, reason),
                Step::Gap { first, ticks, reason, live: true } => self.write_filler(lane, first, ticks, reason),
                Step::Gap { first, ticks, reason, live: false } => {
                    self.close_epoch(lane);
                    self.book_unwritten(lane, first, ticks, reason);
                }
                Step::Discard { reason, .. } => lane.discard(reason, 1),
            }
        }
        self.steps = steps;
        let (first_tick, end_tick) = (self.timeline.first_tick(), self.timeline.next_tick());
        lane.view(|view| (view.first_tick, view.end_tick) = (first_tick, end_tick));
    }

    fn write_picture(&mut self, lane: &Arc<Lane>, tick: Tick, stamp: Stamp, taken: &Taken) {
        let capture = &taken.arrived.capture;
        let decoded = taken.arrived.decoded.as_ref();
        let after_gap = self.filler.take().is_some();
        self.last_at = self.last_at.max(stamp.at);
        let run = Run {
            tick,
            n: 1,
            kind: RunKind::Picture,
            reason: None,
            relative: Some(capture.relative.as_secs_f64()),
            absolute: capture.absolute.map(rfc3339),
            capture: Some(capture.number),
            png_bytes: decoded.map(|decoded| decoded.png_bytes),
            same: decoded.is_some_and(|decoded| decoded.same),
        };
        let unit = self.open(lane, tick).and_then(|()| self.encode(tick, Some(&taken.picture), after_gap));
        self.push(lane, run, unit);
    }

    fn write_held(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: Option<GapReason>) {
        if let Some(reason) = reason {
            lane.view(|view| note_gap(view, first, ticks, reason));
        }
        for tick in first..first + ticks {
            let run = Run::without_picture(tick, 1, RunKind::Held, reason);
            let unit = self.open(lane, tick).and_then(|()| self.encode(tick, None, false));
            self.push(lane, run, unit);
        }
    }

    fn write_filler(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: GapReason) {
        lane.view(|view| note_gap(view, first, ticks, reason));
        for tick in first..first + ticks {
            let run = Run::without_picture(tick, 1, RunKind::Filled, Some(reason));
            let unit = self.open(lane, tick).and_then(|()| self.filler_unit(tick));
            self.push(lane, run, unit);
        }
    }

    /// Opens what is not open: the encoder, and an epoch that begins at `tick`.
    fn open(&mut self, lane: &Arc<Lane>, tick: Tick) -> Result<(), WriteError> {
        if self.opened.is_none() {
            let canvas = self.canvas.expect("the timeline writes nothing before a picture fixed the canvas");
            let encoder = X264::open(&self.settings.encoder, canvas)?;
            let sets = encoder.parameter_sets();
            let init = boxes::init_segment(&Track { canvas, fps: self.settings.grid.fps, sets });
            let codecs = nal::codecs(sets);
            let options = encoder.options().to_owned();
            lane.view(|view| (view.canvas, view.codecs) = (Some(canvas), Some(codecs)));
            self.opened = Some(Opened { canvas, encoder: Box::new(encoder), options, init, shown: None });
        }
        let opened = self.opened.as_ref().expect("opened above");
        if self.epoch.is_none() {
            let epoch = EpochWriter::create(&self.settings.spool, tick, &opened.init, &opened.options)?;
            let manifest = EpochManifest {
                epoch: epoch.name().to_owned(),
                first_tick: tick,
                init: epoch.init().to_owned(),
                encoder_options: opened.options.clone(),
            };
            lane.view(|view| {
                if view.epochs.is_empty() {
                    // The MP4 starts at the recording's start: what lies before the first picture is filled.
                    view.ledger.filled += tick.max(0) as u64;
                    note_gap(view, 0, tick, GapReason::NotJoined);
                }
                view.epochs.push(manifest);
            });
            lane.changed.notify_one();
            self.segmenter = Segmenter::new(self.settings.grid);
            self.epoch = Some(epoch);
        }
        Ok(())
    }

    /// Encodes `picture`, or the one before it again.
    fn encode(&mut self, tick: Tick, picture: Option<&Arc<Picture>>, idr: bool) -> Result<AccessUnit, WriteError> {
        let idr = idr || self.segmenter.needs_idr(tick);
        let opened = self.opened.as_mut().expect("opened before it is used");
        let start = self.clock.mono();
        if let Some(picture) = picture {
            self.shown = Some(Arc::clone(picture));
        }
        let wanted = self.shown.as_ref().expect("a tick is held only after a picture");
        let unit = if opened.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, wanted)) {
            opened.encoder.repeat(idr)?
        } else {
            let fitted = self.fitter.fit(wanted, opened.canvas)?;
            let unit = opened.encoder.encode(fitted, idr)?;
            opened.shown = Some(Arc::clone(wanted));
            unit
        };
        let clashes = unit.idr
            && self.last_idr.is_some()
            && nal::idr_pic_id(&unit, opened.encoder.parameter_sets()) == self.last_idr;
        // The next IDR of an encoder has another id.
        let unit = if clashes { opened.encoder.repeat(true)? } else { unit };
        self.metrics.took(Stage::Encode, self.clock.mono() - start);
        Ok(unit)
    }

    /// The unit of the prepared GOP for `tick`: its IDR at the gap's first tick and where a cell begins.
    fn filler_unit(&mut self, tick: Tick) -> Result<AccessUnit, WriteError> {
        let opened = self.opened.as_ref().expect("opened before it is used");
        if self.filler.is_none() {
            let (encoder, ticks) = (&self.settings.encoder, self.settings.grid.segment_ticks);
            let filler = match (self.settings.fill, &self.shown) {
                (Fill::Hold, Some(shown)) => {
                    let fitted = self.fitter.fit(shown, opened.canvas)?;
                    Arc::new(Filler::prepare(encoder, opened.canvas, fitted, ticks)?)
                }
                _ => Filler::black(encoder, opened.canvas, ticks)?,
            };
            self.filler = Some(Gop { filler, before: self.last_idr, used: 0 });
        }
        let needs_idr = self.segmenter.needs_idr(tick);
        let gop = self.filler.as_mut().expect("prepared above");
        if needs_idr {
            (gop.before, gop.used) = (self.last_idr, 0);
        }
        let unit = gop.filler.gop(gop.before)[gop.used].clone();
        gop.used += 1;
        Ok(unit)
    }

    /// Hands a unit to the packager, and a complete part to the spool.
    fn push(&mut self, lane: &Arc<Lane>, run: Run, unit: Result<AccessUnit, WriteError>) {
        let tick = run.tick;
        self.runs.push_back(run);
        if let (Ok(unit), Some(opened)) = (&unit, &self.opened) {
            self.last_idr = unit.idr.then(|| nal::idr_pic_id(unit, opened.encoder.parameter_sets())).flatten();
        }
        let part = unit.and_then(|unit| Ok(self.segmenter.push(tick, unit)?));
        match part.map(|part| part.map_or(Ok(()), |part| self.append(lane, &part))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(lane, error.into()),
            Err(error) => self.fail(lane, error),
        }
    }

    /// Appends a part. The books count it only when it is in the spool.
    fn append(&mut self, lane: &Arc<Lane>, part: &Part) -> std::io::Result<()> {
        let epoch = self.epoch.as_mut().expect("an epoch is open while its parts are collected");
        let start = self.clock.mono();
        let count = |kind| self.runs.iter().filter(|run| run.kind == kind).map(|run| run.n as u64).sum::<u64>();
        let [encoded, held, filled] = [RunKind::Picture, RunKind::Held, RunKind::Filled].map(count);
        let mut ledger = lane.view(|view| view.ledger.clone());
        ledger.encode(encoded);
        ledger.held += held;
        ledger.filled += filled;
        let mut runs = Vec::with_capacity(self.runs.len());
        self.runs.iter().for_each(|run| journal::push_run(&mut runs, run.clone()));
        epoch.append(part, PartBooks { ledger: &ledger, last_at: self.last_at, runs }, || when_closed(lane))?;
        self.runs.clear();
        lane.view(|view| {
            view.ledger.encode(encoded);
            view.ledger.held += held;
            view.ledger.filled += filled;
        });
        self.metrics.encoded(lane.kind, encoded);
        self.metrics.held(lane.kind, held);
        self.metrics.filled(lane.kind, filled);
        self.metrics.took(Stage::Append, self.clock.mono() - start);
        Ok(())
    }

    /// Ends the epoch: the open part is written, the open segment closed early.
    fn close_epoch(&mut self, lane: &Arc<Lane>) {
        self.filler = None;
        if let Some(part) = self.segmenter.flush()
            && let Err(error) = self.append(lane, &part)
        {
            return self.fail(lane, error.into());
        }
        if let Some(mut epoch) = self.epoch.take()
            && let Err(error) = epoch.end(|| when_closed(lane))
        {
            self.fail(lane, error.into());
        }
    }

    /// Something broke: the epoch ends at its last part, what was collected since is booked as lost, and the next
    /// tick begins anew.
    fn fail(&mut self, lane: &Arc<Lane>, error: WriteError) {
        let (discard, gap) = match &error {
            WriteError::Spool(_) => (DiscardReason::SpoolFull, GapReason::SpoolFull),
            WriteError::Encode(_) | WriteError::Package(_) => (DiscardReason::EncoderFailed, GapReason::Unknown),
        };
        if let WriteError::Spool(_) = &error {
            self.metrics.spool_failed.inc();
        } else {
            self.metrics.encoders_failed.inc();
            self.opened = None;
        }
        tracing::error!(recording = lane.recording_id, track = lane.track, %error, "a track lost its epoch");
        let runs = std::mem::take(&mut self.runs);
        let lost = runs.iter().filter(|run| run.kind == RunKind::Picture).count() as u64;
        lane.discard(discard, lost);
        for run in runs {
            self.book_unwritten(lane, run.tick, run.n, gap);
        }
        if let Some(mut epoch) = self.epoch.take() {
            // What is complete stays; where even this fails, recovery finds it by the journal.
            let _ = epoch.end(|| when_closed(lane));
        }
        self.segmenter = Segmenter::new(self.settings.grid);
        self.filler = None;
    }

    /// Books ticks that are in no segment; the MP4 fills them.
    fn book_unwritten(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: GapReason) {
        lane.view(|view| {
            view.ledger.filled += ticks as u64;
            note_gap(view, first, ticks, reason);
        });
        self.metrics.filled(lane.kind, ticks as u64);
    }
}

/// What is told when a segment is durable: it joins the list that the keeper publishes.
fn when_closed(lane: &Arc<Lane>) -> WhenClosed {
    lane.view(|view| view.syncing += 1);
    let lane = Arc::clone(lane);
    Box::new(move |closed| {
        lane.view(|view| {
            view.syncing -= 1;
            match closed {
                Ok(closed) => view.closed.push(closed),
                Err(error) => {
                    tracing::error!(recording = lane.recording_id, track = lane.track, %error, "a segment was not made durable");
                }
            }
        });
        lane.changed.notify_one();
    })
}

fn note_gap(view: &mut View, first: Tick, ticks: Tick, reason: GapReason) {
    if ticks <= 0 {
        return;
    }
    match view.gaps.last_mut() {
        Some(last) if last.to_tick == first && last.reason == reason => last.to_tick += ticks,
        _ => view.gaps.push(Gap { from_tick: first, to_tick: first + ticks, reason }),
    }
}
