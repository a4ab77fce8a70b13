//! A stand-in for the server: the real page and the real media handler over files made by the `ffmpeg` program, and an
//! API that answers from memory. Playlists grow with the time since the start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use object_store::local::LocalFileSystem;
use serde_json::{Value, json};
use tilecast::http::error::ApiError;
use tilecast::http::{media, web};
use tilecast::ledger::Ledger;
use tilecast::media::{GapReason, Kind, Tick};
use tilecast::pipeline::store::manifest::{
    Gap, Manifest, Mp4Manifest, ParticipantManifest, State as Life, TrackManifest,
};

use crate::pattern;

const FPS: Tick = 2;
const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Short cells, so that a test sees several of them.
const SEGMENT_TICKS: Tick = 4;
const ORIGIN_MS: i64 = 1_767_261_600_000;

/// A track of the fake: pictures from `first_tick` (a multiple of 4) to `end_tick`.
pub struct FakeTrack {
    pub participant: &'static str,
    pub name: Option<&'static str>,
    pub kind: Kind,
    pub first_tick: Tick,
    pub end_tick: Tick,
    pub gaps: Vec<Gap>,
    /// Ticks (multiples of 4 from the first) that the playlist leaves out behind a discontinuity.
    pub hole: Option<(Tick, Tick)>,
}

impl FakeTrack {
    pub fn webcam(participant: &'static str, name: &'static str, first_tick: Tick, end_tick: Tick) -> FakeTrack {
        FakeTrack {
            participant,
            name: Some(name),
            kind: Kind::Webcam,
            first_tick,
            end_tick,
            gaps: Vec::new(),
            hole: None,
        }
    }

    fn in_hole(&self, tick: Tick) -> bool {
        self.hole.is_some_and(|(from, to)| (from..to).contains(&tick))
    }

    pub fn folder(&self) -> String {
        format!("{}-{}", self.participant, self.kind)
    }
}

/// A recording of the fake.
pub struct FakeRecording {
    pub id: &'static str,
    pub life: Life,
    pub tracks: Vec<FakeTrack>,
}

impl FakeRecording {
    fn end_tick(&self) -> Tick {
        self.tracks.iter().map(|track| track.end_tick).max().unwrap_or(0)
    }
}

struct Fake {
    store: LocalFileSystem,
    _dir: tempfile::TempDir,
    recordings: Vec<FakeRecording>,
    started: Instant,
    head_start_ticks: Tick,
    failing: AtomicBool,
    locked: AtomicBool,
}

/// A running fake; it ends with the runtime of its test.
pub struct FakeServer {
    pub url: String,
    fake: Arc<Fake>,
}

impl FakeServer {
    /// Makes the media and serves on a free port. Live recordings look as if they had begun `head_start_ticks` ago.
    pub async fn start(recordings: Vec<FakeRecording>, head_start_ticks: Tick) -> FakeServer {
        let dir = tempfile::tempdir().unwrap();
        for recording in &recordings {
            for track in &recording.tracks {
                let folder = dir.path().join(recording.id).join(track.folder());
                std::fs::create_dir_all(&folder).unwrap();
                encode_segments(&folder, track);
                if recording.life == Life::Finished {
                    encode_mp4(&folder, track, recording.end_tick());
                }
            }
        }
        let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let (started, failing, locked) = (Instant::now(), AtomicBool::new(false), AtomicBool::new(false));
        let fake = Arc::new(Fake { store, _dir: dir, recordings, started, head_start_ticks, failing, locked });
        let router = Router::new()
            .route("/api/v1/recordings", get(list))
            .route("/api/v1/recordings/{id}", get(one))
            .route("/media/{*tail}", any(object))
            .layer(axum::middleware::from_fn_with_state(fake.clone(), guard))
            .with_state(fake.clone())
            .merge(web::router());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        FakeServer { url, fake }
    }

    /// From now on the API and the media ask for the token `sesame`.
    pub fn lock(&self) {
        self.fake.locked.store(true, Ordering::Relaxed);
    }

    /// From now on the API answers 500.
    pub fn fail(&self) {
        self.fake.failing.store(true, Ordering::Relaxed);
    }
}

/// One track as fMP4 segments of 4 ticks, with decode times on the recording's grid, as the server writes them.
fn encode_segments(folder: &FilePath, track: &FakeTrack) {
    let output = ["-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"];
    let names = ["-hls_fmp4_init_filename", "init-0.mp4", "-hls_segment_filename", "%06d.m4s", "all.m3u8"];
    let pictures = (track.first_tick..track.end_tick).map(|tick| pattern::draw(WIDTH, HEIGHT, tick as u32));
    run_ffmpeg(folder, &[output.as_slice(), &names].concat(), pictures);
    for (path, bytes) in segments(folder) {
        std::fs::write(path, shift_decode_time(bytes, track.first_tick * 1000)).unwrap();
    }
}

