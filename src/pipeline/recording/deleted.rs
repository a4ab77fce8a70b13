//! Tracks of a recording that were deleted: their books are left, and captures that still come for them are counted there.
//! A participant of whom no other track is left is forgotten: no name, no event.
//!
//! Not here: what of them is on disk and in the store ([`crate::pipeline::erase`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ledger::Ledger;
use crate::media::{DiscardReason, Kind};
use crate::pipeline::lane::Lane;
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::DeletedTrack;

use super::{Inner, Recording};

/// The participant that a line of events is about.
pub fn participant_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["participant"]["id"].as_str().map(str::to_owned)
}

/// Whom a track of a recording shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shows {
    /// This participant.
    Participant(String),
    /// Nobody any more: it was deleted.
    Deleted,
    /// There is no such track.
    Nobody,
}

impl Inner {
    /// Whether nothing is kept of a participant: a track of theirs was deleted, and there is no other.
    pub(super) fn is_forgotten(&self, id: &str) -> bool {
        !self.deleted.is_empty()
            && Kind::ALL.iter().any(|kind| self.deleted.contains_key(&keys::track(id, *kind)))
            && !self.lanes.keys().any(|(of, _)| of == id)
    }

    /// Counts a capture of a track that was deleted; `false` where it was not.
    pub(super) fn counts_as_deleted(&mut self, id: &str, kind: Kind) -> bool {
        if self.deleted.is_empty() {
            return false;
        }
        let books = self.deleted.get_mut(&keys::track(id, kind));
        books.map(|books| books.discard(DiscardReason::Deleted, 1)).is_some()
    }

    /// Lines of events but those of forgotten participants.
    pub(super) fn without_forgotten(&self, text: String) -> String {
        if self.deleted.is_empty() {
            return text;
        }
        let kept = |line: &&str| participant_in(line).is_none_or(|id| !self.is_forgotten(&id));
        text.split_inclusive('\n').filter(kept).collect()
    }

    /// What a later process must know of deleted tracks: of one whose lane still stops the journals say more than its books.
    pub(super) fn kept_deleted(&self) -> BTreeMap<String, Ledger> {
        let kept = self.deleted.iter().filter(|(track, _)| !self.stopping.contains(*track));
        kept.map(|(track, books)| (track.clone(), books.clone())).collect()
    }

    pub(super) fn deleted_tracks(&self) -> Vec<DeletedTrack> {
        let deleted = self.deleted.iter();
        deleted.map(|(track, ledger)| DeletedTrack { track: track.clone(), ledger: ledger.clone() }).collect()
    }
}

impl Recording {
    /// Whom a track shows.
    pub fn shows(&self, track: &str) -> Shows {
        let inner = self.lock();
        if inner.deleted.contains_key(track) {
            return Shows::Deleted;
        }
        let lane = inner.lanes.values().find(|lane| lane.track == track);
        lane.map_or(Shows::Nobody, |lane| Shows::Participant(lane.participant_id.clone()))
    }

    /// From here on a track is deleted, and counts what still comes. Gives its lane, which is to be stopped.
    pub fn delete_track(&self, track: &str) -> Option<Arc<Lane>> {
        let mut inner = self.lock();
        let key = inner.lanes.iter().find(|(_, lane)| lane.track == track).map(|(key, _)| key.clone())?;
        let lane = inner.lanes.remove(&key)?;
        lane.delete();
        inner.deleted.insert(track.to_owned(), Ledger::default());
        inner.stopping.insert(track.to_owned());
        inner.mp4.remove(track);
        let limbo = std::mem::take(&mut inner.limbo);
        let (gone, stays): (Vec<_>, _) = limbo.into_iter().partition(|offer| Arc::ptr_eq(&offer.lane, &lane));
        inner.limbo = stays.into();
        if inner.is_forgotten(&key.0) {
            inner.people.forget(&key.0);
            let text = std::mem::take(&mut inner.events).concat();
            let text = inner.without_forgotten(text);
            inner.event_bytes = text.len();
            inner.events = vec![text];
        }
        drop(inner);
        lane.discard(DiscardReason::Deleted, gone.len() as u64);
        self.changed.notify_one();
        Some(lane)
    }

    /// The lane of a deleted track has written its last: these are its books.
    pub fn note_deleted(&self, lane: &Lane) {
        let books = lane.view(|view| view.ledger.clone()).deleted();
        let mut inner = self.lock();
        inner.stopping.remove(&lane.track);
        inner.deleted.entry(lane.track.clone()).or_default().join(books);
    }

    /// Goes on from what an earlier process left of deleted tracks.
    pub fn go_on_without(&self, deleted: BTreeMap<String, Ledger>) {
        self.lock().deleted = deleted;
    }

    /// Whether nothing is to be kept of a participant.
    pub fn is_forgotten(&self, id: &str) -> bool {
        self.lock().is_forgotten(id)
    }

    /// The spool says nothing more of a deleted track: the store is to say as little. Gives which change that is.
    pub fn note_erased(&self) -> u64 {
        let mut inner = self.lock();
        inner.erased += 1;
        self.changed.notify_one();
        inner.erased
    }

    /// The newest such change.
    pub fn erased(&self) -> u64 {
        self.lock().erased
    }

    /// Events and manifest in the store are as of this change.
    pub fn tell_erased(&self, erased: u64) {
        self.erased_told.send_replace(erased);
    }

    /// Returns when they are.
    pub async fn erased_told(&self, erased: u64) {
        // Whoever tells is kept alive by this borrow.
        let _ = self.erased_told.subscribe().wait_for(|told| *told >= erased).await;
    }
}
