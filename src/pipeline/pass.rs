//! What a socket may open: any recording, or only go on in those that are here. Pure: time is an argument.
//!
//! Not here: who gets a pass; that is the door's to say.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::media::Micros;

/// Ids that are remembered. Only who has a secret can add one; when full, the oldest goes.
const IDS_MAX: usize = 100_000;

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

/// Ids of signed upgrades that have opened a recording. A bot that dials again with the same one before that is no
/// replay: whether Recall signs its redials afresh is not known.
#[derive(Debug)]
pub struct SpentIds {
    kept: Micros,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ids: HashSet<Arc<str>>,
    order: VecDeque<(Micros, Arc<str>)>,
}

impl SpentIds {
    /// Remembers each for as long as its signature may be fresh.
    pub fn new(kept: Micros) -> SpentIds {
        SpentIds { kept, inner: Mutex::default() }
    }

    /// Whether this one has opened a recording.
    pub fn is_spent(&self, id: &str) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).ids.contains(id)
    }

    /// Spends it; false where it was spent before.
    fn spend(&self, id: &str, now: Micros) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, oldest)) = inner.order.front().cloned()
            && (now - at > self.kept || inner.order.len() >= IDS_MAX)
        {
            inner.ids.remove(&oldest);
            inner.order.pop_front();
        }
        let id: Arc<str> = id.into();
        if !inner.ids.insert(Arc::clone(&id)) {
            return false;
        }
        inner.order.push_back((now, id));
        true
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
    pub fn open(&mut self, unix: Micros, mono: Micros) -> Result<(), Limited> {
        if let Some(limited) = self.refuses(unix) {
            return Err(limited);
        }
        match self.once.take() {
            Some((id, spent)) if !spent.spend(&id, mono) => {
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
        let spent = Arc::new(SpentIds::new(secs(600)));
        // Both are open before either says anything.
        let (mut first, mut second) = (signed("a", &spent), signed("a", &spent));
        assert_eq!((first.refuses(secs(0)), second.refuses(secs(0))), (None, None));
        assert_eq!(first.open(secs(0), secs(0)), Ok(()));
        assert_eq!(second.open(secs(1), secs(1)), Err(Limited::RepeatedId));
        assert_eq!(first.open(secs(2), secs(2)), Ok(()), "its bot may start a second recording");
        assert!(spent.is_spent("a") && !spent.is_spent("b"));
        assert_eq!(signed("a", &spent).open(secs(599), secs(599)), Err(Limited::RepeatedId));
        assert_eq!(signed("b", &spent).open(secs(700), secs(700)), Ok(()));
        assert!(!spent.is_spent("a"), "forgotten once its signature is stale");
    }

    #[test]
    fn an_expired_token_opens_nothing_new() {
        let mut pass = Pass { expires: Some(secs(100)), ..Pass::default() };
        assert_eq!(pass.open(secs(99), secs(0)), Ok(()));
        assert_eq!(pass.open(secs(100), secs(1)), Err(Limited::ExpiredToken));
        let mut stale = Pass { limited: Some(Limited::StaleSignature), ..Pass::default() };
        assert_eq!(stale.open(secs(0), secs(0)), Err(Limited::StaleSignature));
        assert_eq!(Pass::default().open(secs(0), secs(0)), Ok(()));
    }

    #[test]
    fn ids_are_bounded() {
        let spent = SpentIds::new(secs(600));
        for n in 0..IDS_MAX as i64 + 3 {
            assert!(spent.spend(&n.to_string(), Micros(n)));
        }
        let inner = spent.inner.lock().unwrap();
        assert_eq!((inner.ids.len(), inner.order.len()), (IDS_MAX, IDS_MAX));
        assert!(!inner.ids.contains("2") && inner.ids.contains("3"));
    }
}
