//! Two tenants' bots send the same recording id: neither ever reaches the other's recording, in the store, the spool or the
//! API. And the folders that an operator words.

use tilecast::media::Kind;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, refused, until};
use crate::restarts::send;

const RECORDING: &str = "same-id";
const TOKENS: (&str, &str) = ("TILECAST_INGEST_TOKEN", "acme:alpha-1,umbrella:beta-2");
const FLAGS: [&str; 4] = ["--segment", "2s", "--store-prefix", "day={date}/{tenant}"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_of_two_tenants_is_two_recordings() {
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[TOKENS]).await;
    let tenants = [("acme", "alpha-1", 1, 8), ("umbrella", "beta-2", 2, 6)];
    for (_, token, number, ticks) in tenants {
        let mut bot = Bot::connect(&format!("{}?token={token}", server.ws())).await;
        send(&mut bot, RECORDING, &[Camera::new(number, Kind::Webcam)], 0..ticks).await;
        bot.close().await;
    }
    assert_eq!(server.get(&format!("/api/v1/recordings/{RECORDING}")).await.status, 404, "it is of no tenant");
    for life in 0..2 {
        for (tenant, _, _, ticks) in tenants {
            let address = format!("{tenant}:{RECORDING}");
            let manifest = server.finish(&address).await;
            assert_eq!(manifest.tenant.as_deref(), Some(tenant));
            assert_eq!(manifest.tracks[0].ledger.encoded, u64::from(ticks), "{tenant}, life {life}");
            let prefix = manifest.prefix.clone().unwrap();
            assert_eq!(prefix, format!("day=2026-01-01/{tenant}/{RECORDING}"));
            let path = format!("/media/{tenant}%3A{RECORDING}/100-webcam/video.mp4");
            let answer = server.get(&path).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == std::fs::read(folders.store().join(&prefix).join("100-webcam/video.mp4")).unwrap());
        }
        let foreign =
            [format!("other:{RECORDING}"), format!("acme%2F{RECORDING}"), format!("acme:..%2Fumbrella%2F{RECORDING}")];
        for address in foreign {
            assert_eq!(server.get(&format!("/api/v1/recordings/{address}")).await.status, 404, "{address}");
            assert_eq!(server.get(&format!("/media/{address}/100-webcam/video.mp4")).await.status, 404, "{address}");
        }
        // And by a process that knows nothing, with another wording: they lie where they lay.
        assert_eq!(server.terminate().await.code(), Some(0));
        std::fs::remove_dir_all(folders.spool()).unwrap();
        server = Server::start_in(&folders, &["--store-prefix", "{tenant}"], &[TOKENS]).await;
    }
    let listed = until("both are listed", || async {
        let list = server.get("/api/v1/recordings").await.json();
        let of = |entry: &serde_json::Value| entry["address"].as_str().unwrap().to_owned();
        let mut listed: Vec<String> = list["recordings"].as_array().unwrap().iter().map(of).collect();
        listed.sort();
        (listed.len() == 2).then_some(listed)
    })
    .await;
    assert_eq!(listed, ["acme:same-id", "umbrella:same-id"]);
    // What still comes for one goes on from that one.
    let mut bot = Bot::connect(&format!("{}?token=beta-2", server.ws())).await;
    send(&mut bot, RECORDING, &[Camera::new(2, Kind::Webcam)], 6..12).await;
    let manifest = server.finish("umbrella:same-id~2").await;
    assert_eq!(manifest.continues.as_deref(), Some(RECORDING));
    let stored = files(&folders.store());
    assert_eq!(stored.keys().filter(|key| key.ends_with("recording.json")).count(), 3);
    assert!(stored.contains_key("umbrella/same-id~2/recording.json"));
}

#[test]
fn folders_that_would_mix_tenants_or_lead_elsewhere_are_refused() {
    for (args, tokens, word) in [
        (["--store-prefix", "{date}"], "acme:a,umbrella:b", "{tenant}"),
        (["--store-prefix", "{recording_id}"], "acme:a,b", "{tenant}"),
        (["--store-prefix", "../x"], "acme:a", "tilecast's own"),
        (["--store-prefix", "{colour}"], "acme:a", "{colour}"),
    ] {
        let (code, said) = refused(&args, &[("TILECAST_INGEST_TOKEN", tokens)]);
        assert!(code == 2 && said.contains(word), "{args:?}: {said}");
    }
}
