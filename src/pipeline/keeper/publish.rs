//! Publishing live: each track on its own, so that none waits for another's request; its segments several at a time, and
//! named in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, FuturesUnordered, StreamExt};
use object_store::path::Path as Key;
use tokio::sync::Mutex;

use crate::config::Output;
use crate::media::Micros;
use crate::pipeline::Pipeline;
use crate::pipeline::lane::Lane;
use crate::pipeline::package::playlist::{Entry, Playlist};
use crate::pipeline::recording::Recording;
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::State;
use crate::pipeline::store::objects::{Class, RETRY_FIRST};
use crate::pipeline::store::spool::Closed;

use super::Keeper;
use super::back::has_left;
use super::published::{Published, Source, put, tell_losses};

/// A published playlist is read back only up to this size: some days of media.
const PLAYLIST_BYTES_MAX: u64 = 64 << 20;
/// Segments of a track that are on their way at once: after an outage there are many.
const AT_ONCE: usize = 4;

impl Keeper {
    /// Puts every durable segment, and after it the playlist that names it. Goes on with the other tracks while one of them
    /// waits for the store.
    pub(super) async fn publish(&mut self) {
        if !self.pipeline.makes(Output::Hls) {
            return self.note_spans().await;
        }
        let (pipeline, recording, resumed) = (Arc::clone(&self.pipeline), Arc::clone(&self.recording), self.resumed);
        let mut running = BTreeSet::new();
        let mut busy = FuturesUnordered::new();
        loop {
            // At the end of it all, the store gets what there is.
            let live = recording.state() == State::Live;
            let pace = if live && !pipeline.space.is_tight() { self.playlist_every().into() } else { Micros(0) };
            for lane in recording.lanes() {
                let published = Arc::clone(self.tracks.entry(lane.track.clone()).or_default());
                if running.contains(&lane.track) || !has_work(&pipeline, &lane, &published, pace) {
                    continue;
                }
                running.insert(lane.track.clone());
                let (pipeline, recording) = (&pipeline, &recording);
                busy.push(async move {
                    let publish = publish_lane(pipeline, recording, &lane, &published, resumed, pace);
                    lane.unless_deleted(publish).await;
                    lane.track.clone()
                });
            }
            let changed = async {
                // Who ends the media waits for the same bell.
                match recording.is_to_finish() {
                    true => std::future::pending().await,
                    false => recording.changed.notified().await,
                }
            };
            tokio::select! {
                track = busy.next() => match track {
                    Some(track) => running.remove(&track),
                    None => return,
                },
                () = changed => {
                    if recording.is_to_finish() {
                        recording.changed.notify_one();
                    }
                    self.write_state();
                    tell_losses(&recording);
                    true
                }
            };
        }
    }

    async fn note_spans(&mut self) {
        for lane in self.recording.lanes() {
            let published = Arc::clone(self.tracks.entry(lane.track.clone()).or_default());
            let mut published = published.lock().await;
            for closed in unpublished(&lane, &published) {
                published.note(&closed);
            }
        }
    }

    /// Ends a track's playlist, here and in the store.
    pub(super) async fn end_playlist(&self, lane: &Lane) {
        let Some(published) = self.tracks.get(&lane.track) else { return };
        let mut published = published.lock().await;
        if let Some(playlist) = &mut published.playlist {
            playlist.end();
        }
        show(&self.pipeline, lane, &published);
        put_playlist(&self.pipeline, &self.recording, lane, &mut published).await;
        if let Some(playlist) = &published.playlist {
            self.keep_beside(&format!("{}/index.m3u8", lane.track), playlist.text().as_bytes()).await;
        }
    }
}

fn unpublished(lane: &Lane, published: &Published) -> Vec<Closed> {
    lane.view(|view| view.closed.get(published.segments..).unwrap_or_default().to_vec())
}

/// Nobody holds the lock of a track that is not running.
fn has_work(pipeline: &Pipeline, lane: &Lane, published: &Mutex<Published>, pace: Micros) -> bool {
    let Ok(published) = published.try_lock() else { return false };
    lane.view(|view| view.closed.len() > published.segments) || is_due(pipeline, &published, pace)
}

/// Whether the store is to get a playlist that says more than the one it has.
fn is_due(pipeline: &Pipeline, published: &Published, pace: Micros) -> bool {
    let says_more = published.playlist.as_ref().is_some_and(|one| one.text().len() != published.playlist_bytes);
    says_more && published.playlist_at.is_none_or(|at| pipeline.clock.mono() - at >= pace)
}

