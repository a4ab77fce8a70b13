//! Objects of a recording in the media store: put whole, or not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{
    Attributes, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, WriteMultipart,
};
use tokio::io::AsyncReadExt;

use crate::clock::Clock;
use crate::config::StoreOptions;
use crate::media::Micros;
use crate::metrics::{Metrics, Stage};

mod address;
mod cloud;
mod failed;
mod gate;
pub mod headers;
mod link;
mod parts;
mod probe;
mod signed;
mod stored;
mod turns;
mod watch;

use address::Address;
use failed::TooLarge;
pub use failed::{PutError, is_too_large};
use gate::Gate;
use link::Folder;
pub use parts::RECORD;
use stored::Sums;
pub use turns::Class;
use turns::{Turn, Turns};
use watch::Watch;

/// Written and removed when a folder is opened.
const PROBE: &str = ".probe";

/// Waiting between tries: doubled from the first to the last.
pub const RETRY_FIRST: Duration = Duration::from_millis(250);
/// See [`RETRY_FIRST`].
pub const RETRY_LAST: Duration = Duration::from_secs(15);

/// Whose error it is where no store said it.
const OURS: &str = "tilecast";

/// What an object is made of.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This file of the spool.
    File(&'a Path),
}

/// An object that is to be put.
#[derive(Clone, Copy, Debug)]
struct Wanted<'a> {
    /// The recording that it belongs to.
    owner: &'a str,
    key: &'a Key,
    class: Class,
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
    shared: Arc<Shared>,
}

struct Shared {
    /// The same store, where it takes objects in parts by requests that another process can go on with.
    parts: Option<Arc<dyn MultipartStore>>,
    /// The same store, as a folder, where it is one.
    folder: Option<Arc<Folder>>,
    /// The same store, as something that signs addresses.
    signer: Option<Arc<dyn Signer>>,
    options: StoreOptions,
    turns: Arc<Turns>,
    gate: Arc<Gate>,
    /// Tags of objects are no MD5s here.
    tags_tell_nothing: AtomicBool,
    /// Objects that are on their way, by when that began.
    awaited: Mutex<BTreeSet<(Micros, u64)>>,
    next_awaited: AtomicU64,
}

