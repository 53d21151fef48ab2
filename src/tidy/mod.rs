//! Unit tests of the structure of this code: layers, circles of files, pure folders, and lengths of
//! files, functions and lines.
//!
//! Each table of exceptions may only shrink: an exception that is no longer needed fails its test.

mod imports;
mod source;
mod tests;

use std::{collections::BTreeSet, sync::LazyLock};

use imports::{Imports, circles, paths};
use source::{Function, Source, read_crate};

/// A file and the violation that is allowed in it.
type Exception = (&'static str, &'static str);

/// A file and its violation of a rule.
type Violation = (String, String);

/// The layers from bottom to top, each with the layers below it that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("protocol", &["base"]),
    ("records", &["base"]),
    ("telemetry", &["base"]),
    ("fetch_sessions", &["base"]),
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
            "fetch_sessions",
            "log",
            "metadata",
            "quorum",
            "controller",
            "partition",
            "coordinator",
            "peers",
        ],
    ),
    (
        "handlers",
        &[
            "base",
            "protocol",
            "records",
            "telemetry",
            "fetch_sessions",
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
    (
        "server",
        &[
            "base",
            "protocol",
            "telemetry",
            "peers",
            "log",
            "metadata",
            "quorum",
            "controller",
            "partition",
            "broker",
            "handlers",
            "net",
        ],
    ),
];

/// Files that name a layer above their own.
const UPWARD: &[Exception] = &[];

/// Imports of the second file by the first one that close a circle of files in `src`.
const CIRCULAR: &[Exception] = &[];

/// Folders and files whose code is deterministic: no tokio, no clock, no randomness.
const PURE: &[&str] = &[
    "base/config/",
    "base/ids.rs",
    "base/re2/",
    "protocol/",
    "records/",
    "metadata/",
    "coordinator/group/",
    "coordinator/txn/",
    "fetch_sessions/",
    "partition/append.rs",
    "partition/core.rs",
    "partition/follower.rs",
    "partition/isr.rs",
    "log/clean/filter.rs",
    "log/clean/keys.rs",
    "log/clean/map.rs",
    "log/clean/transactions.rs",
];
const IMPURE: &[&str] = &["tokio", "async", "SystemTime", "Instant", "new_v4", "rand"];
/// The module that gives access to the clock, randomness and blocking threads.
const IMPURE_MODULE: [&str; 2] = ["base", "environment"];
const NOT_PURE: &[Exception] = &[];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt limits code to 100 columns. Strings that it cannot break may be longer.
const LINE_COLUMNS_MAX: usize = 110;
/// The most fields that `Broker` may have. State belongs to one of its parts.
const BROKER_FIELDS_MAX: usize = 14;
const TOO_LONG: &[Exception] = &[];

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| read_crate("src"));

#[test]
fn layers_name_only_lower_layers() {
    assert_none(unexpected(upward_imports(&SOURCES), UPWARD));
}

#[test]
fn files_form_no_circles() {
    assert_none(import_circles(&SOURCES, CIRCULAR));
    assert_none(import_circles(&read_crate("compat-tests/simulation"), &[]));
}

#[test]
fn pure_folders_are_pure() {
    assert_none(unexpected(impurities(&SOURCES), NOT_PURE));
}

#[test]
fn release_has_no_test_tools() {
    let find = |name: &str| SOURCES.iter().find(|source| source.name == name).expect("it exists");
    for name in ["log/faulty.rs", "protocol/shape/sample.rs"] {
        assert!(find(name).code.is_empty(), "{name}");
    }
    assert!(!find("base/planted_bugs.rs").has("PLANTED"), "a bug can be planted");
    assert!(!find("base/environment.rs").has("SIMULATED"), "a machine can be simulated");
}

#[test]
fn files_functions_and_lines_are_short() {
    assert_none(unexpected(SOURCES.iter().flat_map(too_long).collect(), TOO_LONG));
}

