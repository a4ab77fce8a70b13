//! The participants of a recording: what is known of each, since when, and the events that tell what they did.
//!
//! Not here: their lanes' pictures, and how event lines reach a file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::media::{GapReason, Kind, Micros};
use crate::pipeline::ingest::protocol::{Participant, ParticipantMessage};
use crate::pipeline::store::manifest::ParticipantManifest;
use crate::pipeline::timeline::Mark;

use super::{Inner, Recording};

/// Participants that are kept: more than any meeting has. Of further ones the events alone tell.
const PEOPLE_MAX: usize = 4096;

/// An event this far from the recording's clock is of no believable time: it counts as of now.
const NEVER: Micros = Micros::from_secs(24 * 3600);

/// What an event says of a participant outlives what pictures up to this far after the recording's clock say.
const AHEAD_MAX: Micros = Micros::from_secs(600);

/// Of a message whose time is in doubt, or that an earlier process read.
pub(super) const NO_TIME: Micros = Micros(i64::MIN);

/// A participant, as of the newest message that was believed.
#[derive(Clone, Debug)]
struct Known {
    who: Participant,
    as_of: Micros,
}

/// Everybody that a recording has heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct People(BTreeMap<String, Known>);

impl People {
    /// Those that an earlier process knew.
    pub(super) fn resume(people: Vec<Participant>) -> People {
        let known = |who: Participant| (who.id.clone(), Known { who, as_of: NO_TIME });
        People(people.into_iter().map(known).collect())
    }

    /// What is known of a participant.
    pub(super) fn get(&self, id: &str) -> Option<&Participant> {
        self.0.get(id).map(|known| &known.who)
    }

    /// Everybody, by id.
    pub(super) fn all(&self) -> Vec<Participant> {
        self.0.values().map(|known| known.who.clone()).collect()
    }

    /// Forgets a participant.
    pub(super) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Notes what a message of that time says. Returns the names of the fields that changed: none at the first message,
    /// nor by one that is older than what is known, as a bot that dialled again may send once more.
    pub(super) fn note(&mut self, said: &Participant, at: Micros) -> Vec<&'static str> {
        let Some(known) = self.0.get_mut(&said.id) else {
            if self.0.len() < PEOPLE_MAX {
                self.0.insert(said.id.clone(), Known { who: said.clone(), as_of: at });
            }
            return Vec::new();
        };
        if at < known.as_of {
            return Vec::new();
        }
        known.as_of = at;
        if known.who == *said {
            return Vec::new();
        }
        let who = &mut known.who;
        let changed = [
            ("name", replace(&mut who.name, &said.name)),
            ("email", replace(&mut who.email, &said.email)),
            ("is_host", replace(&mut who.is_host, &said.is_host)),
            ("platform", replace(&mut who.platform, &said.platform)),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

/// Puts what was said in place of what is known; leaving a field out does not unsay it. Returns whether it is news.
fn replace<T: Clone + PartialEq>(known: &mut Option<T>, said: &Option<T>) -> bool {
    let news = said.is_some() && known != said;
    if news {
        known.clone_from(said);
    }
    news
}

/// What is stored of a participant.
pub(super) fn manifest_of(participant: &Participant) -> ParticipantManifest {
    ParticipantManifest {
        id: participant.id.clone(),
        name: participant.name.clone(),
        email: participant.email.clone(),
        is_host: participant.is_host,
        platform: participant.platform.clone(),
    }
}

impl Recording {
    /// A participant did something: an event, and where it concerns a source, a mark for its lanes. `store_chat`: what
    /// they wrote is kept as well.
    pub fn participant_event(&self, message: &ParticipantMessage<'_>, store_chat: bool) {
        let mark = match &*message.action {
            "webcam_off" => Some((Some(Kind::Webcam), Mark::Off(GapReason::CameraOff))),
            "webcam_on" => Some((Some(Kind::Webcam), Mark::On)),
            "screenshare_off" => Some((Some(Kind::Screenshare), Mark::Off(GapReason::CameraOff))),
            "screenshare_on" => Some((Some(Kind::Screenshare), Mark::On)),
            "leave" => Some((None, Mark::Off(GapReason::NotJoined))),
            _ => None,
        };
        let mut inner = self.lock();
        if inner.is_forgotten(&message.participant.id) {
            return;
        }
        let at = time_of(&inner, message);
        let changed = {
            let as_of = at.min(inner.clock.newest() + AHEAD_MAX);
            inner.people.note(&message.participant, as_of)
        };
        if let Some((kind, mark)) = mark {
            let of_participant = inner.lanes.iter().filter(|((id, _), _)| *id == message.participant.id);
            for ((_, lane_kind), lane) in of_participant {
                if kind.is_none_or(|kind| kind == *lane_kind) {
                    lane.mark(at, mark);
                }
            }
        }
        let chat = if store_chat { message.chat() } else { None };
        let detail = match (chat, changed.is_empty()) {
            (Some(chat), _) => json!(chat),
            (None, false) => json!({ "changed": changed }),
            (None, true) => Value::Null,
        };
        self.note(&mut inner, at, &message.action, Some(&message.participant), detail);
    }

    /// A picture that was placed says whom it shows; what it says anew is an `update` like one that the bot tells of.
    pub(super) fn note_seen(&self, inner: &mut Inner, who: &Participant, at: Micros) {
        if inner.is_forgotten(&who.id) {
            return;
        }
        let changed = inner.people.note(who, at);
        if !changed.is_empty() {
            let at = if at == NO_TIME { inner.clock.newest() } else { at };
            self.note(inner, at, "update", Some(who), json!({ "changed": changed, "by": "picture" }));
        }
    }
}

/// When it happened, on the recording's time line; now, where what the message says is not believable.
fn time_of(inner: &Inner, message: &ParticipantMessage<'_>) -> Micros {
    let newest = inner.clock.newest();
    let said = message.timestamp.relative.map(|relative| inner.clock.line_of(relative, message.timestamp.absolute));
    said.filter(|at| (at.0 - newest.0).abs() <= NEVER.0).unwrap_or(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: Option<&str>, is_host: Option<bool>) -> Participant {
        Participant { id: "1".into(), name: name.map(str::to_owned), is_host, ..Participant::default() }
    }

    #[test]
    fn a_change_is_told_once_and_never_by_what_is_older() {
        let mut people = People::default();
        let mut note = |name, host, at| people.note(&who(name, host), Micros(at));
        assert!(note(Some("Ana"), None, 5).is_empty(), "the first word is no change");
        assert!(note(Some("Ana"), None, 6).is_empty());
        assert_eq!(note(Some("Ana B."), Some(true), 7), ["name", "is_host"]);
        assert!(note(Some("Ana B."), Some(true), 7).is_empty());
        assert!(note(Some("Ana"), None, 6).is_empty(), "sent again from before");
        assert!(note(None, None, 8).is_empty(), "left out is not unsaid");
        assert_eq!(note(Some("Ana B."), Some(false), 9), ["is_host"]);
        let known = people.get("1").unwrap();
        assert_eq!((known.name.as_deref(), known.is_host), (Some("Ana B."), Some(false)));
        assert_eq!(People::resume(people.all()).note(&who(Some("Ana C."), None), Micros(0)), ["name"]);
    }

    #[test]
    fn ever_new_participants_are_bounded() {
        let mut people = People::default();
        for id in 0..2 * PEOPLE_MAX {
            people.note(&Participant { id: id.to_string(), ..Participant::default() }, Micros(0));
        }
        assert_eq!(people.all().len(), PEOPLE_MAX);
    }
}
