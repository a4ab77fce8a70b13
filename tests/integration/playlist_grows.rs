//! A player asks while the server writes: every playlist that it can ever read continues the one before, byte by byte,
//! and names only what is there, complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::{Manifest, State};

use crate::bot::{Bot, Camera, ORIGIN, at};
use crate::harness::{Server, until};
use crate::playback::{check_finished, segments};

const RECORDING: &str = "grows";
const TRACKS: [&str; 2] = ["100-webcam", "100-screenshare"];
const TICKS: u32 = 301;
/// 2 s.
const SEGMENT_TICKS: usize = 4;
/// Segments that are waited for before more is sent.
const ONE_BY_ONE: usize = 10;

/// What a player saw of a track.
#[derive(Default)]
struct Watched {
    /// Every playlist that differs from the one before.
    texts: Vec<String>,
    /// The size of each segment when it was first named.
    sizes: BTreeMap<PathBuf, u64>,
}

impl Watched {
    fn look(&mut self, folder: &Path) {
        let Ok(text) = std::fs::read_to_string(folder.join("index.m3u8")) else {
            assert!(self.texts.is_empty(), "a playlist is never gone");
            return;
        };
        let before = self.texts.last().map_or("", String::as_str);
        if text == before {
            return;
        }
        assert!(text.starts_with(before), "{before}\nis not continued by\n{text}");
        assert!(text.ends_with('\n'), "whole lines: {text}");
        for line in text[before.len()..].lines() {
            if let Some(init) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                assert!(folder.join(init.trim_end_matches('"')).exists(), "{line}");
            } else if !line.starts_with('#') {
                let path = folder.join(line);
                let size = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{line} is named: {error}")).len();
                self.sizes.insert(path, size);
            }
        }
        self.texts.push(text);
    }
}

/// Looks at all playlists and the manifest as fast as it can until `stop`, and once after it.
fn watch(recording: &Path, stop: &AtomicBool) -> (BTreeMap<&'static str, Watched>, Vec<State>) {
    let (mut watched, mut states): (BTreeMap<_, Watched>, Vec<State>) = (BTreeMap::new(), Vec::new());
    loop {
        let last = stop.load(SeqCst);
        for track in TRACKS {
            watched.entry(track).or_default().look(&recording.join(track));
        }
        if let Ok(text) = std::fs::read(recording.join("recording.json")) {
            let manifest: Manifest = serde_json::from_slice(&text).expect("a manifest is whole at any time");
            if states.last() != Some(&manifest.state) {
                states.push(manifest.state);
            }
        }
        if last {
            return (watched, states);
        }
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_playlist_continues_the_one_before() {
    let server = Server::start(&["--segment", "2s"]).await;
    let folder = server.folders.recording(RECORDING);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (stop, folder) = (stop.clone(), folder.clone());
        move || watch(&folder, &stop)
    });
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras = [Kind::Webcam, Kind::Screenshare].map(|kind| (kind, Camera::new(1, kind)));
    for tick in 0..TICKS {
        for (kind, camera) in &cameras {
            bot.send_picture(RECORDING, 100, *kind, at(tick), &camera.base64(tick)).await;
        }
        // The first ones one by one, the others as fast as they come.
        let segment = (tick as usize + 1) / SEGMENT_TICKS;
        if (tick as usize + 1).is_multiple_of(SEGMENT_TICKS) && segment <= ONE_BY_ONE {
            until(&format!("segment {segment} is published"), || async {
                let named = |track: &&str| {
                    let text = std::fs::read_to_string(folder.join(track).join("index.m3u8")).unwrap_or_default();
                    text.lines().filter(|line| !line.starts_with('#')).count() >= segment
                };
                TRACKS.iter().all(named).then_some(())
            })
            .await;
        }
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    stop.store(true, SeqCst);
    let (watched, states) = watcher.join().expect("what a player sees is never wrong");
    // A short state may pass unseen, but none comes back.
    assert!(
        states
            .is_sorted_by_key(|state| [State::Live, State::Finishing, State::Finished].iter().position(|s| s == state))
    );
    assert_eq!((states.first(), states.last()), (Some(&State::Live), Some(&State::Finished)));
    check_finished(&server.folders, &manifest).await;
    for track in TRACKS {
        check_playlists(&folder.join(track), &watched[track]);
    }
}

fn check_playlists(folder: &Path, watched: &Watched) {
    // Enough of them for the comparison to mean something.
    assert!(watched.texts.len() > ONE_BY_ONE / 2, "{} playlists were seen", watched.texts.len());
    let (last, earlier) = watched.texts.split_last().unwrap();
    assert!(earlier.iter().all(|text| !text.contains("#EXT-X-ENDLIST")));
    assert_eq!(last.matches("#EXT-X-ENDLIST").count(), 1);

    // Named once, named for good, and complete when it was named.
    let segments = segments(folder);
    assert_eq!(segments.len(), (TICKS as usize).div_ceil(SEGMENT_TICKS));
    assert_eq!(watched.sizes.len(), segments.len());
    for (path, line) in &segments {
        assert_eq!(watched.sizes[path], line.bytes, "{} when it was first named", path.display());
    }

    // What players make of it.
    let (rest, playlist) = m3u8_rs::parse_media_playlist(last.as_bytes()).unwrap();
    assert!(rest.is_empty() && playlist.end_list && playlist.independent_segments);
    assert_eq!(playlist.playlist_type, Some(m3u8_rs::MediaPlaylistType::Event));
    assert_eq!((playlist.version, playlist.media_sequence, playlist.target_duration), (Some(7), 0, 2));
    let durations: Vec<f32> = playlist.segments.iter().map(|segment| segment.duration).collect();
    assert!(durations[..durations.len() - 1].iter().all(|duration| *duration == 2.0));
    assert_eq!(durations.iter().sum::<f32>(), TICKS as f32 / 2.0);
    let maps = playlist.segments.iter().filter(|segment| segment.map.is_some()).count();
    assert_eq!(maps, 1, "the init segment is named once");
    let date = playlist.segments[0].program_date_time.expect("the first segment has its date").timestamp_micros();
    assert_eq!(date, ORIGIN.0);
    assert!(playlist.segments.iter().all(|segment| !segment.discontinuity));
}
