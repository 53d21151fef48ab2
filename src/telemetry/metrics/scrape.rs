//! Metric families in the text format of Prometheus.

use super::histogram::{BOUNDS, Histogram};
use indexmap::IndexMap;
use std::fmt::Write;

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Estimated bytes of a family besides its samples.
const HEAD_LEN: usize = 200;

/// The families that one scrape collects. They are in the order of their first use. Each is written
/// once, even if several collectors add samples to it.
#[derive(Debug, Default)]
pub struct Scrape {
    families: IndexMap<String, Written>,
}

#[derive(Debug)]
struct Written {
    help: String,
    kind: Kind,
    samples: String,
}

/// Labels in text form, for labels that many families share.
#[derive(Debug)]
pub struct Labels(String);

impl Labels {
    pub fn new(labels: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        write_labels(&mut text, labels.iter().copied());
        Self(text)
    }
}

/// A family to which samples are added.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    samples: &'a mut String,
}

impl Scrape {
    /// Starts or continues a family. Help and kind of the first call stay. A family without samples
    /// is not written.
    pub fn family<'a>(&'a mut self, name: &'a str, help: &str, kind: Kind) -> Family<'a> {
        debug_assert!(is_name(name), "{name} is not a metric's name");
        if !self.families.contains_key(name) {
            let written = Written { help: help.to_string(), kind, samples: String::new() };
            self.families.insert(name.to_string(), written);
        }
        let written = self.families.get_mut(name).expect("inserted above");
        debug_assert_eq!(written.kind, kind, "{name} has one kind");
        Family { name, samples: &mut written.samples }
    }

    /// Adds one sample of a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, Kind::Gauge).sample(labels, value);
    }

    /// Adds one sample of a counter.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, Kind::Counter).sample(labels, value);
    }

    /// Adds a histogram of durations, in seconds.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram,
    ) {
        let snapshot = histogram.snapshot();
        let family = self.family(name, help, Kind::Histogram);
        let mut add = |suffix: &str, bound: Option<&str>, value: f64| {
            let bound = bound.map(|bound| ("le", bound));
            write_sample(
                family.samples,
                &[name, suffix],
                labels.iter().copied().chain(bound),
                value,
            );
        };
        for ((_, bound), count) in BOUNDS.iter().zip(snapshot.up_to) {
            add("_bucket", Some(bound), count as f64);
        }
        add("_bucket", Some("+Inf"), snapshot.count as f64);
        add("_sum", None, snapshot.sum_seconds);
        add("_count", None, snapshot.count as f64);
    }

    /// The text of all families, as Prometheus reads it.
    pub fn into_text(self) -> String {
        let mut text = String::new();
        self.write_to(&mut text);
        text
    }

    pub(super) fn write_to(&self, out: &mut String) {
        out.reserve(self.families.values().map(|family| family.samples.len() + HEAD_LEN).sum());
        for (name, written) in &self.families {
            if written.samples.is_empty() {
                continue;
            }
            let help = written.help.replace('\\', "\\\\").replace('\n', "\\n");
            let kind = written.kind.name();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            out.push_str(&written.samples);
        }
    }
}

impl Family<'_> {
    /// Adds a sample. Label values may contain any characters.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        write_sample(self.samples, &[self.name], labels.iter().copied(), value);
    }

    pub fn sample_of(&mut self, labels: &Labels, value: f64) {
        self.samples.extend([self.name, &labels.0]);
        write_value(self.samples, value);
    }
}

fn write_sample<'a>(
    out: &mut String,
    name: &[&str],
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    value: f64,
) {
    out.extend(name.iter().copied());
    write_labels(out, labels);
    write_value(out, value);
}

fn write_labels<'a>(out: &mut String, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut opening = '{';
    for (label, value) in labels {
        out.push(opening);
        out.push_str(label);
        out.push_str("=\"");
        write_escaped(out, value);
        out.push('"');
        opening = ',';
    }
    if opening == ',' {
        out.push('}');
    }
}

fn write_value(out: &mut String, value: f64) {
    /// A float represents all integers below this exactly.
    const EXACT: f64 = (1_u64 << 53) as f64;
    let _ = match value {
        f64::INFINITY => writeln!(out, " +Inf"),
        f64::NEG_INFINITY => writeln!(out, " -Inf"),
        // Most values are integers, which are printed much faster than floats.
        whole if whole.fract() == 0.0 && whole.abs() < EXACT => writeln!(out, " {}", whole as i64),
        // `Display` writes no exponent.
        _ => writeln!(out, " {value}"),
    };
}

fn write_escaped(out: &mut String, value: &str) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        return out.push_str(value);
    }
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(is_start)
        && name.bytes().all(|byte| is_start(byte) || byte.is_ascii_digit())
}
