//! `--spool-keep`: what the spool has of a finished recording stays there for a while, as a copy that anybody can read, in
//! [`KEPT`]. It goes when its time is over, and earlier where the spool has little room: the oldest first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::media::Micros;
use crate::pipeline::Pipeline;
use crate::pipeline::recording::Recording;
use crate::pipeline::store::keys::Name;
use crate::pipeline::store::space::Space;

use super::clear::clear;

/// The folder in the spool.
pub const KEPT: &str = ".kept";
/// How often the copies are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// When a copy was made: its manifest is its last file.
fn made_at(copy: &Path) -> Option<Micros> {
    let meta = std::fs::metadata(copy.join("recording.json")).or_else(|_| std::fs::metadata(copy)).ok()?;
    let since = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Micros(i64::try_from(since.as_micros()).ok()?))
}

/// Removes the copies whose time is over, and the oldest while there is little room. Blocking.
pub(super) fn prune(space: &Space, keep: Micros, now: Micros) {
    let folder = space.root().join(KEPT);
    let copies = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut copies: Vec<(Micros, PathBuf)> = copies.map(|path| (made_at(&path).unwrap_or_default(), path)).collect();
    copies.sort();
    for (at, path) in copies {
        if now - at < keep && !(space.is_tight() && space.wants_room()) {
            return;
        }
        if let Err(error) = space.remove(&path) {
            tracing::warn!(copy = %path.display(), %error, "cannot remove a copy of a finished recording");
        }
    }
}

impl Pipeline {
    /// Where the copy of a recording is.
    pub(in crate::pipeline) fn kept(&self, name: &Name) -> PathBuf {
        self.config.spool.join(KEPT).join(name.spool_folder())
    }

    /// Takes a finished recording out of the spool, or aside where it is to be kept.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn leave_spool(&self, recording: &Recording) -> io::Result<()> {
        let folder = recording.spool.clone();
        if self.config.spool_keep.is_none() {
            return self.remove_from_spool(folder).await;
        }
        self.forget_late(&folder).await;
        let kept = self.kept(&recording.name());
        let space = Arc::clone(&self.space);
        let moved = move || {
            std::fs::create_dir_all(space.root().join(KEPT))?;
            // One of the same name was deleted in the store.
            let _ = space.remove(&kept);
            match std::fs::rename(&folder, &kept) {
                Ok(()) => Ok(()),
                Err(_) => clear(&space, &folder),
            }
        };
        tokio::task::spawn_blocking(moved).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Removes copies, beside everything else.
    pub(in crate::pipeline) async fn keep_copies(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let asked = self.config.spool_keep;
        let keep = asked.unwrap_or_default();
        let mut every = tokio::time::interval((keep / 4).clamp(Duration::from_millis(200), LOOK_EVERY));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.wait() => return,
            }
            let (space, now) = (Arc::clone(&self.space), self.clock.unix());
            let _ = tokio::task::spawn_blocking(move || prune(&space, keep.into(), now)).await;
            if asked.is_none() {
                return;
            }
        }
    }
}
