//! Addresses by which a cloud's store itself gives an object, to whoever has them, for a while.

use object_store::path::Path as Key;
use object_store::signer::Method;

use super::Objects;

impl Objects {
    /// The address of a large object that never changes, good for `--store-redirect`; `None` where it is fetched through
    /// this server: without the option, of small objects, of folders, and where the store does not sign (its credentials
    /// may not be of that kind).
    pub async fn signed(&self, method: &Method, key: &Key) -> Option<String> {
        let (signer, time) = (self.shared.signer.as_ref()?, self.shared.options.store_redirect?);
        if !is_large(key) {
            return None;
        }
        match self.within(signer.signed_url(method.clone(), key, time)).await {
            Ok(address) => Some(address.into()),
            Err(error) => {
                tracing::warn!(%error, "the store signs no address; what is fetched goes through this server");
                None
            }
        }
    }
}

/// Whether an object is a segment or an MP4.
fn is_large(key: &Key) -> bool {
    key.as_ref().ends_with(".m4s") || key.as_ref().ends_with("/video.mp4")
}
