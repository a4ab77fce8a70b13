//! Segments that leave the spool before their recording ends, where its room is nearly used up: those that the store has
//! confirmed, and that its playlist names. An empty file stays in the place of each; at the end they are read back.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::pipeline::lane::Lane;
use crate::pipeline::recording::Recording;
use crate::pipeline::store::journal::SegmentLine;
use crate::pipeline::store::manifest::State;
use crate::pipeline::store::space::Space;
use crate::pipeline::store::spool::{SEGMENTS, read_lines};

/// Lets the older half of what may leave go, of each track, until there is room. Blocking.
pub(super) fn leave(space: &Space, recordings: &[Arc<Recording>]) {
    for recording in recordings {
        let lanes = recording.lanes();
        let _leaving = space.leaving();
        // Those that end need what they have.
        if recording.state() == State::Live {
            lanes.iter().for_each(|lane| leave_of(space, lane));
        }
    }
}

fn leave_of(space: &Space, lane: &Lane) {
    let may = lane.view(|view| view.closed.get(view.left..view.stored).unwrap_or_default().to_vec());
    let mut listed: Option<(String, BTreeSet<i64>)> = None;
    for one in may.iter().take(may.len().div_ceil(2)) {
        if !space.wants_room() {
            return;
        }
        if listed.as_ref().is_none_or(|(epoch, _)| *epoch != one.folder.name) {
            let lines: Vec<SegmentLine> = read_lines(&one.folder.dir.join(SEGMENTS), 0).unwrap_or_default();
            listed = Some((one.folder.name.clone(), lines.iter().map(|line| line.number).collect()));
        }
        // A start understands an empty file by its line in the list, and who reads it back compares it with that.
        if listed.as_ref().is_some_and(|(_, numbers)| numbers.contains(&one.number))
            && let Err(error) = space.empty(&one.path())
        {
            tracing::debug!(track = lane.track, %error, "a segment does not leave the spool");
        }
        lane.view(|view| view.left += 1);
    }
}
