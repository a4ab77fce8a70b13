//! What the container may use: cores, memory, open files, by its cgroup (v2 or v1) where that says less than the machine.
//!
//! A limit may stand at the process's own cgroup or at any above it; the smallest one counts. Where the process is, is told
//! by `/proc/self/cgroup`; within a container that path often does not exist, and its own limits stand at the root of what
//! is mounted.

use std::fs;
use std::num::NonZero;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::media::Micros;

/// Where cgroup file systems are mounted, and the files in them that are read.
const MOUNT: &str = "sys/fs/cgroup";
/// Memory of a machine that does not say how much it has.
const UNKNOWN_MEMORY: u64 = 1 << 30;
/// Open files of a process that may have any number.
const MANY_FILES: u64 = 1 << 20;

/// Cores that this process may use, by affinity and cgroup quota; at least one.
pub fn cores() -> usize {
    let affine = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores_under(Path::new("/")).map_or(affine, |quota| quota.min(affine))
}

/// Bytes of memory that this process may use.
pub fn memory() -> u64 {
    memory_under(Path::new("/"))
}

/// CPU that this thread has had.
pub fn thread_cpu() -> Micros {
    cpu(ClockId::ThreadCPUTime)
}

/// CPU that this process has had, all threads.
pub fn process_cpu() -> Micros {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Micros {
    let had = clock_gettime(clock);
    Micros(had.tv_sec * 1_000_000 + had.tv_nsec / 1000)
}

/// Takes as many open files as the process may have, and says how many those are.
pub fn files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Many a shell and service manager start with 1,024, for programs that are older than we are.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = if raised.is_ok() { limit.maximum } else { limit.current };
    usize::try_from(files.unwrap_or(MANY_FILES).min(MANY_FILES)).unwrap_or(usize::MAX)
}

/// The texts of `file`, from the process's cgroup up to the root of the mount. `controllers`: names of a v1 mount; none for
/// v2.
fn texts(root: &Path, controllers: &[&str], file: &str) -> Vec<String> {
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // `4:cpu,cpuacct:/path`, and of v2 `0::/path`.
    let place = memberships.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let is_ours =
            if controllers.is_empty() { names.is_empty() } else { names.split(',').any(|name| name == controllers[0]) };
        is_ours.then_some(path.trim_start_matches('/'))
    });
    let place = Path::new(place.unwrap_or_default());
    // Nothing outside of the mount is read, whatever the file says.
    let is_plain = place.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let place = if is_plain { place } else { Path::new("") };
    let mounts = if controllers.is_empty() { &["", "unified"] } else { controllers };
    let dirs = mounts.iter().flat_map(|mount| place.ancestors().map(move |dir| Path::new(MOUNT).join(mount).join(dir)));
    dirs.filter_map(|dir| fs::read_to_string(root.join(dir).join(file)).ok()).collect()
}

fn cores_under(root: &Path) -> Option<usize> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    // Without a quota v2 says `max`, v1 -1; neither is a number.
    let v2 = texts(root, &[], "cpu.max").into_iter().filter_map(|text| {
        let (quota, period) = text.split_once(' ')?;
        Some((number(quota)?, number(period)?))
    });
    let v1 = |file| texts(root, &["cpu", "cpu,cpuacct"], file);
    let v1 = v1("cpu.cfs_quota_us").into_iter().zip(v1("cpu.cfs_period_us"));
    let v1 = v1.filter_map(|(quota, period)| Some((number(&quota)?, number(&period)?)));
    let quotas = v2.chain(v1).filter(|(_, period)| *period > 0);
    quotas.map(|(quota, period)| usize::try_from(quota / period).unwrap_or(usize::MAX).max(1)).min()
}

fn memory_under(root: &Path) -> u64 {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
        line.strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let machine = machine.map_or(UNKNOWN_MEMORY, |kib| kib * 1024);
    let limits = [texts(root, &[], "memory.max"), texts(root, &["memory"], "memory.limit_in_bytes")].concat();
    // "max" is no number, and what v1 says without a limit is more than any machine has.
    limits.iter().filter_map(|text| text.trim().parse().ok()).fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    const MIB: u64 = 1 << 20;

    /// What lies where, and what follows: cores by quota, MiB of memory.
    type Case = (&'static str, &'static [(&'static str, &'static str)], Option<usize>, u64);

    const CASES: &[Case] = &[
        ("nothing is said", &[], None, 8192),
        (
            "v2, no limits",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/memory.max", "max\n"),
            ],
            None,
            8192,
        ),
        (
            "v2, a container with a namespace of its own",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cpu.max", "250000 100000\n"),
                ("sys/fs/cgroup/memory.max", "536870912\n"),
            ],
            Some(2),
            512,
        ),
        (
            "v2, less than a core",
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "50000 100000")],
            Some(1),
            8192,
        ),
        (
            "v2, a service; the slice above it has less memory, the service less cores",
            &[
                ("proc/self/cgroup", "0::/system.slice/tilecast.service\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "600000 100000\n"),
                ("sys/fs/cgroup/system.slice/tilecast.service/memory.max", "4294967296\n"),
                ("sys/fs/cgroup/system.slice/tilecast.service/cpu.max", "300000 100000\n"),
                ("sys/fs/cgroup/other.slice/memory.max", "1\n"),
            ],
            Some(3),
            1024,
        ),
        (
            "v2, the path of the host is not mounted here",
            &[("proc/self/cgroup", "0::/kubepods/pod1/abc\n"), ("sys/fs/cgroup/memory.max", "268435456\n")],
            None,
            256,
        ),
        (
            "v1, a container",
            &[
                ("proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
            Some(4),
            2048,
        ),
        (
            "v1, no limits",
            &[
                ("proc/self/cgroup", "5:memory:/\n4:cpu,cpuacct:/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
            None,
            8192,
        ),
        (
            "v1, a cgroup below the root",
            &[
                ("proc/self/cgroup", "9:memory:/jobs/tilecast\n8:cpu:/jobs/tilecast\n0::/\n"),
                ("sys/fs/cgroup/memory/jobs/tilecast/memory.limit_in_bytes", "134217728\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "200000\n"),
                ("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n"),
            ],
            Some(2),
            128,
        ),
        (
            "both at once: memory by v1, cores by v2",
            &[
                ("proc/self/cgroup", "7:memory:/a\n0::/a\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n"),
                ("sys/fs/cgroup/unified/a/cpu.max", "100000 50000\n"),
            ],
            Some(2),
            1024,
        ),
        (
            "rubbish",
            &[
                ("proc/self/cgroup", "0::/../../etc\nx\n:\n"),
                ("sys/fs/cgroup/cpu.max", "100000 0\n"),
                ("sys/fs/cgroup/memory.max", "much\n"),
                ("etc/memory.max", "1\n"),
            ],
            None,
            8192,
        ),
    ];

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        for (name, files, cores, mib) in CASES {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in [&[MACHINE], *files].concat() {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            assert_eq!((cores_under(root.path()), memory_under(root.path()) / MIB), (*cores, *mib), "{name}");
        }
    }

    #[test]
    fn a_machine_that_says_nothing_has_something() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((cores_under(root.path()), memory_under(root.path())), (None, UNKNOWN_MEMORY));
        assert!(cores() >= 1 && memory() > 0 && files() >= 64);
    }
}