#[test]
fn broker_has_few_fields() {
    assert_none(unexpected(SOURCES.iter().filter_map(too_many_fields).collect(), &[]));
    assert!(SOURCES.iter().any(|source| source.fields_of("Broker").is_some()));
}

#[track_caller]
fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns the violations without an exception, and the exceptions without a violation.
fn unexpected(found: Vec<Violation>, exceptions: &[Exception]) -> Vec<String> {
    let is_expected = |(file, what): &Violation| exceptions.contains(&(file, what));
    let is_needed = |exception: &&Exception| {
        found.iter().any(|(file, what)| (file.as_str(), what.as_str()) == **exception)
    };
    let mut wrong: Vec<String> = exceptions
        .iter()
        .filter(|exception| !is_needed(exception))
        .map(|(file, what)| format!("the exception \"{file}: {what}\" is not needed"))
        .collect();
    let unexpected = found.iter().filter(|violation| !is_expected(violation));
    wrong.extend(unexpected.map(|(file, what)| format!("{file}: {what}")));
    wrong
}

fn upward_imports(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.code.is_empty()) {
        let Some((layer, _)) = source.name.split_once('/') else { continue };
        let Some((_, lower)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            found.push((source.name.clone(), "belongs to no layer".to_owned()));
            continue;
        };
        let named: BTreeSet<_> =
            paths(source).into_iter().filter_map(|named| named.path.into_iter().next()).collect();
        for (other, _) in LAYERS.iter().filter(|(other, _)| named.contains(*other)) {
            if *other != layer && !lower.contains(other) {
                found.push((source.name.clone(), format!("names {other}")));
            }
        }
    }
    found
}

/// Returns the circles that remain without the excepted imports, and the exceptions that close no
/// circle.
fn import_circles(sources: &[Source], exceptions: &[Exception]) -> Vec<String> {
    let complete = Imports::new(sources).graph();
    let mut cut = complete.clone();
    for (from, to) in exceptions {
        cut.entry(from).or_default().remove(to);
    }
    let circles_with = |(from, to): Exception| {
        let mut graph = cut.clone();
        let is_import = complete.get(from).is_some_and(|named| named.contains(to));
        graph.entry(from).or_default().extend(is_import.then_some(to));
        circles(&graph)
    };
    let mut wrong: Vec<String> =
        circles(&cut).iter().map(|circle| format!("a circle: {circle:?}")).collect();
    let unneeded = exceptions.iter().filter(|import| circles_with(**import).is_empty());
    wrong.extend(unneeded.map(|import| format!("the exception {import:?} is not needed")));
    wrong
}

fn impurities(sources: &[Source]) -> Vec<Violation> {
    let module = IMPURE_MODULE.map(str::to_owned);
    let mut found = Vec::new();
    for source in sources {
        if !PURE.iter().any(|place| source.name.starts_with(place)) {
            continue;
        }
        for word in IMPURE.iter().filter(|word| source.has(word)) {
            found.push((source.name.clone(), format!("has {word}")));
        }
        if paths(source).iter().any(|named| named.path.starts_with(&module)) {
            found.push((source.name.clone(), format!("names {}", module.join("::"))));
        }
    }
    found
}

/// Returns the lengths in a file that exceed a limit: the file, its functions, its lines. Tests
/// count.
fn too_long(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!("has {lines} lines"));
    }
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            found.push(format!("line {} has {columns} columns", index + 1));
        }
    }
    let is_long = |function: &&Function| function.lines > FUNCTION_LINES_MAX;
    for Function { name, lines } in source.functions.iter().filter(is_long) {
        found.push(format!("{name} has {lines} lines"));
    }
    found.into_iter().map(|what| (source.name.clone(), what)).collect()
}

/// Returns the violation of a file whose struct `Broker` has too many fields.
fn too_many_fields(source: &Source) -> Option<Violation> {
    let fields = source.fields_of("Broker").filter(|fields| *fields > BROKER_FIELDS_MAX)?;
    Some((source.name.clone(), format!("Broker has {fields} fields")))
}
