//! Recordings of a store that is no folder, as copies on this machine, one at a time: read object by object, and after a
//! repair what has changed is put back. Memory holds some chunks of some objects; the disk holds one recording.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::stream::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;

use crate::pipeline::store::objects::{Class, Objects, PutError, Source};

use super::{DEPTH_MAX, MANIFEST};

/// Objects that are read at a time.
const READS: usize = 8;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store.
    #[error("{0}")]
    Store(#[from] object_store::Error),
    /// The store did not take what was repaired.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The copy's files.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Io { path, source }
}

/// A copy of a recording, removed on drop.
#[derive(Debug)]
pub struct Copy {
    dir: tempfile::TempDir,
    prefix: Key,
    /// Every file, as it was copied.
    files: BTreeMap<String, (u64, SystemTime)>,
}

impl Copy {
    /// Where it lies: the folder is named as in the store.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join(self.prefix.filename().unwrap_or("recording"))
    }
}

/// The folders of recordings in a store: those with a manifest, down to some depth. One listing for each folder on the way.
///
/// # Errors
/// Of the store.
pub async fn recordings(objects: &Objects) -> Result<Vec<Key>, CopyError> {
    let (mut found, mut level) = (Vec::new(), vec![Key::default()]);
    for depth in 0..=DEPTH_MAX {
        let mut below = Vec::new();
        for folder in level {
            let root = Some(&folder).filter(|folder| !folder.as_ref().is_empty());
            let listed = objects.store.list_with_delimiter(root).await?;
            if listed.objects.iter().any(|meta| meta.location.filename() == Some(MANIFEST)) {
                found.push(folder);
            } else if depth < DEPTH_MAX {
                // Names of the server's own begin with an underscore.
                let other =
                    |folder: &Key| folder.filename().is_some_and(|name| name == "_" || !name.starts_with(['_', '.']));
                below.extend(listed.common_prefixes.into_iter().filter(other));
            }
        }
        level = below;
    }
    found.sort();
    Ok(found)
}

/// Copies a recording into a folder of its own below `aside`.
///
/// # Errors
/// Of the store or the file system.
pub async fn copy(objects: &Objects, prefix: &Key, aside: &Path) -> Result<Copy, CopyError> {
    let dir = tempfile::tempdir_in(aside).map_err(at(aside))?;
    let mut copy = Copy { dir, prefix: prefix.clone(), files: BTreeMap::new() };
    let folder = copy.folder();
    let root = Some(prefix).filter(|prefix| !prefix.as_ref().is_empty());
    let read = |meta: object_store::ObjectMeta| {
        let tail: Option<String> = meta
            .location
            .prefix_match(prefix)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        let path = tail.as_ref().map(|tail| folder.join(tail));
        async move {
            let (Some(tail), Some(path)) = (tail, path) else { return Ok(None) };
            read_object(objects, &meta.location, &path).await?;
            let meta = tokio::fs::metadata(&path).await.map_err(at(&path))?;
            Ok::<_, CopyError>(Some((tail, (meta.len(), meta.modified().map_err(at(&path))?))))
        }
    };
    let listed = objects.store.list(root).map_err(CopyError::Store).map_ok(read);
    let files: Vec<_> = listed.try_buffer_unordered(READS).try_collect().await?;
    copy.files = files.into_iter().flatten().collect();
    Ok(copy)
}

async fn read_object(objects: &Objects, key: &Key, path: &Path) -> Result<(), CopyError> {
    let folder = path.parent().unwrap_or(path);
    tokio::fs::create_dir_all(folder).await.map_err(at(folder))?;
    let mut file = tokio::fs::File::create(path).await.map_err(at(path))?;
    let mut bytes = objects.store.get(key).await?.into_stream();
    while let Some(chunk) = bytes.next().await {
        file.write_all(&chunk?).await.map_err(at(path))?;
    }
    file.flush().await.map_err(at(path))
}

/// Puts into the store what is another file now than was copied. Gives the keys.
///
/// # Errors
/// Of the store or the file system.
pub async fn put_back(objects: &Objects, copy: &Copy) -> Result<Vec<String>, CopyError> {
    let folder = copy.folder();
    let (mut put, mut folders) = (Vec::new(), vec![folder.clone()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).map_err(at(&next))? {
            let path = entry.map_err(at(&next))?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let meta = std::fs::metadata(&path).map_err(at(&path))?;
            let now = (meta.len(), meta.modified().map_err(at(&path))?);
            let Some(tail) = path.strip_prefix(&folder).ok().and_then(Path::to_str) else { continue };
            // A segment is never touched.
            if copy.files.get(tail) != Some(&now) && !tail.ends_with(".m4s") {
                put.push((path.clone(), tail.to_owned()));
            }
        }
    }
    // The manifest last, as ever.
    put.sort_by_key(|(_, tail)| (tail == MANIFEST, tail.clone()));
    let mut keys = Vec::new();
    for (path, tail) in put {
        let key = Key::parse(format!("{}/{tail}", copy.prefix)).map_err(object_store::Error::from)?;
        objects.upload(copy.prefix.as_ref(), Class::Finished, &key, Source::File(&path)).await?;
        keys.push(tail);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::StoreOptions;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_copy_is_whole_and_what_is_repaired_in_it_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let write = |key: &str, text: &str| {
            let path = store.join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let deep = "day=2026-01-01/_/r~2";
        for (key, text) in [
            ("r/recording.json", "manifest"),
            ("_live/_/r.json", "no recording"),
            ("other/file", "no recording"),
            (&format!("{deep}/recording.json"), "damaged"),
            (&format!("{deep}/1-webcam/0000000-abcdef/000000.m4s"), "segment"),
            (&format!("{deep}/1-webcam/index.m3u8"), "list"),
        ] {
            write(key, text);
        }
        let address = store.display().to_string();
        let (metrics, clock) = (Arc::new(Metrics::new()), Arc::<ManualClock>::default());
        let objects = Objects::open(&address, &StoreOptions::default(), metrics, clock).unwrap();
        let found = recordings(&objects).await.unwrap();
        assert_eq!(found.iter().map(Key::as_ref).collect::<Vec<_>>(), [deep, "r"]);
        let copy = copy(&objects, &found[0], dir.path()).await.unwrap();
        let folder = copy.folder();
        assert!(folder.ends_with("r~2"));
        assert_eq!(std::fs::read(folder.join("1-webcam/0000000-abcdef/000000.m4s")).unwrap(), b"segment");
        assert_eq!(put_back(&objects, &copy).await.unwrap(), Vec::<String>::new());
        // A repair writes aside and renames; it never writes a segment.
        std::fs::write(folder.join("recording.json"), "mended").unwrap();
        std::fs::write(folder.join("1-webcam/video.mp4"), "made again").unwrap();
        std::fs::write(folder.join("1-webcam/0000000-abcdef/000000.m4s"), "touched").unwrap();
        assert_eq!(put_back(&objects, &copy).await.unwrap(), ["1-webcam/video.mp4", "recording.json"]);
        let stored = |key: &str| std::fs::read_to_string(store.join(deep).join(key)).unwrap();
        assert_eq!(
            (stored("recording.json").as_str(), stored("1-webcam/video.mp4").as_str()),
            ("mended", "made again")
        );
        assert_eq!(stored("1-webcam/0000000-abcdef/000000.m4s"), "segment");
        drop(copy);
        assert!(!folder.exists());
    }
}
