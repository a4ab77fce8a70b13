//! `tilecast bot` against a stand-in for Recall's API that checks each request by the published shape.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tilecast::http::auth::tokens::IngestTokens;

use crate::bot::BOT_ID;

const KEY: &str = "a key of the test and long enough";
const API_KEY: &str = "recall-api-key-4711";

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, Value)>>>);

async fn recall() -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        if headers["authorization"] != format!("Token {API_KEY}") {
            return (StatusCode::UNAUTHORIZED, json!({ "code": "not_authenticated" }).to_string());
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        seen.0.lock().unwrap().push((format!("{method} {uri}"), body));
        match (method.as_str(), uri.path().trim_end_matches(BOT_ID)) {
            ("POST", "/api/v1/bot/") => (StatusCode::CREATED, json!({ "id": BOT_ID }).to_string()),
            _ if uri.path().ends_with("/leave_call/") => (StatusCode::OK, String::new()),
            _ if uri.path().ends_with("/of-nothing/") => (StatusCode::OK, "{}".to_owned()),
            _ => {
                let bot = json!({ "status_changes": [{ "code": "in_call_recording" }], "recordings": [{ "id": "r",
                    "status": { "code": "processing" }, "realtime_endpoints":
                    [{ "url": "wss://host/ws/recall/k/?token=t", "status": { "code": "failed" } }] }] });
                (StatusCode::OK, bot.to_string())
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (address, asked)
}

async fn bot(address: SocketAddr, key: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    command.arg("bot").args(args).env("TILECAST_INGEST_KEY", KEY).env("TILECAST_RECALL_API_KEY", key);
    command.env("TILECAST_RECALL_URL", format!("http://{address}/"));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

const CREATE: [&str; 9] = [
    "create",
    "--meeting-url",
    "https://meet.example/abc",
    "--public-url",
    "https://tiles.example/",
    "--tenant",
    "acme",
    "--metadata",
    "team=blue",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_is_created_by_the_published_request() {
    let (address, asked) = recall().await;
    let created = bot(address, API_KEY, &CREATE).await;
    let said = String::from_utf8(created.stdout).unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    assert!(said.contains(&format!("bot {BOT_ID}\nwatch https://tiles.example/\n")), "{said}");
    let (route, body) = asked.0.lock().unwrap()[0].clone();
    assert_eq!((route.as_str(), &body["meeting_url"]), ("POST /api/v1/bot/", &"https://meet.example/abc".into()));
    assert_eq!(body["metadata"], json!({ "team": "blue" }));
    let core = "web_4_core";
    assert_eq!(body["variant"], json!({ "zoom": core, "google_meet": core, "microsoft_teams": core }));
    let config = &body["recording_config"];
    assert_eq!((&config["video_mixed_layout"], &config["video_separate_png"]), (&"gallery_view_v2".into(), &json!({})));
    assert!(config.get("retention").is_none());
    let endpoint = &config["realtime_endpoints"][0];
    assert_eq!((&endpoint["type"], &endpoint["events"][0]), (&"websocket".into(), &"video_separate_png.data".into()));
    assert_eq!(endpoint["events"].as_array().unwrap().len(), 8);
    // The slash stands before the query, and the token opens our door for that tenant.
    let url = endpoint["url"].as_str().unwrap();
    let (path, token) = url.split_once("/?token=").unwrap();
    assert!(path.starts_with("wss://tiles.example/ws/recall/bot-"), "{url}");
    let bearer = IngestTokens::new(&[], &[KEY.to_owned()]).unwrap().whose(token).unwrap();
    assert_eq!(bearer.tenant.as_deref(), Some("acme"));

    let dry =
        bot(address, API_KEY, &[&CREATE[..], &["--dry-run", "--zero-retention", "--variant", "none"]].concat()).await;
    let said = String::from_utf8(dry.stdout).unwrap();
    let (line, body) = said.split_once('\n').unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(line, format!("POST http://{address}/api/v1/bot/"));
    assert!(body["recording_config"].get("retention").is_some_and(Value::is_null) && body.get("variant").is_none());
    assert!(!said.contains(API_KEY));
    assert_eq!(asked.0.lock().unwrap().len(), 1, "nothing was sent");

    let refused = bot(address, "wrong", &CREATE).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("answers 401") && !said.contains("wrong"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_endpoint_is_told_and_a_bot_leaves() {
    let (address, asked) = recall().await;
    let status = bot(address, API_KEY, &["status", BOT_ID]).await;
    let said = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(1), "{said}");
    assert!(said.contains("endpoint wss://host/ws/recall/k/: failed") && !said.contains("token"), "{said}");
    assert!(bot(address, API_KEY, &["leave", BOT_ID]).await.status.success());
    let routes: Vec<String> = asked.0.lock().unwrap().iter().map(|(route, _)| route.clone()).collect();
    assert_eq!(routes, [format!("GET /api/v1/bot/{BOT_ID}/"), format!("POST /api/v1/bot/{BOT_ID}/leave_call/")]);
    assert_eq!(bot(address, API_KEY, &["leave", "../bot"]).await.status.code(), Some(2));
    let nothing = bot(address, API_KEY, &["status", "of-nothing"]).await;
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(nothing.status.code() == Some(2) && said.contains("tells nothing of bot of-nothing"), "{said}");
}

/// `bot create --dry-run`: the token in the address that the bot would dial, or what was said instead, and all of stderr.
fn token_of(args: &[&str], variables: &[(&str, &str)]) -> (Result<String, Option<i32>>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    command.args(["bot", "create", "--dry-run", "--meeting-url", "https://meet.example/abc"]).args(args);
    if !args.contains(&"--public-url") {
        command.args(["--public-url", "https://tiles.example"]);
    }
    let output = command.env_clear().envs(variables.iter().copied()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    if !output.status.success() {
        return (Err(output.status.code()), errors);
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let body: Value = serde_json::from_str(said.split_once('\n').unwrap().1).unwrap();
    let url = body["recording_config"]["realtime_endpoints"][0]["url"].as_str().unwrap();
    let query = reqwest::Url::parse(url).unwrap();
    let pairs: Vec<_> = query.query_pairs().collect();
    assert!(pairs.len() == 1 && pairs[0].0 == "token" && query.fragment().is_none(), "{url}");
    (Ok(pairs[0].1.clone().into_owned()), errors)
}

#[test]
fn a_listed_token_stands_in_where_there_is_no_key_and_only_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "acme:of acme & co#1%20\nour+own\n").unwrap();
    let file = file.to_str().unwrap();
    let listed = [("TILECAST_INGEST_TOKEN", "acme:a,b")];
    for (args, variables, token) in [
        (&[][..], &listed[..], "b"),
        (&["--tenant", "acme"], &listed, "a"),
        (&["--tenant", "acme", "--ingest-token-file", file], &[], "of acme & co#1%20"),
        (&[], &[("TILECAST_INGEST_TOKEN_FILE", file)], "our+own"),
    ] {
        let (found, said) = token_of(args, variables);
        assert_eq!(found.as_deref(), Ok(token), "{args:?}: {said}");
        assert!(said.contains("does not expire") && said.contains("TILECAST_INGEST_KEY"), "{said}");
        assert!(!said.contains("acme"), "{said}");
    }
    let (derived, said) = token_of(&[], &[listed[0], ("TILECAST_INGEST_KEY", KEY)]);
    assert!(derived.is_ok_and(|token| token.starts_with("tc1.")) && said.is_empty(), "{said}");
    let with = |name, value| [listed[0], (name, value)];
    for (args, variables, word) in [
        (&[][..], &with("TILECAST_INGEST_KEY", "short")[..], "16 bytes"),
        (&[], &with("TILECAST_INGEST_KEY_FILE", "/nowhere/key"), "/nowhere/key"),
        (&["--tenant", "other"], &listed, "nor is a token listed"),
        (&["--tenant", "a b"], &listed, "--tenant"),
        (&["--ingest-token-file", "/nowhere/tokens"], &listed, "/nowhere/tokens"),
        (&["--public-url", "wss://tiles.example/ws/recall/"], &listed, "leave out /ws/recall"),
        (&["--public-url", "wss://tiles.example/ws/recall/key/"], &listed, "leave out /ws/recall"),
    ] {
        let (refused, said) = token_of(args, variables);
        assert!(refused == Err(Some(2)) && said.contains(word), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_servers_a_meeting_has_one() {
    let (address, _) = recall().await;
    let server = async |meeting: &str, servers: &str| {
        let args = ["create", "--meeting-url", meeting, "--public-url", servers, "--tenant", "acme", "--dry-run"];
        let output = bot(address, API_KEY, &args).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        match output.status.success() {
            true => Ok(said.split_once("wss://").unwrap().1.split('/').next().unwrap().to_owned()),
            false => Err(said),
        }
    };
    let servers = "wss://tilecast-0.example,https://tilecast-1.example/, wss://tilecast-2.example";
    let mut picked = std::collections::BTreeSet::new();
    for n in 0..12 {
        let meeting = format!("https://meet.example/{n}");
        let host = server(&meeting, servers).await.unwrap();
        assert_eq!(server(&meeting, servers).await.as_ref(), Ok(&host), "the bots of a meeting meet");
        picked.insert(host);
    }
    assert_eq!(picked.into_iter().collect::<Vec<_>>(), [0, 1, 2].map(|n| format!("tilecast-{n}.example")));
    // One that cannot be is told, whichever the meeting would pick.
    assert!(server("https://meet.example/0", "wss://a.example,ftp://b.example").await.unwrap_err().contains("ftp://b"));
}