/// Publishes a track until nothing is left of it.
async fn publish_lane(
    pipeline: &Pipeline,
    recording: &Recording,
    lane: &Lane,
    published: &Mutex<Published>,
    resumed: bool,
    pace: Micros,
) {
    let mut published = published.lock().await;
    loop {
        let closed = unpublished(lane, &published);
        if closed.is_empty() {
            break;
        }
        if resumed && !std::mem::replace(&mut published.asked, true) {
            let playlist = earlier_playlist(pipeline, recording, &lane.track).await;
            // The store has this text already.
            published.playlist_bytes = playlist.as_ref().map_or(0, |playlist| playlist.text().len());
            published.playlist = playlist;
        }
        publish_segments(pipeline, recording, lane, &mut published, closed).await;
        show(pipeline, lane, &published);
        note_stored(lane, &published);
        if is_due(pipeline, &published, pace) {
            put_playlist(pipeline, recording, lane, &mut published).await;
        }
    }
    if is_due(pipeline, &published, pace) {
        put_playlist(pipeline, recording, lane, &mut published).await;
    }
}

async fn publish_segments(
    pipeline: &Pipeline,
    recording: &Recording,
    lane: &Lane,
    published: &mut Published,
    closed: Vec<Closed>,
) {
    let folder = &recording.key(&lane.track);
    let named = published.playlist.as_ref().and_then(Playlist::end_tick).unwrap_or(-1);
    for one in closed.iter().filter(|one| one.end_tick() > named) {
        let init = &one.folder.init;
        if !published.inits.contains(init) {
            let path = one.folder.dir.with_file_name(init);
            put(pipeline, recording, Class::Live, format!("{folder}/{init}"), Source::File(&path)).await;
            published.inits.push(init.clone());
        }
    }
    let puts = stream::iter(closed).map(|one| async move {
        if one.end_tick() <= named {
            return (one, false);
        }
        let key = format!("{folder}/{}/{}", one.folder.name, keys::segment(one.number));
        let path = one.path();
        let there =
            has_left(path.clone()).await || put(pipeline, recording, Class::Live, key, Source::File(&path)).await;
        (one, there)
    });
    let mut puts = std::pin::pin!(puts.buffered(AT_ONCE));
    while let Some((one, is_new)) = puts.next().await {
        // What is gone from the spool was told: no playlist names what is nowhere.
        if is_new {
            // The origin is fixed by the first capture, long before a segment closes.
            let origin = recording.origin().unwrap_or_default();
            let playlist = published.playlist.get_or_insert_with(|| Playlist::new(recording.grid, origin));
            playlist.push(&Entry {
                epoch: one.folder.name.clone(),
                first_tick: one.first_tick,
                ticks: one.ticks,
                init: one.folder.init.clone(),
            });
        }
        published.note(&one);
    }
}

/// Shows the playlist as of now under `/media`, where the one in the store lags behind.
fn show(pipeline: &Pipeline, lane: &Lane, published: &Published) {
    if pipeline.objects.is_cloud() {
        let text = published.playlist.as_ref().map(|playlist| playlist.text().into());
        lane.view(|view| view.playlist = text);
    }
}

/// What an earlier process published of a track: asked for until the store answers, for all that was put before would be
/// put again.
async fn earlier_playlist(pipeline: &Pipeline, recording: &Recording, track: &str) -> Option<Playlist> {
    let key = Key::parse(recording.key(&format!("{track}/index.m3u8"))).ok()?;
    let mut wait = RETRY_FIRST;
    let text = loop {
        match pipeline.objects.get(&key, PLAYLIST_BYTES_MAX).await {
            Ok(text) => break text?,
            Err(error) => recording.note_uploads(1, Some(format!("{key}: {error}"))),
        }
        pipeline.objects.wait_again(&mut wait).await;
    };
    let text = String::from_utf8(text).ok()?;
    // One that does not read is written anew from the segments.
    Playlist::resume(recording.grid, recording.origin()?, &text).ok()
}

/// Puts a playlist that says more than the one in the store.
async fn put_playlist(pipeline: &Pipeline, recording: &Recording, lane: &Lane, published: &mut Published) {
    let Some(text) = published.playlist.as_ref().map(Playlist::text) else { return };
    let bytes = text.len();
    if bytes == published.playlist_bytes {
        return;
    }
    let key = recording.key(&format!("{}/index.m3u8", lane.track));
    put(pipeline, recording, Class::Live, key, Source::Bytes(text.as_bytes())).await;
    published.playlist_bytes = bytes;
    published.playlist_at = Some(pipeline.clock.mono());
    note_stored(lane, published);
}

/// What the playlist in the store names may leave the spool.
fn note_stored(lane: &Lane, published: &Published) {
    if published.playlist.as_ref().is_some_and(|playlist| playlist.text().len() == published.playlist_bytes) {
        lane.view(|view| view.stored = published.segments);
    }
}
