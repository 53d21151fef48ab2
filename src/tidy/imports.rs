//! The graph of imports between files, and the circles in it.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token, is_name};

/// A path from the crate's root: `crate::log::disk::Disk` is `log`, `disk`, `Disk`.
type Path = Vec<String>;

/// For each file, the other files that define items that it names.
pub type Graph<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub struct Imports<'a> {
    /// Files by module path, such as `log`, `disk`.
    files: BTreeMap<Path, &'a Source>,
    /// For each module, the paths that `use` brings into it, with their local names. A glob has the
    /// name `*`.
    uses: BTreeMap<Path, Vec<(String, Path)>>,
}

impl<'a> Imports<'a> {
    pub fn new(sources: &'a [Source]) -> Self {
        let files: BTreeMap<_, _> =
            sources.iter().map(|source| (source.module(), source)).collect();
        let uses = files.iter().map(|(module, source)| (module.clone(), uses_of(source))).collect();
        Self { files, uses }
    }

    /// Builds the graph. If a name comes through a `pub use` of another file, the edge goes to the
    /// file that defines it, not to the file with the `pub use`.
    pub fn graph(&self) -> Graph<'a> {
        let named_by = |source: &Source| {
            paths(source)
                .iter()
                .filter(|named| !named.passed_on)
                .filter_map(|named| self.definer(&named.path, &mut Vec::new()))
                .filter(|file| *file != source.name)
                .collect()
        };
        self.files.values().map(|source| (source.name.as_str(), named_by(source))).collect()
    }

    /// Returns the file that defines the item that `path` names.
    fn definer(&self, path: &[String], seen: &mut Vec<Path>) -> Option<&'a str> {
        if seen.iter().any(|one| one == path) {
            return None;
        }
        seen.push(path.to_vec());
        let length = (1..=path.len()).rev().find(|end| self.files.contains_key(&path[..*end]))?;
        let (module, rest) = path.split_at(length);
        let file = self.files[module];
        let Some(name) = rest.first() else { return Some(&file.name) };
        let uses = &self.uses[module];
        if let Some((_, target)) = uses.iter().find(|(bound, _)| bound == name) {
            let target = [target.as_slice(), &rest[1..]].concat();
            return self.definer(&target, seen);
        }
        if file.defines(name) {
            return Some(&file.name);
        }
        uses.iter()
            .filter(|(bound, _)| bound == "*")
            .find_map(|(_, target)| {
                let target = [target.as_slice(), rest].concat();
                self.definer(&target, seen)
            })
            .or(Some(&file.name))
    }
}

impl Source {
    fn defines(&self, name: &str) -> bool {
        const ITEMS: &[&str] =
            &["struct", "enum", "fn", "type", "const", "static", "trait", "union", "mod"];
        self.code
            .windows(2)
            .any(|pair| pair[1].text == name && ITEMS.contains(&pair[0].text.as_str()))
    }
}

/// A path that a file names.
pub struct Named {
    pub path: Path,
    /// Its local name, if a `use` brings it into the module.
    bound: Option<String>,
    /// Whether the file only re-exports it with a `pub use` and does not use it.
    passed_on: bool,
}

fn uses_of(source: &Source) -> Vec<(String, Path)> {
    paths(source).into_iter().filter_map(|named| Some((named.bound?, named.path))).collect()
}

/// Returns every path within this crate that the production code of a file names.
pub fn paths(source: &Source) -> Vec<Named> {
    let children = source.children();
    let module = source.module();
    let code = &source.code;
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let is_use = code[at].text == "use";
        let start = at + usize::from(is_use);
        let continues = at > 1 && code[at - 2..at].iter().all(|token| token.text == ":");
        if !is_use && (continues || !is_name(&code[at].text) || !precedes_path(code, at)) {
            at += 1;
            continue;
        }
        let base = match code[start].text.as_str() {
            "crate" => Some([].as_slice()),
            "self" | "super" => Some(module.as_slice()),
            name if children.iter().any(|child| child == name) => Some(module.as_slice()),
            _ => None,
        };
        let mut named = Vec::new();
        let end = walk(code, start, base.unwrap_or_default(), &mut named);
        if is_use {
            let is_public = at > 0 && ["pub", ")"].contains(&code[at - 1].text.as_str());
            named.iter_mut().for_each(|one| one.passed_on = is_public && !is_named(source, one));
        } else {
            named.iter_mut().for_each(|one| one.bound = None);
        }
        if base.is_some() {
            found.append(&mut named);
        }
        at = end;
    }
    found
}

