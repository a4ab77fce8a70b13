//! One track's life on an encoder worker: timeline -> encoder -> packager -> spool, and the books of it all.
//!
//! Used by one worker at a time. Not here: queues and turns ([`super::lane`]), making units ([`super::units`]),
//! making durable, publishing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::{Clock, rfc3339};
use crate::media::{AccessUnit, DiscardReason, GapReason, Micros, Picture, Tick};
use crate::metrics::{Metrics, Queue, Stage};

use super::encode::nal;
use super::lane::{Arrived, Lane, Order};
use super::package::boxes::{self, Track};
use super::package::segmenter::{Part, Segmenter};
use super::store::gaps::note_gap;
use super::store::journal::{self, EpochLine, Run, RunKind, SPOOL_VERSION};
use super::store::manifest::{EpochManifest, Gap};
use super::store::recovery::TakenUp;
use super::store::space::is_full_error;
use super::store::spool::{EpochWriter, PartBooks};
use super::timeline::{Mark, Stamp, Step, Timeline};
use super::units::{UnitMaker, is_placeholder};

mod books;
mod error;
mod settings;

use books::{SegmentBooks, when_closed};
use error::WriteError;
pub use settings::TrackSettings;

/// A picture on its way through the timeline.
struct Taken {
    arrived: Arrived,
    picture: Arc<Picture>,
}

/// Writes one track.
pub struct TrackWriter {
    settings: TrackSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    timeline: Timeline<Taken>,
    steps: Vec<Step<Taken>>,
    units: UnitMaker,
    /// The bytes of the init segment that goes with the encoder.
    init: Vec<u8>,
    /// What each epoch's journal begins with, since the encoder was opened.
    head: Option<EpochLine>,
    segmenter: Segmenter,
    epoch: Option<EpochWriter>,
    /// The runs of the part that is being collected.
    runs: VecDeque<Run>,
    last_at: Micros,
    /// When the newest picture of the open part was read (monotonic).
    newest_read: Option<Micros>,
    /// The first picture came.
    begun: bool,
    /// What the open segment holds so far.
    segment: SegmentBooks,
    /// What was booked unwritten since the last part: the next epoch's journal begins with it.
    holes: Vec<Gap>,
}

