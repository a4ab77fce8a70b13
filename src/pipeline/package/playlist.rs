//! The text of a track's HLS media playlist (RFC 8216bis), which only ever grows: each text is a byte prefix of the next.
//!
//! Pure. When a segment may be named, and where the text is published, is the caller's business.

use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::media::{Grid, Micros, Tick};

/// Milliseconds, as players compare them; no finer, for some read no more digits.
const DATE_TIME: &[BorrowedFormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A closed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The folder of its epoch, beside the playlist.
    pub epoch: String,
    /// The tick of its first picture; its cell names its file.
    pub first_tick: Tick,
    /// Its pictures, at least one.
    pub ticks: Tick,
    /// The file name of its init segment, beside the playlist. Equal names mean equal bytes.
    pub init: String,
}

/// Why a published playlist cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaylistError {
    /// A line that no version of this text has there.
    #[error("line {0} of the published playlist cannot be read")]
    Line(usize),
    /// It can be read, but with this grid and origin its text would be another: torn, or another recording's.
    #[error("the published playlist differs from what its own segments give, from byte {0} on")]
    Differs(usize),
}

/// The media playlist of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playlist {
    grid: Grid,
    origin_unix: Micros,
    text: String,
    last: Option<Last>,
    ended: bool,
}

/// What the next entry is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    end: Tick,
    init: String,
}

