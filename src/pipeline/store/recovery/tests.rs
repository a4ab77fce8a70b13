//! Tracks as a process left them, taken up.

use crossbeam_channel::Receiver;

use super::*;
use crate::ledger::Ledger;
use crate::media::GapReason::*;
use crate::media::{AccessUnit, ParameterSets};
use crate::media::{Canvas, Kind, Micros};
use crate::pipeline::package::boxes;
use crate::pipeline::package::segmenter::Part;
use crate::pipeline::store::journal::Run;
use crate::pipeline::store::space::Space;
use crate::pipeline::store::spool::{EpochWriter, PartBooks, TrackSpool};
use crate::pipeline::store::sync::{SyncJob, Syncer};

fn epoch_line(first_tick: Tick, holes: &[Gap]) -> EpochLine {
    EpochLine {
        spool: SPOOL_VERSION,
        participant_id: "100".into(),
        kind: Kind::Webcam,
        canvas: Canvas { width: 64, height: 64 },
        codecs: "avc1.640015".into(),
        first_tick,
        init: String::new(),
        encoder_options: String::new(),
        holes: holes.to_vec(),
    }
}

/// A track with segments of 4 ticks and parts of 2, whose pictures hold the first tick of their part as text.
struct Bench {
    dir: tempfile::TempDir,
    epoch: EpochWriter,
    jobs: Receiver<SyncJob>,
    ledger: Ledger,
    space: Arc<Space>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let track = dir.path().join("100-webcam");
        let (sync, jobs) = crossbeam_channel::bounded(64);
        let space = Arc::new(Space::new(dir.path().to_owned(), None));
        let spool = TrackSpool { dir: track, writer: "abc234".into(), sync, space: Arc::clone(&space) };
        let line = epoch_line(0, &[]);
        let sets = ParameterSets { sps: vec![0x67, 0x64, 0, 0x15, 0xac], pps: vec![0x68, 0xee] };
        let init = boxes::init_segment(&boxes::Track { canvas: line.canvas, fps: 2, sets: &sets });
        let epoch = EpochWriter::create(&spool, line, &init).unwrap();
        Bench { dir, epoch, jobs, ledger: Ledger::default(), space }
    }

    /// The part at `tick` with two pictures, or with two filled ticks.
    fn part(&mut self, tick: Tick, filled: Option<GapReason>) {
        let (opens, closes) = (tick % 4 == 0, tick % 4 == 2);
        let unit = |idr| AccessUnit { data: format!("part {tick}").into_bytes(), idr };
        let mut bytes = if opens { boxes::segment_type() } else { Vec::new() };
        bytes.extend(boxes::part(tick as u32, tick, &[unit(opens), unit(false)]));
        let part = Part { segment: tick / 4, opens, first_tick: tick, ticks: 2, bytes, closes, independent: opens };
        let picture = |tick: Tick| Run {
            kind: RunKind::Picture,
            capture: Some(tick as u64),
            ..Run::without_picture(tick, 1, RunKind::Picture, None)
        };
        let runs = match filled {
            None => {
                self.ledger.encode(2);
                vec![picture(tick), picture(tick + 1)]
            }
            Some(reason) => {
                self.ledger.filled += 2;
                vec![Run::without_picture(tick, 2, RunKind::Filled, Some(reason))]
            }
        };
        let books = PartBooks { ledger: &self.ledger, last_at: Micros(tick), runs };
        self.epoch.append(&part, books, || Box::new(|_| {})).unwrap();
    }

    fn sync(&self) {
        Syncer::new(Arc::clone(&self.space)).work_off(self.jobs.try_iter().collect());
    }

    fn track(&self) -> std::path::PathBuf {
        self.dir.path().join("100-webcam")
    }

    fn epoch(&self) -> std::path::PathBuf {
        self.track().join("0000000-abc234")
    }

    fn take_up(&self) -> TakenUp {
        take_up(&self.track()).unwrap().expect("a track")
    }
}

fn ticks(track: &TakenUp) -> Vec<(Tick, Tick)> {
    track.closed.iter().map(|closed| (closed.first_tick, closed.end_tick())).collect()
}

#[test]
fn reasons_and_captures_come_from_closed_segments_and_half_a_part_is_cut() {
    let mut bench = Bench::new();
    for tick in 0..10 {
        let filled = (tick == 3).then_some(GapReason::CameraOff);
        bench.part(tick * 2, filled);
    }
    bench.sync();
    bench.part(20, None);
    let growing = bench.epoch().join("000005.m4s.open");
    let whole = fs::read(&growing).unwrap();
    fs::write(&growing, [&whole[..], b"half a pa"].concat()).unwrap();
    let track = bench.take_up();
    assert_eq!(ticks(&track), [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 22)]);
    assert_eq!((track.next_tick, track.next_capture, track.bytes_cut, track.last_at), (22, 22, 9, Micros(20)));
    assert_eq!(track.gaps, [Gap { from_tick: 6, to_tick: 8, reason: GapReason::CameraOff }]);
    assert_eq!(track.ledger, bench.ledger);
    assert_eq!(fs::read(bench.epoch().join("000005.m4s")).unwrap(), whole);
    // Once more, and nothing is left to do.
    assert_eq!(bench.take_up(), TakenUp { bytes_cut: 0, ..track });
}

