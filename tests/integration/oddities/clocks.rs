//! What the clocks of bots do now and then.

use serde_json::json;
use tilecast::clock::rfc3339;
use tilecast::media::{GapReason, Micros};
use tilecast::pipeline::store::manifest::Manifest;

use super::{Make, Row, again, numbers};
use crate::bot::{ORIGIN, at};

/// All rows about clocks.
pub fn rows() -> Vec<(&'static str, Make)> {
    [relative_clock(), pauses(), far_ahead(), absolute_clock()].into_iter().flatten().collect()
}

fn relative_clock() -> Vec<(&'static str, Make)> {
    vec![
        ("relative jumps two hours ahead once", |_, s| {
            let odd = s.clocks(5, 7200.0, 2.5);
            let shown = [numbers(0..5), again(Some(4), 1), numbers(6..12)].concat();
            Row::new("", [s.plain(0..5), vec![odd], s.plain(6..12)].concat(), shown).discards("bad_timestamp", 1)
        }),
        ("relative jumps two minutes ahead once", |_, s| {
            let odd = s.clocks(5, 120.0, 2.5);
            let shown = [numbers(0..5), again(Some(4), 1), numbers(6..12)].concat();
            Row::new("", [s.plain(0..5), vec![odd], s.plain(6..12)].concat(), shown).discards("bad_timestamp", 1)
        }),
        ("both clocks jump twenty seconds ahead once", |_, s| {
            let odd = s.on(77, 45);
            Row::new("", [s.plain(0..5), vec![odd], s.plain(5..12)].concat(), numbers(0..12))
                .discards("bad_timestamp", 1)
        }),
        ("both clocks go on twelve minutes later", |_, s| {
            let later = (6..12).map(|number| s.on(number, number + 1440));
            let shown = [numbers(0..6), again(Some(5), 20), again(None, 1420), numbers(6..12)].concat();
            Row::new("", s.plain(0..6).into_iter().chain(later).collect(), shown).gap(26, 1446, GapReason::Unknown)
        }),
        ("relative alone jumps 30 s ahead", |_, s| {
            let ahead = (10..16).map(|number| s.clocks(number, at(number + 60), at(number)));
            let shown = [numbers(0..10), again(Some(9), 20), again(None, 40), numbers(10..16)].concat();
            Row::new("", s.plain(0..10).into_iter().chain(ahead).collect(), shown).gap(30, 70, GapReason::Unknown)
        }),
        ("pictures from before the start", |_, s| {
            let before = [-1.0, -0.5].map(|relative| s.clocks(77, relative, relative));
            let messages = before.into_iter().chain(s.plain(0..6)).collect();
            Row::new("", messages, numbers(0..6)).discards("before_start", 2)
        }),
        ("times that nobody lives to see", |_, s| {
            let odd = [json!(3.0e9), json!(-3.0e9), json!(1e18), json!(-1e300), json!(i64::MAX), json!(u64::MAX)];
            let odd = odd.map(|relative| s.clocks(77, relative, 3.0));
            let messages = [s.plain(0..6), odd.to_vec(), s.plain(6..9)].concat();
            Row::new("", messages, numbers(0..9)).discards("bad_timestamp", 6)
        }),
        ("the first one's time is impossible", |_, s| {
            let messages = [vec![s.clocks(77, 1.0e9, 0.0)], s.plain(0..6)].concat();
            Row::new("", messages, numbers(0..6)).discards("bad_timestamp", 1)
        }),
        ("no number at all", |_, s| {
            let odd = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"];
            let good = s.clocks(77, "RELATIVE", 3.0).to_string();
            let odd = odd.map(|number| good.replace("\"RELATIVE\"", number));
            let mut row = Row::new("", s.plain(0..9), numbers(0..9));
            row.messages.splice(5..5, odd);
            Row { rejected: vec![("not_json", 5)], ..row }
        }),
        ("events at impossible times", |_, s| {
            let odd = [json!(1e300), json!(3.0e9), json!(-3.0e9)].map(|relative| s.event("speech_on", relative));
            let row = Row::new("", [s.plain(0..7), odd.to_vec(), s.plain(7..9)].concat(), numbers(0..9));
            Row { events: vec![("speech_on", 6); 3], ..row }
        }),
        ("a camera that goes off at an impossible time", |_, s| {
            let odd = [3.0e9, -3.0e9].map(|relative| s.event("webcam_off", relative));
            let row = Row::new("", [s.plain(0..7), odd.to_vec(), s.plain(7..9)].concat(), numbers(0..9));
            Row { events: vec![("webcam_off", 6); 2], ..row }
        }),
    ]
}

