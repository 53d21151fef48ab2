//! The parser: from the text of a pattern to an expression that crate `regex-automata` compiles.
//!
//! Open groups are a list, so the parser does not recurse. Whether a repetition is greedy decides
//! only which part of a text is matched. As a pattern must match a whole text, `*?` is parsed like
//! `*`, and the flag `U` is ignored. Groups capture nothing.

use std::{collections::BTreeSet, mem};

use regex_syntax::hir::{Class, ClassUnicode, Dot, Hir, Look, Repetition};

use super::{
    PatternError,
    class::{characters, take_class, take_class_escape},
    cursor::Cursor,
};

/// The largest number in a repetition.
const REPEATS_MAX: u32 = 1_000;
/// The most levels of an expression. The compiler of `regex-automata` recurses once per level.
const LEVELS_MAX: usize = 100;

type Result<T> = std::result::Result<T, PatternError>;

pub fn parse(pattern: &str) -> Result<Hir> {
    let mut parser = Parser {
        cursor: Cursor::new(pattern),
        flags: Flags::default(),
        group: Group::default(),
        outer: Vec::new(),
        names: BTreeSet::new(),
    };
    let mut follows_repetition = false;
    while let Some(next) = parser.cursor.take() {
        parser.parse_from(next, follows_repetition)?;
        // As in RE2/J, a literal brace counts, too.
        follows_repetition = ['*', '+', '?', '{'].contains(&next);
    }
    if !parser.outer.is_empty() {
        return Err(PatternError::UnclosedGroup);
    }
    Ok(parser.group.finish()?.hir)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    flags: Flags,
    /// The innermost open group, or the pattern itself.
    group: Group,
    /// What is open around it, with the pattern itself first.
    outer: Vec<Group>,
    /// The names of all groups so far.
    names: BTreeSet<&'a str>,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// `i`
    folds_case: bool,
    /// `m`: `^` and `$` also match at the beginning and the end of a line.
    is_multiline: bool,
    /// `s`: `.` also matches a line feed.
    dot_matches_line_feed: bool,
}

#[derive(Default)]
struct Group {
    /// The alternatives before the last one.
    alternatives: Vec<Part>,
    /// The parts of the last alternative.
    parts: Vec<Part>,
    /// The flags before the group, which are in force again behind it.
    flags_before: Flags,
}

impl Group {
    fn end_alternative(&mut self) -> Result<()> {
        let parts = mem::take(&mut self.parts);
        self.alternatives.push(Part::join(parts, Hir::concat)?);
        Ok(())
    }

    fn finish(mut self) -> Result<Part> {
        self.end_alternative()?;
        Part::join(self.alternatives, Hir::alternation)
    }
}

/// An expression and the number of its levels.
struct Part {
    hir: Hir,
    levels: usize,
}

impl Part {
    fn join(mut parts: Vec<Self>, join: fn(Vec<Hir>) -> Hir) -> Result<Self> {
        // Joining copies the parts of a part, which must not be done again and again for `((x))`.
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let levels = parts.iter().map(|part| part.levels).max().unwrap_or_default();
        Self::above(levels, join(parts.into_iter().map(|part| part.hir).collect()))
    }

    /// Returns an expression whose parts have up to this many levels.
    fn above(levels: usize, hir: Hir) -> Result<Self> {
        if levels == LEVELS_MAX {
            return Err(PatternError::NestedTooDeeply);
        }
        Ok(Self { hir, levels: levels + 1 })
    }
}

