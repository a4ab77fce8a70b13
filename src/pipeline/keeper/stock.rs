//! Taking stock of a track at its end: the store is asked once, by listing, for the size of each object that it was given.
//! What is missing or has another size is told, and put again from the spool.

use std::path::PathBuf;

use object_store::path::Path as Key;

use crate::pipeline::store::objects::{Class, RETRY_FIRST};

use super::Keeper;
use super::published::{Source, put, tell_damage};

/// An object that must be there.
pub(super) struct Item {
    pub(super) key: String,
    /// What it was made of.
    pub(super) path: PathBuf,
}

impl Keeper {
    /// Returns when the store has all of a track's objects, in their sizes.
    pub(super) async fn take_stock(&self, track: &str, items: &[Item]) {
        let folder = Key::parse(self.recording.key(track)).expect("keys are made of safe components");
        let mut wait = RETRY_FIRST;
        loop {
            match self.pipeline.objects.sizes(&folder).await {
                Ok(sizes) => {
                    if !self.put_again(items, &sizes).await {
                        return;
                    }
                }
                Err(
                    error @ (object_store::Error::PermissionDenied { .. } | object_store::Error::NotSupported { .. }),
                ) => {
                    tracing::warn!(%error, "the store may not be listed: nobody looks whether it kept all it was given");
                    return;
                }
                Err(error) => self.recording.note_uploads(1, Some(format!("{folder}: {error}"))),
            }
            self.pipeline.objects.wait_again(&mut wait).await;
        }
    }

    /// Puts what the store does not have as it should. Returns whether there was any.
    async fn put_again(&self, items: &[Item], sizes: &std::collections::BTreeMap<String, u64>) -> bool {
        let mut any = false;
        for item in items {
            // What is gone from the spool as well was told when it was to be put.
            let Ok(wanted) = tokio::fs::metadata(&item.path).await.map(|meta| meta.len()) else { continue };
            let has = sizes.get(&item.key);
            if has == Some(&wanted) {
                continue;
            }
            any = true;
            let has = has.map_or_else(|| "nothing".to_owned(), |has| format!("{has} of {wanted} bytes"));
            tell_damage(&self.recording, &item.key, &has);
            self.pipeline.metrics.store.damaged.inc();
            let source = Source::File(&item.path);
            put(&self.pipeline, &self.recording, Class::Finished, item.key.clone(), source).await;
        }
        any
    }
}
