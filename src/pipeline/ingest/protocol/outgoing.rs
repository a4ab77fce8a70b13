//! The same messages to be sent: what `simulate` and the tests write. Reading is the parent's business.

use serde::Serialize;

use crate::media::Kind;

/// A message to be sent: what `simulate` and the tests write.
#[derive(Serialize)]
pub struct Outgoing<'a> {
    /// The event's name.
    pub event: &'a str,
    /// The envelope's `data`.
    pub data: OutgoingData<'a>,
}

/// The envelope of [`Outgoing`].
#[derive(Serialize)]
pub struct OutgoingData<'a> {
    /// The event's own body.
    pub data: OutgoingBody<'a>,
    /// `realtime_endpoint`.
    pub realtime_endpoint: OutgoingThing<'a>,
    /// `video_separate`, with pictures only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_separate: Option<OutgoingThing<'a>>,
    /// `recording`.
    pub recording: OutgoingThing<'a>,
    /// `bot`.
    pub bot: Option<OutgoingThing<'a>>,
}

/// The body of [`Outgoing`].
#[derive(Serialize)]
pub struct OutgoingBody<'a> {
    /// Base64 of the PNG, with pictures only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<&'a str>,
    /// When.
    pub timestamp: OutgoingTimestamp,
    /// `webcam` or `screenshare`, with pictures only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Who.
    pub participant: OutgoingParticipant<'a>,
    /// `null` or an object, with participant events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// `timestamp` of [`Outgoing`].
#[derive(Serialize)]
pub struct OutgoingTimestamp {
    /// Seconds since the recording's start.
    pub relative: f64,
    /// ISO 8601.
    pub absolute: String,
}

/// `participant` of [`Outgoing`].
#[derive(Serialize)]
pub struct OutgoingParticipant<'a> {
    /// The participant's number.
    pub id: i64,
    /// Display name.
    pub name: Option<&'a str>,
    /// Whether a host.
    pub is_host: Option<bool>,
    /// `desktop`, ...
    pub platform: Option<&'a str>,
}

/// `{id, metadata}` of [`Outgoing`].
#[derive(Serialize)]
pub struct OutgoingThing<'a> {
    /// Usually a UUID.
    pub id: &'a str,
    /// The caller's own keys.
    pub metadata: serde_json::Value,
}
