//! What is left of a track: its segments that can be played, the lists of them, its init segments.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::media::{Canvas, Grid, Tick};
use crate::pipeline::encode::x264::X264;
use crate::pipeline::encode::{Encoder, EncoderSettings, nal};
use crate::pipeline::package::boxes;
use crate::pipeline::package::headers::read_headers;
use crate::pipeline::store::journal::{self, KindRun, Run, SegmentLine};
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::{EpochManifest, TrackManifest};
use crate::pipeline::store::spool::{SEGMENTS, write_whole};

use super::books::kinds_of;
use super::lines::{each_line, read_text};
use super::names;
use super::segments::{self, Segment};
use super::{PLAYLIST, is_name};

/// A track as it can be rebuilt.
#[derive(Default)]
pub(super) struct Gathered {
    /// Segments that can be played, in the order of time.
    pub(super) segments: Vec<Segment>,
    /// Segments that are listed and cannot.
    pub(super) lost: Vec<Segment>,
    /// Epochs with segments, in the order of time.
    pub(super) epochs: Vec<EpochManifest>,
    /// By the init segments.
    pub(super) canvas: Option<Canvas>,
    /// Likewise, RFC 6381.
    pub(super) codecs: Option<String>,
    /// The settings that the server's encoder makes these init segments with; what else is in them does not show there.
    pub(super) encoder: Option<EncoderSettings>,
    /// Init segments that the server's encoder does not go with: no filler fits between their segments.
    pub(super) foreign: bool,
}

/// Reads and tries every segment of the track in `folder`; mends lists and init segments where it can. `note` is told what
/// was done, and what cannot be used.
pub(super) fn gather(
    folder: &Path,
    grid: Grid,
    old: Option<&TrackManifest>,
    runs: &[Run],
    lists: bool,
    note: &mut dyn FnMut(String),
) -> io::Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut inits = BTreeMap::new();
    for epoch in names(folder, true)?.into_iter().filter(|epoch| is_name(epoch)) {
        let known = old.and_then(|old| old.epochs.iter().find(|known| known.epoch == epoch));
        let Some(init) = known.map(|known| known.init.clone()).or_else(|| init_name(folder, &epoch)) else {
            note(format!("{epoch}: nothing says which init segment it goes with; left out"));
            continue;
        };
        let bytes = inits.entry(init.clone()).or_insert_with(|| usable_init(folder, &init, grid, old, note)).clone();
        if let Some(bytes) = &bytes {
            gathered.note_init(bytes, &init, grid);
        }
        let sound = gather_epoch(folder, &epoch, bytes.as_deref(), grid, runs, lists, &mut gathered, note)?;
        if let Some(first_tick) = sound {
            gathered.epochs.push(EpochManifest {
                epoch,
                first_tick: known.map_or(first_tick, |known| known.first_tick),
                init,
                encoder_options: known.map(|known| known.encoder_options.clone()).unwrap_or_default(),
            });
        }
    }
    gathered.epochs.sort_by_key(|epoch| epoch.first_tick);
    gathered.segments.sort_by_key(|segment| segment.line.first_tick);
    let mut end: Tick = 0;
    gathered.segments.retain(|segment| {
        let apart = segment.line.first_tick >= end;
        if apart {
            end = segment.end();
        } else {
            note(format!("{}: begins before another segment ends; left out", segment.file()));
        }
        apart
    });
    Ok(gathered)
}

/// The first tick of the epoch, where it has a segment.
#[expect(clippy::too_many_arguments, reason = "one step of `gather`, with all it knows")]
fn gather_epoch(
    folder: &Path,
    epoch: &str,
    init: Option<&[u8]>,
    grid: Grid,
    runs: &[Run],
    lists: bool,
    gathered: &mut Gathered,
    note: &mut dyn FnMut(String),
) -> io::Result<Option<Tick>> {
    let path = folder.join(epoch).join(SEGMENTS);
    let (mut lines, mut whole) = (BTreeMap::<i64, SegmentLine>::new(), true);
    let read = each_line::<SegmentLine>(&path, |_, line| {
        let placed = |line: &SegmentLine| {
            segments::sane(line) && segments::misplaced(grid, line.number, line.first_tick, line.ticks).is_none()
        };
        match line.ok().filter(placed) {
            Some(line) => drop(lines.insert(line.number, line)),
            None => whole = false,
        }
        true
    });
    whole &= read.is_ok();
    let listed: BTreeSet<i64> = lines.keys().copied().collect();
    let mut found = BTreeSet::new();
    for name in names(&folder.join(epoch), false)?.into_iter().filter(|name| name.ends_with(".m4s")) {
        let file = format!("{epoch}/{name}");
        match try_segment(&folder.join(&file), &file, init, grid) {
            Err(why) => note(format!("{file}: {why}; left out, and left where it is")),
            Ok(scanned) => {
                let number = grid.segment_of(scanned.first_tick);
                let line = lines.entry(number).or_insert_with(|| SegmentLine {
                    number,
                    first_tick: scanned.first_tick,
                    ticks: scanned.ticks,
                    bytes: scanned.bytes,
                    sha256: scanned.sha256,
                    runs: known_kinds(runs, scanned.first_tick, scanned.ticks),
                });
                found.insert(number);
                gathered.segments.push(Segment { epoch: epoch.to_owned(), line: line.clone() });
            }
        }
    }
    for line in lines.values().filter(|line| !found.contains(&line.number)) {
        let segment = Segment { epoch: epoch.to_owned(), line: line.clone() };
        if !folder.join(segment.file()).exists() {
            note(format!("{}: missing; left out", segment.file()));
        }
        gathered.lost.push(segment);
    }
    if lists && !lines.is_empty() && (!whole || lines.len() > listed.len()) {
        let text: String =
            lines.values().map(|line| serde_json::to_string(line).expect("a line is plain data") + "\n").collect();
        write_whole(&path, text.as_bytes())?;
        note(format!("{epoch}/{SEGMENTS}: rebuilt from the segments"));
    }
    Ok(lines.values().map(|line| line.first_tick).min())
}

