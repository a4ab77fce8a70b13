//! Unfinished recordings that are somebody else's: a start looks at the small list of them, and as long as there are any,
//! so does the process. One that stands still has no writer any more; its bot may still come here, and after the grace it
//! is finished with what the store has.
//!
//! One listing at the start, and one a minute while others write. Their writers' signs of life are compared with each other
//! by our own clock, so that no two machines' clocks have to agree.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path as Key;

use crate::media::Micros;

use super::Pipeline;
use super::entries::{ENTRY_BYTES_MAX, LiveEntry, beat_every};
use super::known::StoredError;
use super::store::keys::{LIVE, Name};

/// So many beats that did not come mean that nobody is there.
const BEATS_MISSED: i64 = 3;

/// An entry, as it was last seen to change.
struct Seen {
    name: Name,
    version: String,
    beat_every: Micros,
    since: Micros,
}

impl Pipeline {
    /// Watches over the unfinished recordings of others, as long as there are any.
    pub(super) async fn watch_others(self: Arc<Self>) {
        let grace = Micros::from(self.config.reconnect_grace);
        let mut stop = self.stop.listen();
        let mut seen = HashMap::new();
        loop {
            match self.look_at_others(&mut seen, grace).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot look at unfinished recordings in the store"),
            }
            tokio::select! {
                () = tokio::time::sleep(beat_every(self.config.reconnect_grace)) => {}
                () = stop.wait() => return,
            }
        }
    }

    /// Looks once, and takes up what nobody writes any more. Gives how many are left.
    async fn look_at_others(
        self: &Arc<Self>,
        seen: &mut HashMap<Key, Seen>,
        grace: Micros,
    ) -> Result<usize, StoredError> {
        let root = Key::from(LIVE);
        let listed = self.objects.store.list(Some(&root));
        let listed: Vec<_> = listed.try_collect().await.map_err(StoredError::Store)?;
        seen.retain(|key, _| listed.iter().any(|meta| meta.location == *key));
        let now = self.clock.mono();
        let mut left = 0;
        for meta in listed {
            let version = format!("{} {:?}", meta.last_modified, meta.e_tag);
            match seen.get_mut(&meta.location) {
                Some(known) if known.version == version => {}
                Some(known) => (known.version, known.since) = (version, now),
                None => {
                    let entry: Option<LiveEntry> = match self.read_json(meta.location.as_ref(), ENTRY_BYTES_MAX).await {
                        Err(error) if error.is_unreadable() => None,
                        entry => entry?,
                    };
                    let Some(entry) = entry else { continue };
                    let (name, beat_every) = (entry.name(), entry.beat_every);
                    seen.insert(meta.location.clone(), Seen { name, version, beat_every, since: now });
                }
            }
            let known = &seen[&meta.location];
            if self.registry.knows(&known.name) {
                continue;
            }
            left += 1;
            let patience = Micros(known.beat_every.0.saturating_mul(BEATS_MISSED)).max(grace);
            // One that cannot be taken up keeps no other from being so.
            if now - known.since >= patience
                && let Err(error) = self.end_for_others(&known.name).await
            {
                tracing::warn!(recording = known.name.id, %error, "cannot finish for others yet");
            }
        }
        Ok(left)
    }

    /// Takes a recording up that nobody writes and nobody redials, and finishes it.
    async fn end_for_others(self: &Arc<Self>, name: &Name) -> Result<(), StoredError> {
        if self.ended_entry(name).await?.is_some() {
            // Its writer died between its last two words to the store.
            return self
                .remove_object(&name.entry(LIVE))
                .await
                .map_err(|error| StoredError::Spool(std::io::Error::other(error)));
        }
        let Some(entry) = self.live_entry(name).await? else { return Ok(()) };
        // Its bot may have come here while it was read.
        if self.take_over(entry).await?
            && let Some(recording) = self.registry.get(name)
        {
            recording.finish_alone();
        }
        Ok(())
    }
}
