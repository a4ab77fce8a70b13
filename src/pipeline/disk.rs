//! The pipeline and its disk: what is handed to the sync thread, and telling when the spool is full.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::state::{RecordingState, STATE};
use super::store::manifest::State;
use super::store::space::Change;
use super::store::sync::{SyncJob, WhenTried};
use super::threads::hand_over;
use super::{EVENTS, Pipeline, Recording};

mod clear;
mod kept;
mod leave;

use clear::clear;

/// How often a full spool is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Pipeline {
    /// Hands what a later process must know of a recording to the sync thread. Returns whether it was taken. The lanes'
    /// pictures wait for the first try to write one that says when tick 0 was.
    pub fn write_state(&self, recording: &Arc<Recording>, state: &RecordingState) -> bool {
        let bytes = serde_json::to_vec_pretty(state).expect("a state is plain data");
        let tried = state.origin.is_some().then(|| {
            let recording = Arc::clone(recording);
            let tried: WhenTried = Arc::new(move |written| recording.state_tried(written));
            tried
        });
        self.sync.try_send(SyncJob::Whole { path: recording.spool.join(STATE), bytes, tried }).is_ok()
    }

    /// Keeps what a later process must know, and returns when the disk has been asked to take it.
    pub async fn keep_state(&self, recording: &Arc<Recording>) {
        while !self.write_state(recording, &recording.persistent()) {
            self.sync_barrier().await;
        }
        self.sync_barrier().await;
    }

    /// Hands the state on again where lanes wait for it: the queue was full at the first capture.
    pub(super) fn write_missing_state(&self, recording: &Arc<Recording>) {
        if recording.origin().is_some() && !recording.kept.is_tried() {
            self.write_state(recording, &recording.persistent());
        }
    }

    /// Hands a recording's waiting events to the sync thread; where that is busy they wait for the next visit.
    pub fn write_events(&self, recording: &Recording) {
        let Some(text) = recording.take_events() else { return };
        let job = SyncJob::Lines { path: recording.spool.join(EVENTS), text };
        if let Err(error) = self.sync.try_send(job)
            && let SyncJob::Lines { text, .. } = error.into_inner()
        {
            recording.return_events(text);
        }
    }

    /// Returns when everything handed to the sync thread before is done.
    pub async fn sync_barrier(&self) {
        let (done, hears) = oneshot::channel();
        hand_over(&self.sync, SyncJob::Barrier(done)).await;
        let _ = hears.await;
    }

    /// What is late of a folder must not begin it anew.
    async fn forget_late(&self, folder: &Path) {
        // Waits for a place.
        hand_over(&self.sync, SyncJob::Forget(folder.to_owned())).await;
        self.sync_barrier().await;
    }

    /// Removes a recording's folder from the spool, once everything that belongs to it is in the store.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn remove_from_spool(&self, folder: PathBuf) -> std::io::Result<()> {
        self.forget_late(&folder).await;
        let space = Arc::clone(&self.space);
        tokio::task::spawn_blocking(move || clear(&space, &folder)).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Looks whether a full spool has room again, and tells of it: a line in the log and an event of each recording that
    /// it touches.
    pub(super) async fn watch_spool(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.wait() => return,
            }
            // A folder has as little room as the spool, for all anybody knows.
            if self.objects.is_cloud() && self.space.is_tight() {
                self.make_room().await;
            }
            if !self.space.is_full() {
                continue;
            }
            let (space, now) = (Arc::clone(&self.space), self.clock.mono());
            let change = tokio::task::spawn_blocking(move || space.look(now)).await;
            if let Ok(Some(change)) = change {
                self.tell(change);
            }
        }
    }

    /// Lets leave what the store has.
    async fn make_room(&self) {
        let (space, recordings) = (Arc::clone(&self.space), self.registry.all());
        let (of, keep, now) = (recordings.clone(), self.config.spool_keep.unwrap_or_default(), self.clock.unix());
        let made = move || {
            // Copies first: nobody reads them back.
            kept::prune(&space, keep.into(), now);
            leave::leave(&space, &of);
        };
        let _ = tokio::task::spawn_blocking(made).await;
        // Until the playlists in the store name the others, those stay.
        recordings.iter().for_each(|recording| recording.changed.notify_one());
    }

    fn tell(&self, change: Change) {
        let (used, quota) = (self.space.used(), self.space.quota());
        let (name, detail) = match change {
            Change::Full(cause) => {
                let cause = cause.name();
                tracing::error!(cause, used, quota, "the spool is full: captures are shed until there is room");
                ("spool_full", serde_json::json!({ "cause": cause }))
            }
            Change::Room => {
                tracing::warn!(used, quota, "the spool has room again");
                ("spool_has_room", serde_json::Value::Null)
            }
        };
        for recording in self.registry.all().iter().filter(|recording| recording.state() == State::Live) {
            recording.event(name, detail.clone());
        }
    }
}

#[cfg(test)]
mod tests;
