//! tilecast turns the PNG streams of Recall.ai meeting bots into aligned 2 fps MP4s and live HLS: one of each for every
//! participant's webcam and every screenshare, all on one shared timeline.
//!
//! # The flow: one way, five stages
//!
//! ```text
//!  bot                                                                                  player
//!   | WebSocket                                                                            ^
//!   v                                                                                      | HTTP, Range
//! http::ws --> pipeline::session                                                      http::media
//!   tokio          | Capture (8 a lane)                                                    ^
//!                  v                                                                       |
//!              1 ingest     PNG -> Picture (I420)             ingest-n threads             |
//!                  | Picture (4 a lane)                                                    |
//!                  v                                                                       |
//!              2 timeline   Picture -> ticks, held, gaps   \                               |
//!                  v                                        |                              |
//!              3 encode     tick -> access unit             | encode-n threads             |
//!                  v                                        |                              |
//!              4 package    access unit -> part, segment   /                               |
//!                  v                                                                       |
//!              5 store      part -> spool on disk, journal    sync thread: fsync           |
//!                  |                                                                       |
//!                  +--> pipeline::keeper (tokio): segment, playlist, manifest, MP4 --> media store
//!                            ^
//!                            | segments -> one MP4            assemble thread
//! ```
//!
//! A *recording* has *tracks* (participant and kind), a track runs in a *lane*. Threads number what the machine has, not
//! what the meetings have: an idle worker takes any lane that has work, and no lane is with two workers of a stage.
//!
//! # What always holds
//!
//! - Output follows the timestamps: tick n lies n / fps seconds after the recording's time zero, in every file of every
//!   track, whatever arrived when.
//! - Nothing vanishes: `received = encoded + sum(discarded)` and `MP4 ticks = encoded + held + filled`, at every part
//!   and after a crash ([`ledger`]).
//! - Every queue is bounded, and what happens when it is full has a name. Bytes in flight are charged once, at the
//!   socket ([`pipeline::budget`]).
//! - A part is in the spool, with its journal line, before anything counts it; a playlist names a segment only when it
//!   is durable and lies where it is read from; every published playlist is a prefix of the next.
//! - Nothing written is overwritten but what can be rebuilt; two writers never share a key ([`pipeline::store::keys`]).
//! - The rules are plain code that takes time as an argument; only [`clock`] reads one. Sockets and uploads run on tokio,
//!   pixels and files on threads.
//! - A panic is a bug: no input can cause one. Bad input is counted, and the next message is read.
//!
//! # The modules, in reading order
//!
//! | module | what |
//! |---|---|
//! | [`media`] | the words: kinds, ticks, grid, pictures, access units, reasons |
//! | [`ledger`] | the counters of a track that must add up |
//! | [`config`] | the options of `serve` |
//! | [`clock`], [`channel`], [`parallel`], [`shutdown`], [`machine`], [`metrics`], [`ffmpeg`] | what everything stands on |
//! | [`pipeline::ingest`], [`pipeline::timeline`], [`pipeline::encode`], [`pipeline::package`], [`pipeline::store`] | the stages; each imports only the one before it |
//! | [`pipeline::lane`], [`pipeline::track`] | one track's queues; its life on a worker |
//! | [`pipeline::schedule`], [`pipeline::shed`], [`pipeline::budget`] | whose turn it is; what is shed; what is in flight |
//! | [`pipeline::pass`], [`pipeline::session`], [`pipeline::recording`], [`pipeline::registry`] | what a socket may open; its rules; a recording's state; all of them |
//! | [`pipeline::keeper`], [`pipeline::assembly`] | publishing and finishing; the MP4 |
//! | [`pipeline::entries`], [`pipeline::known`], [`pipeline::erase`] | by what a recording is found again; what the store knows; how one goes away |
//! | [`pipeline::verify`] | recordings checked from outside, and repaired from their segments |
//! | [`pipeline`] | the wiring: every channel, thread and capacity |
//! | [`http`] | sockets, API, media, the page |
//! | [`cli`] | one file for each subcommand |
//!
//! `tests/tidy.rs` holds who may import whom.

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ffmpeg;
pub mod heap;
pub mod http;
pub mod ledger;
pub mod machine;
pub mod media;
pub mod metrics;
pub mod parallel;
pub mod pipeline;
pub mod shutdown;
