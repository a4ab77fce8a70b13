//! After the meeting: asks the server to finish its recordings, reads them back and prints what was found.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;

use super::SimulateArgs;
use super::plan::plan;
use super::readback::{TrackFound, read_back};
use crate::pipeline::store::manifest::{Manifest, State};

/// How long a recording may take to be finished. A local store takes seconds.
const FINISH_TRIES: u32 = 300;
const FINISH_POLL: Duration = Duration::from_millis(200);

/// Finishes the recordings of a simulation, and checks their files in the folder `store`. Says whether all is well.
///
/// # Errors
/// A sentence when the server does not answer, or not as expected.
pub async fn finish_and_read_back(args: &SimulateArgs, prefix: &str, store: &Path) -> Result<bool, String> {
    let options = args.plan_options().map_err(|error| error.to_string())?;
    let address: Uri = args.url.parse().map_err(|error| format!("--url {}: {error}", args.url))?;
    let host = address.authority().map(ToString::to_string).ok_or("--url has no host")?;
    let host = if address.port().is_some() { host } else { format!("{host}:80") };
    let mut well = true;
    for bot in 0..args.bots {
        let id = format!("{prefix}-{bot}");
        eprintln!("finishing {id} ...");
        let manifest = finish(&host, &id).await?;
        eprintln!("decoding {} tracks of {id} ...", manifest.tracks.len());
        let planned = plan(&options, bot);
        let folder = store.join(manifest.folder());
        let found = tokio::task::spawn_blocking(move || (read_back(&folder, &manifest, &planned), manifest));
        let (found, manifest) = found.await.map_err(|error| error.to_string())?;
        print(&id, &manifest, &found).map_err(|error| error.to_string())?;
        well &= found.iter().all(|track| track.faults.is_empty());
    }
    Ok(well)
}

async fn finish(host: &str, id: &str) -> Result<Manifest, String> {
    let path = format!("/api/v1/recordings/{id}");
    let (status, body) = request(host, Method::POST, &format!("{path}/finish")).await?;
    if !(200..300).contains(&status) {
        return Err(format!("the server answers {status} to finish {id}: {}", String::from_utf8_lossy(&body)));
    }
    for _ in 0..FINISH_TRIES {
        let (status, body) = request(host, Method::GET, &path).await?;
        if status == 200 {
            let manifest: Manifest = serde_json::from_slice(&body).map_err(|error| format!("{id}: {error}"))?;
            if manifest.state == State::Finished {
                return Ok(manifest);
            }
        }
        tokio::time::sleep(FINISH_POLL).await;
    }
    Err(format!("{id} is not finished after {} s", (FINISH_POLL * FINISH_TRIES).as_secs()))
}

async fn request(host: &str, method: Method, path: &str) -> Result<(u16, Bytes), String> {
    let failed = |error: &dyn std::fmt::Display| format!("http://{host}{path}: {error}");
    let stream = tokio::net::TcpStream::connect(host).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", host);
    // The entry that may do everything, where the server has tokens.
    let tokens = crate::config::entries("TILECAST_API_TOKEN", None).map_err(|error| failed(&error))?;
    let request = match tokens.iter().find(|token| !token.contains(':')) {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
    driver.abort();
    Ok((status, body))
}

fn print(id: &str, manifest: &Manifest, found: &[TrackFound]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{id}")?;
    writeln!(
        out,
        "  {:<24} {:>8} {:>6} {:>7} {:>9} {:>9}  file",
        "track", "pictures", "held", "filled", "duration", "size"
    )?;
    for track in found {
        let seconds = track.ticks as f64 / f64::from(manifest.fps);
        let size = format!("{:.1} MB", track.bytes as f64 / 1e6);
        writeln!(
            out,
            "  {:<24} {:>8} {:>6} {:>7} {:>7.1} s {:>9}  {}",
            track.track,
            track.pictures,
            track.held,
            track.filled,
            seconds,
            size,
            track.file.display()
        )?;
        if !track.missing.is_empty() {
            writeln!(out, "    sent and not shown: {:?}", track.missing)?;
        }
        track.faults.iter().try_for_each(|fault| writeln!(out, "    WRONG: {fault}"))?;
    }
    let faults: usize = found.iter().map(|track| track.faults.len()).sum();
    match faults {
        0 => writeln!(out, "  every picture was read back from MP4 and HLS, at its tick, and the books balance"),
        n => writeln!(out, "  {n} faults"),
    }
}
