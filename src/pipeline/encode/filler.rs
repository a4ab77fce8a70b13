//! Prepared GOPs for the gaps of a track: encoded once, appended as often as cells have to be filled.
//!
//! Which ticks are filled, and with what, is decided in `timeline`.

use std::sync::{Arc, Mutex, PoisonError};

use super::nal;
use super::x264::X264;
use super::{EncodeError, Encoder, EncoderSettings};
use crate::media::{AccessUnit, Canvas, ParameterSets, Picture};

/// Black fillers kept: of the sizes and rates that come up in one process. Each is a few kilobytes.
const KEPT: usize = 64;

/// Two GOPs of one still picture that differ in the `idr_pic_id` of their IDR.
///
/// Of two IDRs that follow one another directly, the ids must differ (H.264, 7.4.3). x264 gives 0 and 1 in turn, so
/// whatever lies before, one of the two fits. Their other units are not interchangeable: each refers to its own IDR.
pub struct Filler {
    gops: [Vec<AccessUnit>; 2],
    sets: ParameterSets,
}

impl Filler {
    /// Encodes `picture`, which is of the canvas's size, `ticks` times into either GOP; `ticks` is 1 at least.
    ///
    /// Fails like the encoder.
    pub fn prepare(
        settings: &EncoderSettings,
        canvas: Canvas,
        picture: &Picture,
        ticks: u32,
    ) -> Result<Filler, EncodeError> {
        let mut encoder = X264::open(settings, canvas)?;
        let mut gop = || {
            let first = encoder.encode(picture, true)?;
            let others = (1..ticks).map(|_| encoder.repeat(false));
            std::iter::once(Ok(first)).chain(others).collect::<Result<Vec<_>, EncodeError>>()
        };
        let gops = [gop()?, gop()?];
        let sets = encoder.parameter_sets().clone();
        let ids = gops.each_ref().map(|gop| nal::idr_pic_id(&gop[0], &sets));
        if ids[0] == ids[1] || ids.contains(&None) {
            return Err(EncodeError::Failed(format!("two IDRs with the ids {ids:?}")));
        }
        Ok(Filler { gops, sets })
    }

    /// Black, from a cache of the process. Preset and quality do not matter for it, and so are not told apart: the
    /// parameter sets do not depend on them.
    ///
    /// Fails like the encoder.
    pub fn black(settings: &EncoderSettings, canvas: Canvas, ticks: u32) -> Result<Arc<Filler>, EncodeError> {
        type Key = (Canvas, bool, u32, u32);
        static CACHE: Mutex<Vec<(Key, Arc<Filler>)>> = Mutex::new(Vec::new());
        let lock = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);

