//! A track whose first picture comes three hours into the recording: all that is before it is in its MP4, and costs no more
//! CPU and memory than nothing.

use tilecast::ffmpeg::PictureReader;
use tilecast::media::{GapReason, Kind, Tick};
use tilecast::pipeline::store::manifest::Gap;

use crate::bot::{Bot, Camera, at};
use crate::harness::Server;
use crate::playback::{assert_books, segments, track};

const THREE_HOURS: u32 = 3 * 3600 * 2;
const TICKS: u32 = 24;

/// What the process did so far, in counts: units encoded, parts appended, captures decoded.
async fn work(server: &Server) -> [f64; 3] {
    let metrics = server.metrics().await;
    ["encode", "append", "decode"]
        .map(|stage| metrics.get(&format!("tilecast_stage_duration_seconds_count{{stage=\"{stage}\"}}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hours_before_the_first_picture_cost_nothing() {
    let server = Server::start(&["--segment", "2s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    let (mut counts, mut peaks, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (recording, first) in [("warm-up", 0), ("at-once", 0), ("late", THREE_HOURS)] {
        let before = work(&server).await;
        let mut bot = Bot::connect(&server.ws()).await;
        for n in 0..TICKS {
            bot.send_picture(recording, 100, Kind::Webcam, at(first + n), &camera.base64(n)).await;
        }
        bot.close().await;
        let manifest = server.finish(recording).await;
        assert_books(&manifest);
        let after = work(&server).await;
        counts.push([0, 1, 2].map(|n| after[n] - before[n]));
        peaks.push(server.memory_peak());
        let [mp4] = &track(&manifest, "100-webcam").mp4[..] else { panic!("one MP4") };
        assert_eq!(mp4.ticks, Tick::from(first + TICKS));
        sizes.push(mp4.bytes);

        let folder = server.folders.recording(recording).join("100-webcam");
        assert_eq!(segments(&folder).len(), TICKS as usize / 4, "no segment is before the first picture");
        let reader = PictureReader::open_strict(folder.join("video.mp4").to_str().unwrap()).unwrap();
        assert_eq!(reader.filter(Result::is_ok).count(), (first + TICKS) as usize);
        if first > 0 {
            let lane = track(&manifest, "100-webcam");
            let lead_in = Gap { from_tick: 0, to_tick: first.into(), reason: GapReason::NotJoined };
            assert_eq!((lane.gaps.as_slice(), lane.epochs.len()), (&[lead_in][..], 1));
            let ticks = std::fs::read_to_string(folder.join("ticks.jsonl")).unwrap();
            assert_eq!(ticks.lines().count(), TICKS as usize + 1, "the lead-in is one line");
        }
    }
    assert_eq!(counts[2], counts[1], "units encoded, parts appended, captures decoded");
    let grown = peaks[2] - peaks[1];
    assert!(grown < 8 << 20, "{grown} bytes more for the MP4 with the lead-in");
    // 21,600 units of a dozen bytes, their sizes, and an IDR a segment.
    let lead_in = sizes[2] - sizes[1];
    assert!(lead_in < 6 << 20, "{lead_in} bytes of lead-in");
}
