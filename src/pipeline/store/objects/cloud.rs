//! Opens the store of a cloud: the address by `--store`, everything else by the variables that its own tools read.
//!
//! Nothing is asked of the store here: a start does not fail because the store is away.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::address::Cloud;
use super::watch::Watch;

/// A store; the same one as something that takes objects in parts, where a later process can go on with that; and as something
/// that signs addresses.
type Opened = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>, Arc<dyn Signer>);

/// Opens the store of a cloud. A request that says nothing for `timeout` has failed.
///
/// # Errors
/// Text that names the variable that is missing or wrong.
pub(super) fn open(cloud: Cloud, bucket: &str, prefix: Key, timeout: Duration, watch: Watch) -> Result<Opened, String> {
    // One for the whole process; it may be there from an earlier store.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let opened = match cloud {
        Cloud::S3 => {
            let builder = client(AmazonS3Builder::from_env(), AmazonS3ConfigKey::Client, timeout)
                .with_bucket_name(bucket)
                .with_retry(never_again())
                .with_http_connector(watch);
            below(s3(builder)?.build(), prefix)
        }
        Cloud::Gcs => {
            let builder = client(GoogleCloudStorageBuilder::from_env(), GoogleConfigKey::Client, timeout)
                .with_bucket_name(bucket)
                .with_retry(never_again())
                .with_http_connector(watch);
            below(builder.build(), prefix)
        }
        Cloud::Azure => {
            let builder = client(MicrosoftAzureBuilder::from_env(), AzureConfigKey::Client, timeout)
                .with_container_name(bucket)
                .with_retry(never_again())
                .with_http_connector(watch);
            // In parts it takes no headers, unless all is done in one go; what is left half goes by itself after a week.
            below(azure(builder).build(), prefix).map(|(store, _, signer)| (store, None, signer))
        }
    };
    opened.map_err(|error| error.to_string())
}

fn below<S: ObjectStore + MultipartStore + Signer>(
    built: Result<S, object_store::Error>,
    prefix: Key,
) -> Result<Opened, object_store::Error> {
    let store = Arc::new(PrefixStore::new(built?, prefix));
    Ok((Arc::<PrefixStore<S>>::clone(&store), Some(Arc::<PrefixStore<S>>::clone(&store)), store))
}

/// Tries are made by who asked, for as long as the recording lives, and seen by the metrics.
fn never_again() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() }
}

/// A builder of whichever cloud.
trait Builder: Sized {
    type ConfigKey;
    fn set(self, key: Self::ConfigKey, value: String) -> Self;
}

macro_rules! builder {
    ($builder:ty, $key:ty) => {
        impl Builder for $builder {
            type ConfigKey = $key;
            fn set(self, key: $key, value: String) -> Self {
                self.with_config(key, value)
            }
        }
    };
}

builder!(AmazonS3Builder, AmazonS3ConfigKey);
builder!(GoogleCloudStorageBuilder, GoogleConfigKey);
builder!(MicrosoftAzureBuilder, AzureConfigKey);

/// The HTTP client's settings. A download may take as long as its reader does, so silence ends a request here; what has to
/// be done in time is timed by who asked.
fn client<B: Builder>(builder: B, key: impl Fn(ClientConfigKey) -> B::ConfigKey, timeout: Duration) -> B {
    let silence = format!("{}ms", timeout.as_millis());
    let connect = format!("{}ms", timeout.min(Duration::from_secs(5)).as_millis());
    builder
        .set(key(ClientConfigKey::Timeout), "1day".to_owned())
        .set(key(ClientConfigKey::ReadTimeout), silence)
        .set(key(ClientConfigKey::ConnectTimeout), connect)
        .set(key(ClientConfigKey::UserAgent), concat!("tilecast/", env!("CARGO_PKG_VERSION")).to_owned())
}

/// Endpoint, region and checksums of an S3 store.
fn s3(builder: AmazonS3Builder) -> Result<AmazonS3Builder, String> {
    use AmazonS3ConfigKey as K;
    let value = |key: K| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let endpoint = value(K::S3Endpoint).or_else(|| value(K::Endpoint));
    if endpoint.is_none() && value(K::Region).is_none() && value(K::DefaultRegion).is_none() {
        return Err("set AWS_REGION, or AWS_ENDPOINT_URL for a server that is not Amazon's".to_owned());
    }
    let checksum = std::env::var("AWS_CHECKSUM_ALGORITHM").unwrap_or_else(|_| "sha256".to_owned());
    let builder = match endpoint {
        // Who writes http:// there means it.
        Some(endpoint) if endpoint.starts_with("http://") => builder.with_allow_http(true),
        Some(endpoint) if !endpoint.starts_with("https://") => {
            return Err(format!("AWS_ENDPOINT_URL {endpoint}: begin it with https:// or http://"));
        }
        _ => builder,
    };
    Ok(match &*checksum {
        "" | "none" => builder,
        _ => builder.with_config(K::Checksum, checksum),
    })
}

fn azure(builder: MicrosoftAzureBuilder) -> MicrosoftAzureBuilder {
    match builder.get_config_value(&AzureConfigKey::Endpoint) {
        Some(endpoint) if endpoint.starts_with("http://") => builder.with_allow_http(true),
        _ => builder,
    }
}
