//! Proves that a store does what is needed of it, with an object that is gone afterwards.

use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutMultipartOptions};

use super::Objects;

/// What is done with the probe, and what is to be allowed where it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An object is put.
    Write,
    /// It is read back, and is the same.
    Read,
    /// It is listed.
    List,
    /// An upload in parts is begun and aborted.
    Parts,
    /// It is deleted, and gone.
    Delete,
}

impl Step {
    /// What is done.
    pub fn name(self) -> &'static str {
        match self {
            Step::Write => "write",
            Step::Read => "read back",
            Step::List => "list",
            Step::Parts => "begin and abort an upload in parts",
            Step::Delete => "delete",
        }
    }

    /// The permissions that S3 asks for.
    pub fn needs(self) -> &'static str {
        match self {
            Step::Write => "s3:PutObject",
            Step::Read => "s3:GetObject",
            Step::List => "s3:ListBucket",
            Step::Parts => "s3:PutObject and s3:AbortMultipartUpload",
            Step::Delete => "s3:DeleteObject",
        }
    }
}

impl Objects {
    /// Does each step with a probe object of this name; gives how each went. What follows a failed write is left out.
    pub async fn probe(&self, name: &str) -> Vec<(Step, Result<(), String>)> {
        let key = Key::from_iter(["_check", name]);
        let bytes = format!("tilecast check {name}\n").into_bytes();
        let written = self.put(&key, bytes.clone()).await.map_err(|error| error.to_string());
        let failed = written.is_err();
        let mut steps = vec![(Step::Write, written)];
        if failed {
            return steps;
        }
        steps.push((Step::Read, self.reads(&key, &bytes).await));
        steps.push((Step::List, self.lists(&key).await));
        if self.shared.parts.is_some() {
            steps.push((Step::Parts, self.begins_and_aborts(&key).await));
        }
        steps.push((Step::Delete, self.deletes(&key).await));
        steps
    }

    async fn reads(&self, key: &Key, wanted: &[u8]) -> Result<(), String> {
        match self.get(key, 1 << 10).await {
            Ok(Some(found)) if found == wanted => Ok(()),
            Ok(Some(found)) => Err(format!("{} bytes were put, and other {} are there", wanted.len(), found.len())),
            Ok(None) => Err("it was put, and is not there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn lists(&self, key: &Key) -> Result<(), String> {
        let folder = Key::from("_check");
        let sizes = self.sizes(&folder).await.map_err(|error| error.to_string())?;
        if sizes.contains_key(key.as_ref()) { Ok(()) } else { Err("the probe is not in the list".to_owned()) }
    }

    async fn begins_and_aborts(&self, key: &Key) -> Result<(), String> {
        let Some(parts) = &self.shared.parts else { return Ok(()) };
        let options = PutMultipartOptions { attributes: self.attributes(key), ..PutMultipartOptions::default() };
        let begun = self.in_time(parts.create_multipart_opts(key, options)).await.map_err(|error| error.to_string())?;
        self.in_time(parts.abort_multipart(key, &begun)).await.map_err(|error| error.to_string())
    }

    async fn deletes(&self, key: &Key) -> Result<(), String> {
        self.in_time(self.store.delete(key)).await.map_err(|error| error.to_string())?;
        match self.get(key, 1 << 10).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it was deleted, and is still there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
