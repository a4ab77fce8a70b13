//! TLS of the public listener: a certificate and its key from files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ALL_VERSIONS, ServerConfig};

use crate::config::Doors;
use crate::shutdown::Stopped;

use super::reread::read_again_and_again;

/// How often the files are read again.
const READ_EVERY: Duration = Duration::from_secs(5);

/// A certificate that may change.
#[derive(Debug)]
pub struct Certificate {
    files: (PathBuf, PathBuf),
    read: Mutex<(Vec<u8>, Vec<u8>)>,
    present: Arc<Present>,
}

#[derive(Debug)]
struct Present(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Present {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificate {
    /// Reads the files that the options name; `None` where they name none.
    ///
    /// # Errors
    /// Text that names the option and the file.
    pub fn open(options: &Doors) -> Result<Option<Certificate>, String> {
        let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
        let files = (certificate.clone(), key.clone());
        let read = read(&files)?;
        let present = Arc::new(Present(RwLock::new(Arc::new(certified(&read)?))));
        Ok(Some(Certificate { files, read: Mutex::new(read), present }))
    }

    /// Speaks TLS 1.2 and 1.3 with whatever certificate is present, and HTTP/1.1 in it.
    pub fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(ALL_VERSIONS).expect("ring has cipher suites for both");
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&self.present) as _;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files again and again. What cannot be used changes nothing: a key and its certificate are not written in
    /// the same instant.
    pub async fn watch(self, stop: Stopped) {
        read_again_and_again("certificates", READ_EVERY, move || self.read_again(), stop).await;
    }

    fn read_again(&self) -> Result<bool, String> {
        let read = read(&self.files)?;
        let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read == *before {
            return Ok(false);
        }
        *self.present.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified(&read)?);
        *before = read;
        Ok(true)
    }
}

fn read((certificate, key): &(PathBuf, PathBuf)) -> Result<(Vec<u8>, Vec<u8>), String> {
    let read = |option: &str, path: &Path| {
        std::fs::read(path).map_err(|error| format!("{option} {}: {error}", path.display()))
    };
    Ok((read("--tls-cert", certificate)?, read("--tls-key", key)?))
}

fn certified((certificate, key): &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| format!("--tls-cert: {error}"))?;
    if chain.is_empty() {
        return Err("--tls-cert: there is no certificate in the file".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("--tls-key: {error}"))?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| format!("--tls-cert, --tls-key: {error}"))
}
