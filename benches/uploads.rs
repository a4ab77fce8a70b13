//! Finished objects into an S3 store: our uploads beside `aws s3 cp --recursive`, against the same local server.
//!
//!     cargo bench --bench uploads -- [OBJECTS] [BYTES]
//!
//! The server runs in this process; each client is a process of its own, and is timed from its start to its end.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it prints figures, and times by the machine's clock"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use object_store::path::Path as Key;
use tilecast::clock::SystemClock;
use tilecast::config::StoreOptions;
use tilecast::metrics::Metrics;
use tilecast::pipeline::store::objects::{Class, Objects, Source};

#[path = "../tests/integration/s3.rs"]
#[expect(dead_code, reason = "the tests' server can do more than serve")]
mod s3;

use s3::S3;

/// Objects that wait for their turn at once, as those of many tracks do.
const WAITING: usize = 256;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upload", folder, store] => runtime.block_on(upload(Path::new(folder), store)),
        ref sizes => {
            let number = |n: usize, usual: usize| sizes.get(n).map_or(usual, |text| text.parse().unwrap());
            runtime.block_on(compare(number(0, 10_000), number(1, 100_000)));
        }
    }
}

/// The most memory this process ever had, in MiB.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Puts every file of a folder, as the keepers of recordings do.
async fn upload(folder: &Path, store: &str) {
    let (metrics, clock) = (Arc::new(Metrics::new()), Arc::new(SystemClock::new()));
    let objects = Objects::open(store, &StoreOptions::default(), metrics, clock).unwrap();
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let objects = &objects;
    let puts = futures::stream::iter(names.into_iter().enumerate()).map(|(n, path)| async move {
        let key = Key::from_iter(["ours", path.file_name().unwrap().to_str().unwrap()]);
        let recording = format!("recording-{}", n % 10);
        objects.upload(&recording, Class::Live, &key, Source::File(&path)).await.unwrap();
    });
    puts.buffer_unordered(WAITING).for_each(|()| async {}).await;
    println!("  memory at most: {} MiB", memory_peak());
}

async fn compare(objects: usize, bytes: usize) {
    let s3 = S3::start().await;
    let files = tempfile::tempdir().unwrap();
    for n in 0..objects {
        let content: Vec<u8> = (0..bytes).map(|at| (at * 31 + n) as u8).collect();
        std::fs::write(files.path().join(format!("{n:06}.m4s")), content).unwrap();
    }
    let mut ours = Command::new(std::env::current_exe().unwrap());
    ours.arg("upload").arg(files.path()).arg(s3.url());
    let mut theirs = Command::new("aws");
    theirs.args(["s3", "cp", "--recursive", "--only-show-errors", "--endpoint-url"]);
    theirs.arg(format!("http://{}", s3.address)).arg(files.path()).arg(format!("{}/aws", s3.url()));
    let mut rates = Vec::new();
    for (name, mut command) in [("tilecast", ours), ("aws s3 cp", theirs)] {
        command.envs(s3.variables()).env("AWS_DEFAULT_REGION", "us-east-1");
        let start = Instant::now();
        let done = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
        match done {
            Ok(status) => assert!(status.success(), "{name} failed"),
            Err(error) => {
                println!("{name}: {error} (Debian: apt-get install awscli)");
                continue;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name}: {objects} objects of {bytes} bytes in {seconds:.1} s, {:.0} a second",
            objects as f64 / seconds
        );
        rates.push(objects as f64 / seconds);
    }
    let stored =
        |folder: &str| std::fs::read_dir(s3.bucket().join("recordings").join(folder)).map_or(0, Iterator::count);
    println!("in the store: {} of ours, {} of aws", stored("ours"), stored("aws"));
    if let [ours, theirs] = rates[..] {
        println!("ours over theirs: {:.2}", ours / theirs);
    }
}
