//! Signatures by the Standard Webhooks scheme, as Recall.ai makes them: over an upgrade with an empty body, over a webhook
//! with its own. Pure: time is an argument. The vector in the tests is Recall's.

use axum::http::HeaderMap;
use base64::Engine;
use base64::alphabet::STANDARD as LETTERS;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::tokens::split_tenant;

/// A timestamp may be off by so many seconds.
pub const TOLERANCE_SECS: i64 = 300;
/// Longer headers are none of theirs.
const HEADER_BYTES_MAX: usize = 4096;
/// Entries of one signature header: one for each secret while they are rotated.
const ENTRIES_MAX: usize = 16;

/// Secrets may come without the padding.
const SECRET_FORM: GeneralPurpose =
    GeneralPurpose::new(&LETTERS, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// One secret `whsec_...`.
#[derive(Clone)]
pub struct SigningKey {
    /// The tenant whose bots sign with it.
    pub tenant: Option<String>,
    mac: Hmac<Sha256>,
}

impl SigningKey {
    /// `whsec_{base64}`, or `tenant:whsec_{base64}`. `what` is the variable that has it.
    ///
    /// # Errors
    /// Text that names the variable, never the secret.
    pub fn new(entry: &str, what: &str) -> Result<SigningKey, String> {
        let (tenant, secret) = split_tenant(entry, what)?;
        let key = secret.strip_prefix("whsec_").and_then(|base64| SECRET_FORM.decode(base64).ok());
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| format!("{what}: a secret is whsec_ and base64"))?;
        Ok(SigningKey { tenant, mac: Hmac::new_from_slice(&key).expect("a key of any length") })
    }

    /// `v1,{base64}` over `{id}.{timestamp}.{body}`.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.mac.clone();
        for piece in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(piece);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The three headers of a signed request, whoever signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The message's id.
    pub id: &'a str,
    /// As sent; what is signed.
    timestamp: &'a str,
    /// The same, in unix seconds.
    pub seconds: i64,
    signatures: &'a str,
}

