//! A cloud's store after the meeting: recordings are listed and played when the spool is gone, checked and repaired where
//! they lie, taken up again by a process that has nothing else, and deleted without a trace.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::State;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, until};
use crate::restarts::send;
use crate::s3::{Fault, S3};
use crate::store_faults::{check_stored, hashes, media, noisy, serve};

const NAME: &str = "Participant 100";

/// A meeting of two with names, some of it in the store.
async fn meeting(server: &Server, s3: &S3, recording: &str) -> Bot {
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event(recording, 100, "join", 0.0).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    send(&mut bot, recording, &cameras, 0..15).await;
    server.drained(recording).await;
    let stored = s3.bucket().join("recordings").join(recording);
    until("some of it is in the store", || async { (media(&stored).len() >= 8).then_some(()) }).await;
    bot
}

/// The files below these folders that have this text.
fn grep(folders: &[&Path], text: &str) -> Vec<String> {
    let all = folders.iter().flat_map(|folder| files(folder));
    let has = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    all.filter(|(_, path)| has(path)).map(|(name, _)| name).collect()
}

/// What the store and the spool hold, beside what the server keeps for itself.
fn left(s3: &S3, folders: &Folders) -> BTreeSet<String> {
    let own = [".lock", ".grant-key"];
    let spooled = files(&folders.spool()).into_keys().filter(|name| !own.contains(&&**name));
    files(&s3.bucket()).into_keys().chain(spooled).collect()
}