/// Whether a segment can be played to its end.
fn try_segment(path: &Path, file: &str, init: Option<&[u8]>, grid: Grid) -> Result<segments::Scanned, String> {
    let init = init.ok_or("its init segment cannot be used")?;
    let bytes = segments::read_whole(path).map_err(|error| error.to_string())?;
    let scanned = segments::scan(&bytes).map_err(|error| error.to_string())?;
    let number = grid.segment_of(scanned.first_tick);
    if let Some(what) = segments::misplaced(grid, number, scanned.first_tick, scanned.ticks) {
        return Err(what);
    }
    if path.file_name().and_then(|name| name.to_str()) != Some(&keys::segment(number)) {
        return Err(format!("its ticks are those of {}", keys::segment(number)));
    }
    match segments::decode(file, init, &bytes)? {
        pictures if pictures == scanned.ticks => Ok(scanned),
        pictures => Err(format!("{pictures} pictures can be decoded of {}", scanned.ticks)),
    }
}

/// What an earlier `ticks.jsonl` says of some ticks; where it says nothing there was a picture, for all anybody knows.
fn known_kinds(runs: &[Run], first: Tick, ticks: Tick) -> Vec<KindRun> {
    let stretches = kinds_of(runs, first, first + ticks);
    journal::kinds(
        &stretches.into_iter().map(|(tick, n, kind)| Run::without_picture(tick, n, kind, None)).collect::<Vec<_>>(),
    )
}

/// The init segment of an epoch that no manifest names: what the playlist names before it, or the only one there is.
fn init_name(folder: &Path, epoch: &str) -> Option<String> {
    let text = read_text(&folder.join(PLAYLIST)).unwrap_or_default();
    let mut init = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            init = name.strip_suffix('"').filter(|name| is_name(name));
        } else if line.strip_prefix(epoch).is_some_and(|rest| rest.starts_with('/')) && init.is_some() {
            return init.map(str::to_owned);
        }
    }
    let mut inits = names(folder, false).ok()?.into_iter().filter(|name| name.starts_with("init-"));
    inits.next().filter(|_| inits.next().is_none())
}

/// The bytes of an init segment. One that is gone or damaged is made anew, where the server's encoder gives the very bytes
/// that its name says.
fn usable_init(
    folder: &Path,
    name: &str,
    grid: Grid,
    old: Option<&TrackManifest>,
    note: &mut dyn FnMut(String),
) -> Option<Vec<u8>> {
    let why = match segments::read_init(folder, name) {
        Ok(bytes) => return Some(bytes),
        Err(why) => why,
    };
    let canvas = old.and_then(|old| Some(Canvas { width: old.width?, height: old.height? }));
    let Some((_, made)) = canvas.and_then(|canvas| own_init(canvas, grid.fps, name)) else {
        note(format!("{name}: {why}; it cannot be made again"));
        return None;
    };
    if !is_name(name) || write_whole(&folder.join(name), &made).is_err() {
        return None;
    }
    note(format!("{name}: {why}; made again"));
    Some(made)
}

/// The init segment of that name and the settings that it goes with, if the server's encoder can make it. Preset and
/// quality change nothing in the parameter sets.
fn own_init(canvas: Canvas, fps: u32, name: &str) -> Option<(EncoderSettings, Vec<u8>)> {
    [true, false].into_iter().find_map(|cabac| {
        let settings = EncoderSettings { fps, cabac, ..EncoderSettings::default() };
        let encoder = X264::open(&settings, canvas).ok()?;
        let init = boxes::init_segment(&boxes::Track { canvas, fps, sets: encoder.parameter_sets() });
        (keys::init(&init) == name).then_some((settings, init))
    })
}

impl Gathered {
    fn note_init(&mut self, bytes: &[u8], name: &str, grid: Grid) {
        let Ok(facts) = read_headers(&mut io::Cursor::new(bytes)) else {
            self.foreign = true;
            return;
        };
        self.canvas = Some(facts.canvas);
        self.codecs = Some(nal::codecs(&facts.sets));
        match own_init(facts.canvas, grid.fps, name) {
            Some((settings, _)) if self.encoder.as_ref().is_none_or(|other| *other == settings) => {
                self.encoder = Some(settings);
            }
            _ => self.foreign = true,
        }
    }

    /// First tick, ticks and file of each segment, for the MP4.
    pub(super) fn spans(&self, folder: &Path) -> Vec<(Tick, Tick, PathBuf)> {
        let span = |segment: &Segment| (segment.line.first_tick, segment.line.ticks, folder.join(segment.file()));
        self.segments.iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_segment_says_which_coder_goes_with_it() {
        let (canvas, grid) = (Canvas { width: 64, height: 48 }, Grid { fps: 2, part_ticks: 2, segment_ticks: 12 });
        for cabac in [true, false] {
            let settings = EncoderSettings { fps: 2, cabac, ..EncoderSettings::default() };
            let sets = X264::open(&settings, canvas).unwrap().parameter_sets().clone();
            let bytes = boxes::init_segment(&boxes::Track { canvas, fps: 2, sets: &sets });
            let mut gathered = Gathered::default();
            gathered.note_init(&bytes, &keys::init(&bytes), grid);
            assert_eq!((&gathered.encoder, gathered.foreign), (&Some(settings), false));
            // Another one in the same track: no filler fits between the two.
            gathered.note_init(&bytes, "init-of-another-encoder.mp4", grid);
            assert!(gathered.foreign);
        }
    }
}