impl<'a> Stamp<'a> {
    /// From `webhook-id`, `webhook-timestamp`, `webhook-signature`, or the `svix-` ones; `None` where one is missing or of
    /// no use.
    pub fn read(headers: &'a HeaderMap) -> Option<Stamp<'a>> {
        ["webhook", "svix"].iter().find_map(|family| {
            let get = |name: &str| {
                let value = headers.get(format!("{family}-{name}"))?.to_str().ok()?;
                (1..=HEADER_BYTES_MAX).contains(&value.len()).then_some(value)
            };
            let timestamp = get("timestamp")?;
            let seconds = timestamp.parse().ok()?;
            Some(Stamp { id: get("id")?, timestamp, seconds, signatures: get("signature")? })
        })
    }

    /// The key that signed it; `None` when none of them did.
    pub fn signer<'k>(&self, keys: &'k [SigningKey], body: &[u8]) -> Option<&'k SigningKey> {
        let mut signer = None;
        // All are compared, as text: so that the time taken tells nothing, and no second spelling of a signature passes.
        for key in keys {
            let expected = key.sign(self.id, self.timestamp, body);
            for entry in self.signatures.split(' ').take(ENTRIES_MAX) {
                if bool::from(expected.as_bytes().ct_eq(entry.as_bytes())) {
                    signer = Some(key);
                }
            }
        }
        signer
    }

    /// Whether it was signed about now.
    pub fn is_fresh(&self, now_secs: i64) -> bool {
        self.seconds.saturating_sub(now_secs).unsigned_abs() <= TOLERANCE_SECS.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    const ID: &str = "msg_loFOjxBNrRLzqYUf";
    const TIMESTAMP: &str = "1731705121";
    const SIGNATURE: &str = "v1,ot0lUpSnMCACwEjUHw88diAWlRN43kqGIdVaOX6W8PU=";

    fn headers(family: &str, id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("id", id), ("timestamp", timestamp), ("signature", signature)] {
            let name = axum::http::HeaderName::from_bytes(format!("{family}-{name}").as_bytes()).unwrap();
            headers.insert(name, axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn passes(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        let Ok(key) = SigningKey::new(secret, "SECRET") else { return false };
        Stamp::read(headers).is_some_and(|stamp| stamp.signer(&[key], body).is_some())
    }

    /// Each text that differs from `text` in one character: another one, one less, one more.
    fn changes(text: &str) -> Vec<String> {
        let letters: Vec<char> = "AZaz09+/=-_,. v".chars().collect();
        let mut all = Vec::new();
        for at in 0..=text.len() {
            for letter in &letters {
                all.push(format!("{}{letter}{}", &text[..at], &text[at..]));
                if at < text.len() {
                    all.push(format!("{}{letter}{}", &text[..at], &text[at + 1..]));
                    all.push(format!("{}{}", &text[..at], &text[at + 1..]));
                }
            }
        }
        all.retain(|changed| changed != text);
        all
    }

    #[test]
    fn the_published_vector_passes_and_each_change_of_a_character_fails() {
        for family in ["webhook", "svix"] {
            assert!(passes(SECRET, &headers(family, ID, TIMESTAMP, SIGNATURE), b""));
            assert!(!passes(SECRET, &headers(family, ID, TIMESTAMP, SIGNATURE), b" "));
        }
        let mut tried = 0;
        let mut fails = |secret: &str, id: &str, timestamp: &str, signature: &str| {
            tried += 1;
            let headers = headers("webhook", id, timestamp, signature);
            assert!(!passes(secret, &headers, b""), "{secret} {id} {timestamp} {signature}");
        };
        for secret in changes(SECRET) {
            // Padding that says nothing is allowed behind a secret.
            if secret.trim_end_matches('=') != SECRET {
                fails(&secret, ID, TIMESTAMP, SIGNATURE);
            }
        }
        changes(ID).iter().for_each(|id| fails(SECRET, id, TIMESTAMP, SIGNATURE));
        changes(TIMESTAMP).iter().for_each(|timestamp| fails(SECRET, ID, timestamp, SIGNATURE));
        for signature in changes(SIGNATURE) {
            // A space parts entries: one beside the signature leaves it whole.
            if signature.trim() != SIGNATURE {
                fails(SECRET, ID, TIMESTAMP, &signature);
            }
        }
        assert!(tried > 3000, "{tried}");
    }

    #[test]
    fn any_entry_and_any_secret_passes() {
        let other = SigningKey::new("acme:whsec_c29tZXRoaW5nIGVsc2U", "SECRET").unwrap();
        let theirs = other.sign(ID, TIMESTAMP, b"");
        let keys = [SigningKey::new(SECRET, "SECRET").unwrap(), other];
        let signer = |signature: &str| {
            let headers = headers("webhook", ID, TIMESTAMP, signature);
            Stamp::read(&headers).unwrap().signer(&keys, b"").map(|key| key.tenant.clone())
        };
        assert_eq!(signer(&format!("v1,AAAA v1a,xyz {SIGNATURE}")), Some(None));
        assert_eq!(signer(&theirs), Some(Some("acme".to_owned())));
        assert_eq!(signer("v1,AAAA"), None);
        assert_eq!(signer(&format!("{}{SIGNATURE}", "v1,AAAA ".repeat(ENTRIES_MAX))), None, "not without end");
    }

    #[test]
    fn five_minutes_are_fresh_and_no_second_more() {
        let headers = headers("webhook", ID, TIMESTAMP, SIGNATURE);
        let stamp = Stamp::read(&headers).unwrap();
        let at = 1_731_705_121;
        for (now, fresh) in [(at, true), (at + 300, true), (at - 300, true), (at + 301, false), (at - 301, false)] {
            assert_eq!(stamp.is_fresh(now), fresh, "{now}");
        }
        assert!(!stamp.is_fresh(i64::MIN) && !stamp.is_fresh(i64::MAX));
    }

    #[test]
    fn what_cannot_be_a_secret_is_told_without_the_secret() {
        for secret in ["hush", "whsec_", "whsec_hush!", "Whsec_MDEy", "no tenant:whsec_MDEy"] {
            let error = SigningKey::new(secret, "TILECAST_RECALL_SECRET").err().unwrap();
            assert!(error.starts_with("TILECAST_RECALL_SECRET: ") && !error.contains("hush"), "{error}");
        }
    }
}
