use std::{collections::BTreeMap, thread};

use serde::Deserialize;

use super::*;

/// What RE2/J 1.8 makes of a pattern: the texts with whether it matches them, or why it is refused.
#[derive(Deserialize)]
#[serde(untagged)]
enum Judgement {
    Matches(BTreeMap<String, bool>),
    Error(String),
}

/// `compat-tests/test_patterns.py` compares the file with RE2/J.
const GOLDEN: &str = include_str!("../../../compat-tests/golden/patterns.jsonl");

#[test]
fn patterns_match_and_are_refused_as_by_re2j() {
    for line in GOLDEN.lines() {
        let (pattern, expected): (String, Judgement) =
            serde_json::from_str(line).expect("a pattern and a judgement");
        match (Pattern::new(&pattern), expected) {
            (Ok(compiled), Judgement::Matches(texts)) => {
                for (text, matches) in texts {
                    assert_eq!(compiled.matches(&text), matches, "{pattern:?} {text:?}");
                }
            }
            (Err(error), Judgement::Error(expected)) => {
                assert_eq!(error.to_string(), expected, "{pattern:?}");
            }
            (Ok(_), Judgement::Error(_)) => panic!("{pattern:?} is accepted"),
            (Err(error), Judgement::Matches(_)) => panic!("{pattern:?}: {error}"),
        }
    }
}

#[test]
fn all_categories_and_scripts_have_characters() {
    for name in class::CATEGORIES.iter().chain(class::SCRIPTS).chain(&["Any", "C", "Co", "Unknown"])
    {
        let class = class::property(name).expect("a known name");
        assert!(!class.ranges().is_empty(), "{name}");
    }
}

/// `docs/compatibility.md` lists these differences.
#[test]
fn faults_of_re2j_are_missing() {
    for (pattern, text, matches) in [
        ("(?i)\u{1C80}", "\u{412}", true),
        (r"(?i)[a-\x{2000}]", "A", true),
        (r"(?i:b\d)|B", "B", true),
        (r"(?i:b\d)|B", "b", false),
    ] {
        let compiled = Pattern::new(pattern).expect("a valid pattern");
        assert_eq!(compiled.matches(text), matches, "{pattern} {text}");
    }
}

#[track_caller]
fn assert_refused(pattern: &str, expected: PatternError) {
    assert_eq!(Pattern::new(pattern).err(), Some(expected), "{pattern:.40}");
}

#[track_caller]
fn assert_accepted(pattern: &str) {
    assert_eq!(Pattern::new(pattern).err(), None, "{pattern:.40}");
}

#[test]
fn length_of_a_pattern_is_bounded() {
    let class = |bytes: usize| format!("[{}]", "a".repeat(bytes - "[]".len()));
    assert_accepted(&class(PATTERN_BYTES_MAX));
    assert_refused(&class(PATTERN_BYTES_MAX + 1), PatternError::TooLong);
    assert_refused(&"\u{E4}".repeat(PATTERN_BYTES_MAX / 2 + 1), PatternError::TooLong);
}

/// Threads of the broker have stacks of two MiB.
#[test]
fn nesting_does_not_exhaust_the_stack() {
    let assert_nesting = || {
        let nested = |open: &str, levels: usize, close: &str| {
            format!("{}x{}", open.repeat(levels), close.repeat(levels))
        };
        assert_accepted(&nested("(", PATTERN_BYTES_MAX / 2, ")"));
        assert_refused(&"(".repeat(PATTERN_BYTES_MAX), PatternError::UnclosedGroup);
        for (open, close) in [("(a[bc]", ")"), ("(a|bc", ")"), ("(?:", "d)*"), ("(", ")+(?i)*")] {
            assert_accepted(&nested(open, 20, close));
            assert_refused(&nested(open, 1_000, close), PatternError::NestedTooDeeply);
        }
        assert_refused(&format!("a{}", "*(?i)".repeat(6_000)), PatternError::NestedTooDeeply);
        assert_accepted(&nested("(?:a|b[cd]", 33, ")+"));
        assert_accepted(&nested("(?:", 99, ")+"));
    };
    let thread = thread::Builder::new().stack_size(1 << 20).spawn(assert_nesting);
    thread.expect("spawned").join().expect("nesting is bounded");
}

#[test]
fn size_of_a_pattern_is_bounded() {
    assert_accepted("(a{100}){100}");
    for pattern in [
        "((a{100}){100}){100}",
        "((a{1000}){1000}){1000}",
        "(((a?){1000}){1000}){1000}",
        "(?:(?:a{0,1000}){0,1000}){0,1000}",
        r"(?:\pL{10}){100}",
        r"((?i)\PL{1000}){1000}",
    ] {
        assert_refused(pattern, PatternError::TooLarge);
    }
    // Nothing remains of an empty expression, however often it is repeated.
    for pattern in ["(((){1000}){1000}){1000}", r"(((\b){1000}){1000}){1000}"] {
        assert_accepted(pattern);
    }
}

#[test]
fn ranges_of_classes_are_bounded() {
    for item in [r"\pL", r"\p{^Lu}", r"\x01-\x{10FFFF}"] {
        assert_accepted(&format!("(?i)[{item}]{{2}}"));
        let many = 1_500;
        let classes = format!("[{item}]").repeat(many);
        assert_refused(&format!("(?i){classes}"), PatternError::TooLarge);
        assert_refused(&format!("(?i)[{}]", item.repeat(many)), PatternError::TooLarge);
    }
}
