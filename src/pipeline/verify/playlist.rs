//! A track's playlist against its segments.

use std::collections::BTreeMap;

use crate::media::Tick;
use crate::pipeline::package::playlist::{Entry, Playlist};
use crate::pipeline::store::journal::SegmentLine;
use crate::pipeline::store::manifest::State;

use super::PLAYLIST;
use super::lines::read_text;
use super::segments::{self, Segment};
use super::track::TrackCheck;

impl TrackCheck<'_> {
    /// The playlist of a finished track names just the segments of the lists; such as are broken may be left out.
    pub(super) fn playlist(&mut self, segments: &[(Segment, bool)]) {
        let Some(entries) = self.read_playlist() else { return };
        let all: Vec<&Segment> = segments.iter().map(|(segment, _)| segment).collect();
        let sound: Vec<&Segment> = segments.iter().filter(|(_, sound)| *sound).map(|(segment, _)| segment).collect();
        if let Some(what) = self.differs(&entries, &all)
            && self.differs(&entries, &sound).is_some()
        {
            self.found(PLAYLIST, what);
        }
    }

    fn differs(&self, entries: &[Entry], segments: &[&Segment]) -> Option<String> {
        let init = |epoch: &str| self.track.epochs.iter().find(|known| known.epoch == epoch).map(|known| &known.init);
        let differs = |(entry, segment): &(&Entry, &&Segment)| {
            let line = &segment.line;
            (&entry.epoch, entry.first_tick, entry.ticks) != (&segment.epoch, line.first_tick, line.ticks)
                || init(&segment.epoch).is_some_and(|init| *init != entry.init)
        };
        if let Some((entry, segment)) = entries.iter().zip(segments).find(differs) {
            return Some(format!(
                "names {}, ticks {} and {} on, {}, where segments.jsonl has {}, ticks {} and {} on",
                entry.epoch,
                entry.first_tick,
                entry.ticks,
                entry.init,
                segment.file(),
                segment.line.first_tick,
                segment.line.ticks
            ));
        }
        let (named, listed) = (entries.len(), segments.len());
        (named != listed).then(|| format!("names {named} segments, where segments.jsonl has {listed}"))
    }

    /// A track that is not finished: every segment that its playlist names is there and can be played.
    pub(super) fn unfinished(&mut self) {
        // Before its first segment a track has nothing in the store.
        if !self.folder.join(PLAYLIST).exists() {
            return;
        }
        let Some(entries) = self.read_playlist() else { return };
        let mut inits = BTreeMap::new();
        let mut end: Tick = 0;
        for entry in entries {
            let line = SegmentLine {
                number: self.against.grid.segment_of(entry.first_tick),
                first_tick: entry.first_tick,
                ticks: entry.ticks,
                bytes: 0,
                sha256: String::new(),
                runs: Vec::new(),
            };
            let segment = Segment { epoch: entry.epoch, line };
            if entry.first_tick < end {
                self.found(&segment.file(), format!("begins before tick {end}, where another segment ends"));
            }
            end = segment.end();
            let init = self.init(&entry.init, &mut inits);
            let Some(bytes) = self.media(&segment) else { continue };
            match segments::scan(&bytes) {
                Err(error) => self.found(&segment.file(), error),
                Ok(scanned) if (scanned.first_tick, scanned.ticks) != (entry.first_tick, entry.ticks) => {
                    let text = format!(
                        "ticks {} and {} on, where the playlist says {} and {}",
                        scanned.first_tick, scanned.ticks, entry.first_tick, entry.ticks
                    );
                    self.found(&segment.file(), text);
                }
                Ok(_) => self.place_and_decode(&segment, init.as_deref(), &bytes),
            }
        }
        self.report.ticks = self.report.ticks.max(end);
    }

    /// The segments that the playlist names, if it is one of ours: discontinuities, maps, times and durations included.
    fn read_playlist(&mut self) -> Option<Vec<Entry>> {
        let origin = self.against.origin.unwrap_or_default();
        let text = match read_text(&self.folder.join(PLAYLIST)) {
            Ok(text) => text,
            Err(error) => {
                self.found(PLAYLIST, error);
                return None;
            }
        };
        match Playlist::read(self.against.grid, origin, &text) {
            Ok((playlist, entries)) => {
                match (self.against.manifest.state, playlist.ended()) {
                    (State::Finished, false) => self.found(PLAYLIST, "finished, and without its end"),
                    (State::Live | State::Suspended, true) => self.found(PLAYLIST, "ended, and not finished"),
                    _ => {}
                }
                Some(entries)
            }
            Err(error) => {
                self.found(PLAYLIST, error);
                None
            }
        }
    }
}
