//! Patterns in the syntax of RE2/J 1.8, with which Apache Kafka 4.3.1 compiles the patterns of
//! clients. A pattern must match a whole text.
//!
//! `parser.rs` reads the syntax. Crate `regex-automata` compiles the parsed expression and matches
//! in time linear in the text. What clients can make a pattern cost is bounded: the length of its
//! text, the levels of its expression, the ranges of its classes, and its compiled size.

mod class;
mod cursor;
mod parser;
#[cfg(test)]
mod tests;

use regex_automata::{Anchored, Input, meta::Regex, nfa::thompson::WhichCaptures};
use regex_syntax::hir::{Hir, Look};

/// The most bytes of a pattern: the longest string of a record in `__consumer_offsets`.
const PATTERN_BYTES_MAX: usize = i16::MAX as usize;
/// The most bytes of the compiled states of a pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// The most bytes of states of the lazy DFA that a thread keeps. With fewer, large patterns match a
/// thousand times slower.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern. Fails if RE2/J would refuse it, and if it exceeds a bound.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let expression = parser::parse(pattern)?;
        let (start, end) = (Hir::look(Look::Start), Hir::look(Look::End));
        let config = Regex::config()
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(COMPILED_BYTES_MAX))
            .hybrid_cache_capacity(CACHE_BYTES_MAX);
        let whole = Hir::concat(vec![start, expression, end]);
        // An expression that the parser has accepted fails only because of its size.
        let compiled = Regex::builder().configure(config).build_from_hir(&whole);
        compiled.map(Self).map_err(|_| PatternError::TooLarge)
    }

    /// Whether the pattern matches the whole text, as `Matcher.matches` of RE2/J.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(Input::new(text).anchored(Anchored::Yes))
    }
}

/// The reason why a pattern is refused. Its text is the description in RE2/J's
/// `PatternSyntaxException`, which Kafka puts into its error messages. RE2/J does not have the last
/// three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("invalid character class range")]
    InvalidClassRange,
    #[error("invalid escape sequence")]
    InvalidEscape,
    #[error("invalid named capture")]
    InvalidGroupName,
    #[error("duplicate capture group name")]
    DuplicateGroupName,
    #[error("invalid or unsupported Perl syntax")]
    InvalidPerlSyntax,
    #[error("invalid nested repetition operator")]
    RepeatedRepetition,
    #[error("invalid repeat count")]
    InvalidRepeatCount,
    #[error("missing argument to repetition operator")]
    NothingToRepeat,
    #[error("missing closing ]")]
    UnclosedClass,
    #[error("missing closing )")]
    UnclosedGroup,
    /// A closing parenthesis without an opening one.
    #[error("regexp/syntax: internal error")]
    UnopenedGroup,
    #[error("trailing backslash at end of expression")]
    TrailingBackslash,
    #[error("pattern is longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    #[error("expression is nested too deeply")]
    NestedTooDeeply,
    #[error("expression is too large")]
    TooLarge,
}
