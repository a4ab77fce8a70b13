//! The recordings that `verify` and `repair` look at: folders of this machine, or copies of what another store has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::clock::SystemClock;
use crate::config::StoreOptions;
use crate::metrics::Metrics;
use crate::pipeline::store::objects::Objects;
use crate::pipeline::verify::copies::{self, Copy};
use crate::pipeline::verify::recordings;

/// Where recordings are, and how they are got at.
pub(super) enum Found {
    /// Folders.
    Here(Vec<PathBuf>),
    /// Folders of a store.
    There(There),
}

/// A store that is no folder.
pub(super) struct There {
    runtime: Runtime,
    objects: Objects,
    address: String,
    recordings: Vec<object_store::path::Path>,
    aside: PathBuf,
}

/// A recording on this machine.
pub(super) enum Look {
    Folder(PathBuf),
    Copy(Copy, String),
}

impl Look {
    /// Its folder.
    pub(super) fn folder(&self) -> PathBuf {
        match self {
            Look::Folder(folder) => folder.clone(),
            Look::Copy(copy, _) => copy.folder(),
        }
    }

    /// What it is called where it is from.
    pub(super) fn name(&self) -> String {
        match self {
            Look::Folder(folder) => folder.display().to_string(),
            Look::Copy(_, address) => address.clone(),
        }
    }
}

impl Found {
    /// The recordings at a path or address that somebody gave. Copies are made below `aside`.
    ///
    /// # Errors
    /// When there are none, or they cannot be listed.
    pub(super) fn at(path: &str, options: &StoreOptions, aside: Option<&Path>) -> Result<Found, String> {
        if let Some(folder) = Objects::folder(path) {
            let found = recordings(&folder).map_err(|error| format!("{path}: {error}"))?;
            if found.is_empty() {
                return Err(format!("{path}: no recording is here, nor in a folder below"));
            }
            return Ok(Found::Here(found));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start tokio: {error}"))?;
        let objects = Objects::open(path, options, Arc::new(Metrics::new()), Arc::new(SystemClock::new()))?;
        let recordings = runtime.block_on(copies::recordings(&objects)).map_err(|error| format!("{path}: {error}"))?;
        if recordings.is_empty() {
            return Err(format!("{path}: no recording is here, nor in a folder below"));
        }
        let aside = aside.map_or_else(std::env::temp_dir, Path::to_owned);
        Ok(Found::There(There { runtime, objects, address: path.to_owned(), recordings, aside }))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Found::Here(folders) => folders.len(),
            Found::There(there) => there.recordings.len(),
        }
    }

    /// The n-th one, on this machine.
    ///
    /// # Errors
    /// Of the store, or the file system.
    pub(super) fn get(&self, n: usize) -> Result<Look, String> {
        match self {
            Found::Here(folders) => Ok(Look::Folder(folders[n].clone())),
            Found::There(there) => {
                let prefix = &there.recordings[n];
                let name = format!("{}/{prefix}", there.address.trim_end_matches('/'));
                let copy = there.runtime.block_on(copies::copy(&there.objects, prefix, &there.aside));
                Ok(Look::Copy(copy.map_err(|error| format!("{name}: {error}"))?, name))
            }
        }
    }

    /// Puts back what was repaired; gives what that was.
    ///
    /// # Errors
    /// Of the store, or the file system.
    pub(super) fn put_back(&self, look: &Look) -> Result<Vec<String>, String> {
        match (self, look) {
            (Found::There(there), Look::Copy(copy, name)) => {
                let put = there.runtime.block_on(copies::put_back(&there.objects, copy));
                put.map_err(|error| format!("{name}: {error}"))
            }
            _ => Ok(Vec::new()),
        }
    }
}
