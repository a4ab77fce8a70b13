//! What a socket makes of its messages: parse, find recording and lane, read the clock, make a capture.
//! No socket in here, and no waiting: the caller charges and offers what comes out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::media::{DiscardReason, Kind, Micros};
use crate::metrics::Stage;

use super::Pipeline;
use super::admission::Full;
use super::delivery::Offer;
use super::ingest::protocol::{self, Context, Message, PictureMessage, ProtocolError};
use super::ingest::{Capture, png};
use super::lane::{Expected, Lane};
use super::pass::{Limited, Pass, SpentIds};
use super::recording::{Recording, Refused, SocketState};
use super::registry::Opened;
use super::shed::Patience;
use super::store::keys::Name;
use super::store::manifest::State;

mod first;

/// How often a picture looks for a live recording: two ends in a row within microseconds do not happen.
const TRIES: usize = 3;

/// WebSocket close code: dial again later.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// A recording that the bot replaced by another is left when it was silent for this long, or for its grace where that is
/// shorter: messages of it may still be on their way.
const REPLACED_AFTER: Duration = Duration::from_secs(10);

/// A recording that a socket serves.
struct Served {
    recording: Arc<Recording>,
    /// When the socket last had a message of it (monotonic).
    heard: Micros,
    /// The recording's clock behind the first capture of it on this socket.
    joined: Option<Micros>,
}

/// What a message asks for.
pub enum Accepted {
    /// These captures, in this order; often one, none after an event.
    Offers(Vec<Offer>),
    /// Look this recording up in the store, then give the message again with what became of that.
    LookUp(Name),
    /// The socket is to be closed, with this WebSocket close code and reason.
    Close(u16, &'static str),
    /// It is to be closed, for it may open no new recording.
    NothingNew(Limited),
}

/// What is known of the store's word on the recording of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreWord {
    /// It was not asked.
    NotAsked,
    /// It was asked, and answered.
    Said,
    /// It was asked, and did not answer: what is opened lands where it later says that there is room.
    Silent,
}

/// What a picture's IHDR says, if it has one that can be read.
fn header_of(base64: &str) -> Option<png::Header> {
    png::header(&png::base64_prefix(base64, png::HEADER_BYTES).ok()?).ok()
}

/// One socket's view.
pub struct Session {
    pipeline: Arc<Pipeline>,
    tenant: Option<String>,
    pass: Pass,
    socket: Arc<SocketState>,
    recordings: HashMap<String, Served>,
    lanes: HashMap<(String, String, Kind), Arc<Lane>>,
    /// How long full lanes may hold this socket.
    pub patience: Patience,
    /// Let in while new bots are refused: only for a recording that is here.
    judged: Option<Full>,
    first: bool,
    bad: u64,
}

impl Session {
    /// A socket that has said nothing yet.
    pub fn new(pipeline: Arc<Pipeline>, tenant: Option<String>, pass: Pass, judged: Option<Full>) -> Session {
        let patience = Patience::new(Micros::from(pipeline.config.patience));
        let socket = Arc::new(SocketState::new(pipeline.clock.mono()));
        Session {
            pipeline,
            tenant,
            pass,
            socket,
            recordings: HashMap::new(),
            lanes: HashMap::new(),
            patience,
            judged,
            first: true,
            bad: 0,
        }
    }

    /// What its recordings see of the socket.
    pub fn socket(&self) -> &Arc<SocketState> {
        &self.socket
    }

    /// Why it still has to say a recording that is here.
    pub fn judged(&self) -> Option<Full> {
        self.judged
    }

    /// Whether a message of this recording is to be refused, because its bot is new, or may open nothing new. `open`: it is
    /// taken next, and not looked up in the store first.
    fn is_refused(&mut self, context: &Context, open: bool) -> Option<Accepted> {
        let served = self.recordings.get(&context.recording_id);
        if served.is_some_and(|served| served.recording.state() == State::Live) {
            return None;
        }
        if self.pipeline.registry.is_live(&self.name(context)) {
            self.judged = None;
            return None;
        }
        if let Some(full) = self.judged {
            return Some(Accepted::Close(TRY_AGAIN_LATER, full.name()));
        }
        let unix = self.pipeline.clock.unix();
        let refused = match open {
            true => self.pass.open(unix).err(),
            false => self.pass.refuses(unix),
        };
        refused.map(Accepted::NothingNew)
    }

    /// The id of its signed upgrade, where that has opened nothing yet, and what remembers it.
    pub fn unspent(&self) -> Option<(String, Arc<SpentIds>)> {
        self.pass.once.clone()
    }

    fn name(&self, context: &Context) -> Name {
        Name::new(self.tenant.as_deref(), &context.recording_id)
    }