/// Times that are an hour ahead, and are believed only when nothing contradicts them.
fn far_ahead() -> Vec<(&'static str, Make)> {
    fn origin_is_right(manifest: &Manifest) {
        assert_eq!((manifest.origin.as_deref(), manifest.origin_from_server), (Some(&*rfc3339(ORIGIN)), false));
    }
    vec![
        ("the first one is an hour ahead", |_, s| {
            let row = Row::new("", [vec![s.on(77, 7200)], s.plain(0..9)].concat(), numbers(0..9));
            Row { and: origin_is_right, ..row.discards("bad_timestamp", 1) }
        }),
        ("the first one's relative is an hour ahead", |_, s| {
            let row = Row::new("", [vec![s.clocks(77, 3600.0, 0.0)], s.plain(0..9)].concat(), numbers(0..9));
            Row { and: origin_is_right, ..row.discards("bad_timestamp", 1) }
        }),
        ("the first one is an hour ahead, without absolute", |_, s| {
            let messages = [7200, 0, 1, 2, 3, 4, 5].map(|n| s.stamped(n % 100, at(n), json!(null)));
            let and = |manifest: &Manifest| assert!(manifest.origin.is_some() && manifest.origin_from_server);
            Row { and, ..Row::new("", messages.to_vec(), numbers(0..6)).discards("bad_timestamp", 1) }
        }),
        ("the first one after a redial is an hour ahead", |_, s| {
            let messages = [s.plain(0..6), vec![s.on(77, 7206)], s.plain(6..20)].concat();
            Row { redial: Some(6), ..Row::new("", messages, numbers(0..20)).discards("bad_timestamp", 1) }
        }),
        ("back after fifteen minutes", |_, s| {
            let later = (6..12).map(|number| s.on(number, number + 1800));
            let shown = [numbers(0..6), again(Some(5), 3), again(None, 1797), numbers(6..12)].concat();
            let row = Row::new("", s.plain(0..6).into_iter().chain(later).collect(), shown);
            Row { redial: Some(6), ..row.gap(9, 1806, GapReason::Disconnected) }
        }),
        ("one picture after fifteen minutes, and no more", |_, s| {
            let messages = [s.plain(0..6), vec![s.on(6, 1806)]].concat();
            // It is placed at the end, when the socket is gone: the hole counts as the socket's.
            let shown = [numbers(0..6), again(Some(5), 3), again(None, 1797), numbers(6..7)].concat();
            Row::new("", messages, shown).gap(9, 1806, GapReason::Disconnected)
        }),
    ]
}

fn absolute_clock() -> Vec<(&'static str, Make)> {
    fn origin_is(manifest: &Manifest, seconds: i64) {
        let origin = rfc3339(Micros(ORIGIN.0 + seconds * 1_000_000));
        assert_eq!((manifest.origin.as_deref(), manifest.origin_from_server), (Some(&*origin), false));
    }
    vec![
        ("absolute changes by an hour", |_, s| {
            let messages = (0..20).map(|n| s.clocks(n, at(n), at(n) + if n < 10 { 0.0 } else { 3600.0 })).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute changes by an hour and back", |_, s| {
            let off = |n| if (6..14).contains(&n) { -3600.0 } else { 0.0 };
            let messages = (0..20).map(|n| s.clocks(n, at(n), at(n) + off(n))).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute is a year off all through", |_, s| {
            let messages = (0..8).map(|n| s.clocks(n, at(n), at(n) - 31_536_000.0)).collect();
            Row { and: |manifest| origin_is(manifest, -31_536_000), ..Row::new("", messages, numbers(0..8)) }
        }),
        ("absolute stands still", |_, s| {
            let messages = (0..20).map(|n| s.clocks(n, at(n), 0.0)).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute is of every wrong form", |_, s| {
            let forms = [
                json!("yesterday"),
                json!(17),
                json!(null),
                json!({}),
                json!(""),
                json!("9999-99-99T99:99:99Z"),
                json!("+262000-01-01T00:00:00Z"),
                json!("-9999-01-01T00:00:00Z"),
            ];
            let messages = (0..8).zip(forms).map(|(n, absolute)| s.stamped(n, at(n), absolute)).collect();
            let and = |manifest: &Manifest| assert!(manifest.origin.is_some() && manifest.origin_from_server);
            Row { and, ..Row::new("", messages, numbers(0..8)) }
        }),
    ]
}

/// `relative` begins anew.
fn pauses() -> Vec<(&'static str, Make)> {
    vec![
        ("relative begins anew after a pause", |_, s| {
            let anew = (10..20).map(|number| s.clocks(number, at(number - 10), at(number)));
            let row = Row::new("", s.plain(0..10).into_iter().chain(anew).collect(), numbers(0..20));
            Row { events: vec![("clock_rebased", 12)], ..row }
        }),
        ("a pause, and absolute an hour back", |_, s| {
            let anew = (10..30).map(|number| s.clocks(number, at(number - 10), at(number) - 3600.0));
            let row = Row::new("", s.plain(0..10).into_iter().chain(anew).collect(), numbers(0..30));
            Row { events: vec![("clock_rebased", 12)], ..row }
        }),
        ("a pause, and absolute some seconds back", |_, s| {
            let anew = (20..40).map(|number| s.clocks(number, at(number - 20), at(number) - 5.0));
            let row = Row::new("", s.plain(0..20).into_iter().chain(anew).collect(), numbers(0..40));
            Row { events: vec![("clock_rebased", 22)], ..row }
        }),
        ("a pause without absolute", |_, s| {
            let messages = (0..40).map(|n| s.stamped(n, at(n % 20), json!(null))).collect();
            let row = Row::new("", messages, numbers(0..40));
            // How fast they come tells them from a replay.
            Row { events: vec![("clock_rebased", 22)], pace_from: Some(20), ..row }
        }),
        ("all of it again, without absolute", |_, s| {
            let messages = (0..44).map(|n| s.stamped(n % 22, at(n % 22), json!(null))).collect();
            Row { redial: Some(22), ..Row::new("", messages, numbers(0..22)).discards("duplicate", 22) }
        }),
    ]
}
