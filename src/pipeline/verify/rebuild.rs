//! A track's derived files, made again from its segments: `ticks.jsonl`, MP4, playlist, its entry in the manifest.

use std::path::Path;

use crate::config::Fill;
use crate::ledger::Ledger;
use crate::media::{GapReason, Grid, Micros, Tick};
use crate::pipeline::assembly::{AssembleJob, AssemblyError, MP4, TICKS, write_movie, write_ticks};
use crate::pipeline::package::playlist::{Entry, Playlist};
use crate::pipeline::store::journal::{Run, RunKind};
use crate::pipeline::store::manifest::{Gap, Mp4Manifest, ParticipantManifest, TrackManifest};
use crate::pipeline::store::spool::write_whole;

use super::PLAYLIST;
use super::books::{Stretch, clip, push_stretch, stretches_of};
use super::gather::Gathered;
use super::lines::{each_line, read_text};
use super::movie::hash;
use super::segments::Segment;
use super::track::undeclared;

/// What a track is rebuilt with.
pub(super) struct Rebuild<'a> {
    pub(super) folder: &'a Path,
    pub(super) grid: Grid,
    pub(super) fill: Fill,
    pub(super) origin: Micros,
    pub(super) gathered: &'a Gathered,
    /// The entry of the old manifest, where there is a sane one.
    pub(super) old: Option<&'a TrackManifest>,
    /// Who it shows, by whatever is left.
    pub(super) entry: TrackManifest,
    /// The readable lines of `ticks.jsonl`.
    pub(super) runs: Vec<Run>,
    /// Ticks of the finished recording; `None` when it is not finished.
    pub(super) end: Option<Tick>,
    /// Whether an MP4 is wanted.
    pub(super) mp4: bool,
}

/// The lines of `ticks.jsonl` that make sense, in order.
pub(super) fn readable_runs(folder: &Path) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let read = each_line::<Run>(&folder.join(TICKS), |_, line| {
        let next = runs.last().map_or(0, |run| run.tick + run.n);
        let range = next..super::segments::TICKS_MAX;
        runs.extend(line.ok().filter(|run| {
            range.contains(&run.tick)
                && (1..=range.end).contains(&run.n)
                && (run.kind != RunKind::Picture || run.n == 1)
        }));
        true
    });
    // What cannot be read is made again.
    let _ = read;
    runs
}