/// The MP4 of a track: from time zero to the end of the recording, black where there is no picture.
fn encode_mp4(folder: &FilePath, track: &FakeTrack, end: Tick) {
    let picture = |tick| {
        let there = (track.first_tick..track.end_tick).contains(&tick) && !track.in_hole(tick);
        if there { pattern::draw(WIDTH, HEIGHT, tick as u32) } else { image::RgbImage::new(WIDTH, HEIGHT) }
    };
    run_ffmpeg(folder, &["-movflags", "+faststart", "video.mp4"], (0..end).map(picture));
}

fn run_ffmpeg(folder: &FilePath, output: &[&str], pictures: impl Iterator<Item = image::RgbImage>) {
    let mut command = Command::new("ffmpeg");
    command
        .current_dir(folder)
        .args(["-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s"])
        .arg(format!("{WIDTH}x{HEIGHT}"))
        .args(["-r", "2", "-i", "-", "-vf"])
        .arg("scale=out_range=tv:out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int")
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-bf", "0", "-g", "4", "-sc_threshold", "0"])
        .args(["-pix_fmt", "yuv420p", "-color_range", "tv", "-colorspace", "bt709"])
        .args(["-color_primaries", "bt709", "-color_trc", "bt709", "-video_track_timescale", "2000"])
        .args(output)
        .stdin(Stdio::piped());
    let mut child = command.spawn().expect("the ffmpeg program");
    let mut input = child.stdin.take().expect("stdin is piped");
    pictures.for_each(|picture| input.write_all(&picture).unwrap());
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn segments(folder: &FilePath) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "m4s")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Adds `units` to the one `tfdt` (version 1) of a segment.
fn shift_decode_time(mut segment: Vec<u8>, units: i64) -> Vec<u8> {
    let at = segment.windows(4).position(|name| name == b"tfdt").expect("a tfdt box");
    assert_eq!(segment[at + 4], 1, "64-bit decode times");
    let time = &mut segment[at + 8..at + 16];
    let shifted = i64::from_be_bytes((&*time).try_into().expect("eight bytes")) + units;
    time.copy_from_slice(&shifted.to_be_bytes());
    segment
}

impl Fake {
    fn check(&self) -> Result<(), ApiError> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "the index cannot be read"));
        }
        Ok(())
    }

    fn recording(&self, id: &str) -> Result<&FakeRecording, ApiError> {
        self.check()?;
        self.recordings.iter().find(|one| one.id == id).ok_or_else(|| ApiError::not_found("recording"))
    }

    /// The tick up to which a track of this life is written and cut.
    fn written(&self, life: Life, track: &FakeTrack) -> Tick {
        let now = self.head_start_ticks + (self.started.elapsed().as_millis() as Tick * FPS) / 1000;
        let now = if life == Life::Live { now } else { Tick::MAX };
        now.min(track.end_tick) / SEGMENT_TICKS * SEGMENT_TICKS
    }

    fn manifest(&self, recording: &FakeRecording) -> Manifest {
        Manifest {
            schema: 1,
            recording_id: recording.id.to_owned(),
            tenant: None,
            bot_id: Some("0c3e7f4e-8f1d-4a8e-9d54-6a1c1f1b7c11".to_owned()),
            metadata: BTreeMap::new(),
            state: recording.life,
            continues: None,
            prefix: None,
            origin: Some("2026-01-01T10:00:00Z".to_owned()),
            origin_from_server: false,
            fps: FPS as u32,
            segment_ticks: SEGMENT_TICKS as u32,
            fill: tilecast::config::Fill::Black,
            overload: Vec::new(),
            deleted: Vec::new(),
            tracks: recording.tracks.iter().filter_map(|track| self.track(recording, track)).collect(),
        }
    }

    fn track(&self, recording: &FakeRecording, track: &FakeTrack) -> Option<TrackManifest> {
        let end = self.written(recording.life, track);
        if end <= track.first_tick {
            return None;
        }
        let hole = track.hole.map(|(from, to)| Gap { from_tick: from, to_tick: to, reason: GapReason::ServerDown });
        let gaps: Vec<Gap> = track.gaps.iter().cloned().chain(hole).filter(|gap| gap.from_tick < end).collect();
        let filled = gaps.iter().map(|gap| (gap.to_tick - gap.from_tick) as u64).sum::<u64>();
        let encoded = (end - track.first_tick) as u64 - filled;
        let mp4 = Mp4Manifest {
            path: "video.mp4".into(),
            from_tick: 0,
            ticks: recording.end_tick(),
            bytes: 12_400_000,
            sha256: String::new(),
        };
        Some(TrackManifest {
            track: track.folder(),
            participant: ParticipantManifest {
                id: track.participant.to_owned(),
                name: track.name.map(str::to_owned),
                email: None,
                is_host: Some(track.participant == "100"),
                platform: None,
            },
            kind: track.kind,
            width: Some(640),
            height: Some(360),
            codecs: Some("avc1.64001e".to_owned()),
            first_tick: Some(track.first_tick),
            end_tick: Some(end),
            epochs: Vec::new(),
            gaps,
            ledger: Ledger {
                received: encoded + 3,
                encoded,
                held: 0,
                filled: filled + track.first_tick as u64,
                discarded: [("late".to_owned(), 1), ("merged".to_owned(), 2)].into(),
            },
            mp4: if recording.life == Life::Finished { vec![mp4] } else { Vec::new() },
        })
    }
}