impl Playlist {
    /// A playlist without segments. `origin_unix` is the absolute time of tick 0, since 1970 and in UTC.
    pub fn new(grid: Grid, origin_unix: Micros) -> Playlist {
        // No EXTINF, rounded, may exceed it, and it must not change (RFC 8216bis, 4.4.3.1): that of a whole cell.
        let target = grid.segment_ticks.div_ceil(grid.fps);
        // No EXT-X-MEDIA-SEQUENCE: without it, it is 0 (4.4.3.2); with it, Chromium's own player takes the playlist for one
        // that slides, plays from its end, and lets nobody seek.
        // 7 is more than the tags need (6, for EXT-X-MAP) and what players expect of fMP4.
        let text = format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target}\n\
             #EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        );
        Playlist { grid, origin_unix, text, last: None, ended: false }
    }

    /// Adds a segment. Nothing is added after [`Playlist::end`]: the end was published.
    ///
    /// A new epoch that goes on at the next tick with the same init segment needs no mark, for `tfdt` counts on one
    /// grid in all of them.
    pub fn push(&mut self, entry: &Entry) {
        debug_assert!(entry.ticks > 0, "a segment has pictures");
        if self.ended {
            return;
        }
        let same_init = self.last.as_ref().is_some_and(|last| last.init == entry.init);
        let goes_on = same_init && self.last.as_ref().is_some_and(|last| last.end == entry.first_tick);
        let end = entry.first_tick + entry.ticks;
        let [from, to] = [entry.first_tick, end].map(|tick| self.grid.time_of(tick));

        if self.last.is_some() && !goes_on {
            self.line("#EXT-X-DISCONTINUITY");
        }
        // It stays in force across discontinuities (4.4.4.5), and FFmpeg warns of one repeated with the same bytes.
        if !same_init {
            self.line(&format!("#EXT-X-MAP:URI=\"{}\"", entry.init));
        }
        // Not on each segment: players add up EXTINF from the last one (4.4.4.6), and these sums are exact. It would
        // double a text that every viewer of a live meeting fetches every few seconds.
        if !goes_on {
            self.line(&format!("#EXT-X-PROGRAM-DATE-TIME:{}", date_time(self.origin_unix + from)));
        }
        self.line(&format!("#EXTINF:{},", seconds(to - from)));
        self.line(&format!("{}/{:06}.m4s", entry.epoch, self.grid.segment_of(entry.first_tick)));
        self.last = Some(Last { end, init: entry.init.clone() });
    }

    /// Says that nothing more comes. Once; further calls change nothing.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.line("#EXT-X-ENDLIST");
        }
    }

    /// The whole text, to be published.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether [`Playlist::end`] was called, in this process or before.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The tick after the last one of the last segment; `None` without segments. What lies before it is published.
    pub fn end_tick(&self) -> Option<Tick> {
        self.last.as_ref().map(|last| last.end)
    }

    /// Takes up a published text, whoever wrote it, so that what is pushed now continues its bytes.
    ///
    /// The segments are read from the text and written again: only a text that comes out equal is taken.
    pub fn resume(grid: Grid, origin_unix: Micros, published: &str) -> Result<Playlist, PlaylistError> {
        Playlist::read(grid, origin_unix, published).map(|(playlist, _)| playlist)
    }

    /// As [`Playlist::resume`], with the segments that the text names.
    pub fn read(grid: Grid, origin_unix: Micros, published: &str) -> Result<(Playlist, Vec<Entry>), PlaylistError> {
        let mut entries = Vec::new();
        let mut playlist = Playlist::new(grid, origin_unix);
        let (mut init, mut tick, mut ticks) = (String::new(), 0, 0);
        for (at, line) in published.lines().enumerate() {
            let bad = PlaylistError::Line(at + 1);
            if let Some(name) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                init = name.strip_suffix('"').ok_or(bad)?.to_owned();
            } else if let Some(time) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                tick = nearest_tick(grid, parse_date_time(time).ok_or(bad)? - origin_unix).ok_or(bad)?;
            } else if let Some(duration) = line.strip_prefix("#EXTINF:") {
                let duration = duration.strip_suffix(',').and_then(|text| text.parse().ok()).ok_or(bad)?;
                ticks = nearest_tick(grid, Micros::from_secs_f64(duration).ok_or(bad)?).ok_or(bad)?;
            } else if line == "#EXT-X-ENDLIST" {
                playlist.end();
            } else if !line.starts_with('#') {
                // No segment is longer than its cell.
                let fits = 1..=Tick::from(grid.segment_ticks);
                let (epoch, _) = line.rsplit_once('/').filter(|_| fits.contains(&ticks)).ok_or(bad)?;
                entries.push(Entry { epoch: epoch.to_owned(), first_tick: tick, ticks, init: init.clone() });
                playlist.push(&entries[entries.len() - 1]);
                tick += ticks;
                ticks = 0;
            }
        }
        if playlist.text != published {
            let same = playlist.text.bytes().zip(published.bytes()).take_while(|(ours, theirs)| ours == theirs);
            return Err(PlaylistError::Differs(same.count()));
        }
        Ok((playlist, entries))
    }

    /// The absolute time at which the first segment of a text begins, to a millisecond.
    pub fn first_date_time(published: &str) -> Option<Micros> {
        published.lines().find_map(|line| parse_date_time(line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")?))
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Seconds in decimals. Durations are differences of the grid's own microseconds, so that their sum never drifts, even
/// where a tick is no decimal fraction of a second.
fn seconds(span: Micros) -> String {
    let mut text = format!("{}.{:06}", span.0 / 1_000_000, span.0 % 1_000_000);
    if text.ends_with("000") {
        text.truncate(text.len() - 3);
    }
    text
}

/// RFC 3339 in UTC, rounded to a millisecond: to the same one in every track.
fn date_time(unix: Micros) -> String {
    let millis = (unix.0 + 500).div_euclid(1000);
    // A time outside the calendar never comes from a parsed `absolute`; the playlist plays with any.
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    let mut text = String::new();
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    write!(text, "{}", time.format(DATE_TIME).expect("every field of a date and time is there"))
        .expect("a string takes any text");
    text
}

fn parse_date_time(text: &str) -> Option<Micros> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Micros)
}

/// The tick that starts nearest to `at`: time stamps in the text are rounded, and a tick lasts 33 ms or more.
fn nearest_tick(grid: Grid, at: Micros) -> Option<Tick> {
    let doubled = at.0.checked_mul(2 * i64::from(grid.fps))?;
    Some(doubled.checked_add(1_000_000)?.div_euclid(2_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };
    const ORIGIN: Micros = Micros(1_767_261_600_503_499);

    fn entry(epoch: &str, first_tick: Tick, ticks: Tick, init: &str) -> Entry {
        Entry { epoch: epoch.into(), first_tick, ticks, init: init.into() }
    }

    #[test]
    fn a_meeting_reads_as_it_should() {
        let mut playlist = Playlist::new(GRID, ORIGIN);
        for entry in [
            entry("0000003-aaaaaa", 3, 9, "init-1.mp4"),
            entry("0000003-aaaaaa", 12, 12, "init-1.mp4"),
            entry("0000024-bbbbbb", 24, 5, "init-1.mp4"), // another process went on at once
            entry("0007200-bbbbbb", 7200, 12, "init-1.mp4"), // a long gap
            entry("0007212-cccccc", 7212, 1, "init-2.mp4"), // other parameter sets
        ] {
            playlist.push(&entry);
        }
        playlist.end();
        playlist.end();
        playlist.push(&entry("0007213-cccccc", 7213, 11, "init-2.mp4"));
        let expected = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n\
            #EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n\
            #EXT-X-MAP:URI=\"init-1.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T10:00:02.003Z\n\
            #EXTINF:4.500,\n0000003-aaaaaa/000000.m4s\n#EXTINF:6.000,\n0000003-aaaaaa/000001.m4s\n\
            #EXTINF:2.500,\n0000024-bbbbbb/000002.m4s\n\
            #EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T11:00:00.503Z\n\
            #EXTINF:6.000,\n0007200-bbbbbb/000600.m4s\n\
            #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-2.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T11:00:06.503Z\n\
            #EXTINF:0.500,\n0007212-cccccc/000601.m4s\n#EXT-X-ENDLIST\n";
        assert_eq!(playlist.text(), expected);
        let resumed = Playlist::resume(GRID, ORIGIN, expected).unwrap();
        assert_eq!((resumed.end_tick(), resumed.ended()), (Some(7213), true));
        assert_eq!(resumed, playlist);
    }

    #[test]
    fn the_target_duration_is_that_of_a_whole_cell_rounded_up() {
        let target = |fps, segment_ticks| {
            let playlist = Playlist::new(Grid { fps, part_ticks: 1, segment_ticks }, ORIGIN);
            playlist.text().lines().nth(2).unwrap().to_owned()
        };
        assert_eq!(target(2, 12), "#EXT-X-TARGETDURATION:6");
        assert_eq!(target(2, 13), "#EXT-X-TARGETDURATION:7");
        assert_eq!(target(3, 19), "#EXT-X-TARGETDURATION:7");
        assert_eq!(target(30, 30), "#EXT-X-TARGETDURATION:1");
    }

    #[test]
    fn only_what_this_recording_published_is_taken_up() {
        let mut playlist = Playlist::new(GRID, ORIGIN);
        playlist.push(&entry("0000000-aaaaaa", 0, 12, "init-1.mp4"));
        let text = playlist.text().to_owned();
        assert!(Playlist::resume(GRID, ORIGIN, &text).is_ok());
        assert!(Playlist::resume(GRID, ORIGIN, Playlist::new(GRID, ORIGIN).text()).is_ok());

        let refused = |grid, origin, text: &str| Playlist::resume(grid, origin, text).is_err();
        for cut in 0..text.len() {
            // The one place to cut that leaves a playlist, without segments.
            let header = cut == Playlist::new(GRID, ORIGIN).text().len();
            assert_eq!(refused(GRID, ORIGIN, &text[..cut]), !header, "cut after {cut} bytes");
        }
        assert!(refused(GRID, ORIGIN + Micros(2000), &text), "another origin");
        assert!(refused(Grid { segment_ticks: 20, ..GRID }, ORIGIN, &text), "another grid");
        assert!(refused(GRID, ORIGIN, &text.replace("000000.m4s", "000001.m4s")), "another segment");
        assert!(refused(GRID, ORIGIN, &text.replace('\n', "\r\n")));
        assert_eq!(Playlist::resume(GRID, ORIGIN, "<html>"), Err(PlaylistError::Line(1)));
        assert_eq!(Playlist::resume(GRID, ORIGIN, &text.replace("6.000", "1e300")), Err(PlaylistError::Line(8)));
        assert!(matches!(
            Playlist::resume(GRID, ORIGIN, "#EXTM3U\n#EXT-X-VERSION:8\n"),
            Err(PlaylistError::Differs(23))
        ));
    }

    /// Segments in order: whole cells, or cut short at either end, with gaps and changes of epoch and init between.
    fn entries(grid: Grid) -> impl Strategy<Value = Vec<Entry>> {
        let step = (0..3_i64, 0..40_i64, 0..4_u8, 0..5_u8);
        prop::collection::vec(step, 0..40).prop_map(move |steps| {
            let (mut tick, mut epoch, mut init) = (0, String::new(), 0);
            let mut entries = Vec::new();
            for (at, (gap, shorter, new_init, new_epoch)) in steps.into_iter().enumerate() {
                tick += if gap == 0 { shorter } else { 0 };
                init += u32::from(new_init == 0);
                if new_epoch == 0 || epoch.is_empty() {
                    epoch = format!("{tick:07}-{at:06}");
                }
                let ticks = (grid.segment_end(tick) - tick - shorter % 4).max(1);
                entries.push(entry(&epoch, tick, ticks, &format!("init-{init}.mp4")));
                tick += ticks;
            }
            entries
        })
    }

    fn grids() -> impl Strategy<Value = Grid> {
        (1..=30_u32, 1..=4_u32, 1..=6_u32).prop_map(|(fps, part_ticks, parts)| Grid {
            fps,
            part_ticks,
            segment_ticks: part_ticks * parts,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(1), ..Default::default() })]

        #[test]
        fn every_text_is_a_prefix_of_the_next_and_can_be_taken_up(
            (grid, entries) in grids().prop_flat_map(|grid| (Just(grid), entries(grid))),
            origin in 0..4_000_000_000_000_000_i64,
        ) {
            let mut texts = Vec::new();
            let mut playlist = Playlist::new(grid, Micros(origin));
            for entry in &entries {
                texts.push(playlist.text().to_owned());
                playlist.push(entry);
            }
            texts.push(playlist.text().to_owned());
            playlist.end();
            for pair in texts.windows(2) {
                prop_assert!(pair[1].starts_with(&pair[0]));
            }
            prop_assert!(playlist.text().starts_with(&texts[entries.len()]));
            for (done, text) in texts.iter().enumerate() {
                let mut resumed = Playlist::resume(grid, Micros(origin), text).unwrap();
                prop_assert_eq!(resumed.end_tick(), done.checked_sub(1).map(|at| entries[at].first_tick + entries[at].ticks));
                entries[done..].iter().for_each(|entry| resumed.push(entry));
                resumed.end();
                prop_assert_eq!(resumed.text(), playlist.text());
            }
        }

        #[test]
        fn another_parser_reads_the_same(
            (grid, entries) in grids().prop_flat_map(|grid| (Just(grid), entries(grid))),
            origin in 0..4_000_000_000_000_000_i64,
        ) {
            let mut playlist = Playlist::new(grid, Micros(origin));
            entries.iter().for_each(|entry| playlist.push(entry));
            playlist.end();
            let (_, read) = m3u8_rs::parse_media_playlist(playlist.text().as_bytes()).unwrap();
            prop_assert_eq!(read.version, Some(7));
            prop_assert!(read.end_list && read.independent_segments && read.unknown_tags.is_empty());
            prop_assert_eq!(read.playlist_type, Some(m3u8_rs::MediaPlaylistType::Event));
            prop_assert_eq!(read.segments.len(), entries.len());
            let (mut now, mut map) = (0.0, String::new());
            for (at, (segment, entry)) in read.segments.iter().zip(&entries).enumerate() {
                let before = at.checked_sub(1).map(|at| &entries[at]);
                let broken = before.is_some_and(|last| {
                    last.first_tick + last.ticks != entry.first_tick || last.init != entry.init
                });
                prop_assert_eq!(segment.discontinuity, broken);
                if let Some(named) = &segment.map {
                    prop_assert!(map != named.uri, "a MAP is not repeated");
                    map = named.uri.clone();
                }
                prop_assert_eq!(&map, &entry.init);
                // What a player takes for the segment's time: the last date, and the durations since.
                if let Some(date) = segment.program_date_time {
                    now = date.timestamp_micros() as f64;
                }
                let exact = origin as f64 + entry.first_tick as f64 * 1e6 / f64::from(grid.fps);
                prop_assert!((now - exact).abs() < 600.0, "off by {} us", now - exact);
                now += f64::from(segment.duration) * 1e6;
                prop_assert!(segment.duration.round() as u64 <= read.target_duration);
                prop_assert_eq!(&segment.uri, &format!("{}/{:06}.m4s", entry.epoch, grid.segment_of(entry.first_tick)));
            }
        }
    }
}
