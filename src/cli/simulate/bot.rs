//! One bot: a socket, the plan sent over it, and Recall.ai's way of dialing again.

#![expect(clippy::disallowed_methods, reason = "a sender keeps its own pace, by tokio's clock")]

use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::{SinkExt, Stream, StreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::media::{Kind, Micros};
use crate::pipeline::ingest::protocol::{
    Outgoing, OutgoingBody, OutgoingData, OutgoingParticipant, OutgoingThing, OutgoingTimestamp, PICTURE_EVENT,
};

use super::picture::Label;
use super::plan::{Planned, Turn, What};
use super::report::Report;
use super::source::Pictures;

/// Attempts after a loss, a close or a refusal: Recall.ai's figure.
pub const REDIALS: u32 = 30;

/// Statuses of a server that wants other credentials.
pub const LOCKED: [u16; 2] = [401, 403];

/// Time for the handshake, and at the end for the server to read what is on its way and to answer the close.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// The number that a participant has on the wire, like Zoom's.
pub fn participant_id(index: u32) -> i64 {
    16_778_240 + i64::from(index) * 1024
}

/// What a bot is.
pub struct Bot {
    /// Where it dials in.
    pub url: String,
    /// `recording.id`.
    pub recording_id: String,
    /// `bot.id`.
    pub bot_id: String,
    /// Absolute time of the recording's start, since 1970.
    pub origin: Micros,
    /// How fast time goes; 0 is as fast as the server takes it.
    pub speed: f64,
    /// Between two attempts to connect.
    pub redial_delay: Duration,
    /// How many captures show the same picture.
    pub still: u32,
    /// What to send.
    pub messages: Vec<Planned>,
    /// What the captures show.
    pub pictures: Arc<Pictures>,
    /// Of all bots the first that is refused says so.
    pub refused: Arc<Once>,
}

/// How a connection ended.
enum End {
    /// All is sent, or we were told to stop.
    Finished(String),
    /// The server closed it, or it broke.
    Lost(String),
}

impl Bot {
    /// Sends the plan. Time starts with the first connection; what is due while there is none is missed, as the bot of
    /// a meeting has no use for old pictures. Ends early when `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Report {
        let mut report = Report { bots: 1, planned: self.messages.len() as u64, ..Report::default() };
        let (mut next, mut failures, mut started) = (0, 0, None);
        while next < self.messages.len() && !*stop.borrow() {
            let dialed = unless_stopped(&mut stop, timeout(PATIENCE, dial(&self.url))).await;
            match dialed {
                None => break,
                Some(Ok(Ok(socket))) => {
                    report.connections += 1;
                    failures = 0;
                    let start = *started.get_or_insert_with(Instant::now);
                    next = self.skip_missed(next, start, &mut report);
                    let reason = match self.converse(socket, start, &mut next, &mut report, &mut stop).await {
                        End::Finished(reason) | End::Lost(reason) => reason,
                    };
                    *report.closes.entry(reason).or_default() += 1;
                }
                Some(Ok(Err(error))) => {
                    self.refused.call_once(|| eprintln!("{}: refused: {}", self.recording_id, in_full(&error)));
                    *report.refusals.entry(describe(&error)).or_default() += 1;
                    // The next attempt would be answered the same.
                    if is_locked(&error) {
                        report.gave_up = 1;
                        break;
                    }
                }
                Some(Err(_)) => {
                    self.refused.call_once(|| eprintln!("{}: refused: no answer", self.recording_id));
                    *report.refusals.entry("no answer".into()).or_default() += 1;
                }
            }
            if next < self.messages.len() {
                if failures == REDIALS {
                    report.gave_up = 1;
                    break;
                }
                failures += 1;
                unless_stopped(&mut stop, sleep(self.redial_delay)).await;
            }
        }
        report.seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        report
    }

    /// When a message is due; `None` is at once.
    fn due(&self, message: &Planned, start: Instant) -> Option<Instant> {
        let at = message.at_send.as_secs_f64().max(0.0);
        (self.speed > 0.0).then(|| start + Duration::from_secs_f64(at / self.speed))
    }

    fn skip_missed(&self, next: usize, start: Instant, report: &mut Report) -> usize {
        let now = Instant::now();
        let missed =
            self.messages[next..].iter().take_while(|message| self.due(message, start).is_some_and(|due| due < now));
        // On the first connection nothing was missed: its time has only just begun.
        let missed = if report.connections > 1 { missed.count() } else { 0 };
        report.missed += missed as u64;
        next + missed
    }

    async fn converse(
        &self,
        socket: Socket,
        start: Instant,
        next: &mut usize,
        report: &mut Report,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        let (mut sink, mut stream) = socket.split();
        let how = {
            // Reading goes on while sending waits for the server: pings want their answers.
            let reading = until_closed(&mut stream);
            let writing = async {
                while let Some(message) = self.messages.get(*next) {
                    if let Some(due) = self.due(message, start) {
                        sleep_until(due).await;
                        report.note_delay(due.elapsed());
                    }
                    let text = self.text(message);
                    let bytes = text.len() as u64;
                    sink.send(Message::text(text)).await?;
                    count(report, message, bytes);
                    *next += 1;
                }
                Ok::<_, Error>(())
            };
            tokio::select! {
                reason = reading => return End::Lost(reason),
                result = unless_stopped(stop, writing) => match result {
                    Some(Err(error)) => Err(error),
                    Some(Ok(())) => Ok("all sent"),
                    None => Ok("stopped"),
                },
            }
        };
        let how = match how {
            Ok(how) => how,
            // The reader knows more than "broken pipe" when the server said why.
            Err(error) => {
                let said = timeout(Duration::from_millis(100), until_closed(&mut stream)).await;
                return End::Lost(said.unwrap_or_else(|_| describe(&error)));
            }
        };
        let goodbye = async {
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            sink.send(Message::Close(Some(close))).await?;
            until_closed(&mut stream).await;
            Ok::<_, Error>(())
        };
        match timeout(PATIENCE, goodbye).await {
            Ok(Ok(())) => End::Finished(how.into()),
            Ok(Err(_)) | Err(_) => End::Finished(format!("{how}, but the close was not answered")),
        }
    }

    /// The JSON of a message. The PNG's base64 is written behind `"buffer":"` without passing through a serializer,
    /// which would look at each of its characters.
    fn text(&self, message: &Planned) -> String {
        let name = format!("Participant {}", message.participant + 1);
        let outgoing = self.outgoing(message, &name);
        let mut text = serde_json::to_string(&outgoing).expect("strings and numbers are JSON");
        if let What::Picture { kind, number } = message.what {
            let label = Label { participant: message.participant, kind, number: number - number % self.still };
            let template = self.pictures.template(&label);
            let mark = r#""buffer":""#;
            let split = text.find(mark).expect("pictures have a buffer") + mark.len();
            let mut whole = String::with_capacity(text.len() + template.base64_len());
            whole.push_str(&text[..split]);
            template.write_base64(&label, &mut whole);
            whole.push_str(&text[split..]);
            text = whole;
        }
        text
    }

    fn outgoing<'a>(&'a self, message: &Planned, name: &'a str) -> Outgoing<'a> {
        let thing = |id: &'a str| OutgoingThing { id, metadata: serde_json::json!({}) };
        let (event, kind) = match message.what {
            What::Picture { kind, .. } => (PICTURE_EVENT, Some(kind)),
            What::Event("join") => ("participant_events.join", None),
            What::Event("leave") => ("participant_events.leave", None),
            What::Event("webcam_on") => ("participant_events.webcam_on", None),
            What::Event("webcam_off") => ("participant_events.webcam_off", None),
            What::Event("screenshare_on") => ("participant_events.screenshare_on", None),
            What::Event(_) => ("participant_events.screenshare_off", None),
        };
        let absolute = OffsetDateTime::from_unix_timestamp_nanos(i128::from((self.origin + message.relative).0) * 1000);
        Outgoing {
            event,
            data: OutgoingData {
                data: OutgoingBody {
                    buffer: kind.map(|_| ""),
                    timestamp: OutgoingTimestamp {
                        relative: message.relative.as_secs_f64(),
                        absolute: absolute.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
                    },
                    kind,
                    participant: OutgoingParticipant {
                        id: participant_id(message.participant),
                        name: Some(name),
                        is_host: Some(message.participant == 0),
                        platform: Some("desktop"),
                    },
                    data: kind.is_none().then_some(serde_json::Value::Null),
                },
                realtime_endpoint: thing("simulated"),
                video_separate: kind.map(|_| thing("simulated")),
                recording: thing(&self.recording_id),
                bot: Some(thing(&self.bot_id)),
            },
        }
    }
}

