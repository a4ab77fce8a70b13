//! What came through a late join, gaps, a change of size, kill -9 and a second process plays everywhere: FFmpeg's own
//! tools have nothing to warn of, GStreamer counts every picture, Chromium seeks to each instant and plays to the end.

use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use image::ImageFormat;
use serde_json::{Value, json};
use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::Manifest;

use crate::bot::{Bot, at, base64};
use crate::browser::{Browser, Page};
use crate::harness::{Folders, Server};
use crate::pattern::{self, READER};
use crate::playback::{assert_books, ffmpeg_times, track};

const RECORDING: &str = "scenario";
const TRACK: &str = "100-webcam";
const FLAGS: [&str; 4] = ["--segment", "2s", "--live-fill", "5s"];
const PATIENCE: Duration = Duration::from_secs(40);
/// The MP4's length in ticks.
const END: u32 = 120;

/// Ticks with pictures: late, with a gap that is filled live, one that is left out, and one for the death of the server.
fn sent() -> impl Iterator<Item = u32> {
    (3..20).chain(26..40).chain(70..90).chain(100..END)
}

async fn send(bot: &mut Bot, ticks: std::ops::Range<u32>) {
    for tick in sent().filter(|tick| ticks.contains(tick)) {
        if [26, 70].contains(&tick) {
            let off = if tick == 26 { 20 } else { 40 };
            bot.send_event(RECORDING, 100, "webcam_off", at(off)).await;
        }
        // A window that is resized for a while, its aspect kept, so that the bits stay where they are.
        let (width, height) = if (75..85).contains(&tick) { (480, 270) } else { (320, 180) };
        let mut png = Cursor::new(Vec::new());
        pattern::draw(width, height, tick).write_to(&mut png, ImageFormat::Png).unwrap();
        bot.send_picture(RECORDING, 100, Kind::Webcam, at(tick), &base64(png.get_ref())).await;
    }
    bot.taken().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_through_everything_plays_everywhere() {
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, 0..90).await;
    server.drained(RECORDING).await;
    server.kill().await;
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, 90..END).await;
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    assert_books(&manifest);
    let lane = track(&manifest, TRACK);
    assert_eq!(lane.epochs.len(), 3, "one ended by the long gap, one by kill -9");
    let folder = folders.recording(RECORDING).join(TRACK);

    let listed =
        u32::try_from(crate::playback::segments(&folder).iter().map(|(_, line)| line.ticks).sum::<i64>()).unwrap();
    for (file, ticks) in [("video.mp4", END), ("index.m3u8", listed)] {
        assert_eq!(ffmpeg_times(&folder, file).len(), ticks as usize, "{file}");
    }
    let base = format!("http://{}/media/{RECORDING}/{TRACK}", server.public);
    gstreamer_counts(&format!("{base}/video.mp4"), &["qtdemux"], END);
    gstreamer_counts(&format!("{base}/index.m3u8"), &["hlsdemux", "!", "qtdemux"], listed);

    let browser = Browser::start().await;
    let mut page = browser.page().await;
    page.goto(&format!("http://{}/healthz", server.public)).await;
    mp4_plays_and_seeks(&mut page, &format!("{base}/video.mp4")).await;
}

/// The longest that is played at one go; longer videos are begun this far from their end.
const PLAYED_SECONDS: f64 = 60.0;

/// Bare video elements, one for each MP4 of a finished recording: each has its length, can be sought in, and plays to its end.
pub async fn chromium_plays(recording: &Path, manifest: &Manifest) {
    let tracks: Vec<_> = manifest.tracks.iter().filter(|track| !track.mp4.is_empty()).collect();
    let Some(first) = tracks.first() else { return };
    let length = first.mp4[0].ticks as f64 / f64::from(manifest.fps);
    let browser = Browser::start().await;
    let mut page = browser.page().await;
    // From a file on, files may be shown.
    page.goto(&format!("file://{}", recording.join("recording.json").display())).await;
    page.eval("window.videos = []; true").await;
    for track in &tracks {
        page.eval(&format!(
            "{{ const video = document.createElement('video'); video.muted = true; videos.push(video);
             video.src = 'file://{}'; document.body.append(video); }} true",
            recording.join(&track.track).join(&track.mp4[0].path).display()
        ))
        .await;
    }
    let all = |condition: &str| format!("videos.every(video => video.error || ({condition}))");
    page.wait_for(&all("video.readyState >= 2"), PATIENCE).await;
    let lengths: Vec<f64> = serde_json::from_value(page.eval("videos.map(video => video.duration)").await).unwrap();
    assert_eq!(lengths, vec![length; tracks.len()], "{}", recording.display());
    for place in [0.9, 0.1, 0.5] {
        page.eval(&format!("videos.forEach(video => video.currentTime = {}); true", length * place)).await;
        page.wait_for(&all("!video.seeking && video.readyState >= 2"), PATIENCE).await;
    }
    let begin = (length - PLAYED_SECONDS).max(0.0);
    page.eval(&format!(
        "videos.forEach(video => {{ video.currentTime = {begin}; video.playbackRate = 16; video.play(); }}); true"
    ))
    .await;
    page.wait_for(&all("video.ended"), PATIENCE).await;
    let errors = page.eval("videos.map(video => video.error && video.error.message)").await;
    assert_eq!(errors, json!(vec![Value::Null; tracks.len()]), "{}", recording.display());
}

/// Counts access units behind GStreamer's parser; its decoder of Debian drops some.
fn gstreamer_counts(url: &str, demuxer: &[&str], ticks: u32) {
    let output = Command::new("gst-launch-1.0")
        .args(["-v", "souphttpsrc", &format!("location={url}"), "!"])
        .args(demuxer)
        .args(["!", "h264parse", "!", "video/x-h264,stream-format=byte-stream,alignment=au", "!"])
        .args(["fakesink", "silent=false", "sync=false"])
        .output()
        .expect("gst-launch-1.0 is installed: make deps");
    let text = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !problems.contains("ERROR"), "{url}: {problems}");
    let units = text.lines().filter(|line| line.contains("last-message = chain")).count();
    assert_eq!(units, ticks as usize, "{url}");
}

/// A bare video element: every tick is found by seeking, and it plays to its end.
async fn mp4_plays_and_seeks(page: &mut Page, url: &str) {
    page.eval(READER).await;
    let start = format!(
        "window.video = document.createElement('video'); video.muted = true; video.src = '{url}';
         document.body.append(video); true"
    );
    page.eval(&start).await;
    page.wait_for("video.readyState >= 2", PATIENCE).await;
    assert_eq!(page.eval("video.duration").await, f64::from(END) / 2.0);
    // Back and forth, over lead-in, gaps and both ends.
    for tick in [3, 119, 39, 70, 19, 100, 26, 89, 80] {
        page.eval(&format!("video.currentTime = ({tick} + 0.5) / 2")).await;
        page.wait_for(&format!("!video.seeking && tickOf(video) === {tick}"), PATIENCE).await;
    }
    for tick in [1, 22, 50, 95] {
        page.eval(&format!("video.currentTime = ({tick} + 0.5) / 2")).await;
        // Black is no bit, and no white bar.
        page.wait_for("!video.seeking && tickOf(video) === 0 && barsOf(video)[0][0] < 20", PATIENCE).await;
    }
    page.eval("video.currentTime = 0; video.playbackRate = 8; video.play(); true").await;
    page.wait_for("video.ended", PATIENCE).await;
    assert_eq!(page.eval("video.error").await, Value::Null);
    assert_eq!(page.eval("tickOf(video)").await, END - 1);
}
