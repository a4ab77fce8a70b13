//! `tilecast serve`: the service, from its options to its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpListener;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, LogForm};
use crate::http::auth::Doors;
use crate::http::server::serve;
use crate::http::tls::Certificate;
use crate::http::wire::Wires;
use crate::http::{self, App};
use crate::machine;
use crate::pipeline::Pipeline;
use crate::shutdown::{Signals, Stop};

mod listeners;
pub(super) mod proof;

use proof::prove;

/// How long recordings may take to be suspended; the whole end stays under ten seconds.
const SUSPEND_LIMIT: Duration = Duration::from_secs(7);

/// In the spool: held by the process that works on it.
const LOCK: &str = ".lock";

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// Text that names the option and the way out.
pub fn run(config: Config) -> Result<ExitCode, String> {
    start_log(&config)?;
    let local = config.listen.ip().is_loopback();
    let _spool_is_ours = lock_spool(&config.spool)?;
    let (clock, grant_key) = (SystemClock::new(), listeners::grant_key(&config.spool)?);
    let proof = prove(&config, grant_key, clock.unix());
    let ready = Ready { doors: proof.doors?, tls: proof.tls?, receiver: proof.receiver? };
    if ready.doors.api_is_closed() && !local {
        tracing::warn!("without TILECAST_API_TOKEN the API, the page and the media are closed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(machine::cores().min(4))
        .thread_name("tokio")
        .build()
        .map_err(|error| format!("cannot start tokio: {error}"))?;
    let code = runtime.block_on(service(config, ready));
    // A store that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// What was proved.
struct Ready {
    doors: Doors,
    tls: Option<Certificate>,
    receiver: Option<Url>,
}

async fn service(config: Config, ready: Ready) -> Result<ExitCode, String> {
    // Before "ready": who reads that may send a signal.
    let mut signals = Signals::catch().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let listen = |address: std::net::SocketAddr, option: &'static str| async move {
        TcpListener::bind(address).await.map_err(|error| format!("{option} {address}: {error}"))
    };
    let public = listen(config.listen, "--listen").await?;
    let internal_listener = listen(config.internal_listen, "--internal-listen").await?;
    let address = public.local_addr().map_err(|error| format!("--listen: {error}"))?;
    let internal_address = internal_listener.local_addr().map_err(|error| format!("--internal-listen: {error}"))?;
    let Ready { doors, tls, receiver } = ready;
    let (pipeline, mut threads) = Pipeline::start(config, Arc::new(SystemClock::new()))?;
    let app = App {
        pipeline: Arc::clone(&pipeline),
        doors: Arc::new(doors),
        stop: Arc::default(),
        closing: Arc::default(),
        sockets: Arc::default(),
        // Beside what is in flight, and half of that: what is half received soon is in flight.
        wires: Wires::new(pipeline.budget.capacity() / 2),
    };
    tokio::spawn(Arc::clone(&app.doors).watch_files(app.stop.listen()));
    let (limits, inside) = listeners::limits(&pipeline.config, tls.as_ref());
    listeners::tell_events(&app, receiver)?;
    if let Some(certificate) = tls {
        tokio::spawn(certificate.watch(app.stop.listen()));
    }
    let scheme = if limits.tls.is_some() { "https" } else { "http" };
    let wires = Arc::clone(&app.wires);
    let listeners_end = Stop::new();
    let metrics = || Arc::clone(&pipeline.metrics);
    let public =
        tokio::spawn(serve(public, http::public(app.clone()), limits, wires, metrics(), listeners_end.listen()));
    let internal = http::internal(app.clone());
    let internal = serve(internal_listener, internal, inside, Wires::new(0), metrics(), listeners_end.listen());
    let internal = tokio::spawn(internal);
    tracing::info!(listen = %address, internal = %internal_address, "ready: the page is at {scheme}://{address}/");

    // Not within the macro: a log level that hides the line would not wait.
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    // A second signal ends the process at once: the spool is as good as after a crash.
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
    app.stop.ring();
    app.closing.ring();
    let sockets_gone = async {
        while app.sockets.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), sockets_gone).await;
    let all = pipeline.suspend(SUSPEND_LIMIT).await;
    if !all {
        tracing::warn!("not everything reached the store in time; it stays in the spool");
    }
    listeners_end.ring();
    // Requests that are under way have a second to end.
    let _ = tokio::time::timeout(Duration::from_secs(1), futures::future::join(public, internal)).await;
    if all {
        pipeline.stop_workers(&mut threads);
        drop((app, pipeline));
        // Ends at once unless a download still holds the pipeline; the process ends either way.
        let _ = tokio::time::timeout(Duration::from_secs(1), tokio::task::spawn_blocking(|| threads.join_last())).await;
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Takes the spool for this process alone, for as long as the file is open: two would ruin each other's recordings. A
/// spool that cannot be written is told here as well, before any bot comes.
fn lock_spool(spool: &Path) -> Result<File, String> {
    let named = |error: &dyn std::fmt::Display| format!("--spool {}: {error}", spool.display());
    std::fs::create_dir_all(spool).map_err(|error| named(&format!("cannot make the folder: {error}")))?;
    let file = File::options().create(true).append(true).open(spool.join(LOCK));
    let file = file.map_err(|error| named(&format!("cannot write to it: {error}")))?;
    let taken = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    taken.map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => named(&"another tilecast works on it; give each its own spool"),
        error => named(&format!("cannot lock it: {error}")),
    })?;
    Ok(file)
}

fn start_log(config: &Config) -> Result<(), String> {
    let filter = proof::log_filter(&config.log_level)?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    // A second start in one process (a test) keeps the first log.
    let _ = match config.log {
        LogForm::Text => log.try_init(),
        LogForm::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The file that `--config` or `TILECAST_CONFIG` names, looked up before the other options are read.
pub fn config_file(args: &[String]) -> Option<PathBuf> {
    let flag = args.iter().enumerate().find_map(|(n, arg)| match arg.strip_prefix("--config") {
        Some("") => args.get(n + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    flag.or_else(|| std::env::var("TILECAST_CONFIG").ok()).filter(|path| !path.is_empty()).map(PathBuf::from)
}
