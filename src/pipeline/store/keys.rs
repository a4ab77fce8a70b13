//! Names in the store: every id becomes a safe key component, and no key leaves its prefix. Who a recording is, and the
//! keys and folders that follow from that alone.
//!
//! Not here: the prefix under which its objects lie, which an operator words ([`super::prefix`]).

use sha2::{Digest, Sha256};

use crate::media::{Kind, Tick};

/// Recordings that are not ended, one small object each.
pub const LIVE: &str = "_live";
/// Recordings that are ended, one small object each.
pub const ENDED: &str = "_ended";
/// Stands where there is no id.
pub const NOBODY: &str = "_";

/// Who a recording is: Recall's id, with `~2` and up where it goes on after its end, within a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The tenant whose token the bot came with.
    pub tenant: Option<String>,
    /// Recall's id, with `~2` and up.
    pub id: String,
}

impl Name {
    /// One of this tenant.
    pub fn new(tenant: Option<&str>, id: &str) -> Name {
        Name { tenant: tenant.map(str::to_owned), id: id.to_owned() }
    }

    /// The recording that goes on from so many others.
    pub fn nth(&self, n: u32) -> Name {
        let id = if n == 1 { self.id.clone() } else { format!("{}~{n}", self.id) };
        Name { tenant: self.tenant.clone(), id }
    }

    /// What the API and `/media` call it: its id, with `tenant:` in front where it has one.
    pub fn address(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("{tenant}:{}", self.id),
            None if self.id.contains(':') => format!(":{}", self.id),
            None => self.id.clone(),
        }
    }

    /// The recording that an address names. No tenant's name has a colon.
    pub fn from_address(address: &str) -> Name {
        match address.split_once(':') {
            Some((tenant, id)) => Name::new(Some(tenant).filter(|tenant| !tenant.is_empty()), id),
            None => Name::new(None, address),
        }
    }

    /// Its folder in the spool. No component has a `+`.
    pub fn spool_folder(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("{}+{}", component(tenant), recording(&self.id)),
            None => recording(&self.id),
        }
    }

    /// The key of its small object in [`LIVE`] or [`ENDED`].
    pub fn entry(&self, list: &str) -> String {
        let tenant = self.tenant.as_deref().map_or_else(|| NOBODY.to_owned(), component);
        format!("{list}/{tenant}/{}.json", recording(&self.id))
    }
}

impl From<&str> for Name {
    fn from(id: &str) -> Name {
        Name::new(None, id)
    }
}

/// An id as a component of a key: itself where it is `[A-Za-z0-9_-]{1,64}` and no word of ours, else `x` and 16 hex digits
/// of its SHA-256.
pub fn component(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) && ![LIVE, ENDED, NOBODY].contains(&id) {
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

/// Six random base32 characters: the name of a process in the store.
pub fn random_name() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let random: [u8; 6] = rand::random();
    random.iter().map(|byte| LETTERS[usize::from(byte & 31)] as char).collect()
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
        for id in ["", "..", "a/b", "a b", "ä", "../../etc/passwd", "_live", "_ended", "_", &"a".repeat(65)] {
            let safe = component(id);
            assert_eq!((safe.len(), safe.as_bytes()[0]), (17, b'x'), "{id}");
            assert!(safe.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
        assert_ne!(component("a/b"), component("a b"));
    }

    #[test]
    fn no_two_recordings_share_an_address_a_folder_or_an_entry() {
        let names = [
            Name::new(None, "r"),
            Name::new(Some("acme"), "r"),
            Name::new(Some("other"), "r"),
            Name::new(None, "acme:r"),
            Name::new(None, "acme+r"),
            Name::new(Some("acme"), "r~2"),
            Name::new(Some("_"), "r"),
            Name::new(Some("ac/me"), "r"),
        ];
        for name in &names {
            assert_eq!(Name::from_address(&name.address()), *name);
        }
        let all = |of: &dyn Fn(&Name) -> String| names.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(all(&Name::spool_folder), names.len());
        assert_eq!(all(&|name| name.entry(LIVE)), names.len());
        assert_eq!(names[0].entry(LIVE), "_live/_/r.json");
        assert_eq!(names[5].entry(ENDED), "_ended/acme/r~2.json");
        assert_eq!(names[1].nth(2), names[5]);
    }

    #[test]
    fn names_sort_by_time() {
        assert_eq!(epoch(12, "abcdef"), "0000012-abcdef");
        assert_eq!(segment(7), "000007.m4s");
        assert_eq!(track("100", Kind::Screenshare), "100-screenshare");
    }
}
