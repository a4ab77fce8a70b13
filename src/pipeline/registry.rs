//! Every recording of the process: those that live, the last manifests of those that ended, and the names that are taken by
//! what nobody can read, or what was deleted. Names are within a tenant: none ever reaches another tenant's recording.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::media::Micros;

use super::recording::Recording;
use super::store::keys::Name;
use super::store::manifest::{Manifest, State};

/// Ended recordings that are remembered; older ones are found in the store.
pub(super) const ENDED_MAX: usize = 10_000;

/// Of those the newest, whose manifests are here as a whole; the store has the others'. A manifest is some ten kilobytes.
const WHOLE_MAX: usize = 200;

/// Recordings by name.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<Name, Arc<Recording>>,
    ended: VecDeque<Arc<Manifest>>,
    /// Names under which the store has something that is no manifest; older ones are found there again.
    unreadable: Names,
    /// Names whose recordings were deleted; older ones are found in the store.
    deleted: Names,
    /// Folders of the spool that the start left alone.
    left_alone: HashSet<String>,
}

/// The newest names of a kind.
#[derive(Debug, Default)]
struct Names(VecDeque<Name>);

impl Names {
    fn note(&mut self, name: Name) {
        if !self.0.contains(&name) {
            if self.0.len() == ENDED_MAX {
                self.0.pop_front();
            }
            self.0.push_back(name);
        }
    }
}

/// What takes the media of an id.
#[derive(Debug)]
pub enum Opened {
    /// A recording that is here.
    Here(Arc<Recording>),
    /// One that was made just now.
    New(Arc<Recording>),
    /// Nothing: the last recording of this id was deleted.
    Deleted,
}

/// What a message of an id would meet.
enum Met<'a> {
    Live(&'a Arc<Recording>),
    Free(Name, Option<String>),
    Deleted,
}

impl Inner {
    /// Whether nothing is ever opened under this name.
    fn is_taken(&self, name: &Name) -> bool {
        self.ended.iter().any(|manifest| is_of(manifest, name))
            || self.unreadable.0.contains(name)
            || self.deleted.0.contains(name)
            || self.left_alone.contains(&name.spool_folder())
    }

