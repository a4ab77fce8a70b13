//! JSON lines from disk, one at a time, in memory that no file can make large.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Longer lines than any of ours.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Larger files than any text of ours, but for JSON lines.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Gives `take` every line, numbered from 1, as it could be read. Ends early when `take` says so.
pub(super) fn each_line<T: DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(usize, Result<T, String>) -> bool,
) -> io::Result<()> {
    let mut from = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let whole = line.pop_if(|byte| *byte == b'\n').is_some();
        let parsed = match whole {
            true => serde_json::from_slice(&line).map_err(|error| error.to_string()),
            false => Err("the line is torn".to_owned()),
        };
        if !take(number, parsed) || !whole {
            break;
        }
    }
    Ok(())
}

/// A whole small file.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.len() > TEXT_BYTES_MAX {
        return Err(io::Error::other("too large to be one of ours"));
    }
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_is_told_and_the_next_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "1\nx\n3\n4").unwrap();
        let mut found = Vec::new();
        each_line::<u32>(&path, |number, line| {
            found.push((number, line.ok()));
            true
        })
        .unwrap();
        assert_eq!(found, [(1, Some(1)), (2, None), (3, Some(3)), (4, None)]);
    }
}
