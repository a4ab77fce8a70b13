//! Writes small valid inputs for each target: `seeds FOLDER` makes `FOLDER/message/picture` and so on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tilecast::ledger::Ledger;
use tilecast::media::{AccessUnit, GapReason, Grid, Kind, Micros};
use tilecast::pipeline::package::playlist::{Entry, Playlist};
use tilecast::pipeline::package::segmenter::Segmenter;
use tilecast::pipeline::store::journal::{EpochLine, KindRun, PartLine, Run, RunKind, SegmentLine};
use tilecast::pipeline::store::manifest::{
    EpochManifest, Gap, Manifest, Mp4Manifest, Overload, ParticipantManifest, State, TrackManifest,
};

const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };

const PICTURE: &str = r#"{"event":"video_separate_png.data","data":{"data":{"buffer":"iVBORw0K\/w==","timestamp":{"relative":12.5,"absolute":"2026-01-01T10:00:12.503+02:00"},"type":"webcam","participant":{"id":16778240,"name":"A","email":null,"is_host":true,"platform":"desktop"}},"realtime_endpoint":{"id":"e","metadata":{}},"video_separate":{"id":"v","metadata":{}},"recording":{"id":"r","metadata":{"a":[1,"b"]}},"bot":{"id":"b","metadata":{"c":null}}}}"#;
const EVENT: &str = r#"{"data":{"recording":{"id":"r"},"data":{"data":{"text":"x"},"timestamp":{"absolute":"2026-01-01 10:00:12","relative":1e1},"participant":{"id":"p"}}},"event":"participant_events.webcam_off"}"#;

/// A PNG of 3x3 pixels in a stored block: what a mutation changes are pixels, not Huffman codes.
fn png(color: u8, depth: u8, interlaced: bool, row: usize) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind, data].concat();
        let crc = crc32fast::hash(&body).to_be_bytes();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc].concat()
    };
    // Adam7 cuts 3x3 into passes 1, 4, 5, 6 and 7, of rows of 1, 1, 2, 1 and 3 pixels.
    let pixels: Vec<u8> = if interlaced { vec![0; 6 * (1 + row)] } else { (0..3 * (1 + row)).map(|n| (n % (1 + row) == 0) as u8 & 4).collect() };
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &pixels {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = pixels.len() as u16;
    let mut data = vec![0x78, 0x01, 1];
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(&pixels);
    data.extend((b << 16 | a).to_be_bytes());
    let ihdr = [0, 0, 0, 3, 0, 0, 0, 3, depth, color, 0, 0, u8::from(interlaced)];
    let palette = if color == 3 { chunk(b"PLTE", &[9; 12]) } else { Vec::new() };
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &ihdr), palette, chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat()
}

fn ledger() -> Ledger {
    let discarded = BTreeMap::from([("late".to_owned(), 1)]);
    Ledger { received: 3, encoded: 2, held: 1, filled: 0, discarded }
}

fn lines() -> String {
    let json = |value: Result<String, _>| -> String { value.map_err(|e: serde_json::Error| e).expect("plain data") };
    let epoch = serde_json::json!({
        "spool": 1, "participant_id": "1", "kind": "webcam", "canvas": { "width": 640, "height": 360 },
        "codecs": "avc1.64001e", "first_tick": 0, "init": "init-1.mp4", "encoder_options": "libx264",
    });
    let epoch: EpochLine = serde_json::from_value(epoch).expect("every field that a line must have");
    let mut run = Run::without_picture(0, 2, RunKind::Picture, None);
    (run.relative, run.absolute, run.capture) = (Some(0.5), Some("2026-01-01T10:00:00Z".into()), Some(0));
    let part = PartLine {
        segment: 0,
        offset: 0,
        bytes: 7,
        first_tick: 0,
        ticks: 2,
        closes: true,
        sha256: "00".into(),
        ledger: ledger(),
        last_at: Micros(7),
        runs: vec![run, Run::without_picture(2, 1, RunKind::Held, Some(GapReason::Overloaded))],
    };
    let runs = vec![KindRun { kind: RunKind::Held, n: 2 }];
    let segment = SegmentLine { number: 0, first_tick: 0, ticks: 2, bytes: 7, sha256: "00".into(), runs };
    let texts = [serde_json::to_string(&epoch), serde_json::to_string(&part), serde_json::to_string(&segment)];
    texts.map(|text| json(text) + "\n").concat()
}