/// `tilecast verify` or `repair` on the store's address, with `--json` where that is known.
pub async fn run(s3: &S3, command: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    process.arg(command).arg(s3.url()).args(more).env_clear().envs(s3.variables()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_recording_leaves_nothing_in_a_bucket() {
    for (recording, live, kill) in [("live", true, false), ("done", false, false), ("killed", true, true)] {
        let (s3, folders) = (S3::start().await, Folders::new());
        let mut server = serve(&s3, &folders, &[]).await;
        let bot = meeting(&server, &s3, recording).await;
        if !live {
            server.finish(recording).await;
        }
        let both = [s3.root(), folders.spool()];
        let both = [&*both[0], &*both[1]];
        assert!(!grep(&both, NAME).is_empty(), "the name is what is looked for");
        assert_eq!(server.delete(&format!("/api/v1/recordings/{recording}")).await.status, 202);
        if kill {
            server.kill().await;
            server = serve(&s3, &folders, &[]).await;
        }
        let wanted: BTreeSet<String> =
            [format!("recordings/_ended/_/{recording}.json"), format!("recordings/{recording}/deleted.json")].into();
        until("nothing is left but that it was deleted", || async { (left(&s3, &folders) == wanted).then_some(()) })
            .await;
        assert_eq!(grep(&both, NAME), Vec::<String>::new());
        assert_eq!(s3.open_uploads(), Vec::<String>::new());
        assert_eq!(server.get(&format!("/api/v1/recordings/{recording}")).await.status, 404);
        drop(bot);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_track_leaves_nothing_but_its_books_in_a_bucket() {
    for live in [true, false] {
        let (s3, folders) = (S3::start().await, Folders::new());
        let server = serve(&s3, &folders, &[]).await;
        let bot = meeting(&server, &s3, "less").await;
        if !live {
            server.finish("less").await;
        }
        assert_eq!(server.delete("/api/v1/recordings/less/tracks/100-webcam").await.status, 202);
        let both = [s3.root(), folders.spool()];
        let both = [&*both[0], &*both[1]];
        until("nothing is left of it", || async {
            let of_track =
                left(&s3, &folders).into_iter().any(|name| name.contains("100-webcam") || name.contains(".erasing"));
            (!of_track && grep(&both, NAME).is_empty()).then_some(())
        })
        .await;
        bot.close().await;
        let manifest = server.finish("less").await;
        assert_eq!((manifest.tracks.len(), &*manifest.deleted[0].track), (1, "100-webcam"));
        assert!(!grep(&both, "Participant 101").is_empty(), "the other one stays");
        let (code, said) = run(&s3, "verify", &[]).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

/// An MP4 is on its way in parts when its recording, or its track, is deleted: the store keeps no part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_under_way_is_aborted_in_the_store() {
    for (what, kill) in [("", false), ("/tracks/100-webcam", false), ("", true)] {
        let (s3, folders) = (S3::start().await, Folders::new());
        let more = ["--store-timeout", "20s", "--store-part", "5MiB", "--quality", "10", "--qpmin", "5"];
        let mut server = serve(&s3, &folders, &more).await;
        noisy(&server, "parts").await;
        s3.fault("PUT", "partNumber=2&", Fault::Hang, 1);
        assert_eq!(server.post("/api/v1/recordings/parts/finish").await.status, 202);
        until("the second part hangs", || async { (s3.faults_left() == 0).then_some(()) }).await;
        assert_eq!(s3.open_uploads().len(), 1);
        let path = format!("/api/v1/recordings/parts{what}");
        if kill {
            server.kill().await;
            server = serve(&s3, &folders, &more).await;
        }
        assert_eq!(server.delete(&path).await.status, 202);
        until("it is aborted and gone", || async {
            let left =
                left(&s3, &folders).into_iter().any(|name| name.contains("100-webcam") || name.contains(".erasing"));
            (!left && s3.open_uploads().is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_finished_is_listed_and_played_by_a_process_with_an_empty_spool() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let mut server = serve(&s3, &folders, &[]).await;
    meeting(&server, &s3, "kept").await.close().await;
    let manifest = server.finish("kept").await;
    assert_eq!(server.terminate().await.code(), Some(0));
    std::fs::remove_dir_all(folders.spool()).unwrap();

    let server = serve(&s3, &folders, &[]).await;
    let listed = until("it is listed", || async {
        let list = server.get("/api/v1/recordings?state=finished").await.json();
        Some(list["recordings"].clone()).filter(|list| list != &serde_json::json!([]))
    })
    .await;
    assert_eq!((&listed[0]["recording_id"], &listed[0]["tracks"]), (&"kept".into(), &2.into()));
    assert_eq!(server.manifest("kept").await, manifest);
    let stored = std::fs::read(s3.bucket().join("recordings/kept/100-webcam/video.mp4")).unwrap();
    let video = "/media/kept/100-webcam/video.mp4";
    let whole = server.get(video).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, "video/mp4"));
    assert!(whole.body == stored);
    for (range, from, to) in [("bytes=5-99", 5, 100), ("bytes=-7", stored.len() - 7, stored.len())] {
        let part = server.get_with(video, &[("range", range)]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{}", to - 1, stored.len()));
        assert!(part.body == stored[from..to], "{range}");
    }
    let beyond = server.get_with(video, &[("range", "bytes=99999999-")]).await;
    assert_eq!(beyond.status, 416);
    let playlist = server.get("/media/kept/101-webcam/index.m3u8").await;
    assert!(playlist.text().ends_with("#EXT-X-ENDLIST\n"), "{}", playlist.text());
    let segment = playlist.text().lines().find(|line| line.ends_with(".m4s")).unwrap();
    let segment = server.get(&format!("/media/kept/101-webcam/{segment}")).await;
    assert_eq!((segment.status, segment.header("cache-control")), (200, "max-age=31536000, immutable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_repair_work_where_the_recording_lies() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let server = serve(&s3, &folders, &[]).await;
    meeting(&server, &s3, "checked").await.close().await;
    server.finish("checked").await;
    let recording = s3.bucket().join("recordings/checked");
    let before = hashes(&recording);
    let (code, said) = run(&s3, "verify", &[]).await;
    assert!(code == Some(0) && said.contains("all is well"), "{said}");
    // What can be made again is lost and damaged.
    std::fs::remove_file(recording.join("100-webcam/index.m3u8")).unwrap();
    let video = recording.join("101-webcam/video.mp4");
    let bytes = std::fs::read(&video).unwrap();
    std::fs::write(&video, &bytes[..bytes.len() / 2]).unwrap();
    let (code, said) = run(&s3, "verify", &[]).await;
    assert!(code == Some(1) && said.contains("index.m3u8") && said.contains("video.mp4"), "{said}");
    let (code, said) = run(&s3, "repair", &[]).await;
    assert!(code == Some(0) && said.contains("put into the store"), "{said}");
    let (code, said) = run(&s3, "verify", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let after = hashes(&recording);
    let names = |hashes: &std::collections::BTreeMap<String, String>| hashes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    for name in ["100-webcam/index.m3u8", "101-webcam/video.mp4"] {
        assert_eq!(after[name], before[name], "{name}: as it was");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_not_ended_is_taken_up_from_the_bucket_alone() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let more = ["--store-playlist-every", "100ms"];
    let mut server = serve(&s3, &folders, &more).await;
    let bot = meeting(&server, &s3, "on").await;
    let stored = s3.bucket().join("recordings/on");
    until("lists and playlists tell of it", || async {
        let told = ["100-webcam", "101-webcam"].iter().all(|track| {
            let text = std::fs::read_to_string(stored.join(track).join("index.m3u8")).unwrap_or_default();
            text.matches(".m4s").count() >= 3
        });
        (told && stored.join("recording.json").exists()).then_some(())
    })
    .await;
    server.kill().await;
    drop(bot);
    std::fs::remove_dir_all(folders.spool()).unwrap();
    let server = serve(&s3, &folders, &more).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    send(&mut bot, "on", &cameras, 24..33).await;
    assert!(server.log_line("took a recording up from the store alone").is_some());
    server.drained("on").await;
    bot.close().await;
    let spooled = media(&folders.spool().join("on"));
    let manifest = server.finish("on").await;
    assert_eq!((manifest.state, manifest.tracks[0].epochs.len()), (State::Finished, 2));
    assert!(manifest.tracks.iter().all(|track| track.ledger.encoded >= 12 + 9), "{manifest:?}");
    check_stored(&s3, &manifest, &spooled);
    let (code, said) = run(&s3, "verify", &[]).await;
    assert_eq!(code, Some(0), "{said}");
}
