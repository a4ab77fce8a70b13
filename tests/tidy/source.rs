//! Source files as the checks see them: what is code, what is a test, where a word stands. A reader of Rust's surface,
//! no parser: it knows comments, strings and brackets.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Comments, strings and characters blanked; every byte stays where it was.
    pub(crate) code: String,
    /// `code` without what is compiled for tests only; all blank in a file that is a test module.
    pub(crate) product: String,
    /// Lines that are not compiled for tests only.
    pub(crate) lines: usize,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir`, without what is built or fetched.
pub(crate) fn walk(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(dir)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() {
                found.push(path);
            } else if !["target", ".git", "node_modules", "vendor", "media", "spool", "demo"].contains(&&*name) {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

pub(crate) fn sources(dirs: &[&str]) -> Vec<Source> {
    let files = dirs.iter().flat_map(|dir| walk(dir)).filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    let mut sources: Vec<Source> = files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = blank_literals(&text);
            let product = blank_tests(&code);
            let tests = test_items(&code).iter().map(|item| text[item.clone()].lines().count()).sum::<usize>();
            Source { path: relative(&path), lines: text.lines().count() - tests, text, code, product }
        })
        .collect();
    let test_files: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in sources.iter_mut().filter(|source| test_files.contains(&source.path)) {
        (source.product, source.lines) = (blank(&source.code), 0);
    }
    assert!(!sources.is_empty(), "no sources below {dirs:?}");
    sources
}

/// The files of modules that are declared for tests only (`#[cfg(test)] mod tests;`).
pub(crate) fn test_modules(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let after = source.code.split("#[cfg(test)]").skip(1);
    let declared = after.filter_map(|text| text.split_once(';')?.0.trim().rsplit_once("mod ").map(|(_, name)| name));
    declared.filter(|name| is_word(name)).map(|name| format!("{folder}/{name}.rs")).collect()
}

pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

pub(crate) fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { "\n" } else { &"    "[..c.len_utf8()] }).collect()
}

/// Blanks comments, strings and characters.
pub(crate) fn blank_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let literal = literal_len(rest, out.chars().next_back());
        match literal {
            0 => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
            len => {
                out.push_str(&blank(&rest[..len]));
                rest = &rest[len..];
            }
        }
    }
    out
}

/// Bytes of the comment, string or character that `text` begins with; 0 for anything else.
pub(crate) fn literal_len(text: &str, before: Option<char>) -> usize {
    let end_of = |from: usize, mark: &str| text[from..].find(mark).map_or(text.len(), |at| from + at + mark.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return end_of(2, "*/");
    }
    // r"..", r#".."#, br"..": the letters before it must not end a longer word.
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = text.trim_start_matches(['b', 'c']);
    if !in_word && text.len() - raw.len() <= 1 && raw.starts_with('r') {
        let hashes = raw[1..].chars().take_while(|c| *c == '#').count();
        if raw[1 + hashes..].starts_with('"') {
            return end_of(text.len() - raw.len() + hashes + 2, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    let quoted = |quote: char| {
        let mut chars = text.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                c if c == quote => return at + 1,
                _ => {}
            }
        }
        text.len()
    };
    if text.starts_with('"') {
        return quoted('"');
    }
    // 'a' and '\n' are characters, 'a alone is a lifetime.
    let mut after = text.chars().skip(1);
    let is_char = text.starts_with('\'') && (after.next() == Some('\\') || after.next() == Some('\''));
    if is_char { quoted('\'') } else { 0 }
}

/// Where the items are that stand under `#[cfg(test)]`.
pub(crate) fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        if items.last().is_none_or(|item| item.end <= at) {
            items.push(at..at + item_len(&code[at..]));
        }
    }
    items
}

pub(crate) fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    test_items(code).into_iter().for_each(|item| out.replace_range(item.clone(), &blank(&code[item])));
    out
}

/// Bytes up to the end of the item that `code` begins with: its `;`, or the brace that closes it.
pub(crate) fn item_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    code.len()
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands on its own: it begins and ends where a name of the code does.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let goes_on = move |before: &str, after: &str| part(before.chars().next_back()) && part(after.chars().next());
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let (before, rest) = code.split_at(*at);
        let (word, after) = rest.split_at(word.len());
        !goes_on(before, word) && !goes_on(word, after)
    })
}

/// Fails with every place and what to do about it.
#[track_caller]
pub(crate) fn none(found: Vec<String>, advice: &str) {
    assert!(found.is_empty(), "{advice}:\n  {}\n", found.join("\n  "));
}
