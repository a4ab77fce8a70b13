//! Tests of the whole program from outside, one file per scenario.

#![allow(clippy::disallowed_methods, reason = "the whole program runs on the machine's own clock and threads")]

mod bot;
mod browser;
mod fake;
mod harness;
mod page;
mod pattern;
mod playback;
mod s3;

mod access;
mod alignment;
mod any_request;
mod api;
mod attacks;
mod back_pressure;
mod bad_messages;
mod chaos;
mod closes;
mod deployment;
mod disk_full;
mod doors;
mod erased;
mod events_out;
mod full_spool;
mod gaps;
mod hostile_peers;
mod late_start;
mod lost_spool;
mod meetings;
mod oddities;
mod overload;
mod people;
mod players;
mod playlist_grows;
mod power_loss;
mod recall_api;
mod redirects;
mod restarts;
mod schema;
mod sigterm;
mod slow_machine;
mod starts;
mod store_away;
mod store_faults;
mod tenants;
mod verify;
mod watching;
