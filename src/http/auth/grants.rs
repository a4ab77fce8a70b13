//! Playback grants: a signed part of an address, by which somebody without a token watches one recording, or one of its
//! tracks, for a while. Pure: time is an argument.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Signs grants. The first key does; all of them are known again.
pub struct GrantKeys(Vec<Hmac<Sha256>>);

/// Why a grant opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGrant {
    /// It is none of ours, or for something else.
    Wrong,
    /// Its time is over.
    Expired,
}

impl GrantKeys {
    /// Keys of any length.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> GrantKeys {
        let keys = keys.into_iter().map(|key| Hmac::new_from_slice(key).expect("a key of any length"));
        GrantKeys(keys.collect())
    }

    /// `{expires}.{track}.{HMAC}` for a recording by its name in addresses, all of it or one track, until `expires` (unix
    /// seconds). The track is in base64url, empty for the whole recording.
    pub fn grant(&self, recording: &str, track: Option<&str>, expires: i64) -> String {
        let claims = format!("{expires}.{}", URL_SAFE_NO_PAD.encode(track.unwrap_or_default()));
        let key = self.0.first().expect("there is always a key");
        format!("{claims}.{}", mac(key, recording, &claims))
    }

    /// The track that a grant of this recording is limited to; `Ok(None)` where it is all of it.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self, grant: &str, recording: &str, now_secs: i64) -> Result<Option<String>, NoGrant> {
        let (claims, signed) = grant.rsplit_once('.').ok_or(NoGrant::Wrong)?;
        let ours = self.0.iter().fold(false, |ours, key| {
            ours | bool::from(mac(key, recording, claims).as_bytes().ct_eq(signed.as_bytes()))
        });
        if !ours {
            return Err(NoGrant::Wrong);
        }
        // From here on it is what we wrote.
        let (expires, track) = claims.split_once('.').ok_or(NoGrant::Wrong)?;
        if expires.parse::<i64>().map_err(|_| NoGrant::Wrong)? <= now_secs {
            return Err(NoGrant::Expired);
        }
        let track = URL_SAFE_NO_PAD.decode(track).ok().and_then(|track| String::from_utf8(track).ok());
        Ok(track.filter(|track| !track.is_empty()))
    }
}

fn mac(key: &Hmac<Sha256>, recording: &str, claims: &str) -> String {
    let mut mac = key.clone();
    // The claims have no line end, so nothing can move from one to the other.
    for piece in ["tilecast play\n", claims, "\n", recording] {
        mac.update(piece.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_one_recording_or_track_until_its_time_is_over() {
        let keys = GrantKeys::new([&b"new"[..], b"old"]);
        let (whole, one) = (keys.grant("acme:r", None, 100), keys.grant("acme:r", Some("1-webcam"), 100));
        assert_eq!(keys.check(&whole, "acme:r", 99), Ok(None));
        assert_eq!(keys.check(&one, "acme:r", 99), Ok(Some("1-webcam".to_owned())));
        assert_eq!(keys.check(&one, "acme:r", 100), Err(NoGrant::Expired));
        assert_eq!(keys.check(&one, "r", 99), Err(NoGrant::Wrong));
        assert_eq!(keys.check(&one, "acme:r\n", 99), Err(NoGrant::Wrong));
        let old = GrantKeys::new([&b"old"[..]]).grant("r", None, 100);
        assert_eq!(keys.check(&old, "r", 99), Ok(None), "keys are rotated");
        assert_eq!(GrantKeys::new([&b"other"[..]]).check(&whole, "acme:r", 99), Err(NoGrant::Wrong));
        for at in 0..one.len() {
            for other in ["A", "z", "9", ".", "-"] {
                if &one[at..=at] != other {
                    let changed = format!("{}{other}{}", &one[..at], &one[at + 1..]);
                    assert_eq!(keys.check(&changed, "acme:r", 99), Err(NoGrant::Wrong), "{changed}");
                }
            }
        }
        for rubbish in ["", ".", "..", "...", "100..", &"x".repeat(10_000)] {
            assert_eq!(keys.check(rubbish, "r", 0), Err(NoGrant::Wrong), "{rubbish:.20}");
        }
    }
}