async fn dial(url: &str) -> Result<Socket, Error> {
    // Without Nagle's delay: an event of 500 bytes would wait for the pictures before it to be confirmed.
    connect_async_with_config(url, None, true).await.map(|(socket, _)| socket)
}

/// Reads, and so answers pings, until the server is done; says why.
async fn until_closed(stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) -> String {
    loop {
        match stream.next().await {
            Some(Ok(Message::Close(Some(close)))) => {
                let mut text = format!("closed with {}", u16::from(close.code));
                if !close.reason.is_empty() {
                    let _ = write!(text, " {}", close.reason);
                }
                return text;
            }
            Some(Ok(Message::Close(None))) => return "closed without a code".into(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return describe(&error),
            None => return "ended without a close".into(),
        }
    }
}

/// `None` when `stop` became true first.
async fn unless_stopped<T>(stop: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        Ok(_) = stop.wait_for(|stop| *stop) => None,
        result = work => Some(result),
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::Http(response) => format!("HTTP {}", response.status().as_u16()),
        Error::Io(error) => error.kind().to_string(),
        error => error.to_string(),
    }
}

/// With the server's own words.
fn in_full(error: &Error) -> String {
    let said = match error {
        Error::Http(response) => response.body().as_deref().unwrap_or_default(),
        _ => &[],
    };
    let said: String = String::from_utf8_lossy(said).chars().filter(|c| !c.is_control()).take(500).collect();
    format!("{} {said}", describe(error)).trim_end().to_owned()
}

