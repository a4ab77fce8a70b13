//! What of a recording is newer here than in the store: the playlists of live tracks, which a cloud's store gets only now
//! and then.

use std::sync::Arc;

use super::Pipeline;
use super::store::keys::Name;

/// Where a playlist is read as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// Here.
    Text(Arc<str>),
    /// Nowhere yet: what was read of it before this process began is being put together again.
    Soon,
    /// In the store, like all else.
    Stored,
}

impl Pipeline {
    /// Where a track's playlist is read as of now. `tail` is what follows the recording in the address.
    pub fn current_playlist(&self, name: &Name, tail: &str) -> Current {
        let Some(track) = tail.strip_suffix("/index.m3u8").filter(|_| self.objects.is_cloud()) else {
            return Current::Stored;
        };
        let lane = self.registry.get(name).and_then(|open| open.lanes().into_iter().find(|lane| lane.track == track));
        let Some(lane) = lane else { return Current::Stored };
        lane.view(|view| match &view.playlist {
            Some(text) => Current::Text(Arc::clone(text)),
            None if view.closed.is_empty() => Current::Stored,
            None => Current::Soon,
        })
    }
}
