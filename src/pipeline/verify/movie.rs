//! A track's MP4 against the manifest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ffmpeg::PictureReader;
use crate::media::{Grid, Tick};
use crate::pipeline::assembly::MP4;
use crate::pipeline::package::headers::read_headers;
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::Mp4Manifest;

use super::track::TrackCheck;

const BUFFER: usize = 256 << 10;

impl TrackCheck<'_> {
    pub(super) fn movie(&mut self) {
        let track = self.track;
        if self.folder.join(MP4).exists() && !track.mp4.iter().any(|mp4| mp4.path == MP4) {
            self.found(MP4, "not in recording.json");
        }
        let wanted = self.against.manifest.tracks.iter().any(|other| !other.mp4.is_empty());
        if wanted && track.mp4.is_empty() && track.first_tick.is_some() {
            self.found("", "recording.json: no MP4, where another track has one");
        }
        for mp4 in &track.mp4 {
            if let Err(what) = self.one_movie(mp4) {
                self.found(&mp4.path, what);
            }
        }
        if track.first_tick.is_some() && track.ledger.ticks() != self.end() as u64 {
            let text = format!(
                "recording.json: the ledger's encoded, held and filled are {} ticks of {}",
                track.ledger.ticks(),
                self.end()
            );
            self.found("", text);
        }
    }

    fn one_movie(&mut self, mp4: &Mp4Manifest) -> Result<(), String> {
        let path = self.folder.join(&mp4.path);
        let (bytes, sha256) = hash(&path).map_err(|error| error.to_string())?;
        self.report.bytes += bytes;
        if bytes != mp4.bytes {
            return Err(format!("{bytes} bytes, where recording.json says {}", mp4.bytes));
        }
        if sha256 != mp4.sha256 {
            return Err("its SHA-256 is not that of recording.json".to_owned());
        }
        if (mp4.from_tick, mp4.ticks) != (0, self.end()) {
            return Err(format!(
                "recording.json gives it {} ticks from {} on, the track ends at {}",
                mp4.ticks,
                mp4.from_tick,
                self.end()
            ));
        }
        let grid = self.against.grid;
        let facts = File::open(&path).map_err(|error| error.to_string());
        let facts = facts.and_then(|mut file| read_headers(&mut file).map_err(|error| error.to_string()))?;
        if (facts.ticks, facts.fps) != (mp4.ticks, grid.fps) {
            return Err(format!("{} pictures, {} a second", facts.ticks, facts.fps));
        }
        if (Some(facts.canvas.width), Some(facts.canvas.height)) != (self.track.width, self.track.height) {
            return Err(format!("{}x{}", facts.canvas.width, facts.canvas.height));
        }
        if self.against.options.decode {
            self.report.decoded += decode(&path, grid, mp4.ticks)? as u64;
        }
        Ok(())
    }
}

/// Decodes an MP4: picture number is tick, and nothing is concealed.
fn decode(path: &Path, grid: Grid, ticks: Tick) -> Result<Tick, String> {
    let path = path.to_str().ok_or("its path is no text, so that it cannot be decoded")?;
    let mut tick = 0;
    for picture in PictureReader::open_strict(path).map_err(|error| error.to_string())? {
        let (at, _) = picture.map_err(|error| error.to_string())?;
        if at != grid.time_of(tick) {
            return Err(format!("picture {tick} is shown at {} s", at.as_secs_f64()));
        }
        tick += 1;
    }
    if tick == ticks { Ok(tick) } else { Err(format!("{tick} pictures can be decoded of {ticks}")) }
}

/// Size and SHA-256 of a file.
pub(super) fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut sha, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, keys::hex(&sha.finalize()))),
            read => {
                sha.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
