//! A media store on a real socket: a meeting ends up in it byte by byte, on good days and on bad ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tilecast::media::Kind;
use tilecast::pipeline::store::keys::hex;
use tilecast::pipeline::store::manifest::{Manifest, State};

use crate::bot::{Bot, Camera, at, base64};
use crate::harness::{Folders, Server, files, until};
use crate::restarts::{FLAGS, send};
use crate::s3::{Fault, S3};

/// A server whose recordings land in this store.
pub async fn serve(s3: &S3, folders: &Folders, more: &[&str]) -> Server {
    serve_with(s3, folders, more, &[]).await
}

/// With more variables.
pub async fn serve_with(s3: &S3, folders: &Folders, more: &[&str], beside: &[(&str, &str)]) -> Server {
    let url = s3.url();
    let args: Vec<&str> = FLAGS.iter().copied().chain(["--store", &url]).chain(more.iter().copied()).collect();
    let variables = s3.variables();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, &**value)).chain(beside.iter().copied()).collect();
    Server::start_in(folders, &args, &variables).await
}

/// The SHA-256 of each file below a folder.
pub fn hashes(folder: &Path) -> BTreeMap<String, String> {
    // One that grows may get its name meanwhile.
    let hash = |path| Some(hex(&Sha256::digest(std::fs::read(path).ok()?)));
    files(folder).into_iter().filter_map(|(name, path)| Some((name, hash(path)?))).collect()
}

/// Closed segments and init segments of the spool.
pub fn media(folder: &Path) -> BTreeMap<String, String> {
    let is_media = |name: &str| name.ends_with(".m4s") || name.contains("/init-");
    hashes(folder).into_iter().filter(|(name, _)| is_media(name)).collect()
}

/// Everything that was in the spool is in the store, and every MP4 that the manifest names.
pub fn check_stored(s3: &S3, manifest: &Manifest, spooled: &BTreeMap<String, String>) {
    let stored = hashes(&s3.bucket().join("recordings").join(&manifest.recording_id));
    for (name, hash) in spooled {
        assert_eq!(stored.get(name), Some(hash), "{name}");
    }
    for track in &manifest.tracks {
        let mp4 = track.mp4.first().unwrap();
        assert_eq!(stored.get(&format!("{}/{}", track.track, mp4.path)), Some(&mp4.sha256));
        let playlist = stored.contains_key(&format!("{}/index.m3u8", track.track));
        assert!(playlist, "{}: no playlist", track.track);
    }
    assert!(stored.contains_key("recording.json") && stored.contains_key("events.jsonl"));
    assert_eq!(s3.open_uploads(), Vec::<String>::new(), "no upload in parts is left open");
}

/// Looks at the playlists in the store all the time: each version goes on from the one before, and names only what is there.
pub struct Poller {
    stop: Arc<AtomicBool>,
    looks: tokio::task::JoinHandle<usize>,
}

