//! What the log says of a socket's first message.

use crate::pipeline::ingest::protocol::Message;

use super::{Session, header_of};

impl Session {
    /// The first message of a socket is logged by shape, never by content.
    pub(super) fn log_first(&mut self, message: &Message<'_>, bytes: usize) {
        if !std::mem::take(&mut self.first) {
            return;
        }
        match message {
            Message::Picture(picture) => {
                let header = header_of(&picture.buffer);
                tracing::info!(
                    recording = picture.context.recording_id,
                    kind = picture.kind.name(),
                    bytes,
                    base64_bytes = picture.buffer.len(),
                    width = header.as_ref().map(|header| header.width),
                    height = header.as_ref().map(|header| header.height),
                    has_absolute = picture.timestamp.absolute.is_some(),
                    has_bot = picture.context.bot_id.is_some(),
                    "first message of a socket: a picture"
                );
            }
            Message::Participant(event) => {
                tracing::info!(
                    recording = event.context.recording_id,
                    action = &*event.action,
                    bytes,
                    has_absolute = event.timestamp.absolute.is_some(),
                    "first message of a socket: a participant event"
                );
            }
            Message::Other(event) => {
                tracing::info!(event = &**event, bytes, "first message of a socket: another event")
            }
        }
    }
}
