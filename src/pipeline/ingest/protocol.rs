//! The messages of a Recall.ai bot as they stand on the wire, read without copying their payload.
//!
//! Parse once, at the border: what leaves this file has the right types. Not here: base64, PNG, sockets; the messages
//! that `simulate` and the tests write ([`Outgoing`]).

mod outgoing;

pub use outgoing::{Outgoing, OutgoingBody, OutgoingData, OutgoingParticipant, OutgoingThing, OutgoingTimestamp};

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use crate::media::{Kind, Micros};

/// The event that carries a picture.
pub const PICTURE_EVENT: &str = "video_separate_png.data";

/// One message of a bot.
#[derive(Debug)]
pub enum Message<'a> {
    /// A participant's picture.
    Picture(Box<PictureMessage<'a>>),
    /// Something that a participant did: `join`, `webcam_off`, ...
    Participant(Box<ParticipantMessage<'a>>),
    /// An event that is not ours; counted by name.
    Other(Cow<'a, str>),
}

/// `video_separate_png.data`.
#[derive(Debug)]
pub struct PictureMessage<'a> {
    /// Standard base64 of a PNG, padding optional.
    pub buffer: Cow<'a, str>,
    /// When it was taken.
    pub timestamp: Timestamp,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// Whom it shows.
    pub participant: Participant,
    /// What it belongs to.
    pub context: Context,
}

/// `participant_events.*`.
#[derive(Debug)]
pub struct ParticipantMessage<'a> {
    /// The part of the event's name after `participant_events.`.
    pub action: Cow<'a, str>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who did it.
    pub participant: Participant,
    /// What it belongs to.
    pub context: Context,
    /// What else the event carries (a chat text), unread.
    pub detail: Option<&'a RawValue>,
}

/// The two clocks of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Since the recording's start; `None` when it is no believable number.
    pub relative: Option<Micros>,
    /// Since 1970 (UTC); `None` when it is missing or of no known form.
    pub absolute: Option<Micros>,
}

/// A participant as Recall describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Integer or string on the wire; text here.
    pub id: String,
    /// Display name.
    pub name: Option<String>,
    /// Address, where Recall knows it.
    pub email: Option<String>,
    /// Whether this is a host of the meeting.
    pub is_host: Option<bool>,
    /// `desktop`, `mobile_app`, ...
    pub platform: Option<String>,
}

/// The recording, bot and metadata that a message belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// `recording.id`.
    pub recording_id: String,
    /// `bot.id`, where the message names a bot.
    pub bot_id: Option<String>,
    /// `bot.metadata`, `recording.metadata`, `realtime_endpoint.metadata` as JSON text.
    pub metadata: [Option<Box<RawJson>>; 3],
}

/// JSON text, compared as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson(pub String);

/// Why a message is not one of a bot.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Not JSON, or JSON of another shape.
    #[error("not a message of a bot: {0}")]
    Json(#[from] serde_json::Error),
    /// A picture whose `type` is neither webcam nor screenshare.
    #[error("unknown picture type")]
    Kind,
    /// The first message of protocol v1.10.
    #[error("legacy real-time protocol (protocol_version), which has no pictures in JSON")]
    Legacy,
    /// A recording or participant id that is empty or longer than 256 bytes.
    #[error("{0} id is empty or too long")]
    Id(&'static str),
}

impl ProtocolError {
    /// A short name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ProtocolError::Json(error) if error.is_data() => "wrong_shape",
            ProtocolError::Json(_) => "not_json",
            ProtocolError::Kind => "wrong_shape",
            ProtocolError::Legacy => "legacy",
            ProtocolError::Id(_) => "wrong_shape",
        }
    }
}

/// Reads one message. The picture's buffer is borrowed from `text` unless the JSON escapes something in it.
pub fn parse(text: &str) -> Result<Message<'_>, ProtocolError> {
    let envelope: Envelope = serde_json::from_str(text)?;
    let Some(event) = envelope.event else {
        if envelope.protocol_version.is_some() {
            return Err(ProtocolError::Legacy);
        }
        return Err(ProtocolError::Json(serde::de::Error::missing_field("event")));
    };
    if event == PICTURE_EVENT {
        let data: PictureData = read(envelope.data)?;
        let kind = match &*data.data.kind {
            "webcam" => Kind::Webcam,
            "screenshare" => Kind::Screenshare,
            _ => return Err(ProtocolError::Kind),
        };
        return Ok(Message::Picture(Box::new(PictureMessage {
            buffer: data.data.buffer,
            timestamp: data.data.timestamp.read(),
            kind,
            participant: data.data.participant.read()?,
            context: context(data.recording, data.bot, data.realtime_endpoint)?,
        })));
    }
    let Some(action) = event.strip_prefix("participant_events.").map(|action| Cow::Owned(action.to_owned())) else {
        return Ok(Message::Other(event));
    };
    let data: EventData = read(envelope.data)?;
    Ok(Message::Participant(Box::new(ParticipantMessage {
        action,
        timestamp: data.data.timestamp.read(),
        participant: data.data.participant.read()?,
        context: context(data.recording, data.bot, data.realtime_endpoint)?,
        detail: data.data.data,
    })))
}

