//! Where a recording lands: its name, once the store has said that it is free; its folder, once all is known that it is
//! made of; and its entry, before its first object. Nothing is put before that, and everything is written meanwhile.

use crate::pipeline::entries::EndedEntry;
use crate::pipeline::known::{Stored, StoredError};
use crate::pipeline::store::keys::Name;
use crate::pipeline::store::manifest::{SCHEMA, State};
use crate::pipeline::store::objects::{PutError, RETRY_FIRST};

use super::Keeper;

/// Names that are tried.
const NAMES_MAX: u32 = 1000;

/// Whether it is known where the objects of a recording go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is.
    Yes,
    /// Its folder is named after what is not known yet.
    NotYet,
    /// It is another's, or was ended before: nothing of it is put from here.
    Elsewhere,
}

#[derive(Debug, thiserror::Error)]
enum Unsettled {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Put(#[from] PutError),
}

/// The id and number of a name: what goes on from `r~2` is `r~3`.
fn numbered(name: &Name) -> (Name, u32) {
    let number = name.id.rsplit_once('~').and_then(|(id, n)| Some((id, n.parse().ok()?)));
    let (id, n) = number.unwrap_or((&name.id, 1));
    (Name::new(name.tenant.as_deref(), id), n)
}

impl Keeper {
    /// Settles the recording, for as long as the store takes to answer.
    pub(super) async fn settle(&mut self) -> Settled {
        if self.settled {
            return Settled::Yes;
        }
        let mut wait = RETRY_FIRST;
        for nth in 1_u64.. {
            match self.try_to_settle().await {
                Ok(settled) => {
                    self.recording.note_uploads(0, None);
                    return settled;
                }
                Err(error) => {
                    if nth.is_power_of_two() && !self.pipeline.objects.is_away() {
                        let recording = self.recording.id();
                        tracing::warn!(recording, %error, "the store does not say where a recording may go; it is kept in the spool");
                    }
                    self.recording.note_uploads(1, Some(error.to_string()));
                }
            }
            // What is new of it is kept all the same.
            self.write_state();
            self.pipeline.objects.wait_again(&mut wait).await;
        }
        Settled::NotYet
    }

    async fn try_to_settle(&mut self) -> Result<Settled, Unsettled> {
        if self.recording.is_unsure() {
            self.find_name().await?;
        }
        if self.recording.prefix().is_none() && !self.fix_folder().await? {
            return Ok(Settled::NotYet);
        }
        if self.resumed && self.is_elsewhere().await? {
            return Ok(Settled::Elsewhere);
        }
        self.beat.begin(&self.pipeline, &self.recording).await?;
        self.settled = true;
        self.write_state();
        Ok(Settled::Yes)
    }

    /// Gives it the first name that the store does not have.
    async fn find_name(&self) -> Result<(), StoredError> {
        let (registry, own) = (&self.pipeline.registry, self.recording.name());
        let (asked, first) = numbered(&own);
        let (mut continues, mut deleted) = (self.recording.continues(), None);
        for n in first..first.saturating_add(NAMES_MAX) {
            let name = asked.nth(n);
            let free = if name != own && registry.knows(&name) {
                deleted = None;
                false
            } else {
                match self.pipeline.learn(&name).await? {
                    Stored::Nothing if let Some(prefix) = deleted.take() => {
                        // What came for it meanwhile was not wanted any more; its keeper ends with that.
                        self.pipeline.erase_this(&self.recording, prefix).await?;
                        return std::future::pending().await;
                    }
                    Stored::Nothing => true,
                    Stored::Live(entry) => entry.recording.mark == self.recording.mark,
                    Stored::Deleted(prefix) => {
                        deleted = Some(prefix);
                        false
                    }
                    _ => false,
                }
            };
            if free && registry.be_sure(&self.recording, &name, continues.clone()) {
                if name != own {
                    tracing::warn!(recording = name.id, asked = own.id, "the store has another recording of this id");
                }
                return Ok(());
            }
            continues = Some(name.id);
        }
        Err(StoredError::TooMany)
    }

    /// Fixes its folder. Returns whether that can be done by now.
    async fn fix_folder(&self) -> Result<bool, StoredError> {
        let (prefix, recording) = (&self.pipeline.prefix, &self.recording);
        if prefix.has_date() && recording.origin().is_none() && recording.state() == State::Live {
            return Ok(false);
        }
        let folder = recording.resolve(prefix, self.pipeline.clock.unix());
        // Where the folder follows from the name, the store was asked for it with the name.
        if prefix.by_name(&recording.name()).is_none() && self.pipeline.manifest_in(&folder).await?.is_some() {
            let name = recording.name();
            let (asked, n) = numbered(&name);
            self.pipeline.registry.note_unreadable(name.clone());
            for n in n + 1..n.saturating_add(NAMES_MAX) {
                if self.pipeline.registry.be_sure(recording, &asked.nth(n), Some(name.id.clone())) {
                    return Box::pin(self.fix_folder()).await;
                }
            }
            return Err(StoredError::TooMany);
        }
        recording.fix_prefix(folder);
        Ok(true)
    }

    /// Whether it was ended, here in an earlier life or elsewhere, or is written elsewhere now.
    async fn is_elsewhere(&self) -> Result<bool, StoredError> {
        let name = self.recording.name();
        if let Some(ended) = self.pipeline.ended_entry(&name).await? {
            if ended.mark == self.recording.mark && ended.state == State::Finished {
                // The process died between its last word to the store and clearing the spool.
                if let Some(manifest) = self.pipeline.manifest_in(&ended.prefix).await? {
                    self.pipeline.registry.note_ended(manifest);
                }
                self.clear_spool().await;
                self.recording.set_state(State::Finished);
                self.recording.lanes().iter().for_each(|lane| lane.close());
                return Ok(true);
            }
            self.give_up("it was ended elsewhere");
            return Ok(true);
        }
        match self.pipeline.live_entry(&name).await? {
            Some(entry) if entry.recording.mark != self.recording.mark => {
                self.give_up("another process took it up from the store");
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Its spool is kept, and nothing of it is touched.
    fn give_up(&self, why: &str) {
        let (recording, spool) = (self.recording.id(), self.recording.spool.display());
        tracing::error!(recording, %spool, why, "left alone: an operator has to look at what the spool has of this recording");
        self.recording.set_state(State::Failed);
        self.recording.lanes().iter().for_each(|lane| lane.close());
        let folder = self.recording.spool.file_name().unwrap_or_default();
        self.pipeline.registry.leave_alone(folder.to_string_lossy().into_owned());
    }

    /// Tells the store that it is ended.
    pub(super) async fn put_ended(&self) {
        self.beat.end().await;
        let name = self.recording.name();
        let entry = EndedEntry {
            schema: SCHEMA,
            recording_id: name.id,
            tenant: name.tenant,
            mark: self.recording.mark.clone(),
            prefix: self.recording.prefix().unwrap_or_default(),
            state: State::Finished,
        };
        let mut wait = RETRY_FIRST;
        while let Err(error) = self.pipeline.put_ended(&entry).await {
            if !self.pipeline.objects.is_away() {
                tracing::warn!(recording = entry.recording_id, %error, "the store did not take that a recording is ended");
            }
            self.recording.note_uploads(1, Some(error.to_string()));
            self.pipeline.objects.wait_again(&mut wait).await;
        }
    }
}
