//! The signal that tells tasks to end, and the two that the operating system sends us.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Rings once, for everybody who listens.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

/// Listens for [`Stop`].
#[derive(Clone, Debug)]
pub struct Stopped(watch::Receiver<bool>);

impl Stop {
    /// Not rung yet.
    pub fn new() -> Stop {
        Stop(watch::Sender::new(false))
    }

    /// Tells everybody.
    pub fn ring(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was rung.
    pub fn is_rung(&self) -> bool {
        *self.0.borrow()
    }

    /// A listener.
    pub fn listen(&self) -> Stopped {
        Stopped(self.0.subscribe())
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop::new()
    }
}

impl Stopped {
    /// Returns once the bell was rung, or when nobody is left to ring it.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|rung| *rung).await;
    }
}

/// SIGTERM and SIGINT, caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Catches them from here on. Before this they end the process at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch() -> std::io::Result<Signals> {
        Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
