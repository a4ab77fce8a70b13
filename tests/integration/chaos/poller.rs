//! Who reads all the time what the store holds, whatever happens to the server: every playlist is whole, names only what
//! is there, and continues the one before byte by byte; every manifest is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use tilecast::pipeline::store::manifest::Manifest;

/// How often everything is read.
const EVERY: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often everything was read.
    pub looks: u64,
    /// Playlists that differed from the one before.
    pub versions: u64,
    /// The last playlist of each track, by its folder.
    pub last: BTreeMap<PathBuf, String>,
    /// What was wrong first.
    pub wrong: Option<String>,
    /// The size of each segment when it was first named.
    sizes: BTreeMap<PathBuf, u64>,
}

/// A thread that looks every 50 ms.
pub struct Poller {
    seen: Arc<Mutex<Seen>>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Poller {
    /// Begins to look at the recordings of these folders, which need not be there yet.
    pub fn start(recordings: Vec<PathBuf>) -> Poller {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (stop, stopped) = bounded(0);
        let thread = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    let mut seen = seen.lock().unwrap();
                    if seen.wrong.is_none() {
                        seen.wrong = recordings.iter().find_map(|folder| seen.look(folder).err());
                    }
                    seen.looks += 1;
                }
            }
        });
        Poller { seen, stop, thread }
    }

    /// Panics with what was wrong, if anything was so far.
    pub fn check(&self) {
        let wrong = self.seen.lock().unwrap().wrong.clone();
        assert_eq!(wrong, None, "what a player reads is never wrong");
    }

    /// The end: what was seen in all.
    pub fn end(self) -> Seen {
        drop(self.stop);
        self.thread.join().expect("the poller only reads");
        self.seen.lock().unwrap().clone()
    }
}

impl Seen {
    fn look(&mut self, recording: &Path) -> Result<(), String> {
        if let Ok(text) = std::fs::read(recording.join("recording.json")) {
            serde_json::from_slice::<Manifest>(&text).map_err(|error| format!("{}: {error}", recording.display()))?;
        }
        let entries = std::fs::read_dir(recording).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().is_dir()).try_for_each(|track| self.look_at_track(&track.path()))
    }

    fn look_at_track(&mut self, folder: &Path) -> Result<(), String> {
        let name = folder.display();
        let before = self.last.get(folder).cloned();
        let text = match (std::fs::read_to_string(folder.join("index.m3u8")), &before) {
            (Ok(text), _) => text,
            (Err(_), None) => return Ok(()),
            (Err(error), Some(_)) => return Err(format!("{name}: a playlist is never gone: {error}")),
        };
        let before = before.unwrap_or_default();
        if text == before {
            return Ok(());
        }
        self.versions += 1;
        if !text.starts_with(&before) {
            return Err(format!("{name}:\n{before}\nis not continued by\n{text}"));
        }
        let wrong = |what: String| format!("{name}: {what}:\n{text}");
        let parsed = m3u8_rs::parse_media_playlist(text.as_bytes());
        let (rest, playlist) = parsed.map_err(|error| wrong(format!("it does not read: {error}")))?;
        if !rest.is_empty() || !text.ends_with('\n') || before.contains("#EXT-X-ENDLIST") {
            return Err(wrong("it has no proper end".to_owned()));
        }
        for segment in &playlist.segments {
            if let Some(map) = &segment.map {
                std::fs::metadata(folder.join(&map.uri)).map_err(|error| wrong(format!("{}: {error}", map.uri)))?;
            }
            let path = folder.join(&segment.uri);
            let size = std::fs::metadata(&path).map_err(|error| wrong(format!("{}: {error}", segment.uri)))?.len();
            if *self.sizes.entry(path).or_insert(size) != size || size == 0 {
                return Err(wrong(format!("{} is {size} bytes long now", segment.uri)));
            }
        }
        self.last.insert(folder.to_owned(), text);
        Ok(())
    }
}

#[test]
fn a_poller_sees_what_is_wrong() {
    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n";
    let dir = tempfile::tempdir().unwrap();
    let track = dir.path().join("1-webcam");
    std::fs::create_dir(&track).unwrap();
    let mut seen = Seen::default();
    let mut look = |text: &str| {
        std::fs::write(track.join("index.m3u8"), text).unwrap();
        seen.look(dir.path())
    };
    let named = format!("{HEAD}#EXTINF:2,\na.m4s\n");
    look(HEAD).unwrap();
    assert!(look(&named).unwrap_err().contains("a.m4s: No such file"));
    std::fs::write(track.join("a.m4s"), "media").unwrap();
    look(&named).unwrap();
    assert!(look(&format!("{HEAD}#EXTINF:2,\nb.m4s\n")).unwrap_err().contains("is not continued"));
    std::fs::write(track.join("a.m4s"), "more media").unwrap();
    assert!(look(&format!("{named}#EXT-X-ENDLIST\n")).unwrap_err().contains("10 bytes long now"));
    std::fs::write(track.join("a.m4s"), "media").unwrap();
    look(&format!("{named}#EXT-X-ENDLIST\n")).unwrap();
    assert!(look(&format!("{named}#EXT-X-ENDLIST\n#EXTINF:2,\na.m4s\n")).unwrap_err().contains("no proper end"));
}
