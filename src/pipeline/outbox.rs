//! What others are told: events that wait on disk until the receiver has taken them, through restarts.
//!
//! One file of lines in the spool: an event, or the id of one that is done. Not here: sending ([`crate::http`] does).

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::clock::rfc3339;
use crate::media::Micros;

use super::erase::DELETED;
use super::store::keys::{Name, hex};
use super::store::manifest::{Manifest, State};

/// In the spool.
const FILE: &str = ".outbox.jsonl";
/// Events that wait; more are lost, and counted.
const WAITING_MAX: usize = 10_000;
/// A bot's dials end after 90 s, and are one event or two.
const REFUSED_STEP: Micros = Micros::from_secs(120);
/// The file is written anew when it has so many lines more than events.
const DONE_LINES_MAX: usize = 1_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same thing has the same id, however often it is told.
    pub id: String,
    /// Events of one recording are told in order.
    pub recording: String,
    /// The message, as it is sent.
    pub body: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Event(Event),
    Done(String),
}

impl Event {
    fn new(name: &str, of: &[&str], recording: &str, unix: Micros, data: &Value) -> Event {
        let mut hash = Sha256::new();
        for part in [name].iter().chain(of) {
            // Lengths, so that nothing can move from one part to the next.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let body = json!({ "type": name, "timestamp": rfc3339(unix), "data": data });
        Event {
            id: format!("evt_{}", hex(&hash.finalize()[..12])),
            recording: recording.to_owned(),
            body: body.to_string(),
        }
    }

    /// `recording.{what}`: started, finished, failed, deleted. `address` is its name in addresses, `origin` tells two apart that have
    /// one name after another.
    pub fn of_recording(what: &str, address: &str, folder: &str, manifest: &Manifest, unix: Micros) -> Event {
        let mut data = about(address, folder, manifest);
        data["tracks"] = manifest.tracks.iter().map(about_track).collect();
        let name = format!("recording.{what}");
        let origin = if what == "started" { "" } else { manifest.origin.as_deref().unwrap_or_default() };
        Event::new(&name, &[address, origin], address, unix, &data)
    }

    /// `track.finished`.
    pub fn of_track(
        what: &str,
        track: &super::store::manifest::TrackManifest,
        address: &str,
        folder: &str,
        manifest: &Manifest,
        unix: Micros,
    ) -> Event {
        let mut data = about(address, folder, manifest);
        data["track"] = about_track(track);
        let origin = manifest.origin.as_deref().unwrap_or_default();
        Event::new(&format!("track.{what}"), &[address, &track.track, origin], address, unix, &data)
    }

    /// `recording.deleted`, of one of which nobody could read more than its name.
    pub fn of_deleted(name: &Name, folder: Option<&str>, unix: Micros) -> Event {
        let address = name.address();
        let data = json!({
            "recording_id": name.id,
            "address": address,
            "tenant": name.tenant,
            "state": State::Deleted,
            "manifest": folder.map(|folder| format!("{folder}/{DELETED}")),
        });
        Event::new("recording.deleted", &[&address, ""], &address, unix, &data)
    }

    /// `bot.refused`: `key` is the caller's name for the bot. Its next dials have the same id for a while.
    pub fn bot_refused(key: Option<&str>, tenant: Option<&str>, reason: &str, unix: Micros) -> Event {
        let data = json!({ "tenant": tenant, "key": key, "reason": reason });
        let at = unix.0.div_euclid(REFUSED_STEP.0).to_string();
        let recording = format!("bot {}", key.unwrap_or_default());
        Event::new("bot.refused", &[key.unwrap_or_default(), reason, &at], &recording, unix, &data)
    }
}

fn about(address: &str, folder: &str, manifest: &Manifest) -> Value {
    json!({
        "recording_id": manifest.recording_id,
        "address": address,
        "tenant": manifest.tenant,
        "bot_id": manifest.bot_id,
        "metadata": manifest.metadata,
        "state": manifest.state,
        "origin": manifest.origin,
        "continues": manifest.continues,
        // What is left of one that was deleted.
        "manifest": format!("{folder}/{}", if manifest.state == State::Deleted { DELETED } else { "recording.json" }),
    })
}

fn about_track(track: &super::store::manifest::TrackManifest) -> Value {
    json!({
        "track": track.track,
        "kind": track.kind,
        "participant": track.participant.id,
        "first_tick": track.first_tick,
        "end_tick": track.end_tick,
        "ledger": track.ledger,
        "mp4": track.mp4,
    })
}

/// Events that wait.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    /// Rung when there is one more.
    pub changed: Notify,
    /// Locked first, and for as long as the queue changes: so the lines are in its order.
    lines: Mutex<Lines>,
    /// Never locked while the disk is waited for: the sender looks at it between its requests.
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Lines {
    file: File,
    /// Those that are over.
    done: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Event>>,
    ids: HashSet<String>,
}

impl Outbox {
    /// Opens the file in `spool`, with what an earlier process did not get rid of.
    ///
    /// # Errors
    /// Of the file.
    pub fn open(spool: &Path) -> io::Result<Outbox> {
        let path = spool.join(FILE);
        let waiting = match File::open(&path) {
            Ok(file) => read(BufReader::new(file))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
            Err(error) => return Err(error),
        };
        let lines = Mutex::new(Lines { file: write_anew(&path, &waiting)?, done: 0 });
        let ids = waiting.iter().map(|event| event.id.clone()).collect();
        Ok(Outbox { path, changed: Notify::new(), lines, queue: Mutex::new(Queue { waiting, ids }) })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event until it is taken; nothing is done for one that waits already. Blocks for the disk. Returns false
    /// where there are too many.
    ///
    /// # Errors
    /// Of the file; it is told all the same, as long as this process lives.
    pub fn put(&self, event: Event) -> io::Result<bool> {
        let mut lines = self.lines();
        {
            let queue = self.queue();
            if queue.ids.contains(&event.id) {
                return Ok(true);
            }
            if queue.waiting.len() >= WAITING_MAX {
                return Ok(false);
            }
        }
        let event = Arc::new(event);
        let written = append(&mut lines.file, &Line::Event((*event).clone()));
        {
            let mut queue = self.queue();
            queue.ids.insert(event.id.clone());
            queue.waiting.push_back(event);
        }
        self.changed.notify_one();
        written.map(|()| true)
    }

    /// The first of each recording: those that may be told now.
    pub fn heads(&self) -> Vec<Arc<Event>> {
        let queue = self.queue();
        let mut seen = HashSet::new();
        queue.waiting.iter().filter(|event| seen.insert(event.recording.as_str())).cloned().collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// It was taken, or is given up. Blocks for the disk.
    ///
    /// # Errors
    /// Of the file; then it is told once more after a restart.
    pub fn done(&self, id: &str) -> io::Result<()> {
        let mut lines = self.lines();
        let left = {
            let mut queue = self.queue();
            queue.waiting.retain(|event| event.id != id);
            queue.ids.remove(id);
            queue.waiting.len()
        };
        self.changed.notify_one();
        lines.done += 2;
        if lines.done > DONE_LINES_MAX.max(2 * left) {
            let waiting = self.queue().waiting.clone();
            *lines = Lines { file: write_anew(&self.path, &waiting)?, done: 0 };
            return Ok(());
        }
        append(&mut lines.file, &Line::Done(id.to_owned()))
    }
}

fn read(lines: impl BufRead) -> io::Result<VecDeque<Arc<Event>>> {
    let mut waiting = VecDeque::new();
    for line in lines.lines() {
        // A death can cut the last line; what it said is lost, or is said again.
        match serde_json::from_str(&line?) {
            Ok(Line::Event(event)) => waiting.push_back(Arc::new(event)),
            Ok(Line::Done(id)) => waiting.retain(|event: &Arc<Event>| event.id != id),
            Err(_) => {}
        }
    }
    Ok(waiting)
}

fn write(to: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line).map_err(io::Error::other)?;
    to.push(b'\n');
    Ok(())
}

fn append(file: &mut File, line: &Line) -> io::Result<()> {
    let mut text = Vec::new();
    write(&mut text, line)?;
    file.write_all(&text)?;
    file.sync_data()
}

/// Aside, then in its place.
fn write_anew(path: &Path, waiting: &VecDeque<Arc<Event>>) -> io::Result<File> {
    let mut text = Vec::new();
    for event in waiting {
        write(&mut text, &Line::Event((**event).clone()))?;
    }
    let aside = path.with_extension("aside");
    let mut file = File::create(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, recording: &str) -> Event {
        Event { id: id.to_owned(), recording: recording.to_owned(), body: "{}".to_owned() }
    }

    fn heads(outbox: &Outbox) -> Vec<String> {
        outbox.heads().iter().map(|event| event.id.clone()).collect()
    }

    #[test]
    fn each_recording_is_told_in_order_and_through_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        for (id, recording) in [("1", "a"), ("2", "a"), ("3", "b"), ("1", "a")] {
            assert!(outbox.put(event(id, recording)).unwrap());
        }
        assert_eq!(heads(&outbox), ["1", "3"], "one that waits is not put twice");
        outbox.done("1").unwrap();
        drop(outbox);
        let outbox = Outbox::open(dir.path()).unwrap();
        assert_eq!(heads(&outbox), ["2", "3"]);
        outbox.done("3").unwrap();
        // A death in the middle of a line.
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE))
            .unwrap()
            .write_all(b"{\"event\":{\"id")
            .unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        assert_eq!((heads(&outbox), outbox.waiting()), (vec!["2".to_owned()], 1));
    }

    #[test]
    fn the_dials_of_one_bot_are_one_event_or_two() {
        let id = |key: &str, reason: &str, secs: i64| {
            Event::bot_refused(Some(key), None, reason, Micros::from_secs(1_800_000_050 + secs)).id
        };
        let dials: HashSet<String> = (0..30).map(|nth| id("bot", "overloaded", 3 * nth)).collect();
        assert!((1..=2).contains(&dials.len()), "{dials:?}");
        assert!(!dials.contains(&id("other", "overloaded", 0)) && !dials.contains(&id("bot", "spool", 0)));
        assert!(!dials.contains(&id("bot", "overloaded", 3600)), "an hour later it is another bot");
    }

    #[test]
    fn one_that_waits_needs_no_room_and_one_more_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let full: VecDeque<_> = (0..WAITING_MAX).map(|n| Arc::new(event(&n.to_string(), "a"))).collect();
        write_anew(&dir.path().join(FILE), &full).unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        assert!(outbox.put(event("0", "a")).unwrap() && !outbox.put(event("more", "a")).unwrap());
        assert_eq!(outbox.waiting(), WAITING_MAX);
        outbox.done("0").unwrap();
        assert!(outbox.put(event("more", "a")).unwrap());
        assert_eq!(heads(&outbox), ["1"]);
        drop(outbox);
        let again = Outbox::open(dir.path()).unwrap();
        assert_eq!((again.waiting(), again.queue().waiting.back().unwrap().id.as_str()), (WAITING_MAX, "more"));
    }

    #[test]
    fn who_looks_does_not_wait_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put(event("1", "a")).unwrap();
        let _being_written = outbox.lines();
        assert_eq!((heads(&outbox), outbox.waiting()), (vec!["1".to_owned()], 1));
    }

    #[test]
    fn file_and_memory_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        for n in 0..2_000 {
            outbox.put(event(&n.to_string(), "a")).unwrap();
            outbox.done(&n.to_string()).unwrap();
        }
        let size = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert!(size < 100_000, "{size} bytes and nothing waits");
    }
}
