//! Names in the store: every id becomes a safe key component, and no key leaves its prefix.

use sha2::{Digest, Sha256};

use crate::media::{Kind, Tick};

/// An id as a component of a key: itself where it is `[A-Za-z0-9_-]{1,64}`, else `x` and 16 hex digits of its SHA-256.
pub fn component(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) {
        return id.to_owned();
    }
    format!("x{}", hex(&Sha256::digest(id.as_bytes())[..8]))
}

/// The folder of a recording: its id as a component, and behind it `~2` and up where it goes on after its end.
pub fn recording(id: &str) -> String {
    match id.rsplit_once('~') {
        Some((base, n)) if !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}~{n}", component(base))
        }
        _ => component(id),
    }
}

/// The component of a track: `{participant}-{kind}`.
pub fn track(participant_id: &str, kind: Kind) -> String {
    format!("{}-{kind}", component(participant_id))
}

/// The folder of an epoch: its first tick, and the random name of the process that writes it.
pub fn epoch(first_tick: Tick, writer: &str) -> String {
    format!("{first_tick:07}-{writer}")
}

/// The name of a closed segment in its epoch's folder.
pub fn segment(number: i64) -> String {
    format!("{number:06}.m4s")
}

/// The number in the name of a closed segment.
pub fn segment_number(name: &str) -> Option<i64> {
    name.strip_suffix(".m4s")?.parse().ok()
}

/// The name of an init segment: it carries the hash of its bytes, so equal settings share one.
pub fn init(bytes: &[u8]) -> String {
    format!("init-{}.mp4", hex(&Sha256::digest(bytes)[..4]))
}

/// Lowercase hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_leave_their_component() {
        assert_eq!(component("16778240"), "16778240");
        assert_eq!(component("a_B-9"), "a_B-9");
        for id in ["", "..", "a/b", "a b", "ä", "../../etc/passwd", &"a".repeat(65)] {
            let safe = component(id);
            assert_eq!((safe.len(), safe.as_bytes()[0]), (17, b'x'), "{id}");
            assert!(safe.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
        assert_ne!(component("a/b"), component("a b"));
    }

    #[test]
    fn names_sort_by_time() {
        assert_eq!(epoch(12, "abcdef"), "0000012-abcdef");
        assert_eq!(segment(7), "000007.m4s");
        assert_eq!(track("100", Kind::Screenshare), "100-screenshare");
    }
}