        let key = (canvas, settings.cabac, settings.fps, ticks);
        {
            let mut kept = lock();
            if let Some(at) = kept.iter().position(|(known, _)| *known == key) {
                // The newest last, so that the one used longest ago goes first.
                let found = kept.remove(at);
                let filler = found.1.clone();
                kept.push(found);
                return Ok(filler);
            }
        }
        // Encoded without the lock: other lanes go on. Two that come at once encode twice, and either result serves.
        let picture = Picture::black(canvas.width, canvas.height);
        let filler = Arc::new(Filler::prepare(&settings.cheaper(), canvas, &picture, ticks)?);
        let mut kept = lock();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((key, filler.clone()));
        Ok(filler)
    }

    /// The units of a cell for use behind an IDR with the id `before`, or behind anything else (`None`). The first is an
    /// IDR of another id, each of the others refers to the one in front of it.
    pub fn gop(&self, before: Option<u32>) -> &[AccessUnit] {
        let fits = |gop: &&Vec<AccessUnit>| before.is_none() || nal::idr_pic_id(&gop[0], &self.sets) != before;
        self.gops.iter().find(fits).expect("the ids of the two differ")
    }

    /// The parameter sets that the units refer to.
    pub fn parameter_sets(&self) -> &ParameterSets {
        &self.sets
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{decode, psnr, scene};
    use super::*;

    const CANVAS: Canvas = Canvas { width: 640, height: 360 };

    fn settings(preset: &str) -> EncoderSettings {
        EncoderSettings { preset: preset.to_owned(), ..EncoderSettings::default() }
    }

    #[test]
    fn black_is_tiny_and_black() {
        let filler = Filler::black(&settings("superfast"), CANVAS, 12).unwrap();
        let black = Picture::black(640, 360);
        for before in [None, Some(0), Some(1)] {
            let gop = filler.gop(before);
            assert_eq!(gop.len(), 12);
            assert!(gop[0].idr && gop[0].data.len() < 1000, "IDR of {} bytes", gop[0].data.len());
            assert!(gop[1..].iter().all(|unit| !unit.idr && unit.data.len() < 40));
            let shown = decode(filler.parameter_sets(), gop).unwrap();
            assert_eq!(shown.len(), 12);
            assert!(shown.iter().all(|shown| psnr(&black, shown) > 60.0));
        }
    }

    #[test]
    fn an_idr_id_differs_from_the_one_before() {
        let filler = Filler::prepare(&settings("superfast"), CANVAS, &scene(640, 360, 1), 3).unwrap();
        let id = |before| nal::idr_pic_id(&filler.gop(before)[0], filler.parameter_sets());
        assert_eq!((id(Some(0)), id(Some(1)), id(Some(7))), (Some(1), Some(0), Some(0)));
    }

    #[test]
    fn black_is_prepared_once_for_all_presets() {
        let canvas = Canvas { width: 96, height: 64 };
        let first = Filler::black(&settings("superfast"), canvas, 12).unwrap();
        assert!(Arc::ptr_eq(&first, &Filler::black(&settings("medium"), canvas, 12).unwrap()));
        assert!(!Arc::ptr_eq(&first, &Filler::black(&settings("superfast"), canvas, 6).unwrap()));
    }

    #[test]
    fn a_cell_of_30_pictures_a_second_decodes() {
        let thirty = EncoderSettings { fps: 30, ..settings("superfast") };
        let filler = Filler::black(&thirty, Canvas { width: 64, height: 64 }, 180).unwrap();
        assert_eq!(decode(filler.parameter_sets(), filler.gop(None)).unwrap().len(), 180);
    }

    #[test]
    fn encoders_and_filler_join_under_one_set_of_parameter_sets() {
        let filler = Filler::black(&settings("superfast"), CANVAS, 12).unwrap();
        let mut pictures: Vec<Picture> = Vec::new();
        let mut units: Vec<AccessUnit> = Vec::new();
        for preset in ["superfast", "medium", "ultrafast"] {
            let mut encoder = X264::open(&settings(preset), CANVAS).unwrap();
            assert_eq!(encoder.parameter_sets(), filler.parameter_sets());
            for number in 0..7 {
                pictures.push(scene(640, 360, number));
                units.push(encoder.encode(&pictures[pictures.len() - 1], number == 0).unwrap());
            }
            pictures.extend(std::iter::repeat_n(Picture::black(640, 360), 12));
            units.extend_from_slice(filler.gop(None));
        }
        // A filler of one unit between IDRs, and filler begun anew inside a cell.
        let before = nal::idr_pic_id(&filler.gop(None)[0], filler.parameter_sets());
        pictures.extend(std::iter::repeat_n(Picture::black(640, 360), 1 + 5));
        units.push(filler.gop(None)[0].clone());
        units.extend_from_slice(&filler.gop(before)[..5]);

        let shown = decode(filler.parameter_sets(), &units).unwrap();
        assert_eq!(shown.len(), pictures.len());
        for (number, (picture, shown)) in pictures.iter().zip(&shown).enumerate() {
            assert!(psnr(picture, shown) > 38.0, "picture {number}: {} dB", psnr(picture, shown));
        }
    }
}
