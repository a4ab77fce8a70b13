//! A lane driven by hand: one turn of an encoder worker after the other, and a sync thread that is told what to say.

use crossbeam_channel::{Receiver, bounded};

use super::*;
use crate::clock::ManualClock;
use crate::ledger::Ledger;
use crate::media::{Canvas, Grid, Picture, Tick};
use crate::pipeline::budget::{Budget, LaneMemory};
use crate::pipeline::encode::EncoderSettings;
use crate::pipeline::state::{Kept, RecordingSettings};
use crate::pipeline::store::manifest::Gap;
use crate::pipeline::store::space::Space;
use crate::pipeline::store::spool::TrackSpool;
use crate::pipeline::store::sync::{SyncJob, Syncer};
use crate::pipeline::track::TrackSettings;

const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 4 };

struct Bench {
    lane: Arc<Lane>,
    jobs: Receiver<SyncJob>,
    budget: Budget,
    memory: Arc<LaneMemory>,
    dir: tempfile::TempDir,
    space: Arc<Space>,
    kept: Arc<Kept>,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench::without_state();
        // As a socket has it written with the first capture.
        bench.kept.tried(true);
        bench
    }

    fn without_state() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(Space::new(dir.path().to_owned(), None));
        let (sync, jobs) = bounded(64);
        let recording = RecordingSettings {
            grid: GRID,
            canvas_max: Canvas { width: 640, height: 360 },
            live_fill: Micros::from_secs(20),
            ..RecordingSettings::usual()
        };
        let kept = Arc::new(Kept::default());
        let settings = TrackSettings {
            load: Arc::default(),
            kept: Arc::clone(&kept),
            rules: recording.rules(Kind::Webcam),
            encoder: EncoderSettings::default(),
            recording,
            spool: TrackSpool {
                dir: dir.path().join("track"),
                writer: "abc234".into(),
                sync,
                space: Arc::clone(&space),
            },
        };
        let (metrics, memory) = (Arc::new(Metrics::new()), LaneMemory::new(30_000_000, 2));
        let lists = Arc::new(Lists {
            ingest: ReadyList::new(|lane: &Lane| &lane.ingest_turn),
            encode: ReadyList::new(|lane: &Lane| &lane.encode_turn),
            load: Arc::default(),
        });
        let lane = Lane::new(LaneParts {
            recording_id: "r".into(),
            track: "1-webcam".into(),
            participant_id: "1".into(),
            kind: Kind::Webcam,
            captures_max: 8,
            pictures_max: 4,
            memory: memory.take(0),
            writer: TrackWriter::new(settings, Arc::new(ManualClock::default()), Arc::clone(&metrics)),
            lists,
            metrics,
            changed: Arc::default(),
        });
        Bench { lane, jobs, budget: Budget::new(1 << 30), memory, dir, space, kept }
    }

    /// A picture taken at that tick arrives and is placed.
    async fn picture(&self, tick: Tick) {
        self.sized(tick, 64, 64).await;
    }

    /// A picture of that size, taken at that tick, arrives.
    async fn sized(&self, tick: Tick, width: u32, height: u32) {
        self.arrives(tick, width, height).await;
        assert_eq!(self.lane.encode_one(), Worked::One);
    }

    /// It waits for an encoder worker.
    async fn arrives(&self, tick: Tick, width: u32, height: u32) {
        let at = GRID.time_of(tick);
        let capture = Capture {
            read_at: Micros(0),
            number: self.lane.next_number(),
            at,
            relative: at,
            absolute: None,
            clock: at,
            base64: bytes::Bytes::new(),
        };
        let picture = Arc::new(Picture::black(width, height));
        let decoded = Some(Decoded { picture, png_bytes: 1, same: false });
        self.lane.pending.fetch_add(1, SeqCst);
        let charge = self.budget.charge(1).await;
        assert!(self.lane.pictures.offer(Arrived { capture, decoded, charge, since: Micros(0) }).is_ok());
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
    Syncer::new(Arc::clone(&bench.space)).work_off(jobs);
    let ledger = bench.ledger();
    assert_eq!((ledger.received, ledger.encoded, ledger.discarded["spool_full"]), (6, 2, 4));
    assert_eq!((ledger.held, ledger.filled, ledger.ticks()), (2, 4, 8));
    bench.lane.view(|view| {
        assert_eq!((view.syncing, view.closed.len()), (0, 1));
        assert_eq!(view.gaps, [Gap { from_tick: 0, to_tick: 4, reason: crate::media::GapReason::SpoolFull }]);
    });
}