#[test]
fn the_books_follow_the_segments_that_are_there() {
    let mut bench = Bench::new();
    for tick in 0..8 {
        bench.part(tick * 2, None);
    }
    bench.sync();
    // Abandoned, and the process died before a line of the journal said so.
    fs::remove_file(bench.epoch().join("000001.m4s")).unwrap();
    let track = bench.take_up();
    assert_eq!(ticks(&track), [(0, 4), (8, 12), (12, 16)]);
    assert_eq!((track.ledger.received, track.ledger.encoded, track.ledger.discarded["spool_full"]), (16, 12, 4));
    assert_eq!((track.ledger.filled, track.ledger.ticks(), track.next_tick), (4, 16, 16));
    assert_eq!(track.gaps, [Gap { from_tick: 4, to_tick: 8, reason: GapReason::SpoolFull }]);
}

#[test]
fn a_segment_whose_line_was_lost_is_hashed_and_listed_again() {
    let mut bench = Bench::new();
    for tick in 0..6 {
        bench.part(tick * 2, None);
    }
    bench.sync();
    let list = bench.epoch().join(SEGMENTS);
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, &text[..text.len() - 20]).unwrap();
    let track = bench.take_up();
    assert_eq!(ticks(&track), [(0, 4), (4, 8), (8, 12)]);
    assert_eq!((&track.ledger, track.next_capture), (&bench.ledger, 12));
    assert_eq!(fs::read_to_string(&list).unwrap(), text);
}

/// Named segments, with their bytes.
fn named_bytes(dir: &Path) -> Vec<(i64, Vec<u8>)> {
    named(dir).unwrap().into_iter().map(|n| (n, fs::read(dir.join(keys::segment(n))).unwrap())).collect()
}

/// The first `lines` of a file, and behind them what else the disk gave back.
fn leave(path: &Path, lines: usize, tail: &[u8]) {
    let text = fs::read_to_string(path).unwrap();
    let kept: String = text.split_inclusive('\n').take(lines).collect();
    fs::write(path, [kept.as_bytes(), tail].concat()).unwrap();
}

#[test]
fn a_machine_that_dies_costs_no_named_segment() {
    // Of 11 lines of the journal and 5 of the list; 99 is all of them.
    for journal in [0, 1, 2, 4, 7, 99] {
        for list in [0, 2, 99] {
            for tail in [&b""[..], b"{\"segment\":3,", &[0; 50], &[0xff; 9]] {
                let case = format!("{journal} lines of the journal, {list} of the list, then {tail:?}");
                let mut bench = Bench::new();
                (0..10).for_each(|tick| bench.part(tick * 2, (tick == 3).then_some(GapReason::CameraOff)));
                bench.sync();
                let segments = named_bytes(&bench.epoch());
                leave(&bench.epoch().join(JOURNAL), journal, tail);
                leave(&bench.epoch().join(SEGMENTS), list, tail);
                let track = bench.take_up();
                assert_eq!(ticks(&track), [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)], "{case}");
                assert_eq!(named_bytes(&bench.epoch()), segments, "{case}");
                // What neither journal nor list tells of was a picture, for all anybody knows.
                let filled = if journal > 4 || list > 1 { 2 } else { 0 };
                let Ledger { encoded, held, received, .. } = track.ledger;
                assert_eq!((encoded, held, track.ledger.filled), (20 - filled, 0, filled), "{case}");
                assert!(
                    track.ledger.captures_balance() && received <= track.next_capture,
                    "{case}: {:?}",
                    track.ledger
                );
                assert_eq!((track.first_tick, track.next_tick, track.bytes_cut), (0, 20, 0), "{case}");
                assert!(track.last_at >= Micros(18), "{case}");
                assert_eq!((&*track.participant_id, track.kind, &*track.codecs), ("100", Kind::Webcam, "avc1.640015"));
                assert_eq!(bench.take_up(), track, "{case}: once more, and nothing is left to do");
            }
        }
    }
}