type Shared = State<Arc<Fake>>;

async fn guard(State(fake): Shared, request: Request, next: axum::middleware::Next) -> Response {
    let token = request.headers().get("authorization").is_some_and(|value| value == "Bearer sesame");
    if fake.locked.load(Ordering::Relaxed) && !token {
        return ApiError::new(axum::http::StatusCode::UNAUTHORIZED, "a token is needed").into_response();
    }
    next.run(request).await
}

async fn list(State(fake): Shared) -> Result<Json<Value>, ApiError> {
    let summary = |recording: &FakeRecording| {
        let manifest = fake.manifest(recording);
        let ticks = manifest.tracks.iter().filter_map(|track| track.end_tick).max();
        json!({ "recording_id": recording.id, "state": recording.life, "origin": manifest.origin, "tracks": manifest.tracks.len(),
                "bot_id": manifest.bot_id, "duration_ticks": ticks.unwrap_or(0), "fps": FPS })
    };
    fake.check()?;
    let recordings: Vec<Value> = fake.recordings.iter().map(summary).collect();
    Ok(Json(json!({ "recordings": recordings, "next_cursor": null })))
}

async fn one(State(fake): Shared, Path(id): Path<String>) -> Result<Json<Manifest>, ApiError> {
    Ok(Json(fake.manifest(fake.recording(&id)?)))
}

fn playlist(fake: &Fake, id: &str, folder: &str) -> Result<Response, ApiError> {
    let recording = fake.recording(id)?;
    let track = recording.tracks.iter().find(|track| track.folder() == folder);
    let track = track.ok_or_else(|| ApiError::not_found("track"))?;
    let ticks = fake.written(recording.life, track) - track.first_tick;
    if ticks <= 0 {
        return Err(ApiError::not_found("playlist"));
    }
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-MAP:URI=\"init-0.mp4\"\n{}",
        date_line(track.first_tick)
    );
    for number in 0..ticks / SEGMENT_TICKS {
        let tick = track.first_tick + number * SEGMENT_TICKS;
        match track.hole {
            Some(_) if track.in_hole(tick) => continue,
            Some((_, to)) if tick == to => text += &format!("#EXT-X-DISCONTINUITY\n{}", date_line(tick)),
            _ => {}
        }
        text += &format!("#EXTINF:2.000,\n{number:06}.m4s\n");
    }
    if recording.life == Life::Finished {
        text += "#EXT-X-ENDLIST\n";
    }
    Ok(([("content-type", "application/vnd.apple.mpegurl"), ("cache-control", "no-cache")], text).into_response())
}

fn date_line(tick: Tick) -> String {
    let nanos = i128::from(ORIGIN_MS + tick * 1000 / FPS) * 1_000_000;
    let date = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
    let date = date.format(&time::format_description::well_known::Rfc3339).unwrap();
    format!("#EXT-X-PROGRAM-DATE-TIME:{date}\n")
}

async fn object(State(fake): Shared, Path(tail): Path<String>, request: Request) -> Response {
    if let [id, folder, "index.m3u8"] = tail.split('/').collect::<Vec<_>>()[..] {
        return playlist(&fake, id, folder).into_response();
    }
    match media::key(&object_store::path::Path::default(), &tail) {
        Some(key) => media::object(&fake.store, &key, request.headers(), request.method()).await,
        None => ApiError::not_found("object").into_response(),
    }
}
