//! What happened in a recording: lines for `events.jsonl`, which wait for the sync thread.

use crate::clock::rfc3339;
use crate::media::Micros;
use crate::pipeline::ingest::protocol::Participant;
use crate::pipeline::store::manifest::SCHEMA;

use super::people::manifest_of;
use super::{Inner, Recording};

/// Event lines that wait for the sync thread; further ones are counted, and the count is an event.
const EVENTS_WAITING_MAX: usize = 4096;
/// And their bytes: a chat text may be long.
const EVENT_BYTES_WAITING_MAX: usize = 4 << 20;

impl Recording {
    /// Notes an event of the recording itself.
    pub fn event(&self, name: &str, detail: serde_json::Value) {
        let mut inner = self.lock();
        let at = inner.clock.newest();
        self.note(&mut inner, at, name, None, detail);
    }

    pub(super) fn note(
        &self,
        inner: &mut Inner,
        at: Micros,
        name: &str,
        who: Option<&Participant>,
        detail: serde_json::Value,
    ) {
        if inner.events.len() >= EVENTS_WAITING_MAX || inner.event_bytes >= EVENT_BYTES_WAITING_MAX {
            inner.events_dropped += 1;
            return;
        }
        if who.is_some_and(|who| inner.is_forgotten(&who.id)) {
            return;
        }
        let mut line = serde_json::json!({
            "schema": SCHEMA,
            "tick": self.grid.tick_at(at),
            "relative": at.as_secs_f64(),
            "event": name,
        });
        if let Some(origin) = inner.clock.origin() {
            line["time"] = rfc3339(origin.unix + at).into();
        }
        if let Some(who) = who {
            line["participant"] = serde_json::json!(manifest_of(who));
        }
        if !detail.is_null() {
            line["detail"] = detail;
        }
        let line = format!("{line}\n");
        inner.event_bytes += line.len();
        inner.events.push(line);
    }

    /// Event lines that are not written yet.
    pub fn take_events(&self) -> Option<String> {
        let mut inner = self.lock();
        if inner.events_dropped > 0 {
            let dropped = std::mem::take(&mut inner.events_dropped);
            let at = inner.clock.newest();
            inner.events.pop();
            inner.event_bytes = 0;
            self.note(&mut inner, at, "events_dropped", None, serde_json::json!({ "count": dropped + 1 }));
        }
        inner.event_bytes = 0;
        (!inner.events.is_empty()).then(|| std::mem::take(&mut inner.events).concat())
    }

    /// Puts event lines back that could not be handed on.
    pub fn return_events(&self, text: String) {
        let mut inner = self.lock();
        // Somebody may have been forgotten meanwhile.
        let text = inner.without_forgotten(text);
        inner.event_bytes += text.len();
        inner.events.insert(0, text);
    }
}
