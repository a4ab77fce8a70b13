//! Recordings in the store, checked from the outside: every file against every other, as a stranger finds them.
//!
//! Reads with the server's own code: the scanner of segments, the writer of playlists, the strict decoder. Works on one
//! recording at a time and holds of a track its lists, never its media. Nothing is written here but by [`repair`].
//!
//! A recording that is not finished is checked as far as it should hold: no MP4, no `ticks.jsonl`, a playlist without
//! its end, whose segments are all there.

mod books;
pub mod copies;
mod findings;
mod gather;
mod lines;
mod lost_manifest;
mod movie;
mod playlist;
mod rebuild;
mod recording;
pub mod repair;
mod segments;
mod track;

pub use findings::{Finding, Findings, RecordingReport, TrackReport};
pub use recording::verify_recording;

use std::io;
use std::path::{Path, PathBuf};

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether every picture is decoded: minutes for hours of media, where the rest takes seconds.
    pub decode: bool,
}

/// The name of the manifest.
const MANIFEST: &str = "recording.json";
/// The name of a track's playlist.
const PLAYLIST: &str = "index.m3u8";
/// Folders are looked through this deep for recordings.
const DEPTH_MAX: u32 = 8;

/// The folders of recordings at `path`: itself, or those below it, in the order of their names.
///
/// # Errors
/// When a folder cannot be listed.
pub fn recordings(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    look_for_recordings(path, 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn look_for_recordings(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let folders = names(folder, true)?;
    let is_track = |name: &String| name.ends_with("-webcam") || name.ends_with("-screenshare");
    // One that lost its manifest is still known by its tracks.
    if folder.join(MANIFEST).exists() || folders.iter().any(is_track) {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth < DEPTH_MAX {
        // Names of the server's own begin with an underscore; one alone stands for what is not known.
        for name in folders.iter().filter(|name| *name == "_" || !name.starts_with(['_', '.'])) {
            look_for_recordings(&folder.join(name), depth + 1, found)?;
        }
    }
    Ok(())
}

/// Names in a folder, sorted: of its folders, or of its files.
fn names(folder: &Path, folders: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() == folders {
            // A name that is no text is no name of ours.
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a name that some file says can be one in its folder: it leads nowhere else.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != ".."
}
