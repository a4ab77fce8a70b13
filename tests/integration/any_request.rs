//! Requests of every shape that the description of the API allows, and of shapes that it does not: schemathesis makes them
//! up, sends them to a running server, and holds each answer to the description.
//!
//! `TILECAST_API_SEED=n` makes up others, `TILECAST_API_EXAMPLES=n` more of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tilecast::media::Kind;

use crate::access::{ADMIN, READER, bearer, grant, send};
use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, until};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
/// So many for each operation and phase are some 2,300 requests.
const EXAMPLES: &str = "135";
const CASES_MIN: u32 = 2_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// Where `make python` installs it.
fn tool() -> PathBuf {
    std::env::var_os("SCHEMATHESIS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/schemathesis"), PathBuf::from)
}

/// Runs the tool to its end; gives whether all was well, and what it said.
async fn run(mut command: Command, said: &Path) -> (bool, String) {
    let file = std::fs::File::create(said).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{}: {error}; `make python` installs it, SCHEMATHESIS names another one", tool().display())
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it does not end: {}", std::fs::read_to_string(said).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    (status.success(), std::fs::read_to_string(said).unwrap())
}

/// How many requests it made up, by its own words.
fn cases(said: &str) -> u32 {
    let line = said.lines().find_map(|line| line.trim().split_once(" generated")).expect("a line with the cases");
    line.0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_an_answer_that_is_not_described() {
    let tokens = format!("{ADMIN}, read:{READER}");
    let variables =
        [("TILECAST_API_TOKEN", &*tokens), ("TILECAST_RECALL_SECRET", SECRET), ("TILECAST_INGEST_TOKEN", "t")];
    let folders = Folders::new();
    let server = Server::start_in(&folders, &["--segment", "2s", "--reconnect-grace", "1h"], &variables).await;
    let mut bot = Bot::connect(&format!("{}?token=t", server.ws())).await;
    // Those that the description names as its examples, and a few more for what follows from the list.
    for recording in ["meeting", "unwanted", "odd / ü", "more", "over"] {
        for tick in 0..8 {
            bot.send_tick(recording, 100, &Camera::new(1, Kind::Webcam), tick).await;
        }
    }
    bot.taken().await;
    send(server.public, "POST", "/api/v1/recordings/over/finish", &[bearer(ADMIN)], b"").await;
    until("one is finished", || async {
        let told = send(server.public, "GET", "/api/v1/recordings/over", &[bearer(READER)], b"").await;
        (told.json()["state"] == "finished").then_some(())
    })
    .await;
    let granted = grant(&server, &json!({})).await.json();

    let scratch = tempfile::tempdir().unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let choice = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut command = Command::new(tool());
    command
        .arg("--config-file")
        .arg(ours.join("schemathesis.toml"))
        .args(["run", &format!("http://{}/api/v1/openapi.json", server.public)])
        .args(["--header", &format!("Authorization: Bearer {ADMIN}"), "--checks", "all", "--no-color"])
        .args(["--seed", &choice("TILECAST_API_SEED", "1"), "--generation-database", "none"])
        .args(["--max-examples", &choice("TILECAST_API_EXAMPLES", EXAMPLES), "--continue-on-failure"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &ours)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TILECAST_RECALL_SECRET", SECRET)
        .env("GRANT", granted["grant"].as_str().unwrap())
        // It is this machine that is asked.
        .env("NO_PROXY", "*")
        .current_dir(scratch.path());
    let (passed, said) = run(command, &scratch.path().join("said.txt")).await;
    eprintln!("{said}");
    assert!(passed, "{said}");
    let cases = cases(&said);
    assert!(cases >= CASES_MIN || std::env::var_os("TILECAST_API_EXAMPLES").is_some(), "{cases}");
    assert_eq!(server.get("/healthz").await.status, 200);
    let log = server.log().join("\n");
    assert!(!log.contains("panicked") && !log.contains(ADMIN), "{log}");
    bot.close().await;
}
