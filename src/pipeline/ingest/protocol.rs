//! The messages of a Recall.ai bot as they stand on the wire, read without copying their payload.
//!
//! Parse once, at the border: what leaves this file has the right types. Not here: base64, PNG, sockets; the messages
//! that `simulate` and the tests write ([`Outgoing`]).

mod absolute;
mod chat;
mod outgoing;
mod participant;

pub use absolute::parse_absolute;
pub use chat::Chat;
pub use outgoing::{Outgoing, OutgoingBody, OutgoingData, OutgoingParticipant, OutgoingThing, OutgoingTimestamp};
pub use participant::Participant;

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

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
    // What is not a picture of the usual form, and every error, goes the long way.
    if let Some(message) = parse_around_buffer(text) {
        return Ok(message);
    }
    let envelope: Envelope = serde_json::from_str(text)?;
    let Some(event) = envelope.event else {
        if envelope.protocol_version.is_some() {
            return Err(ProtocolError::Legacy);
        }
        return Err(ProtocolError::Json(serde::de::Error::missing_field("event")));
    };
    if event == PICTURE_EVENT {
        let mut data: PictureData = read(envelope.data)?;
        let buffer = std::mem::take(&mut data.data.buffer);
        return picture(data, buffer);
    }
    // What is longer is none of Recall's: it would stand in the recording's events as it is.
    let action = event.strip_prefix("participant_events.").filter(|action| action.len() <= ACTION_BYTES_MAX);
    let Some(action) = action.map(|action| Cow::Owned(action.to_owned())) else {
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

/// The same for nearly every picture, in a sixth of the time: of 340 kB of message 339 are the buffer. It is measured by
/// a plain loop, and JSON is read without it. `None` when it is not certain that the long way would say the same.
fn parse_around_buffer(text: &str) -> Option<Message<'_>> {
    const KEY: &[u8] = b"\"buffer\"";
    let head = &text.as_bytes()[..text.len().min(BUFFER_WITHIN)];
    let after_key = head.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let value = text[after_key..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let start = text.len() - value.len();
    let end = start + plain_len(value.as_bytes());
    if text.as_bytes().get(end) != Some(&b'"') || text.len() - (end - start) > AROUND_BUFFER_MAX {
        return None;
    }
    let around = [&text[..start], &text[end..]].concat();
    let envelope: PictureEnvelope = serde_json::from_str(&around).ok()?;
    // That it is the picture's own buffer, not a key of the same name in some metadata, shows by where it lies.
    let lies_there = matches!(envelope.data.data.buffer, Cow::Borrowed(empty) if empty.is_empty()
        && std::ptr::eq(empty.as_ptr(), around[start..].as_ptr()));
    if envelope.event != PICTURE_EVENT || !lies_there {
        return None;
    }
    picture(envelope.data, Cow::Borrowed(&text[start..end])).ok()
}

/// Bytes up to the first one that does not stand for itself in a JSON string: a quote, a backslash, a control character.
fn plain_len(bytes: &[u8]) -> usize {
    let special = |byte: u8| (byte == b'"') | (byte == b'\\') | (byte < b' ');
    // Whole chunks without a branch inside: these the compiler turns into vector instructions.
    let any = |chunk: &&[u8; 64]| chunk.iter().fold(false, |any, byte| any | special(*byte));
    let plain = bytes.as_chunks().0.iter().take_while(|chunk| !any(chunk)).count() * 64;
    plain + bytes[plain..].iter().take_while(|byte| !special(**byte)).count()
}

fn picture<'a>(data: PictureData<'_>, buffer: Cow<'a, str>) -> Result<Message<'a>, ProtocolError> {
    let kind = match &*data.data.kind {
        "webcam" => Kind::Webcam,
        "screenshare" => Kind::Screenshare,
        _ => return Err(ProtocolError::Kind),
    };
    Ok(Message::Picture(Box::new(PictureMessage {
        buffer,
        timestamp: data.data.timestamp.read(),
        kind,
        participant: data.data.participant.read()?,
        context: context(data.recording, data.bot, data.realtime_endpoint)?,
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
const ACTION_BYTES_MAX: usize = 64;
const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Where bots put the buffer: near the start.
const BUFFER_WITHIN: usize = 512;
/// What stands around the buffer is copied once: a kilobyte as bots write it.
const AROUND_BUFFER_MAX: usize = 64 * 1024;

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
struct PictureEnvelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: PictureData<'a>,
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

#[derive(Deserialize)]
struct WireParticipant<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
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
        let id = id_text(self.id.get())?;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(ProtocolError::Id("participant"));
        }
        let short = |text| shorten(text, NAME_BYTES_MAX);
        Ok(Participant {
            id,
            name: self.name.map(short),
            email: self.email.map(short),
            is_host: self.is_host,
            platform: self.platform.map(short),
        })
    }
}

/// The first `bytes_max` bytes of a text, or a little less: no character is torn.
fn shorten(mut text: String, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// An id as text: a string, or an integer of any size.
fn id_text(raw: &str) -> Result<String, ProtocolError> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(raw.to_owned());
    }
    Ok(serde_json::from_str(raw)?)
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

    /// White space in front says the same, and hides the buffer from the short way.
    fn parse_the_long_way(text: &str) -> String {
        let far = " ".repeat(BUFFER_WITHIN) + text;
        assert!(parse_around_buffer(&far).is_none());
        format!("{:?}", parse(&far).map_err(|error| error.name()))
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        let good = picture(r#"{"relative":1.5,"absolute":"2026-01-01T10:00:12Z"}"#, "");
        let taken = |text: &str| {
            let short = parse_around_buffer(text);
            assert_eq!(format!("{:?}", parse(text).map_err(|error| error.name())), parse_the_long_way(text), "{text}");
            short.is_some()
        };
        assert!(taken(&good));
        assert!(taken(&good.replace(r#""buffer":"#, "\"buffer\" :\n ")));
        assert!(taken(&good.replace("iVBO", &"iVBO".repeat(100))));
        assert!(taken(&good.replace("iVBO", "")));
        // Another key of that name lies before it: in the same object, in metadata, in a name.
        let other = r#""bot":{"id":"b","metadata":{"buffer":"AAAA"}},"#;
        assert!(!taken(&good.replacen(r#""data":{"data""#, &format!(r#""data":{{{other}"data""#), 1)));
        assert!(!taken(&good.replacen(r#"{"event""#, r#"{"x":{"buffer":"AAAA"},"event""#, 1)));
        assert!(!taken(&good.replacen(r#"{"event""#, r#"{"x":"\\","buffer":"AAAA","event""#, 1)));
        assert!(!taken(&good.replacen(r#""buffer":"iVBO""#, r#""buffer":"AAAA","buffer":"iVBO""#, 1)));
        // What JSON escapes or forbids, and what is no picture.
        for (from, to) in [
            ("iVBO", r"iV\/O"),
            ("iVBO", r#"iV\"O"#),
            ("iVBO", "iV\nO"),
            (r#""iVBO""#, "null"),
            ("webcam", "hologram"),
            (r#""id":"r""#, r#""id":"""#),
            ("separate_png", "separate_jpg"),
        ] {
            assert!(!taken(&good.replacen(from, to, 1)), "{to}");
        }
        (0..good.len()).for_each(|end| assert!(!taken(&good[..end])));
    }

    #[test]
    fn plain_bytes_are_counted_up_to_the_first_special_one() {
        for special in [b'"', b'\\', b'\n', 0, 31] {
            for at in 0..200 {
                let mut bytes = vec![b' '; 200];
                bytes[at] = special;
                assert_eq!(plain_len(&bytes), at);
            }
        }
        assert_eq!(plain_len("é~".repeat(70).as_bytes()), 210);
    }

    #[test]
    fn an_action_of_any_length_is_no_event_of_ours() {
        let message = |action: &str| {
            format!(
                r#"{{"event":"participant_events.{action}","data":{{"data":{{"timestamp":{{"relative":1}},
                "participant":{{"id":1}}}},"recording":{{"id":"r"}}}}}}"#
            )
        };
        assert!(matches!(parse(&message("screenshare_off")), Ok(Message::Participant(_))));
        assert!(matches!(parse(&message(&"x".repeat(65))), Ok(Message::Other(_))));
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
