//! What a participant wrote: the `data` of `participant_events.chat_message`.

use serde::{Deserialize, Serialize};

use super::{ParticipantMessage, lenient, shorten};

/// Of what is longer the rest is left out: no meeting's chat takes as much.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A chat message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// What was written; the first 16 KiB of it.
    #[serde(default, deserialize_with = "lenient")]
    pub text: Option<String>,
    /// To whom: `everyone`, `only_bot`, ...
    #[serde(default, deserialize_with = "lenient")]
    pub to: Option<String>,
}

impl ParticipantMessage<'_> {
    /// What was written, where this is a chat message of the known form.
    pub fn chat(&self) -> Option<Chat> {
        let detail = self.detail.filter(|_| self.action == "chat_message")?;
        let chat: Chat = serde_json::from_str(detail.get()).ok()?;
        let text = Some(shorten(chat.text?, TEXT_BYTES_MAX));
        Some(Chat { text, to: chat.to.map(|to| shorten(to, super::NAME_BYTES_MAX)) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, parse};
    use super::Chat;

    fn chat(action: &str, data: &str) -> Option<Chat> {
        let text = format!(
            r#"{{"event":"participant_events.{action}","data":{{"data":{{"timestamp":{{"relative":1}},
            "participant":{{"id":1}},"data":{data}}},"recording":{{"id":"r"}}}}}}"#
        );
        let Ok(Message::Participant(message)) = parse(&text) else { panic!("an event: {text}") };
        message.chat()
    }

    #[test]
    fn what_was_written_is_read_and_bounded() {
        let said = |text: &str, to: Option<&str>| Some(Chat { text: Some(text.into()), to: to.map(str::to_owned) });
        assert_eq!(chat("chat_message", r#"{"text":"h\u00e9","to":"everyone"}"#), said("hé", Some("everyone")));
        assert_eq!(chat("chat_message", r#"{"text":"hi","to":5,"more":[]}"#), said("hi", None));
        for none in ["null", "{}", r#"{"text":null}"#, r#"{"text":{}}"#, "[]", "5", r#""hi""#] {
            assert_eq!(chat("chat_message", none), None, "{none}");
        }
        assert_eq!(chat("join", r#"{"text":"hi"}"#), None);
        let long = format!(r#"{{"text":"{}"}}"#, "é".repeat(10_000));
        assert_eq!(chat("chat_message", &long).unwrap().text.unwrap().len(), 16 * 1024);
    }
}
