//! One track: its segments, and then what is made of them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::media::{Grid, Micros, Tick};
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::{Gap, Manifest, State, TrackManifest};

use super::segments::{self, Listed, Segment, SegmentError};
use super::{Findings, Options, PLAYLIST, TrackReport, is_name, names};

/// What a track is checked against.
pub(super) struct Against<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) grid: Grid,
    pub(super) origin: Option<Micros>,
    /// The source's clock was re-based: `relative` is no measure of ticks.
    pub(super) rebased: bool,
    pub(super) options: Options,
}

/// A track being checked.
pub(super) struct TrackCheck<'a> {
    pub(super) against: &'a Against<'a>,
    pub(super) track: &'a TrackManifest,
    pub(super) folder: PathBuf,
    pub(super) report: TrackReport,
    findings: &'a mut Findings,
}

/// Checks a track whose numbers are sane and whose name is one.
pub(super) fn check_track<'a>(
    against: &'a Against<'a>,
    recording: &Path,
    track: &'a TrackManifest,
    findings: &'a mut Findings,
) -> TrackReport {
    let before = findings.count();
    let report = TrackReport {
        track: track.track.clone(),
        name: track.participant.name.clone(),
        pictures: track.ledger.encoded,
        held: track.ledger.held,
        filled: track.ledger.filled,
        ticks: track.end_tick.unwrap_or(0),
        ..TrackReport::default()
    };
    let mut check = TrackCheck { against, track, folder: recording.join(&track.track), report, findings };
    check.manifest_entry();
    match against.manifest.state {
        State::Finished => check.finished(),
        State::Deleted => {}
        _ => check.unfinished(),
    }
    let TrackCheck { mut report, findings, .. } = check;
    report.findings = findings.count() - before;
    report
}

impl TrackCheck<'_> {
    /// Notes what is wrong with a file of the track.
    pub(super) fn found(&mut self, file: &str, what: impl Display) {
        let path = if file.is_empty() { self.track.track.clone() } else { format!("{}/{file}", self.track.track) };
        self.findings.push(path, what);
    }

    /// Whether no media lies before this tick: everything of a finished track ends here.
    pub(super) fn end(&self) -> Tick {
        self.track.end_tick.unwrap_or(0)
    }

    fn manifest_entry(&mut self) {
        let wanted = keys::track(&self.track.participant.id, self.track.kind);
        if self.track.track != wanted {
            self.found("", format!("recording.json: its participant's folder would be {wanted}"));
        }
        if !self.track.ledger.captures_balance() {
            let ledger = &self.track.ledger;
            let text = format!(
                "recording.json: received {} is not encoded {} and discarded {}",
                ledger.received,
                ledger.encoded,
                ledger.discarded_total()
            );
            self.found("", text);
        }
    }

    fn finished(&mut self) {
        let folders = match names(&self.folder, true) {
            Ok(folders) => folders,
            // Without a picture there is no media, but there are books.
            Err(error) => return self.found("", error),
        };
        for epoch in &folders {
            if !self.track.epochs.iter().any(|known| known.epoch == *epoch) {
                self.found(epoch, "recording.json names no such epoch");
            }
        }
        // With `--outputs mp4` no segments are kept.
        let has_media = !folders.is_empty() || self.folder.join(PLAYLIST).exists();
        let segments = if has_media { self.listed_segments() } else { None };
        if let Some(segments) = &segments {
            let all: Vec<&Segment> = segments.iter().map(|(segment, _)| segment).collect();
            self.coverage(&all);
            self.playlist(segments);
        }
        self.ticks(segments.as_deref());
        self.movie();
    }

    /// Every segment that the lists name, and whether its file is as they say.
    fn listed_segments(&mut self) -> Option<Vec<(Segment, bool)>> {
        let Listed { segments, wrong } = match segments::listed(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                self.found("", error);
                return None;
            }
        };
        for (path, what) in wrong {
            self.found(&path, what);
        }
        let mut inits = BTreeMap::new();
        let check = |segment: Segment| {
            let init = self.init_of(&segment.epoch, &mut inits);
            let before = self.findings.count();
            self.segment(&segment, init.as_deref());
            (segment, self.findings.count() == before)
        };
        Some(segments.into_iter().map(check).collect())
    }

    /// The init segment of an epoch, read and checked once.
    pub(super) fn init_of(&mut self, epoch: &str, inits: &mut BTreeMap<String, Option<Vec<u8>>>) -> Option<Vec<u8>> {
        let name = self.track.epochs.iter().find(|known| known.epoch == epoch)?.init.clone();
        self.init(&name, inits)
    }

    /// An init segment, read and checked once.
    pub(super) fn init(&mut self, name: &str, inits: &mut BTreeMap<String, Option<Vec<u8>>>) -> Option<Vec<u8>> {
        if let Some(known) = inits.get(name) {
            return known.clone();
        }
        let read = segments::read_init(&self.folder, name);
        if let Err(what) = &read {
            self.found(name, what);
        }
        inits.insert(name.to_owned(), read.ok());
        inits[name].clone()
    }

    /// One file against its line.
    fn segment(&mut self, segment: &Segment, init: Option<&[u8]>) {
        let (file, line) = (segment.file(), &segment.line);
        let Some(bytes) = self.media(segment) else { return };
        if bytes.len() as u64 != line.bytes {
            self.found(&file, format!("{} bytes, where segments.jsonl says {}", bytes.len(), line.bytes));
        }
        match segments::scan(&bytes) {
            Err(error) => return self.found(&file, error),
            Ok(scanned) if scanned.sha256 != line.sha256 => {
                return self.found(&file, "its SHA-256 is not that of segments.jsonl");
            }
            Ok(scanned) if (scanned.first_tick, scanned.ticks) != (line.first_tick, line.ticks) => {
                let text = format!(
                    "ticks {} and {} on, where segments.jsonl says {} and {}",
                    scanned.first_tick, scanned.ticks, line.first_tick, line.ticks
                );
                return self.found(&file, text);
            }
            Ok(_) => {}
        }
        if line.runs.iter().map(|run| run.n).sum::<Tick>() != line.ticks {
            self.found(&file, "the kinds in segments.jsonl are not as many as its ticks");
        }
        self.place_and_decode(segment, init, &bytes);
    }

    /// The bytes of a segment's file.
    pub(super) fn media(&mut self, segment: &Segment) -> Option<Vec<u8>> {
        let file = segment.file();
        let path = segments::path_of(&self.folder, segment).ok_or(SegmentError::Missing);
        match path.and_then(|path| segments::read_whole(&path)) {
            Ok(bytes) => {
                self.report.segments += 1;
                self.report.bytes += bytes.len() as u64;
                Some(bytes)
            }
            Err(error) => {
                self.found(&file, error);
                None
            }
        }
    }

    pub(super) fn place_and_decode(&mut self, segment: &Segment, init: Option<&[u8]>, bytes: &[u8]) {
        let (file, line) = (segment.file(), &segment.line);
        if let Some(what) = segments::misplaced(self.against.grid, line.number, line.first_tick, line.ticks) {
            self.found(&file, what);
        }
        let Some(init) = init.filter(|_| self.against.options.decode) else { return };
        match segments::decode(&file, init, bytes) {
            Ok(pictures) if pictures == line.ticks => self.report.decoded += pictures as u64,
            Ok(pictures) => self.found(&file, format!("{pictures} pictures can be decoded of {}", line.ticks)),
            Err(error) => self.found(&file, error),
        }
    }

    /// Ticks follow each other, or the manifest says why not.
    fn coverage(&mut self, segments: &[&Segment]) {
        if let Some(first) = segments.first()
            && self.track.first_tick != Some(first.line.first_tick)
        {
            self.found(&first.file(), "recording.json says another first tick");
        }
        let mut next = 0;
        for segment in segments {
            if segment.line.first_tick < next {
                self.found(&segment.file(), format!("begins before tick {next}, where another segment ends"));
            }
            self.declared(next, segment.line.first_tick);
            next = next.max(segment.end());
        }
        if next > self.end() {
            self.found("", format!("media up to tick {next}, where recording.json ends at {}", self.end()));
        }
        self.declared(next, self.end());
    }

    fn declared(&mut self, from: Tick, to: Tick) {
        if let Some(tick) = undeclared(&self.track.gaps, from, to) {
            self.found("", format!("no segment holds tick {tick}, and recording.json declares no gap there"));
        }
    }
}

