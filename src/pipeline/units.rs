//! Pictures, repeats and filler -> the access units of one track, all of the same encoder settings.
//!
//! Not here: which tick gets what ([`super::timeline`]), packaging, the books ([`super::track`]).

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Fill;
use crate::media::{AccessUnit, Canvas, Grid, Picture};
use crate::metrics::{Metrics, Stage};

use super::admission::{Level, Load};
use super::encode::canvas::{Fitter, choose};
use super::encode::filler::Filler;
use super::encode::x264::X264;
use super::encode::{EncodeError, Encoder, EncoderSettings, nal};

/// A picture that is smaller than this on a side is a placeholder: what a source sends while it is off.
const SIDE_MIN: u32 = 64;

/// Whether it is a placeholder, which is never shown: neither does it fix a canvas, nor stand in the middle of one.
pub(super) fn is_placeholder(picture: &Picture) -> bool {
    picture.width().min(picture.height()) < SIDE_MIN
}

/// An open encoder.
pub(super) struct Opened {
    /// Size of what it takes.
    pub(super) canvas: Canvas,
    /// The encoder, which moves with its lane.
    pub(super) encoder: Box<dyn Encoder>,
    /// What it says it runs on.
    pub(super) options: String,
    /// Whether it was opened with the cheaper options of overload.
    cheaper: bool,
    /// The picture that it would repeat.
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

/// Makes the access units of one track.
pub(super) struct UnitMaker {
    settings: EncoderSettings,
    grid: Grid,
    fill: Fill,
    load: Arc<Load>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    canvas: Option<Canvas>,
    opened: Option<Opened>,
    fitter: Fitter,
    shown: Option<Arc<Picture>>,
    /// The prepared GOP of the gap that is open.
    gop: Option<Gop>,
    /// `idr_pic_id` of the last unit, where that was an IDR: two in a row must differ (H.264, 7.4.3).
    last_idr: Option<u32>,
}

impl UnitMaker {
    /// Nothing is opened yet.
    pub(super) fn new(
        settings: EncoderSettings,
        grid: Grid,
        fill: Fill,
        load: Arc<Load>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> UnitMaker {
        UnitMaker {
            settings,
            grid,
            fill,
            load,
            clock,
            metrics,
            canvas: None,
            opened: None,
            fitter: Fitter::new(),
            shown: None,
            gop: None,
            last_idr: None,
        }
    }

    /// The canvas that an earlier process fixed.
    pub(super) fn set_canvas(&mut self, canvas: Canvas) {
        self.canvas = Some(canvas);
    }

    /// The canvas, fixed by the track's first picture, which is no placeholder.
    pub(super) fn fix_canvas(&mut self, picture: &Picture, canvas_max: Canvas) -> Canvas {
        *self.canvas.get_or_insert_with(|| choose(picture.width(), picture.height(), canvas_max))
    }

    /// Opens the encoder where none is open. Returns it when it is new.
    ///
    /// # Errors
    /// Of the encoder.
    ///
    /// # Panics
    /// When no canvas is fixed: the timeline writes nothing before a picture.
    pub(super) fn open(&mut self) -> Result<Option<&Opened>, EncodeError> {
        if self.opened.is_some() {
            return Ok(None);
        }
        let canvas = self.canvas.expect("the timeline writes nothing before a picture fixed the canvas");
        let opened = self.open_for(canvas)?;
        Ok(Some(self.opened.insert(opened)))
    }

    fn open_for(&self, canvas: Canvas) -> Result<Opened, EncodeError> {
        let cheaper = self.load.level() >= Level::Cheaper;
        let encoder = match cheaper {
            true => X264::open(&self.settings.cheaper(), canvas)?,
            false => X264::open(&self.settings, canvas)?,
        };
        let options = encoder.options().to_owned();
        Ok(Opened { canvas, encoder: Box::new(encoder), options, cheaper, shown: None })
    }

    /// At an IDR: goes on with an encoder of other options, where overload asks for it or is over. The parameter sets
    /// stay the same.
    fn follow_load(&mut self) -> Result<(), EncodeError> {
        let opened = self.opened.as_ref().expect(OPENED);
        if opened.cheaper != (self.load.level() >= Level::Cheaper) {
            self.opened = Some(self.open_for(opened.canvas)?);
        }
        Ok(())
    }

    /// Closes the encoder; the next one begins with an IDR.
    pub(super) fn close(&mut self) {
        self.opened = None;
    }

    /// The gap is over, or given up. Returns whether filler was used in it.
    pub(super) fn end_gap(&mut self) -> bool {
        self.gop.take().is_some()
    }

    /// The picture that [`UnitMaker::encode`] encodes from here on. Said before anything is opened, for the ticks after
    /// it are held even where opening failed.
    pub(super) fn show(&mut self, picture: &Arc<Picture>) {
        self.shown = Some(Arc::clone(picture));
    }

    /// Encodes the picture that is shown, for the first time or again.
    ///
    /// # Errors
    /// Of the encoder.
    ///
    /// # Panics
    /// When no encoder is open, or no picture was ever shown: a bug of the caller.
    pub(super) fn encode(&mut self, idr: bool) -> Result<AccessUnit, EncodeError> {
        let start = self.clock.mono();
        if idr {
            self.follow_load()?;
        }
        let opened = self.opened.as_mut().expect(OPENED);
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
        self.note(&unit);
        Ok(unit)
    }

    /// The next unit of the prepared GOP: its IDR at the gap's first tick and when `idr` asks for one.
    ///
    /// # Errors
    /// Of the encoder that prepares it.
    ///
    /// # Panics
    /// When no encoder is open: a bug of the caller.
    pub(super) fn fill(&mut self, idr: bool) -> Result<AccessUnit, EncodeError> {
        let opened = self.opened.as_ref().expect(OPENED);
        if self.gop.is_none() {
            let ticks = self.grid.segment_ticks;
            let filler = match (self.fill, &self.shown) {
                (Fill::Hold, Some(shown)) => {
                    let fitted = self.fitter.fit(shown, opened.canvas)?;
                    Arc::new(Filler::prepare(&self.settings, opened.canvas, fitted, ticks)?)
                }
                _ => Filler::black(&self.settings, opened.canvas, ticks)?,
            };
            self.gop = Some(Gop { filler, before: self.last_idr, used: 0 });
        }
        let gop = self.gop.as_mut().expect("prepared above");
        if idr {
            (gop.before, gop.used) = (self.last_idr, 0);
        }
        let unit = gop.filler.gop(gop.before)[gop.used].clone();
        gop.used += 1;
        self.note(&unit);
        Ok(unit)
    }

    fn note(&mut self, unit: &AccessUnit) {
        let sets = self.opened.as_ref().expect(OPENED).encoder.parameter_sets();
        self.last_idr = unit.idr.then(|| nal::idr_pic_id(unit, sets)).flatten();
    }
}

const OPENED: &str = "opened before it is used";
