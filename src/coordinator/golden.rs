//! Golden scripts for the tests of state machines. A script (`testscripts/*.txt`) has commands,
//! `---`, and the effects that the commands print. `UPDATE_GOLDEN=1` rewrites the effects.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

/// A state machine that a script controls.
pub trait Machine: Default {
    /// Runs a command.
    fn command(&mut self, line: &str);
    /// Takes what the commands have printed.
    fn take_output(&mut self) -> String;
}

/// Runs all scripts of a folder, and compares their effects.
pub fn check_scripts<M: Machine>(folder: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = run::<M>(&expected);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &actual).unwrap();
        } else {
            assert_eq!(actual, expected, "{} differs; UPDATE_GOLDEN=1 rewrites", path.display());
        }
    }
}

/// Returns a script with the effects of its commands.
fn run<M: Machine>(script: &str) -> String {
    let mut machine = M::default();
    let mut result = String::new();
    let mut expecting_output = false;
    for line in script.lines() {
        if expecting_output {
            if line.is_empty() {
                result.push('\n');
                expecting_output = false;
            }
            continue;
        }
        result.push_str(line);
        result.push('\n');
        if line == "---" {
            result.push_str(&machine.take_output());
            expecting_output = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            machine.command(line);
        }
    }
    result
}

/// The arguments of a command: plain words, and `key=value`.
pub struct Words<'a> {
    pub plain: Vec<&'a str>,
    pub named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub fn new(words: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self { plain: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => {
                    parsed.named.insert(key, value);
                }
                None => parsed.plain.push(word),
            }
        }
        parsed
    }

    pub fn text(&self, key: &str, default: &'a str) -> Arc<str> {
        self.named.get(key).copied().unwrap_or(default).into()
    }

    pub fn option(&self, key: &str) -> Option<Arc<str>> {
        self.named.get(key).map(|text| (*text).into())
    }

    pub fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, key: &str, default: T) -> T {
        self.named.get(key).map_or(default, |text| text.parse().unwrap())
    }
}

/// Parses a topic and its partitions, such as `t:0+2`.
pub fn places(word: &str) -> (Arc<str>, Vec<i32>) {
    let (topic, partitions) = word.split_once(':').unwrap();
    (topic.into(), partitions.split('+').map(|index| index.parse().unwrap()).collect())
}
