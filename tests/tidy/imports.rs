//! Who may import whom.

use super::source::{blank, blank_literals, blank_tests, item_len, line_of, none, sources, words};

/// The stages, in the order of the flow: each may import the one before it.
const STAGES: [&str; 5] = ["ingest", "timeline", "encode", "package", "store"];

const IMPORT_RULES: &str = "BASE imports BASE; a stage imports BASE, itself and the stage before it; pipeline/*.rs imports \
    BASE and the stages; http and cli import pipeline, cli also http. Move the type to the layer that both may import, \
    or hand the value over in pipeline/";

/// The paths of a `use` tree: `a::{b, c::{self, d}}` is a::b, a::c::self, a::c::d.
fn flatten(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let mut depth = 0;
    let branches = tree.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for branch in branches.map(str::trim).filter(|branch| !branch.is_empty()) {
        match branch.split_once('{') {
            Some((head, tail)) => {
                let inner = tail.rsplit_once('}').map_or(tail, |(inner, _)| inner);
                flatten(inner, &format!("{prefix}{}", head.replace(char::is_whitespace, "")), paths);
            }
            None => {
                let name = branch.split_whitespace().next().unwrap_or_default();
                paths.push(format!("{prefix}{name}"));
            }
        }
    }
}

/// Every path that `code` uses, with its line: the whole of each `use`, and `crate::..` and `super::..` elsewhere.
pub(crate) fn used_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut rest = code.to_owned();
    for at in words(code, "use") {
        let end = at + item_len(&code[at..]);
        let tree = code[at + 3..end].trim_end_matches(';');
        let mut paths = Vec::new();
        flatten(tree, "", &mut paths);
        found.extend(paths.into_iter().map(|path| (line_of(code, at), path)));
        rest.replace_range(at..end, &blank(&code[at..end]));
    }
    for head in ["crate", "super"] {
        for at in words(&rest, head).filter(|at| !rest[..*at].ends_with("::")) {
            let path: String =
                rest[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            if path.contains("::") {
                found.push((line_of(&rest, at), path));
            }
        }
    }
    found
}

/// `src/pipeline/ingest/png.rs` is pipeline, ingest, png.
fn module_of(path: &str) -> Vec<&str> {
    let mut module: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib" | "main"))) {
        module.pop();
    }
    module
}

/// The absolute form of a used path; `None` for other crates and for names that are already in scope.
fn resolve<'a>(from: &[&'a str], path: &'a str, modules: &[Vec<&str>]) -> Option<Vec<&'a str>> {
    let mut segments = path.split("::").peekable();
    let mut module = match *segments.peek()? {
        "crate" | "tilecast" => Vec::new(),
        "super" | "self" => from.to_vec(),
        name => {
            let child = [from, &[name]].concat();
            modules.contains(&child).then(|| from.to_vec())?
        }
    };
    for segment in segments {
        match segment {
            "crate" | "tilecast" | "self" | "*" => {}
            "super" => drop(module.pop()),
            name => module.push(name),
        }
    }
    Some(module)
}

fn layer<'a>(module: &[&'a str]) -> &'a str {
    match module {
        [] => "root",
        ["pipeline", stage, ..] if STAGES.contains(stage) => stage,
        ["pipeline", ..] => "pipeline",
        ["http", ..] => "http",
        ["cli", ..] => "cli",
        _ => "base",
    }
}

fn may_import(from: &str, to: &str) -> bool {
    let stage = |name: &str| STAGES.iter().position(|stage| *stage == name);
    match (from, to) {
        ("root", _) | (_, "base") => true,
        (_, "root") => false,
        _ if from == to => true,
        ("cli", "http") => true,
        ("cli" | "http", "pipeline") => true,
        ("cli" | "http" | "pipeline", to) => stage(to).is_some(),
        _ => matches!((stage(from), stage(to)), (Some(from), Some(to)) if from == to + 1),
    }
}

#[test]
fn imports_follow_the_flow() {
    let sources = sources(&["src"]);
    let modules: Vec<_> = sources.iter().map(|source| module_of(&source.path)).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in &sources {
        let from = module_of(&source.path);
        for (line, path) in used_paths(&source.product) {
            let Some(to) = resolve(&from, &path, &modules) else { continue };
            seen += 1;
            if !may_import(layer(&from), layer(&to)) {
                wrong.push(format!("{}:{line}: {} imports {path}, of {}", source.path, layer(&from), layer(&to)));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: the reader of imports is broken");
    none(wrong, IMPORT_RULES);
}

#[test]
fn the_reader_of_imports_reads_what_rust_reads() {
    let text = "use crate::a::{\n    b,\n    c::{self, d as e},\n};\nfn f(x: &super::super::g::H) { /* crate::no */ \"crate::no\"; }\n\
        use std::sync::mpsc;\n#[cfg(test)]\nmod tests { use crate::http::App; }\npub(crate) use k::*;\n";
    let paths: Vec<_> = used_paths(&blank_tests(&blank_literals(text)))
        .into_iter()
        .map(|(line, path)| format!("{line} {path}"))
        .collect();
    let wanted = [
        "1 crate::a::b",
        "1 crate::a::c::self",
        "1 crate::a::c::d",
        "6 std::sync::mpsc",
        "9 k::*",
        "5 super::super::g::H",
    ];
    assert_eq!(paths, wanted);
    let from = ["pipeline", "store"];
    let modules = [vec!["pipeline", "store", "keys"]];
    let resolved = |path| resolve(&from, path, &modules).map(|module| module.join("/"));
    for (path, wanted) in [
        ("super::package::boxes", Some("pipeline/package/boxes")),
        ("keys::track", Some("pipeline/store/keys/track")),
        ("self::keys", Some("pipeline/store/keys")),
        ("super::super::http", Some("http")),
        ("crate::media::Tick", Some("media/Tick")),
        ("png::Decoder", None),
    ] {
        assert_eq!(resolved(path).as_deref(), wanted, "{path}");
    }
}

#[test]
fn layers_may_import_what_is_below_them() {
    for (from, to, may) in [
        ("base", "base", true),
        ("base", "pipeline", false),
        ("ingest", "base", true),
        ("timeline", "ingest", true),
        ("ingest", "timeline", false),
        ("store", "package", true),
        ("store", "encode", false),
        ("encode", "pipeline", false),
        ("pipeline", "store", true),
        ("pipeline", "http", false),
        ("http", "ingest", true),
        ("http", "cli", false),
        ("cli", "http", true),
        ("cli", "root", false),
        ("root", "cli", true),
    ] {
        assert_eq!(may_import(from, to), may, "{from} -> {to}");
    }
}

#[test]
fn modules_have_files_of_their_own() {
    let inline = sources(&["src"]).into_iter().flat_map(|source| {
        let at = words(&source.product, "mod").filter(|at| {
            let item = &source.product[*at..];
            item[..item_len(item)].ends_with('}')
        });
        at.map(|at| format!("{}:{}", source.path, line_of(&source.product, at))).collect::<Vec<_>>()
    });
    none(inline.collect(), "a module stands in its own file (the check of imports relies on it)");
}
