//! What `--store` names, read as text: a folder, or a bucket and a prefix in it.

use std::path::PathBuf;

use object_store::path::Path as Key;

/// Where recordings land.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A cloud's store.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// The bucket; Azure calls it a container.
        bucket: String,
        /// What every key begins with; may be empty.
        prefix: Key,
    },
    /// A cloud's store without a network, for tests.
    #[cfg(test)]
    Memory,
}

/// The kinds of stores that are reached over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3 and everything that speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Address {
    /// Reads the value of `--store`.
    ///
    /// # Errors
    /// Text that names the address and the way out.
    pub fn parse(text: &str) -> Result<Address, String> {
        let wrong = |why: &str| Err(format!("--store {text}: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => wrong("give a folder, file:///..., s3://bucket/prefix, gs://... or az://..."),
                path => Ok(Address::Folder(path.into())),
            };
        };
        let cloud = match scheme {
            "file" if rest.starts_with('/') => return Ok(Address::Folder(rest.into())),
            "file" => return wrong("write the whole path behind file://, as in file:///srv/media"),
            #[cfg(test)]
            "memory" => return Ok(Address::Memory),
            "s3" => Cloud::S3,
            "gs" => Cloud::Gcs,
            "az" => Cloud::Azure,
            _ => return wrong("such stores are not known; give a folder, file:///..., s3://, gs:// or az://"),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains(['@', ':']) {
            return wrong("keys and hosts do not belong here; they come by the environment (README, \"Stores\")");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(plain) {
            return wrong(&format!("{bucket:?} is no name of a bucket"));
        }
        match Key::parse(prefix) {
            Ok(prefix) => Ok(Address::Bucket { cloud, bucket: bucket.to_owned(), prefix }),
            Err(error) => wrong(&format!("the prefix cannot be one: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for path in ["./media", "/srv/media", "file:///srv/media"] {
            let folder = path.trim_start_matches("file://");
            assert_eq!(Address::parse(path), Ok(Address::Folder(folder.into())));
        }
        for (text, cloud, bucket, prefix) in [
            ("s3://b", Cloud::S3, "b", ""),
            ("s3://b/", Cloud::S3, "b", ""),
            ("s3://my.bucket-1/a/b/", Cloud::S3, "my.bucket-1", "a/b"),
            ("gs://b/a", Cloud::Gcs, "b", "a"),
            ("az://c/a~2", Cloud::Azure, "c", "a~2"),
        ] {
            let prefix = Key::parse(prefix).unwrap();
            assert_eq!(
                Address::parse(text),
                Ok(Address::Bucket { cloud, bucket: bucket.to_owned(), prefix }),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_ones_are_told_with_the_way_out() {
        for (text, says) in [
            ("", "give a folder"),
            ("file://media", "file:///srv/media"),
            ("http://host/bucket", "s3://"),
            ("s3:///prefix", "no name of a bucket"),
            ("s3://key:secret@bucket/x", "environment"),
            ("s3://host:9000/bucket", "environment"),
            ("s3://b/a//b", "prefix"),
            ("s3://b/../c", "prefix"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("--store {text}: ")) && error.contains(says), "{error}");
        }
    }
}
