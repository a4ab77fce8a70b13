//! Who gets in: the doors, and the secrets that open them, which may change while the process runs.
//!
//! The rules are in the modules below; here they are put together for a request.

pub mod access;
pub mod grants;
pub mod signature;
pub mod tokens;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;

use crate::config::{Doors as Options, Secrets};
use crate::http::reread::read_again_and_again;
use crate::media::Micros;
use crate::pipeline::pass::{Limited, Pass, SpentIds};
use crate::shutdown::Stopped;

use access::{ApiTokens, Scope};
use grants::GrantKeys;
use signature::{SigningKey, Stamp, TOLERANCE_SECS};
use tokens::IngestTokens;

/// How often the files of secrets are read again.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A signature is fresh from the tolerance before its time to the tolerance after it: so long its id is remembered.
const SPENT_FOR: Micros = Micros::from_secs(2 * TOLERANCE_SECS);

/// The secrets, read and understood.
struct Keys {
    secrets: Secrets,
    tokens: IngestTokens,
    recall: Vec<SigningKey>,
    api: ApiTokens,
    grants: Arc<GrantKeys>,
    webhook: Vec<SigningKey>,
}

impl Keys {
    /// `own`: the key of grants where none is given.
    fn new(secrets: Secrets, own: &[u8]) -> Result<Keys, String> {
        let recall = secrets.recall.iter().map(|entry| SigningKey::new(entry, "TILECAST_RECALL_SECRET"));
        let webhook = secrets.webhook.iter().map(|entry| SigningKey::new(entry, "TILECAST_WEBHOOK_SECRET"));
        Ok(Keys {
            webhook: webhook.collect::<Result<_, _>>()?,
            tokens: IngestTokens::new(&secrets.ingest_tokens, &secrets.ingest_keys)?,
            recall: recall.collect::<Result<_, _>>()?,
            api: ApiTokens::new(&secrets.api_tokens)?,
            grants: Arc::new(match secrets.grant_keys.as_slice() {
                [] => GrantKeys::new([own]),
                keys => GrantKeys::new(keys.iter().map(String::as_bytes)),
            }),
            secrets,
        })
    }
}

/// What a bot may do.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The tenant that its token or secret belongs to.
    pub tenant: Option<String>,
    /// What it may open.
    pub pass: Pass,
}

/// Why a request of the API or for media is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// There are no tokens, and it does not come from this machine.
    Closed,
    /// No token, or an unknown one.
    Unauthorized,
    /// A token that may not do this.
    Forbidden,
}

impl ApiRefusal {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            ApiRefusal::Closed => "closed",
            ApiRefusal::Unauthorized => "unauthorized",
            ApiRefusal::Forbidden => "forbidden",
        }
    }
}

/// Why a webhook is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookRefusal {
    /// There is no secret to check it by.
    Closed,
    /// Its signature is missing, wrong or too old.
    Unsigned,
}

/// The doors.
pub struct Doors {
    options: Options,
    /// Whether the public listener is on a loopback address.
    is_local: bool,
    own_grant_key: Vec<u8>,
    keys: RwLock<Arc<Keys>>,
    spent: Arc<SpentIds>,
}

impl Doors {
    /// Reads the secrets. `is_local`: the public listener is on a loopback address. `own_grant_key` signs grants where no key
    /// is given. `spool` knows which signed upgrades have opened recordings; `unix` is now.
    ///
    /// # Errors
    /// Text that names the option or variable, never a secret.
    pub fn new(
        options: Options,
        is_local: bool,
        own_grant_key: Vec<u8>,
        spool: &Path,
        unix: Micros,
    ) -> Result<Doors, String> {
        let secrets = Secrets::read(&options).map_err(|error| error.to_string())?;
        let spent = SpentIds::open(spool, SPENT_FOR, unix)
            .map_err(|error| format!("--spool {}: the ids of signed upgrades: {error}", spool.display()))?;
        let spent = Arc::new(spent);
        let keys = RwLock::new(Arc::new(Keys::new(secrets, &own_grant_key)?));
        Ok(Doors { options, is_local, own_grant_key, keys, spent })
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether bots need no credentials.
    pub fn lets_every_bot_in(&self) -> bool {
        let keys = self.keys();
        keys.tokens.is_empty() && keys.recall.is_empty()
    }

    /// How many tenants bots may come of, as far as the secrets say; a key derives tokens of any.
    pub fn tenants(&self) -> usize {
        let keys = self.keys();
        let signed = keys.recall.iter().map(|key| &key.tenant);
        let told: BTreeSet<_> = keys.tokens.tenants().chain(signed).collect();
        told.len()
    }

    /// Whether the API answers nobody but this machine, for want of tokens.
    pub fn api_is_closed(&self) -> bool {
        self.keys().api.is_empty() && !self.options.insecure
    }

    /// Whether a request may do what `needed` says.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn api(&self, headers: &HeaderMap, needed: Scope) -> Result<(), ApiRefusal> {
        let keys = self.keys();
        if keys.api.is_empty() {
            let open = self.options.insecure || (self.is_local && access::is_local(headers));
            return if open { Ok(()) } else { Err(ApiRefusal::Closed) };
        }
        match keys.api.scope(headers) {
            None => Err(ApiRefusal::Unauthorized),
            Some(scope) if scope < needed => Err(ApiRefusal::Forbidden),
            Some(_) => Ok(()),
        }
    }