fn read<'a, T: Deserialize<'a>>(data: Option<&'a RawValue>) -> Result<T, ProtocolError> {
    let data = data.ok_or_else(|| ProtocolError::Json(serde::de::Error::missing_field("data")))?;
    Ok(serde_json::from_str(data.get())?)
}

fn context(
    recording: Thing<'_>,
    bot: Option<Thing<'_>>,
    endpoint: Option<Thing<'_>>,
) -> Result<Context, ProtocolError> {
    let id = |thing: &Thing<'_>, what| match thing.id.as_deref() {
        Some(id) if !id.is_empty() && id.len() <= ID_BYTES_MAX => Ok(id.to_owned()),
        _ => Err(ProtocolError::Id(what)),
    };
    let recording_id = id(&recording, "recording")?;
    let bot_id = bot.as_ref().and_then(|bot| id(bot, "bot").ok());
    let text = |thing: Option<Thing<'_>>| {
        let raw = thing?.metadata?.get();
        (raw.len() <= METADATA_BYTES_MAX && raw != "null" && raw != "{}").then(|| Box::new(RawJson(raw.to_owned())))
    };
    Ok(Context { recording_id, bot_id, metadata: [text(bot), text(Some(recording)), text(endpoint)] })
}

const ID_BYTES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 1024;
const METADATA_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    protocol_version: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PictureData<'a> {
    #[serde(borrow)]
    data: PictureBody<'a>,
    #[serde(borrow)]
    recording: Thing<'a>,
    #[serde(borrow)]
    bot: Option<Thing<'a>>,
    #[serde(borrow)]
    realtime_endpoint: Option<Thing<'a>>,
}

#[derive(Deserialize)]
struct PictureBody<'a> {
    #[serde(borrow)]
    buffer: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: WireTimestamp<'a>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    participant: WireParticipant<'a>,
}

#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow)]
    data: EventBody<'a>,
    #[serde(borrow)]
    recording: Thing<'a>,
    #[serde(borrow)]
    bot: Option<Thing<'a>>,
    #[serde(borrow)]
    realtime_endpoint: Option<Thing<'a>>,
}

#[derive(Deserialize)]
struct EventBody<'a> {
    #[serde(borrow)]
    timestamp: WireTimestamp<'a>,
    #[serde(borrow)]
    participant: WireParticipant<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Thing<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireTimestamp<'a> {
    relative: f64,
    /// Of any type: a bad one never fails the picture.
    #[serde(borrow)]
    absolute: Option<&'a RawValue>,
}

impl WireTimestamp<'_> {
    fn read(&self) -> Timestamp {
        let absolute = self.absolute.and_then(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok());
        Timestamp {
            relative: Micros::from_secs_f64(self.relative),
            absolute: absolute.and_then(|text| parse_absolute(&text)),
        }
    }
}

/// Reads ISO 8601 with `Z` or an offset, `T` or a space, as microseconds since 1970.
pub fn parse_absolute(text: &str) -> Option<Micros> {
    let text = text.trim();
    let mut text = text.to_owned();
    if text.as_bytes().get(10) == Some(&b' ') {
        text.replace_range(10..11, "T");
    }
    let read = |text: &str| {
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(text, &Iso8601::DEFAULT)).ok()
    };
    // Without an offset it is taken as UTC: Python's isoformat() of a naive time.
    let time = read(&text).or_else(|| read(&format!("{text}Z")))?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Micros)
}

#[derive(Deserialize)]
struct WireParticipant<'a> {
    #[serde(borrow)]
    id: WireId<'a>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    email: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    is_host: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    platform: Option<String>,
}

impl WireParticipant<'_> {
    fn read(self) -> Result<Participant, ProtocolError> {
        let id = match self.id {
            WireId::Number(id) => id.to_string(),
            WireId::Text(id) => id.into_owned(),
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(ProtocolError::Id("participant"));
        }
        Ok(Participant {
            id,
            name: self.name.map(shorten),
            email: self.email.map(shorten),
            is_host: self.is_host,
            platform: self.platform.map(shorten),
        })
    }
}

