//! Every recording of the process: those that live, the last manifests of those that ended, and the names that are taken by
//! what nobody can read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::media::Micros;

use super::recording::Recording;
use super::store::keys;
use super::store::manifest::{Manifest, State};

/// Ended recordings that are remembered; older ones are found in the store.
pub(super) const ENDED_MAX: usize = 10_000;

/// Of those the newest, whose manifests are here as a whole; the store has the others'. A manifest is some ten kilobytes.
const WHOLE_MAX: usize = 200;

/// Recordings by id.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<String, Arc<Recording>>,
    ended: VecDeque<Arc<Manifest>>,
    /// Names under which the store has something that is no manifest; older ones are found there again.
    unreadable: VecDeque<String>,
    /// Folders of the spool that the start left alone.
    left_alone: HashSet<String>,
}

impl Inner {
    /// Whether nothing is ever opened under this name.
    fn is_taken(&self, name: &str) -> bool {
        self.ended.iter().any(|manifest| manifest.recording_id == name)
            || self.unreadable.iter().any(|taken| taken == name)
            || self.left_alone.contains(&keys::recording(name))
    }

    fn remember(&mut self, manifest: Arc<Manifest>) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(manifest);
        if let Some(place) = self.ended.len().checked_sub(WHOLE_MAX + 1) {
            self.ended[place] = Arc::new(for_the_list(&self.ended[place]));
        }
    }
}

