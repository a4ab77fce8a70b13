//! `--retention`: finished recordings are deleted when their time is over, and the last trace of deleted ones after as long
//! again. By the entries in `_ended`: one listing for a thousand of them, a few times in that time.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path as Key;

use crate::media::Micros;

use super::Pipeline;
use super::entries::{ENTRY_BYTES_MAX, EndedEntry};
use super::erase::DELETED;
use super::known::StoredError;
use super::store::keys::{ENDED, Name};
use super::store::manifest::State;

/// How often the entries are looked at: so many times in the retention, within these bounds.
const LOOKS: u32 = 24;
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(24 * 3600)];

impl Pipeline {
    /// Deletes what is older than `--retention`, if that is given.
    pub(super) async fn keep_for_retention(self: Arc<Self>) {
        let Some(retention) = self.config.privacy.retention else { return };
        let mut stop = self.stop.listen();
        let mut every = tokio::time::interval((retention / LOOKS).clamp(LOOK_EVERY[0], LOOK_EVERY[1]));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.wait() => return,
            }
            if let Err(error) = self.delete_older(retention.into()).await {
                tracing::warn!(%error, "cannot delete the recordings whose time is over");
            }
        }
    }

    async fn delete_older(self: &Arc<Self>, than: Micros) -> Result<(), StoredError> {
        let root = Key::from(ENDED);
        let mut listed = self.objects.store.list(Some(&root));
        while let Some(meta) = listed.try_next().await.map_err(StoredError::Store)? {
            if self.clock.unix() - Micros(meta.last_modified.timestamp_micros()) < than {
                continue;
            }
            let read = self.read_json::<EndedEntry>(meta.location.as_ref(), ENTRY_BYTES_MAX).await;
            let Some(entry) = (match read {
                Err(error) if error.is_unreadable() => continue,
                read => read?,
            }) else {
                continue;
            };
            let name = Name::new(entry.tenant.as_deref(), &entry.recording_id);
            match entry.state {
                State::Finished => {
                    self.erase(&name).await?;
                }
                State::Deleted => {
                    for key in [format!("{}/{DELETED}", entry.prefix), name.entry(ENDED)] {
                        self.remove_object(&key)
                            .await
                            .map_err(|error| StoredError::Spool(std::io::Error::other(error)))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