fn shorten(mut text: String) -> String {
    let mut end = NAME_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireId<'a> {
    Number(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// A describing field of another type than expected counts as absent: it never costs the picture.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let raw = Option::<&RawValue>::deserialize(from)?;
    Ok(raw.and_then(|raw| serde_json::from_str(raw.get()).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(timestamp: &str, rest: &str) -> String {
        format!(
            r#"{{"event":"video_separate_png.data","data":{{"data":{{"buffer":"iVBO","timestamp":{timestamp},
            "type":"webcam","participant":{{"id":16778240,"name":null,"is_host":true,"platform":null}}}},
            "realtime_endpoint":{{"id":"e","metadata":{{}}}},"recording":{{"id":"r","metadata":{{"a":1}}}},"bot":null{rest}}}}}"#
        )
    }

    #[test]
    fn a_picture_is_read_without_copying_its_buffer() {
        let text = picture(r#"{"relative":12.503,"absolute":"2026-01-01T10:00:12.503Z"}"#, "");
        let Message::Picture(message) = parse(&text).unwrap() else { panic!("no picture") };
        assert!(matches!(message.buffer, Cow::Borrowed("iVBO")));
        assert_eq!(message.timestamp.relative, Some(Micros(12_503_000)));
        assert_eq!(message.timestamp.absolute, parse_absolute("2026-01-01 10:00:12.503"));
        assert_eq!((message.participant.id.as_str(), message.participant.is_host), ("16778240", Some(true)));
        assert_eq!((message.context.recording_id.as_str(), &message.context.bot_id), ("r", &None));
        assert_eq!(message.context.metadata[1].as_deref(), Some(&RawJson(r#"{"a":1}"#.into())));
    }

    #[test]
    fn escaped_slashes_are_undone() {
        let text = picture(r#"{"relative":0,"absolute":null}"#, "").replace("iVBO", r"iV\/\/");
        let Message::Picture(message) = parse(&text).unwrap() else { panic!("no picture") };
        assert_eq!(message.buffer, "iV//");
    }

    #[test]
    fn absolute_times_come_in_several_forms() {
        let expected = Some(Micros(1_767_261_612_503_000));
        for text in [
            "2026-01-01T10:00:12.503Z",
            "2026-01-01 10:00:12.503Z",
            "2026-01-01T10:00:12.503+00:00",
            "2026-01-01T12:00:12.503000+02:00",
            "2026-01-01 10:00:12.503+00:00",
            "2026-01-01T10:00:12.503",
        ] {
            assert_eq!(parse_absolute(text), expected, "{text}");
        }
        assert_eq!(parse_absolute("yesterday"), None);
    }

    #[test]
    fn describing_fields_of_a_wrong_type_never_cost_the_picture() {
        let text = picture(r#"{"relative":1,"absolute":17}"#, r#","unknown":[1]"#)
            .replace(r#""name":null"#, r#""name":{"a":1},"email":7,"extra_data":{"x":[]}"#);
        let Message::Picture(message) = parse(&text).unwrap() else { panic!("no picture") };
        assert_eq!((message.participant.name, message.timestamp.absolute), (None, None));
    }

    #[test]
    fn bad_messages_are_told_apart() {
        let good = picture(r#"{"relative":1,"absolute":"x"}"#, "");
        let name = |text: &str| match parse(text) {
            Ok(message) => format!("{message:?}"),
            Err(error) => error.name().to_owned(),
        };
        assert_eq!(name("hello"), "not_json");
        assert_eq!(name(&good[..good.len() - 4]), "not_json");
        assert_eq!(name("[]"), "wrong_shape");
        assert_eq!(name("{}"), "wrong_shape");
        assert_eq!(name(r#"{"protocol_version":1,"bot_id":"x"}"#), "legacy");
        assert_eq!(name(&good.replace("\"buffer\"", "\"puffer\"")), "wrong_shape");
        assert_eq!(name(&good.replace("webcam", "hologram")), "wrong_shape");
        assert_eq!(name(&good.replace("16778240", "{}")), "wrong_shape");
        assert_eq!(name(&good.replace(r#""id":"r""#, r#""id":"""#)), "wrong_shape");
        assert_eq!(name(&good.replace(r#""relative":1"#, r#""relative":"1""#)), "wrong_shape");
        assert_eq!(name(r#"{"event":"transcript.data","data":{}}"#), r#"Other("transcript.data")"#);
    }
}
