//! The store goes away in the middle of four meetings, first refusing and then silent, and the server is killed in the middle
//! of each outage: all of it arrives, byte by byte, and no player ever reads a playlist that is wrong.
//!
//! `make outage` is the long form, at real-time pace and with the server's own settings: ten minutes each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::State;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, PATIENCE, Server, files};
use crate::s3::{Fault, S3};
use crate::store_faults::{Poller, check_stored, media, serve};
use crate::store_whole::run;

const RECORDINGS: [&str; 4] = ["out-a", "out-b", "out-c", "out-d"];

/// How long it takes.
struct Size {
    /// Each outage.
    outage: Duration,
    /// Before, between and after them.
    calm: Duration,
    /// From tick to tick.
    pace: Duration,
    flags: &'static [&'static str],
}

impl Size {
    /// What the environment asks for; else the short form, ten times as fast as meetings are.
    fn of_environment() -> Size {
        match std::env::var("TILECAST_OUTAGE_SECONDS") {
            Ok(seconds) => {
                let outage = Duration::from_secs(seconds.parse().expect("a number of seconds"));
                let calm = (outage / 4).clamp(Duration::from_secs(15), Duration::from_secs(60));
                Size { outage, calm, pace: Duration::from_millis(500), flags: &[] }
            }
            Err(_) => Size {
                outage: Duration::from_secs(3),
                calm: Duration::from_secs(1),
                pace: Duration::from_millis(50),
                flags: &["--store-timeout", "1s", "--store-playlist-every", "500ms"],
            },
        }
    }
}

/// Four meetings of two, and where they are.
struct Meetings {
    size: Size,
    server: Server,
    bots: Vec<Bot>,
    cameras: [Camera; 2],
    tick: u32,
    /// What was in the spool, each time that it was looked at.
    spooled: Vec<BTreeMap<String, String>>,
}

impl Meetings {
    async fn start(size: Size, s3: &S3, folders: &Folders) -> Meetings {
        let server = serve(s3, folders, size.flags).await;
        let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
        let mut meetings =
            Meetings { size, server, bots: Vec::new(), cameras, tick: 0, spooled: vec![BTreeMap::new(); 4] };
        meetings.dial().await;
        meetings
    }

    async fn dial(&mut self) {
        self.bots.clear();
        for _ in RECORDINGS {
            self.bots.push(Bot::connect(&self.server.ws()).await);
        }
    }

    /// Everybody sends, at their pace.
    async fn go_on(&mut self, time: Duration) {
        let mut every = tokio::time::interval(self.size.pace);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let start = Instant::now();
        while start.elapsed() < time {
            every.tick().await;
            for (bot, recording) in self.bots.iter_mut().zip(RECORDINGS) {
                for (n, camera) in self.cameras.iter().enumerate() {
                    bot.send_tick(recording, 100 + n as i64, camera, self.tick).await;
                }
            }
            self.tick += 1;
        }
    }

    fn look(&mut self) {
        for (recording, spooled) in RECORDINGS.iter().zip(&mut self.spooled) {
            spooled.extend(media(&self.server.folders.spool().join(recording)));
        }
    }

    /// kill -9 and a start; the bots dial again.
    async fn die(&mut self, s3: &S3) {
        for recording in RECORDINGS {
            self.server.drained(recording).await;
        }
        self.look();
        let folders = self.server.folders.clone();
        self.server.kill().await;
        self.server = serve(s3, &folders, self.size.flags).await;
        self.dial().await;
    }

    /// An outage with a death in the middle; returns how long the store took to have all when it was back.
    async fn outage(&mut self, s3: &mut S3, hangs: bool) -> Duration {
        let half = self.size.outage / 2;
        match hangs {
            false => s3.go_away().await,
            true => ["GET", "HEAD", "PUT", "POST", "DELETE"]
                .iter()
                .for_each(|method| s3.fault(method, "", Fault::Hang, usize::MAX)),
        }
        self.go_on(half).await;
        self.die(s3).await;
        self.go_on(half).await;
        self.look();
        let back = Instant::now();
        match hangs {
            false => s3.come_back().await,
            true => s3.heal(),
        }
        let has_all = |spooled: &[BTreeMap<String, String>]| {
            RECORDINGS.iter().zip(spooled).all(|(recording, spooled)| {
                let stored = files(&s3.bucket().join("recordings").join(recording));
                spooled.keys().all(|name| stored.contains_key(name))
            })
        };
        while !has_all(&self.spooled) {
            // A request that hangs is given up after the server's own 30 s.
            assert!(back.elapsed() < 3 * PATIENCE, "the store does not get what was kept");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        back.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_meetings_arrive_whole_through_two_outages_and_two_deaths() {
    let (mut s3, folders) = (S3::start().await, Folders::new());
    let pollers = RECORDINGS.map(|recording| Poller::start(s3.bucket().join("recordings").join(recording)));
    let mut meetings = Meetings::start(Size::of_environment(), &s3, &folders).await;
    let calm = meetings.size.calm;
    meetings.go_on(calm).await;
    let refusing = meetings.outage(&mut s3, false).await;
    meetings.go_on(calm).await;
    let hanging = meetings.outage(&mut s3, true).await;
    meetings.go_on(calm).await;
    for recording in RECORDINGS {
        meetings.server.drained(recording).await;
    }
    meetings.look();
    let mut objects = 0;
    for (recording, spooled) in RECORDINGS.iter().zip(&meetings.spooled) {
        let manifest = meetings.server.finish(recording).await;
        assert_eq!((manifest.state, manifest.tracks.len()), (State::Finished, 2));
        check_stored(&s3, &manifest, spooled);
        objects += spooled.len();
    }
    let mut versions = 0;
    for poller in pollers {
        versions += poller.versions().await;
    }
    let (code, said) = run(&s3, "verify", &[]).await;
    assert_eq!((code, said.matches("all is well").count()), (Some(0), 4), "{said}");
    eprintln!(
        "outages of {:?}, ticks {}: {objects} segments as in the spool, {versions} playlist versions without a fault; all \
         there {refusing:.1?} after the store refused, {hanging:.1?} after it was silent",
        meetings.size.outage, meetings.tick
    );
}
