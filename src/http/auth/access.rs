//! Who may ask the API and fetch media: Bearer tokens that may read, or do everything.

use axum::http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look, watch, and let others watch.
    Read,
    /// And change.
    Admin,
}

/// The tokens of the API.
#[derive(Default)]
pub struct ApiTokens(Vec<(Scope, [u8; 32])>);

impl ApiTokens {
    /// Entries `token` or `read:token`.
    ///
    /// # Errors
    /// Text that names the variable, never an entry.
    pub fn new(entries: &[String]) -> Result<ApiTokens, String> {
        let tokens = entries.iter().map(|entry| {
            let (scope, token) = match entry.split_once(':') {
                None => (Scope::Admin, entry.as_str()),
                Some(("read", token)) => (Scope::Read, token),
                Some(_) => return Err("TILECAST_API_TOKEN: an entry is `token` or `read:token`".to_owned()),
            };
            match token {
                "" => Err("TILECAST_API_TOKEN: a token is empty".to_owned()),
                token => Ok((scope, Sha256::digest(token.as_bytes()).into())),
            }
        });
        Ok(ApiTokens(tokens.collect::<Result<_, _>>()?))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the token of `Authorization: Bearer ...` may do; `None` where there is none, or an unknown one.
    pub fn scope(&self, headers: &HeaderMap) -> Option<Scope> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let offered: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        let mut scope = None;
        // Every entry is compared, so that the time taken tells nothing.
        for (of_token, known) in &self.0 {
            if bool::from(known.ct_eq(&offered)) {
                scope = scope.max(Some(*of_token));
            }
        }
        scope
    }
}

/// What a request needs: who may read may also let others watch, for as long as a grant lasts.
pub fn needed(method: &Method, path: &str) -> Scope {
    let reads = method == Method::GET || method == Method::HEAD;
    if reads || (method == Method::POST && path.ends_with("/grants")) { Scope::Read } else { Scope::Admin }
}

/// Whether a request comes from this machine by all that can be seen: it names the server by a loopback address, comes
/// from no page of another site, and through no proxy that says so.
pub fn is_local(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let forwarded = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];
    let host = text(header::HOST).is_some_and(is_loopback);
    let origin = match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => {
            origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host)))
        }
    };
    host && origin && !forwarded.iter().any(|name| headers.contains_key(*name))
}

/// Whether `host` or `host:port` is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_may_read_or_do_everything() {
        let tokens = ApiTokens::new(&["alpha".into(), "read:beta".into()]).unwrap();
        for (value, scope) in [
            ("Bearer alpha", Some(Scope::Admin)),
            ("bearer beta", Some(Scope::Read)),
            ("Bearer read:beta", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic alpha", None),
            ("alpha", None),
            ("Bearer alphaa", None),
        ] {
            assert_eq!(tokens.scope(&headers(&[("authorization", value)])), scope, "{value}");
        }
        assert_eq!(tokens.scope(&HeaderMap::new()), None);
        for wrong in ["write:hush", "read:", ":hush"] {
            let error = ApiTokens::new(&[wrong.to_owned()]).err().unwrap();
            assert!(error.starts_with("TILECAST_API_TOKEN") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn who_reads_may_let_others_watch_and_change_nothing() {
        for (method, path, scope) in [
            (Method::GET, "/api/v1/recordings", Scope::Read),
            (Method::HEAD, "/media/r/1-webcam/video.mp4", Scope::Read),
            (Method::POST, "/api/v1/recordings/r/grants", Scope::Read),
            (Method::POST, "/api/v1/recordings/r/finish", Scope::Admin),
            (Method::DELETE, "/api/v1/recordings/grants", Scope::Admin),
            (Method::OPTIONS, "/api/v1/recordings", Scope::Admin),
        ] {
            assert_eq!(needed(&method, path), scope, "{method} {path}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.8.8.8"] {
            assert!(is_local(&headers(&[("host", host)])), "{host}");
        }
        for host in ["tilecast.example", "10.0.0.1:8080", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::2]:80"]
        {
            assert!(!is_local(&headers(&[("host", host)])), "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
        let with = |name, value| is_local(&headers(&[("host", "127.0.0.1:8080"), (name, value)]));
        assert!(with("origin", "http://127.0.0.1:8080") && with("accept", "*/*"));
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("x-forwarded-for", "127.0.0.1"),
            ("via", "1.1 proxy"),
        ] {
            assert!(!with(name, value), "{name}: {value}");
        }
    }
}
