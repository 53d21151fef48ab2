//! The language of [`table`](super::table): its grammar, its parser, and the parsed shapes.
//!
//! ```text
//! fields  = { name ":" type [ "?" [from] ] [ "@" versions ] [ "#" tag ] }
//! type    = "bool" | "i8" | "i16" | "i32" | "i64" | "f64" | "uuid" | "str" | "bytes" | "records"
//!         | "[" type "]" | "[ " fields "]" | "{ " fields "}"
//! versions = from | from "-" to | "-" to
//! ```
//!
//! `?` means nullable, from a version on if one is given. Without `@`, a field is in all versions
//! of its struct. `#` makes it a tagged field.

use std::{iter::Peekable, ops::RangeInclusive, str::Chars};

use kafka_protocol::protocol::StrBytes;

/// A field of a message or of a struct in it.
#[derive(Debug)]
pub struct Field {
    pub kind: Kind,
    pub versions: RangeInclusive<i16>,
    /// The first version in which it may be null; `i16::MAX` for none.
    pub null_from: i16,
    pub tag: Option<u32>,
}

/// The type of a field or of an array element.
#[derive(Debug)]
pub enum Kind {
    /// A value with this number of bytes.
    Fixed(usize),
    Text,
    Bytes,
    Array(Box<Kind>),
    Struct(Vec<Field>),
}

impl Kind {
    /// The size, in bytes, of a decoded value inside its struct or vector. A struct has the fields
    /// of all versions and a map for unknown tagged fields. Its size is a multiple of eight.
    pub fn memory(&self) -> usize {
        match self {
            Self::Fixed(len) => *len,
            Self::Text | Self::Bytes => size_of::<Option<StrBytes>>(),
            Self::Array(_) => size_of::<Vec<u8>>(),
            Self::Struct(fields) => {
                let map = size_of::<std::collections::BTreeMap<i32, bytes::Bytes>>();
                let sum: usize = fields.iter().map(|field| field.kind.memory()).sum();
                (sum + map).next_multiple_of(8)
            }
        }
    }
}

/// Parses one row of the table.
///
/// # Panics
/// If the row is not valid. The table is constant, and a test parses all of it.
pub fn fields(text: &'static str) -> Vec<Field> {
    let mut parser = Parser { text, chars: text.chars().peekable(), at: 0 };
    let fields = parser.fields();
    assert!(parser.chars.peek().is_none(), "unexpected end of {:?}", &text[..parser.at]);
    fields
}

struct Parser {
    text: &'static str,
    chars: Peekable<Chars<'static>>,
    /// Byte offset of the next character.
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.chars.peek() == Some(&wanted);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, wanted: char) {
        assert!(self.accept(wanted), "{wanted:?} is missing after {:?}", &self.text[..self.at]);
    }

    fn word(&mut self) -> &'static str {
        let start = self.at;
        while self.chars.peek().is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
            self.next();
        }
        &self.text[start..self.at]
    }

    fn number(&mut self) -> Option<i16> {
        let word = self.word();
        (!word.is_empty()).then(|| word.parse().expect("a version or tag"))
    }

    fn skip_space(&mut self) {
        while self.chars.peek().is_some_and(|c| c.is_ascii_whitespace()) {
            self.next();
        }
    }

    fn fields(&mut self) -> Vec<Field> {
        let mut fields = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.chars.peek(), None | Some(']' | '}')) {
                return fields;
            }
            fields.push(self.field());
        }
    }

    fn field(&mut self) -> Field {
        self.word(); // The name is only for readers of the table.
        self.expect(':');
        let kind = self.kind();
        let null_from = if self.accept('?') { self.number().unwrap_or(0) } else { i16::MAX };
        let versions = if self.accept('@') { self.versions() } else { 0..=i16::MAX };
        let tag = self.accept('#').then(|| self.number().expect("a tag") as u32);
        Field { kind, versions, null_from, tag }
    }

    fn versions(&mut self) -> RangeInclusive<i16> {
        let from = self.number();
        let to = if self.accept('-') { self.number() } else { None };
        from.unwrap_or(0)..=to.unwrap_or(i16::MAX)
    }

    fn kind(&mut self) -> Kind {
        if self.accept('{') {
            let fields = self.fields();
            self.expect('}');
            return Kind::Struct(fields);
        }
        if !self.accept('[') {
            return primitive(self.word());
        }
        let of_structs = self.chars.peek().is_some_and(|c| c.is_ascii_whitespace());
        let item = if of_structs { Kind::Struct(self.fields()) } else { self.kind() };
        self.expect(']');
        Kind::Array(Box::new(item))
    }
}

fn primitive(word: &str) -> Kind {
    match word {
        "bool" | "i8" => Kind::Fixed(1),
        "i16" => Kind::Fixed(2),
        "i32" => Kind::Fixed(4),
        "i64" | "f64" => Kind::Fixed(8),
        "uuid" => Kind::Fixed(16),
        "str" => Kind::Text,
        "bytes" | "records" => Kind::Bytes,
        other => panic!("{other:?} is not a type"),
    }
}
