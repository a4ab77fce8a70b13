//! Takes a finished recording out of the spool, such that a start understands what a death halfway leaves.

use std::fs;
use std::io;
use std::path::Path;

use crate::pipeline::state::STATE;
use crate::pipeline::store::space::{Space, if_there};

/// Removes the folder, the state last: as long as anything of the recording is there, a start reads in it that the
/// recording was being finished, and finds in the store that it is.
///
/// # Errors
/// Of the file system.
pub(super) fn clear(space: &Space, spool: &Path) -> io::Result<()> {
    clear_but_state(space, spool).or_else(if_there)?;
    space.remove(&spool.join(STATE))?;
    fs::remove_dir(spool).or_else(if_there)
}

fn clear_but_state(space: &Space, spool: &Path) -> io::Result<()> {
    for entry in fs::read_dir(spool)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != STATE) {
            space.remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_goes_last() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("recording");
        fs::create_dir_all(spool.join("100-webcam/0000000-abcdef")).unwrap();
        for name in ["100-webcam/init.mp4", "events.jsonl", STATE] {
            fs::write(spool.join(name), "{}").unwrap();
        }
        let space = Space::new(dir.path().to_owned(), None);
        clear_but_state(&space, &spool).unwrap();
        let left: Vec<_> = fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [STATE]);
        clear(&space, &spool).unwrap();
        assert!(!spool.exists());
    }
}
