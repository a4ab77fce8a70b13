//! Why an object is not in the store, or not read.

/// Whether [`super::Objects::get`] found the object, and did not read it for its size.
pub fn is_too_large(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. } if source.is::<TooLarge>())
}

/// An object has more bytes than may be read.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes are more than {bytes_max}")]
pub(super) struct TooLarge {
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
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
    /// It is there, and is not what was put.
    #[error("{key}: the store has other bytes than it was given")]
    Damaged {
        /// The object.
        key: String,
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
