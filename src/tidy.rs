//! The house rules as a test: layer edges, pure folders, lengths of files, functions and lines.
//!
//! Lengths are a ratchet: what is longer today stands below with its length and may only shrink.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Each layer with the layers that it may name, besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("protocol", &["base"]),
    ("records", &["base"]),
    ("telemetry", &["base"]),
    ("peers", &["base", "protocol"]),
    ("log", &["base", "records"]),
    ("metadata", &["base", "protocol", "records"]),
    ("quorum", &["base", "protocol", "records", "log", "metadata"]),
    ("controller", &["base", "protocol", "metadata", "quorum"]),
    ("partition", &["base", "records", "telemetry", "log", "metadata"]),
    ("coordinator", &["base", "protocol", "records", "log", "metadata", "partition"]),
    (
        "broker",
        &[
            "base",
            "protocol",
            "records",
            "telemetry",
            "log",
            "metadata",
            "quorum",
            "controller",
            "partition",
            "coordinator",
            "peers",
            "handlers",
            "net",
        ],
    ),
    (
        "handlers",
        &[
            "base",
            "protocol",
            "records",
            "telemetry",
            "log",
            "metadata",
            "quorum",
            "controller",
            "partition",
            "coordinator",
            "peers",
            "broker",
        ],
    ),
    ("net", &["base", "protocol", "telemetry", "log", "broker", "handlers"]),
];

/// What starts the listeners looks up at `net`, and nothing else does.
const LOOKS_UP: &[(&str, &str)] = &[("broker/server.rs", "net"), ("broker/listeners.rs", "net")];

/// Folders and files that can be replayed: no tokio, no clock, no randomness.
const PURE: &[&str] = &[
    "base/config",
    "base/ids.rs",
    "protocol",
    "records",
    "metadata",
    "coordinator/group/",
    "partition/core.rs",
    "partition/follower.rs",
    "partition/isr.rs",
];
const IMPURE: &[&str] =
    &["tokio::", "async fn", "SystemTime::now", "Instant::now", "Uuid::new_v4", "now_ms()"];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt keeps code to 100; strings that it cannot break may be somewhat longer.
const LINE_COLUMNS_MAX: usize = 110;

/// Longer files, with their length at most.
const LONG_FILES: &[(&str, usize)] = &[];
/// Longer functions, with their length at most.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

struct Source {
    /// Below `src`, with `/`.
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below src").display().to_string();
                found.push(Source { name, text: fs::read_to_string(&path).expect("UTF-8") });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name == "tidy.rs"
}

/// The part of a file before its tests.
fn code(source: &Source) -> &str {
    let end = source.text.find("#[cfg(test)]").unwrap_or(source.text.len());
    &source.text[..end]
}

#[test]
fn arrows_point_down() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.name)) {
        let Some((layer, _)) = source.name.split_once('/') else { continue };
        let allowed = layers.get(layer).unwrap_or_else(|| panic!("{layer} is not in LAYERS"));
        for other in layers.keys().filter(|other| **other != layer && !allowed.contains(other)) {
            if names_layer(code(source), other)
                && !LOOKS_UP.contains(&(source.name.as_str(), other))
            {
                wrong.push(format!("{} names {other}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn names_layer(code: &str, layer: &str) -> bool {
    if code.contains(&format!("crate::{layer}::")) || code.contains(&format!("crate::{layer};")) {
        return true;
    }
    // `use crate::{ ... };`: a layer is named at depth one of the braces.
    code.split("use crate::{").skip(1).any(|rest| {
        let mut depth = 1;
        let mut item = String::new();
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => item.clear(),
                _ if depth == 1 && !c.is_whitespace() => item.push(c),
                _ => {}
            }
            if depth == 0 {
                return item == layer;
            }
            if item == format!("{layer}::") || (item == layer && depth > 1) {
                return true;
            }
        }
        false
    })
}

#[test]
fn pure_folders_are_pure() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.name)) {
        if !PURE.iter().any(|folder| source.name.starts_with(folder)) {
            continue;
        }
        for word in IMPURE.iter().filter(|word| code(source).contains(**word)) {
            wrong.push(format!("{} has {word}", source.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut wrong = Vec::new();
    for source in &sources() {
        let lines = source.text.lines().count();
        let allowed = LONG_FILES.iter().find(|(name, _)| *name == source.name);
        if lines > allowed.map_or(FILE_LINES_MAX, |(_, max)| *max) {
            wrong.push(format!("{}: {lines} lines", source.name));
        }
        for (number, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_COLUMNS_MAX {
                wrong.push(format!("{}:{}: a long line", source.name, number + 1));
            }
        }
        for (function, lines) in functions(&source.text) {
            let name = format!("{}:{function}", source.name);
            let allowed = LONG_FUNCTIONS.iter().find(|(long, _)| *long == name);
            if lines > allowed.map_or(FUNCTION_LINES_MAX, |(_, max)| *max) {
                wrong.push(format!("{name}: {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Names and lengths of functions. rustfmt's layout is relied on: a body ends at the first line
/// that is a closing brace as far in as the `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn "]
            .iter()
            .chain(&["pub const fn ", "pub(crate) fn ", "pub(super) fn "])
            .any(|prefix| code.starts_with(prefix));
        if !is_function || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let end = lines[start..].iter().position(|line| {
            line.len() == indent + 1 && line.ends_with('}') || line.trim_end() == ");"
        });
        let name = code.split("fn ").nth(1).unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default();
        found.push((name.to_owned(), end.unwrap_or(0) + 1));
    }
    found
}