    /// A finished recording is never changed, nor is one that nobody can read: what comes after it opens `id~2`, then
    /// `id~3`.
    fn meet(&self, asked: &Name) -> Met<'_> {
        let mut before = None;
        for n in 1.. {
            let name = asked.nth(n);
            match self.open.get(&name) {
                Some(recording) if recording.state() == State::Live => return Met::Live(recording),
                Some(_) => {}
                None if self.is_taken(&name) => {}
                None if before.as_ref().is_some_and(|before| self.is_deleted(before)) => return Met::Deleted,
                None => return Met::Free(name, before.map(|before: Name| before.id)),
            }
            before = Some(name);
        }
        unreachable!("the numbers do not end")
    }

    fn is_deleted(&self, name: &Name) -> bool {
        self.deleted.0.contains(name) || self.open.get(name).is_some_and(|open| open.state() == State::Deleted)
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

fn is_of(manifest: &Manifest, name: &Name) -> bool {
    manifest.recording_id == name.id && manifest.tenant == name.tenant
}

/// The name of a recording's folder in the spool.
pub(super) fn folder_of(recording: &Recording) -> String {
    recording.spool.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

    /// The recording that takes media for `asked`, made by `make(name, continues)` where there is none.
    pub fn open(&self, asked: &Name, make: impl FnOnce(Name, Option<String>) -> Recording) -> Opened {
        let mut inner = self.lock();
        let (name, continues) = match inner.meet(asked) {
            Met::Live(recording) => return Opened::Here(Arc::clone(recording)),
            Met::Deleted => return Opened::Deleted,
            Met::Free(name, continues) => (name, continues),
        };
        let recording = Arc::new(make(name.clone(), continues));
        inner.open.insert(name, Arc::clone(&recording));
        Opened::New(recording)
    }

    /// Puts a recording in that an earlier process began. Returns whether its name was free.
    pub fn insert(&self, recording: Arc<Recording>) -> bool {
        let mut inner = self.lock();
        let name = recording.name();
        if inner.open.contains_key(&name) {
            return false;
        }
        inner.left_alone.remove(&folder_of(&recording));
        inner.open.insert(name, recording);
        true
    }

    /// The recording gets the name under which it lands, which the store says is free. Returns whether it is here as well.
    pub fn be_sure(&self, recording: &Arc<Recording>, name: &Name, continues: Option<String>) -> bool {
        let mut inner = self.lock();
        let old = recording.name();
        if old != *name {
            if inner.open.contains_key(name) || inner.is_taken(name) {
                return false;
            }
            inner.open.remove(&old);
            inner.open.insert(name.clone(), Arc::clone(recording));
        }
        recording.be_sure(name.clone(), continues);
        true
    }

    /// A finished recording that only the store knew.
    pub fn note_ended(&self, manifest: Manifest) {
        let mut inner = self.lock();
        let name = manifest.name();
        if !inner.is_deleted(&name) && !inner.ended.iter().any(|known| is_of(known, &name)) {
            inner.remember(Arc::new(manifest));
        }
    }

    /// The manifest of a recording that ended says something else now.
    pub fn note_changed(&self, manifest: Manifest) {
        let mut inner = self.lock();
        let name = manifest.name();
        let whole_from = inner.ended.len().saturating_sub(WHOLE_MAX);
        if let Some(at) = inner.ended.iter().position(|known| is_of(known, &name)) {
            inner.ended[at] = Arc::new(if at < whole_from { for_the_list(&manifest) } else { manifest });
        }
    }

    /// The store has something under this name that nobody can read.
    pub fn note_unreadable(&self, name: Name) {
        self.lock().unreadable.note(name);
    }

    /// This recording was deleted, or is about to be.
    pub fn note_deleted(&self, name: &Name) {
        let mut inner = self.lock();
        inner.ended.retain(|manifest| !is_of(manifest, name));
        inner.deleted.note(name.clone());
    }

    /// Whether it was deleted, or is about to be.
    pub fn is_deleted(&self, name: &Name) -> bool {
        self.lock().is_deleted(name)
    }

    /// Whether what comes for this name opens nothing, because the last recording of it was deleted.
    pub fn is_last_deleted(&self, asked: &Name) -> bool {
        matches!(self.lock().meet(asked), Met::Deleted)
    }

    /// This folder of the spool is left alone.
    pub fn leave_alone(&self, folder: String) {
        self.lock().left_alone.insert(folder);
    }

    /// Whether this process has met a recording of this name.
    pub fn knows(&self, name: &Name) -> bool {
        let inner = self.lock();
        inner.open.contains_key(name) || inner.is_taken(name)
    }

    /// Whether a message of this name would open a recording of which this process knows nothing.
    pub fn would_open(&self, asked: &Name) -> bool {
        matches!(self.lock().meet(asked), Met::Free(..))
    }

    /// Whether a message of this name goes on in a recording that is here.
    pub fn is_live(&self, asked: &Name) -> bool {
        let inner = self.lock();
        let goes_on = |name: &Name| {
            let rest = name.id.strip_prefix(&asked.id);
            name.tenant == asked.tenant && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('~'))
        };
        inner.open.iter().any(|(name, recording)| goes_on(name) && recording.state() == State::Live)
    }

    /// Whether any recording of a tenant takes media.
    pub fn has_live(&self, tenant: Option<&str>) -> bool {
        let of_tenant = |name: &Name| name.tenant.as_deref() == tenant;
        self.lock().open.iter().any(|(name, recording)| of_tenant(name) && recording.state() == State::Live)
    }

    /// Whether the bot of a recording that is here may be on its way back.
    pub fn waits_for_bot(&self, now: Micros) -> bool {
        self.lock().open.values().any(|recording| recording.waits_for_bot(now))
    }

    /// Every recording that is not ended, nor about to be deleted.
    pub fn all(&self) -> Vec<Arc<Recording>> {
        let is_here = |recording: &&Arc<Recording>| recording.state() != State::Deleted;
        self.lock().open.values().filter(is_here).cloned().collect()
    }

    /// One that is not ended.
    pub fn get(&self, name: &Name) -> Option<Arc<Recording>> {
        self.lock().open.get(name).cloned()
    }

    /// The manifest of one that ended, if it is one of the newest; else the store has it.
    pub fn ended_manifest(&self, name: &Name) -> Option<Arc<Manifest>> {
        self.lock().ended.iter().rev().take(WHOLE_MAX).find(|manifest| is_of(manifest, name)).cloned()
    }

    /// The folder in the store of one that ended, if it is remembered at all.
    pub fn ended_folder(&self, name: &Name) -> Option<String> {
        self.lock().ended.iter().rev().find(|manifest| is_of(manifest, name)).map(|manifest| manifest.folder())
    }

    /// Those that ended, oldest first, with what a list shows; of older ones their tracks' epochs, gaps and books are not
    /// here.
    pub fn all_ended(&self) -> Vec<Arc<Manifest>> {
        self.lock().ended.iter().cloned().collect()
    }

    /// The keeper of this recording came to its end: lanes and encoders go, the manifest stays.
    pub fn ended(&self, recording: &Arc<Recording>) {
        let mut inner = self.lock();
        inner.open.retain(|_, open| !Arc::ptr_eq(open, recording));
        match recording.state() {
            State::Deleted => {}
            _ if inner.is_deleted(&recording.name()) => {}
            _ if inner.ended.iter().any(|known| is_of(known, &recording.name())) => {}
            _ => inner.remember(Arc::new(recording.manifest())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::media::{GapReason, Kind};
    use crate::pipeline::recording::{RecordingParts, SocketState};
    use crate::pipeline::state::RecordingSettings;
    use crate::pipeline::store::manifest::{Gap, ParticipantManifest, TrackManifest};

    fn open(registry: &Registry, id: &str) -> (Arc<Recording>, bool) {
        open_name(registry, &id.into())
    }

    fn open_name(registry: &Registry, name: &Name) -> (Arc<Recording>, bool) {
        let opened = registry.open(name, |name, continues| {
            Recording::new(RecordingParts {
                spool: name.spool_folder().into(),
                name,
                unsure: false,
                continues,
                prefix: None,
                mark: String::new(),
                settings: RecordingSettings::usual(),
                alone_since: Micros(0),
            })
        });
        match opened {
            Opened::Here(recording) => (recording, false),
            Opened::New(recording) => (recording, true),
            Opened::Deleted => panic!("it was deleted"),
        }
    }

    #[test]
    fn a_finished_recording_is_never_changed() {
        let registry = Registry::default();
        let (first, is_new) = open(&registry, "a/b");
        assert!(is_new && first.continues().is_none());
        assert!(Arc::ptr_eq(&open(&registry, "a/b").0, &first));
        first.set_state(State::Finishing);
        let (second, is_new) = open(&registry, "a/b");
        assert!(is_new);
        assert_eq!((second.id().as_str(), second.continues().as_deref()), ("a/b~2", Some("a/b")));
        second.set_state(State::Finished);
        registry.ended(&second);
        assert_eq!(open(&registry, "a/b").0.id(), "a/b~3");
        assert_eq!(registry.ended_manifest(&"a/b~2".into()).unwrap().state, State::Finished);
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
        assert!(
            ended[0].tracks[0].gaps.is_empty()
                && registry.ended_manifest(&"0".into()).is_none()
                && registry.knows(&"0".into())
        );
        assert_eq!(registry.ended_manifest(&"1".into()).unwrap().tracks[0].gaps.len(), 1);
    }

    #[test]
    fn what_nobody_can_read_is_taken() {
        let registry = Registry::default();
        // By name in the store, by folder in the spool.
        registry.note_unreadable("a/b".into());
        registry.leave_alone(Name::from("a/b~2").spool_folder());
        let knows = |id: &str| registry.knows(&id.into());
        assert!(knows("a/b") && knows("a/b~2") && !knows("a/b~3"));
        assert!(!registry.is_live(&"a/b".into()));
        let (recording, _) = open(&registry, "a/b");
        assert_eq!((recording.id().as_str(), recording.continues().as_deref()), ("a/b~3", Some("a/b~2")));
    }

    #[test]
    fn whatever_would_be_opened_is_asked_for_first() {
        let registry = Registry::default();
        let would_open = || registry.would_open(&"r".into());
        assert!(would_open());
        let (first, _) = open(&registry, "r");
        assert!(!would_open());
        // It is known, and what goes on from it may be in the store since an earlier process.
        first.set_state(State::Finishing);
        assert!(registry.knows(&"r".into()) && would_open());
        registry.note_unreadable("r~2".into());
        assert!(would_open());
        assert_eq!(open(&registry, "r").0.id(), "r~3");
        assert!(!would_open());
    }

    #[test]
    fn no_tenant_reaches_the_recording_of_another() {
        let registry = Registry::default();
        let names = [Name::from("r"), Name::new(Some("acme"), "r"), Name::new(Some("other"), "r")];
        for name in &names {
            assert!(registry.would_open(name) && !registry.is_live(name) && !registry.knows(name));
            assert!(!registry.has_live(name.tenant.as_deref()), "{name:?}");
            assert!(open_name(&registry, name).1, "{name:?}");
            assert_eq!(registry.get(name).unwrap().name(), *name);
        }
        let acme = registry.get(&names[1]).unwrap();
        assert!(registry.has_live(Some("acme")));
        acme.set_state(State::Finished);
        assert!(!registry.has_live(Some("acme")) && registry.has_live(None));
        registry.ended(&acme);
        assert!(registry.ended_manifest(&names[1]).is_some() && registry.ended_manifest(&names[2]).is_none());
        registry.note_deleted(&names[1]);
        assert!(matches!(registry.open(&names[1], |_, _| unreachable!()), Opened::Deleted));
        assert!(registry.is_live(&names[0]) && registry.is_live(&names[2]) && !registry.is_live(&names[1]));
    }

    #[test]
    fn a_name_that_the_store_has_is_changed_for_the_next_free_one() {
        let registry = Registry::default();
        let (first, _) = open(&registry, "r");
        first.set_state(State::Finishing);
        let (second, _) = open(&registry, "r");
        let to = |n| Name::from("r").nth(n);
        assert!(!registry.be_sure(&first, &to(2), None), "that is the second one");
        assert!(registry.be_sure(&first, &to(3), Some("r~2".to_owned())));
        assert_eq!((first.id().as_str(), first.continues().as_deref()), ("r~3", Some("r~2")));
        assert!(!registry.knows(&to(1)) && Arc::ptr_eq(&registry.get(&to(3)).unwrap(), &first));
        assert!(registry.be_sure(&second, &to(2), None));
    }

    #[test]
    fn what_comes_after_the_last_one_was_deleted_opens_nothing() {
        let registry = Registry::default();
        let (first, _) = open(&registry, "r");
        first.set_state(State::Finished);
        registry.ended(&first);
        let (second, _) = open(&registry, "r");
        registry.note_deleted(&"r".into());
        assert!(Arc::ptr_eq(&open(&registry, "r").0, &second), "the one that goes on is not touched");
        second.set_state(State::Deleted);
        assert!(registry.is_deleted(&"r~2".into()) && !registry.would_open(&"r".into()));
        assert!(matches!(registry.open(&"r".into(), |_, _| unreachable!()), Opened::Deleted));
        registry.ended(&second);
        assert!(registry.all_ended().is_empty(), "nothing of it is remembered");
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
