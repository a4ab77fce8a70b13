//! Segments that left the spool for want of room are read back from the store before their track is put together, and
//! compared with what was written: one track at a time, so that one always finds the room that another leaves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::stream::{self, StreamExt};
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use crate::pipeline::lane::Lane;
use crate::pipeline::store::journal::SegmentLine;
use crate::pipeline::store::keys;
use crate::pipeline::store::objects::RETRY_FIRST;
use crate::pipeline::store::space::Op;
use crate::pipeline::store::spool::{Closed, SEGMENTS, read_lines, write_whole};

use super::Keeper;
use super::published::tell_damage;

/// Segments that are read at a time.
const READS: usize = 4;
/// No segment is larger: an hour of the largest pictures.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// So often the store may give other bytes than it was given.
const WRONG_MAX: usize = 3;

/// Whether a segment left the spool: the store has it. Blocks for the disk.
fn is_emptied(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() == 0)
}

/// [`is_emptied`], for what must not block.
pub(super) async fn has_left(path: PathBuf) -> bool {
    tokio::task::spawn_blocking(move || is_emptied(&path)).await.unwrap_or_default()
}

impl Keeper {
    /// What of a track left the spool.
    pub(super) async fn left(&self, lane: &Lane) -> Vec<Closed> {
        if !self.pipeline.objects.is_cloud() {
            return Vec::new();
        }
        let mut closed = lane.view(|view| view.closed.clone());
        let look = move || {
            closed.retain(|one| is_emptied(&one.path()));
            closed
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// Reads back what left of a track; `false` where the store damaged it.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) async fn read_back(&self, lane: &Lane, left: &[Closed]) -> io::Result<bool> {
        let space = Arc::clone(&self.pipeline.space);
        // Nothing leaves any more: the recording is not live.
        let _ = tokio::task::spawn_blocking(move || drop(space.leaving())).await;
        let given_up = AtomicBool::new(false);
        let given_up = &given_up;
        let reads = stream::iter(left.to_vec()).map(|one| async move {
            if given_up.load(Relaxed) {
                return Ok(true);
            }
            let read = self.read_segment(lane, &one).await;
            given_up.fetch_or(!matches!(read, Ok(true)), Relaxed);
            read
        });
        // Those under way come to their end: what lands must not do so behind the next step.
        let reads: Vec<io::Result<bool>> = reads.buffer_unordered(READS).collect().await;
        reads.into_iter().try_fold(true, |whole, read| Ok(whole & read?))
    }

    async fn read_segment(&self, lane: &Lane, one: &Closed) -> io::Result<bool> {
        let key = self.recording.key(&format!("{}/{}/{}", lane.track, one.folder.name, keys::segment(one.number)));
        let parsed = Key::parse(&key).expect("keys are made of safe components");
        let (mut wait, mut wrong) = (RETRY_FIRST, 0);
        while wrong < WRONG_MAX {
            match self.pipeline.objects.get(&parsed, SEGMENT_BYTES_MAX).await {
                Ok(bytes) => match self.keep(one, bytes.unwrap_or_default()).await? {
                    true => return Ok(true),
                    false => wrong += 1,
                },
                Err(error) => self.recording.note_uploads(1, Some(format!("{key}: {error}"))),
            }
            self.pipeline.objects.wait_again(&mut wait).await;
        }
        tell_damage(&self.recording, &key, "other bytes than it was given, and they are nowhere else");
        Ok(false)
    }

    /// Puts a segment back in its place, where it is what its list says.
    async fn keep(&self, one: &Closed, bytes: Vec<u8>) -> io::Result<bool> {
        let (path, list, number) = (one.path(), one.folder.dir.join(SEGMENTS), one.number);
        let space = Arc::clone(&self.pipeline.space);
        let kept = move || {
            let lines: Vec<SegmentLine> = read_lines(&list, 0)?;
            let sha256 = keys::hex(&Sha256::digest(&bytes));
            if !lines.iter().any(|line| line.number == number && line.sha256 == sha256) {
                return Ok(false);
            }
            space.run(Op::Back, || write_whole(&path, &bytes))?;
            space.wrote(bytes.len() as u64);
            Ok(true)
        };
        tokio::task::spawn_blocking(kept).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Lets a track's segments that the store has leave again, where there is little room.
    pub(super) async fn let_leave(&self, stored: &[Closed]) {
        let space = Arc::clone(&self.pipeline.space);
        // In a folder they may be the same files.
        if self.pipeline.objects.is_cloud() && space.is_tight() {
            let paths: Vec<_> = stored.iter().map(Closed::path).collect();
            let emptied = move || paths.iter().for_each(|path| drop(space.empty(path)));
            let _ = tokio::task::spawn_blocking(emptied).await;
        }
    }
}
