//! Objects of a recording in the media store: put whole, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as Key;
use object_store::{
    Attributes, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, WriteMultipart,
};
use tokio::io::AsyncReadExt;

use crate::clock::Clock;
use crate::config::StoreOptions;
use crate::metrics::{Metrics, Stage};

mod address;
mod cloud;
pub mod headers;

use address::Address;

/// Files larger than this are uploaded in pieces of this size.
const PIECE: usize = 8 << 20;

/// Written and removed when a folder is opened.
const PROBE: &str = ".probe";

/// Whose error it is where no store said it.
const OURS: &str = "tilecast";

/// Whether [`Objects::get`] found the object, and did not read it for its size.
pub fn is_too_large(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. } if source.is::<TooLarge>())
}

/// An object has more bytes than may be read.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes are more than {bytes_max}")]
struct TooLarge {
    bytes: u64,
    bytes_max: u64,
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
    /// The backend. Its own requests end only when it is silent: see [`Objects::put`] for those that end in time.
    pub store: Arc<dyn ObjectStore>,
    /// Counts objects and bytes.
    pub metrics: Arc<Metrics>,
    /// Times the puts.
    pub clock: Arc<dyn Clock>,
    /// The store is reached over HTTP: it keeps headers with an object, and each request has its price.
    is_cloud: bool,
    options: Arc<StoreOptions>,
}

impl Objects {
    /// Opens the store that `--store` names: a folder, made if it is not there; or a cloud's, of which nothing is asked yet.
    ///
    /// # Errors
    /// Text that names the address and the way out.
    pub fn open(
        address: &str,
        options: &StoreOptions,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Objects, String> {
        let parsed = Address::parse(address)?;
        let is_cloud = matches!(parsed, Address::Bucket { .. });
        let store = match parsed {
            Address::Folder(path) => open_folder(&path),
            Address::Bucket { cloud, bucket, prefix } => cloud::open(cloud, &bucket, prefix, options.store_timeout),
        };
        let store = store.map_err(|why| format!("--store {address}: {why}"))?;
        Ok(Objects { store, metrics, clock, is_cloud, options: Arc::new(options.clone()) })
    }

    /// The folder that `--store` names, where it names one.
    pub fn folder(address: &str) -> Option<PathBuf> {
        match Address::parse(address) {
            Ok(Address::Folder(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether the store is reached over HTTP.
    pub fn is_cloud(&self) -> bool {
        self.is_cloud
    }

    /// Waits for the store's answer, as long as one request may take.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, object_store::Error> {
        let limit = self.options.store_timeout;
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(object_store::Error::Generic { store: OURS, source: format!("no answer within {limit:?}").into() })
        })
    }

    /// Reads a small object; `None` when there is none.
    ///
    /// # Errors
    /// Of the store; when it is larger than `bytes_max`.
    pub async fn get(&self, key: &Key, bytes_max: u64) -> Result<Option<Vec<u8>>, object_store::Error> {
        let got = self.in_time(async {
            let object = self.store.get(key).await?;
            let bytes = object.meta.size;
            if bytes > bytes_max {
                return Err(object_store::Error::Generic { store: OURS, source: TooLarge { bytes, bytes_max }.into() });
            }
            object.bytes().await
        });
        match got.await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts bytes.
    pub async fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<(), PutError> {
        let size = bytes.len() as u64;
        let start = self.clock.mono();
        let options = PutOptions { attributes: self.attributes(key), ..PutOptions::default() };
        let put = self.store.put_opts(key, PutPayload::from(bytes), options);
        self.in_time(put).await.map_err(|source| self.failed(key, source))?;
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
        let options = PutMultipartOptions { attributes: self.attributes(key), ..PutMultipartOptions::default() };
        let upload = self.in_time(self.store.put_multipart_opts(key, options));
        let upload = upload.await.map_err(|source| self.failed(key, source))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            self.in_time(upload.wait_for_capacity(2)).await.map_err(|source| self.failed(key, source))?;
            upload.write(&buffer[..read]);
        }
        self.in_time(upload.finish()).await.map_err(|source| self.failed(key, source))?;
        self.count(size, start);
        Ok(())
    }

    /// What the store keeps with an object: a folder keeps nothing.
    fn attributes(&self, key: &Key) -> Attributes {
        if self.is_cloud { headers::attributes(key, self.options.store_class.as_deref()) } else { Attributes::new() }
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

/// Opens a folder. One that cannot be written is told now, not by the first meeting.
fn open_folder(path: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    std::fs::create_dir_all(path).map_err(|error| format!("cannot make the folder: {error}"))?;
    let probe = path.join(PROBE);
    std::fs::write(&probe, "")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| format!("cannot write to it: {error}"))?;
    let store = object_store::local::LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(Arc::new(store.with_fsync(true)))
}
