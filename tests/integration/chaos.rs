//! Everything at once: eight tracks of two meetings, while the server is killed and told to stop, and their bots' sockets
//! are cut, stalled, half open and flooded, by a seeded plan. Whatever happens, every picture of a finished part is in
//! the final MP4 at its tick, `verify` finds nothing, and no player ever reads a wrong playlist.
//!
//! The short form runs with every test; `make chaos` runs the long one: the same code with `TILECAST_CHAOS_KILLS` and
//! `TILECAST_CHAOS_SEED` in the environment, at the server's own settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command as Process;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::State;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::harness::{Folders, Server, until};

mod faults;
mod poller;
mod sender;
mod survivors;

use faults::{Dice, Fault, Step, plan};
use poller::{Poller, Seen};
use sender::{Book, Command, Part, Seat, Sender, Sent};
use survivors::{Fates, Loss, Pictures, assert_kept, check, journaled, losses};

/// How large a run is.
struct Size {
    seed: u64,
    kills: u32,
    fps: u32,
    flags: &'static [&'static str],
    /// Milliseconds from fault to fault.
    pause: std::ops::Range<u64>,
}

impl Size {
    /// What the environment asks for; without it the short form, five times as fast as meetings are.
    fn of_environment() -> Size {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let seed = number("TILECAST_CHAOS_SEED").unwrap_or(1);
        match number("TILECAST_CHAOS_KILLS") {
            Some(kills) => Size { seed, kills: kills as u32, fps: 2, flags: &[], pause: 100..3500 },
            None => {
                let flags = &["--fps", "10", "--part", "200ms", "--segment", "1s"];
                Size { seed, kills: 6, fps: 10, flags, pause: 200..1000 }
            }
        }
    }
}

/// A bot, as the conductor has it.
struct Cast {
    part: Arc<Part>,
    book: Arc<Mutex<Book>>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    /// What the journals held at the last death.
    kept: Pictures,
    /// Sockets opened before this process.
    sockets_before: u32,
}

impl Cast {
    fn start(part: Part, url: &watch::Receiver<String>) -> Cast {
        let part = Arc::new(part);
        let (sender, book) = Sender::new(Arc::clone(&part), url.clone());
        let (commands, orders) = mpsc::channel(8);
        let task = tokio::spawn(sender.run(orders));
        Cast { part, book, commands, task, kept: Pictures::new(), sockets_before: 0 }
    }

    /// A process is gone, and left these journals.
    fn note_end(&mut self, journaled: Pictures) {
        assert_kept(&self.kept, &journaled);
        self.kept = journaled;
        self.sockets_before = self.book.lock().unwrap().sockets;
    }
}

/// What a run found.
#[derive(Default)]
struct Report {
    kills: u32,
    losses: Vec<Loss>,
    faults: BTreeMap<&'static str, u32>,
    /// Seconds of CPU that servers took, up to their deaths.
    cpu: f64,
    /// What the machine had done at the start.
    machine: (f64, f64),
}

/// Who carries the plan out.
struct Conductor {
    size: Size,
    folders: Folders,
    server: Server,
    url: watch::Sender<String>,
    casts: Vec<Cast>,
    poller: Poller,
    report: Report,
    start: Instant,
}

/// Four webcams and two screens in one meeting, two webcams in another, whose bot sends on the tick.
fn parts(fps: u32) -> [Part; 2] {
    let seats = |webcams: std::ops::Range<i64>, screens: std::ops::Range<i64>| {
        let webcams = webcams.map(|id| Seat::new(id, Kind::Webcam));
        webcams.chain(screens.map(|id| Seat::new(id, Kind::Screenshare))).collect()
    };
    [
        Part { recording: "chaos-a", seats: seats(100..104, 100..102), fps, jitter: 20 },
        Part { recording: "chaos-b", seats: seats(200..202, 0..0), fps, jitter: 0 },
    ]
}

impl Conductor {
    async fn start(size: Size) -> Conductor {
        let folders = Folders::new();
        let parts = parts(size.fps);
        let poller = Poller::start(parts.iter().map(|part| folders.recording(part.recording)).collect());
        let server = Server::start_in(&folders, size.flags, &[]).await;
        let (url, urls) = watch::channel(server.ws());
        let casts = parts.into_iter().map(|part| Cast::start(part, &urls)).collect();
        let report = Report { machine: machine(), ..Report::default() };
        let conductor = Conductor { size, folders, server, url, casts, poller, report, start: Instant::now() };
        conductor.all_send().await;
        conductor
    }

    /// Waits until every bot sends to this process.
    async fn all_send(&self) {
        for cast in &self.casts {
            until("a bot sends", || async {
                let book = cast.book.lock().unwrap();
                let sends = |sent: &Vec<Sent>| sent.last().is_some_and(|last| last.socket > cast.sockets_before);
                (book.connected && book.sent.iter().all(sends)).then_some(())
            })
            .await;
        }
    }

