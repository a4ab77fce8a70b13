//! Tokens that bots bring in their URL: those that the configuration lists, and those derived from a key, which say
//! themselves whose they are and until when they open new recordings.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The form of derived tokens; another form gets another number.
const DERIVED: &str = "tc1";
/// A key must not be guessed from what it signed.
pub(super) const KEY_BYTES_MIN: usize = 16;
/// Longer ones are none of ours.
const TOKEN_BYTES_MAX: usize = 512;

/// Whether a tenant's name can be one: it becomes part of keys in the store.
pub fn is_tenant(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// A token is compared by its hash: in constant time, whatever its length.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Splits `tenant:rest`.
///
/// # Errors
/// When the tenant's name cannot be one.
pub(super) fn split_tenant<'a>(entry: &'a str, what: &str) -> Result<(Option<String>, &'a str), String> {
    match entry.split_once(':') {
        // The entry itself stays unsaid.
        Some((tenant, _)) if !is_tenant(tenant) => {
            Err(format!("{what}: in `tenant:...` the tenant is 1 to 64 of A-Z a-z 0-9 _ -"))
        }
        Some((tenant, rest)) => Ok((Some(tenant.to_owned()), rest)),
        None => Ok((None, entry)),
    }
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The tenant that it belongs to.
    pub tenant: Option<String>,
    /// From this second on (unix) it opens no new recording.
    pub expires: Option<i64>,
}

/// The tokens that bots may come with.
#[derive(Default)]
pub struct IngestTokens {
    listed: Vec<(Option<String>, [u8; 32])>,
    keys: Vec<DerivingKey>,
}

impl IngestTokens {
    /// Entries `token` or `tenant:token`, and keys of derived ones.
    ///
    /// # Errors
    /// Text that names the variable, never an entry.
    pub fn new(entries: &[String], keys: &[String]) -> Result<IngestTokens, String> {
        let listed = entries.iter().map(|entry| {
            let (tenant, token) = split_tenant(entry, "TILECAST_INGEST_TOKEN")?;
            match token {
                "" => Err("TILECAST_INGEST_TOKEN: a token is empty".to_owned()),
                token => Ok((tenant, hash(token))),
            }
        });
        Ok(IngestTokens {
            listed: listed.collect::<Result<_, _>>()?,
            keys: keys.iter().map(|key| DerivingKey::new(key)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether there is no way to come with a token.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.keys.is_empty()
    }

    /// The tenants that tokens are listed for; to be of none is to be one of them.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Option<String>> {
        self.listed.iter().map(|(tenant, _)| tenant)
    }

    /// Whose the token of a URL is; `None` when it is nobody's.
    pub fn whose(&self, token: &str) -> Option<Bearer> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let offered = hash(token);
        // Every entry is compared, so that the time taken tells nothing.
        let mut bearer = None;
        for (tenant, known) in &self.listed {
            if bool::from(known.ct_eq(&offered)) {
                bearer = Some(Bearer { tenant: tenant.clone(), expires: None });
            }
        }
        bearer.or_else(|| self.keys.iter().find_map(|key| key.read(token)))
    }
}

/// Derives tokens, and knows its own again.
pub struct DerivingKey(Hmac<Sha256>);

impl DerivingKey {
    /// A key as `TILECAST_INGEST_KEY` has it: any text of 16 bytes or more.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn new(key: &str) -> Result<DerivingKey, String> {
        if key.len() < KEY_BYTES_MIN {
            return Err(format!(
                "TILECAST_INGEST_KEY: a key has {KEY_BYTES_MIN} bytes or more; `openssl rand -hex 32` makes one"
            ));
        }
        Ok(DerivingKey(Hmac::new_from_slice(key.as_bytes()).expect("a key of any length")))
    }

    fn mac(&self, claims: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(claims.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A token of `tenant`, which opens new recordings until `expires` (unix seconds): `tc1.{tenant}.{expires}.{HMAC}`.
    pub fn derive(&self, tenant: Option<&str>, expires: i64) -> String {
        let claims = format!("{DERIVED}.{}.{expires}", tenant.unwrap_or_default());
        let mac = URL_SAFE_NO_PAD.encode(self.mac(&claims));
        format!("{claims}.{mac}")
    }

    /// Whose token of this key it is.
    fn read(&self, token: &str) -> Option<Bearer> {
        let (claims, mac) = token.rsplit_once('.')?;
        let expected = URL_SAFE_NO_PAD.encode(self.mac(claims));
        if !bool::from(expected.as_bytes().ct_eq(mac.as_bytes())) {
            return None;
        }
        let (tenant, expires) = claims.strip_prefix(DERIVED)?.strip_prefix('.')?.split_once('.')?;
        let tenant = (!tenant.is_empty()).then(|| tenant.to_owned());
        Some(Bearer { tenant, expires: Some(expires.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn tokens() -> IngestTokens {
        IngestTokens::new(&["alpha".into(), "acme:beta".into()], &[KEY.into(), "another-key-of-16-and-more".into()])
            .unwrap()
    }

    #[test]
    fn any_of_the_tokens_opens_and_nothing_else_does() {
        let tokens = tokens();
        let whose = |tenant: Option<&str>| Some(Bearer { tenant: tenant.map(str::to_owned), expires: None });
        assert_eq!(tokens.whose("alpha"), whose(None));
        assert_eq!(tokens.whose("beta"), whose(Some("acme")));
        for bad in ["", "alph", "alphaa", "acme:beta", "tc1", "tc1...", KEY, &"a".repeat(100_000)] {
            assert_eq!(tokens.whose(bad), None, "{bad:.80}");
        }
        assert!(IngestTokens::default().is_empty() && !tokens.is_empty());
    }

    #[test]
    fn a_derived_token_says_whose_it_is_and_nobody_else_can_make_one() {
        let tokens = tokens();
        for key in [KEY, "another-key-of-16-and-more"] {
            let key = DerivingKey::new(key).unwrap();
            for tenant in [None, Some("acme")] {
                let token = key.derive(tenant, 1_800_000_000);
                assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{token}");
                let bearer = tokens.whose(&token).unwrap();
                assert_eq!((bearer.tenant.as_deref(), bearer.expires), (tenant, Some(1_800_000_000)));
                for at in 0..token.len() {
                    for other in ["A", "z", "9", ".", "-"] {
                        if &token[at..=at] != other {
                            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                            assert_eq!(tokens.whose(&changed), None, "{changed}");
                        }
                    }
                }
            }
        }
        let stranger = DerivingKey::new("sixteen bytes is enough").unwrap();
        assert_eq!(tokens.whose(&stranger.derive(Some("acme"), 1_800_000_000)), None);
    }

    #[test]
    fn what_cannot_be_a_secret_is_told_without_the_secret() {
        for (entry, key) in [("a b:hush", KEY), (":hush", KEY), ("acme:", KEY), ("fine", "hush")] {
            let error = IngestTokens::new(&[entry.to_owned()], &[key.to_owned()]).err().unwrap();
            assert!(error.starts_with("TILECAST_INGEST_") && !error.contains("hush"), "{error}");
        }
    }
}
