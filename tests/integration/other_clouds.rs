//! Google's and Azure's stores, by stand-ins on real sockets: a meeting with an MP4 of several parts ends up there with its
//! types, is found, checked and played by a process that has nothing else, and is deleted.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use tilecast::pipeline::store::keys::hex;
use tilecast::pipeline::store::manifest::Manifest;

use crate::azure::Azure;
use crate::harness::{Folders, Server, files, until};
use crate::s3::S3;
use crate::store_faults::noisy;

type Variables = Vec<(&'static str, String)>;

async fn serve(url: &str, variables: &Variables, folders: &Folders) -> Server {
    let args = ["--store", url, "--segment", "2s", "--store-part", "5MiB", "--quality", "10", "--qpmin", "5"];
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Server::start_in(folders, &args, &variables).await
}

/// A subcommand on the store's address; gives its exit code and what it said.
async fn run(url: &str, variables: &Variables, args: &[&str]) -> (Option<i32>, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "URL" { url } else { arg }).collect();
    process.args(args).env_clear().envs(variables.clone()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

/// `objects`: what the store has, by key, with the SHA-256 of each.
async fn meets(url: &str, variables: Variables, objects: impl Fn() -> BTreeMap<String, String>) -> Manifest {
    let folders = Folders::new();
    let (code, said) =
        run(url, &variables, &["check", "--store", "URL", "--spool", folders.spool().to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(objects().is_empty(), "the probe is gone");
    let mut server = serve(url, &variables, &folders).await;
    noisy(&server, "there").await;
    let manifest = server.finish("there").await;
    let mp4 = &manifest.tracks[0].mp4[0];
    assert!(mp4.bytes > 5 << 20, "in several parts");
    assert_eq!(objects().get("recordings/there/100-webcam/video.mp4"), Some(&mp4.sha256));
    let (code, said) = run(url, &variables, &["verify", "URL", "--no-decode"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(server.terminate().await.code(), Some(0));
    // A process that has the store alone.
    std::fs::remove_dir_all(folders.spool()).unwrap();
    let server = serve(url, &variables, &folders).await;
    until("it is listed", || async {
        let list = server.get("/api/v1/recordings").await.json();
        (list["recordings"][0]["recording_id"] == "there").then_some(())
    })
    .await;
    let part = server.get_with("/media/there/100-webcam/video.mp4", &[("range", "bytes=4-7")]).await;
    assert_eq!((part.status, &*part.body), (206, &b"ftyp"[..]));
    assert_eq!(server.delete("/api/v1/recordings/there").await.status, 202);
    until("it is gone", || async {
        let left: Vec<String> = objects().into_keys().collect();
        (left == ["recordings/_ended/_/there.json", "recordings/there/deleted.json"]).then_some(())
    })
    .await;
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_ends_up_in_azure() {
    let azure = Azure::start().await;
    let types = std::sync::Mutex::new(BTreeMap::new());
    let objects = || {
        let blobs = azure.blobs();
        let said =
            blobs.iter().map(|(name, blob)| (name.clone(), (blob.content_type.clone(), blob.cache_control.clone())));
        types.lock().unwrap().extend(said);
        blobs.into_iter().map(|(name, blob)| (name, hex(&Sha256::digest(&blob.bytes)))).collect()
    };
    meets(&azure.url(), azure.variables(), objects).await;
    assert_eq!(azure.open_blocks(), 0);
    let types = types.into_inner().unwrap();
    for (name, media_type, caching) in [
        ("recording.json", "application/json", "no-cache"),
        ("100-webcam/index.m3u8", "application/vnd.apple.mpegurl", "no-cache"),
        ("100-webcam/video.mp4", "video/mp4", "no-cache"),
    ] {
        let said = types.get(&format!("recordings/there/{name}")).map(|(kind, caching)| (&**kind, &**caching));
        assert_eq!(said, Some((media_type, caching)), "{name}");
    }
}

/// Google's XML interface is S3's but for its headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_ends_up_in_googles_store() {
    let s3 = S3::start_open().await;
    // A key whose owner needs no token, as emulators have them.
    let key = serde_json::json!({
        "gcs_base_url": format!("http://{}", s3.address), "disable_oauth": true, "client_email": "", "private_key": "",
        "private_key_id": "",
    });
    let variables = vec![("GOOGLE_SERVICE_ACCOUNT_KEY", key.to_string())];
    let objects = || {
        let found = files(&s3.bucket()).into_iter();
        found.filter_map(|(name, path)| Some((name, hex(&Sha256::digest(std::fs::read(path).ok()?))))).collect()
    };
    meets("gs://media/recordings", variables, objects).await;
    assert_eq!(s3.open_uploads(), Vec::<String>::new());
}
