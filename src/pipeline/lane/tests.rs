//! A lane driven by hand: one turn of an encoder worker after the other, and a sync thread that is told what to say.

use crossbeam_channel::{Receiver, bounded};

use super::*;
use crate::clock::ManualClock;
use crate::config::Fill;
use crate::media::{Grid, Picture};
use crate::pipeline::budget::{Budget, LaneMemory};
use crate::pipeline::encode::EncoderSettings;
use crate::pipeline::state::{RecordingSettings, STATE};
use crate::pipeline::store::spool::TrackSpool;
use crate::pipeline::store::sync::{SyncJob, make_durable};
use crate::pipeline::track::TrackSettings;

const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 4 };

struct Bench {
    lane: Arc<Lane>,
    jobs: Receiver<SyncJob>,
    budget: Budget,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        // As a socket has it written with the first capture.
        std::fs::write(dir.path().join(STATE), "{}").unwrap();
        let (sync, jobs) = bounded(64);
        let recording = RecordingSettings {
            grid: GRID,
            encoder: EncoderSettings::default(),
            canvas_max: Canvas { width: 640, height: 360 },
            fill: Fill::Black,
            live_fill: Micros::from_secs(600),
            settle: Micros::SECOND,
            hold_webcam: Micros::from_secs(10),
            hold_screenshare: Micros::from_secs(600),
        };
        let settings = TrackSettings {
            rules: recording.rules(Kind::Webcam),
            recording,
            spool: TrackSpool { dir: dir.path().join("track"), writer: "abc234".into(), sync },
        };
        let metrics = Arc::new(Metrics::new());
        let lists = Arc::new(Lists {
            ingest: ReadyList::new(|lane: &Lane| &lane.ingest_turn),
            encode: ReadyList::new(|lane: &Lane| &lane.encode_turn),
        });
        let lane = Lane::new(LaneParts {
            recording_id: "r".into(),
            track: "1-webcam".into(),
            participant_id: "1".into(),
            kind: Kind::Webcam,
            captures_max: 8,
            pictures_max: 4,
            memory: LaneMemory::new(0, 1).take(0),
            writer: TrackWriter::new(settings, Arc::new(ManualClock::default()), Arc::clone(&metrics)),
            lists,
            metrics,
            changed: Arc::default(),
        });
        Bench { lane, jobs, budget: Budget::new(1 << 30), dir }
    }

    /// A picture taken at that tick arrives and is placed.
    async fn picture(&self, tick: Tick) {
        let at = GRID.time_of(tick);
        let capture = Capture {
            number: self.lane.next_number(),
            at,
            relative: at,
            absolute: None,
            clock: at,
            base64: bytes::Bytes::new(),
        };
        let picture = Arc::new(Picture::black(64, 64));
        let decoded = Some(Decoded { picture, png_bytes: 1, same: false });
        self.lane.pending.fetch_add(1, SeqCst);
        let charge = self.budget.charge(1).await;
        assert!(self.lane.pictures.offer(Arrived { capture, decoded, charge }).is_ok());
        assert_eq!(self.lane.encode_one(), Worked::One);
    }

    fn obey(&self, order: Order) {
        self.lane.order(order);
        while self.lane.encode_one() == Worked::One {}
        assert_eq!(self.lane.view(|view| view.done), Some(order));
    }

    fn ledger(&self) -> Ledger {
        let ledger = self.lane.view(|view| view.ledger.clone());
        assert!(ledger.captures_balance(), "{ledger:?}");
        ledger
    }
}

#[tokio::test]
async fn the_books_stay_exact_where_the_spool_fails_at_the_first_picture() {
    let bench = Bench::new();
    let track = bench.dir.path().join("track");
    std::fs::write(&track, "no folder").unwrap();
    bench.picture(3).await;
    let ledger = bench.ledger();
    assert_eq!((ledger.discarded["spool_full"], ledger.filled), (1, 4));
    std::fs::remove_file(&track).unwrap();
    // What failed is shown all the same: the next ticks hold it.
    bench.lane.wants_clock.store(true, SeqCst);
    bench.lane.advance(Micros::from_secs(6));
    while bench.lane.encode_one() == Worked::One {}
    bench.picture(12).await;
    bench.obey(Order::Finish(14));
    let ledger = bench.ledger();
    assert_eq!((ledger.received, ledger.encoded, ledger.filled), (2, 1, 4));
    assert_eq!(ledger.ticks(), 14);
}

#[tokio::test]
async fn pictures_of_a_segment_that_was_not_made_durable_are_booked_as_lost() {
    let bench = Bench::new();
    for tick in [0, 1, 2, 3, 4, 5] {
        bench.picture(tick).await;
    }
    bench.obey(Order::Finish(8));
    let mut jobs: Vec<SyncJob> = bench.jobs.try_iter().collect();
    assert_eq!(jobs.len(), 2);
    match jobs.remove(0) {
        SyncJob::Segment { done, .. } => done(Err(std::io::Error::other("no"))),
        _ => unreachable!("segments alone are handed on"),
    }
    make_durable(&mut jobs);
    let ledger = bench.ledger();
    assert_eq!((ledger.received, ledger.encoded, ledger.discarded["spool_full"]), (6, 2, 4));
    assert_eq!((ledger.held, ledger.filled, ledger.ticks()), (2, 4, 8));
    bench.lane.view(|view| {
        assert_eq!((view.syncing, view.closed.len()), (0, 1));
        assert_eq!(view.gaps, [Gap { from_tick: 0, to_tick: 4, reason: crate::media::GapReason::SpoolFull }]);
    });
}

#[tokio::test]
async fn an_order_waits_for_captures_that_are_on_their_way() {
    let bench = Bench::new();
    bench.picture(0).await;
    let expected = bench.lane.expect();
    bench.lane.order(Order::Finish(1));
    assert_eq!(bench.lane.encode_one(), Worked::Nothing);
    assert_eq!(bench.lane.view(|view| view.done), None);
    expected.shed(Micros(500_000));
    drop(expected);
    assert_eq!(bench.lane.lists.encode.len(), 1, "called, for the order waits");
    assert_eq!(bench.lane.encode_one(), Worked::One);
    assert_eq!(bench.lane.view(|view| view.done), Some(Order::Finish(1)));
    assert_eq!(bench.ledger().received, 2);
}
