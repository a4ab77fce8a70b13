//! A bot that things happen to: sends numbered pictures of all its tracks at real-time pace, dials again after every
//! loss and replays nothing, misbehaves when told to, and keeps book of every picture.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use socket2::SockRef;
use tilecast::media::{Kind, Micros};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::faults::Dice;
use crate::bot::{Camera, SIZE, picture};
use crate::harness::PATIENCE;

/// Between a loss and dialling, and between dials. A Recall bot waits 3 s; then half of a run would be waiting.
const REDIAL: Duration = Duration::from_millis(200);
/// How long the rest of a socket that got its FIN is read.
const FIN_WAIT: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a bot is told to do.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Reset the socket.
    Reset,
    /// End it with a FIN.
    Fin,
    /// Send nothing for so long.
    Stall(Duration),
    /// Leave the socket as it is for so long, with half a message in it.
    HalfOpen(Duration),
    /// Send so many seconds ahead.
    Burst(u32),
    /// Send screens of the other size.
    Flip,
    /// Send half a message, and nothing more on this socket.
    HalfMessage,
    /// Have all that was sent taken, and hang up.
    End,
}

/// A picture that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its number: the tick it belongs to.
    pub number: u32,
    /// When the last byte of it was written.
    pub at: Instant,
    /// The socket that it was sent on, from 1.
    pub socket: u32,
    /// All of it was written.
    pub whole: bool,
    /// The server has taken it: it answered a ping that was sent later.
    acked: bool,
    /// It may be in nobody's books: a socket or the process died with it.
    pub excused: bool,
}

/// The book of a bot.
#[derive(Debug, Default)]
pub struct Book {
    /// What was sent of each track, in this order.
    pub sent: Vec<Vec<Sent>>,
    /// Whether a socket is open.
    pub connected: bool,
    /// Sockets opened.
    pub sockets: u32,
    /// When the newest socket was opened, or the bot last kept silent or ran ahead.
    pub disturbed: Option<Instant>,
}

impl Book {
    /// A socket is gone: nobody knows what became of what was not acknowledged.
    fn excuse_unacked(&mut self, socket: u32) {
        let of_socket = self.sent.iter_mut().flatten().filter(|sent| sent.socket == socket && !sent.acked);
        of_socket.for_each(|sent| sent.excused = true);
    }

    fn acknowledge(&mut self, socket: u32, number: u32) {
        for sent in &mut self.sent {
            let of_socket = sent.iter_mut().rev().take_while(|sent| sent.socket == socket && !sent.acked);
            of_socket.filter(|sent| sent.number <= number).for_each(|sent| sent.acked = true);
        }
    }
}

/// A track that a bot sends.
pub struct Seat {
    /// Recall's id.
    pub participant: i64,
    /// Webcam or screenshare.
    pub kind: Kind,
    cameras: Vec<Camera>,
}

impl Seat {
    /// A webcam of one size, or a screen of several.
    pub fn new(participant: i64, kind: Kind) -> Seat {
        let sizes: &[(u32, u32)] = if kind == Kind::Webcam { &[SIZE] } else { &[SIZE, (240, 180), (640, 360)] };
        let camera = |size: &(u32, u32)| Camera::sized(participant as u32 % 512, kind, *size);
        Seat { participant, kind, cameras: sizes.iter().map(camera).collect() }
    }

    /// The track's name.
    pub fn track(&self) -> String {
        format!("{}-{}", self.participant, self.kind.name())
    }

    /// The camera whose labels its pictures have.
    pub fn camera(&self) -> &Camera {
        &self.cameras[0]
    }
}

/// What a bot sends.
pub struct Part {
    /// The recording.
    pub recording: &'static str,
    /// Its tracks.
    pub seats: Vec<Seat>,
    /// Pictures a second.
    pub fps: u32,
    /// How far pictures lie from their ticks at most, in hundredths of a tick.
    pub jitter: u64,
}

