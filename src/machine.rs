//! What the container may use: cores and memory, by its cgroup (v2, then v1), else by the machine.

use std::fs;
use std::num::NonZero;
use std::path::Path;

/// Cores that this process may use, by affinity and cgroup quota; at least one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes of memory that this process may use.
pub fn memory() -> u64 {
    memory_under(Path::new("/"))
}

fn memory_under(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let limit = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let machine = read("proc/meminfo")
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
            line.strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib * 1024);
    // In a container its own limit stands at the root of the mounted cgroup file system; "max" is no number.
    [limit("sys/fs/cgroup/memory.max"), limit("sys/fs/cgroup/memory/memory.limit_in_bytes")]
        .into_iter()
        .flatten()
        .fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory_under(root.path()), 1 << 30);
        write("proc/meminfo", "MemTotal:        2097152 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_under(root.path()), 2 << 30);
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(memory_under(root.path()), 2 << 30);
        write("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(memory_under(root.path()), 512 << 20);
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(memory_under(root.path()), 256 << 20);
    }
}