    /// Takes one message: its bytes, and the same as text where they are UTF-8.
    pub fn accept(&mut self, text: Option<&str>, bytes: &Bytes, store: StoreWord) -> Accepted {
        let start = self.pipeline.clock.mono();
        self.pipeline.metrics.bytes_received.inc_by(bytes.len() as u64);
        let accepted = match text.ok_or(None).and_then(|text| protocol::parse(text).map_err(Some)) {
            Ok(mut message) => {
                let fields = &self.pipeline.config.privacy.participant_fields;
                match &mut message {
                    Message::Picture(message) => message.participant.keep(fields),
                    Message::Participant(message) => message.participant.keep(fields),
                    Message::Other(_) => {}
                }
                self.log_first(&message, bytes.len());
                let context = match &message {
                    Message::Picture(message) => Some(&message.context),
                    Message::Participant(message) => Some(&message.context),
                    Message::Other(_) => None,
                };
                let unknown = context.and_then(|context| self.unknown(context, store));
                if let Some(refused) = context.and_then(|context| self.is_refused(context, unknown.is_none())) {
                    return refused;
                }
                if let Some(id) = unknown {
                    return Accepted::LookUp(id);
                }
                match message {
                    Message::Picture(message) => self.picture(*message, bytes, start, store),
                    Message::Participant(message) => {
                        if let Some(recording) = self.recording(&message.context, store) {
                            recording.participant_event(&message, self.pipeline.config.privacy.store_chat);
                        }
                        Accepted::Offers(Vec::new())
                    }
                    Message::Other(event) => {
                        self.pipeline.metrics.ignored(&event);
                        Accepted::Offers(Vec::new())
                    }
                }
            }
            Err(error) => self.reject(error.as_ref(), bytes.len()),
        };
        self.pipeline.metrics.took(Stage::Parse, self.pipeline.clock.mono() - start);
        accepted
    }

    /// The name of a recording that would open one that this process has not met and the store was not asked for.
    fn unknown(&self, context: &Context, store: StoreWord) -> Option<Name> {
        let is_live = |served: &Served| served.recording.state() == State::Live;
        if store != StoreWord::NotAsked || self.recordings.get(&context.recording_id).is_some_and(is_live) {
            return None;
        }
        let name = self.name(context);
        self.pipeline.registry.would_open(&name).then_some(name)
    }

    fn reject(&mut self, error: Option<&ProtocolError>, bytes: usize) -> Accepted {
        let name = error.map_or("not_utf8", ProtocolError::name);
        self.pipeline.metrics.rejected(name);
        self.bad += 1;
        if self.bad.is_power_of_two() {
            // serde_json's words name line and column, and of the content at most one unexpected string's type.
            tracing::warn!(bytes, kind = name, so_far = self.bad, "not a message of a bot");
        }
        match error {
            Some(ProtocolError::Legacy) => Accepted::Close(
                1003,
                "legacy protocol v1.10: subscribe video_separate_png.data to a websocket endpoint",
            ),
            _ => Accepted::Offers(Vec::new()),
        }
    }

    /// The recording of a message; `None` when this socket serves too many, or it was deleted.
    fn recording(&mut self, context: &Context, store: StoreWord) -> Option<Arc<Recording>> {
        let now = self.pipeline.clock.mono();
        self.leave_replaced(context, now);
        if let Some(served) = self.recordings.get_mut(&context.recording_id)
            && served.recording.state() == State::Live
        {
            served.heard = now;
            return Some(Arc::clone(&served.recording));
        }
        self.leave(&context.recording_id, now);
        if self.recordings.len() >= self.pipeline.config.socket_recordings_max as usize {
            self.pipeline.metrics.rejected("too_many_recordings");
            return None;
        }
        let unsure = store == StoreWord::Silent;
        let recording = match self.pipeline.open_recording(&self.name(context), unsure)? {
            Opened::Here(recording) | Opened::New(recording) => recording,
            Opened::Deleted => return None,
        };
        recording.join_socket(&self.socket);
        recording.note_context(context);
        let served = Served { recording: Arc::clone(&recording), heard: now, joined: None };
        self.recordings.insert(context.recording_id.clone(), served);
        Some(recording)
    }

    /// A bot has one recording at a time: those of the same bot that have fallen silent were replaced by the present one, and
    /// their grace begins.
    fn leave_replaced(&mut self, context: &Context, now: Micros) {
        if self.recordings.len() < 2 && self.recordings.contains_key(&context.recording_id) {
            return;
        }
        let after = Micros::from(REPLACED_AFTER.min(self.pipeline.config.reconnect_grace));
        let replaced = |(id, served): &(&String, &Served)| {
            **id != context.recording_id
                && now - served.heard >= after
                && context.bot_id.is_some()
                && served.recording.bot_id() == context.bot_id
        };
        let replaced: Vec<String> = self.recordings.iter().filter(replaced).map(|(id, _)| id.clone()).collect();
        replaced.iter().for_each(|id| self.leave(id, now));
    }

