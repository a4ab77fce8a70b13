//! The page in a real browser: it shows the recordings, plays every track from its first segment on, in step, in the
//! right colours.

use std::io::Cursor;
use std::time::Duration;

use image::ImageFormat;
use tilecast::http::web;
use tilecast::media::{GapReason, Kind};
use tilecast::pipeline::store::manifest::{Gap, State};

use crate::bot::{Bot, at, base64};
use crate::browser::{Browser, Page};
use crate::fake::{FakeRecording, FakeServer, FakeTrack};
use crate::harness::{Server, until};
use crate::pattern::{self, READER, assert_bars};
use crate::playback::assert_books;

const PATIENCE: Duration = Duration::from_secs(40);

fn five_tracks() -> Vec<FakeTrack> {
    let gap = Gap { from_tick: 24, to_tick: 36, reason: GapReason::CameraOff };
    vec![
        FakeTrack::webcam("100", "Ana", 0, 240),
        FakeTrack::webcam("200", "Ben", 0, 240),
        FakeTrack { gaps: vec![gap], ..FakeTrack::webcam("300", "Chloé", 0, 240) },
        FakeTrack::webcam("16778240", "Participant who came late", 12, 240),
        FakeTrack { kind: Kind::Screenshare, ..FakeTrack::webcam("200", "Ben", 8, 240) },
    ]
}

/// The page at `base_url` shows a live recording with these tracks, made of [`crate::pattern`] pictures with their ticks,
/// 2 a second. `first` begins with the recording.
pub async fn page_shows_and_moves(page: &mut Page, base_url: &str, tracks: &[String], first: &str) {
    page.goto(base_url).await;
    page.eval(READER).await;
    for track in tracks {
        page.wait_for(&format!("document.querySelector('{}')", tile(track)), PATIENCE).await;
    }
    let first = tile(first);
    let video = format!("document.querySelector('{first} video')");
    page.wait_for(&format!("tickOf({video}) !== null && {video}.played.length"), PATIENCE).await;
    let start = page.eval(&format!("{video}.played.start(0)")).await.as_f64().unwrap();
    // Tiles are kept in step, so one may be moved before it plays; its first picture, half a second long, is still shown.
    assert!(start < 0.5, "{first} plays from its first picture on, not from {start}");

    let bars = page.eval(&format!("barsOf({video})")).await;
    assert_bars(&serde_json::from_value::<Vec<[u8; 3]>>(bars).unwrap(), "canvas");
    let before = page.eval(&format!("tickOf({video})")).await;
    page.wait_for(&format!("tickOf({video}) > {before} + 2"), PATIENCE).await;
    assert_bars(&bars_on_screen(page, &video).await, "screenshot");

    // Every track that has a picture at this moment shows the same tick, and it is the one that the slider names.
    let covered = "document.querySelectorAll('.cover:not([hidden])').length === 0";
    page.wait_for(covered, PATIENCE).await;
    let in_step = "(() => {
        const ticks = [...document.querySelectorAll('.tile video')].map(tickOf);
        const slider = document.querySelector('input[type=range]').value * 2;
        return ticks.every((tick) => tick !== null && Math.abs(tick + 0.5 - slider) <= 1) && ticks.length;
    })()";
    let seen = page.wait_for(in_step, PATIENCE).await;
    assert_eq!(seen, tracks.len());

    page.eval("document.querySelector('.golive').click()").await;
    let at_edge = "document.querySelector('.golive').textContent === 'Live'";
    page.wait_for(&format!("{at_edge} && {in_step}"), PATIENCE).await;
}

fn tile(track: &str) -> String {
    format!("[data-track=\"{track}\"]")
}

/// The bars as a screenshot has them: scaled, composed, in the colours of the screen.
async fn bars_on_screen(page: &mut Page, video: &str) -> Vec<[u8; 3]> {
    let js = format!("{video}.scrollIntoView({{block: 'center'}}); {video}.getBoundingClientRect().toJSON()");
    let place = page.eval(&js).await;
    let side = |name: &str| place[name].as_f64().unwrap();
    let shot = page.screenshot().await;
    let pixel = |n: usize| {
        let x = side("x") + side("width") * (n as f64 + 0.5) / 8.0;
        let [red, green, blue, _] = shot.get_pixel(x as u32, (side("y") + side("height") * 0.6) as u32).0;
        [red, green, blue]
    };
    (0..8).map(pixel).collect()
}

