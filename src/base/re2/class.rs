//! Classes of characters: `[a-z]`, `[[:alpha:]]`, `\d`, `\p{Greek}`.

use std::ops::RangeInclusive;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::{PatternError, cursor::Cursor};

type Ranges = &'static [(char, char)];

const DIGIT: Ranges = &[('0', '9')];
const WORD: Ranges = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
/// `\s`, which lacks the vertical tab of `[:space:]`.
const PERL_SPACE: Ranges = &[('\t', '\n'), ('\x0C', '\r'), (' ', ' ')];
const POSIX: &[(&str, Ranges)] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7F')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1F'), ('\x7F', '\x7F')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// The general categories of Unicode that RE2/J knows, besides `Any`, `C`, `Co` and `Cs`.
#[rustfmt::skip]
pub const CATEGORIES: &[&str] = &[
    "Cc", "Cf", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No",
    "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp",
    "Zs",
];
/// The scripts of Unicode 6.0, which are those that RE2/J knows.
#[rustfmt::skip]
pub const SCRIPTS: &[&str] = &[
    "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Batak", "Bengali", "Bopomofo", "Brahmi",
    "Braille", "Buginese", "Buhid", "Canadian_Aboriginal", "Carian", "Cham", "Cherokee", "Common",
    "Coptic", "Cuneiform", "Cypriot", "Cyrillic", "Deseret", "Devanagari", "Egyptian_Hieroglyphs",
    "Ethiopic", "Georgian", "Glagolitic", "Gothic", "Greek", "Gujarati", "Gurmukhi", "Han",
    "Hangul", "Hanunoo", "Hebrew", "Hiragana", "Imperial_Aramaic", "Inherited",
    "Inscriptional_Pahlavi", "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada", "Katakana",
    "Kayah_Li", "Kharoshthi", "Khmer", "Lao", "Latin", "Lepcha", "Limbu", "Linear_B", "Lisu",
    "Lycian", "Lydian", "Malayalam", "Mandaic", "Meetei_Mayek", "Mongolian", "Myanmar",
    "New_Tai_Lue", "Nko", "Ogham", "Ol_Chiki", "Old_Italic", "Old_Persian", "Old_South_Arabian",
    "Old_Turkic", "Oriya", "Osmanya", "Phags_Pa", "Phoenician", "Rejang", "Runic", "Samaritan",
    "Saurashtra", "Shavian", "Sinhala", "Sundanese", "Syloti_Nagri", "Syriac", "Tagalog",
    "Tagbanwa", "Tai_Le", "Tai_Tham", "Tai_Viet", "Tamil", "Telugu", "Thaana", "Thai", "Tibetan",
    "Tifinagh", "Ugaritic", "Vai", "Yi",
];

/// What the flag `i` adds to `\p{Ll}` in RE2/J, where the other uppercase letters are missing.
const ADDED_TO_LL: &str = "KS\u{C5}\u{1C4}\u{1C5}\u{1C7}\u{1C8}\u{1CA}\u{1CB}\u{1F1}\u{1F2}\u{345}\
    \u{392}\u{395}\u{398}\u{399}\u{39A}\u{39C}\u{3A0}\u{3A1}\u{3A3}\u{3A6}\u{3A9}\u{3F4}\u{1E60}\
    \u{1E9E}\u{2126}\u{212A}\u{212B}";

/// How many characters fold in the time that a range takes.
const FOLDS_PER_RANGE: usize = 16;

/// Takes a class in brackets, of which the opening bracket is taken.
pub fn take_class(cursor: &mut Cursor, folds_case: bool) -> Result<ClassUnicode, PatternError> {
    let is_negated = cursor.take_prefix("^");
    let mut ranges = Vec::new();
    let mut is_first = true;
    // The closing bracket is a literal if it comes first.
    while is_first || !cursor.take_prefix("]") {
        is_first = false;
        ranges.extend_from_slice(take_item(cursor, folds_case)?.ranges());
    }
    let mut class = ClassUnicode::new(ranges);
    if is_negated {
        class.negate();
    }
    Ok(class)
}

/// Takes a character, a range or a named class within brackets.
fn take_item(cursor: &mut Cursor, folds_case: bool) -> Result<ClassUnicode, PatternError> {
    if let Some(class) = take_posix_class(cursor, folds_case)? {
        return Ok(class);
    }
    let is_escape = cursor.take_prefix("\\");
    if is_escape && let Some(class) = take_class_escape(cursor, folds_case)? {
        return Ok(class);
    }
    let low = take_character(cursor, is_escape)?;
    // A hyphen before the closing bracket is a literal.
    if cursor.rest.starts_with("-]") || !cursor.take_prefix("-") {
        return characters(low, low, cursor, folds_case);
    }
    let is_escape = cursor.take_prefix("\\");
    let high = take_character(cursor, is_escape)?;
    characters(low, high, cursor, folds_case)
}

fn take_character(cursor: &mut Cursor, is_escape: bool) -> Result<u32, PatternError> {
    if is_escape {
        return cursor.take_escaped();
    }
    cursor.take().map(u32::from).ok_or(PatternError::UnclosedClass)
}

