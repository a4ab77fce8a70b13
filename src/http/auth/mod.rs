//! Who gets in: the doors, and the secrets that open them, which may change while the process runs.
//!
//! The rules are in the modules below; here they are put together for a request.

pub mod access;
pub mod grants;
pub mod signature;
pub mod tokens;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;

use crate::config::{Config, Doors as Options, Secrets};
use crate::http::reread::read_again_and_again;
use crate::media::Micros;
use crate::pipeline::pass::{Limited, Pass, SpentIds};
use crate::shutdown::Stopped;

use access::{ApiTokens, Scope};
use grants::GrantKeys;
use signature::{SigningKey, Stamp, TOLERANCE_SECS};
use tokens::{IngestTokens, KEY_BYTES_MIN};

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
    /// Whether bots need no credentials.
    fn let_every_bot_in(&self) -> bool {
        self.tokens.is_empty() && self.recall.is_empty()
    }

    /// How many tenants bots may come of, as far as the secrets say; a key derives tokens of any.
    fn tenants(&self) -> usize {
        let signed = self.recall.iter().map(|key| &key.tenant);
        let told: BTreeSet<_> = self.tokens.tenants().chain(signed).collect();
        told.len()
    }
}

/// What secrets must go together with, at the start and whenever they are read again.
struct Rules {
    options: Options,
    listen: SocketAddr,
    store_prefix: String,
    /// The key of grants where none is given.
    own_grant_key: Vec<u8>,
}

impl Rules {
    /// Understands the secrets.
    ///
    /// # Errors
    /// Text that names the option or variable and the way out, never a secret.
    fn keys(&self, secrets: Secrets) -> Result<Keys, String> {
        let recall = secrets.recall.iter().map(|entry| SigningKey::new(entry, "TILECAST_RECALL_SECRET"));
        let webhook = secrets.webhook.iter().map(|entry| SigningKey::new(entry, "TILECAST_WEBHOOK_SECRET"));
        // Who has a grant could guess it.
        if secrets.grant_keys.iter().any(|key| key.len() < KEY_BYTES_MIN) {
            return Err(format!(
                "TILECAST_GRANT_KEY: a key has {KEY_BYTES_MIN} bytes or more; `openssl rand -hex 32` makes one"
            ));
        }
        let keys = Keys {
            webhook: webhook.collect::<Result<_, _>>()?,
            tokens: IngestTokens::new(&secrets.ingest_tokens, &secrets.ingest_keys)?,
            recall: recall.collect::<Result<_, _>>()?,
            api: ApiTokens::new(&secrets.api_tokens)?,
            grants: Arc::new(match secrets.grant_keys.as_slice() {
                [] => GrantKeys::new([self.own_grant_key.as_slice()]),
                keys => GrantKeys::new(keys.iter().map(String::as_bytes)),
            }),
            secrets,
        };
        if keys.let_every_bot_in() && !self.options.insecure && !self.is_local() {
            return Err(format!(
                "--listen {}: without credentials for bots only loopback addresses are listened on; set TILECAST_INGEST_TOKEN, TILECAST_INGEST_KEY or TILECAST_RECALL_SECRET, or give --insecure",
                self.listen
            ));
        }
        if keys.tenants() > 1 && !self.store_prefix.contains("{tenant}") {
            return Err(format!(
                "--store-prefix {}: with more than one tenant it must hold {{tenant}}, for example {{tenant}}/{{recording_id}}",
                self.store_prefix
            ));
        }
        Ok(keys)
    }

