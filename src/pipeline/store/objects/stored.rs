//! Whether the store has what it was given. A cloud's answer to a PUT has a tag, in most stores the MD5 of the bytes that
//! were stored: one that differs is looked into by reading the object back. Sizes are compared by listing.
//!
//! Not here: writing it again, which is who put it's to do.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt;
use md5::{Digest, Md5};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Objects, PutError};

/// What the bytes of an object are: the MD5 of each of its pieces, and how long a piece is.
pub(super) struct Sums {
    /// Of the whole, where it is put as one.
    pub(super) pieces: Vec<[u8; 16]>,
    /// Bytes of every piece but the last.
    pub(super) piece: usize,
    /// Whether it is put in pieces, be it in one.
    pub(super) in_parts: bool,
}

impl Sums {
    /// Of an object that is put as one.
    pub(super) fn whole(bytes: &[u8]) -> Sums {
        Sums { pieces: vec![md5(bytes)], piece: usize::MAX, in_parts: false }
    }

    /// The tag that a store of S3's kind gives.
    fn tag(&self) -> String {
        match self.in_parts {
            false => hex(&self.pieces[0]),
            true => format!("{}-{}", hex(&md5(&self.pieces.concat())), self.pieces.len()),
        }
    }
}

/// The MD5 of bytes: against accidents, not against enemies.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    crate::pipeline::store::keys::hex(bytes)
}

/// Whether a tag may be an MD5, or one of MD5s.
fn may_be_md5(tag: &str) -> bool {
    let (digest, parts) = tag.split_once('-').unwrap_or((tag, "1"));
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    digest.len() == 32 && is_hex && parts.bytes().all(|byte| byte.is_ascii_digit())
}

impl Objects {
    /// Looks whether what the store says of an object that was just put is true of it.
    pub(super) async fn check(&self, key: &Key, tag: Option<&str>, sums: &Sums) -> Result<(), PutError> {
        let tag = tag.unwrap_or_default().trim_matches('"').to_lowercase();
        let told = &self.shared.tags_tell_nothing;
        if !self.is_cloud() || !may_be_md5(&tag) || tag == sums.tag() || told.load(Relaxed) {
            return Ok(());
        }
        // Keys of one's own (KMS) make tags that look the same and are not: only the bytes can tell.
        let found = self.read_sums(key, sums.piece).await.map_err(|source| self.failed(key, source))?;
        if found == sums.pieces {
            told.store(true, Relaxed);
            tracing::info!("the tags of this store are no MD5s: what it stores is checked by size alone");
            return Ok(());
        }
        self.metrics.store.damaged.inc();
        Err(PutError::Damaged { key: key.to_string() })
    }

    /// Whether the store has an object of this size with these bytes.
    pub(super) async fn has(&self, key: &Key, bytes: u64, sums: &Sums) -> Result<bool, PutError> {
        match self.in_time(self.store.head(key)).await {
            Ok(meta) if meta.size != bytes => return Ok(false),
            Ok(meta) if meta.e_tag.as_ref().is_some_and(|tag| tag.trim_matches('"') == sums.tag()) => return Ok(true),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(source) => return Err(self.failed(key, source)),
        }
        let found = self.read_sums(key, sums.piece).await.map_err(|source| self.failed(key, source))?;
        Ok(found == sums.pieces)
    }

    async fn read_sums(&self, key: &Key, piece: usize) -> Result<Vec<[u8; 16]>, object_store::Error> {
        let mut stream = self.in_time(self.store.get(key)).await?.into_stream();
        let (mut sums, mut md5, mut left) = (Vec::new(), Md5::new(), piece);
        while let Some(bytes) = self.in_time(async { stream.next().await.transpose() }).await? {
            let mut bytes = &bytes[..];
            while bytes.len() >= left {
                md5.update(&bytes[..left]);
                sums.push(md5.finalize_reset().into());
                (bytes, left) = (&bytes[left..], piece);
            }
            md5.update(bytes);
            left -= bytes.len();
        }
        if left < piece || sums.is_empty() {
            sums.push(md5.finalize().into());
        }
        Ok(sums)
    }

    /// The size of each object below a folder.
    ///
    /// # Errors
    /// Of the store.
    pub async fn sizes(&self, folder: &Key) -> Result<BTreeMap<String, u64>, object_store::Error> {
        let mut listed = self.store.list(Some(folder));
        let mut sizes = BTreeMap::new();
        while let Some(meta) = self.in_time(async { listed.next().await.transpose() }).await? {
            sizes.insert(meta.location.to_string(), meta.size);
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_s3_makes_of_the_bytes() {
        // Of RFC 1321, appendix A.5.
        assert_eq!(Sums::whole(b"abc").tag(), "900150983cd24fb0d6963f7d28e17f72");
        let parts = Sums { pieces: vec![md5(b"ab"), md5(b"c")], piece: 2, in_parts: true };
        let tag = parts.tag();
        assert!(tag.ends_with("-2") && may_be_md5(&tag), "{tag}");
        for tag in ["", "0x8DD5F0C1A2B3C4D", "1234-5-6", "CLDN/Oq0+oQDEAE=", "W/abc"] {
            assert!(!may_be_md5(tag), "{tag}");
        }
    }
}
