//! The house rules, held by reading the tree as text: who imports whom, how long things are, which words and calls are
//! banned, and that README and code name the same options.
//!
//! Not here: what rustfmt, rustc and clippy see by themselves (`make test` runs them all).

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use imports::used_paths;
use source::{item_len, line_of, none, relative, sources, walk, words};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are still too long. This list only shrinks.
const LONG_FILES: &[&str] = &["tests/integration/harness.rs"];

/// Functions that are still too long, as `file: name`. This list only shrinks.
const LONG_FUNCTIONS: &[&str] = &[];

/// Where the bare word "frame" is FFmpeg's or the WebSocket library's own name of a thing.
const FRAME_PHRASES: [&str; 4] = ["ff::frame::", "ffmpeg::frame::", "ffmpeg_next::frame::", "frame::coding::CloseCode"];

// Size and names

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources(&["src", "tests", "benches"]).into_iter().filter(|source| !source.text.starts_with("//! "));
    let silent = silent.map(|source| source.path).collect();
    none(silent, "begin the file with `//!`: what it is for, what is deliberately not in it");
}

/// Compares what is too long with the exceptions: neither more nor fewer.
#[track_caller]
fn hold(long: Vec<(String, usize)>, exceptions: &[&str], advice: &str) {
    let named = |name: &str| exceptions.contains(&name);
    let new = long.iter().filter(|(name, _)| !named(name)).map(|(name, lines)| format!("{name}: {lines} lines"));
    none(new.collect(), advice);
    let spent = exceptions.iter().filter(|name| !long.iter().any(|(long, _)| long == *name));
    none(spent.map(|name| (*name).to_owned()).collect(), "well done: take these off the list of exceptions");
}

#[test]
fn files_are_short() {
    let files = sources(&["src", "tests", "benches"]).into_iter().map(|source| (source.path, source.lines));
    let long = files.filter(|(_, lines)| *lines > FILE_LINES_MAX).collect();
    hold(long, LONG_FILES, "split the file by meaning: 400 lines without its tests are the most");
}

/// The functions of `code` that have a body: name and lines.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let bodies = words(code, "fn").filter_map(|at| {
        let item = &code[at..at + item_len(&code[at..])];
        let name = item[2..].trim_start();
        let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_')?];
        (!name.is_empty() && item.ends_with('}')).then(|| (name, item.lines().count()))
    });
    bodies.collect()
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    let mut seen = 0;
    for source in sources(&["src", "tests", "benches"]) {
        let functions = functions(&source.code);
        seen += functions.len();
        let found = functions.into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.extend(found.map(|(name, lines)| (format!("{}: {name}", source.path), lines)));
    }
    assert!(seen > 300, "only {seen} functions were found: the reader of functions is broken");
    hold(long, LONG_FUNCTIONS, "give a part of the function a name: 70 lines are the most");
}

#[test]
fn names_say_what_is_inside() {
    const EMPTY: [&str; 10] =
        ["util", "utils", "helper", "helpers", "prelude", "types", "common", "misc", "shared", "stuff"];
    let files = ["src", "tests", "benches"].iter().flat_map(|dir| walk(dir)).map(|path| relative(&path));
    let empty = files.filter(|path| path.split(['/', '.']).any(|name| EMPTY.contains(&name)));
    none(empty.collect(), "name the file after the one thing that it holds");
}

#[test]
fn nothing_is_called_frame() {
    let mut found = Vec::new();
    for source in sources(&["src"]) {
        for word in ["frame", "frames", "Frame", "Frames"] {
            for at in words(&source.code, word) {
                let allowed = FRAME_PHRASES.iter().any(|phrase| {
                    phrase.find("frame").is_some_and(|within| {
                        at.checked_sub(within).is_some_and(|from| source.code[from..].starts_with(phrase))
                    })
                });
                if !allowed {
                    found.push(format!("{}:{}", source.path, line_of(&source.code, at)));
                }
            }
        }
    }
    none(found, "say which one it is: capture, picture, tick, access unit, part, WebSocket message");
}

// Banned calls

