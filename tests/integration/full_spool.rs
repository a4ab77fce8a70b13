//! A start that finds many tracks in the spool: all of them are taken up, with their books, before the server is ready.

use std::sync::Arc;

use tilecast::config::Fill;
use tilecast::ledger::Ledger;
use tilecast::media::{Canvas, Grid, Kind, Micros, Tick};
use tilecast::pipeline::encode::EncoderSettings;
use tilecast::pipeline::ingest::protocol::Participant;
use tilecast::pipeline::package::segmenter::Part;
use tilecast::pipeline::state::{RecordingSettings, RecordingState, STATE};
use tilecast::pipeline::store::journal::{EpochLine, Run, RunKind, SPOOL_VERSION};
use tilecast::pipeline::store::manifest::State;
use tilecast::pipeline::store::space::Space;
use tilecast::pipeline::store::spool::{EpochWriter, PartBooks, TrackSpool};
use tilecast::pipeline::store::sync::SyncJob;
use tilecast::pipeline::timeline::clock::Origin;

use crate::bot::ORIGIN;
use crate::harness::{Folders, Server};

const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };
const RECORDINGS: usize = 4;
const TRACKS: usize = 10;
/// Ten minutes, and a part that is alone in its segment.
const TICKS: Tick = 1202;

/// Writes a track as the server does, with segments that nobody could play: a start does not look into them.
fn write_track(folder: &std::path::Path, participant_id: &str) {
    let (sync, jobs) = crossbeam_channel::bounded(TICKS as usize);
    let space = Arc::new(Space::new(folder.to_owned(), None));
    let dir = folder.join(format!("{participant_id}-webcam"));
    let spool = TrackSpool { dir, writer: "abc234".into(), sync, space };
    let line = EpochLine {
        spool: SPOOL_VERSION,
        participant_id: participant_id.into(),
        kind: Kind::Webcam,
        canvas: Canvas { width: 64, height: 64 },
        codecs: "avc1.640015".into(),
        first_tick: 0,
        init: String::new(),
        encoder_options: String::new(),
        holes: Vec::new(),
    };
    let mut epoch = EpochWriter::create(&spool, line, b"init").unwrap();
    let mut ledger = Ledger::default();
    let cell = Tick::from(GRID.segment_ticks);
    for first_tick in (0..TICKS).step_by(2) {
        let (opens, closes) = (first_tick % cell == 0, first_tick % cell == cell - 2);
        let segment = first_tick / cell;
        let part = Part { segment, opens, first_tick, ticks: 2, bytes: vec![7; 90], closes, independent: opens };
        let run = |tick: Tick| Run {
            relative: Some(tick as f64 / 2.0),
            capture: Some(tick as u64),
            png_bytes: Some(1000),
            ..Run::without_picture(tick, 1, RunKind::Picture, None)
        };
        ledger.encode(2);
        let runs = vec![run(first_tick), run(first_tick + 1)];
        let books = PartBooks { ledger: &ledger, last_at: GRID.time_of(first_tick + 1), runs };
        epoch.append(&part, books, || Box::new(|_| {})).unwrap();
    }
    for job in jobs.try_iter() {
        // As the sync thread, without waiting for the disk.
        let SyncJob::Segment { growing, closed, .. } = job else { unreachable!("segments alone are handed on") };
        std::fs::rename(growing, closed.path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_tracks_are_taken_up_with_their_books() {
    let folders = Folders::new();
    let people: Vec<String> = (0..TRACKS).map(|n| (100 + n).to_string()).collect();
    for n in 0..RECORDINGS {
        let recording_id = format!("meeting-{n}");
        let folder = folders.spool().join(&recording_id);
        people.iter().for_each(|id| write_track(&folder, id));
        let known = |id: &String| Participant { id: id.clone(), name: Some(format!("Ana {id}")), ..Default::default() };
        let state = RecordingState {
            spool: SPOOL_VERSION,
            recording_id,
            tenant: None,
            continues: None,
            mark: String::new(),
            unsure: false,
            prefix: None,
            state: State::Live,
            settings: RecordingSettings {
                grid: GRID,
                encoder: EncoderSettings::default(),
                screen: None,
                canvas_max: Canvas { width: 1920, height: 1080 },
                fill: Fill::Black,
                live_fill: Micros::from_secs(600),
                settle: Micros::SECOND,
                hold_webcam: Micros::from_secs(10),
                hold_screenshare: Micros::from_secs(600),
            },
            origin: Some(Origin { unix: ORIGIN, from_server: false }),
            bot_id: None,
            metadata: Default::default(),
            participants: people.iter().map(known).collect(),
            alone_since: None,
            books: Default::default(),
            deleted: Default::default(),
            overload: Vec::new(),
        };
        std::fs::write(folder.join(STATE), serde_json::to_vec(&state).unwrap()).unwrap();
    }
    // One that nobody can take up is left alone, and keeps no other from it.
    std::fs::create_dir(folders.spool().join("broken")).unwrap();
    std::fs::write(folders.spool().join("broken").join(STATE), "{}\n").unwrap();

    let server = Server::start_in(&folders, &[], &[]).await;
    let told = server.log_line("took up unfinished recordings").expect("told");
    assert_eq!((told["recordings"].as_u64(), told["tracks"].as_u64()), (Some(4), Some(40)));
    assert!(server.log_line("left alone").is_some());
    for n in 0..RECORDINGS {
        let manifest = server.manifest(&format!("meeting-{n}")).await;
        assert_eq!((manifest.state, manifest.tracks.len()), (State::Live, TRACKS));
        for (track, id) in manifest.tracks.iter().zip(&people) {
            assert_eq!((&track.participant.id, track.participant.name.clone()), (id, Some(format!("Ana {id}"))));
            assert_eq!((track.first_tick, track.end_tick, track.epochs.len()), (Some(0), Some(TICKS), 1));
            assert_eq!((track.ledger.received, track.ledger.encoded), (TICKS as u64, TICKS as u64));
            assert!(track.gaps.is_empty(), "{:?}", track.gaps);
        }
    }
}