    async fn carry_out(&mut self, step: Step) {
        tokio::time::sleep(step.after).await;
        self.poller.check();
        *self.report.faults.entry(step.fault.name()).or_default() += 1;
        let command = match step.fault {
            Fault::Kill => return self.kill(None).await,
            Fault::KillTwice(again) => return self.kill(Some(again)).await,
            Fault::KillStopping(after) => return self.kill_stopping(after).await,
            Fault::KillHalfMessage => {
                let _ = self.casts[step.bot].commands.send(Command::HalfMessage).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                return self.kill(None).await;
            }
            Fault::Terminate => return self.terminate().await,
            Fault::Reset => Command::Reset,
            Fault::Fin => Command::Fin,
            Fault::Stall(time) => Command::Stall(time),
            Fault::HalfOpen(time) => Command::HalfOpen(time),
            Fault::Burst(seconds) => Command::Burst(seconds),
            Fault::Flip => Command::Flip,
        };
        self.casts[step.bot].commands.send(command).await.expect("the bot is there");
    }

    /// kill -9 and a start, which is killed too after `again`.
    async fn kill(&mut self, again: Option<Duration>) {
        let before = self.journaled();
        self.report.cpu += cpu_of(self.server.pid());
        let died = Instant::now();
        self.server.kill().await;
        self.note_death(&before, died);
        if let Some(again) = again {
            // Dropped, a server is killed.
            let _ = tokio::time::timeout(again, Server::start_in(&self.folders, self.size.flags, &[])).await;
            self.report.kills += 1;
        }
        self.restart().await;
    }

    async fn kill_stopping(&mut self, after: Duration) {
        let before = self.journaled();
        self.report.cpu += cpu_of(self.server.pid());
        let died = Instant::now();
        self.server.signal(Signal::TERM);
        tokio::time::sleep(after).await;
        self.server.kill().await;
        self.note_death(&before, died);
        self.restart().await;
    }

    fn journaled(&self) -> Vec<Pictures> {
        self.casts.iter().map(|cast| journaled(&self.folders, &cast.part)).collect()
    }

    /// Looks at what a death left.
    fn note_death(&mut self, before: &[Pictures], died: Instant) {
        self.report.kills += 1;
        for (cast, before) in self.casts.iter_mut().zip(before) {
            let now = journaled(&self.folders, &cast.part);
            assert_kept(before, &now);
            let lost = losses(&cast.part, &mut cast.book.lock().unwrap(), cast.sockets_before, &now, died);
            self.report.losses.extend(lost);
            cast.note_end(now);
        }
    }

    async fn terminate(&mut self) {
        self.report.cpu += cpu_of(self.server.pid());
        assert_eq!(self.server.terminate().await.code(), Some(0));
        for cast in &mut self.casts {
            let now = journaled(&self.folders, &cast.part);
            cast.note_end(now);
        }
        self.restart().await;
    }

    async fn restart(&mut self) {
        self.server = Server::start_in(&self.folders, self.size.flags, &[]).await;
        self.url.send_replace(self.server.ws());
        self.all_send().await;
    }

    /// The bots hang up, the recordings are finished; two kills come in between.
    async fn finish(&mut self) {
        for cast in &self.casts {
            until("a bot has a socket", || async { cast.book.lock().unwrap().connected.then_some(()) }).await;
            cast.commands.send(Command::End).await.expect("the bot is there");
        }
        for cast in &mut self.casts {
            (&mut cast.task).await.expect("the bot ends well");
            self.server.drained(cast.part.recording).await;
            cast.kept = journaled(&self.folders, &cast.part);
            // What is in no part yet may be lost to the kills below.
            let (book, now) = (&mut cast.book.lock().unwrap(), Instant::now());
            let _ = losses(&cast.part, book, cast.sockets_before, &cast.kept, now);
        }
        let mut dice = Dice::new(self.size.seed, 0xe4d);
        for _ in 0..2 {
            self.ask_to_finish().await;
            tokio::time::sleep(dice.millis(0..150)).await;
            self.server.kill().await;
            self.report.kills += 1;
            *self.report.faults.entry("kill -9 while finishing").or_default() += 1;
            self.server = Server::start_in(&self.folders, self.size.flags, &[]).await;
            self.poller.check();
        }
        self.ask_to_finish().await;
        for cast in &self.casts {
            let id = cast.part.recording;
            until(&format!("{id} is finished"), || async {
                self.folders.manifest(id).filter(|manifest| manifest.state == State::Finished)
            })
            .await;
        }
        self.report.cpu += cpu_of(self.server.pid());
        // Everything is said once it has ended.
        assert_eq!(self.server.terminate().await.code(), Some(0));
    }

