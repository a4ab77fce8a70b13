//! A start that would end badly is refused with a word about why, and one that is good does not depend on the log.

use std::process::{Command, Stdio};
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

/// The program by itself; gives its exit code and what it printed.
fn tilecast(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// The same with `check`, on folders of its own.
fn check(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let folders = Folders::new();
    let (store, spool) = (folders.store(), folders.spool());
    let ours = ["check", "--store", store.to_str().unwrap(), "--spool", spool.to_str().unwrap()];
    tilecast(&[&ours, args].concat(), variables)
}

#[test]
fn what_serve_refuses_check_refuses() {
    let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    let nowhere = ["--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"];
    for (args, variables, word) in [
        (&["--store-prefix", "{recording_id}"][..], &[("TILECAST_INGEST_TOKEN", "acme:a,b")][..], "{tenant}"),
        (&["--store-prefix", "../x"], &[], "tilecast's own"),
        (&nowhere, &[], "--tls-cert /nowhere/cert.pem"),
        (&["--webhook-url", "ftp://x"], &[("TILECAST_WEBHOOK_SECRET", secret)], "--webhook-url: write https"),
        (&["--webhook-url", "https://x.example"], &[], "TILECAST_WEBHOOK_SECRET"),
        (&[], &[("TILECAST_INGEST_KEY", "short")], "TILECAST_INGEST_KEY"),
        (&[], &[("TILECAST_GRANT_KEY", "short")], "TILECAST_GRANT_KEY"),
        (&["--listen", "0.0.0.0:0"], &[], "without credentials for bots"),
        (&["--log-level", "blah"], &[], "--log-level"),
    ] {
        let (code, said) = refused(args, variables);
        assert!(code == 2 && said.contains(word), "serve {args:?}: {said}");
        let (code, said) = check(args, variables);
        let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("FAIL")).collect();
        assert!(code == Some(1) && failed.len() == 1 && failed[0].contains(word), "check {args:?}: {said}");
    }
    let good = [("TILECAST_INGEST_TOKEN", "a,b"), ("TILECAST_INGEST_KEY", "a key that is long enough")];
    let (code, said) = check(&[], &good);
    let line = "ok   credentials of bots: ingest tokens 2, keys of derived tokens 1, secrets of Recall 0\n";
    assert!(code == Some(0) && said.contains(line), "{said}");
    assert!(check(&[], &[]).1.contains("ok   credentials of bots: none, this machine alone is let in\n"));
}

#[test]
fn the_help_does_not_tell_where_events_go() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tilecast.toml");
    std::fs::write(&file, "webhook-url = \"https://hooks.example/hush\"\n").unwrap();
    for (args, variables) in [
        (&["serve", "--help"][..], &[("TILECAST_WEBHOOK_URL", "https://hooks.example/hush")][..]),
        (&["serve", "--config", file.to_str().unwrap(), "--help"], &[]),
    ] {
        let (code, said) = tilecast(args, variables);
        assert!(code == Some(0) && said.contains("--webhook-url") && !said.contains("hush"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_asks_where_the_file_says_that_the_server_listens() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tilecast.toml");
    std::fs::write(&file, format!("internal-listen = \"{}\"\nfps = 4\n", server.internal)).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        [
            tilecast(&["health", "--config", &file], &[]).0,
            tilecast(&["health"], &[("TILECAST_CONFIG", &file)]).0,
            // What is given beats the file; nobody listens there.
            tilecast(&["health", "--config", &file, "--internal-listen", "127.0.0.1:1"], &[]).0,
            tilecast(&["health", "--config", "/nowhere.toml"], &[]).0,
        ]
    });
    assert_eq!(asked.await.unwrap(), [Some(0), Some(0), Some(1), Some(2)]);
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
