//! Files that may change while the process runs, such as secrets and certificates: one loop reads them again and again.

use std::sync::Arc;
use std::time::Duration;

use crate::shutdown::Stopped;

/// Calls `read` every so often until `stop`; it says whether something is new. What cannot be read or understood changes
/// nothing, and is logged once. `what` is what is read, for the log.
pub async fn read_again_and_again(
    what: &'static str,
    every: Duration,
    read: impl Fn() -> Result<bool, String> + Send + Sync + 'static,
    mut stop: Stopped,
) {
    let read = Arc::new(read);
    let mut every = tokio::time::interval(every);
    let mut said = None;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.wait() => return,
        }
        let read = Arc::clone(&read);
        let read = tokio::task::spawn_blocking(move || read()).await.unwrap_or_else(|error| Err(error.to_string()));
        let failed = match read {
            Ok(changed) => {
                if changed {
                    tracing::info!("{what} read again: there are new ones");
                }
                None
            }
            Err(error) => Some(error),
        };
        if failed != said
            && let Some(error) = &failed
        {
            tracing::error!(error, "{what} could not be read again; those from before hold");
        }
        said = failed;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::shutdown::Stop;

    #[tokio::test]
    async fn it_reads_on_after_what_failed_and_ends_when_it_is_told_to() {
        let (reads, stop) = (Arc::new(AtomicUsize::new(0)), Stop::new());
        let counts = Arc::clone(&reads);
        let read = move || match counts.fetch_add(1, SeqCst) {
            1 => Err("gone".to_owned()),
            2 => panic!("a bug"),
            n => Ok(n == 3),
        };
        let reading = tokio::spawn(read_again_and_again("things", Duration::from_micros(10), read, stop.listen()));
        while reads.load(SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
        stop.ring();
        reading.await.unwrap();
    }
}
