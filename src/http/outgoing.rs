//! Sends what waits in the outbox as signed webhooks: in order per recording, again and again until they are taken.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::media::Micros;
use crate::metrics::Metrics;
use crate::pipeline::outbox::{Event, Outbox};
use crate::shutdown::Stopped;

use super::auth::Doors;

/// Requests that are under way at once.
const AT_ONCE: usize = 8;
/// A receiver that says nothing for so long has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Between the first failure and the next try; doubled with each, up to the last.
const RETRY_FIRST: Micros = Micros::from_secs(1);
const RETRY_LAST: Micros = Micros::from_secs(300);
/// After so many failures in a row (about three days) an event is given up, so that those behind it are told.
const TRIES_MAX: u32 = 870;

/// Where events go.
pub struct Receiver {
    /// Its address.
    pub url: reqwest::Url,
    /// What signs them.
    pub doors: Arc<Doors>,
}

/// What is known of the recordings whose first event failed.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    tries: u32,
    again_at: Micros,
}

/// How long to wait after so many failures; `share` from 0 to 1 scatters it over its last quarter, so that many do not come
/// at once.
fn pause(tries: u32, share: f64) -> Micros {
    let whole = RETRY_FIRST.0.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(RETRY_LAST.0);
    Micros((whole as f64 * (0.75 + 0.25 * share)) as i64)
}

/// Takes events out of the outbox.
pub struct Sender {
    outbox: Arc<Outbox>,
    receiver: Arc<Receiver>,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// One that has not begun.
///
/// # Errors
/// When there can be no client.
pub fn sender(
    outbox: Arc<Outbox>,
    receiver: Receiver,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<Sender, String> {
    // One for the whole process; it may be there from the store.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none()).build();
    let client = client.map_err(|error| format!("--webhook-url: {error}"))?;
    Ok(Sender { outbox, receiver: Arc::new(receiver), client, clock, metrics })
}

impl Sender {
    /// Sends until `stop`; what is not taken by then waits on disk.
    pub async fn run(self, mut stop: Stopped) {
        let Sender { outbox, receiver, client, clock, metrics } = self;
        let (mut under_way, mut busy) = (JoinSet::new(), HashSet::new());
        let mut failed: HashMap<String, Failed> = HashMap::new();
        loop {
            let now = clock.mono();
            let mut next = None;
            for event in outbox.heads() {
                if busy.contains(&event.recording) {
                    continue;
                }
                let again_at = failed.get(&event.recording).map_or(now, |failed| failed.again_at);
                if again_at > now {
                    next = Some(next.map_or(again_at, |next: Micros| next.min(again_at)));
                } else if busy.len() < AT_ONCE {
                    busy.insert(event.recording.clone());
                    let (client, receiver, unix) = (client.clone(), Arc::clone(&receiver), clock.unix());
                    under_way.spawn(async move {
                        let taken = send(&client, &receiver, &event, unix).await;
                        (event, taken)
                    });
                }
            }
            let sleep = next.map_or(RETRY_LAST, |next| next - now);
            tokio::select! {
                () = outbox.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_micros(sleep.0.max(0) as u64)) => {}
                Some(Ok((event, taken))) = under_way.join_next(), if !under_way.is_empty() => {
                    busy.remove(&event.recording);
                    settle(&outbox, &mut failed, event, taken, clock.mono(), &metrics).await;
                }
                () = stop.wait() => return,
            }
        }
    }
}

async fn settle(
    outbox: &Arc<Outbox>,
    failed: &mut HashMap<String, Failed>,
    event: Arc<Event>,
    taken: Result<(), String>,
    now: Micros,
    metrics: &Metrics,
) {
    if let Err(error) = taken {
        metrics.event_told("failed");
        let failed = failed.entry(event.recording.clone()).or_default();
        failed.tries += 1;
        if failed.tries.is_power_of_two() {
            tracing::warn!(id = event.id, error, tries = failed.tries, "an event was not taken");
        }
        if failed.tries < TRIES_MAX {
            failed.again_at = now + pause(failed.tries, rand::random());
            return;
        }
        metrics.event_told("given_up");
        tracing::error!(id = event.id, "an event is given up");
    } else {
        metrics.event_told("taken");
    }
    failed.remove(&event.recording);
    let outbox = Arc::clone(outbox);
    let done = tokio::task::spawn_blocking(move || outbox.done(&event.id)).await;
    if let Ok(Err(error)) = done {
        tracing::warn!(%error, "the outbox cannot be written; an event will be told once more");
    }
}

/// Sends one; any 2xx is taken. The error has no address in it: that may hold a secret.
async fn send(client: &reqwest::Client, receiver: &Receiver, event: &Event, unix: Micros) -> Result<(), String> {
    let timestamp = unix.0.div_euclid(1_000_000).to_string();
    let signature = receiver.doors.sign_event(&event.id, &timestamp, event.body.as_bytes()).ok_or("no secret")?;
    let request = client
        .post(receiver.url.clone())
        .header("content-type", "application/json")
        .header("user-agent", concat!("tilecast/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &event.id)
        .header("webhook-timestamp", &timestamp)
        .header("webhook-signature", signature)
        .body(event.body.clone());
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("the receiver answers {}", answer.status().as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_last_three_days() {
        let secs: Vec<i64> = (1..=11).map(|tries| pause(tries, 1.0).0 / 1_000_000).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(5, 0.0), Micros::from_secs(12));
        assert_eq!(pause(u32::MAX, 1.0), RETRY_LAST);
        let all: i64 = (1..TRIES_MAX).map(|tries| pause(tries, 0.9).0).sum();
        assert!((69..76).contains(&(all / 3_600_000_000)), "{} hours", all / 3_600_000_000);
    }
}