impl TrackWriter {
    /// A track without pictures.
    pub fn new(settings: TrackSettings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> TrackWriter {
        let (encoder, now, counts) = (settings.encoder.clone(), Arc::clone(&clock), Arc::clone(&metrics));
        TrackWriter {
            units: UnitMaker::new(
                encoder,
                settings.rules.grid,
                settings.recording.fill,
                Arc::clone(&settings.load),
                now,
                counts,
            ),
            init: Vec::new(),
            head: None,
            timeline: Timeline::new(settings.rules),
            segmenter: Segmenter::new(settings.rules.grid),
            settings,
            clock,
            metrics,
            steps: Vec::new(),
            epoch: None,
            runs: VecDeque::new(),
            last_at: Micros(0),
            newest_read: None,
            begun: false,
            segment: SegmentBooks::default(),
            holes: Vec::new(),
        }
    }

    /// A track that an earlier process left.
    pub fn resume(
        settings: TrackSettings,
        taken: &TakenUp,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> TrackWriter {
        let timeline = Timeline::resume(settings.rules, taken.next_tick, taken.last_at, taken.off);
        let mut writer = TrackWriter::new(settings, clock, metrics);
        writer.units.set_canvas(taken.canvas);
        // The lead-in was booked by the process that wrote the first picture.
        TrackWriter { timeline, last_at: taken.last_at, begun: true, ..writer }
    }

    /// Notes what the source did.
    pub fn mark(&mut self, at: Micros, mark: Mark) {
        self.timeline.mark(at, mark);
    }

    /// Whether pictures may be taken: not before it is known whether the disk took the recording's state.
    pub fn takes_pictures(&self) -> bool {
        self.settings.kept.is_tried()
    }

    /// Whether a moved clock may change anything.
    pub fn wants_clock(&self) -> bool {
        self.timeline.wants_clock()
    }

    /// Takes a decoded capture, in the order of arrival.
    pub fn take(&mut self, lane: &Arc<Lane>, mut arrived: Arrived) {
        let (at, clock, now) = (arrived.capture.at, arrived.capture.clock, self.clock.mono());
        self.metrics.waited(Queue::Pictures, now - arrived.since);
        lane.aged(now - arrived.capture.read_at);
        let Some(decoded) = &mut arrived.decoded else {
            lane.discard(DiscardReason::Undecodable, 1);
            self.timeline.mark(at, Mark::Undecodable);
            return self.advance(lane, clock.min(at));
        };
        let picture = Arc::clone(&decoded.picture);
        if is_placeholder(&picture) {
            lane.discard(DiscardReason::Placeholder, 1);
            self.timeline.mark(at, Mark::Placeholder);
            return self.advance(lane, clock.min(at));
        }
        let canvas = self.units.fix_canvas(&picture, self.settings.recording.canvas_max);
        if !self.begun {
            lane.charge(Lane::bytes(canvas));
        }
        if !lane.keeps(&picture, canvas) {
            lane.discard(DiscardReason::Shed, 1);
            self.timeline.mark(at, Mark::Shed);
            return self.advance(lane, clock.min(at));
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
            self.units.close();
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
        lane.view(|view| {
            // A resumed timeline only knows where it goes on; the track's first picture lies before that.
            view.first_tick = view.first_tick.or(first_tick);
            view.end_tick = end_tick;
        });
    }

    fn write_picture(&mut self, lane: &Arc<Lane>, tick: Tick, stamp: Stamp, taken: &Taken) {
        let capture = &taken.arrived.capture;
        let decoded = taken.arrived.decoded.as_ref();
        let after_gap = self.units.end_gap();
        self.last_at = self.last_at.max(stamp.at);
        self.newest_read = Some(capture.read_at);
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
        self.units.show(&taken.picture);
        if !std::mem::replace(&mut self.begun, true) {
            // The MP4 starts at the recording's start: what lies before the first picture is filled.
            self.book_unwritten(lane, 0, tick, GapReason::NotJoined);
        }
        let unit = self.open(lane, tick).and_then(|()| {
            let idr = after_gap || self.segmenter.needs_idr(tick);
            Ok(self.units.encode(idr)?)
        });
        self.push(lane, run, unit);
    }

    fn write_held(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: Option<GapReason>) {
        if let Some(reason) = reason {
            lane.view(|view| note_gap(&mut view.gaps, first, first + ticks, reason));
        }
        for tick in first..first + ticks {
            let run = Run::without_picture(tick, 1, RunKind::Held, reason);
            let unit = self.open(lane, tick);
            let unit = unit.and_then(|()| Ok(self.units.encode(self.segmenter.needs_idr(tick))?));
            self.push(lane, run, unit);
        }
    }

    fn write_filler(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: GapReason) {
        lane.view(|view| note_gap(&mut view.gaps, first, first + ticks, reason));
        for tick in first..first + ticks {
            let run = Run::without_picture(tick, 1, RunKind::Filled, Some(reason));
            let unit = self.open(lane, tick);
            let unit = unit.and_then(|()| Ok(self.units.fill(self.segmenter.needs_idr(tick))?));
            self.push(lane, run, unit);
        }
    }

    /// Opens what is not open: the encoder, and an epoch that begins at `tick`.
    fn open(&mut self, lane: &Arc<Lane>, tick: Tick) -> Result<(), WriteError> {
        if self.epoch.is_none() {
            // While there is no room nothing is begun, and no picture encoded for nothing.
            self.settings.spool.space.admit(0)?;
        }
        if let Some(opened) = self.units.open()? {
            let (canvas, sets) = (opened.canvas, opened.encoder.parameter_sets());
            self.init = boxes::init_segment(&Track { canvas, fps: self.settings.rules.grid.fps, sets });
            self.head = Some(EpochLine {
                spool: SPOOL_VERSION,
                participant_id: lane.participant_id.clone(),
                kind: lane.kind,
                canvas,
                codecs: nal::codecs(sets),
                first_tick: tick,
                init: String::new(),
                encoder_options: opened.options.clone(),
                holes: Vec::new(),
            });
        }
        if self.epoch.is_none() {
            let head = self.head.as_ref().expect("written when the encoder was opened");
            let line = EpochLine { first_tick: tick, holes: self.holes.clone(), ..head.clone() };
            self.settings.needs_state()?;
            let epoch = EpochWriter::create(&self.settings.spool, line, &self.init)?;
            let manifest = EpochManifest {
                epoch: epoch.name().to_owned(),
                first_tick: tick,
                init: epoch.init().to_owned(),
                encoder_options: head.encoder_options.clone(),
            };
            let (canvas, codecs) = (head.canvas, head.codecs.clone());
            lane.view(|view| {
                (view.canvas, view.codecs) = (Some(canvas), Some(codecs));
                view.epochs.push(manifest);
            });
            lane.changed.notify_one();
            self.segmenter = Segmenter::new(self.settings.rules.grid);
            self.epoch = Some(epoch);
        }
        Ok(())
    }

    /// Hands a unit to the packager, and a complete part to the spool.
    fn push(&mut self, lane: &Arc<Lane>, run: Run, unit: Result<AccessUnit, WriteError>) {
        let tick = run.tick;
        self.runs.push_back(run);
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
        let before = if part.opens { SegmentBooks::default() } else { self.segment };
        let segment = before.and(part, encoded, held);
        epoch
            .append(part, PartBooks { ledger: &ledger, last_at: self.last_at, runs }, || when_closed(lane, segment))?;
        self.segment = if part.closes { SegmentBooks::default() } else { segment };
        self.runs.clear();
        self.holes.clear();
        lane.view(|view| {
            view.ledger.encode(encoded);
            view.ledger.held += held;
            view.ledger.filled += filled;
        });
        self.metrics.encoded(lane.kind, encoded);
        if let Some(read_at) = self.newest_read.take() {
            self.metrics.part_delayed(self.clock.mono() - read_at);
        }
        self.metrics.held(lane.kind, held);
        self.metrics.filled(lane.kind, filled);
        self.metrics.took(Stage::Append, self.clock.mono() - start);
        Ok(())
    }

    /// Ends the epoch: the open part is written, the open segment closed early.
    fn close_epoch(&mut self, lane: &Arc<Lane>) {
        self.units.end_gap();
        if let Some(part) = self.segmenter.flush()
            && let Err(error) = self.append(lane, &part)
        {
            return self.fail(lane, error.into());
        }
        if let Err(error) = self.end_segment(lane) {
            self.fail(lane, error.into());
        }
    }

    /// Closes the open segment, and with it the epoch. Where not even that can be done its parts are in no output, and
    /// are booked so.
    fn end_segment(&mut self, lane: &Arc<Lane>) -> std::io::Result<()> {
        let segment = std::mem::take(&mut self.segment);
        let Some(mut epoch) = self.epoch.take() else { return Ok(()) };
        let mut handed_on = false;
        let ended = epoch.end(|| {
            handed_on = true;
            when_closed(lane, segment)
        });
        if !handed_on {
            segment.lose(lane);
        }
        ended
    }

    /// Something broke: the epoch ends at its last part, what was collected since is booked as lost, and the next
    /// tick begins anew.
    fn fail(&mut self, lane: &Arc<Lane>, error: WriteError) {
        let (discard, gap) = error.booked_as();
        match &error {
            // Without an epoch there was none to lose.
            WriteError::Spool(error) if self.epoch.is_some() || !is_full_error(error) => {
                lane.note_spool_error(error, "a track lost its epoch");
            }
            WriteError::Spool(_) => {}
            WriteError::Encode(_) | WriteError::Package(_) => {
                self.metrics.encoders_failed.inc();
                self.units.close();
                tracing::error!(recording = lane.recording_id, track = lane.track, %error, "a track lost its epoch");
            }
        }
        let runs = std::mem::take(&mut self.runs);
        let lost = runs.iter().filter(|run| run.kind == RunKind::Picture).count() as u64;
        lane.discard(discard, lost);
        for run in runs {
            // What was a gap before stays one for its own reason.
            let reason = run.reason.filter(|_| run.kind == RunKind::Filled);
            self.book_unwritten(lane, run.tick, run.n, reason.unwrap_or(gap));
        }
        // What is complete stays.
        let _ = self.end_segment(lane);
        self.segmenter = Segmenter::new(self.settings.rules.grid);
        self.units.end_gap();
    }
}