impl Parser<'_> {
    /// Parses what begins with this character, which is taken.
    fn parse_from(&mut self, next: char, follows_repetition: bool) -> Result<()> {
        match next {
            '(' => self.open_group(),
            ')' => self.close_group(),
            '|' => self.group.end_alternative(),
            '*' => self.repeat(0, None, follows_repetition),
            '+' => self.repeat(1, None, follows_repetition),
            '?' => self.repeat(0, Some(1), follows_repetition),
            '{' => match self.take_count()? {
                Some((min, max)) => self.repeat(min, max, follows_repetition),
                None => self.push_character(next.into()),
            },
            '^' if self.flags.is_multiline => self.push(Hir::look(Look::StartLF)),
            '^' => self.push(Hir::look(Look::Start)),
            '$' if self.flags.is_multiline => self.push(Hir::look(Look::EndLF)),
            '$' => self.push(Hir::look(Look::End)),
            '.' if self.flags.dot_matches_line_feed => self.push(Hir::dot(Dot::AnyChar)),
            '.' => self.push(Hir::dot(Dot::AnyCharExceptLF)),
            '[' => {
                let class = take_class(&mut self.cursor, self.flags.folds_case)?;
                self.push_class(class)
            }
            '\\' => self.parse_escape(),
            character => self.push_character(character.into()),
        }
    }

    fn push(&mut self, hir: Hir) -> Result<()> {
        self.group.parts.push(Part::above(0, hir)?);
        Ok(())
    }

    fn push_class(&mut self, class: ClassUnicode) -> Result<()> {
        self.push(Hir::class(Class::Unicode(class)))
    }

    fn push_character(&mut self, code_point: u32) -> Result<()> {
        let folds_case = self.flags.folds_case;
        let class = characters(code_point, code_point, &mut self.cursor, folds_case)?;
        self.push_class(class)
    }

    /// Repeats the last part. Fails directly behind another repetition: `a**` is refused, `(a*)*`
    /// is not.
    fn repeat(&mut self, min: u32, max: Option<u32>, follows_repetition: bool) -> Result<()> {
        self.cursor.take_prefix("?");
        if follows_repetition {
            return Err(PatternError::RepeatedRepetition);
        }
        let Part { hir, levels } = self.group.parts.pop().ok_or(PatternError::NothingToRepeat)?;
        let repetition = Repetition { min, max, greedy: true, sub: Box::new(hir) };
        self.group.parts.push(Part::above(levels, Hir::repetition(repetition))?);
        Ok(())
    }

    /// Takes what follows the brace in `{2}`, `{2,}` and `{2,5}`. Returns `None` if the brace is a
    /// literal.
    fn take_count(&mut self) -> Result<Option<(u32, Option<u32>)>> {
        let (min, rest) = split_digits(self.cursor.rest);
        let (max, rest) = match rest.strip_prefix(',') {
            Some(rest) => split_digits(rest),
            None => (min, rest),
        };
        let Some(rest) = rest.strip_prefix('}') else { return Ok(None) };
        let is_number =
            |digits: &str| digits == "0" || !digits.is_empty() && !digits.starts_with('0');
        if !is_number(min) || !max.is_empty() && !is_number(max) {
            return Ok(None);
        }
        self.cursor.rest = rest;
        let count = |digits: &str| digits.parse().ok().filter(|count| *count <= REPEATS_MAX);
        let invalid = PatternError::InvalidRepeatCount;
        let min = count(min).ok_or(invalid)?;
        if max.is_empty() {
            return Ok(Some((min, None)));
        }
        let max = count(max).filter(|max| min <= *max).ok_or(invalid)?;
        Ok(Some((min, Some(max))))
    }

    fn parse_escape(&mut self) -> Result<()> {
        let look = match self.cursor.rest.chars().next() {
            Some('A') => Look::Start,
            Some('z') => Look::End,
            Some('b') => Look::WordAscii,
            Some('B') => Look::WordAsciiNegate,
            Some('Q') => return self.parse_quoted(),
            _ => {
                let class = take_class_escape(&mut self.cursor, self.flags.folds_case)?;
                if let Some(class) = class {
                    return self.push_class(class);
                }
                let code_point = self.cursor.take_escaped()?;
                return self.push_character(code_point);
            }
        };
        self.cursor.take();
        self.push(Hir::look(look))
    }

    /// Parses `Q` and the literal text behind it, up to `\E` or the end of the pattern.
    fn parse_quoted(&mut self) -> Result<()> {
        self.cursor.take();
        let rest = self.cursor.rest;
        let (text, rest) = rest.split_once(r"\E").unwrap_or((rest, ""));
        self.cursor.rest = rest;
        text.chars().try_for_each(|character| self.push_character(character.into()))
    }

    fn open_group(&mut self) -> Result<()> {
        if self.cursor.take_prefix("?") {
            if !self.cursor.take_prefix("P<") && !self.cursor.take_prefix("<") {
                return self.parse_flags();
            }
            self.take_name()?;
        }
        self.enter_group();
        Ok(())
    }

    fn enter_group(&mut self) {
        let group = Group { flags_before: self.flags, ..Group::default() };
        self.outer.push(mem::replace(&mut self.group, group));
    }

    fn close_group(&mut self) -> Result<()> {
        let outer = self.outer.pop().ok_or(PatternError::UnopenedGroup)?;
        let group = mem::replace(&mut self.group, outer);
        self.flags = group.flags_before;
        self.group.parts.push(group.finish()?);
        Ok(())
    }

    /// Takes the name of a group, up to the closing bracket.
    fn take_name(&mut self) -> Result<()> {
        let invalid = PatternError::InvalidGroupName;
        let (name, rest) = self.cursor.rest.split_once('>').ok_or(invalid)?;
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_part) {
            return Err(invalid);
        }
        self.cursor.rest = rest;
        let is_new = self.names.insert(name);
        if is_new { Ok(()) } else { Err(PatternError::DuplicateGroupName) }
    }

    /// Parses flags with what ends them. `)` sets them for the rest of the group, and `:` opens a
    /// group with them. At least one flag must follow a minus.
    fn parse_flags(&mut self) -> Result<()> {
        let mut flags = self.flags;
        let (mut is_set, mut may_end) = (true, true);
        loop {
            match self.cursor.take() {
                Some('i') => flags.folds_case = is_set,
                Some('m') => flags.is_multiline = is_set,
                Some('s') => flags.dot_matches_line_feed = is_set,
                Some('U') => {}
                Some('-') if is_set => {
                    (is_set, may_end) = (false, false);
                    continue;
                }
                Some(':') if may_end => {
                    self.enter_group();
                    break;
                }
                Some(')') if may_end => break,
                _ => return Err(PatternError::InvalidPerlSyntax),
            }
            may_end = true;
        }
        self.flags = flags;
        Ok(())
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}