impl Shared {
    fn awaited(&self) -> MutexGuard<'_, BTreeSet<(Micros, u64)>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that is on its way, until it is dropped.
pub struct Awaited {
    shared: Arc<Shared>,
    entry: (Micros, u64),
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.shared.awaited().remove(&self.entry);
    }
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
        let turns = Arc::new(Turns::new(options.uploads.into()));
        let gate = Arc::new(Gate::new(Arc::clone(&clock), Arc::clone(&metrics)));
        let opened = match Address::parse(address)? {
            Address::Folder(path) => open_folder(&path).map(|store| {
                let folder = Arc::new(Folder::new(path, Arc::clone(&store)));
                (store as Arc<dyn ObjectStore>, None, None, Some(folder))
            }),
            Address::Bucket { cloud, bucket, prefix } => {
                let (metrics, clock) = (Arc::clone(&metrics), Arc::clone(&clock));
                let watch = Watch { metrics, clock, turns: Arc::clone(&turns), gate: Arc::clone(&gate) };
                let opened = cloud::open(cloud, &bucket, prefix, options.store_timeout, watch);
                opened.map(|(store, parts, signer)| (store, parts, Some(signer), None))
            }
            #[cfg(test)]
            Address::Memory => {
                Ok((Arc::new(object_store::memory::InMemory::new()) as Arc<dyn ObjectStore>, None, None, None))
            }
        };
        let (store, parts, signer, folder) = opened.map_err(|why| format!("--store {address}: {why}"))?;
        let shared = Shared {
            parts,
            signer,
            folder,
            options: options.clone(),
            turns,
            gate,
            tags_tell_nothing: AtomicBool::new(false),
            awaited: Mutex::default(),
            next_awaited: AtomicU64::new(0),
        };
        Ok(Objects { store, metrics, clock, shared: Arc::new(shared) })
    }

    /// The folder that `--store` names, where it names one.
    pub fn folder(address: &str) -> Option<PathBuf> {
        match Address::parse(address) {
            Ok(Address::Folder(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether the store is a cloud's: it keeps headers, and each request has its price.
    pub fn is_cloud(&self) -> bool {
        self.shared.folder.is_none()
    }

    /// Counts an object among those that are on their way, until what this gives is dropped.
    pub fn await_one(&self) -> Awaited {
        let entry = (self.clock.mono(), self.shared.next_awaited.fetch_add(1, Relaxed));
        self.shared.awaited().insert(entry);
        Awaited { shared: Arc::clone(&self.shared), entry }
    }

    /// How long the oldest object on its way has been waiting for the store.
    pub fn oldest_awaited(&self) -> Micros {
        let oldest = self.shared.awaited().first().map(|(since, _)| *since);
        oldest.map_or(Micros(0), |since| self.clock.mono() - since)
    }

    /// Whether the store gives no answer: who asks again is held back until it does.
    pub fn is_away(&self) -> bool {
        self.shared.gate.is_shut()
    }

    /// Waits before another try, longer each time; not so for a store that is away.
    pub async fn pause(&self, wait: &mut Duration) {
        // Not all at once, where the store is what is wrong.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        *wait = if self.is_away() { RETRY_FIRST } else { (*wait * 2).min(RETRY_LAST) };
    }

    /// Waits before another try of what is no upload: while the store is away, until it is back or it is one's turn to look.
    pub async fn wait_again(&self, wait: &mut Duration) {
        self.pause(wait).await;
        self.shared.gate.pass().await;
    }

    /// Uploads under way, and how many there may be now.
    pub fn uploads(&self) -> (usize, usize) {
        self.shared.turns.levels()
    }

    /// Files larger than this are put in pieces of this size.
    fn piece(&self) -> usize {
        (self.shared.options.store_part as usize).max(1 << 12)
    }

    async fn turn(&self, owner: &str, class: Class) -> Turn {
        self.shared.gate.pass().await;
        let turn = self.shared.turns.turn(owner, class).await;
        while let Some(pause) = self.shared.turns.pause(self.clock.mono()) {
            // Not all at once when it is over.
            tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
        }
        turn
    }

    /// Waits for the store's answer, as long as one request may take.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, object_store::Error> {
        let (answer, gate) = (self.within(answer).await, &self.shared.gate);
        match &answer {
            // A connection that broke, a time that was over, and what a proxy says for a server that is not there.
            Err(error @ object_store::Error::Generic { .. }) if !is_too_large(error) => gate.was_silent(error),
            _ => gate.answered(),
        }
        answer
    }

    /// Waits as long as one request may take for what is no answer of the store.
    async fn within<T>(
        &self,
        result: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, object_store::Error> {
        let limit = self.shared.options.store_timeout;
        tokio::time::timeout(limit, result).await.unwrap_or_else(|_| {
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

    /// Puts bytes: one try, which ends in time.
    ///
    /// # Errors
    /// Of the store, each worth another try.
    pub async fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<(), PutError> {
        self.put_whole(&Wanted { owner: "", key, class: Class::Live }, bytes).await
    }

    /// Puts an object of a recording: one try, in its turn.
    ///
    /// # Errors
    /// Of the store, each worth another try; of the spool.
    pub async fn upload(&self, owner: &str, class: Class, key: &Key, source: Source<'_>) -> Result<(), PutError> {
        let wanted = Wanted { owner, key, class };
        match source {
            Source::Bytes(bytes) => {
                let _turn = self.turn(owner, class).await;
                self.put_whole(&wanted, bytes.to_vec()).await
            }
            Source::File(path) => self.put_file(&wanted, path).await,
        }
    }

    async fn put_whole(&self, wanted: &Wanted<'_>, bytes: Vec<u8>) -> Result<(), PutError> {
        let (size, start, key) = (bytes.len() as u64, self.clock.mono(), wanted.key);
        let sums = self.is_cloud().then(|| Sums::whole(&bytes));
        let options = PutOptions { attributes: self.attributes(key), ..PutOptions::default() };
        let put = self.store.put_opts(key, PutPayload::from(bytes), options);
        let put = self.in_time(put).await.map_err(|source| self.failed(key, source))?;
        if let Some(sums) = sums {
            self.check(key, put.e_tag.as_deref(), &sums).await?;
        }
        self.count(size, start);
        Ok(())
    }

    /// Puts a file of the spool, in pieces where it is large.
    async fn put_file(&self, wanted: &Wanted<'_>, path: &Path) -> Result<(), PutError> {
        let unreadable = |source| PutError::Spool { path: path.display().to_string(), source };
        let piece = self.piece();
        let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        if let Some(parts) = self.shared.parts.as_ref().filter(|_| size > piece as u64) {
            let start = self.clock.mono();
            self.put_in_parts(&**parts, wanted, path, size).await?;
            self.count(size, start);
            return Ok(());
        }
        let _turn = self.turn(wanted.owner, wanted.class).await;
        if let Some(folder) = &self.shared.folder {
            let start = self.clock.mono();
            if self.within(async { Ok(folder.link(path, wanted.key).await) }).await.unwrap_or(false) {
                self.shared.gate.answered();
                self.count(size, start);
                return Ok(());
            }
        }
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        if size <= piece as u64 {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).await.map_err(unreadable)?;
            return self.put_whole(wanted, bytes).await;
        }
        let (key, start) = (wanted.key, self.clock.mono());
        let options = PutMultipartOptions { attributes: self.attributes(key), ..PutMultipartOptions::default() };
        let upload = self.within(self.store.put_multipart_opts(key, options));
        let upload = upload.await.map_err(|source| self.failed(key, source))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, piece);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                break;
            }
            self.within(upload.wait_for_capacity(2)).await.map_err(|source| self.failed(key, source))?;
            upload.write(&buffer[..read]);
        }
        self.in_time(upload.finish()).await.map_err(|source| self.failed(key, source))?;
        self.count(size, start);
        Ok(())
    }

    /// What the store keeps with an object: a folder keeps nothing.
    fn attributes(&self, key: &Key) -> Attributes {
        match self.is_cloud() {
            true => headers::attributes(key, self.shared.options.store_class.as_deref()),
            false => Attributes::new(),
        }
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
fn open_folder(path: &Path) -> Result<Arc<LocalFileSystem>, String> {
    std::fs::create_dir_all(path).map_err(|error| format!("cannot make the folder: {error}"))?;
    let probe = path.join(PROBE);
    std::fs::write(&probe, "")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| format!("cannot write to it: {error}"))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(Arc::new(store.with_fsync(true)))
}