    /// Whether the public listener is on a loopback address.
    fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// Whether a request needs no credentials, where there are none to bring.
    fn is_open_to(&self, headers: &HeaderMap) -> bool {
        self.options.insecure || (self.is_local() && access::is_local(headers))
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

/// Why a bot is not let in. Its answer says of [`BotRefusal::Closed`] what to do, and does not tell the others apart: the log
/// does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BotRefusal {
    /// There are no credentials to bring, and it does not come from this machine.
    Closed,
    /// Neither token nor signature.
    NoCredentials,
    /// A token that is nobody's.
    WrongToken,
    /// A signature that none of the secrets made, or one that cannot be read.
    WrongSignature,
    /// Good, but for recordings that are here alone; and those are not let in, or there is none.
    Limited(Limited),
}

impl BotRefusal {
    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            BotRefusal::Closed => "closed",
            BotRefusal::NoCredentials => "no_token_and_no_signature",
            BotRefusal::WrongToken => "wrong_token",
            BotRefusal::WrongSignature => "wrong_signature",
            BotRefusal::Limited(limited) => limited.name(),
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
    rules: Rules,
    keys: RwLock<Arc<Keys>>,
    spent: Arc<SpentIds>,
}

impl Doors {
    /// Reads the secrets. `own_grant_key` signs grants where no key is given. The spool knows which signed upgrades have
    /// opened recordings; `unix` is now.
    ///
    /// # Errors
    /// Text that names the option or variable and the way out, never a secret.
    pub fn new(config: &Config, own_grant_key: Vec<u8>, unix: Micros) -> Result<Doors, String> {
        let (options, store_prefix) = (config.doors.clone(), config.store_prefix.clone());
        let rules = Rules { options, listen: config.listen, store_prefix, own_grant_key };
        let keys = rules.keys(Secrets::read(&rules.options).map_err(|error| error.to_string())?)?;
        let spent = SpentIds::open(&config.spool, SPENT_FOR, unix)
            .map_err(|error| format!("--spool {}: the ids of signed upgrades: {error}", config.spool.display()))?;
        Ok(Doors { rules, keys: RwLock::new(Arc::new(keys)), spent: Arc::new(spent) })
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the API answers nobody but this machine, for want of tokens.
    pub fn api_is_closed(&self) -> bool {
        self.keys().api.is_empty() && !self.rules.options.insecure
    }

    /// Whether a request may do what `needed` says.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn api(&self, headers: &HeaderMap, needed: Scope) -> Result<(), ApiRefusal> {
        let keys = self.keys();
        if keys.api.is_empty() {
            return if self.rules.is_open_to(headers) { Ok(()) } else { Err(ApiRefusal::Closed) };
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

    /// Checks the token of an upgrade's URL and the signature in its headers.
    ///
    /// Either opens. Where both are good, the token says whose the bot is, and the better one what it may open.
    ///
    /// # Errors
    /// With the reason why neither is good.
    pub fn admit(&self, token: Option<&str>, headers: &HeaderMap, unix: Micros) -> Result<Admitted, BotRefusal> {
        let keys = self.keys();
        if keys.let_every_bot_in() {
            let open = self.rules.is_open_to(headers);
            return open.then(|| Admitted { tenant: None, pass: Pass::default() }).ok_or(BotRefusal::Closed);
        }
        let by_token = token.and_then(|token| keys.tokens.whose(token)).map(|bearer| {
            let expires = bearer.expires.map(|seconds| Micros(seconds.saturating_mul(1_000_000)));
            Admitted { tenant: bearer.tenant, pass: Pass { expires, ..Pass::default() } }
        });
        match (by_token, self.signed(&keys, headers, unix)) {
            (Some(token), Ok(signed))
                if token.pass.refuses(unix).is_some() && (signed.tenant.is_none() || signed.tenant == token.tenant) =>
            {
                Ok(Admitted { tenant: token.tenant, ..signed })
            }
            (Some(token), _) => Ok(token),
            (None, Err(BotRefusal::NoCredentials)) if token.is_some() => Err(BotRefusal::WrongToken),
            (None, signed) => signed,
        }
    }

    fn signed(&self, keys: &Keys, headers: &HeaderMap, unix: Micros) -> Result<Admitted, BotRefusal> {
        let Some(stamp) = Stamp::read(headers) else {
            let tries = ["webhook-signature", "svix-signature"].iter().any(|name| headers.contains_key(*name));
            return Err(if tries { BotRefusal::WrongSignature } else { BotRefusal::NoCredentials });
        };
        let signer = stamp.signer(&keys.recall, b"").ok_or(BotRefusal::WrongSignature)?;
        let mut pass = Pass { once: Some((stamp.id.to_owned(), Arc::clone(&self.spent))), ..Pass::default() };
        if !stamp.is_fresh(unix.0.div_euclid(1_000_000)) {
            pass.limited = Some(Limited::StaleSignature);
        }
        match pass.refuses(unix).filter(|_| self.rules.options.refuse_replay) {
            Some(limited) => Err(BotRefusal::Limited(limited)),
            None => Ok(Admitted { tenant: signer.tenant.clone(), pass }),
        }
    }

    /// Reads the files of secrets again and again, so that they can be changed without a restart. What cannot be read or
    /// understood, or does not go together with the other options, changes nothing.
    pub async fn watch_files(self: Arc<Self>, stop: Stopped) {
        if self.rules.options.has_files() {
            read_again_and_again("secrets", READ_EVERY, move || self.read_again(), stop).await;
        }
    }

    fn read_again(&self) -> Result<bool, String> {
        let secrets = Secrets::read(&self.rules.options).map_err(|error| error.to_string())?;
        if secrets == self.keys().secrets {
            return Ok(false);
        }
        let keys = Arc::new(self.rules.keys(secrets)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(true)
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doors")
    }
}