#[test]
fn a_named_segment_that_cannot_be_read_is_kept_and_in_no_output() {
    let mut bench = Bench::new();
    (0..6).for_each(|tick| bench.part(tick * 2, None));
    bench.sync();
    let torn = bench.epoch().join(keys::segment(1));
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 3]).unwrap();
    fs::remove_file(bench.epoch().join(SEGMENTS)).unwrap();
    let track = bench.take_up();
    assert_eq!(ticks(&track), [(0, 4), (8, 12)]);
    assert_eq!((track.ledger.encoded, track.ledger.discarded["spool_full"], track.ledger.ticks()), (8, 4, 12));
    assert_eq!(fs::read(&torn).unwrap(), &bytes[..bytes.len() - 3]);
}

#[test]
fn another_version_of_the_spool_is_an_error() {
    let mut bench = Bench::new();
    bench.part(0, None);
    let journal = bench.epoch().join(JOURNAL);
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replace("\"spool\":1", "\"spool\":9")).unwrap();
    let error = take_up(&bench.track()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    fs::write(&journal, &text[..10]).unwrap();
    assert_eq!(take_up(&bench.track()).unwrap(), None);
}

fn gap(from_tick: Tick, to_tick: Tick, reason: GapReason) -> Gap {
    Gap { from_tick, to_tick, reason }
}

/// Writes an epoch of one part: a picture, then filler for `reason` up to the end of a part of 4 ticks.
fn write_epoch(dir: &Path, writer: &str, first_tick: Tick, holes: &[Gap], reason: GapReason) {
    let (sync, _jobs) = crossbeam_channel::bounded(4);
    let space = Arc::new(Space::new(dir.to_owned(), None));
    let spool = TrackSpool { dir: dir.to_owned(), writer: writer.to_owned(), sync, space };
    let line = epoch_line(first_tick, holes);
    let mut epoch = EpochWriter::create(&spool, line, b"init").unwrap();
    let segment = first_tick / 4;
    let part =
        Part { segment, opens: true, first_tick, ticks: 4, bytes: b"part".to_vec(), closes: false, independent: true };
    let runs = vec![
        Run::without_picture(first_tick, 1, RunKind::Picture, None),
        Run::without_picture(first_tick + 1, 3, RunKind::Filled, Some(reason)),
    ];
    let books = PartBooks { ledger: &Ledger::default(), last_at: Micros(first_tick * 500_000), runs };
    epoch.append(&part, books, || unreachable!("the segment stays open")).unwrap();
}

#[test]
fn gaps_have_their_reasons_again_written_or_not() {
    let dir = tempfile::tempdir().unwrap();
    write_epoch(dir.path(), "aaaaaa", 4, &[gap(0, 4, NotJoined)], CameraOff);
    // 18..20 is in no journal. What a line tells of ticks that are written is left out.
    let told = [gap(7, 12, CameraOff), gap(12, 18, ServerDown), gap(20, 22, SpoolFull)];
    write_epoch(dir.path(), "bbbbbb", 20, &told, Disconnected);
    write_epoch(dir.path(), "cccccc", 24, &[], CameraOff);
    let track = take_up(dir.path()).unwrap().unwrap();
    let expected = [
        gap(0, 4, NotJoined),
        gap(5, 12, CameraOff),
        gap(12, 18, ServerDown),
        gap(18, 20, Unknown),
        gap(21, 24, Disconnected),
        gap(25, 28, CameraOff),
    ];
    assert_eq!(track.gaps, expected);
    assert_eq!((track.first_tick, track.next_tick, track.off), (4, 28, Some(CameraOff)));
}

#[test]
fn a_spool_of_before_holes_were_told_is_read_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    write_epoch(dir.path(), "aaaaaa", 4, &[], Unknown);
    let track = take_up(dir.path()).unwrap().unwrap();
    assert_eq!(track.gaps, [gap(0, 4, NotJoined), gap(5, 8, Unknown)]);
    let journal = std::fs::read_to_string(dir.path().join("0000004-aaaaaa").join(JOURNAL)).unwrap();
    assert!(!journal.contains("holes"), "{journal}");
}

#[test]
fn a_source_is_off_through_restarts_until_something_else_happens() {
    let off = |gaps: &[Gap]| off_at(gaps, 30);
    assert_eq!(off(&[]), None);
    assert_eq!(off(&[gap(0, 30, NotJoined)]), Some(NotJoined));
    assert_eq!(off(&[gap(0, 10, CameraOff), gap(10, 30, ServerDown)]), Some(CameraOff));
    assert_eq!(off(&[gap(0, 9, CameraOff), gap(10, 30, ServerDown)]), None, "a picture lies between");
    assert_eq!(off(&[gap(0, 10, CameraOff), gap(10, 20, Disconnected), gap(20, 30, ServerDown)]), None);
    assert_eq!(off(&[gap(0, 29, CameraOff)]), None);
}
