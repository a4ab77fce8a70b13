//! What was sent: for people, and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The counters of one bot, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Bots.
    pub bots: u32,
    /// Messages that the plans hold.
    pub planned: u64,
    /// Captures of webcams that were sent, repetitions included.
    pub webcam: u64,
    /// Captures of screenshares that were sent, repetitions included.
    pub screenshare: u64,
    /// Participant events that were sent.
    pub events: u64,
    /// Of the captures sent: those sent a second time.
    pub duplicates: u64,
    /// Of the captures sent: those that changed places with another.
    pub swapped: u64,
    /// Of the captures sent: those sent 5 s late on purpose.
    pub late: u64,
    /// Messages that were due while there was no connection.
    pub missed: u64,
    /// Messages whose sending began more than 250 ms after it was due: the server held the socket, or this machine is
    /// too slow.
    pub behind: u64,
    /// The longest such delay.
    pub behind_ms_max: u64,
    /// Bytes of JSON.
    pub bytes: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Attempts to connect that failed, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// How connections ended, by reason.
    pub closes: BTreeMap<String, u64>,
    /// Bots that gave up after 30 attempts.
    pub gave_up: u64,
    /// Wall time from the first bot's start to the last one's end.
    pub seconds: f64,
}

impl Report {
    /// Adds the counters of another bot.
    pub fn add(&mut self, other: &Report) {
        self.bots += other.bots;
        self.planned += other.planned;
        self.webcam += other.webcam;
        self.screenshare += other.screenshare;
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.swapped += other.swapped;
        self.late += other.late;
        self.missed += other.missed;
        self.behind += other.behind;
        self.behind_ms_max = self.behind_ms_max.max(other.behind_ms_max);
        self.bytes += other.bytes;
        self.connections += other.connections;
        self.gave_up += other.gave_up;
        self.seconds = self.seconds.max(other.seconds);
        for (mine, theirs) in [(&mut self.refusals, &other.refusals), (&mut self.closes, &other.closes)] {
            theirs.iter().for_each(|(reason, n)| *mine.entry(reason.clone()).or_default() += n);
        }
    }

    /// Captures that were sent, repetitions included.
    pub fn pictures(&self) -> u64 {
        self.webcam + self.screenshare
    }

    /// Notes that sending began this long after it was due.
    pub fn note_delay(&mut self, delay: Duration) {
        if delay > Duration::from_millis(250) {
            self.behind += 1;
            self.behind_ms_max = self.behind_ms_max.max(delay.as_millis() as u64);
        }
    }

    /// Whether every message was sent.
    pub fn is_complete(&self) -> bool {
        self.planned == self.pictures() + self.events
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |n: f64| n / self.seconds.max(1e-3);
        let list = |reasons: &BTreeMap<String, u64>| {
            let list: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} x {reason}")).collect();
            if list.is_empty() { "none".to_owned() } else { list.join(", ") }
        };
        writeln!(
            f,
            "sent        {} of {} messages in {:.1} s",
            self.pictures() + self.events,
            self.planned,
            self.seconds
        )?;
        writeln!(
            f,
            "pictures    {} webcam, {} screenshare ({:.1} a second); {} twice, {} swapped, {} late",
            self.webcam,
            self.screenshare,
            per_second(self.pictures() as f64),
            self.duplicates,
            self.swapped,
            self.late
        )?;
        writeln!(f, "events      {}", self.events)?;
        writeln!(f, "bytes       {} ({:.1} MB a second)", self.bytes, per_second(self.bytes as f64 / 1e6))?;
        writeln!(f, "behind      {} messages, {} ms at most; {} missed", self.behind, self.behind_ms_max, self.missed)?;
        writeln!(f, "connections {} by {} bots, {} gave up", self.connections, self.bots, self.gave_up)?;
        writeln!(f, "refusals    {}", list(&self.refusals))?;
        write!(f, "closes      {}", list(&self.closes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up() {
        let mut one = Report { bots: 1, planned: 5, webcam: 3, events: 2, seconds: 2.0, ..Report::default() };
        one.closes.insert("1000".into(), 1);
        one.note_delay(Duration::from_millis(250));
        one.note_delay(Duration::from_millis(400));
        let mut all = one.clone();
        all.add(&Report { bots: 1, planned: 4, screenshare: 1, ..one.clone() });
        assert_eq!((all.bots, all.planned, all.pictures(), all.behind, all.behind_ms_max), (2, 9, 7, 2, 400));
        assert_eq!((all.closes["1000"], one.is_complete(), all.is_complete()), (2, true, false));
        assert!(all.to_string().contains("closes      2 x 1000"), "{all}");
        assert_eq!(serde_json::to_value(&one).unwrap()["closes"]["1000"], 1);
    }
}
