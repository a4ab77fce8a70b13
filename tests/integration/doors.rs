//! Bots at the door: signed upgrades, derived tokens, and secrets that are changed while the server runs.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tilecast::http::auth::signature::SigningKey;
use tilecast::media::Kind;

use crate::bot::{Bot, Camera, End};
use crate::harness::{Folders, Server, refused, until};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
const THEIR_SECRET: &str = "whsec_c29tZXRoaW5nIGVsc2UgZW50aXJlbHk=";
const KEY: &str = "a-key-of-the-test-and-long-enough";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// Dials with a signature made `age` seconds ago.
async fn dial(server: &Server, secret: &str, id: &str, age: i64) -> Result<Bot, u16> {
    let timestamp = (now() - age).to_string();
    let signature = SigningKey::new(secret, "").unwrap().sign(id, &timestamp, b"");
    let headers = [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
    Bot::dial_with(&server.ws(), &headers).await.map_err(|(status, _)| status)
}

async fn says(bot: &mut Bot, recording: &str, tick: u32) {
    bot.send_tick(recording, 100, &Camera::new(1, Kind::Webcam), tick).await;
}

fn nothing_new(why: &str) -> End {
    End::Close(1008, format!("{why}: this socket is for recordings that are here alone"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_opens_once_and_goes_on_for_ever() {
    let secrets = format!("{SECRET}, acme:{THEIR_SECRET}");
    let flags = ["--store-prefix", "{tenant}/{recording_id}"];
    let server = Server::start_in(&Folders::new(), &flags, &[("TILECAST_RECALL_SECRET", &secrets)]).await;
    // Nothing at all, another's secret, and what is stale while there is nothing to go on with.
    assert_eq!(Bot::dial(&server.ws()).await.err().map(|(status, _)| status), Some(401));
    let stranger = "whsec_bm90IHRoZWlycyBhdCBhbGw=";
    for (secret, age) in [(stranger, 0), (SECRET, 310), (SECRET, -310)] {
        assert_eq!(dial(&server, secret, "msg_0", age).await.err(), Some(401), "{secret} {age}");
    }

    // An id that has opened nothing yet is as good as new.
    dial(&server, SECRET, "msg_1", 0).await.unwrap().close().await;
    let mut bot = dial(&server, SECRET, "msg_1", 200).await.unwrap();
    says(&mut bot, "here", 0).await;
    says(&mut bot, "second of the same bot", 0).await;
    bot.close().await;

    // The same again, too old, and from the future: all go on, and open nothing.
    for (id, age, why) in
        [("msg_1", 0, "repeated_id"), ("msg_2", 310, "stale_signature"), ("msg_3", -310, "stale_signature")]
    {
        let mut bot = dial(&server, SECRET, id, age).await.unwrap();
        says(&mut bot, "here", 1).await;
        bot.taken().await;
        says(&mut bot, "new", 0).await;
        assert_eq!(bot.ended().await, nothing_new(why));
    }
    // Of that tenant there is nothing to go on with, whatever others have.
    assert_eq!(dial(&server, THEIR_SECRET, "msg_4", 310).await.err(), Some(401));
    let mut theirs = dial(&server, THEIR_SECRET, "msg_4", 0).await.unwrap();
    says(&mut theirs, "theirs", 0).await;
    theirs.close().await;

    assert_eq!(server.get("/api/v1/recordings/new").await.status, 404);
    assert_eq!(server.manifest("here").await.tracks[0].ledger.received, 4);
    assert_eq!(server.manifest("acme:theirs").await.tenant.as_deref(), Some("acme"));
    let metrics = server.metrics().await;
    let limited = metrics.labelled("tilecast_sockets_limited_total");
    let counts = [("reason=\"repeated_id\"", 1.0), ("reason=\"stale_signature\"", 2.0)];
    assert_eq!(limited, counts.map(|(reason, count)| (reason.to_owned(), count)).into());
    assert_eq!(metrics.get("tilecast_sockets_refused_total{reason=\"stale_signature\"}"), 2.0);
    assert_eq!(metrics.get("tilecast_sockets_refused_total{reason=\"unauthorized\"}"), 5.0);
    let log = server.log().join("\n");
    for why in ["no_token_and_no_signature", "wrong_signature", "stale_signature"] {
        assert!(log.contains(&format!("\"reason\":\"{why}\"")), "the first, second and fourth refusal are told: {log}");
    }
    assert!(!log.contains("MDEyMzQ1") && !log.contains("v1,"), "neither secret nor signature is logged: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_server_takes_no_signature_twice() {
    let variables = [("TILECAST_RECALL_SECRET", SECRET)];
    let server = Server::start_in(&Folders::new(), &["--refuse-replay"], &variables).await;
    let mut bot = dial(&server, SECRET, "msg_1", 0).await.unwrap();
    says(&mut bot, "here", 0).await;
    bot.close().await;
    for (id, age) in [("msg_1", 0), ("msg_2", 310), ("msg_3", -310)] {
        assert_eq!(dial(&server, SECRET, id, age).await.err(), Some(401), "{id}");
    }
    dial(&server, SECRET, "msg_4", 290).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_has_opened_a_recording_opens_none_after_a_restart() {
    let (folders, variables) = (Folders::new(), [("TILECAST_RECALL_SECRET", SECRET)]);
    let mut server = Server::start_in(&folders, &[], &variables).await;
    let mut bot = dial(&server, SECRET, "msg_1", 0).await.unwrap();
    says(&mut bot, "here", 0).await;
    bot.taken().await;
    // Of this one nothing is said yet: it may still be what its bot redials with.
    dial(&server, SECRET, "msg_2", 0).await.unwrap().close().await;
    until("it is on disk", || async { folders.spool().join(".spent-ids").exists().then_some(()) }).await;
    server.kill().await;
    let server = Server::start_in(&folders, &[], &variables).await;
    let mut again = dial(&server, SECRET, "msg_1", 0).await.unwrap();
    says(&mut again, "here", 1).await;
    again.taken().await;
    says(&mut again, "new", 0).await;
    assert_eq!(again.ended().await, nothing_new("repeated_id"));
    let mut other = dial(&server, SECRET, "msg_2", 0).await.unwrap();
    says(&mut other, "another", 0).await;
    other.close().await;
    assert_eq!(server.get("/api/v1/recordings/new").await.status, 404);
    assert_eq!(server.manifest("another").await.tracks.len(), 1);
    until("the other one is on disk as well, neither by its name", || async {
        let kept = std::fs::read_to_string(folders.spool().join(".spent-ids")).unwrap();
        (kept.lines().count() == 2 && !kept.contains("msg_")).then_some(())
    })
    .await;
}

/// What `tilecast bot token` prints.
fn token(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    let output = command.args(["bot", "token"]).args(args).env("TILECAST_INGEST_KEY", KEY).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_derived_token_says_whose_the_bot_is_and_until_when() {
    let variables = [("TILECAST_INGEST_KEY", KEY)];
    let server = Server::start_in(&Folders::new(), &[], &variables).await;
    let url = |token: &str| format!("{}?token={token}", server.ws());
    let status = |dialed: Result<Bot, (u16, String)>| dialed.err().map(|(status, _)| status);
    let (ours, expired) = (token(&["--tenant", "acme"]), token(&["--tenant", "acme", "--ttl", "0"]));
    assert_eq!(status(Bot::dial(&url(&expired)).await), Some(401), "there is nothing to go on with");
    assert_eq!(status(Bot::dial(&url(&ours.replace(".acme.", ".umbrella."))).await), Some(401));
    assert_eq!(status(Bot::dial(&url(KEY)).await), Some(401));

    let mut bot = Bot::connect(&url(&ours)).await;
    says(&mut bot, "here", 0).await;
    bot.close().await;
    assert_eq!(server.manifest("acme:here").await.tenant.as_deref(), Some("acme"));
    let mut late = Bot::connect(&url(&expired)).await;
    says(&mut late, "here", 1).await;
    late.taken().await;
    says(&mut late, "new", 0).await;
    assert_eq!(late.ended().await, nothing_new("expired_token"));
    assert_eq!(server.manifest("acme:here").await.tracks[0].ledger.received, 2);
    let log = server.log().join("\n");
    assert!(!log.contains("tc1.") && !log.contains(KEY), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_changed_by_their_files_while_the_server_runs() {
    let folders = Folders::new();
    let file = folders.store().with_file_name("tokens");
    std::fs::write(&file, "old-token\n").unwrap();
    let args = ["--ingest-token-file", file.to_str().unwrap()];
    let server = Server::start_in(&folders, &args, &[]).await;
    let opens = async |token: &str| Bot::dial(&format!("{}?token={token}", server.ws())).await.is_ok();
    assert!(opens("old-token").await && !opens("new-token").await);
    std::fs::write(&file, "old-token\nnew-token\n").unwrap();
    until("the new token opens", || async { opens("new-token").await.then_some(()) }).await;
    assert!(opens("old-token").await, "both do while they are changed");
    std::fs::write(&file, "new-token\n").unwrap();
    until("the old token is out", || async { (!opens("old-token").await).then_some(()) }).await;
    // A slip of the hand opens no door, and closes none.
    std::fs::write(&file, "").unwrap();
    until("it is told", || async { server.log_line("secrets could not be read again") }).await;
    assert!(opens("new-token").await && !opens("").await);
    let log = server.log().join("\n");
    assert!(!log.contains("new-token") && !log.contains("old-token"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_secrets_that_the_next_start_would_refuse_change_nothing() {
    let folders = Folders::new();
    let file = folders.store().with_file_name("tokens");
    std::fs::write(&file, "acme:first\n").unwrap();
    let args = ["--ingest-token-file", file.to_str().unwrap(), "--store-prefix", "meetings/{recording_id}"];
    let server = Server::start_in(&folders, &args, &[]).await;
    let opens = async |token: &str| Bot::dial(&format!("{}?token={token}", server.ws())).await.is_ok();
    std::fs::write(&file, "acme:second\numbrella:third\n").unwrap();
    until("it is told, with the way out", || async {
        server
            .log()
            .iter()
            .any(|line| line.contains("could not be read again") && line.contains("it must hold {tenant}"))
            .then_some(())
    })
    .await;
    assert!(opens("first").await && !opens("second").await && !opens("third").await);
    std::fs::write(&file, "acme:second\n").unwrap();
    until("what is good again is taken", || async { opens("second").await.then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_bot_without_a_good_token_ends_at_once() {
    let variables = [("TILECAST_INGEST_TOKEN", "good")];
    let server = Server::start_in(&Folders::new(), &[], &variables).await;
    let url = format!("{}?token=wrong", server.ws());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    command.args(["simulate", "--url", &url, "--size", "160x96", "--duration", "1s", "--bots", "2"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let lines = |word: &str| said.lines().filter(|line| line.contains(word)).count();
    assert_eq!(lines("-0: refused: HTTP 401") + lines("-1: refused: HTTP 401"), 1, "the first alone: {said}");
    assert!(said.contains("the server answers 401: give an ingest token"), "{said}");
    let refused = server.metrics().await.get("tilecast_sockets_refused_total{reason=\"unauthorized\"}");
    assert_eq!(refused, 2.0, "each dials once");
}

#[test]
fn a_secret_that_cannot_be_one_is_refused_without_being_told() {
    for (name, value) in [
        ("TILECAST_RECALL_SECRET", "hush-hush"),
        ("TILECAST_RECALL_SECRET", "whsec_hush!hush"),
        ("TILECAST_INGEST_KEY", "hush"),
        ("TILECAST_GRANT_KEY", "hush"),
        ("TILECAST_GRANT_KEY", "a key that is long enough,hush"),
        ("TILECAST_INGEST_TOKEN", "no tenant:hush"),
    ] {
        let (code, said) = refused(&[], &[(name, value)]);
        assert!(code == 2 && said.contains(name) && !said.contains("hush"), "{said}");
    }
}
