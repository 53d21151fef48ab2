//! Generates well-formed requests from their shapes, for tests and fuzzing. It also returns the
//! places of all lengths and counts, so that a test can replace them with hostile ones.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::ApiKey;

use super::{
    parse::{Field, Kind},
    shape,
};
use crate::{
    base::random::Random,
    protocol::{api, schema::put_unsigned_varint},
};

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    I16,
    I32,
    Varint,
}

/// Where a length is, in bytes from the start of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    pub at: usize,
    pub width: Width,
}

/// A well-formed body.
#[derive(Debug, Clone)]
pub struct Sample {
    pub body: Vec<u8>,
    /// The places of all lengths and counts in `body`, in order: of strings, bytes and arrays, and
    /// the sizes and the counts of tagged fields.
    pub lengths: Vec<Length>,
}

impl Sample {
    /// A request with one element in each array, the value 1 in each number, one letter in each
    /// string, and no nulls. It is so small that a broker does nothing large or slow for it.
    ///
    /// # Panics
    /// If there is no such API or it has no such version.
    pub fn small(api: ApiKey, version: i16) -> Self {
        Self::write(api, version, None)
    }

    /// A random request. The same seed always gives the same request.
    ///
    /// # Panics
    /// If there is no such API or it has no such version.
    pub fn random(api: ApiKey, version: i16, seed: u64) -> Self {
        Self::write(api, version, Some(seed))
    }

    fn write(api: ApiKey, version: i16, seed: Option<u64>) -> Self {
        let row = api::find(api as i16).expect("an API of the table");
        assert!(row.versions().contains(&version), "a version of the table");
        let flexible = row.is_flexible(version);
        let (out, lengths) = (BytesMut::new(), Vec::new());
        let mut writer = Writer { random: seed.map(Random::new), version, flexible, out, lengths };
        writer.fields(shape(api as i16).expect("a shape"));
        Self { body: writer.out.to_vec(), lengths: writer.lengths }
    }
}

/// Writes one request.
struct Writer {
    /// If `None`, everything is small.
    random: Option<Random>,
    version: i16,
    flexible: bool,
    out: BytesMut,
    lengths: Vec<Length>,
}

impl Writer {
    /// A number from 0 to `max`. Without randomness it is 1.
    fn up_to(&mut self, max: u32) -> u32 {
        let Some(random) = &mut self.random else { return 1.min(max) };
        random.below(max as usize + 1) as u32
    }

    /// A number of elements or bytes: mostly at most `few`, and rarely `many`.
    fn count(&mut self, few: u32, many: u32) -> u32 {
        if self.random.is_some() && self.up_to(19) == 0 { many } else { self.up_to(few) }
    }

    fn fields(&mut self, fields: &[Field]) {
        let here = |field: &&Field| field.versions.contains(&self.version);
        let (tagged, plain): (Vec<_>, Vec<_>) =
            fields.iter().filter(here).partition(|field| field.tag.is_some());
        for field in plain {
            self.field(field);
        }
        if self.flexible {
            let written: Vec<_> = tagged.into_iter().filter(|_| self.up_to(1) == 1).collect();
            self.varint(written.len() as u32);
            for field in written {
                self.tagged(field);
            }
        }
    }

    fn tagged(&mut self, field: &Field) {
        let before = std::mem::take(&mut self.out);
        let lengths = self.lengths.len();
        self.field(field);
        let value = std::mem::replace(&mut self.out, before);
        let inner = self.lengths.split_off(lengths);
        put_unsigned_varint(&mut self.out, field.tag.expect("tagged"));
        self.varint(value.len() as u32);
        let moved = self.out.len();
        self.lengths.extend(inner.into_iter().map(|l| Length { at: l.at + moved, ..l }));
        self.out.put_slice(&value);
    }

    fn field(&mut self, field: &Field) {
        let nullable = self.version >= field.null_from;
        let null = nullable && self.up_to(3) == 0;
        match &field.kind {
            Kind::Struct(_) if null => self.out.put_i8(-1),
            Kind::Struct(fields) => {
                if nullable {
                    self.out.put_i8(1);
                }
                self.fields(fields);
            }
            kind if null => self.length(-1, matches!(kind, Kind::Text)),
            kind => self.value(kind),
        }
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            // This may be a Boolean, which is encoded again as 0 or 1.
            Kind::Fixed(1) => {
                let byte = self.up_to(1) as u8;
                self.out.put_u8(byte);
            }
            Kind::Fixed(len) if self.random.is_none() => {
                self.out.put_bytes(0, len - 1);
                self.out.put_u8(1);
            }
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = self.up_to(255) as u8;
                    self.out.put_u8(byte);
                }
            }
            Kind::Text | Kind::Bytes => {
                let len = self.count(9, 300);
                self.length(len as i32, matches!(kind, Kind::Text));
                for _ in 0..len {
                    let byte = b'a' + self.up_to(25) as u8;
                    self.out.put_u8(byte);
                }
            }
            Kind::Array(item) => {
                let count = self.count(3, 150);
                self.length(count as i32, false);
                for _ in 0..count {
                    self.value(item);
                }
            }
            Kind::Struct(fields) => self.fields(fields),
        }
    }

    fn length(&mut self, len: i32, text: bool) {
        let at = self.out.len();
        match (self.flexible, text) {
            (true, _) => self.varint((len + 1) as u32),
            (false, true) => {
                self.lengths.push(Length { at, width: Width::I16 });
                self.out.put_i16(len as i16);
            }
            (false, false) => {
                self.lengths.push(Length { at, width: Width::I32 });
                self.out.put_i32(len);
            }
        }
    }

    fn varint(&mut self, value: u32) {
        self.lengths.push(Length { at: self.out.len(), width: Width::Varint });
        put_unsigned_varint(&mut self.out, value);
    }
}
