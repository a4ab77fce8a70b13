//! A start that would end badly is refused with a word about why, and one that is good does not depend on the log.

use std::time::Duration;

use tilecast::media::Kind;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, refused, until};

#[test]
fn a_start_that_would_end_badly_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(dir.path().join("read-only")).unwrap();
    std::fs::write(dir.path().join("file"), "\n \n").unwrap();
    let (same, inner, file) = (path("same"), path("same/inner"), path("file"));
    for (args, words) in [
        (["--store", &same, "--spool", &same], ["--spool", "one lies within the other"]),
        (["--store", &inner, "--spool", &same], ["--store", "one lies within the other"]),
        (["--store", &same, "--spool", &inner], ["--store", "one lies within the other"]),
        (["--store", &same, "--spool", &file], ["--spool", "cannot make the folder"]),
        (["--store", "/proc/self", "--spool", &same], ["--store /proc/self", "cannot write to it"]),
        (["--store", &same, "--spool", "/proc/self"], ["--spool /proc/self", "cannot write to it"]),
        (["--store", &same, "--ingest-token-file", &file], [&file, "holds no token"]),
        (["--store", &same, "--log-level", "blah"], ["--log-level \"blah\"", "warn"]),
        (["--store", &same, "--log-level", ""], ["--log-level", "info"]),
    ] {
        let (code, said) = refused(&args, &[]);
        assert_eq!(code, 2, "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_belongs_to_one_process() {
    let server = Server::start(&[]).await;
    let spool = server.folders.spool();
    let (code, said) =
        tokio::task::spawn_blocking(move || refused(&["--spool", spool.to_str().unwrap()], &[])).await.unwrap();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("another tilecast works on it"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_log_changes_nothing_else() {
    // Without the line that says so the harness does not see it get ready: a port of its own.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let quiet = tokio::task::spawn_blocking({
        let address = address.clone();
        move || refused_after(&["--log-level", "warn", "--listen", &address], Duration::from_secs(1))
    });
    until("it listens", || async { tokio::net::TcpStream::connect(&address).await.ok() }).await;
    assert_eq!(quiet.await.unwrap(), None, "it runs until it is told to stop");
}

/// The exit code of a server that ends by itself within this time.
fn refused_after(args: &[&str], time: Duration) -> Option<i32> {
    let folders = Folders::new();
    let mut child = crate::harness::command(&folders, args, &[]).spawn().unwrap();
    std::thread::sleep(time);
    let ended = child.try_wait().unwrap();
    let _ = child.kill();
    let _ = child.wait();
    ended.and_then(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_recordings_are_listed_after_a_restart() {
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &[], &[]).await;
    for id in ["first/one", "second"] {
        let mut bot = Bot::connect(&server.ws()).await;
        let camera = Camera::new(1, Kind::Webcam);
        for tick in 0..4 {
            bot.send_tick(id, 1, &camera, tick).await;
        }
        bot.close().await;
        server.finish(id).await;
    }
    server.terminate().await;
    std::fs::create_dir(folders.store().join("not-ours")).unwrap();
    let server = Server::start_in(&folders, &[], &[]).await;
    until("both are listed", || async {
        let listed = server.get("/api/v1/recordings?state=finished").await.json();
        let mut ids: Vec<&str> =
            listed["recordings"].as_array()?.iter().filter_map(|one| one["recording_id"].as_str()).collect();
        ids.sort_unstable();
        (ids == ["first/one", "second"]).then_some(())
    })
    .await;
    let wrong = server.get("/api/v1/recordings?state=bogus").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("suspended, finishing"), "{}", wrong.text());
}
