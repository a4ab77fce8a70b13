//! `tilecast check`: proves the configuration that `serve` would run with: doors, TLS, events, spool, encoder, store.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Secrets};
use crate::metrics::Metrics;
use crate::pipeline::apart::apart;
use crate::pipeline::encode::x264;
use crate::pipeline::store::objects::Objects;
use crate::pipeline::store::prefix::Prefix;

use super::serve::proof::{log_filter, prove};

/// Begins the names of variables that say how a cloud's store is reached.
const CLOUD_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
/// Words in the names of variables whose values are nobody's business.
const SECRET: [&str; 6] = ["KEY", "SECRET", "TOKEN", "PASSWORD", "SAS", "CREDENTIAL"];

/// Prints the configuration and how each part of it does; exit code 1 when anything does not.
///
/// # Errors
/// When standard output is gone.
pub fn run(config: &Config, matches: &ArgMatches) -> Result<ExitCode, String> {
    let mut out = std::io::stdout().lock();
    let mut report = print_options(matches);
    report += &print_variables();
    writeln!(out, "{report}").map_err(|error| error.to_string())?;
    let mut well = true;
    let mut tell = |what: &str, done: Result<String, String>| {
        let (mark, said) = match &done {
            Ok(said) => ("ok  ", said),
            Err(why) => ("FAIL", why),
        };
        well &= done.is_ok();
        writeln!(out, "{mark} {what}{}{said}", if said.is_empty() { "" } else { ": " })
            .map_err(|error| error.to_string())
    };
    tell("log", log_filter(&config.log_level).map(|_| String::new()))?;
    let proof = prove(config, Vec::new(), SystemClock::new().unix());
    tell("credentials of bots", proof.doors.and_then(|_| credentials(config)))?;
    if config.doors.tls_cert.is_some() {
        tell("TLS", proof.tls.map(|_| String::new()))?;
    }
    if config.doors.webhook_url.is_some() {
        tell("events", proof.receiver.map(|_| String::new()))?;
    }
    tell(&format!("spool {}", config.spool.display()), spool(&config.spool))?;
    let opened = config.grid().map_err(|error| error.to_string());
    let opened = opened.and_then(|_| x264::check_all(config).map_err(|error| error.to_string()));
    tell(&format!("encoder {}", config.preset), opened.map(|()| String::new()))?;
    let prefix = config.store_prefix.parse::<Prefix>().map_err(|why| why.to_string());
    tell(&format!("store prefix {}", config.store_prefix), prefix.map(|_| String::new()))?;
    let clock = Arc::new(SystemClock::new());
    let objects = Objects::open(&config.store, &config.store_options, Arc::new(Metrics::new()), clock);
    match objects {
        Err(why) => tell("store", Err(why))?,
        Ok(objects) => {
            for (what, done) in probe(&objects, config.store.starts_with("s3://"))? {
                tell(&format!("store {}: {what}", config.store), done.map(|()| String::new()))?;
            }
            // Known once both folders are there.
            tell("store and spool", apart(config).map(|()| String::new()))?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was done, and how it went.
type Told = (&'static str, Result<(), String>);

/// The steps of the store's probe; on S3 each with the permissions that it needs where it fails.
fn probe(objects: &Objects, is_s3: bool) -> Result<Vec<Told>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start tokio: {error}"))?;
    let name = format!("{:016x}", rand::random::<u64>());
    let steps = runtime.block_on(objects.probe(&name));
    let told = steps.into_iter().map(|(step, done)| {
        let hint = if is_s3 { format!("\n     (this needs {})", step.needs()) } else { String::new() };
        (step.name(), done.map_err(|why| format!("{why}{hint}")))
    });
    Ok(told.collect())
}

/// Every option of `serve` as it is in effect, and where it comes from.
fn print_options(matches: &ArgMatches) -> String {
    let command = <Config as clap::Args>::augment_args(clap::Command::new("serve"));
    let mut text = String::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let values = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
        let mut value = values.collect::<Vec<_>>().join(",");
        if id == "webhook_url" {
            value = without_path(&value);
        }
        let from = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            // What the TOML file says becomes the default.
            _ => "default or file",
        };
        if !value.is_empty() {
            text += &format!("{:26} = {value}   ({from})\n", arg.get_long().unwrap_or(id));
        }
    }
    text
}

/// An address whose path and query may be a secret of the receiver's.
fn without_path(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(parsed) if parsed.has_host() => format!("{}/***", parsed.origin().ascii_serialization()),
        _ if url.is_empty() => String::new(),
        _ => "***".to_owned(),
    }
}

/// The variables of the clouds, without what is secret.
fn print_variables() -> String {
    let ours = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let mut ours: Vec<_> =
        ours.filter(|(name, _)| CLOUD_VARIABLES.iter().any(|start| name.starts_with(start))).collect();
    ours.sort();
    let line = |(name, value): &(String, std::ffi::OsString)| {
        let is_secret = SECRET.iter().any(|word| name.contains(word));
        let value = if is_secret { "***".into() } else { value.to_string_lossy() };
        format!("{name:26} = {value}   (environment)\n")
    };
    ours.iter().map(line).collect()
}

/// How many there are, by their kinds: where there is none, whom the door is open to.
fn credentials(config: &Config) -> Result<String, String> {
    let secrets = Secrets::read(&config.doors).map_err(|error| error.to_string())?;
    let (tokens, keys, recall) = (secrets.ingest_tokens.len(), secrets.ingest_keys.len(), secrets.recall.len());
    Ok(match tokens + keys + recall {
        0 if config.doors.insecure => "none, everybody is let in (--insecure)".to_owned(),
        0 => "none, this machine alone is let in".to_owned(),
        _ => format!("ingest tokens {tokens}, keys of derived tokens {keys}, secrets of Recall {recall}"),
    })
}

/// Writes a file and makes it durable, as the service does with every segment.
fn spool(folder: &Path) -> Result<String, String> {
    let probe = folder.join(format!(".check-{}", std::process::id()));
    let proved = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = std::fs::File::create(&probe)?;
        file.write_all(b"tilecast check\n")?;
        file.sync_all()?;
        std::fs::remove_file(&probe)?;
        std::fs::File::open(folder)?.sync_all()
    });
    proved.map_err(|error| error.to_string())?;
    let disk = rustix::fs::statvfs(folder).map_err(|error| error.to_string())?;
    Ok(format!("{} MiB free", (disk.f_bavail * disk.f_frsize) >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_with_a_secret_only_the_host_is_said() {
        for (url, said) in [
            ("", ""),
            ("https://hooks.example/T0/hush?key=hush", "https://hooks.example/***"),
            ("https://user:hush@hooks.example:8443/", "https://hooks.example:8443/***"),
            ("hush", "***"),
        ] {
            assert_eq!(without_path(url), said);
        }
    }
}