impl Poller {
    /// Begins.
    pub fn start(recording: PathBuf) -> Poller {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let looks = tokio::spawn(async move {
            let (mut last, mut versions) = (BTreeMap::<String, String>::new(), 0);
            while !stopped.load(SeqCst) {
                for (name, path) in files(&recording).into_iter().filter(|(name, _)| name.ends_with("/index.m3u8")) {
                    let Ok(text) = std::fs::read_to_string(&path) else { continue };
                    let before = last.entry(name.clone()).or_default();
                    assert!(text.starts_with(&**before), "{name}: {text}\nafter\n{before}");
                    let folder = path.parent().unwrap();
                    for segment in text.lines().filter(|line| !line.starts_with('#')) {
                        assert!(folder.join(segment).exists(), "{name} names {segment}, which is not there");
                    }
                    versions += usize::from(*before != text);
                    *before = text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            versions
        });
        Poller { stop, looks }
    }

    /// How many versions it saw.
    pub async fn versions(self) -> usize {
        self.stop.store(true, SeqCst);
        self.looks.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_ends_up_in_s3() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let server = serve(&s3, &folders, &[]).await;
    let cameras: Vec<Camera> = (0..2).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, "met", &cameras, 0..9).await;
    let stored = s3.bucket().join("recordings/met");
    let names = |name: &str| files(&stored).keys().filter(|key| key.ends_with(name)).count();
    until("the store has the first playlists", || async { (names("index.m3u8") == 2).then_some(()) }).await;
    send(&mut bot, "met", &cameras, 9..21).await;
    server.drained("met").await;
    bot.close().await;
    // The store gets the next playlist in half a minute; whoever plays from here is not behind.
    let named = |text: &str| text.matches(".m4s").count();
    for track in ["100-webcam", "101-webcam"] {
        let playlist = format!("/media/met/{track}/index.m3u8");
        until("every closed segment is named", || async {
            let answer = server.get(&playlist).await;
            assert_eq!(answer.header("content-type"), "application/vnd.apple.mpegurl");
            (named(answer.text()) == 5).then_some(())
        })
        .await;
        let in_store = std::fs::read_to_string(stored.join(track).join("index.m3u8")).unwrap();
        assert!(named(&in_store) < 5, "{in_store}");
    }
    let spooled = media(&folders.spool().join("met"));
    assert!(spooled.len() >= 12, "{spooled:?}");
    let manifest = server.finish("met").await;
    check_stored(&s3, &manifest, &spooled);
    assert_eq!(files(&folders.spool().join("met")).len(), 0, "the spool is empty");
    // What the price is made of: a segment is one PUT, and what comes beside does not grow with the meeting.
    let requests = server.metrics().await.labelled("tilecast_store_requests_total");
    let segments = spooled.keys().filter(|name| name.ends_with(".m4s")).count() as f64;
    let puts = requests[r#"operation="put""#];
    assert_eq!(puts, s3.requests()["PUT"] as f64, "the server counts what the store counts");
    assert!(puts >= segments + 10.0 && puts <= segments + 26.0, "{segments} segments: {requests:?}");
    assert_eq!(requests[r#"operation="list""#], 4.0, "two at the start, one for each track: {requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_in_every_way_gets_it_all_the_same() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let more = ["--store-timeout", "1s", "--store-playlist-every", "100ms"];
    let poller = Poller::start(s3.bucket().join("recordings/bad"));
    for (path, fault, times) in [
        (".m4s", Fault::Status(500, "InternalError"), 2),
        (".m4s", Fault::Status(503, "SlowDown"), 2),
        (".m4s", Fault::Status(403, "AccessDenied"), 1),
        (".m4s", Fault::Reset, 2),
        (".m4s", Fault::LoseAnswer, 2),
        (".m4s", Fault::Hang, 1),
        (".m4s", Fault::Damage, 1),
        (".m4s", Fault::Truncate, 1),
        ("index.m3u8", Fault::LoseAnswer, 1),
        ("index.m3u8", Fault::Status(503, "SlowDown"), 1),
        ("recording.json", Fault::Late(Duration::from_millis(1500)), 1),
    ] {
        s3.fault("PUT", path, fault, times);
    }
    let server = serve(&s3, &folders, &more).await;
    let cameras: Vec<Camera> = (0..2).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, "bad", &cameras, 0..33).await;
    server.drained("bad").await;
    bot.close().await;
    let spooled = media(&folders.spool().join("bad"));
    let manifest = server.finish("bad").await;
    assert_eq!(s3.faults_left(), 0, "everything went wrong that was to");
    check_stored(&s3, &manifest, &spooled);
    let metrics = server.metrics().await;
    assert!(metrics.get("tilecast_store_throttled_total") >= 1.0);
    assert!(metrics.get("tilecast_puts_failed_total") >= 10.0);
    assert_eq!(metrics.get("tilecast_objects_damaged_total"), 2.0, "one by its tag, one by its size");
    let events = std::fs::read_to_string(s3.bucket().join("recordings/bad/events.jsonl")).unwrap();
    assert_eq!(events.matches("object_damaged").count(), 2, "{events}");
    assert!(poller.versions().await >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_with_a_death_in_it_costs_nothing() {
    for hangs in [false, true] {
        let (mut s3, folders) = (S3::start().await, Folders::new());
        let more = ["--store-timeout", "1s", "--store-playlist-every", "100ms"];
        let poller = Poller::start(s3.bucket().join("recordings/out"));
        let mut server = serve(&s3, &folders, &more).await;
        let cameras: Vec<Camera> = (0..2).map(|n| Camera::new(n, Kind::Webcam)).collect();
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, "out", &cameras, 0..13).await;
        let stored = s3.bucket().join("recordings/out");
        until("the store has the first segments", || async { (media(&stored).len() >= 6).then_some(()) }).await;
        match hangs {
            false => s3.go_away().await,
            true => s3.fault("PUT", "", Fault::Hang, usize::MAX),
        }
        send(&mut bot, "out", &cameras, 13..25).await;
        server.drained("out").await;
        until("the outage is told", || async {
            let old = server.metrics().await.get("tilecast_upload_age_seconds") > 0.5;
            (old && server.recording("out").await["now"]["last_error"].is_string()).then_some(())
        })
        .await;
        server.kill().await;
        // It starts, and goes on, without the store.
        let mut server = serve(&s3, &folders, &more).await;
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, "out", &cameras, 25..41).await;
        server.drained("out").await;
        let spooled = media(&folders.spool().join("out"));
        let before = media(&stored);
        assert!(before.len() < spooled.len(), "the store was away");
        match hangs {
            false => s3.come_back().await,
            true => s3.heal(),
        }
        let manifest = server.finish("out").await;
        assert_eq!(manifest.state, State::Finished);
        check_stored(&s3, &manifest, &spooled);
        assert!(poller.versions().await >= 2);
        // The end was told after the store had all of it, and a start finds nothing left to do.
        assert!(server.terminate().await.success());
    }
}

/// Two pictures of noise: 230,400 samples that no encoder makes small.
fn noise() -> [String; 2] {
    let mut state = 0x9e37_79b9_u32;
    let mut picture = || {
        let byte = |_: u32, _: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            image::Luma([(state >> 8) as u8])
        };
        let mut png = std::io::Cursor::new(Vec::new());
        image::GrayImage::from_fn(640, 360, byte).write_to(&mut png, image::ImageFormat::Png).unwrap();
        base64(&png.into_inner())
    };
    [picture(), picture()]
}

/// A meeting whose MP4 has more than 5 MiB.
pub async fn noisy(server: &Server, recording: &str) {
    let mut bot = Bot::connect(&server.ws()).await;
    let noise = noise();
    for tick in 0..61 {
        bot.send_picture(recording, 100, Kind::Webcam, at(tick), &noise[tick as usize % 2]).await;
    }
    bot.taken().await;
    server.drained(recording).await;
    bot.close().await;
}

/// The process dies while an MP4 is on its way in parts: the next one goes on with the same upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_parts_goes_on_after_a_death() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let more = ["--store-timeout", "20s", "--store-part", "5MiB", "--quality", "10", "--qpmin", "5"];
    let mut server = serve(&s3, &folders, &more).await;
    noisy(&server, "parts").await;
    let spooled = media(&folders.spool().join("parts"));
    s3.fault("POST", "video.mp4?uploads", Fault::Status(500, "InternalError"), 1);
    s3.fault("PUT", "partNumber=1&", Fault::LoseAnswer, 1);
    s3.fault("PUT", "partNumber=2&", Fault::Hang, 1);
    assert_eq!(server.post("/api/v1/recordings/parts/finish").await.status, 202);
    until("the second part hangs", || async { (s3.faults_left() == 0).then_some(()) }).await;
    until("the others are there", || async {
        let requests = server.metrics().await.labelled("tilecast_store_requests_total");
        (requests[r#"operation="put_part""#] >= 3.0).then_some(())
    })
    .await;
    assert_eq!(s3.open_uploads().len(), 1);
    server.kill().await;
    // Completed, and nobody hears of it.
    s3.fault("POST", "video.mp4?uploadId", Fault::LoseAnswer, 1);
    let server = serve(&s3, &folders, &more).await;
    until("it is finished", || async { (server.manifest("parts").await.state == State::Finished).then_some(()) }).await;
    check_stored(&s3, &server.manifest("parts").await, &spooled);
    assert_eq!(s3.faults_left(), 0);
    let requests = server.metrics().await.labelled("tilecast_store_requests_total");
    assert_eq!(requests.get(r#"operation="create_multipart""#), None, "no second upload was begun: {requests:?}");
}

/// Runs `tilecast check`; gives its exit code and what it printed.
async fn check(s3: &S3, folders: &Folders) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tilecast"));
    command.arg("check").args(["--store", &s3.url(), "--store-timeout", "2s", "--spool"]).arg(folders.spool());
    command.env_clear().envs(s3.variables()).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_proves_a_configuration() {
    let (mut s3, folders) = (S3::start().await, Folders::new());
    let (code, said) = check(&s3, &folders).await;
    assert_eq!(code, Some(0), "{said}");
    for line in ["ok   spool ", "ok   encoder superfast", "ok   store s3://media/recordings: delete"] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line} in\n{said}");
    }
    assert!(said.contains("AWS_SECRET_ACCESS_KEY") && !said.contains("= secret"), "{said}");
    assert_eq!(files(&s3.bucket()).len(), 0, "the probe is gone");
    for (method, path, needs) in [
        ("PUT", "_check", "s3:PutObject"),
        ("GET", "_check", "s3:GetObject"),
        ("GET", "list-type", "s3:ListBucket"),
        ("POST", "?uploads", "s3:AbortMultipartUpload"),
        ("POST", "?delete", "s3:DeleteObject"),
    ] {
        s3.fault(method, path, Fault::Status(403, "AccessDenied"), 1);
        let (code, said) = check(&s3, &folders).await;
        assert!(code == Some(1) && said.contains("FAIL") && said.contains(needs), "{method}: {said}");
        s3.heal();
    }
    s3.go_away().await;
    let (code, said) = check(&s3, &folders).await;
    assert!(code == Some(1) && said.contains("FAIL store"), "{said}");
}
