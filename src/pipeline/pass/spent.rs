//! Ids of signed upgrades that have opened a recording: in memory for those who ask, in the spool for the next process.
//!
//! Not here: what a spent id means ([`super::Pass`]).

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::media::Micros;

/// In the spool. A line is the time (unix, microseconds) and the fingerprint of an id.
const FILE: &str = ".spent-ids";
/// Ids that are remembered. Only who has a secret can add one; when full, the oldest goes.
const IDS_MAX: usize = 100_000;
/// The file is written anew when it has so many lines, and as many as there were then, more.
const LINES_MORE: usize = 1_000;

/// What is remembered of an id, which may be long.
type Print = u128;

/// Ids of signed upgrades that have opened a recording. A bot that dials again with the same one before that is no
/// replay: whether Recall signs its redials afresh is not known.
#[derive(Debug)]
pub struct SpentIds {
    /// How long each is remembered.
    kept: Micros,
    path: PathBuf,
    ids: Mutex<Ids>,
    file: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Ids {
    all: HashSet<Print>,
    order: VecDeque<(Micros, Print)>,
}

impl Ids {
    fn add(&mut self, at: Micros, print: Print, kept: Micros) -> bool {
        while let Some((oldest, gone)) = self.order.front().copied()
            && (at - oldest > kept || self.order.len() >= IDS_MAX)
        {
            self.all.remove(&gone);
            self.order.pop_front();
        }
        let is_new = self.all.insert(print);
        if is_new {
            self.order.push_back((at, print));
        }
        is_new
    }
}

#[derive(Debug, Default)]
struct Lines {
    file: Option<File>,
    so_far: usize,
    enough: usize,
}

impl SpentIds {
    /// Reads what earlier processes left in `spool`. Each is remembered for as long as its signature may be fresh. `unix` is
    /// now.
    ///
    /// # Errors
    /// Of the spool's file.
    pub fn open(spool: &Path, kept: Micros, unix: Micros) -> io::Result<SpentIds> {
        let path = spool.join(FILE);
        let mut ids = Ids::default();
        for (at, print) in read(&path, unix - kept)? {
            ids.add(at, print, kept);
        }
        Ok(SpentIds { kept, path, ids: Mutex::new(ids), file: Mutex::default() })
    }

    /// Whether this one has opened a recording.
    pub fn is_spent(&self, id: &str) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).all.contains(&print(id))
    }

    /// Spends it; false where it was spent before. `unix` is now.
    pub(super) fn spend(&self, id: &str, unix: Micros) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).add(unix, print(id), self.kept)
    }

    /// Has the disk remember that it is spent. Blocks for the disk.
    ///
    /// # Errors
    /// Of the spool's file.
    pub fn keep(&self, id: &str, unix: Micros) -> io::Result<()> {
        let mut lines = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match lines.file.take().filter(|_| lines.so_far < lines.enough) {
            Some(file) => file,
            None => {
                let left = read(&self.path, unix - self.kept)?;
                (lines.so_far, lines.enough) = (left.len(), 2 * left.len() + LINES_MORE);
                write_anew(&self.path, &left)?
            }
        };
        // Where this fails, the next one writes it anew.
        file.write_all(line(unix, print(id)).as_bytes())?;
        file.sync_data()?;
        lines.file = Some(file);
        lines.so_far += 1;
        Ok(())
    }
}

fn print(id: &str) -> Print {
    let hash: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    u128::from_be_bytes(*hash.first_chunk().expect("32 bytes begin with 16"))
}

fn line(at: Micros, print: Print) -> String {
    format!("{} {print:032x}\n", at.0)
}

/// The newest lines of the file, oldest first, without those from before `from` and what a death cut.
fn read(path: &Path, from: Micros) -> io::Result<VecDeque<(Micros, Print)>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut left = VecDeque::new();
    for line in text.lines() {
        let Some((at, print)) = line.split_once(' ').filter(|(_, print)| print.len() == 32) else { continue };
        if let (Ok(at), Ok(print)) = (at.parse().map(Micros), Print::from_str_radix(print, 16))
            && at >= from
        {
            if left.len() == IDS_MAX {
                left.pop_front();
            }
            left.push_back((at, print));
        }
    }
    Ok(left)
}

/// Aside, then in its place; open for more.
fn write_anew(path: &Path, left: &VecDeque<(Micros, Print)>) -> io::Result<File> {
    let aside = path.with_extension("aside");
    let mut file = File::create(&aside)?;
    file.write_all(left.iter().map(|(at, print)| line(*at, *print)).collect::<String>().as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&aside, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: i64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    #[test]
    fn what_was_spent_is_known_to_the_next_process_as_long_as_it_matters() {
        let dir = tempfile::tempdir().unwrap();
        let open = |unix| SpentIds::open(dir.path(), secs(600), unix).unwrap();
        let first = open(secs(1000));
        for (id, at) in [("a", 1000), ("b", 1400)] {
            assert!(first.spend(id, secs(at)) && first.is_spent(id) && !first.spend(id, secs(at)));
            first.keep(id, secs(at)).unwrap();
        }
        drop(first);
        // A death in the middle of a line.
        File::options().append(true).open(dir.path().join(FILE)).unwrap().write_all(b"1400000000 0123").unwrap();
        let next = open(secs(1500));
        assert!(next.is_spent("a") && next.is_spent("b") && !next.is_spent("c"));
        next.keep("c", secs(1500)).unwrap();
        let next = open(secs(1700));
        assert!(!next.is_spent("a") && next.is_spent("b") && next.is_spent("c"), "a line of its own after the cut one");
        assert!(next.spend("d", secs(2050)) && !next.is_spent("b"), "forgotten once its signature is stale");
    }

    #[test]
    fn memory_and_file_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let spent = SpentIds::open(dir.path(), secs(600), secs(0)).unwrap();
        for n in 0..IDS_MAX as i64 + 3 {
            assert!(spent.spend(&n.to_string(), Micros(n)));
        }
        assert_eq!(spent.ids.lock().unwrap().order.len(), IDS_MAX);
        assert!(!spent.is_spent("2") && spent.is_spent("3"));
        for n in 0..3_000 {
            spent.keep(&n.to_string(), secs(n)).unwrap();
        }
        let lines = std::fs::read_to_string(dir.path().join(FILE)).unwrap().lines().count();
        assert!(lines < 2 * 601 + LINES_MORE + 1, "{lines} lines of 601 that matter");
    }
}