fn segment() -> Vec<u8> {
    let mut segmenter = Segmenter::new(GRID);
    let push = |tick| {
        let unit = AccessUnit { data: vec![0, 0, 0, 1, tick as u8], idr: tick == 0 };
        segmenter.push(tick, unit).expect("consecutive ticks")
    };
    (0..6).filter_map(push).flat_map(|part| part.bytes).collect()
}

fn manifest() -> Vec<u8> {
    let track = TrackManifest {
        track: "p1-webcam".into(),
        participant: ParticipantManifest { id: "1".into(), name: Some("A".into()), ..Default::default() },
        kind: Kind::Webcam,
        width: Some(640),
        height: Some(360),
        codecs: Some("avc1.64001e".into()),
        first_tick: Some(0),
        end_tick: Some(2),
        epochs: vec![EpochManifest {
            epoch: "0000000-aaaaaa".into(),
            first_tick: 0,
            init: "init-1.mp4".into(),
            encoder_options: "libx264".into(),
        }],
        gaps: vec![Gap { from_tick: 1, to_tick: 2, reason: GapReason::CameraOff }],
        ledger: ledger(),
        mp4: vec![Mp4Manifest { path: "a.mp4".into(), from_tick: 0, ticks: 2, bytes: 7, sha256: "00".into() }],
    };
    let manifest = Manifest {
        schema: 1,
        recording_id: "r".into(),
        tenant: None,
        bot_id: Some("b".into()),
        metadata: BTreeMap::from([("bot".into(), serde_json::json!({"a": [1.5, null, "b"]}))]),
        state: State::Live,
        continues: None,
        prefix: Some("t/r".into()),
        origin: Some("2026-01-01T10:00:00Z".into()),
        origin_from_server: false,
        fps: 2,
        segment_ticks: 12,
        fill: Default::default(),
        overload: vec![Overload { from_tick: 1, to_tick: None, level: "cheaper".into() }],
        tracks: vec![track],
    };
    serde_json::to_vec_pretty(&manifest).expect("plain data")
}

fn playlist() -> Vec<u8> {
    // 2 fps, parts of 2 and segments of 12 ticks, tick 0 in 2026.
    let head = [1, 1, 5, 0, 0x70, 0x7e, 0xe2, 0x06];
    let origin = i64::from_le_bytes([0, 0x70, 0x7e, 0xe2, 0x06, 0, 0, 0]) * 230_000 + 503_499;
    let mut playlist = Playlist::new(GRID, Micros(origin));
    for (epoch, first_tick, ticks, init) in [
        ("0000003-aaaaaa", 3, 9, "init-1.mp4"),
        ("0000003-aaaaaa", 12, 12, "init-1.mp4"),
        ("0007200-bbbbbb", 7200, 12, "init-2.mp4"),
    ] {
        playlist.push(&Entry { epoch: epoch.into(), first_tick, ticks, init: init.into() });
    }
    [&head, playlist.text().as_bytes()].concat()
}

fn main() {
    let folder = std::env::args().nth(1).expect("seeds FOLDER");
    let seeds: [(&str, &str, Vec<u8>); 14] = [
        ("message", "picture", PICTURE.into()),
        ("message", "event", EVENT.into()),
        ("message", "other", br#"{"event":"transcript.data","data":{}}"#.to_vec()),
        ("message", "legacy", br#"{"protocol_version":1}"#.to_vec()),
        ("png", "rgb", png(2, 8, false, 9)),
        ("png", "rgba", png(6, 8, false, 12)),
        ("png", "gray16", png(0, 16, false, 6)),
        ("png", "palette", png(3, 2, false, 1)),
        ("png", "interlaced", png(4, 8, true, 3)),
        ("png", "base64", b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==".to_vec()),
        ("lines", "all", lines().into()),
        ("segment", "three-parts", segment()),
        ("manifest", "one-track", manifest()),
        ("playlist", "two-epochs", playlist()),
    ];
    for (target, name, bytes) in seeds {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).expect("a folder for the seeds");
        fs::write(folder.join(name), bytes).expect("a file in the folder");
    }
}