/// The first tick of `from..to` that no gap covers.
pub(super) fn undeclared(gaps: &[Gap], from: Tick, to: Tick) -> Option<Tick> {
    let mut tick = from;
    while tick < to {
        let gap = gaps.iter().find(|gap| (gap.from_tick..gap.to_tick).contains(&tick));
        tick = match gap {
            Some(gap) => gap.to_tick,
            None => return Some(tick),
        };
    }
    None
}

/// Whether the numbers and names of a track's entry are such that it can be checked at all.
pub(super) fn insane(track: &TrackManifest) -> Option<&'static str> {
    let ticks = 0..=segments::TICKS_MAX;
    let outside = |tick: &Tick| !ticks.contains(tick);
    let limit = segments::TICKS_MAX as u64;
    let ledger = &track.ledger;
    if !is_name(&track.track) || track.mp4.iter().any(|mp4| !is_name(&mp4.path)) {
        return Some("a name that leads out of its folder");
    }
    let tick_wrong = track.first_tick.iter().chain(&track.end_tick).any(outside)
        || track.gaps.iter().any(|gap| outside(&gap.from_tick) || outside(&gap.to_tick))
        || track.mp4.iter().any(|mp4| outside(&mp4.ticks))
        || track.epochs.iter().any(|epoch| outside(&epoch.first_tick));
    let counts = [ledger.received, ledger.encoded, ledger.held, ledger.filled];
    let count_wrong = counts.iter().chain(ledger.discarded.values()).any(|count| *count > limit);
    (tick_wrong || count_wrong).then_some("numbers out of range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::GapReason;

    #[test]
    fn gaps_cover_what_they_name() {
        let gap = |from_tick, to_tick| Gap { from_tick, to_tick, reason: GapReason::Unknown };
        let gaps = [gap(4, 6), gap(0, 2), gap(2, 4), gap(9, 9)];
        for (from, to, first) in [(0, 6, None), (0, 7, Some(6)), (3, 3, None), (8, 10, Some(8)), (5, 9, Some(6))] {
            assert_eq!(undeclared(&gaps, from, to), first, "{from}..{to}");
        }
    }
}
