//! Patterns in the syntax of RE2/J, with which Kafka compiles the patterns of clients. They are
//! translated to the syntax of crate `regex`.

mod refusals;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::ClassAsciiKind;

/// The most bytes of a compiled pattern. A pattern that needs more is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Compiles a pattern that must match a whole text. `None` if it is invalid or too large.
pub fn compile(pattern: &str) -> Option<Regex> {
    let pattern = Translation::of(pattern)?;
    if refusals::refuses(&pattern) {
        return None;
    }
    let whole = format!("^(?:{pattern})$");
    RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).build().ok()
}

/// A pattern of which a part is translated. The parser of crate `regex-syntax` finds most errors.
struct Translation<'a> {
    rest: &'a str,
    done: String,
}

impl<'a> Translation<'a> {
    fn of(pattern: &'a str) -> Option<String> {
        let mut translation = Self { rest: pattern, done: String::new() };
        while let Some(next) = translation.take() {
            match next {
                '\\' => translation.escape(false),
                '[' => translation.class()?,
                '{' if !begins_with_count(translation.rest) => translation.done.push_str(r"\{"),
                next => translation.done.push(next),
            }
        }
        Some(translation.done)
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn take_prefix(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Translates an escape, of which the backslash is taken.
    fn escape(&mut self, is_in_class: bool) {
        match self.take() {
            // Literal text up to `\E`.
            Some('Q') if !is_in_class => {
                let (text, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                self.done.push_str(&regex::escape(text));
            }
            Some(escaped) if escaped.is_ascii_punctuation() => {
                self.done.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            Some(escaped) => match ascii_class(escaped) {
                Some(class) => self.done.push_str(class),
                None => self.other_escape(escaped),
            },
            None => self.done.push('\\'),
        }
    }

    /// Translates any other escape. The opening brace of `\p{Greek}` and `\x{61}` belongs to it.
    /// `\p{^Greek}` is `\P{Greek}`.
    fn other_escape(&mut self, escaped: char) {
        let (escaped, brace) = match escaped {
            'p' if self.take_prefix("{^") => ('P', "{"),
            'P' if self.take_prefix("{^") => ('p', "{"),
            'p' | 'P' | 'x' if self.take_prefix("{") => (escaped, "{"),
            _ => (escaped, ""),
        };
        self.done.extend(['\\', escaped]);
        self.done.push_str(brace);
    }

    /// Translates a class, of which the opening bracket is taken. Another bracket in it is a
    /// literal, unless it begins a named class, as in `[[:alpha:]]`. `None` if its name is unknown.
    fn class(&mut self) -> Option<()> {
        self.done.push('[');
        if self.take_prefix("^") {
            self.done.push('^');
        }
        if self.take_prefix("]") {
            self.done.push_str(r"\]");
        }
        while let Some(next) = self.take() {
            match next {
                '\\' => self.escape(true),
                '[' => match self.rest.strip_prefix(':').and_then(name_of_class) {
                    Some((name, rest)) => {
                        ClassAsciiKind::from_name(name.strip_prefix('^').unwrap_or(name))?;
                        self.done.extend(["[:", name, ":]"]);
                        self.rest = rest;
                    }
                    None => self.done.push_str(r"\["),
                },
                '&' | '~' => self.done.extend(['\\', next]),
                next => self.done.push(next),
            }
            if next == ']' {
                break;
            }
        }
        Some(())
    }
}

/// The class of an escape, which has only ASCII characters in RE2/J.
fn ascii_class(escaped: char) -> Option<&'static str> {
    match escaped {
        'd' => Some("[0-9]"),
        'D' => Some("[^0-9]"),
        'w' => Some("[0-9A-Za-z_]"),
        'W' => Some("[^0-9A-Za-z_]"),
        's' => Some(r"[\t\n\f\r ]"),
        'S' => Some(r"[^\t\n\f\r ]"),
        _ => None,
    }
}

/// The longest name of a class, as in `[:alpha:]`, with the `^` before it.
const CLASS_NAME_MAX: usize = 8;

/// Splits the text after a `[:` into the name of a class and what follows the `:]`.
fn name_of_class(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().take(CLASS_NAME_MAX + 1).position(|byte| byte == b':')?;
    Some((&text[..end], text[end..].strip_prefix(":]")?))
}

/// Whether the text after a `{` is a count of repetitions. Otherwise, the bracket is a literal.
fn begins_with_count(rest: &str) -> bool {
    let is_number = |text: &str| {
        let is_short = text == "0" || !text.starts_with('0');
        is_short && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_part = |byte: u8| byte.is_ascii_digit() || byte == b',';
    let Some(end) = rest.bytes().position(|byte| !is_part(byte)) else { return false };
    let (count, rest) = rest.split_at(end);
    if !rest.starts_with('}') {
        return false;
    }
    match count.split_once(',') {
        Some((min, max)) => is_number(min) && (max.is_empty() || is_number(max)),
        None => is_number(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RE2/J 1.8 does, which comes with Apache Kafka 4.3.1.
    #[test]
    fn patterns_match_as_in_re2() {
        for (pattern, text, matches) in [
            ("my-.*", "my-id", true),
            ("my", "my-id", false),
            ("id", "my-id", false),
            ("a|b", "b", true),
            ("a|b", "ba", false),
            ("(?i)MY-.*", "my-id", true),
            (r"\Qa+b\E", "a+b", true),
            (r"\Qa+b", "a+b", true),
            (r"\Qab\E*", "abbb", true),
            ("a{", "a{", true),
            ("a{,5}", "a{,5}", true),
            ("a{2,}", "aaa", true),
            ("{x}", "{x}", true),
            (r"\<a\>", "<a>", true),
            (r"\d", "٣", false),
            (r"\w+", "a_9", true),
            (r"\w", "ä", false),
            (r"[\d-]+", "1-2", true),
            (r"[^\s]", " ", false),
            (r"\p{Greek}\x{4e}", "αN", true),
            (r"\pL\p{^Lu}", "Xx", true),
            ("[[:alpha:]]", "a", true),
            ("[[:^alpha:]]", "1", true),
            ("[[a]b]", "[b]", true),
            ("[a&&b]+", "a&", true),
            ("[a~~b]", "~", true),
            ("[]a]", "]", true),
            ("[^]a]", "]", false),
            ("[a:]", ":", true),
            (r"a?\b{x}", "a{x}", true),
            ("(?:a{100}){11}", "a", false),
            (r"[a\]]", "]", true),
        ] {
            let compiled = compile(pattern).unwrap_or_else(|| panic!("{pattern} is valid"));
            assert_eq!(compiled.is_match(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_that_are_invalid_or_too_large_are_refused() {
        let invalid = r"( a)|(b )( [ [a * a++ \ a\ (?=a) (?!a) \1 \K \C [\Qa\E] [b-a]
            [[:foo:]] (?:\pL{10}){100}";
        for pattern in invalid.split_whitespace() {
            assert!(compile(pattern).is_none(), "{pattern}");
        }
    }
}
