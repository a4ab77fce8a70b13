//! The whole pipeline with a disk that fails at one kind of write: what was named stays, what is lost is booked, and it
//! goes on when there is room again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Command, FromArgMatches};

use super::*;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::media::{GapReason, Tick};
use crate::pipeline::Threads;
use crate::pipeline::delivery::deliver;
use crate::pipeline::lane::Order;
use crate::pipeline::session::{Accepted, Session, StoreWord};
use crate::pipeline::state;
use crate::pipeline::store::manifest::Manifest;
use crate::pipeline::store::space::Op;
use crate::pipeline::verify::{Options, verify_recording};

const ID: &str = "meeting";
/// A whole number of segments.
const ROUND: Tick = 12;

struct Bench {
    dir: Arc<tempfile::TempDir>,
    pipeline: Arc<Pipeline>,
    session: Session,
    _threads: Threads,
}

/// The message of a tick, as its socket hands it over.
fn accept(session: &mut Session, tick: Tick) -> Accepted {
    let message = Bytes::from(message(tick));
    session.accept(std::str::from_utf8(&message).ok(), &message, StoreWord::Said)
}

impl Bench {
    fn new() -> Bench {
        Bench::start_in(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn start_in(dir: Arc<tempfile::TempDir>) -> Bench {
        let store = dir.path().join("store").display().to_string();
        Bench::start_with(dir, &["--store", &store])
    }

    fn start_with(dir: Arc<tempfile::TempDir>, more: &[&str]) -> Bench {
        let spool = dir.path().join("spool").display().to_string();
        let args = ["serve", "--spool", &spool, "--segment", "2s", "--preset", "ultrafast"];
        let args = args.iter().chain(more);
        let matches = Config::augment_args(Command::new("serve")).try_get_matches_from(args).unwrap();
        let config = Config::from_arg_matches(&matches).unwrap();
        let (pipeline, _threads) = Pipeline::start(config, Arc::new(SystemClock::new())).unwrap();
        let session = Session::new(Arc::clone(&pipeline), None, Default::default(), None);
        Bench { dir, pipeline, session, _threads }
    }

    /// A round of pictures from this tick on; returns when all are written or booked.
    async fn send(&mut self, first: Tick) {
        for tick in first..first + ROUND {
            let Accepted::Offers(offers) = accept(&mut self.session, tick) else { panic!("a picture is taken") };
            for offer in offers {
                deliver(&self.pipeline, &mut self.session.patience, offer).await;
            }
        }
        let recording = self.pipeline.registry.get(&ID.into()).unwrap();
        until(|| recording.lanes().iter().all(|lane| lane.is_drained())).await;
    }

    fn recording(&self) -> PathBuf {
        self.dir.path().join("store").join(ID)
    }

    fn playlist(&self) -> String {
        std::fs::read_to_string(self.recording().join("100-webcam/index.m3u8")).unwrap_or_default()
    }

    /// As the store tells it.
    async fn end(&mut self) -> Manifest {
        self.session.end();
        assert!(self.pipeline.registry.get(&ID.into()).unwrap().ask_to_finish());
        until(|| self.pipeline.registry.ended_manifest(&ID.into()).is_some()).await;
        let manifest = self.pipeline.registry.ended_manifest(&ID.into()).unwrap();
        assert_eq!(manifest.state, State::Finished);
        (*manifest).clone()
    }

    async fn finish(&mut self) -> Manifest {
        let manifest = self.end().await;
        let report = verify_recording(&self.recording(), Options { decode: true }, &mut |_| {});
        assert!(report.is_well(), "{:?}", report.findings.told);
        manifest
    }

    fn events(&self) -> String {
        std::fs::read_to_string(self.recording().join(EVENTS)).unwrap()
    }
}

/// Looks again and again: the pipeline's own threads tell a test nothing.
async fn until(mut is: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..6000 {
        look.tick().await;
        if is() {
            return;
        }
    }
    panic!("it does not come");
}

fn message(tick: Tick) -> String {
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 4) as u8, (y * 4) as u8, tick as u8]));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let relative = tick as f64 / 2.0;
    serde_json::json!({
        "event": "video_separate_png.data",
        "data": {
            "data": {
                "buffer": base64_simd::STANDARD.encode_to_string(png.into_inner()),
                "type": "webcam",
                "timestamp": { "relative": relative, "absolute": crate::clock::rfc3339(
                    crate::media::Micros(1_767_261_600_000_000) + crate::media::Micros::from_secs_f64(relative).unwrap()) },
                "participant": { "id": 100, "name": "Ana" },
            },
            "recording": { "id": ID, "metadata": {} },
        },
    })
    .to_string()
}