/// Whether a file uses an imported name outside its `use`.
fn is_named(source: &Source, named: &Named) -> bool {
    let is_name = |token: &&Token| Some(&token.text) == named.bound.as_ref();
    source.code.iter().filter(is_name).count() > 1
}

fn precedes_path(code: &[Token], at: usize) -> bool {
    let is_colon = |at: usize| code.get(at).is_some_and(|token| token.text == ":");
    is_colon(at + 1) && is_colon(at + 2)
}

/// Adds to `found` the path, or the tree of paths in braces, that starts at token `at` and is
/// relative to `base`. Returns the index after it.
fn walk(code: &[Token], mut at: usize, base: &[String], found: &mut Vec<Named>) -> usize {
    let mut path = base.to_vec();
    loop {
        match code[at].text.as_str() {
            "{" => {
                at += 1;
                while code[at].text != "}" {
                    at = walk(code, at, &path, found);
                    at += usize::from(code[at].text == ",");
                }
                return at + 1;
            }
            "crate" | "self" => {}
            "super" => drop(path.pop()),
            name if is_name(name) || name == "*" => path.push(name.to_owned()),
            // A turbofish or a leading `::` is not part of an import.
            _ => return at + 1,
        }
        if !precedes_path(code, at) {
            break;
        }
        at += 3;
    }
    at += 1;
    let mut bound = path.last().cloned();
    if code.get(at).is_some_and(|token| token.text == "as") {
        bound = Some(code[at + 1].text.clone());
        at += 2;
    }
    path.pop_if(|last| last == "*");
    found.push(Named { path, bound, passed_on: false });
    at
}

/// Returns the circles: groups of files, each of which reaches every other one of its group.
/// Imports between a module and the files in its own folder are allowed and do not count.
pub fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for circle in groups(graph) {
        let top = circle.iter().find(|top| circle.iter().all(|file| is_above(top, file)));
        match top {
            None => found.push(circle.iter().map(|file| (*file).to_owned()).collect()),
            Some(top) => {
                let rest: Vec<&str> = circle.iter().copied().filter(|file| file != top).collect();
                found.extend(circles(&within(graph, &rest)));
            }
        }
    }
    found
}

fn is_above(top: &str, file: &str) -> bool {
    let folder = top.trim_end_matches(".rs");
    let folder = folder.strip_suffix("mod").unwrap_or(folder);
    ["main.rs", file].contains(&top)
        || file.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the graph of only these files.
fn within<'a>(graph: &Graph<'a>, files: &[&'a str]) -> Graph<'a> {
    let is_kept = |file: &&&str| files.contains(*file);
    graph
        .iter()
        .filter(|(file, _)| is_kept(file))
        .map(|(file, named)| (*file, named.iter().filter(is_kept).copied().collect()))
        .collect()
}

/// Returns groups of at least two files, each of which reaches every other one of its group.
fn groups<'a>(graph: &Graph<'a>) -> BTreeSet<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (*file, reach(graph, file))).collect();
    reached
        .iter()
        .map(|(file, others)| {
            others.iter().copied().filter(|other| reached[other].contains(file)).collect()
        })
        .filter(|group: &Vec<&str>| group.len() > 1)
        .collect()
}

fn reach<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = graph[from].iter().copied().collect();
    while let Some(file) = waiting.pop() {
        if reached.insert(file) {
            waiting.extend(&graph[file]);
        }
    }
    reached
}
