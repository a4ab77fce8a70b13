//! With `--store-redirect` segments and MP4s of what is ended come from the store itself, by addresses that open one object
//! for a while; all else goes through the server, and so does everything without the option.

use serde_json::json;
use tilecast::media::Kind;

use crate::access::{ADMIN, READER, bearer, finish, grant, send};
use crate::bot::{Bot, Camera};
use crate::harness::{Answer, Folders, Server, refused, request, until};
use crate::s3::S3;

async fn serve(s3: &S3, args: &[&str]) -> Server {
    let tokens = format!("{ADMIN}, read:{READER}");
    let ours = s3.variables();
    let mut variables: Vec<(&str, &str)> = ours.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("TILECAST_API_TOKEN", &tokens));
    let url = s3.url();
    Server::start_in(&Folders::new(), &[&["--store", &url, "--segment", "2s"], args].concat(), &variables).await
}

/// The path and query of an address of the store.
fn below<'a>(s3: &S3, location: &'a str) -> &'a str {
    location.strip_prefix(&format!("http://{}", s3.address)).unwrap_or_else(|| panic!("of the store: {location}"))
}

async fn get(server: &Server, method: &str, path: &str) -> Answer {
    send(server.public, method, path, &[bearer(READER)], b"").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_and_ended_comes_from_the_store_itself() {
    let s3 = S3::start().await;
    let server = serve(&s3, &["--store-redirect", "60s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..12 {
        bot.send_tick("meeting", 100, &Camera::new(1, Kind::Webcam), tick).await;
    }
    let playlist = "/media/meeting/100-webcam/index.m3u8";
    let named = until("two segments are there", || async {
        let text = get(&server, "GET", playlist).await.text().to_owned();
        let named: Vec<String> = text.lines().filter(|line| line.ends_with(".m4s")).map(str::to_owned).collect();
        (named.len() >= 2).then_some(named)
    })
    .await;
    let segment = format!("/media/meeting/100-webcam/{}", named[0]);
    let live = get(&server, "GET", &segment).await;
    assert_eq!((live.status, live.header("location")), (200, ""), "while it is live it is ours to give");
    bot.close().await;
    finish(&server).await;

    let track = s3.bucket().join("recordings/meeting/100-webcam");
    let video = "/media/meeting/100-webcam/video.mp4";
    for (path, file) in [(video, "video.mp4"), (segment.as_str(), named[0].as_str())] {
        let told = get(&server, "GET", path).await;
        assert_eq!((told.status, told.header("cache-control")), (307, "no-store"), "{}", told.text());
        assert_eq!((told.header("referrer-policy"), told.body.len()), ("no-referrer", 0));
        let there = below(&s3, told.header("location")).to_owned();
        let bytes = std::fs::read(track.join(file)).unwrap();
        // Whoever has the address needs nothing else, and may ask for a range.
        let whole = request(s3.address, "GET", &there, &[]).await;
        assert!(whole.status == 200 && whole.body == bytes, "{file}: {}", whole.status);
        let range = request(s3.address, "GET", &there, &[("Range", "bytes=4-7")]).await;
        assert!(range.status == 206 && range.body == bytes[4..8], "{file}: {}", range.status);
        // It opens that object, and for reading.
        let other = there.replacen("100-webcam", "200-webcam", 1);
        for (method, address) in [("GET", &*other), ("GET", there.split('?').next().unwrap()), ("DELETE", &*there)] {
            assert_eq!(request(s3.address, method, address, &[]).await.status, 403, "{method} {address}");
        }
        let head = get(&server, "HEAD", path).await;
        assert_eq!(request(s3.address, "HEAD", below(&s3, head.header("location")), &[]).await.status, 200);
    }
    // Whose address is good for a grant, any site's pages may follow.
    let granted = grant(&server, &json!({})).await.json();
    let playing = granted["tracks"][0]["playlist"].as_str().unwrap().replace("index.m3u8", "video.mp4");
    let told = server.get(&playing).await;
    assert_eq!((told.status, told.header("access-control-allow-origin")), (307, "*"));
    // What is small, and what changes, is given here; and nobody is sent anywhere without a token.
    let text = get(&server, "GET", playlist).await;
    let init = text.text().split("URI=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for path in [playlist, "/media/meeting/recording.json", &format!("/media/meeting/100-webcam/{init}")] {
        assert_eq!(get(&server, "GET", path).await.status, 200, "{path}");
    }
    let stranger = server.get(video).await;
    assert_eq!((stranger.status, stranger.header("location")), (401, ""));
    let log = server.log().join("\n");
    assert!(!log.contains("X-Amz-Signature"), "{log}");
    drop(server);

    let server = serve(&s3, &[]).await;
    let passed_on = get(&server, "GET", video).await;
    assert!(passed_on.status == 200 && passed_on.body == std::fs::read(track.join("video.mp4")).unwrap());
}

#[test]
fn an_address_is_signed_for_a_week_at_most() {
    for time in ["8d", "0", "500ms"] {
        let (code, said) = refused(&["--store-redirect", time], &[]);
        assert!(code == 2 && said.contains("1s to 7d"), "{time}: {said}");
    }
}