impl Part {
    /// `timestamp.relative` of a picture.
    pub fn relative(&self, seat: usize, number: u32) -> Micros {
        let tick = 1_000_000 / i64::from(self.fps);
        let mut dice = Dice::new(u64::from(number), seat as u64);
        let hundredths = dice.within(0..2 * self.jitter + 1) as i64 - self.jitter as i64;
        Micros((i64::from(number) * tick + hundredths * tick / 100).max(0))
    }

    fn message(&self, seat: usize, number: u32, flips: usize) -> String {
        let relative = self.relative(seat, number).as_secs_f64();
        let Seat { participant, kind, cameras } = &self.seats[seat];
        let base64 = cameras[flips % cameras.len()].base64(number);
        picture(self.recording, *participant, *kind, relative, &base64).to_string()
    }
}

/// A bot on its way.
pub struct Sender {
    part: Arc<Part>,
    book: Arc<Mutex<Book>>,
    url: watch::Receiver<String>,
    socket: Option<Socket>,
    number: u32,
    /// When picture 0 was due.
    base: Instant,
    /// Sends nothing before.
    quiet_until: Instant,
    dial_at: Instant,
    flips: usize,
    /// Sockets that it no longer uses, and when it drops them.
    left: Vec<(Instant, Socket)>,
}

impl Sender {
    /// A bot that dials whatever `url` says at the time.
    pub fn new(part: Arc<Part>, url: watch::Receiver<String>) -> (Sender, Arc<Mutex<Book>>) {
        let sent = part.seats.iter().map(|_| Vec::new()).collect();
        let book = Arc::new(Mutex::new(Book { sent, ..Book::default() }));
        let now = Instant::now();
        let sender = Sender {
            part,
            book: Arc::clone(&book),
            url,
            socket: None,
            number: 0,
            base: now,
            quiet_until: now,
            dial_at: now,
            flips: 0,
            left: Vec::new(),
        };
        (sender, book)
    }

