//! Journals that were made again from the segments, told what only the manifest knows: why ticks have no picture, and what
//! became of captures that are in no segment.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::ledger::Ledger;
use crate::media::Tick;

use super::journal::{PartLine, Run, RunKind, push_run};
use super::manifest::{Gap, TrackManifest};
use super::mend::head;
use super::recovery::take_up;
use super::spool::{JOURNAL, read_lines, write_line};

/// Makes the journals of a track whole, and tells them what the manifest says.
///
/// # Errors
/// Of the file system.
pub fn retell(dir: &Path, track: &TrackManifest) -> io::Result<()> {
    take_up(dir)?;
    for entry in fs::read_dir(dir)?.flatten().filter(|entry| entry.path().is_dir()) {
        let path = entry.path().join(JOURNAL);
        let Some(head) = head(&entry.path()) else { continue };
        let parts: Vec<PartLine> = read_lines(&path, 1)?;
        let aside = path.with_extension("jsonl.new");
        let mut file = File::create(&aside)?;
        write_line(&mut file, &head)?;
        for part in parts {
            let mut runs = Vec::new();
            part.runs.into_iter().flat_map(|run| told(run, &track.gaps)).for_each(|run| push_run(&mut runs, run));
            let ledger = Ledger { discarded: track.ledger.discarded.clone(), ..part.ledger };
            let ledger = Ledger { received: ledger.encoded + ledger.discarded_total(), ..ledger };
            write_line(&mut file, &PartLine { runs, ledger, ..part })?;
        }
        file.sync_all()?;
        fs::rename(&aside, &path)?;
    }
    Ok(())
}

/// A run of filled ticks, split where the reason changes.
fn told(run: Run, gaps: &[Gap]) -> Vec<Run> {
    if run.kind != RunKind::Filled {
        return vec![run];
    }
    let (end, mut tick, mut runs) = (run.tick + run.n, run.tick, Vec::new());
    while tick < end {
        let gap = gaps.iter().find(|gap| (gap.from_tick..gap.to_tick).contains(&tick));
        let next = gaps.iter().map(|gap| gap.from_tick).filter(|first| *first > tick).min();
        let to: Tick = gap.map(|gap| gap.to_tick).or(next).unwrap_or(end).min(end);
        let reason = gap.map(|gap| gap.reason).or(run.reason);
        runs.push(Run::without_picture(tick, to - tick, RunKind::Filled, reason));
        tick = to;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::GapReason::{CameraOff, Disconnected, Unknown};

    #[test]
    fn filled_ticks_get_their_reasons_back() {
        let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
        let gaps = [gap(0, 4, CameraOff), gap(6, 20, Disconnected)];
        let run = Run::without_picture(2, 8, RunKind::Filled, Some(Unknown));
        let runs: Vec<_> = told(run, &gaps).iter().map(|run| (run.tick, run.n, run.reason.unwrap())).collect();
        assert_eq!(runs, [(2, 2, CameraOff), (4, 2, Unknown), (6, 4, Disconnected)]);
        let picture = Run::without_picture(2, 1, RunKind::Picture, None);
        assert_eq!(told(picture.clone(), &gaps), [picture]);
    }
}
