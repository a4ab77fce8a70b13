//! `tilecast simulate`: bots that speak Recall.ai's protocol, for load tests and for trying the server without a meeting.
//!
//! The plan is pure and seeded, the pictures carry their numbers, so what the server must put out can be computed.
//! In reading order: [`args`], [`mod@plan`], [`picture`], [`template`], [`source`], [`bot`], [`report`].

pub mod args;
pub mod bot;
pub mod finish;
pub mod picture;
pub mod plan;
pub mod readback;
pub mod report;
pub mod source;
pub mod template;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub use self::args::SimulateArgs;
use self::bot::Bot;
use self::plan::plan;
use self::report::Report;
use self::source::Pictures;
use crate::clock::{Clock, SystemClock};
use crate::media::Micros;

/// Why nothing was sent, or the report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
    /// Not an address of a WebSocket that can be dialed from here.
    #[error("--url {0}")]
    Url(String),
    /// The server let no bot in, for want of credentials.
    #[error(
        "the server answers {0}: give an ingest token of its, --url ws://host/ws/recall/?token=...; one without any \
         (403) lets this machine alone in, or everybody with --insecure"
    )]
    Locked(u16),
    /// The folder or the video cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Source {
        /// What was read.
        path: PathBuf,
        /// The system's or FFmpeg's words.
        why: String,
    },
    /// The folder or the video is empty.
    #[error("{} holds no picture", .0.display())]
    NoPictures(PathBuf),
    /// The server did not finish, or not as expected.
    #[error("{0}")]
    ReadBack(String),
    /// The system refused a thread, standard output or the report's file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the bots until all is sent or Ctrl-C, and prints the report. Fails when a bot gave up.
///
/// # Errors
/// When it cannot begin, or cannot write its report.
pub fn run(args: SimulateArgs) -> Result<ExitCode, SimulateError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    eprintln!("drawing pictures ...");
    let pictures = Arc::new(prepare(&args)?);
    let now = Duration::from_micros(SystemClock::new().unix().0.unsigned_abs());
    let prefix = args.recording_id.clone().unwrap_or_else(|| format!("sim-{:x}", now.as_secs()));
    let report = runtime.block_on(async {
        let (stop_sender, stop) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop_sender.send_replace(true);
            }
        });
        let progress = tokio::spawn(show_progress(args.duration, args.speed));
        let report = simulate(&args, &prefix, pictures, stop).await;
        progress.abort();
        report
    })?;
    writeln!(std::io::stdout(), "{report}")?;
    if let Some(path) = &args.report {
        let json = serde_json::to_string_pretty(&report).expect("numbers and strings are JSON");
        std::fs::write(path, json + "\n")?;
    }
    let mut well = report.gave_up == 0;
    if let Some(store) = &args.read_back {
        let found = runtime.block_on(finish::finish_and_read_back(&args, &prefix, store));
        well &= found.map_err(SimulateError::ReadBack)?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line every five seconds: a meeting at real time is long.
async fn show_progress(duration: Duration, speed: f64) {
    if speed <= 0.0 {
        return;
    }
    let every = Duration::from_secs(5);
    for n in 1.. {
        tokio::time::sleep(every).await;
        let media = (every * n).mul_f64(speed).min(duration);
        eprintln!("{:>4} s of {} s sent", media.as_secs(), duration.as_secs());
    }
}

/// Checks the options, then draws or reads the pictures: seconds of work on all cores.
///
/// # Errors
/// `Options`, `Url`, `Source`, `NoPictures`.
pub fn prepare(args: &SimulateArgs) -> Result<Pictures, SimulateError> {
    args.plan_options()?;
    let request = args.url.as_str().into_client_request().map_err(|error| SimulateError::Url(error.to_string()))?;
    if request.uri().scheme_str() != Some("ws") {
        return Err(SimulateError::Url("must begin with ws://: there is no TLS in the simulator".into()));
    }
    Pictures::prepare(args)
}

/// Runs the bots, whose recordings are called `{prefix}-0` and so on, until all is sent, or `stop` becomes true.
///
/// # Errors
/// `Options`, and `Locked` where no bot was let in.
pub async fn simulate(
    args: &SimulateArgs,
    prefix: &str,
    pictures: Arc<Pictures>,
    stop: watch::Receiver<bool>,
) -> Result<Report, SimulateError> {
    let options = args.plan_options()?;
    let now = Duration::from_micros(SystemClock::new().unix().0.unsigned_abs());
    let (mut bots, refused) = (JoinSet::new(), Arc::new(Once::new()));
    for index in 0..args.bots {
        // Bots of different meetings do not send at the same instants.
        let spread = plan::SPACING.0 * i64::from(index) / i64::from(args.bots);
        let spread = if args.speed > 0.0 && !args.in_phase { spread as f64 / args.speed } else { 0.0 };
        let bot = Bot {
            url: args.url.clone(),
            recording_id: format!("{prefix}-{index}"),
            bot_id: format!("{prefix}-bot-{index}"),
            // Whole milliseconds, as Recall writes them.
            origin: Micros((now.as_micros() as i64 + spread as i64) / 1000 * 1000),
            speed: args.speed,
            redial_delay: args.redial_delay,
            still: args.still,
            messages: plan(&options, index),
            pictures: pictures.clone(),
            refused: refused.clone(),
        };
        let stop = stop.clone();
        bots.spawn(async move {
            tokio::time::sleep(Duration::from_micros(spread as u64)).await;
            bot.run(stop).await
        });
    }
    let mut report = Report::default();
    while let Some(bot) = bots.join_next().await {
        match bot {
            Ok(bot) => report.add(&bot),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    match bot::LOCKED.iter().find(|status| report.refusals.contains_key(&format!("HTTP {status}"))) {
        Some(status) if report.connections == 0 => Err(SimulateError::Locked(*status)),
        _ => Ok(report),
    }
}
