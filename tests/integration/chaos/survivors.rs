//! What must survive: the pictures that the journals held when the process died, and at the end all that was sent, in
//! the books or excused by a death.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tilecast::media::{Micros, Tick};
use tilecast::pipeline::store::journal::{PartLine, Run, RunKind};
use tilecast::pipeline::store::manifest::{Manifest, State};
use tilecast::pipeline::store::spool::JOURNAL;

use super::sender::{Book, Part};
use crate::harness::Folders;
use crate::playback::{Shown, check_finished, lines};

/// The number of the picture at each tick, by track.
pub type Pictures = BTreeMap<String, BTreeMap<Tick, u32>>;

/// The number of the picture that a run of one shows: the tick that it was sent for.
fn number(part: &Part, run: &Run) -> u32 {
    let relative = run.relative.expect("a picture has its time");
    (relative * f64::from(part.fps)).round() as u32
}

/// The pictures in the finished parts of a recording, as its journals have them: whole lines count.
pub fn journaled(folders: &Folders, part: &Part) -> Pictures {
    let recording = folders.spool().join(part.recording);
    let mut found = Pictures::new();
    for seat in &part.seats {
        let pictures = found.entry(seat.track()).or_default();
        for epoch in std::fs::read_dir(recording.join(seat.track())).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read_to_string(epoch.path().join(JOURNAL)) else { continue };
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            for line in whole.lines().skip(1) {
                let line: PartLine = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                for run in line.runs.iter().filter(|run| run.kind == RunKind::Picture) {
                    let twice = pictures.insert(run.tick, number(part, run));
                    assert_eq!(twice, None, "{}: tick {} has two pictures", seat.track(), run.tick);
                }
            }
        }
    }
    found
}

/// Asserts that nothing that was there is gone or another.
pub fn assert_kept(before: &Pictures, after: &Pictures) {
    for (track, pictures) in before {
        for (tick, number) in pictures {
            assert_eq!(after[track].get(tick), Some(number), "{track}: tick {tick} was in a finished part");
        }
    }
}

/// What a death cost a track.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Media, in seconds.
    pub seconds: f64,
    /// Nothing had happened to its bot for a while.
    pub calm: bool,
    /// When and where.
    pub what: String,
}

/// A socket is calm after this time: a tick after a hole waits for its picture for `--settle`, 1 s, and then the part
/// that it is in for its end.
const CALM: Duration = Duration::from_secs(3);

/// The media that a death at `died` cost each track, in seconds: from the last tick in the journals to the last picture
/// sent before. `sockets_before`: those of earlier processes. What may have been lost is excused.
pub fn losses(part: &Part, book: &mut Book, sockets_before: u32, journaled: &Pictures, died: Instant) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (n, seat) in part.seats.iter().enumerate() {
        let from = book.sent[n].partition_point(|sent| sent.socket <= sockets_before);
        let sent = &mut book.sent[n][from..];
        let durable: BTreeSet<u32> = journaled[&seat.track()].values().copied().collect();
        let last_durable = sent.iter().rposition(|sent| durable.contains(&sent.number));
        sent[last_durable.map_or(0, |last| last + 1)..].iter_mut().for_each(|sent| sent.excused = true);
        let Some(first) = sent.first() else { continue };
        // What was not sent while no process was there is lost to nobody.
        let last = last_durable.map_or(i64::from(first.number) - 1, |last| i64::from(sent[last].number));
        let before = sent.iter().filter(|sent| sent.whole && sent.at <= died).map(|sent| i64::from(sent.number)).max();
        let seconds = (before.unwrap_or(last) - last).max(0) as f64 / f64::from(part.fps);
        let since = died.saturating_duration_since(book.disturbed.unwrap_or(died));
        let what = format!("{} after picture {last}, {} ms after a disturbance", seat.track(), since.as_millis());
        losses.push(Loss { seconds, calm: since >= CALM, what });
    }
    losses
}

/// How the pictures of a recording ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    /// Sent whole.
    pub sent: u64,
    /// In the MP4s.
    pub encoded: u64,
    /// In the books, and not in the MP4s.
    pub discarded: u64,
    /// In nobody's books.
    pub unknown: u64,
}

/// Checks a finished recording against what its bot sent and what the journals held at each death.
pub async fn check(folders: &Folders, part: &Part, book: &Book, kept: &Pictures) -> Fates {
    let manifest = folders.manifest(part.recording).unwrap();
    assert_eq!(manifest.state, State::Finished, "{}: a finished recording stays so", part.recording);
    let shown = check_finished(folders, &manifest).await;
    let mut fates = Fates::default();
    for (n, seat) in part.seats.iter().enumerate() {
        let track = seat.track();
        for (tick, number) in &kept[&track] {
            let label = seat.camera().label(*number);
            let now = shown[&track][*tick as usize];
            assert_eq!(now, Shown::Number(label), "{track}: tick {tick} was in a finished part");
        }
        check_pictures(folders, part, book, n, &shown[&track]);
        let ledger = &crate::playback::track(&manifest, &track).ledger;
        let sent = &book.sent[n];
        let count = |which: &dyn Fn(&&super::sender::Sent) -> bool| sent.iter().filter(which).count() as u64;
        let (all, excused) = (count(&|_| true), count(&|sent| sent.excused));
        assert!(
            (all - excused..=all).contains(&ledger.received),
            "{track}: {all} were sent, {excused} of them into a death, and the books have {ledger:?}"
        );
        let whole = count(&|sent| sent.whole);
        fates.sent += whole;
        fates.encoded += ledger.encoded;
        fates.discarded += ledger.received - ledger.encoded;
        fates.unknown += whole.saturating_sub(ledger.received);
    }
    assert_tracks(part, &manifest);
    fates
}

fn assert_tracks(part: &Part, manifest: &Manifest) {
    let tracks: BTreeSet<&str> = manifest.tracks.iter().map(|track| track.track.as_str()).collect();
    assert_eq!(tracks, part.seats.iter().map(|seat| seat.track()).collect::<Vec<_>>().iter().map(|s| &**s).collect());
}

/// Every picture of a track's MP4 is one that was sent, once, and less than a tick from its time; exactly on it where
/// the bot sends on the tick.
fn check_pictures(folders: &Folders, part: &Part, book: &Book, n: usize, shown: &[Shown]) {
    let seat = &part.seats[n];
    let track = seat.track();
    let sent: BTreeSet<u32> = book.sent[n].iter().map(|sent| sent.number).collect();
    assert_eq!(sent.len(), book.sent[n].len(), "{track}: a bot replays nothing");
    let runs: Vec<Run> = lines(&folders.recording(part.recording).join(&track).join("ticks.jsonl"));
    let mut seen = BTreeSet::new();
    for run in runs.iter().filter(|run| run.kind == RunKind::Picture) {
        let number = number(part, run);
        let what = format!("{track}: tick {}, picture {number}", run.tick);
        assert_eq!(shown[run.tick as usize], Shown::Number(seat.camera().label(number)), "{what}");
        assert!(sent.contains(&number), "{what} was never sent");
        assert!(seen.insert(number), "{what} is there twice");
        let relative = part.relative(n, number);
        assert_eq!(run.relative.and_then(Micros::from_secs_f64), Some(relative), "{what}");
        let off = relative.0 * i64::from(part.fps) - run.tick * 1_000_000;
        assert!(off.abs() < 1_000_000 && (part.jitter > 0 || off == 0), "{what} is {off} micro-ticks off");
    }
}