/// What became of three rounds, of which the second met a disk that failed once at `op`.
async fn fail_at(op: Op, kind: ErrorKind, after: usize) -> (Manifest, String) {
    let mut bench = Bench::new();
    let space = Arc::clone(&bench.pipeline.space);
    let is_at_start = matches!(op, Op::Epoch | Op::Whole | Op::Lines);
    if is_at_start {
        space.fail(op, kind, after, 1);
    }
    bench.send(0).await;
    if !is_at_start {
        until(|| bench.playlist().matches(".m4s").count() >= 2).await;
        space.fail(op, kind, after, 1);
    }
    let before = bench.playlist();
    bench.send(ROUND).await;
    if op == Op::Lines {
        bench.pipeline.registry.get(&ID.into()).unwrap().event("test", serde_json::Value::Null);
    }
    if op != Op::Assembly {
        until(|| space.failed_all() && !space.is_full()).await;
    }
    // Further on than the clock went while it was waited.
    bench.send(4000).await;
    let manifest = bench.finish().await;
    assert!(space.failed_all());
    let playlist = bench.playlist();
    assert!(playlist.starts_with(&before), "{op:?}: {playlist}\nafter\n{before}");
    let track = &manifest.tracks[0];
    assert_eq!(track.ledger.received, 3 * ROUND as u64, "{op:?}");
    assert!(track.end_tick.is_some_and(|end| end >= 4000 + ROUND));
    // Nothing is left behind, and nothing is counted that is gone.
    assert_eq!(std::fs::read_dir(bench.dir.path().join("spool")).unwrap().count(), 0, "{op:?}");
    assert_eq!(space.used(), 0, "{op:?}");
    (manifest, bench.events())
}

fn lost(manifest: &Manifest) -> u64 {
    manifest.tracks[0].ledger.discarded.get("spool_full").copied().unwrap_or(0)
}