/// Complaints other than of hls.js being left out of the build.
fn real_complaints(page: &Page) -> Vec<&String> {
    page.complaints.iter().filter(|text| web::has_player() || !text.contains("hls.min.js")).collect()
}

/// Participant, kind and first tick of the tracks of a real meeting.
const MEETING: [(i64, Kind, u32); 4] =
    [(100, Kind::Webcam, 0), (200, Kind::Webcam, 0), (300, Kind::Webcam, 13), (200, Kind::Screenshare, 8)];
/// Ticks that are sent at once; those after them come when they are due.
const HEAD_START: u32 = 40;

/// Sends the pattern's pictures of [`MEETING`] for as long as it is let.
async fn hold_meeting(mut bot: Bot, recording: &str) {
    let mut due = tokio::time::interval(Duration::from_millis(500));
    for tick in 0.. {
        if tick >= HEAD_START {
            due.tick().await;
        }
        let mut png = Cursor::new(Vec::new());
        pattern::draw(640, 360, tick).write_to(&mut png, ImageFormat::Png).unwrap();
        let buffer = base64(png.get_ref());
        for (participant, kind, _) in MEETING.into_iter().filter(|(_, _, first)| *first <= tick) {
            bot.send_picture(recording, participant, kind, at(tick), &buffer).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_is_watched_while_it_goes_on_and_after() {
    let server = Server::start(&["--segment", "2s", "--part", "1s"]).await;
    let names: Vec<String> = MEETING.iter().map(|(participant, kind, _)| format!("{participant}-{kind}")).collect();
    let meeting = tokio::spawn(hold_meeting(Bot::connect(&server.ws()).await, "meeting"));
    let folder = server.folders.recording("meeting");
    until("every track has a playlist", || async {
        names.iter().all(|name| folder.join(name).join("index.m3u8").exists()).then_some(())
    })
    .await;
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    let url = format!("http://{}/", server.public);
    page_shows_and_moves(&mut page, &url, &names, &names[0]).await;
    assert!(real_complaints(&page).is_empty(), "{:#?}", page.complaints);

    meeting.abort();
    let _ = meeting.await;
    let manifest = server.finish("meeting").await;
    page.goto(&format!("{url}?recording=meeting")).await;
    page.eval(READER).await;
    page.wait_for("document.querySelectorAll('.files a').length === 4", PATIENCE).await;
    seek_shows(&mut page, &names[0], 5).await;
    covered_by(&mut page, &names[2], "Not here yet").await;
    seek_shows(&mut page, &names[2], 13).await;
    seek_shows(&mut page, &names[3], HEAD_START + 3).await;
    assert!(real_complaints(&page).is_empty(), "{:#?}", page.complaints);
    assert_books(&manifest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_recording_plays_in_step_from_its_first_segment_on() {
    let tracks = five_tracks();
    let names: Vec<String> = tracks.iter().map(FakeTrack::folder).collect();
    let recording = FakeRecording { id: "live-1", life: State::Live, tracks };
    let server = FakeServer::start(vec![recording], 40).await;
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page_shows_and_moves(&mut page, &server.url, &names, &names[0]).await;
    assert!(real_complaints(&page).is_empty(), "{:#?}", page.complaints);
}

/// Pauses, moves the slider, and waits until the tile of `track` shows the picture of that moment.
async fn seek_shows(page: &mut Page, track: &str, tick: u32) {
    let js = format!(
        "(() => {{
            const slider = document.querySelector('input[type=range]');
            if (document.querySelector('.play').textContent === 'Pause') document.querySelector('.play').click();
            slider.value = {tick} / 2;
            slider.dispatchEvent(new Event('input'));
        }})()"
    );
    page.eval(&js).await;
    let shown = format!(
        "document.querySelector('{0} .cover').hidden && tickOf(document.querySelector('{0} video')) === {tick}",
        tile(track)
    );
    page.wait_for(&shown, PATIENCE).await;
}

/// What lies over the picture of a track, once it says so.
async fn covered_by(page: &mut Page, track: &str, text: &str) {
    let js = format!("document.querySelector('{} .cover:not([hidden])')?.textContent === '{text}'", tile(track));
    page.wait_for(&js, PATIENCE).await;
}

fn finished() -> FakeRecording {
    let tracks = vec![
        FakeTrack::webcam("100", "Ana", 0, 60),
        FakeTrack { name: None, ..FakeTrack::webcam("200", "", 12, 40) },
        FakeTrack { hole: Some((20, 36)), ..FakeTrack::webcam("300", "Chloé", 8, 60) },
    ];
    FakeRecording { id: "done-1", life: State::Finished, tracks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_recording_is_sought_on_one_time_line() {
    let live = FakeRecording { id: "live-1", life: State::Live, tracks: vec![FakeTrack::webcam("1", "Dora", 0, 40)] };
    let server = FakeServer::start(vec![live, finished()], 8).await;
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.goto(&format!("{}?recording=done-1", server.url)).await;
    page.eval(READER).await;
    page.wait_for("document.querySelectorAll('.files a').length === 3", PATIENCE).await;
    let links = page.eval("[...document.querySelectorAll('.files a')].map((a) => new URL(a.href).pathname)").await;
    assert_eq!(links[1], "/media/done-1/200-webcam/video.mp4");
    let names = page.eval("[...document.querySelectorAll('.tile h3')].map((h3) => h3.textContent)").await;
    assert_eq!(names, serde_json::json!(["Ana", "Participant 200", "Chloé"]));

    seek_shows(&mut page, "100-webcam", 5).await;
    covered_by(&mut page, "200-webcam", "Not here yet").await;
    seek_shows(&mut page, "200-webcam", 12).await;
    seek_shows(&mut page, "300-webcam", 19).await;
    seek_shows(&mut page, "200-webcam", 25).await;
    covered_by(&mut page, "300-webcam", "Server was not running").await;
    // Behind the discontinuity the player's own time line has lost the hole; the picture is the right one all the same.
    seek_shows(&mut page, "300-webcam", 37).await;
    seek_shows(&mut page, "300-webcam", 55).await;
    covered_by(&mut page, "200-webcam", "No more pictures").await;
    seek_shows(&mut page, "100-webcam", 59).await;

    // Play goes to the end, and stops there by itself.
    page.eval("document.querySelector('.play').click()").await;
    page.wait_for("document.querySelector('.play').textContent === 'Play'", PATIENCE).await;
    assert!(real_complaints(&page).is_empty(), "{:#?}", page.complaints);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_hls_js_the_browser_plays_what_it_can() {
    let live = FakeRecording { id: "live-1", life: State::Live, tracks: five_tracks() };
    let server = FakeServer::start(vec![live, finished()], 40).await;
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.command("Network.enable", serde_json::json!({})).await;
    page.command("Network.setBlockedURLs", serde_json::json!({ "urls": ["*hls.min.js*"] })).await;
    page.goto(&format!("{}?recording=done-1", server.url)).await;
    page.eval(READER).await;
    assert_eq!(page.eval("typeof Hls").await, "undefined");
    page.wait_for("document.querySelectorAll('.files a').length === 3", PATIENCE).await;
    seek_shows(&mut page, "100-webcam", 5).await;

    let names: Vec<String> = five_tracks().iter().map(FakeTrack::folder).collect();
    page_shows_and_moves(&mut page, &server.url, &names, &names[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_server_is_opened_with_its_token() {
    let server = FakeServer::start(vec![finished()], 0).await;
    server.lock();
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.goto(&server.url).await;
    page.wait_for("!document.getElementById('locked').hidden", PATIENCE).await;
    let enter = "token.value = 'sesame'; document.querySelector('#locked button').click()";
    page.eval(enter).await;
    page.wait_for("document.querySelectorAll('.tile').length === 3", PATIENCE).await;
    // Without hls.js there is no way to send a token with media.
    if web::has_player() {
        page.eval(READER).await;
        page.wait_for("tickOf(document.querySelector('video')) > 1", PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_show_and_a_failing_server_are_said_in_words() {
    let server = FakeServer::start(Vec::new(), 0).await;
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.goto(&server.url).await;
    page.wait_for("!document.getElementById('empty').hidden", PATIENCE).await;
    let text = page.eval("document.body.innerText").await;
    let address = format!("{}ws/recall/", server.url.replace("http:", "ws:"));
    assert!(text.as_str().unwrap().contains(&address), "{text}");
    let background = "getComputedStyle(document.body).backgroundColor";
    page.colour_scheme("light").await;
    let light = page.eval(background).await;
    page.colour_scheme("dark").await;
    assert_ne!(page.eval(background).await, light);
    page.goto(&format!("{}?recording=none", server.url)).await;
    page.wait_for("document.querySelector('main .notice')?.textContent.includes('no recording none')", PATIENCE).await;
    server.fail();
    page.goto(&server.url).await;
    page.wait_for("document.getElementById('problem').textContent.includes('the index cannot be read')", PATIENCE)
        .await;
}
