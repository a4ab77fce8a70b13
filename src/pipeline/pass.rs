//! What a socket may open: any recording, or only go on in those that are here. Time is an argument.
//!
//! Not here: who gets a pass; that is the door's to say.

mod spent;

pub use spent::SpentIds;

use std::sync::Arc;

use crate::media::Micros;

/// Why a socket opens no new recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Its derived token has expired.
    ExpiredToken,
    /// Its signature is outside the tolerance.
    StaleSignature,
    /// A signed upgrade of the same id has opened one before.
    RepeatedId,
}

impl Limited {
    /// The name in metrics, logs, and in the reason of a close.
    pub fn name(self) -> &'static str {
        match self {
            Limited::ExpiredToken => "expired_token",
            Limited::StaleSignature => "stale_signature",
            Limited::RepeatedId => "repeated_id",
        }
    }
}

/// What one socket may open.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Nothing new at all.
    pub limited: Option<Limited>,
    /// Nothing new from then on (unix).
    pub expires: Option<Micros>,
    /// The id of its signed upgrade, to be spent with the first recording that it opens.
    pub once: Option<(String, Arc<SpentIds>)>,
}

impl Pass {
    /// Whether a new recording is refused. `unix` is now.
    pub fn refuses(&self, unix: Micros) -> Option<Limited> {
        let expired = self.expires.is_some_and(|expires| unix >= expires).then_some(Limited::ExpiredToken);
        let spent = self.once.as_ref().is_some_and(|(id, spent)| spent.is_spent(id)).then_some(Limited::RepeatedId);
        self.limited.or(expired).or(spent)
    }

    /// Uses it for a new recording, unless that is refused.
    ///
    /// # Errors
    /// With the reason.
    pub fn open(&mut self, unix: Micros) -> Result<(), Limited> {
        if let Some(limited) = self.refuses(unix) {
            return Err(limited);
        }
        match self.once.take() {
            Some((id, spent)) if !spent.spend(&id, unix) => {
                self.limited = Some(Limited::RepeatedId);
                Err(Limited::RepeatedId)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: i64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    fn signed(id: &str, spent: &Arc<SpentIds>) -> Pass {
        Pass { once: Some((id.to_owned(), Arc::clone(spent))), ..Pass::default() }
    }

    #[test]
    fn the_first_socket_of_an_id_opens_and_goes_on_opening() {
        let dir = tempfile::tempdir().unwrap();
        let spent = Arc::new(SpentIds::open(dir.path(), secs(600), secs(0)).unwrap());
        // Both are open before either says anything.
        let (mut first, mut second) = (signed("a", &spent), signed("a", &spent));
        assert_eq!((first.refuses(secs(0)), second.refuses(secs(0))), (None, None));
        assert_eq!(first.open(secs(0)), Ok(()));
        assert_eq!(second.open(secs(1)), Err(Limited::RepeatedId));
        assert_eq!(first.open(secs(2)), Ok(()), "its bot may start a second recording");
        assert_eq!(signed("a", &spent).open(secs(599)), Err(Limited::RepeatedId));
        assert_eq!(signed("b", &spent).open(secs(700)), Ok(()));
    }

    #[test]
    fn an_expired_token_opens_nothing_new() {
        let mut pass = Pass { expires: Some(secs(100)), ..Pass::default() };
        assert_eq!(pass.open(secs(99)), Ok(()));
        assert_eq!(pass.open(secs(100)), Err(Limited::ExpiredToken));
        let mut stale = Pass { limited: Some(Limited::StaleSignature), ..Pass::default() };
        assert_eq!(stale.open(secs(0)), Err(Limited::StaleSignature));
        assert_eq!(Pass::default().open(secs(0)), Ok(()));
    }
}