    /// Signs an event with every secret there is, so that they can be rotated; `None` where there is none.
    pub fn sign_event(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
        let keys = self.keys();
        let signatures: Vec<String> = keys.webhook.iter().map(|key| key.sign(id, timestamp, body)).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }

    /// What signs and checks playback grants.
    pub fn grants(&self) -> Arc<GrantKeys> {
        Arc::clone(&self.keys().grants)
    }

    /// Checks the signature of a webhook over its body. Gives the tenant that its secret belongs to.
    ///
    /// # Errors
    /// With the reason why it is not taken.
    pub fn hook(&self, headers: &HeaderMap, body: &[u8], unix: Micros) -> Result<Option<String>, HookRefusal> {
        let keys = self.keys();
        if keys.recall.is_empty() {
            return Err(HookRefusal::Closed);
        }
        let stamp = Stamp::read(headers).filter(|stamp| stamp.is_fresh(unix.0.div_euclid(1_000_000)));
        let signer = stamp.and_then(|stamp| stamp.signer(&keys.recall, body));
        signer.map(|key| key.tenant.clone()).ok_or(HookRefusal::Unsigned)
    }

    /// Checks the token of an upgrade's URL and the signature in its headers; `None` where neither is good.
    ///
    /// Either opens. Where both are good, the token says whose the bot is, and the better one what it may open.
    pub fn admit(&self, token: Option<&str>, headers: &HeaderMap, unix: Micros) -> Option<Admitted> {
        let keys = self.keys();
        if keys.tokens.is_empty() && keys.recall.is_empty() {
            return Some(Admitted { tenant: None, pass: Pass::default() });
        }
        let by_token = token.and_then(|token| keys.tokens.whose(token)).map(|bearer| {
            let expires = bearer.expires.map(|seconds| Micros(seconds.saturating_mul(1_000_000)));
            Admitted { tenant: bearer.tenant, pass: Pass { expires, ..Pass::default() } }
        });
        let by_signature = self.signed(&keys, headers, unix);
        match (by_token, by_signature) {
            (Some(token), Some(signed))
                if token.pass.refuses(unix).is_some() && (signed.tenant.is_none() || signed.tenant == token.tenant) =>
            {
                Some(Admitted { tenant: token.tenant, ..signed })
            }
            (Some(token), _) => Some(token),
            (None, signed) => signed,
        }
    }

    fn signed(&self, keys: &Keys, headers: &HeaderMap, unix: Micros) -> Option<Admitted> {
        let stamp = Stamp::read(headers)?;
        let tenant = stamp.signer(&keys.recall, b"")?.tenant.clone();
        let mut pass = Pass { once: Some((stamp.id.to_owned(), Arc::clone(&self.spent))), ..Pass::default() };
        if !stamp.is_fresh(unix.0.div_euclid(1_000_000)) {
            pass.limited = Some(Limited::StaleSignature);
        }
        (!self.options.refuse_replay || pass.refuses(unix).is_none()).then_some(Admitted { tenant, pass })
    }

    /// Reads the files of secrets again and again, so that they can be changed without a restart. What cannot be read or
    /// understood changes nothing.
    pub async fn watch_files(self: Arc<Self>, stop: Stopped) {
        if self.options.has_files() {
            read_again_and_again("secrets", READ_EVERY, move || self.read_again(), stop).await;
        }
    }

    fn read_again(&self) -> Result<bool, String> {
        let secrets = Secrets::read(&self.options).map_err(|error| error.to_string())?;
        if secrets == self.keys().secrets {
            return Ok(false);
        }
        let keys = Arc::new(Keys::new(secrets, &self.own_grant_key)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(true)
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doors")
    }
}
