//! What goes with the code: README, change log, manifest.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;

use clap::Args as _;

use super::source::{line_of, none, relative, root, walk};

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The option table of the README: as the code says it.
fn options() -> String {
    let command = tilecast::config::Config::augment_args(clap::Command::new("serve"));
    let mut table = "| flag | environment | default | meaning |\n|---|---|---|---|\n".to_owned();
    for arg in command.get_arguments() {
        let text = |value: Option<&OsStr>| value.map(|value| value.to_string_lossy().into_owned());
        let flag = arg.get_long().unwrap_or_else(|| panic!("{} has no flag", arg.get_id()));
        let environment = text(arg.get_env()).unwrap_or_else(|| panic!("--{flag} has no environment variable"));
        let wanted = format!("TILECAST_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(environment, wanted, "the variable of --{flag} is its flag in capitals");
        let is_switch = !arg.get_action().takes_values();
        let default =
            arg.get_default_values().iter().filter_map(|value| text(Some(value))).collect::<Vec<_>>().join(",");
        let help = arg.get_help().unwrap_or_else(|| panic!("--{flag} does not say what it does")).to_string();
        // Where the default depends on the machine, the help text says it.
        let (meaning, said) = match help.split_once(" [default: ") {
            Some((meaning, said)) => (meaning, said.trim_end_matches(']')),
            None => (help.as_str(), ""),
        };
        let value = arg.get_value_names().filter(|_| !is_switch).and_then(|names| names.first());
        let value = value.map(|name| format!(" {name}")).unwrap_or_default();
        let default = match (default.is_empty() || is_switch, said) {
            (false, _) => format!("`{default}`"),
            (true, said) => said.to_owned(),
        };
        let values = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>();
        let values = if values.is_empty() || is_switch { String::new() } else { format!(": {}", values.join(", ")) };
        writeln!(table, "| `--{flag}{value}` | `{environment}` | {default} | {meaning}{values} |").unwrap();
    }
    table
}

#[test]
fn readme_and_code_name_the_same_options() {
    let readme = read("README.md");
    let between = readme.split_once("<!-- options -->\n").and_then(|(_, rest)| rest.split_once("<!-- /options -->"));
    let written = between.expect("README.md has `<!-- options -->` and `<!-- /options -->` on lines of their own").0;
    let wanted = options();
    let missing = |from: &str, of: &str| {
        of.lines().filter(|line| !from.lines().any(|other| other == *line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let table = format!("put this between the markers of README.md:\n\n{wanted}");
    none(missing(written.trim(), &wanted), &format!("{table}\nlines that README.md lacks"));
    none(missing(&wanted, written.trim()), &format!("{table}\nlines of README.md that are no options"));
    assert_eq!(written.trim(), wanted.trim(), "{table}");
}

#[test]
fn the_changelog_has_a_place_for_what_comes_next() {
    assert!(
        read("CHANGELOG.md").lines().any(|line| line.trim_start_matches(['#', ' ', '[']).starts_with("Unreleased")),
        "CHANGELOG.md needs a section `## Unreleased`; what users notice goes there"
    );
}

#[test]
fn the_manifest_says_what_the_program_is() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = manifest["package"].as_table().unwrap();
    for (key, wanted) in [("edition", Some("2024")), ("rust-version", None), ("license", None), ("description", None)] {
        let value = package.get(key).and_then(toml::Value::as_str);
        assert!(value.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value)), "Cargo.toml: set `{key}`");
    }
}

/// The folders of the root that every system has; others are somebody's own.
const SYSTEM_FOLDERS: [&str; 17] = [
    "bin", "boot", "dev", "etc", "lib", "lib64", "media", "opt", "proc", "run", "sbin", "srv", "sys", "tmp", "usr",
    "var", "mnt",
];

#[test]
fn nothing_names_a_folder_of_somebodys_machine() {
    let mut found = Vec::new();
    // The folder of the root that this copy of the code lies in.
    let own = root().components().nth(1).map(|folder| folder.as_os_str().to_string_lossy().into_owned());
    let own = own.filter(|own| !SYSTEM_FOLDERS.contains(&&**own)).unwrap_or_default();
    for path in walk(".") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = name.rsplit('.').next().unwrap_or_default();
        if !["md", "rs", "toml", "sh", "js", "html", "css", "yml", "yaml", "Makefile"].contains(&kind) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices('/') {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '(' | '=' | '<' | ':')) {
                continue;
            }
            let folder = &text[at + 1..];
            let folder = &folder[..folder.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(folder.len())];
            if folder.is_empty() {
                continue;
            }
            if ["home", "root", "Users"].contains(&folder) || folder == own {
                found.push(format!("{}:{}: /{folder}", relative(&path).trim_start_matches("./"), line_of(&text, at)));
            }
        }
    }
    none(found, "say it without the path of one machine");
}

/// The committed description of the API. `make openapi` writes it again.
const OPENAPI: &str = "docker/openapi.json";

#[test]
fn the_committed_description_of_the_api_is_the_served_one() {
    let text = tilecast::http::description::text();
    if std::env::var_os("TILECAST_WRITE_OPENAPI").is_some() {
        fs::write(root().join(OPENAPI), text).unwrap();
    }
    let committed = fs::read_to_string(root().join(OPENAPI)).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).position(|(theirs, ours)| theirs != ours);
    assert!(committed == text, "{OPENAPI}, line {:?}: not what the code says; `make openapi` writes it again", differs);
}

#[test]
fn every_route_is_described() {
    // What speaks no JSON: the bots' sockets, and the page with its files.
    const OTHERS: [&str; 5] = ["/ws/recall", "/ws/recall/", "/ws/recall/{key}", "/ws/recall/{key}/", "/metrics"];
    let described: serde_json::Value = serde_json::from_str(tilecast::http::description::text()).unwrap();
    let mut described: Vec<&str> = described["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    described.sort_unstable();
    let router = read("src/http/mod.rs");
    let routes = router.split(".route(").skip(1).map(|rest| rest.split('"').nth(1).expect("a route is a literal"));
    let routes = routes.map(|route| route.replace("{*", "{")).filter(|route| !OTHERS.contains(&&**route));
    let routes: std::collections::BTreeSet<String> = routes.collect();
    assert_eq!(routes.into_iter().collect::<Vec<_>>(), described);
}
