//! Patterns that RE2/J refuses, although they are valid in the syntax of crate `regex`.

use regex_syntax::ast::{
    self, Ast, ClassSetBinaryOp, ClassSetItem, ClassUnicode, ClassUnicodeKind, Flag, Flags,
    FlagsItemKind, GroupKind, HexLiteralKind, Literal, LiteralKind, Repetition, RepetitionKind,
    RepetitionRange, Visitor, parse::Parser,
};

/// The largest number of repetitions.
const REPEATS_MAX: u32 = 1_000;
/// Most properties in a pattern. Each one has hundreds of ranges of characters, and takes up to
/// half a millisecond to compile.
const PROPERTIES_MAX: u32 = 100;

/// Whether RE2/J refuses a pattern, or the pattern has too many properties. True if the pattern is
/// invalid.
pub fn refuses(pattern: &str) -> bool {
    let parsed = Parser::new().parse(pattern);
    parsed.map_or(true, |ast| ast::visit(&ast, Check::default()).is_err())
}

struct Refused;

#[derive(Default)]
struct Check {
    properties: u32,
}

impl Visitor for Check {
    type Output = ();
    type Err = Refused;

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Refused> {
        match ast {
            Ast::Repetition(repetition) => check_repetition(repetition),
            Ast::Flags(set) => check_flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) => Ok(()),
                GroupKind::CaptureName { name, .. } => check_name(&name.name),
                GroupKind::NonCapturing(flags) => check_flags(flags),
            },
            Ast::Literal(literal) => check_literal(literal),
            Ast::ClassUnicode(class) => self.check_property(class),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Refused> {
        match item {
            ClassSetItem::Literal(literal) => check_literal(literal),
            ClassSetItem::Range(range) => {
                check_literal(&range.start)?;
                check_literal(&range.end)
            }
            ClassSetItem::Unicode(class) => self.check_property(class),
            _ => Ok(()),
        }
    }

    /// RE2/J reads `--` within a class as a part of a range.
    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), Refused> {
        Err(Refused)
    }
}

/// `a**` and `a{2}{3}` are refused, but not `(a*)*`.
fn check_repetition(repetition: &Repetition) -> Result<(), Refused> {
    let max = match repetition.op.kind {
        RepetitionKind::Range(
            RepetitionRange::Exactly(max)
            | RepetitionRange::AtLeast(max)
            | RepetitionRange::Bounded(_, max),
        ) => max,
        _ => 0,
    };
    let is_stacked = matches!(*repetition.ast, Ast::Repetition(_));
    if is_stacked || max > REPEATS_MAX { Err(Refused) } else { Ok(()) }
}

/// The name of a group has letters, digits and underscores.
fn check_name(name: &str) -> Result<(), Refused> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.bytes().all(is_valid) { Ok(()) } else { Err(Refused) }
}

/// RE2/J has the flags `i`, `m`, `s` and `U`.
fn check_flags(flags: &Flags) -> Result<(), Refused> {
    let is_known = |kind: &FlagsItemKind| {
        !matches!(kind, FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace))
    };
    match flags.items.iter().all(|item| is_known(&item.kind)) {
        true => Ok(()),
        false => Err(Refused),
    }
}

/// RE2/J does not have `\u` and `\U`.
fn check_literal(literal: &Literal) -> Result<(), Refused> {
    match &literal.kind {
        LiteralKind::HexFixed(kind) | LiteralKind::HexBrace(kind) if *kind != HexLiteralKind::X => {
            Err(Refused)
        }
        _ => Ok(()),
    }
}

impl Check {
    /// RE2/J has categories and scripts, without the name of the property.
    fn check_property(&mut self, class: &ClassUnicode) -> Result<(), Refused> {
        self.properties += 1;
        match class.kind {
            ClassUnicodeKind::NamedValue { .. } => Err(Refused),
            _ if self.properties > PROPERTIES_MAX => Err(Refused),
            ClassUnicodeKind::OneLetter(_) | ClassUnicodeKind::Named(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RE2/J 1.8 does, which comes with Apache Kafka 4.3.1.
    #[test]
    fn refusals_are_those_of_re2() {
        let refused = r"a** a*+ a++ a*?? a+?+ a{2}{3} a{2}* a*{2} a{1001} a{0,1001} a{1001,}
            (?x)a (?u:a) (?R)a \u0041 [\U00000041] \p{Script=Greek} [a--b] (?P<n.m>a) (?P<é>a) (";
        for pattern in refused.split_whitespace() {
            assert!(refuses(pattern), "{pattern}");
        }
        let accepted = r"a*? a?? a{2}? (a*)* (?:a+)+ (?:a{2}){3} a{1000} (?:a*){1000}
            (?:a{100}){11} (?P<n_1>a) (?<n>a) (?i)a (?m-s:a) (?U)a+ \ba\B \x41 \x{41} \pN [\p{Greek}]
            [[:alpha:]] a|b|";
        for pattern in accepted.split_whitespace() {
            assert!(!refuses(pattern), "{pattern}");
        }
    }

    #[test]
    fn properties_of_a_pattern_are_limited() {
        let most = PROPERTIES_MAX as usize;
        for property in [r"\pL", r"[\p{Greek}]"] {
            assert!(!refuses(&property.repeat(most)), "{property}");
            assert!(refuses(&property.repeat(most + 1)), "{property}");
        }
    }
}