/// Whether it is for want of credentials.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Http(response) if LOCKED.contains(&response.status().as_u16()))
}

fn count(report: &mut Report, message: &Planned, bytes: u64) {
    report.bytes += bytes;
    match message.what {
        What::Picture { kind: Kind::Webcam, .. } => report.webcam += 1,
        What::Picture { kind: Kind::Screenshare, .. } => report.screenshare += 1,
        What::Event(_) => report.events += 1,
    }
    match message.turn {
        Turn::InOrder => {}
        Turn::Duplicate => report.duplicates += 1,
        Turn::Swapped => report.swapped += 1,
        Turn::Late => report.late += 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::simulate::args::SimulateArgs;
    use crate::cli::simulate::picture::read_number;
    use crate::cli::simulate::plan::{PlanOptions, plan};
    use crate::pipeline::ingest::png::{Limits, PngDecoder, decode_base64};
    use crate::pipeline::ingest::protocol::{Message as Received, parse};

    fn bot(url: String, options: &PlanOptions) -> Bot {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: SimulateArgs,
        }
        let screenshares = options.screenshares.to_string();
        let line = ["", "--url", &url, "--size", "160x96", "--screenshares", &screenshares];
        let pictures = Pictures::prepare(&Line::parse_from(line).args).unwrap();
        Bot {
            url,
            recording_id: "r".into(),
            bot_id: "b".into(),
            origin: Micros(1_767_261_600_000_000),
            speed: 0.0,
            redial_delay: Duration::ZERO,
            still: 1,
            messages: plan(options, 0),
            pictures: Arc::new(pictures),
            refused: Arc::new(Once::new()),
        }
    }

    /// Takes connections, each for so many messages and then drops it; the last one until its close.
    async fn serve(listener: TcpListener, drops: Vec<usize>) -> Vec<String> {
        let mut texts = Vec::new();
        for limit in drops.into_iter().map(Some).chain([None]) {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
            let mut count = 0;
            while limit != Some(count) {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => texts.push(text.to_string()),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => break,
                }
                count += 1;
            }
        }
        texts
    }

    async fn talk(options: &PlanOptions, drops: Vec<usize>) -> (Report, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bot = bot(format!("ws://{}/", listener.local_addr().unwrap()), options);
        let (_sender, stop) = watch::channel(false);
        tokio::join!(bot.run(stop), serve(listener, drops))
    }

    #[tokio::test]
    async fn every_message_is_one_of_recall_and_carries_its_label() {
        let options = PlanOptions { screenshares: 1, duplicates: 0.1, reorder: 0.1, late: 2, ..PlanOptions::default() };
        let (report, texts) = talk(&options, vec![]).await;
        let expected = plan(&options, 0);
        assert_eq!(texts.len(), expected.len());
        let mut decoder = PngDecoder::new(Limits::default());
        for (text, planned) in texts.iter().zip(&expected) {
            let (timestamp, participant, context) = match (parse(text).unwrap(), planned.what) {
                (Received::Picture(message), What::Picture { kind, number }) => {
                    let mut png = Vec::new();
                    decode_base64(message.buffer.as_bytes(), &mut png).unwrap();
                    let picture = decoder.decode(&png).unwrap();
                    let label = read_number(picture.planes()[0], 160, 96);
                    assert_eq!(label, Some(Label { participant: planned.participant, kind, number }));
                    assert_eq!(message.kind, kind);
                    (message.timestamp, message.participant, message.context)
                }
                (Received::Participant(message), What::Event(action)) => {
                    assert_eq!(message.action, action);
                    (message.timestamp, message.participant, message.context)
                }
                (received, what) => panic!("{received:?} for {what:?}"),
            };
            assert_eq!(timestamp.relative, Some(planned.relative));
            assert_eq!(timestamp.absolute, Some(Micros(1_767_261_600_000_000) + planned.relative));
            assert_eq!(participant.id, participant_id(0).to_string());
            assert_eq!((context.recording_id.as_str(), context.bot_id.as_deref()), ("r", Some("b")));
        }
        assert!(report.is_complete(), "{report}");
        assert_eq!(report.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
        assert_eq!((report.late, report.missed, report.gave_up), (2, 0, 0));
        assert_eq!(report.closes.into_iter().collect::<Vec<_>>(), [("all sent".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_lost_connection_is_dialed_again() {
        // So much that it cannot all lie in the system's buffers when a connection breaks.
        let options = PlanOptions { duration: Micros::from_secs(1800), ..PlanOptions::default() };
        let (report, texts) = talk(&options, vec![3, 0, 2]).await;
        assert_eq!((report.connections, report.gave_up), (4, 0));
        assert!(report.is_complete(), "{report}");
        // What was on its way when a connection broke is lost, as in life; nothing comes twice, and the end is there.
        let times: BTreeSet<_> = texts.iter().map(|text| text.rsplit_once("\"timestamp\"").unwrap()).collect();
        assert_eq!(times.len(), texts.len());
        assert!(texts.len() > 5 && texts.last().unwrap().contains("participant_events.leave"));
    }

    #[tokio::test]
    async fn a_bot_gives_up_after_thirty_attempts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bot = bot(format!("ws://{}/", listener.local_addr().unwrap()), &PlanOptions::default());
        drop(listener);
        let (_sender, stop) = watch::channel(false);
        let report = bot.run(stop).await;
        assert_eq!((report.gave_up, report.connections, report.pictures()), (1, 0, 0));
        assert_eq!(report.refusals.values().sum::<u64>(), u64::from(REDIALS) + 1);
    }

    #[tokio::test]
    async fn a_stop_ends_politely_in_the_middle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut bot = bot(format!("ws://{}/", listener.local_addr().unwrap()), &PlanOptions::default());
        // So slow that only what is due at once is sent.
        bot.speed = 1e-6;
        let (sender, stop) = watch::channel(false);
        let server = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    return true;
                }
                sender.send_replace(true);
            }
            false
        };
        let (report, closed) = tokio::join!(bot.run(stop), server);
        assert!(closed);
        assert!(!report.is_complete());
        assert_eq!(report.closes.into_iter().collect::<Vec<_>>(), [("stopped".to_owned(), 1)]);
    }
}
