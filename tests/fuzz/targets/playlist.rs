//! A published playlist that is gone on with: only a text that comes out equal is taken, and what follows extends it.
//! The first eight bytes are the grid and the time of tick 0.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tilecast::media::{Grid, Micros};
use tilecast::pipeline::package::playlist::{Entry, Playlist};

fuzz_target!(|data: &[u8]| {
    let Some((&[fps, part, cells, a, b, c, d, e], text)) = data.split_first_chunk::<8>() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let part_ticks = u32::from(part % 30) + 1;
    let grid = Grid {
        fps: u32::from(fps % 30) + 1,
        part_ticks,
        segment_ticks: part_ticks * (u32::from(cells % 30) + 1),
    };
    // From 1970 to the year 9999, as a parsed `absolute` may be: 2^40 steps of 0.23 s.
    let origin = Micros(i64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) * 230_000 + 503_499);
    let Ok(mut playlist) = Playlist::resume(grid, origin, text) else { return };
    assert_eq!(playlist.text(), text);
    let first_tick = playlist.end_tick().unwrap_or(0);
    playlist.push(&Entry { epoch: "0000000-aaaaaa".to_owned(), first_tick, ticks: 1, init: "init.mp4".to_owned() });
    playlist.end();
    assert!(playlist.text().starts_with(text));
    let again = Playlist::resume(grid, origin, playlist.text());
    assert!(again.is_ok_and(|again| again == playlist));
});