fn has_gap(manifest: &Manifest) -> bool {
    manifest.tracks[0].gaps.iter().any(|gap| gap.reason == GapReason::SpoolFull)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_that_finds_no_room_is_booked_and_a_new_epoch_goes_on() {
    let cases = [(Op::Epoch, 0), (Op::Segment, 0), (Op::Part, 0), (Op::Part, 1), (Op::Journal, 0), (Op::Journal, 1)];
    let done = cases.map(|(op, after)| async move { (op, fail_at(op, ErrorKind::StorageFull, after).await) });
    for (op, (manifest, events)) in futures::future::join_all(done).await {
        assert!((1..=2 * ROUND as u64).contains(&lost(&manifest)), "{op:?}: {:?}", manifest.tracks[0].ledger);
        assert!(has_gap(&manifest), "{op:?}: {:?}", manifest.tracks[0].gaps);
        assert!(manifest.tracks[0].epochs.len() <= 3, "{op:?}: {:?}", manifest.tracks[0].epochs);
        for event in ["\"spool_full\"", "\"spool_has_room\""] {
            assert_eq!(events.matches(event).count(), 1, "{op:?}: {events}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_that_find_no_room_are_written_later_and_cost_no_picture() {
    let cases = [Op::List, Op::Lines, Op::Whole, Op::Assembly];
    let done = cases.map(|op| async move { (op, fail_at(op, ErrorKind::StorageFull, 0).await) });
    for (op, (manifest, _)) in futures::future::join_all(done).await {
        let track = &manifest.tracks[0];
        // While it is full nothing is written; what was written stays.
        assert_eq!(track.ledger.received, track.ledger.encoded + lost(&manifest), "{op:?}: {:?}", track.ledger);
        if matches!(op, Op::Assembly) {
            assert_eq!(lost(&manifest), 0, "{op:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_synced_is_abandoned_and_said_so() {
    let cases = [Op::SyncSegment, Op::SyncJournal, Op::Name, Op::SyncFolder];
    let done = cases.map(|op| async move { (op, fail_at(op, ErrorKind::Other, 0).await) });
    for (op, (manifest, events)) in futures::future::join_all(done).await {
        let told: Vec<BTreeMap<String, serde_json::Value>> =
            events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = told.iter().filter(|line| line["event"] == "segment_abandoned").collect();
        assert!(!told.is_empty(), "{op:?}: {events}");
        let mut ticks = 0;
        for event in told {
            let (from, to) = (&event["detail"]["from_tick"], &event["detail"]["to_tick"]);
            let (from, to) = (from.as_i64().unwrap(), to.as_i64().unwrap());
            let named = manifest.tracks[0].gaps.iter().find(|gap| gap.from_tick <= from && to <= gap.to_tick);
            assert_eq!(
                named.map(|gap| gap.reason),
                Some(GapReason::SpoolFull),
                "{op:?}: {:?}",
                manifest.tracks[0].gaps
            );
            ticks += (to - from) as u64;
        }
        assert_eq!(lost(&manifest), ticks, "{op:?}: {:?}", manifest.tracks[0].ledger);
        // The disk was not full, so nothing else was shed.
        assert!(!events.contains("\"spool_full\""), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_that_never_found_room_is_all_gap() {
    for op in [Op::Epoch, Op::Part] {
        let mut bench = Bench::new();
        let space = Arc::clone(&bench.pipeline.space);
        space.fail(op, ErrorKind::StorageFull, 0, 1);
        bench.send(0).await;
        assert!(space.is_full());
        let manifest = bench.finish().await;
        assert_eq!((lost(&manifest), manifest.tracks[0].ledger.encoded), (ROUND as u64, 0), "{op:?}");
        assert!(has_gap(&manifest) && manifest.tracks[0].epochs.is_empty(), "{op:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_nothing_keeps_no_recording_from_ending() {
    let mut bench = Bench::new();
    // A file where the recording's folder would be.
    std::fs::write(bench.recording(), "in the way").unwrap();
    bench.send(0).await;
    let recording = bench.pipeline.registry.get(&ID.into()).unwrap();
    until(|| recording.now(false).last_error.is_some()).await;
    assert!(recording.ask_to_finish());
    let lanes = recording.lanes();
    let ended = || lanes[0].view(|view| matches!(view.done, Some(Order::Finish(_))) && view.syncing == 0);
    until(ended).await;
    let spooled = || state::read(&recording.spool).unwrap().state;
    assert_eq!((recording.state(), spooled()), (State::Finishing, State::Finishing));

    // What comes now goes on from it.
    assert!(matches!(accept(&mut bench.session, ROUND), Accepted::Offers(_)));
    assert_eq!(bench.pipeline.registry.get(&"meeting~2".into()).unwrap().continues().as_deref(), Some(ID));
    assert_eq!(lanes[0].view(|view| view.ledger.received), ROUND as u64);

    // The process stops, and the next one has not forgotten.
    assert!(!bench.pipeline.suspend(Duration::from_millis(300)).await, "the store still takes nothing");
    assert_eq!(spooled(), State::Finishing);
    std::fs::remove_file(bench.recording()).unwrap();
    let next = Bench::start_in(Arc::clone(&bench.dir));
    until(|| next.pipeline.registry.ended_manifest(&ID.into()).is_some()).await;
    let manifest = next.pipeline.registry.ended_manifest(&ID.into()).unwrap();
    assert_eq!((manifest.state, manifest.tracks[0].ledger.encoded), (State::Finished, ROUND as u64));
    assert!(manifest.tracks[0].gaps.is_empty(), "{:?}", manifest.tracks[0].gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_to_come_back_leaves_again_until_there_is() {
    let mut bench = Bench::start_with(
        Arc::new(tempfile::tempdir().unwrap()),
        &["--store", "memory://store", "--store-playlist-every", "0s"],
    );
    let space = Arc::clone(&bench.pipeline.space);
    bench.send(0).await;
    let recording = bench.pipeline.registry.get(&ID.into()).unwrap();
    let lane = &recording.lanes()[0];
    until(|| lane.view(|view| view.stored >= 2)).await;
    let left: Vec<_> = lane.view(|view| view.closed[..2].iter().map(|one| one.path()).collect());
    let before = space.used();
    left.iter().for_each(|path| space.empty(path).unwrap());
    space.fail(Op::Back, ErrorKind::StorageFull, 1, 1);
    space.take_asked();
    let manifest = bench.end().await;
    assert!(space.failed_all() && space.used() < before);
    // One found room, the other not: both left, and both came back.
    let asked = space.take_asked();
    assert_eq!(asked.iter().filter(|op| **op == Op::Back).count(), 4, "{asked:?}");
    assert_eq!(manifest.tracks[0].ledger.encoded, ROUND as u64);
    assert!(!manifest.tracks[0].mp4.is_empty());
    assert_eq!((std::fs::read_dir(bench.dir.path().join("spool")).unwrap().count(), space.used()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_from_the_spool_fails_the_recording_and_hangs_nothing() {
    for gone in ["journal.jsonl", "000000.m4s"] {
        let mut bench = Bench::new();
        bench.send(0).await;
        until(|| bench.playlist().matches(".m4s").count() >= 3).await;
        let track = bench.dir.path().join("spool").join(ID).join("100-webcam");
        let epoch = std::fs::read_dir(&track).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        std::fs::remove_file(epoch.unwrap().join(gone)).unwrap();
        bench.session.end();
        let recording = bench.pipeline.registry.get(&ID.into()).unwrap();
        assert!(recording.ask_to_finish());
        until(|| recording.state() == State::Failed).await;
        let kept = std::fs::read_dir(&track).unwrap().count();
        assert!(kept > 0, "{gone}: the spool is kept");
        let events = bench.events();
        assert!(events.contains("spool_file_lost") || events.contains("assembly_failed"), "{gone}: {events}");
    }
}