/// Takes a class such as `[:alpha:]` or `[:^alpha:]`. Returns `None` if the bracket is a literal.
fn take_posix_class(
    cursor: &mut Cursor,
    folds_case: bool,
) -> Result<Option<ClassUnicode>, PatternError> {
    if !cursor.rest.starts_with("[:") {
        return Ok(None);
    }
    let Some(end) = cursor.posix_end() else { return Ok(None) };
    // The text `[:]` has no place for a name.
    let name = cursor.rest.get("[:".len()..end).ok_or(PatternError::InvalidClassRange)?;
    cursor.rest = &cursor.rest[end + ":]".len()..];
    let (name, is_negated) = split_negation(name);
    let found = POSIX.iter().find(|(known, _)| *known == name);
    let (_, ranges) = found.ok_or(PatternError::InvalidClassRange)?;
    finish(class_of(ranges), is_negated, cursor, folds_case).map(Some)
}

/// Takes an escape that stands for a class, of which the backslash is taken. Returns `None` if it
/// stands for something else.
pub fn take_class_escape(
    cursor: &mut Cursor,
    folds_case: bool,
) -> Result<Option<ClassUnicode>, PatternError> {
    let letter = cursor.rest.chars().next().unwrap_or_default();
    let is_negated = letter.is_ascii_uppercase();
    let ranges = match letter.to_ascii_lowercase() {
        'd' => DIGIT,
        's' => PERL_SPACE,
        'w' => WORD,
        'p' => {
            cursor.take();
            return take_property(cursor, is_negated, folds_case).map(Some);
        }
        _ => return Ok(None),
    };
    cursor.take();
    finish(class_of(ranges), is_negated, cursor, folds_case).map(Some)
}

/// Takes what follows `\p`: one letter, or a name in braces.
fn take_property(
    cursor: &mut Cursor,
    is_negated: bool,
    folds_case: bool,
) -> Result<ClassUnicode, PatternError> {
    let invalid = PatternError::InvalidClassRange;
    let (name, rest) = match cursor.rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}').ok_or(invalid)?,
        None => {
            let letter = cursor.rest.chars().next().ok_or(invalid)?;
            cursor.rest.split_at(letter.len_utf8())
        }
    };
    cursor.rest = rest;
    let (name, is_negated_name) = split_negation(name);
    let mut class = property(name).ok_or(invalid)?;
    let is_ll = name == "Ll";
    if folds_case && is_ll {
        let added = ADDED_TO_LL.chars().map(|letter| ClassUnicodeRange::new(letter, letter));
        class.union(&ClassUnicode::new(added));
    }
    // RE2/J does not fold the categories of one letter either.
    let folds_case = folds_case && !is_ll && name.len() > 1;
    finish(class, is_negated != is_negated_name, cursor, folds_case)
}

fn split_negation(name: &str) -> (&str, bool) {
    match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    }
}

/// Returns the characters of a general category or of a script.
pub fn property(name: &str) -> Option<ClassUnicode> {
    let known = match name {
        "Any" => return Some(class_of(&[('\0', char::MAX)])),
        // No text has surrogates.
        "Cs" => return Some(ClassUnicode::empty()),
        // RE2/J leaves out the code points without a character.
        "C" => r"\p{gc=Cc}\p{gc=Cf}\p{gc=Co}".to_owned(),
        "Co" | "Unknown" => r"\p{gc=Co}".to_owned(),
        _ if CATEGORIES.contains(&name) => format!(r"\p{{gc={name}}}"),
        _ if SCRIPTS.contains(&name) => format!(r"\p{{sc={name}}}"),
        _ => return None,
    };
    // A class of one character would be parsed into a literal, but its complement is a class.
    let complement = regex_syntax::parse(&format!("[^{known}]")).ok()?;
    let HirKind::Class(Class::Unicode(class)) = complement.kind() else { return None };
    let mut class = class.clone();
    class.negate();
    Some(class)
}

/// Returns the characters between two code points, both included.
pub fn characters(
    low: u32,
    high: u32,
    cursor: &mut Cursor,
    folds_case: bool,
) -> Result<ClassUnicode, PatternError> {
    if high < low {
        return Err(PatternError::InvalidClassRange);
    }
    finish(class_between(low, high), false, cursor, folds_case)
}

/// No text has surrogates. A range between two of them is empty.
fn class_between(low: u32, high: u32) -> ClassUnicode {
    const SURROGATES: RangeInclusive<u32> = 0xD800..=0xDFFF;
    let low = if SURROGATES.contains(&low) { SURROGATES.end() + 1 } else { low };
    let high = if SURROGATES.contains(&high) { SURROGATES.start() - 1 } else { high };
    let ends = char::from_u32(low).zip(char::from_u32(high));
    let range = ends.filter(|(low, high)| low <= high);
    ClassUnicode::new(range.map(|(low, high)| ClassUnicodeRange::new(low, high)))
}

fn class_of(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)))
}

/// Adds the other cases of all characters to a class, then negates it, each if asked to.
fn finish(
    mut class: ClassUnicode,
    is_negated: bool,
    cursor: &mut Cursor,
    folds_case: bool,
) -> Result<ClassUnicode, PatternError> {
    if folds_case {
        let characters: usize = class.ranges().iter().map(ClassUnicodeRange::len).sum();
        cursor.count_ranges(characters / FOLDS_PER_RANGE)?;
        class.case_fold_simple();
    }
    if is_negated {
        class.negate();
    }
    cursor.count_ranges(class.ranges().len())?;
    Ok(class)
}
