//! What the listeners of `serve` need beside the pipeline: limits, the key of grants, and the sender of events.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use reqwest::Url;

use crate::config::Config;
use crate::http::App;
use crate::http::census::Census;
use crate::http::outgoing::{self, Receiver};
use crate::http::server::Limits;
use crate::http::tls::Certificate;
use crate::machine;

/// In the spool: the key of playback grants, where none is given.
const GRANT_KEY: &str = ".grant-key";
const GRANT_KEY_BYTES: usize = 32;

/// Connections that ask for metrics at a time.
const INTERNAL_MAX: usize = 64;

/// What the public and the internal listener grant their connections.
pub(super) fn limits(config: &Config, tls: Option<&Certificate>) -> (Limits, Limits) {
    let public = Limits {
        header_timeout: config.header_timeout,
        peer_timeout: config.peer_timeout,
        // The other half is for the files of lanes and uploads.
        connections_max: config.connections_max.map_or(machine::files() / 2, |max| max as usize),
        census: Census::new(config.doors.address_connections_max as usize),
        tls: tls.map(Certificate::acceptor),
    };
    let census = Census::new(INTERNAL_MAX);
    let internal = Limits { connections_max: INTERNAL_MAX, census, tls: None, ..public.clone() };
    (public, internal)
}

/// Sends events to the receiver, where there is one.
///
/// # Errors
/// When there can be no client.
pub(super) fn tell_events(app: &App, receiver: Option<Url>) -> Result<(), String> {
    let pipeline = &app.pipeline;
    let (Some(url), Some(outbox)) = (receiver, pipeline.outbox()) else { return Ok(()) };
    let receiver = Receiver { url, doors: Arc::clone(&app.doors) };
    let sender = outgoing::sender(outbox, receiver, Arc::clone(&pipeline.clock), Arc::clone(&pipeline.metrics))?;
    tokio::spawn(sender.run(app.stop.listen()));
    Ok(())
}

/// The key of playback grants that this spool's server has for itself, made where there is none.
///
/// # Errors
/// Of the spool's file.
pub(super) fn grant_key(spool: &Path) -> Result<Vec<u8>, String> {
    let path = spool.join(GRANT_KEY);
    let named = |error: std::io::Error| format!("--spool {}: {GRANT_KEY}: {error}", spool.display());
    match std::fs::read(&path) {
        Ok(key) if key.len() >= GRANT_KEY_BYTES => return Ok(key),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(error)),
    }
    std::fs::create_dir_all(spool).map_err(named)?;
    let key: [u8; GRANT_KEY_BYTES] = rand::random();
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(named)?;
    file.write_all(&key).map_err(named)?;
    Ok(key.to_vec())
}