    async fn ask_to_finish(&self) {
        for cast in &self.casts {
            let path = format!("/api/v1/recordings/{}/finish", cast.part.recording);
            let answer = self.server.post(&path).await;
            assert!(matches!(answer.status, 200 | 202), "{path}: {} {}", answer.status, answer.text());
        }
    }

    /// Tells how far it is, where that takes minutes.
    fn tell(&self, step: usize, steps: usize) {
        if step.is_multiple_of(15) {
            let (kills, seconds) = (self.report.kills, self.start.elapsed().as_secs());
            eprintln!("chaos: {seconds} s, step {step} of {steps}, {kills} of {} kills", self.size.kills);
        }
    }
}

/// Seconds of CPU that a process took so far (proc(5): in hundredths, whatever the kernel's own ticks are).
fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Seconds times cores that the machine was busy, with anything, and idle since it started (proc(5)).
fn machine() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().expect("a line for all cores").split_whitespace().skip(1).take(8);
    let times: Vec<f64> = fields.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).collect();
    let idle = times[3] + times[4];
    (times.iter().sum::<f64>() - idle, idle)
}

fn tell_losses(losses: &[Loss], which: &str, of: fn(&Loss) -> bool) {
    let mut losses: Vec<&Loss> = losses.iter().filter(|loss| of(loss)).collect();
    losses.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let Some(worst) = losses.last() else { return };
    // The nearest rank: at least that share of all is not above it.
    let at = |share: f64| losses[((losses.len() as f64 * share).ceil() as usize).clamp(1, losses.len()) - 1].seconds;
    eprintln!(
        "  media lost per kill and track, {which} ({}): p50 {:.1} s, p95 {:.1} s, at most {:.1} s ({})",
        losses.len(),
        at(0.5),
        at(0.95),
        worst.seconds,
        worst.what
    );
}

fn tell(report: &Report, size: &Size, seen: &Seen, fates: &[Fates], seconds: f64) {
    let sum = |of: fn(&Fates) -> u64| fates.iter().map(of).sum::<u64>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!("chaos: seed {}, {} pictures a second, {} kills -9 in {seconds:.0} s", size.seed, size.fps, report.kills);
    tell_losses(&report.losses, "all", |_| true);
    tell_losses(&report.losses, "more than 3 s after a disturbance", |loss| loss.calm);
    eprintln!(
        "  {} playlist versions in {} looks, every one whole and a prefix of the next",
        seen.versions, seen.looks
    );
    eprintln!(
        "  {} pictures sent, {} in MP4s, {} discarded and booked, {} lost with a process or a socket",
        sum(|fates| fates.sent),
        sum(|fates| fates.encoded),
        sum(|fates| fates.discarded),
        sum(|fates| fates.unknown)
    );
    let ((busy, idle), before) = (machine(), report.machine);
    let (busy, idle) = (busy - before.0, idle - before.1);
    eprintln!(
        "  the servers took {:.0} % of {cores} cores, all that ran there {:.0} %",
        report.cpu / seconds / cores as f64 * 100.0,
        busy / (busy + idle) * 100.0
    );
    report.faults.iter().for_each(|(name, count)| eprintln!("  {name}: {count}"));
}

/// `tilecast verify`, as an operator runs it.
fn verify(store: &Path) {
    let output = Process::new(env!("CARGO_BIN_EXE_tilecast")).arg("verify").arg("--json").arg(store).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{json:#}");
    assert_eq!(json["recordings"].as_array().map(Vec::len), Some(2), "two meetings, two recordings: {json:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_every_complete_part_survives() {
    let mut conductor = Conductor::start(Size::of_environment()).await;
    let size = &conductor.size;
    let steps = plan(size.seed, size.kills, conductor.casts.len(), size.pause.clone());
    for (n, step) in steps.iter().enumerate() {
        conductor.carry_out(*step).await;
        conductor.tell(n + 1, steps.len());
    }
    conductor.finish().await;
    let seconds = conductor.start.elapsed().as_secs_f64();
    let Conductor { size, folders, casts, poller, report, .. } = conductor;
    poller.check();
    let seen = poller.end();
    assert_eq!(seen.wrong, None);
    assert_eq!(seen.last.len(), 8, "every track has a playlist");
    assert!(seen.last.values().all(|text| text.ends_with("#EXT-X-ENDLIST\n")));
    verify(&folders.store());
    let mut fates: Vec<Fates> = Vec::new();
    for cast in &casts {
        let book = std::mem::take(&mut *cast.book.lock().unwrap());
        fates.push(check(&folders, &cast.part, &book, &cast.kept).await);
    }
    tell(&report, &size, &seen, &fates, seconds);
}
