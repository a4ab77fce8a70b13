//! Segments that left the spool for want of room are read back from the store before their track is put together, and
//! compared with what was written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use crate::pipeline::lane::Lane;
use crate::pipeline::store::journal::SegmentLine;
use crate::pipeline::store::keys;
use crate::pipeline::store::objects::RETRY_FIRST;
use crate::pipeline::store::spool::{Closed, SEGMENTS, read_lines, write_whole};

use super::Keeper;
use super::published::tell_damage;

/// Segments that are read at a time.
const READS: usize = 4;
/// No segment is larger: an hour of the largest pictures.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// So often the store may give other bytes than it was given.
const WRONG_MAX: usize = 3;

/// Whether a segment left the spool: the store has it.
pub(super) async fn has_left(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|meta| meta.len() == 0)
}

impl Keeper {
    /// Whether any of a track left the spool.
    pub(super) async fn has_left_in_part(&self, lane: &Lane) -> bool {
        let closed = lane.view(|view| view.closed.clone());
        stream::iter(closed).any(|one| async move { has_left(&one.path()).await }).await
    }

    /// Reads back what left of a track. Returns whether all of it is here.
    pub(super) async fn read_back(&self, lane: &Lane) -> bool {
        // Nothing leaves any more: the recording is not live.
        drop(self.pipeline.space.leaving());
        let closed = lane.view(|view| view.closed.clone());
        let reads = stream::iter(closed).map(|one| async move { self.read_segment(lane, &one).await });
        reads.buffer_unordered(READS).all(std::future::ready).await
    }

    async fn read_segment(&self, lane: &Lane, one: &Closed) -> bool {
        let path = one.path();
        if !has_left(&path).await {
            return true;
        }
        let key = self.recording.key(&format!("{}/{}/{}", lane.track, one.folder.name, keys::segment(one.number)));
        let parsed = Key::parse(&key).expect("keys are made of safe components");
        let (mut wait, mut wrong) = (RETRY_FIRST, 0);
        while wrong < WRONG_MAX {
            match self.pipeline.objects.get(&parsed, SEGMENT_BYTES_MAX).await {
                Ok(bytes) => match self.keep(one, path.clone(), bytes.unwrap_or_default()).await {
                    Ok(true) => return true,
                    Ok(false) => wrong += 1,
                    Err(error) => self.recording.note_uploads(1, Some(format!("{}: {error}", path.display()))),
                },
                Err(error) => self.recording.note_uploads(1, Some(format!("{key}: {error}"))),
            }
            self.pipeline.objects.wait_again(&mut wait).await;
        }
        tell_damage(&self.recording, &key, "other bytes than it was given, and they are nowhere else");
        false
    }

    /// Puts a segment back in its place, where it is what its list says.
    async fn keep(&self, one: &Closed, path: PathBuf, bytes: Vec<u8>) -> std::io::Result<bool> {
        let (list, number, space) = (one.folder.dir.join(SEGMENTS), one.number, Arc::clone(&self.pipeline.space));
        let kept = move || {
            let lines: Vec<SegmentLine> = read_lines(&list, 0)?;
            let sha256 = keys::hex(&Sha256::digest(&bytes));
            if !lines.iter().any(|line| line.number == number && line.sha256 == sha256) {
                return Ok(false);
            }
            write_whole(&path, &bytes)?;
            space.wrote(bytes.len() as u64);
            Ok(true)
        };
        tokio::task::spawn_blocking(kept).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Lets a finished track's segments leave again, where there is little room: the next ones are read back.
    pub(super) async fn let_leave(&self, lane: &Lane) {
        let (space, closed) = (Arc::clone(&self.pipeline.space), lane.view(|view| view.closed.clone()));
        // In a folder they may be the same files.
        if self.pipeline.objects.is_cloud() && space.is_tight() {
            let emptied = move || closed.iter().for_each(|one| drop(space.empty(&one.path())));
            let _ = tokio::task::spawn_blocking(emptied).await;
        }
    }
}