#[tokio::test]
async fn a_picture_larger_than_its_canvas_is_charged_for_or_shed_where_there_is_no_room() {
    let bench = Bench::new();
    let other = bench.memory.take(10_000_000);
    bench.picture(0).await;
    let usual = bench.memory.used();
    bench.sized(1, 640, 360).await;
    let more = Picture::bytes(640, 360) - Picture::bytes(64, 64);
    assert_eq!(bench.memory.used() - usual, 2 * more as u64, "itself, and what is scaled down");
    bench.sized(2, 4096, 2160).await;
    assert_eq!(bench.ledger().discarded["shed"], 1);
    bench.picture(3).await;
    assert_eq!(bench.memory.used(), usual);
    drop(other);
    bench.sized(4, 4096, 2160).await;
    assert!(bench.memory.used() > 26_000_000, "alone it gets all that it wants");
    bench.obey(Order::Finish(5));
    let ledger = bench.ledger();
    assert_eq!((ledger.encoded, ledger.discarded_total()), (4, 1));
}

/// Nobody charges again further down, so that what waits compressed, and nothing else, always becomes room.
#[tokio::test]
async fn a_budget_full_of_compressed_captures_alone_drains() {
    use base64::Engine;
    const CHARGE: u64 = 20 << 10;
    const CAPTURES: usize = 8;
    let bench = Bench::new();
    let (lane, clock, budget) = (&bench.lane, ManualClock::default(), Budget::new(CAPTURES as u64 * CHARGE));
    for number in 0..CAPTURES as Tick {
        let image = image::GrayImage::from_pixel(64, 64, image::Luma([number as u8]));
        let mut png = std::io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD.encode(png.into_inner()).into();
        let at = GRID.time_of(number);
        let (number, relative, clock, read_at) = (lane.next_number(), at, at, Micros(0));
        let capture = Capture { number, at, relative, absolute: None, clock, read_at, base64 };
        lane.pending.fetch_add(1, SeqCst);
        let queued = Queued { capture, charge: budget.charge(CHARGE).await };
        assert!(lane.captures.offer(queued).is_ok());
    }
    assert_eq!((budget.used(), lane.depths()), (budget.capacity(), (CAPTURES, 0)), "captures alone, and all of it");
    let mut next = Box::pin(budget.charge(CHARGE));
    assert!(futures::poll!(&mut next).is_pending());
    let mut ingest = Ingest::default();
    while lane.ingest_one(&mut ingest, &clock) == Worked::One || lane.encode_one() == Worked::One {}
    drop(next.await);
    assert_eq!((budget.used(), lane.depths(), lane.pending()), (0, (0, 0), 0));
    bench.obey(Order::Finish(CAPTURES as Tick));
    assert_eq!(bench.ledger().encoded, CAPTURES as u64);
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

#[tokio::test]
async fn a_picture_under_64_on_a_side_is_a_placeholder_whenever_it_comes() {
    use crate::media::GapReason::{CameraOff, NotJoined};
    let bench = Bench::new();
    bench.sized(0, 16, 16).await;
    bench.sized(1, 640, 63).await;
    assert_eq!(bench.lane.view(|view| (view.canvas, view.first_tick)), (None, None), "nothing is fixed by them");
    for tick in [2, 3] {
        bench.picture(tick).await;
    }
    for tick in 4..9 {
        bench.sized(tick, 63, 64).await;
    }
    // A larger one ends the gap, whatever was said or not said by an event.
    for tick in [9, 10] {
        bench.picture(tick).await;
    }
    bench.obey(Order::Finish(11));
    let ledger = bench.ledger();
    assert_eq!((ledger.encoded, ledger.discarded["placeholder"], ledger.held, ledger.filled), (4, 7, 0, 7));
    let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
    let canvas = Some(Canvas { width: 64, height: 64 });
    bench.lane.view(|view| {
        assert_eq!((view.canvas, view.epochs.len()), (canvas, 1));
        assert_eq!(view.gaps, [gap(0, 2, NotJoined), gap(4, 9, CameraOff)]);
    });
}

#[tokio::test]
async fn after_a_death_the_journals_tell_all_gaps_and_books_that_were_written() {
    use crate::media::GapReason::{CameraOff, NotJoined, SpoolFull};
    let bench = Bench::new();
    let track = bench.dir.path().join("track");
    for tick in [5, 6, 7] {
        bench.picture(tick).await;
    }
    // Off for longer than is filled live.
    bench.lane.mark(GRID.time_of(8), Mark::Off(CameraOff));
    for tick in [3000, 3001] {
        bench.picture(tick).await;
    }
    // A segment that is there already cannot be made: the spool fails, and recovers.
    let open = track.join("0003000-abc234/000751.m4s.open");
    std::fs::write(&open, "in the way").unwrap();
    for tick in 3002..3010 {
        bench.picture(tick).await;
    }
    let (view, ledger) = (bench.lane.view(|view| view.gaps.clone()), bench.ledger());
    let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
    assert_eq!(view, [gap(0, 5, NotJoined), gap(8, 3000, CameraOff), gap(3004, 3006, SpoolFull)]);
    // The process dies here.
    Syncer::new(Arc::clone(&bench.space)).work_off(bench.jobs.try_iter().collect());
    let taken = crate::pipeline::store::recovery::take_up(&track).unwrap().unwrap();
    assert_eq!((taken.gaps, taken.ledger, taken.next_tick), (view, ledger, 3010));
    assert_eq!(taken.epochs.len(), 3);
}

#[tokio::test]
async fn a_track_that_starts_after_three_hours_writes_what_one_writes_that_starts_at_once() {
    let mut written = Vec::new();
    for first in [0, 3 * 3600 * 2] {
        let bench = Bench::new();
        for tick in first..first + 6 {
            // One turn of a worker each, the first one too.
            bench.picture(tick).await;
        }
        Syncer::new(Arc::clone(&bench.space)).work_off(bench.jobs.try_iter().collect());
        let ledger = bench.ledger();
        assert_eq!((ledger.encoded, ledger.held, ledger.filled), (6, 0, first as u64));
        let (gaps, closed) = bench.lane.view(|view| (view.gaps.len(), view.closed.len()));
        assert_eq!((gaps, closed), (usize::from(first > 0), 1));
        let epoch = std::fs::read_dir(bench.dir.path().join("track")).unwrap().map(|entry| entry.unwrap().path());
        let files = epoch.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
        let mut sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        written.push(sizes);
    }
    // Journal, list, a segment and an open one; larger ticks have a few digits more.
    assert_eq!((written[0].len(), written[1].len()), (4, 4), "{written:?}");
    for (at_once, late) in written[0].iter().zip(&written[1]) {
        assert!(late.abs_diff(*at_once) < 200, "{written:?}");
    }
}

#[tokio::test]
async fn pictures_wait_for_the_state_and_no_worker_waits_with_them() {
    let bench = Bench::without_state();
    bench.arrives(0, 64, 64).await;
    assert_eq!(bench.lane.encode_one(), Worked::Nothing);
    assert_eq!((bench.lane.pending(), bench.ledger().received), (1, 0));
    // The sync thread's answer calls the lane.
    assert!(bench.lane.lists.encode.is_empty());
    bench.kept.tried(true);
    bench.lane.state_tried();
    assert_eq!(bench.lane.lists.encode.len(), 1);
    assert_eq!(bench.lane.encode_one(), Worked::One);
    bench.obey(Order::Finish(2));
    assert_eq!(bench.ledger().encoded, 1);
}

#[tokio::test]
async fn no_part_is_written_before_the_state_is_there() {
    let bench = Bench::without_state();
    // The disk did not take it at the first try.
    bench.kept.tried(false);
    for tick in [0, 1] {
        bench.picture(tick).await;
    }
    assert_eq!((bench.ledger().discarded["spool_full"], bench.dir.path().join("track").exists()), (2, false));
    bench.kept.tried(true);
    bench.picture(2).await;
    bench.obey(Order::Finish(3));
    assert_eq!((bench.ledger().received, bench.ledger().encoded), (3, 1));
}
