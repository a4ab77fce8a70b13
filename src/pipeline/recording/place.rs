//! Where a recording stands among the others: its name, and its folder in the store. Both may be open for a while: the
//! name until the store has said that it is free, the folder until all is known that it is made of.

use std::sync::{MutexGuard, PoisonError};

use crate::media::Micros;
use crate::pipeline::store::keys::Name;
use crate::pipeline::store::prefix::{About, Prefix};

use super::Recording;

/// A recording's place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: Name,
    pub(super) unsure: bool,
    pub(super) continues: Option<String>,
    pub(super) prefix: Option<String>,
}

impl Recording {
    fn lock_place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self) -> Place {
        self.lock_place().clone()
    }

    /// Recall's id, with `~2` and up where it goes on after it was finished.
    pub fn id(&self) -> String {
        self.lock_place().name.id.clone()
    }

    /// Its id within its tenant.
    pub fn name(&self) -> Name {
        self.lock_place().name.clone()
    }

    /// The finished recording that it goes on from.
    pub fn continues(&self) -> Option<String> {
        self.lock_place().continues.clone()
    }

    /// Whether the store has not said yet that its name is free.
    pub fn is_unsure(&self) -> bool {
        self.lock_place().unsure
    }

    /// The store said that this name is free.
    pub fn be_sure(&self, name: Name, continues: Option<String>) {
        let mut place = self.lock_place();
        (place.name, place.continues, place.unsure) = (name, continues, false);
    }

    /// Its folder in the store, once that is resolved.
    pub fn prefix(&self) -> Option<String> {
        self.lock_place().prefix.clone()
    }

    /// Fixes its folder in the store.
    pub fn fix_prefix(&self, prefix: String) {
        self.lock_place().prefix = Some(prefix);
    }

    /// The folder in the store that `prefix` words for it, with this for the time of a tick 0 that is not known.
    pub fn resolve(&self, prefix: &Prefix, instead: Micros) -> String {
        let name = self.name();
        let inner = self.lock();
        let origin = inner.clock.origin().map_or(instead, |origin| origin.unix);
        prefix.resolve(About { name: &name, bot_id: inner.bot_id.as_deref(), origin, metadata: &inner.metadata })
    }

    /// The key of one of its objects. Nothing is put before its folder is fixed.
    pub fn key(&self, tail: &str) -> String {
        let place = self.lock_place();
        let prefix = place.prefix.as_deref().expect("the folder is fixed before anything is put");
        format!("{prefix}/{tail}")
    }
}