    /// This socket serves the recording no longer.
    fn leave(&mut self, id: &str, now: Micros) {
        if let Some(left) = self.recordings.remove(id) {
            left.recording.leave_socket(&self.socket, now);
            left.recording.changed.notify_one();
            self.lanes.retain(|(recording, _, _), _| recording != id);
        }
    }

    /// The lane of a picture, which is told of it. From then on the recording, still live, does not end without it.
    fn expect(
        &mut self,
        message: &PictureMessage<'_>,
        header: Option<&png::Header>,
        store: StoreWord,
    ) -> Option<(Arc<Recording>, Expected)> {
        let id = &message.context.recording_id;
        // It may be told to finish between any two of these lines; then the picture belongs to what goes on from it.
        for _ in 0..TRIES {
            let Some(recording) = self.recording(&message.context, store) else {
                if self.pipeline.registry.is_last_deleted(&self.name(&message.context)) {
                    self.pipeline.metrics.discarded(message.kind, DiscardReason::Deleted, 1);
                }
                return None;
            };
            let key = (id.clone(), message.participant.id.clone(), message.kind);
            if self.lanes.get(&key).is_some_and(|lane| lane.is_deleted()) {
                self.lanes.remove(&key);
            }
            let lane = match self.lanes.get(&key) {
                Some(lane) => Arc::clone(lane),
                None if self.lanes.len() >= self.pipeline.config.socket_lanes_max as usize => {
                    recording.refuse(&message.participant, message.kind, Refused::Socket);
                    self.pipeline.metrics.lane_refused(Refused::Socket.name());
                    return None;
                }
                None => match self.pipeline.open_lane(&recording, &message.participant, message.kind, header) {
                    Ok(lane) => Arc::clone(self.lanes.entry(key).or_insert(lane)),
                    Err(Refused::Finished) => continue,
                    Err(Refused::Deleted) => {
                        self.pipeline.metrics.discarded(message.kind, DiscardReason::Deleted, 1);
                        return None;
                    }
                    Err(refused) => {
                        self.pipeline.metrics.lane_refused(refused.name());
                        return None;
                    }
                },
            };
            let expected = lane.expect();
            if recording.state() == State::Live && !lane.is_deleted() {
                return Some((recording, expected));
            }
        }
        self.pipeline.metrics.lane_refused(Refused::Finished.name());
        None
    }

    fn picture(&mut self, message: PictureMessage<'_>, text: &Bytes, wall: Micros, store: StoreWord) -> Accepted {
        let none = || Accepted::Offers(Vec::new());
        let header = header_of(&message.buffer);
        let Some((recording, lane)) = self.expect(&message, header.as_ref(), store) else { return none() };
        let base64 = match message.buffer {
            Cow::Borrowed(buffer) => text.slice_ref(buffer.as_bytes()),
            Cow::Owned(buffer) => Bytes::from(buffer),
        };
        // `at` and `clock` are the recording's to say.
        let capture = Capture {
            read_at: wall,
            number: lane.next_number(),
            at: Micros(0),
            relative: message.timestamp.relative.unwrap_or_default(),
            absolute: message.timestamp.absolute,
            clock: Micros(0),
            base64,
        };
        let offer = Offer {
            lane,
            capture,
            message_bytes: text.len() as u64,
            // What has no valid header becomes no picture.
            picture_bytes: header.map_or(0, |header| header.bytes_when_decoded),
        };
        let unix = self.pipeline.clock.unix();
        let first = recording.origin().is_none();
        let placed = recording.read(offer, &message.participant, message.timestamp, wall, unix);
        if first && recording.origin().is_some() {
            // Ahead of its first capture, so that it is in the spool before any part (`TrackWriter::takes_pictures`). The
            // keeper writes it again when it changes, and when the queue is full now.
            self.pipeline.write_state(&recording, &recording.persistent());
        }
        let newest = recording.newest();
        if let Some(served) = self.recordings.get_mut(&message.context.recording_id) {
            served.joined.get_or_insert(newest);
        }
        // Recordings have clocks of their own; the one that went on farthest says how fast the sender is.
        let gone_on = |served: &Served| Some(served.recording.newest() - served.joined?);
        self.patience.read(wall, self.recordings.values().filter_map(gone_on).max().unwrap_or_default());
        let pace = self.patience.pace(wall);
        placed.iter().for_each(|offer| offer.lane.set_pace(pace));
        Accepted::Offers(placed)
    }

    /// The socket is gone.
    pub fn end(&mut self) {
        let now = self.pipeline.clock.mono();
        for Served { recording, .. } in self.recordings.values() {
            recording.leave_socket(&self.socket, now);
            recording.changed.notify_one();
        }
        self.recordings.clear();
        self.lanes.clear();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
