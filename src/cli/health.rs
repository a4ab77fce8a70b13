//! `tilecast health`: asks a server on this machine whether it is well, for containers that have no other program.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A server that says nothing for so long is not well.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Of an answer, its status line is enough.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Options of `health`.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthArgs {
    /// The server's --internal-listen
    #[arg(long, env = "TILECAST_INTERNAL_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub internal_listen: SocketAddr,

    /// The server's TOML file, for its `internal-listen`; below flags and environment, as there
    #[arg(long, env = "TILECAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Ask whether it takes bots (/readyz), and not only whether it is alive (/healthz)
    #[arg(long)]
    pub ready: bool,
}

/// `health` with the default of `serve`'s --internal-listen, which a TOML file may have set.
pub fn with_default_of(health: clap::Command, serve: &clap::Command) -> clap::Command {
    let listen = serve.get_arguments().find(|arg| arg.get_id() == "internal_listen");
    match listen.and_then(|arg| arg.get_default_values().first().cloned()) {
        Some(listen) => health.mut_arg("internal_listen", |arg| arg.default_value(listen)),
        None => health,
    }
}

/// Exit code 0 when it is well, 1 when it is not.
///
/// # Errors
/// None: what goes wrong is an answer, too.
pub fn run(args: &HealthArgs) -> Result<ExitCode, String> {
    let address = reachable(args.internal_listen);
    match ask(address, if args.ready { "/readyz" } else { "/healthz" }) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(ExitCode::SUCCESS),
        Ok(answer) => {
            eprintln!("{address}: {}", answer.lines().next().unwrap_or_default());
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!("{address}: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Who listens on every address is asked on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