impl Rebuild<'_> {
    /// Writes what has to be written. Gives the track's entry.
    pub(super) fn run(mut self, note: &mut dyn FnMut(String)) -> Result<TrackManifest, AssemblyError> {
        let gathered = self.gathered;
        self.entry.epochs.clone_from(&gathered.epochs);
        self.entry.first_tick = gathered.segments.iter().chain(&gathered.lost).map(|one| one.line.first_tick).min();
        if let Some(canvas) = gathered.canvas {
            (self.entry.width, self.entry.height) = (Some(canvas.width), Some(canvas.height));
            self.entry.codecs.clone_from(&gathered.codecs);
        }
        self.playlist(note)?;
        let Some(end) = self.end else {
            self.unfinished();
            return Ok(self.entry);
        };
        self.entry.end_tick = Some(end);
        let sound = self.sound_movie(end);
        // An MP4 that is whole keeps what its segments lost since.
        let mut used: Vec<&Segment> = gathered.segments.iter().collect();
        if sound.is_some() {
            used.extend(&gathered.lost);
            used.sort_by_key(|segment| segment.line.first_tick);
        }
        let stretches = stretches_of(used, end);
        self.entry.gaps = self.gaps(&stretches);
        self.ticks(&stretches, end, note)?;
        self.entry.ledger = self.ledger(&stretches);
        self.entry.mp4 = match sound {
            Some(mp4) => vec![mp4],
            None => self.movie(end, note)?.into_iter().collect(),
        };
        Ok(self.entry)
    }

    /// The books of a track that may go on: those that there are, else what the segments show.
    fn unfinished(&mut self) {
        let last = self.gathered.segments.last().map(Segment::end);
        self.entry.end_tick = self.entry.end_tick.max(last);
        if self.old.is_none() {
            let stretches = stretches_of(&self.gathered.segments, last.unwrap_or(0));
            self.entry.gaps = self.gaps(&stretches);
            self.entry.ledger = self.ledger(&stretches);
        }
    }

    fn playlist(&self, note: &mut dyn FnMut(String)) -> Result<(), AssemblyError> {
        let mut playlist = Playlist::new(self.grid, self.origin);
        for segment in &self.gathered.segments {
            let Some(epoch) = self.gathered.epochs.iter().find(|epoch| epoch.epoch == segment.epoch) else { continue };
            playlist.push(&Entry {
                epoch: segment.epoch.clone(),
                first_tick: segment.line.first_tick,
                ticks: segment.line.ticks,
                init: epoch.init.clone(),
            });
        }
        if self.end.is_some() {
            playlist.end();
        }
        let path = self.folder.join(PLAYLIST);
        if self.gathered.segments.is_empty() || read_text(&path).is_ok_and(|text| text == playlist.text()) {
            return Ok(());
        }
        write_whole(&path, playlist.text().as_bytes()).map_err(|source| AssemblyError::Io { path, source })?;
        note(format!("{PLAYLIST}: rebuilt, {} segments", self.gathered.segments.len()));
        Ok(())
    }

    /// The MP4 that the old manifest names, where it is the very same.
    fn sound_movie(&self, end: Tick) -> Option<Mp4Manifest> {
        let mp4 = self.old?.mp4.iter().find(|mp4| mp4.path == MP4 && (mp4.from_tick, mp4.ticks) == (0, end))?;
        let found = hash(&self.folder.join(MP4)).ok()?;
        (found == (mp4.bytes, mp4.sha256.clone())).then(|| mp4.clone())
    }

    /// Ranges without pictures: those known, and what is in no segment.
    fn gaps(&self, stretches: &[Stretch]) -> Vec<Gap> {
        let mut gaps = match self.old {
            Some(old) => old.gaps.clone(),
            None => {
                let with_reason = self.runs.iter().filter_map(|run| Some((run.tick, run.n, run.reason?)));
                let mut gaps = Vec::new();
                with_reason.for_each(|(tick, n, reason)| push_gap(&mut gaps, tick, tick + n, reason));
                gaps
            }
        };
        let first = self.entry.first_tick.unwrap_or(0);
        if undeclared(&gaps, 0, first).is_some() {
            gaps.insert(0, Gap { from_tick: 0, to_tick: first, reason: GapReason::NotJoined });
        }
        let filled = stretches.iter().filter(|one| one.2 == RunKind::Filled).map(|one| (one.0, one.0 + one.1));
        let lost = self.gathered.lost.iter().map(|segment| (segment.line.first_tick, segment.end()));
        for (from, to) in filled.chain(lost) {
            let mut tick = from;
            while let Some(bare) = undeclared(&gaps, tick, to) {
                let next = gaps.iter().map(|gap| gap.from_tick).filter(|begin| *begin > bare).min();
                let until = next.unwrap_or(to).min(to);
                push_gap(&mut gaps, bare, until, GapReason::Unknown);
                tick = until;
            }
        }
        gaps.sort_by_key(|gap| gap.from_tick);
        gaps
    }

    fn job(&self, end: Tick) -> AssembleJob {
        AssembleJob {
            dir: self.folder.to_owned(),
            epochs: Vec::new(),
            spans: self.gathered.spans(self.folder),
            ticks: end,
            canvas: self.gathered.canvas,
            gaps: self.entry.gaps.clone(),
            title: self.entry.participant.name.clone(),
            origin: self.origin,
            mp4: self.mp4,
            encoder: self.gathered.encoder.clone().unwrap_or_default(),
            segment_ticks: self.grid.segment_ticks,
            fill: self.fill,
        }
    }

    /// Leaves a `ticks.jsonl` that says what the segments say; else writes one with what can be told.
    fn ticks(&self, stretches: &[Stretch], end: Tick, note: &mut dyn FnMut(String)) -> Result<(), AssemblyError> {
        let mut lines = 0;
        let read = each_line::<serde::de::IgnoredAny>(&self.folder.join(TICKS), |_, _| {
            lines += 1;
            true
        });
        let whole = read.is_ok() && lines == self.runs.len();
        let mut said = Vec::new();
        self.runs.iter().for_each(|run| push_stretch(&mut said, (run.tick, run.n, run.kind)));
        if whole && said == stretches {
            return Ok(());
        }
        let mut runs = Vec::new();
        for (first, n, kind) in stretches.iter().filter(|one| one.2 != RunKind::Filled) {
            runs.extend(clip(&self.runs, *first, first + n, *kind));
        }
        write_ticks(&self.job(end), runs.into_iter().map(Ok))?;
        note(format!("{TICKS}: rebuilt"));
        Ok(())
    }

    /// The books: what came and is not shown is discarded, by the reasons known, else `lost`.
    fn ledger(&self, stretches: &[Stretch]) -> Ledger {
        let count = |kind| stretches.iter().filter(|one| one.2 == kind).map(|one| one.1 as u64).sum::<u64>();
        let old = self.old.map(|old| old.ledger.clone()).unwrap_or_default();
        let encoded = count(RunKind::Picture);
        let mut discarded = old.discarded;
        // Pictures that were counted, if that count was right, and are in no segment any more.
        let lost: u64 = self
            .gathered
            .lost
            .iter()
            .flat_map(|one| &one.line.runs)
            .filter(|run| run.kind == RunKind::Picture)
            .map(|run| run.n as u64)
            .sum();
        let lost = lost.min(old.encoded.saturating_sub(encoded));
        if lost > 0 {
            *discarded.entry("lost".to_owned()).or_default() += lost;
        }
        let mut ledger =
            Ledger { received: 0, encoded, held: count(RunKind::Held), filled: count(RunKind::Filled), discarded };
        ledger.received = encoded + ledger.discarded_total();
        ledger
    }

    fn movie(&self, end: Tick, note: &mut dyn FnMut(String)) -> Result<Option<Mp4Manifest>, AssemblyError> {
        if !self.mp4 || self.gathered.canvas.is_none() {
            return Ok(None);
        }
        if self.gathered.foreign {
            note(format!(
                "{MP4}: this program's encoder is not that of the segments, so that no filler fits; not rebuilt"
            ));
            return Ok(self.old.and_then(|old| old.mp4.first().cloned()));
        }
        let before = hash(&self.folder.join(MP4)).ok();
        let made = write_movie(&self.job(end))?;
        if let Some(made) = &made
            && before != Some((made.bytes, made.sha256.clone()))
        {
            note(format!("{MP4}: rebuilt, {} ticks", made.ticks));
        }
        Ok(made)
    }
}

fn push_gap(gaps: &mut Vec<Gap>, from_tick: Tick, to_tick: Tick, reason: GapReason) {
    match gaps.last_mut() {
        Some(last) if last.to_tick == from_tick && last.reason == reason => last.to_tick = to_tick,
        _ => gaps.push(Gap { from_tick, to_tick, reason }),
    }
}

/// An entry for a track that no manifest names, by its folder's name.
pub(super) fn entry_of(track: &str, participant: ParticipantManifest, kind: crate::media::Kind) -> TrackManifest {
    TrackManifest {
        track: track.to_owned(),
        participant,
        kind,
        width: None,
        height: None,
        codecs: None,
        first_tick: None,
        end_tick: None,
        epochs: Vec::new(),
        gaps: Vec::new(),
        ledger: Ledger::default(),
        mp4: Vec::new(),
    }
}
