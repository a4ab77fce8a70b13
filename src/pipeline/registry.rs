//! Every recording of the process: those that live, and the last manifests of those that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::recording::Recording;
use super::store::keys;
use super::store::manifest::{Manifest, State};

/// Ended recordings that are remembered; older ones are found in the store.
pub(super) const ENDED_MAX: usize = 10_000;

/// Recordings by id.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<String, Arc<Recording>>,
    ended: VecDeque<Arc<Manifest>>,
}

impl Inner {
    fn remember(&mut self, manifest: Arc<Manifest>) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(manifest);
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recording that takes media for `id`, made by `make(id, continues, key)` where there is none. A finished
    /// recording is never changed: what comes after its end opens `id~2`, then `id~3`.
    pub fn open(
        &self,
        id: &str,
        make: impl FnOnce(String, Option<String>, String) -> Recording,
    ) -> (Arc<Recording>, bool) {
        let mut inner = self.lock();
        let mut continues = None;
        for n in 1.. {
            let suffix = if n == 1 { String::new() } else { format!("~{n}") };
            let name = format!("{id}{suffix}");
            match inner.open.get(&name) {
                Some(recording) if recording.state() == State::Live => return (Arc::clone(recording), false),
                Some(_) => {}
                None if inner.ended.iter().any(|manifest| manifest.recording_id == name) => {}
                None => {
                    let key = keys::recording(&name);
                    let recording = Arc::new(make(name.clone(), continues, key));
                    inner.open.insert(name, Arc::clone(&recording));
                    return (recording, true);
                }
            }
            continues = Some(name);
        }
        unreachable!("the numbers do not end")
    }

    /// Puts a recording in that an earlier process began.
    pub fn insert(&self, recording: Arc<Recording>) {
        self.lock().open.insert(recording.id.clone(), recording);
    }

    /// A finished recording that only the store knew.
    pub fn note_ended(&self, manifest: Manifest) {
        let mut inner = self.lock();
        if !inner.ended.iter().any(|known| known.recording_id == manifest.recording_id) {
            inner.remember(Arc::new(manifest));
        }
    }

    /// Whether this process has met a recording of this id.
    pub fn knows(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.open.contains_key(id) || inner.ended.iter().any(|manifest| manifest.recording_id == id)
    }

    /// Whether a message of `id` goes on in a recording that is here.
    pub fn is_live(&self, id: &str) -> bool {
        let inner = self.lock();
        let goes_on = |name: &str| name.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('~'));
        inner.open.iter().any(|(name, recording)| goes_on(name) && recording.state() == State::Live)
    }

    /// Every recording that is not ended.
    pub fn all(&self) -> Vec<Arc<Recording>> {
        self.lock().open.values().cloned().collect()
    }

    /// One that is not ended.
    pub fn get(&self, id: &str) -> Option<Arc<Recording>> {
        self.lock().open.get(id).cloned()
    }

    /// The manifest of one that ended.
    pub fn ended_manifest(&self, id: &str) -> Option<Arc<Manifest>> {
        self.lock().ended.iter().find(|manifest| manifest.recording_id == id).cloned()
    }

    /// The manifests of those that ended, oldest first.
    pub fn all_ended(&self) -> Vec<Arc<Manifest>> {
        self.lock().ended.iter().cloned().collect()
    }

    /// The keeper of this recording came to its end: lanes and encoders go, the manifest stays.
    pub fn ended(&self, id: &str) {
        let mut inner = self.lock();
        let Some(recording) = inner.open.remove(id) else { return };
        inner.remember(Arc::new(recording.manifest()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Canvas, Grid, Micros};
    use crate::pipeline::encode::EncoderSettings;
    use crate::pipeline::recording::RecordingParts;
    use crate::pipeline::state::RecordingSettings;

    #[test]
    fn a_finished_recording_is_never_changed() {
        let registry = Registry::default();
        let open = |id: &str| {
            registry.open(id, |id, continues, key| {
                let settings = RecordingSettings {
                    grid: Grid { fps: 2, part_ticks: 2, segment_ticks: 12 },
                    encoder: EncoderSettings::default(),
                    canvas_max: Canvas { width: 1920, height: 1080 },
                    fill: crate::config::Fill::Black,
                    live_fill: Micros::from_secs(600),
                    settle: Micros::SECOND,
                    hold_webcam: Micros::from_secs(10),
                    hold_screenshare: Micros::from_secs(600),
                };
                let (tenant, spool, alone_since) = (None, "spool".into(), Micros(0));
                Recording::new(RecordingParts { id, tenant, continues, key, spool, settings, alone_since })
            })
        };
        let (first, is_new) = open("a/b");
        assert!(is_new && first.continues.is_none());
        assert!(Arc::ptr_eq(&open("a/b").0, &first));
        first.set_state(State::Finishing);
        let (second, is_new) = open("a/b");
        assert!(is_new);
        assert_eq!((second.id.as_str(), second.continues.as_deref()), ("a/b~2", Some("a/b")));
        assert_eq!(second.key, format!("{}~2", first.key));
        second.set_state(State::Finished);
        registry.ended("a/b~2");
        assert_eq!(open("a/b").0.id, "a/b~3");
        assert_eq!(registry.ended_manifest("a/b~2").unwrap().state, State::Finished);
    }
}
