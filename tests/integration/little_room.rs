//! A spool that is smaller than the meeting, beside a cloud's store: what the store has leaves the spool before the end, and
//! is read back for the MP4; with the store away captures are shed, and all goes on when it is back.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use tilecast::media::Kind;
use tilecast::pipeline::store::keys::hex;
use tilecast::pipeline::store::manifest::State;

use crate::bot::{Bot, Camera, at};
use crate::harness::{Folders, Server, files, until};
use crate::s3::{Fault, S3};
use crate::store_faults::{Poller, check_stored, media, serve};
use crate::store_whole::run;

/// Of which an eighth is kept for journals and playlists.
const QUOTA: u64 = 512 << 10;
const FLAGS: [&str; 4] = ["--spool-quota", "512KiB", "--store-timeout", "2s"];

/// Closed segments of which the spool has nothing but the name.
fn left(spool: &Path) -> usize {
    let sizes = files(spool).into_iter().filter(|(name, _)| name.ends_with(".m4s"));
    sizes.filter(|(_, path)| path.metadata().is_ok_and(|meta| meta.len() == 0)).count()
}

/// Closed segments and init segments that the spool has.
fn kept(spool: &Path) -> BTreeMap<String, String> {
    let nothing = hex(&Sha256::digest([]));
    media(spool).into_iter().filter(|(_, hash)| *hash != nothing).collect()
}

async fn used(server: &Server) -> u64 {
    server.metrics().await.get("tilecast_spool_used_bytes") as u64
}

async fn is_full(server: &Server) -> bool {
    server.get("/readyz").await.status == 503
}

/// Sends whole segments from this tick on until `enough`; gives the next tick.
async fn send_until(server: &Server, bot: &mut Bot, first: u32, enough: impl AsyncFn(u32) -> bool) -> u32 {
    let camera = Camera::new(3, Kind::Webcam);
    for tick in first..first + 4000 {
        bot.send_tick("long", 100, &camera, tick).await;
        if tick % 12 == 11 {
            bot.taken().await;
            server.drained("long").await;
            if enough(tick + 1).await {
                return tick + 1;
            }
        }
    }
    panic!("4000 pictures are not enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_may_be_longer_than_the_spool_is_large() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let mut server = serve(&s3, &folders, &FLAGS).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let spool = folders.spool().join("long");
    let mut spooled = kept(&spool);
    let stored = s3.bucket().join("recordings/long");
    let mut tick = 0;
    for life in 1..=2 {
        let bytes = || files(&stored).values().map(|path| path.metadata().map_or(0, |meta| meta.len())).sum::<u64>();
        while bytes() < life * 3 * QUOTA / 2 {
            tick = send_until(&server, &mut bot, tick, async |_| true).await;
            spooled.extend(kept(&spool));
            until("there is room for more", || async { (used(&server).await < QUOTA * 3 / 4).then_some(()) }).await;
        }
        assert!(left(&spool) > 0, "something left the spool");
        if life == 1 {
            // A later process understands what it finds.
            server.kill().await;
            server = serve(&s3, &folders, &FLAGS).await;
            bot = Bot::connect(&server.ws()).await;
        }
    }
    bot.close().await;
    assert_eq!(server.recording("long").await["tracks"][0]["ledger"]["discarded"], serde_json::json!({}));
    // The store is in no hurry, nor without faults, when it is to give all of it back.
    s3.fault("GET", ".m4s", Fault::Status(500, "InternalError"), 3);
    s3.fault("GET", ".m4s", Fault::Reset, 1);
    let manifest = server.finish("long").await;
    assert_eq!(s3.faults_left(), 0, "segments were read back");
    check_stored(&s3, &manifest, &spooled);
    let ledger = &manifest.tracks[0].ledger;
    assert!(ledger.received == ledger.encoded && ledger.encoded + 2 >= u64::from(tick), "{ledger:?} of {tick}");
    let (code, said) = run(&s3, "verify", &[]).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_reached_with_the_store_away_is_left_behind_when_it_is_back() {
    let (mut s3, folders) = (S3::start().await, Folders::new());
    let server = serve(&s3, &folders, &FLAGS).await;
    let poller = Poller::start(s3.bucket().join("recordings/long"));
    let mut bot = Bot::connect(&server.ws()).await;
    let next = send_until(&server, &mut bot, 0, async |tick| tick >= 24).await;
    s3.go_away().await;
    let full = send_until(&server, &mut bot, next, async |_| is_full(&server).await).await;
    let next = send_until(&server, &mut bot, full, async |tick| tick >= full + 24).await;
    bot.send_event("long", 100, "webcam_off", at(next)).await;
    bot.taken().await;
    let spooled = kept(&folders.spool().join("long"));
    let shed = server.manifest("long").await.tracks[0].ledger.discarded["spool_full"];
    assert!(shed >= 24, "{shed}");
    s3.come_back().await;
    // Nobody ends a meeting, and nobody is asked.
    until("there is room", || async { (!is_full(&server).await).then_some(()) }).await;
    assert!(left(&folders.spool().join("long")) > 0);
    let camera = Camera::new(3, Kind::Webcam);
    // Further on than the clock went meanwhile.
    for tick in next + 480..next + 492 {
        bot.send_tick("long", 100, &camera, tick).await;
    }
    bot.taken().await;
    server.drained("long").await;
    let manifest = server.finish("long").await;
    assert_eq!(manifest.state, State::Finished);
    check_stored(&s3, &manifest, &spooled);
    let ledger = &manifest.tracks[0].ledger;
    // What was in no part yet when it was asked may be counted since.
    assert!(ledger.discarded["spool_full"] >= shed && ledger.received == u64::from(next) + 12, "{ledger:?}");
    assert_eq!(ledger.received, ledger.encoded + ledger.discarded["spool_full"]);
    let (code, said) = run(&s3, "verify", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(poller.versions().await >= 2);
}
