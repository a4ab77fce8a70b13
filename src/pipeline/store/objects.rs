//! Objects of a recording in the media store: put whole, or not at all.

use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::io::AsyncReadExt;

use crate::clock::Clock;
use crate::metrics::{Metrics, Stage};

/// Files larger than this are uploaded in pieces of this size.
const PIECE: usize = 8 << 20;

/// Written and removed when a folder is opened.
const PROBE: &str = ".probe";

/// Who says in an error that an object is too large: no store does.
const TOO_LARGE: &str = "tilecast";

/// Whether [`Objects::get`] found the object, and did not read it for its size.
pub fn is_too_large(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { store: TOO_LARGE, .. })
}

/// Why an object is not in the store. Always worth another try.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The store's words.
    #[error("{key}: {source}")]
    Store {
        /// The object.
        key: String,
        /// The cause.
        source: object_store::Error,
    },
    /// The spool's file cannot be read.
    #[error("{path}: {source}")]
    Spool {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The media store, with what it counts.
#[derive(Clone)]
pub struct Objects {
    /// The backend.
    pub store: Arc<dyn ObjectStore>,
    /// Counts objects and bytes.
    pub metrics: Arc<Metrics>,
    /// Times the puts.
    pub clock: Arc<dyn Clock>,
}

impl Objects {
    /// Opens the store that `--store` names: a folder, made if it is not there.
    ///
    /// # Errors
    /// Text that names the address and the way out.
    pub fn open(address: &str, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Result<Objects, String> {
        let Some(path) = Objects::folder(address) else {
            let scheme = address.split("://").next().unwrap_or_default();
            return Err(format!("--store {address}: `{scheme}://` is not built in yet; give a folder or file:///..."));
        };
        std::fs::create_dir_all(path).map_err(|error| format!("--store {address}: cannot make the folder: {error}"))?;
        // A folder that cannot be written is told now, not by the first meeting.
        let probe = path.join(PROBE);
        std::fs::write(&probe, "")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|error| format!("--store {address}: cannot write to it: {error}"))?;
        let store = object_store::local::LocalFileSystem::new_with_prefix(path)
            .map_err(|error| format!("--store {address}: {error}"))?
            .with_fsync(true);
        Ok(Objects { store: Arc::new(store), metrics, clock })
    }

    /// The folder that `--store` names, where it names one.
    pub fn folder(address: &str) -> Option<&Path> {
        match address.split_once("://") {
            None => Some(Path::new(address)),
            Some(("file", path)) => Some(Path::new(path)),
            Some(_) => None,
        }
    }

    /// Reads a small object; `None` when there is none.
    ///
    /// # Errors
    /// Of the store; when it is larger than `bytes_max`.
    pub async fn get(&self, key: &Key, bytes_max: u64) -> Result<Option<Vec<u8>>, object_store::Error> {
        let object = match self.store.get(key).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            object => object?,
        };
        if object.meta.size > bytes_max {
            let source = format!("{} bytes are more than {bytes_max}", object.meta.size).into();
            return Err(object_store::Error::Generic { store: TOO_LARGE, source });
        }
        Ok(Some(object.bytes().await?.to_vec()))
    }

    /// Puts bytes.
    pub async fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<(), PutError> {
        let size = bytes.len() as u64;
        let start = self.clock.mono();
        self.store.put(key, PutPayload::from(bytes)).await.map_err(|source| self.failed(key, source))?;
        self.count(size, start);
        Ok(())
    }

    /// Puts a file of the spool, in pieces where it is large.
    pub async fn put_file(&self, key: &Key, path: &Path) -> Result<(), PutError> {
        let unreadable = |source| PutError::Spool { path: path.display().to_string(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        if size <= PIECE as u64 {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).await.map_err(unreadable)?;
            return self.put(key, bytes).await;
        }
        let start = self.clock.mono();
        let upload = self.store.put_multipart(key).await.map_err(|source| self.failed(key, source))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            upload.wait_for_capacity(2).await.map_err(|source| self.failed(key, source))?;
            upload.write(&buffer[..read]);
        }
        upload.finish().await.map_err(|source| self.failed(key, source))?;
        self.count(size, start);
        Ok(())
    }

    fn count(&self, bytes: u64, start: crate::media::Micros) {
        self.metrics.objects_put.inc();
        self.metrics.bytes_stored.inc_by(bytes);
        self.metrics.took(Stage::Put, self.clock.mono() - start);
    }

    fn failed(&self, key: &Key, source: object_store::Error) -> PutError {
        self.metrics.puts_failed.inc();
        PutError::Store { key: key.to_string(), source }
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.store)
    }
}
