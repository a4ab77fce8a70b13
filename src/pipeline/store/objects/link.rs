//! A folder on the spool's own disk: what never changes is put into it as a second name of the spool's file. Nothing is read
//! or written again, and no second file takes room.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;

/// The store's folder.
pub(super) struct Folder {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
    /// Files of the spool can have no second name here: another disk, or a file system that has none.
    apart: AtomicBool,
}

impl Folder {
    pub(super) fn new(root: PathBuf, store: Arc<LocalFileSystem>) -> Folder {
        // As the store itself writes its paths.
        let root = root.canonicalize().unwrap_or(root);
        Folder { root, store, apart: AtomicBool::new(false) }
    }

    /// Puts a file of the spool under a key, durably, if it never changes any more and lies on the same disk. Gives whether
    /// that was done; else it has to be copied.
    pub(super) async fn link(self: &Arc<Self>, from: &Path, key: &Key) -> bool {
        let last = [".m4s", ".mp4"].iter().any(|end| key.as_ref().ends_with(end));
        let Some(to) = self.store.path_to_filesystem(key).ok().filter(|_| last && !self.apart.load(Relaxed)) else {
            return false;
        };
        let (folder, from) = (Arc::clone(self), from.to_owned());
        let linked = tokio::task::spawn_blocking(move || {
            let linked = link(&folder.root, &from, &to);
            if let Err(error) = &linked
                && is_of_every_file(error)
                && !folder.apart.swap(true, Relaxed)
            {
                tracing::info!(%error, "files of the spool have no second names in the store: they are copied");
            }
            linked.is_ok()
        });
        linked.await.unwrap_or(false)
    }
}

/// Whether no file will fare better.
fn is_of_every_file(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::Unsupported | ErrorKind::PermissionDenied)
}

fn link(root: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let file = File::open(from)?;
    file.sync_all()?;
    let parent = to.parent().unwrap_or(root);
    let mut linked = fs::hard_link(from, to);
    let is_new = linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_new {
        fs::create_dir_all(parent)?;
        linked = fs::hard_link(from, to);
    }
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let (own, there) = (file.metadata()?, fs::metadata(to)?);
            if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
                return Err(error);
            }
        }
        linked => linked?,
    }
    // A new folder has a name to be kept as well.
    let above = parent.ancestors().take_while(|dir| dir.starts_with(root));
    above.take(if is_new { usize::MAX } else { 1 }).try_for_each(|dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_a_second_name_and_never_takes_that_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let (root, from) = (dir.path().join("store"), dir.path().join("segment"));
        fs::create_dir(&root).unwrap();
        fs::write(&from, "media").unwrap();
        let to = root.join("recording/track/epoch/000001.m4s");
        for _ in 0..2 {
            link(&root, &from, &to).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().ino(), fs::metadata(&from).unwrap().ino());
        }
        fs::remove_file(&from).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"media");
        fs::write(&from, "other").unwrap();
        assert!(!is_of_every_file(&link(&root, &from, &to).unwrap_err()));
        assert_eq!(fs::read(&to).unwrap(), b"media");
        assert!(!is_of_every_file(&link(&root, &root.join("none"), &to).unwrap_err()));
    }

    #[tokio::test]
    async fn only_what_never_changes_is_linked() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("file");
        fs::write(&from, "bytes").unwrap();
        let root = dir.path().join("store");
        fs::create_dir(&root).unwrap();
        let store = Arc::new(LocalFileSystem::new_with_prefix(&root).unwrap());
        let folder = Arc::new(Folder::new(root, store));
        for (key, linked) in [("r/t/segments.jsonl", false), ("r/t/init-0.mp4", true), ("r/t/e/000000.m4s", true)] {
            assert_eq!(folder.link(&from, &Key::parse(key).unwrap()).await, linked, "{key}");
        }
    }
}