/// What the list shows of a recording and is filtered by.
fn for_the_list(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for track in &mut manifest.tracks {
        (track.epochs, track.gaps, track.mp4, track.ledger) = Default::default();
    }
    manifest
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recording that takes media for `id`, made by `make(id, continues, key)` where there is none. A finished
    /// recording is never changed, nor is one that nobody can read: what comes after it opens `id~2`, then `id~3`.
    pub fn open(
        &self,
        id: &str,
        make: impl FnOnce(String, Option<String>, String) -> Recording,
    ) -> (Arc<Recording>, bool) {
        let mut inner = self.lock();
        let mut continues = None;
        for n in 1.. {
            let name = nth(id, n);
            match inner.open.get(&name) {
                Some(recording) if recording.state() == State::Live => return (Arc::clone(recording), false),
                Some(_) => {}
                None if inner.is_taken(&name) => {}
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
        let mut inner = self.lock();
        inner.left_alone.remove(&recording.key);
        inner.open.insert(recording.id.clone(), recording);
    }

    /// A finished recording that only the store knew.
    pub fn note_ended(&self, manifest: Manifest) {
        let mut inner = self.lock();
        if !inner.ended.iter().any(|known| known.recording_id == manifest.recording_id) {
            inner.remember(Arc::new(manifest));
        }
    }

    /// The store has something under this name that nobody can read.
    pub fn note_unreadable(&self, name: String) {
        let mut inner = self.lock();
        if !inner.unreadable.contains(&name) {
            if inner.unreadable.len() == ENDED_MAX {
                inner.unreadable.pop_front();
            }
            inner.unreadable.push_back(name);
        }
    }

    /// The start left this folder of the spool alone.
    pub fn leave_alone(&self, key: String) {
        self.lock().left_alone.insert(key);
    }

    /// Whether this process has met a recording of this id.
    pub fn knows(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.open.contains_key(id) || inner.is_taken(id)
    }

    /// Whether a message of `id` would open a recording of which this process knows nothing.
    pub fn would_open(&self, id: &str) -> bool {
        let inner = self.lock();
        for n in 1.. {
            let name = nth(id, n);
            match inner.open.get(&name) {
                Some(recording) if recording.state() == State::Live => return false,
                Some(_) => {}
                None if inner.is_taken(&name) => {}
                None => return true,
            }
        }
        unreachable!("the numbers do not end")
    }

    /// Whether a message of `id` goes on in a recording that is here.
    pub fn is_live(&self, id: &str) -> bool {
        let inner = self.lock();
        let goes_on = |name: &str| name.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('~'));
        inner.open.iter().any(|(name, recording)| goes_on(name) && recording.state() == State::Live)
    }

    /// Whether the bot of a recording that is here may be on its way back.
    pub fn waits_for_bot(&self, now: Micros) -> bool {
        self.lock().open.values().any(|recording| recording.waits_for_bot(now))
    }

    /// Every recording that is not ended.
    pub fn all(&self) -> Vec<Arc<Recording>> {
        self.lock().open.values().cloned().collect()
    }

    /// One that is not ended.
    pub fn get(&self, id: &str) -> Option<Arc<Recording>> {
        self.lock().open.get(id).cloned()
    }

    /// The manifest of one that ended, if it is one of the newest; else the store has it.
    pub fn ended_manifest(&self, id: &str) -> Option<Arc<Manifest>> {
        self.lock().ended.iter().rev().take(WHOLE_MAX).find(|manifest| manifest.recording_id == id).cloned()
    }

    /// Those that ended, oldest first, with what a list shows; of older ones their tracks' epochs, gaps and books are not
    /// here.
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

/// The name of a recording that goes on from so many others.
fn nth(id: &str, n: u32) -> String {
    if n == 1 { id.to_owned() } else { format!("{id}~{n}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::media::{Canvas, GapReason, Grid, Kind};
    use crate::pipeline::encode::EncoderSettings;
    use crate::pipeline::recording::{RecordingParts, SocketState};
    use crate::pipeline::state::RecordingSettings;
    use crate::pipeline::store::manifest::{Gap, ParticipantManifest, TrackManifest};

    fn open(registry: &Registry, id: &str) -> (Arc<Recording>, bool) {
        registry.open(id, |id, continues, key| {
            let settings = RecordingSettings {
                grid: Grid { fps: 2, part_ticks: 2, segment_ticks: 12 },
                encoder: EncoderSettings::default(),
                screen: None,
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
    }

    #[test]
    fn a_finished_recording_is_never_changed() {
        let registry = Registry::default();
        let (first, is_new) = open(&registry, "a/b");
        assert!(is_new && first.continues.is_none());
        assert!(Arc::ptr_eq(&open(&registry, "a/b").0, &first));
        first.set_state(State::Finishing);
        let (second, is_new) = open(&registry, "a/b");
        assert!(is_new);
        assert_eq!((second.id.as_str(), second.continues.as_deref()), ("a/b~2", Some("a/b")));
        assert_eq!(second.key, format!("{}~2", first.key));
        second.set_state(State::Finished);
        registry.ended("a/b~2");
        assert_eq!(open(&registry, "a/b").0.id, "a/b~3");
        assert_eq!(registry.ended_manifest("a/b~2").unwrap().state, State::Finished);
    }

    #[test]
    fn of_old_recordings_only_what_the_list_shows_is_kept() {
        let registry = Registry::default();
        let gap = Gap { from_tick: 0, to_tick: 9, reason: GapReason::NotJoined };
        let (recording, _) = open(&registry, "r");
        let track = TrackManifest {
            track: "1-webcam".to_owned(),
            participant: ParticipantManifest::default(),
            kind: Kind::Webcam,
            width: None,
            height: None,
            codecs: None,
            first_tick: None,
            end_tick: Some(9),
            epochs: Vec::new(),
            gaps: vec![gap],
            ledger: Ledger::default(),
            mp4: Vec::new(),
        };
        for n in 0..=WHOLE_MAX {
            let manifest =
                Manifest { recording_id: n.to_string(), tracks: vec![track.clone()], ..recording.manifest() };
            registry.note_ended(manifest);
        }
        let ended = registry.all_ended();
        assert_eq!((ended.len(), ended[0].tracks[0].end_tick), (WHOLE_MAX + 1, Some(9)));
        assert!(ended[0].tracks[0].gaps.is_empty() && registry.ended_manifest("0").is_none() && registry.knows("0"));
        assert_eq!(registry.ended_manifest("1").unwrap().tracks[0].gaps.len(), 1);
    }

    #[test]
    fn what_nobody_can_read_is_taken() {
        let registry = Registry::default();
        // By name in the store, by folder in the spool.
        registry.note_unreadable("a/b".to_owned());
        registry.leave_alone(keys::recording("a/b~2"));
        assert!(registry.knows("a/b") && registry.knows("a/b~2") && !registry.knows("a/b~3"));
        assert!(!registry.is_live("a/b"));
        let (recording, _) = open(&registry, "a/b");
        assert_eq!((recording.id.as_str(), recording.continues.as_deref()), ("a/b~3", Some("a/b~2")));
    }

    #[test]
    fn whatever_would_be_opened_is_asked_for_first() {
        let registry = Registry::default();
        assert!(registry.would_open("r"));
        let (first, _) = open(&registry, "r");
        assert!(!registry.would_open("r"));
        // It is known, and what goes on from it may be in the store since an earlier process.
        first.set_state(State::Finishing);
        assert!(registry.knows("r") && registry.would_open("r"));
        registry.note_unreadable("r~2".to_owned());
        assert!(registry.would_open("r"));
        assert_eq!(open(&registry, "r").0.id, "r~3");
        assert!(!registry.would_open("r"));
    }

    #[test]
    fn a_bot_may_be_on_its_way_back_when_its_sockets_are_silent() {
        let registry = Registry::default();
        let secs = Micros::from_secs;
        assert!(!registry.waits_for_bot(secs(100)), "nobody is awaited");
        let (recording, _) = open(&registry, "r");
        assert!(registry.waits_for_bot(secs(0)));
        let sockets = [SocketState::new(secs(0)), SocketState::new(secs(0))].map(Arc::new);
        sockets.iter().for_each(|socket| recording.join_socket(socket));
        assert!(!registry.waits_for_bot(secs(4)));
        assert!(registry.waits_for_bot(secs(5)), "both may be half open");
        sockets[0].hears();
        assert!(!registry.waits_for_bot(secs(60)), "a socket that is not read is not silent");
        sockets[0].reads(false, secs(60));
        assert!(!registry.waits_for_bot(secs(64)));
        // The beginning of a message that does not go on.
        sockets[0].reads(true, secs(64));
        assert!(registry.waits_for_bot(secs(65)));
        sockets[1].hears();
        sockets[1].reads(false, secs(65));
        assert!(!registry.waits_for_bot(secs(69)), "one that is well is enough");
        recording.set_state(State::Finishing);
        assert!(!registry.waits_for_bot(secs(100)), "it takes no media");
    }
}