/// A call or word that is banned in code, where it is allowed, and what to do instead.
struct Ban {
    words: &'static [&'static str],
    only_in: &'static [&'static str],
    tests_too: bool,
    advice: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        words: &["unsafe"],
        only_in: &["src/ffmpeg.rs", "src/heap.rs"],
        tests_too: true,
        advice: "`unsafe` stands in src/ffmpeg.rs and src/heap.rs only",
    },
    Ban {
        words: &["Instant::now", "SystemTime::now", "OffsetDateTime::now_utc", "OffsetDateTime::now_local", ".elapsed"],
        // A simulated bot keeps its own pace, by tokio's clock.
        only_in: &["src/clock.rs", "src/cli/simulate/bot.rs"],
        tests_too: false,
        advice: "take the time from the `Clock` that is passed in: tests move a simulated one",
    },
    Ban {
        words: &["unbounded", "unbounded_channel", "std::sync::mpsc", "UnboundedSender"],
        // The ready list holds each lane once, so the lanes, which are bounded by their memory, bound it.
        only_in: &["src/pipeline/schedule.rs"],
        tests_too: true,
        advice: "every queue is bounded and its full-rule has a name: crossbeam's `bounded`, `channel::Channel`",
    },
    Ban {
        words: &["thread::spawn"],
        only_in: &[],
        tests_too: false,
        advice: "threads have names: use `thread::Builder`, in the wiring of pipeline/",
    },
    Ban {
        words: &["thread::sleep"],
        only_in: &[],
        tests_too: true,
        advice: "nothing sleeps on a thread: wait for the event",
    },
    Ban {
        words: &[".unwrap"],
        only_in: &[],
        tests_too: false,
        advice: "return an error where the input is at fault; where it cannot be, `expect` states the invariant",
    },
    Ban { words: &["todo!", "unimplemented!", "dbg!"], only_in: &[], tests_too: true, advice: "finish it" },
    Ban { words: &["#[ignore"], only_in: &[], tests_too: true, advice: "a test runs, or it goes" },
];

#[test]
fn banned_calls_are_absent() {
    let sources = sources(&["src"]);
    for ban in BANS {
        let mut found = Vec::new();
        for source in sources.iter().filter(|source| !ban.only_in.contains(&&*source.path)) {
            let code = if ban.tests_too { &source.code } else { &source.product };
            found.extend(ban.words.iter().flat_map(|word| {
                words(code, word).map(move |at| format!("{}:{}: {word}", source.path, line_of(code, at)))
            }));
            let used =
                used_paths(code).into_iter().filter(|(_, path)| ban.words.iter().any(|word| path.starts_with(word)));
            found.extend(used.map(|(line, path)| format!("{}:{line}: {path}", source.path)));
        }
        none(found, ban.advice);
    }
}

#[test]
fn tests_and_benches_are_finished_too() {
    let mut found = Vec::new();
    for source in sources(&["tests", "benches"]) {
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore", "unsafe"] {
            found.extend(
                words(&source.code, word).map(|at| format!("{}:{}: {word}", source.path, line_of(&source.code, at))),
            );
        }
    }
    none(found, "finish it, or leave it out");
}

#[test]
fn unit_tests_do_not_sleep() {
    let mut found = Vec::new();
    for source in sources(&["src"]) {
        let in_tests = words(&source.code, "sleep").filter(|at| !source.product[*at..].starts_with("sleep"));
        found.extend(in_tests.map(|at| format!("{}:{}", source.path, line_of(&source.code, at))));
    }
    none(found, "move a simulated clock, or wait for the event itself");
}

#[test]
fn silenced_lints_have_a_reason() {
    let mut found = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        for (at, _) in ["[allow(", "[expect("].iter().flat_map(|head| source.code.match_indices(head)) {
            let end = at + item_end(&source.code[at..]);
            if words(&source.code[at..end], "reason").next().is_none() {
                found.push(format!("{}:{}", source.path, line_of(&source.code, at)));
            }
        }
    }
    none(found, "say why: #[expect(lint, reason = \"...\")]");
}

/// Bytes up to the bracket that closes the one that `code` begins with.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    let end = code.char_indices().find(|(_, c)| {
        depth += i32::from(matches!(c, '[' | '(')) - i32::from(matches!(c, ']' | ')'));
        depth == 0
    });
    end.map_or(code.len(), |(at, _)| at + 1)
}

#[test]
fn thread_names_are_whole() {
    // Linux keeps 15 bytes. A number in a name takes 3: `ingest-{n}` is `ingest-999`.
    let mut found = Vec::new();
    let mut seen = 0;
    for source in sources(&["src"]) {
        for head in [".name(", "thread_name(", "spawn("] {
            for (at, _) in source.product.match_indices(head) {
                let argument = source.text[at + head.len()..].trim_start();
                let argument = argument.strip_prefix("format!(").unwrap_or(argument);
                let Some(name) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
                seen += 1;
                let fixed: usize = name.split('{').map(|piece| piece.split('}').next_back().map_or(0, str::len)).sum();
                if fixed + 3 * name.matches('{').count() > 15 {
                    found.push(format!("{}:{}: {name}", source.path, line_of(&source.text, at)));
                }
            }
        }
    }
    assert!(seen >= 4, "only {seen} thread names were found: the reader of names is broken");
    none(found, "shorten the thread's name to 15 bytes");
}