    /// Sends until it is told to end.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let now = Instant::now();
            self.left.retain(|(drop_at, _)| *drop_at > now);
            if self.socket.is_none() {
                tokio::select! {
                    command = commands.recv() => self.obey(command.expect("told to end before")).await,
                    () = tokio::time::sleep_until(self.dial_at.into()) => self.dial().await,
                }
                continue;
            }
            let due = self.due(self.number).max(self.quiet_until);
            let socket = self.socket.as_mut().expect("looked above");
            tokio::select! {
                command = commands.recv() => match command.expect("told to end before") {
                    Command::End => return self.end().await,
                    command => self.obey(command).await,
                },
                said = socket.next() => self.hear(said),
                () = tokio::time::sleep_until(due.into()) => self.send_tick().await,
            }
        }
    }

    fn due(&self, number: u32) -> Instant {
        self.base + Duration::from_micros(u64::from(number) * 1_000_000 / u64::from(self.part.fps))
    }

    fn book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.book.lock().unwrap())
    }

    async fn dial(&mut self) {
        let url = self.url.borrow().clone();
        let dialled = tokio::time::timeout(PATIENCE, connect_async(url)).await;
        self.dial_at = Instant::now() + REDIAL;
        let Ok((socket, _)) = dialled.expect("a dial comes to an end") else { return };
        self.socket = Some(socket);
        self.quiet_until = Instant::now();
        // What was not sent meanwhile is not sent at all.
        let now = Instant::now();
        let next = ((now - self.base).as_secs_f64() * f64::from(self.part.fps)).ceil() as u32;
        self.number = self.number.max(next);
        self.book(|book| {
            book.connected = true;
            book.sockets += 1;
            book.disturbed = Some(now);
        });
    }

    async fn send_tick(&mut self) {
        let number = self.number;
        self.number += 1;
        for seat in 0..self.part.seats.len() {
            let text = self.part.message(seat, number, self.flips);
            let whole = self.send(Message::text(text)).await;
            self.note(seat, number, whole);
            if !whole {
                return self.lose();
            }
        }
        if !self.send(Message::Ping(number.to_be_bytes().to_vec().into())).await {
            self.lose();
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        tokio::time::timeout(PATIENCE, socket.send(message)).await.expect("the server reads on").is_ok()
    }

    fn note(&mut self, seat: usize, number: u32, whole: bool) {
        let at = Instant::now();
        self.book(|book| {
            let socket = book.sockets;
            book.sent[seat].push(Sent { number, at, socket, whole, acked: false, excused: !whole });
        });
    }

    fn hear(&mut self, said: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) {
        match said {
            Some(Ok(Message::Pong(payload))) => {
                let number = u32::from_be_bytes(payload.as_ref().try_into().expect("our own payload"));
                self.book(|book| book.acknowledge(book.sockets, number));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => self.lose(),
            Some(Ok(_)) => {}
        }
    }

    /// The socket is gone, or is not used any more.
    fn lose(&mut self) {
        self.socket = None;
        self.dial_at = Instant::now() + REDIAL;
        self.book(|book| {
            book.connected = false;
            book.excuse_unacked(book.sockets);
        });
    }

    async fn obey(&mut self, command: Command) {
        let calm = Instant::now() + if let Command::Stall(time) = command { time } else { Duration::ZERO };
        self.book(|book| book.disturbed = book.disturbed.max(Some(calm)));
        match command {
            Command::Stall(time) => self.quiet_until = Instant::now() + time,
            Command::Burst(seconds) => self.base -= Duration::from_secs(seconds.into()),
            Command::Flip => self.flips += 1,
            Command::HalfMessage => self.send_half().await,
            Command::HalfOpen(time) => {
                self.send_half().await;
                if let Some(socket) = self.socket.take() {
                    self.left.push((Instant::now() + time, socket));
                    self.lose();
                }
            }
            Command::Reset => {
                if let Some(mut socket) = self.socket.take() {
                    // Closed so, it sends a reset, and what it had not sent is gone (socket(7), SO_LINGER).
                    SockRef::from(&*stream(&mut socket)).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(socket);
                    self.lose();
                }
            }
            Command::Fin => self.fin().await,
            Command::End => panic!("told to end without a socket"),
        }
    }

    async fn fin(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        let _ = stream(socket).shutdown().await;
        // Closed with something unread, a socket sends a reset instead.
        let end = tokio::time::Instant::now() + FIN_WAIT;
        while let Some(socket) = &mut self.socket
            && let Ok(said) = tokio::time::timeout_at(end, socket.next()).await
        {
            self.hear(said);
        }
        self.lose();
    }

    /// Writes the first half of a message as it is, and says nothing more.
    async fn send_half(&mut self) {
        let text = self.part.message(0, self.number, self.flips);
        // RFC 6455, 5.2: final, text; masked with zeros, so that the payload stands as it is.
        let mut bytes = vec![0x81, 0x80 | 127];
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&text.as_bytes()[..text.len() / 2]);
        let Some(socket) = &mut self.socket else { return };
        if stream(socket).write_all(&bytes).await.is_err() {
            return self.lose();
        }
        self.quiet_until = Instant::now() + PATIENCE;
    }

    /// Waits until all was taken, then hangs up.
    async fn end(mut self) {
        let last = self.number;
        assert!(self.send(Message::Ping(last.to_be_bytes().to_vec().into())).await, "the socket is open");
        let all_acked = |book: &mut Book| {
            let socket = book.sockets;
            book.sent.iter().flatten().all(|sent| sent.socket != socket || sent.acked)
        };
        while !self.book(all_acked) {
            let said = self.socket.as_mut().expect("nobody cuts it any more").next();
            let said = tokio::time::timeout(PATIENCE, said).await.expect("a ping is answered");
            self.hear(said);
        }
        let _ = self.send(Message::Close(None)).await;
        while let Some(socket) = &mut self.socket {
            let said = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a close is answered");
            self.hear(said);
        }
    }
}

fn stream(socket: &mut Socket) -> &mut TcpStream {
    match socket.get_mut() {
        MaybeTlsStream::Plain(stream) => stream,
        _ => unreachable!("tests speak plain TCP"),
    }
}
