//! What is told to others, and when: the life of recordings and tracks, and bots that were refused. Kept in the
//! [`Outbox`] by a thread of its own, for the disk is waited for.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::Config;
use crate::metrics::Metrics;

use super::outbox::{Event, Outbox};
use super::recording::Recording;
use super::store::keys::Name;
use super::store::manifest::{Manifest, State};
use super::threads::spawn;
use super::{Pipeline, Threads};

/// Events on their way to the disk; a thousand lanes may open at once.
const ON_THEIR_WAY_MAX: usize = 4096;

/// The way into the outbox.
pub(super) struct Telling {
    outbox: Arc<Outbox>,
    events: Sender<Event>,
}

impl Telling {
    /// Starts the thread, where there is a receiver.
    ///
    /// # Errors
    /// Text that names the option.
    pub(super) fn start(
        config: &Config,
        metrics: &Arc<Metrics>,
        threads: &mut Threads,
    ) -> Result<Option<Telling>, String> {
        if config.doors.webhook_url.is_none() {
            return Ok(None);
        }
        let outbox = Outbox::open(&config.spool).map_err(|error| format!("--spool: the outbox: {error}"))?;
        let outbox = Arc::new(outbox);
        let (events, kept) = bounded(ON_THEIR_WAY_MAX);
        let (keeps, metrics) = (Arc::clone(&outbox), Arc::clone(metrics));
        threads.last.push(spawn("outbox".to_owned(), move || keep(&kept, &keeps, &metrics))?);
        Ok(Some(Telling { outbox, events }))
    }
}

fn keep(events: &Receiver<Event>, outbox: &Outbox, metrics: &Metrics) {
    events.iter().for_each(|event| keep_one(event, outbox, metrics));
}

fn keep_one(event: Event, outbox: &Outbox, metrics: &Metrics) {
    match outbox.put(event) {
        Ok(true) => {}
        Ok(false) => lose(metrics),
        Err(error) => tracing::warn!(%error, "the outbox cannot be written; its events last as long as the process"),
    }
}

/// For want of room, on disk or on the way there: the first is told, and then ever fewer.
fn lose(metrics: &Metrics) {
    let nth = metrics.event_told("lost");
    if nth.is_power_of_two() {
        tracing::warn!(so_far = nth, "an event is lost: too many wait for the receiver at --webhook-url");
    }
}

impl Pipeline {
    /// Events that wait to be taken; `None` without a receiver.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        self.telling.as_ref().map(|telling| Arc::clone(&telling.outbox))
    }

    fn tell_others(&self, event: impl FnOnce() -> Event) {
        if let Some(telling) = &self.telling
            && telling.events.try_send(event()).is_err()
        {
            lose(&self.metrics);
        }
    }

    /// A recording was opened.
    pub(super) fn tell_started(&self, recording: &Recording) {
        if self.telling.is_none() {
            return;
        }
        let (manifest, unix) = (recording.manifest(), self.clock.unix());
        self.tell_others(|| {
            Event::of_recording("started", &manifest.name().address(), &manifest.folder(), &manifest, unix)
        });
    }

    /// A track was opened.
    pub(super) fn tell_track_started(&self, recording: &Recording, track: &str) {
        if self.telling.is_none() {
            return;
        }
        let unix = self.clock.unix();
        self.tell_of_track("started", &recording.manifest(), track, unix);
    }

    fn tell_of_track(&self, what: &str, manifest: &Manifest, track: &str, unix: crate::media::Micros) {
        if let Some(track) = manifest.tracks.iter().find(|of| of.track == track) {
            self.tell_others(|| {
                Event::of_track(what, track, &manifest.name().address(), &manifest.folder(), manifest, unix)
            });
        }
    }

    /// The keeper of a recording came to its end: nothing is told of one that is only suspended.
    pub(super) fn tell_ended(&self, recording: &Recording) {
        if self.telling.is_none() {
            return;
        }
        let (manifest, unix) = (recording.manifest(), self.clock.unix());
        let what = match manifest.state {
            State::Finished => "finished",
            State::Failed => "failed",
            _ => return,
        };
        if what == "finished" {
            for track in &manifest.tracks {
                self.tell_of_track(what, &manifest, &track.track, unix);
            }
        }
        self.tell_others(|| Event::of_recording(what, &manifest.name().address(), &manifest.folder(), &manifest, unix));
    }

    /// What can be told of a recording once it is deleted, as long as it is there; nothing where nobody is told.
    pub(super) async fn last_words(&self, name: &Name) -> Option<Manifest> {
        self.telling.as_ref()?;
        self.manifest_of(name).await.ok().flatten()
    }

    /// A recording was deleted everywhere. `manifest` is what it was. Returns when the outbox has the event: nothing else
    /// remembers the recording then.
    pub(super) async fn tell_deleted(&self, name: &Name, folder: Option<&str>, manifest: Option<Manifest>) {
        let Some(telling) = &self.telling else { return };
        let unix = self.clock.unix();
        let event = match manifest {
            None => Event::of_deleted(name, folder, unix),
            Some(mut manifest) => {
                manifest.state = State::Deleted;
                manifest.tracks.iter_mut().for_each(|track| track.mp4.clear());
                let folder = folder.map_or_else(|| manifest.folder(), str::to_owned);
                Event::of_recording("deleted", &name.address(), &folder, &manifest, unix)
            }
        };
        let (outbox, metrics) = (Arc::clone(&telling.outbox), Arc::clone(&self.metrics));
        // What goes wrong is told there.
        let _ = tokio::task::spawn_blocking(move || keep_one(event, &outbox, &metrics)).await;
    }

    /// A bot with good credentials was refused for want of room. `key`: its caller's name for it.
    pub fn tell_refused(&self, key: Option<&str>, tenant: Option<&str>, reason: &str) {
        self.tell_others(|| Event::bot_refused(key, tenant, reason, self.clock.unix()));
    }
}
