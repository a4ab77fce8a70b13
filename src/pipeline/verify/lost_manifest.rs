//! What segments and playlists say of a recording whose manifest is gone: its grid, its origin, whether it was finished.

use std::fs::File;
use std::path::Path;

use serde_json::Value;

use crate::media::{Grid, Micros, Tick};
use crate::pipeline::package::headers::read_headers;
use crate::pipeline::package::playlist::Playlist;
use crate::pipeline::store::keys;

use super::lines::read_text;
use super::repair::whole_millis;
use super::segments::{read_whole, scan};
use super::{PLAYLIST, names};

/// The longest cell that is looked for, in seconds.
const CELL_SECONDS_MAX: u32 = 600;
/// What `serve` makes where nobody says otherwise, in seconds.
const CELL_SECONDS: u32 = 6;
/// Segments that are enough to tell the cell.
const SEGMENTS_ENOUGH: usize = 64;

/// Whether media may still come: a server has the recording among those that are not ended, or a playlist waits for more
/// and none says that nothing more comes.
pub(super) fn may_go_on(folder: &Path) -> bool {
    let playlists = playlists(folder);
    let waits = !playlists.is_empty() && !playlists.iter().any(|text| text.trim_end().ends_with("#EXT-X-ENDLIST"));
    waits || has_live_entry(folder)
}

/// Whether a folder above holds a store's entry of a live recording that lies in this folder.
fn has_live_entry(folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.ancestors().skip(1).any(|root| {
        let live = root.join(keys::LIVE);
        let is_this = |entry: &Path| is_entry_of(entry, folder.strip_prefix(root).unwrap_or(&folder));
        names(&live, true).unwrap_or_default().iter().any(|tenant| {
            let entries = names(&live.join(tenant), false).unwrap_or_default();
            entries.iter().any(|entry| is_this(&live.join(tenant).join(entry)))
        })
    })
}

/// Whether an entry is of the recording in this folder of the store: as it says, or by its name where it cannot be read.
fn is_entry_of(entry: &Path, prefix: &Path) -> bool {
    let said: Value = serde_json::from_str(&read_text(entry).unwrap_or_default()).unwrap_or_default();
    match said["recording"]["prefix"].as_str() {
        Some(said) => Path::new(said) == prefix,
        None => entry.file_stem() == prefix.file_name(),
    }
}

fn playlists(folder: &Path) -> Vec<String> {
    let tracks = names(folder, true).unwrap_or_default();
    tracks.iter().filter_map(|track| read_text(&folder.join(track).join(PLAYLIST)).ok()).collect()
}

/// The absolute time of tick 0, by the first segment of a playlist.
pub(super) fn origin_from_playlists(folder: &Path, grid: Grid) -> Option<Micros> {
    names(folder, true).ok()?.iter().find_map(|track| {
        let path = folder.join(track);
        let text = read_text(&path.join(PLAYLIST)).ok()?;
        let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#') && !line.contains(".."))?;
        let first_tick = scan(&read_whole(&path.join(first)).ok()?).ok()?.first_tick;
        Some(whole_millis(Playlist::first_date_time(&text)? - grid.time_of(first_tick)))
    })
}

/// The rate, by an init segment, and the cell, by what segments lie in which.
pub(super) fn grid_from_segments(folder: &Path) -> Option<Grid> {
    let mut fps = None;
    let mut found = Vec::new();
    for track in names(folder, true).ok()? {
        let path = folder.join(track);
        for name in names(&path, false).unwrap_or_default().iter().filter(|name| name.starts_with("init-")) {
            fps = fps.or_else(|| Some(read_headers(&mut File::open(path.join(name)).ok()?).ok()?.fps));
        }
        for epoch in names(&path, true).unwrap_or_default() {
            for name in names(&path.join(&epoch), false).unwrap_or_default() {
                let number = name.strip_suffix(".m4s").and_then(|number| number.parse::<i64>().ok());
                let Some(number) = number.filter(|_| found.len() < SEGMENTS_ENOUGH) else { continue };
                let scanned = read_whole(&path.join(&epoch).join(&name)).and_then(|bytes| scan(&bytes));
                found.extend(scanned.ok().map(|scanned| (number, scanned.first_tick, scanned.ticks)));
            }
        }
    }
    let fps = fps.filter(|fps| (1..=30).contains(fps))?;
    let target = playlists(folder).iter().find_map(|text| {
        text.lines().find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")?.parse::<u32>().ok())
    });
    let segment_ticks = cell(&found, fps, target.filter(|target| *target <= CELL_SECONDS_MAX))?;
    Some(Grid { fps, part_ticks: 1, segment_ticks })
}

/// The ticks of a cell for which every segment (number, first tick, ticks) lies in its own.
fn cell(found: &[(i64, Tick, Tick)], fps: u32, target: Option<u32>) -> Option<u32> {
    let fits = |ticks: &u32| {
        let grid = Grid { fps, part_ticks: 1, segment_ticks: *ticks };
        found
            .iter()
            .all(|(number, first, n)| [*first, first + n - 1].iter().all(|tick| grid.segment_of(*tick) == *number))
    };
    let likely = target.into_iter().chain([CELL_SECONDS]).map(|seconds| seconds * fps);
    let possible = 1..=CELL_SECONDS_MAX * fps;
    likely.chain(possible).filter(|ticks| *ticks > 0 && !found.is_empty()).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_that_every_segment_fits() {
        assert_eq!(cell(&[(0, 0, 12), (1, 12, 12)], 2, None), Some(12));
        assert_eq!(cell(&[(0, 3, 17), (1, 20, 20), (2, 40, 1)], 2, None), Some(20));
        assert_eq!(cell(&[(0, 3, 2)], 2, Some(4)), Some(8), "what the playlist says");
        assert_eq!(cell(&[(0, 3, 2)], 2, None), Some(12), "what is usual");
        assert_eq!(cell(&[(0, 0, 5), (3, 4, 1)], 2, None), None);
        assert_eq!(cell(&[], 2, None), None);
    }
}
