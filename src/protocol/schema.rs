//! Declares messages in Kafka's format (KIP-482) that the `kafka-protocol` crate lacks: requests,
//! responses and records. [`wire!`](crate::wire) turns a declaration into a struct with defaults,
//! a decoder and an encoder. For an array, the decoder reserves at most 1 MiB and twice the bytes
//! that are left of the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// Why bytes are not a valid message.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum WireError {
    #[error("the message ends before its fields do")]
    Truncated,
    #[error("a length is negative where null is not allowed")]
    UnexpectedNull,
    #[error("a length is larger than the bytes that are left")]
    LengthTooLarge,
    #[error("the elements of arrays take too much memory for a frame of this size")]
    TooManyElements,
    #[error("a varint is longer than five bytes")]
    VarintTooLong,
    #[error("a tagged field is not part of this version")]
    TagOfOtherVersions,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("version {0} is not supported")]
    UnsupportedVersion(i16),
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
}

pub type Result<T> = std::result::Result<T, WireError>;

/// Reads the fields of one message in order. Slices share the bytes of the message.
pub struct Reader {
    buf: Bytes,
}

macro_rules! read_number {
    ($($name:ident: $ty:ty),*) => {$(
        pub fn $name(&mut self) -> Result<$ty> {
            const LEN: usize = size_of::<$ty>();
            let bytes = self.buf.get(..LEN).ok_or(WireError::Truncated)?;
            let value = <$ty>::from_be_bytes(bytes.try_into().expect("sliced to length"));
            self.buf.advance(LEN);
            Ok(value)
        }
    )*};
}

impl Reader {
    pub fn new(buf: Bytes) -> Self {
        Self { buf }
    }

    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// The bytes that have not been read.
    pub fn into_rest(self) -> Bytes {
        self.buf
    }

    read_number!(u8: u8, i8: i8, i16: i16, u16: u16, i32: i32, u32: u32, i64: i64, f64: f64);

    /// Reads a varint of at most five bytes.
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if shift == 28 && byte > 0x0f {
                    return Err(WireError::VarintTooLong);
                }
                return Ok(value);
            }
        }
        Err(WireError::VarintTooLong)
    }

    /// Takes the next `len` bytes, without a copy.
    pub fn take(&mut self, len: usize) -> Result<Bytes> {
        if len > self.buf.len() {
            return Err(WireError::LengthTooLarge);
        }
        Ok(self.buf.split_to(len))
    }

    /// Reads the length of an array or of bytes. `None` is null.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>> {
        let len =
            if flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i32()?) };
        self.checked(len)
    }

    /// Reads the length of a string. `None` is null.
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>> {
        let len =
            if flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i16()?) };
        self.checked(len)
    }

    fn checked(&self, len: i64) -> Result<Option<usize>> {
        match len {
            -1 => Ok(None),
            len if len < 0 => Err(WireError::UnexpectedNull),
            len if len as usize > self.buf.len() => Err(WireError::LengthTooLarge),
            len => Ok(Some(len as usize)),
        }
    }

    /// Calls `read` with the tag of each tagged field. If `read` returns false, it has read nothing
    /// and the field is skipped. If it returns true, it has read the field by its type. As in
    /// Kafka, the size field is then ignored.
    pub fn tagged_fields(
        &mut self,
        mut read: impl FnMut(u32, &mut Reader) -> Result<bool>,
    ) -> Result<()> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let len = self.unsigned_varint()? as usize;
            if !read(tag, self)? {
                self.take(len)?;
            }
        }
        Ok(())
    }
}

pub fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_length(out: &mut BytesMut, flexible: bool, len: Option<usize>) {
    match (flexible, len) {
        (true, None) => out.put_u8(0),
        (true, Some(len)) => put_unsigned_varint(out, len as u32 + 1),
        (false, None) => out.put_i32(-1),
        (false, Some(len)) => out.put_i32(len as i32),
    }
}

/// The type of a field in a message. `flexible` says whether the version of the enclosing message
/// uses compact lengths and tagged fields.
pub trait Field: Sized {
    fn read(reader: &mut Reader, flexible: bool, version: i16) -> Result<Self>;
    fn write(&self, out: &mut BytesMut, flexible: bool, version: i16);
}

/// A whole message or record that [`wire!`](crate::wire) declares.
pub trait WireMessage: Field {
    /// Decodes the message. Fails if bytes follow it.
    fn decode(bytes: Bytes, version: i16) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader, false, version)?;
        match reader.remaining() {
            0 => Ok(value),
            left => Err(WireError::TrailingBytes(left)),
        }
    }

    /// Decodes the message from the start of `bytes`. Ignores bytes that follow it, as Kafka does
    /// in the records of coordinators.
    fn decode_start(bytes: Bytes, version: i16) -> Result<Self> {
        Self::read(&mut Reader::new(bytes), false, version)
    }

    fn encode(&self, out: &mut BytesMut, version: i16) {
        self.write(out, false, version);
    }
}

macro_rules! number_field {
    ($($ty:ident: $put:ident),*) => {$(
        impl Field for $ty {
            fn read(reader: &mut Reader, _: bool, _: i16) -> Result<Self> {
                reader.$ty()
            }
            fn write(&self, out: &mut BytesMut, _: bool, _: i16) {
                out.$put(*self);
            }
        }
    )*};
}
number_field!(i8: put_i8, i16: put_i16, u16: put_u16, i32: put_i32, u32: put_u32, i64: put_i64,
    f64: put_f64);

impl Field for bool {
    fn read(reader: &mut Reader, _: bool, _: i16) -> Result<Self> {
        Ok(reader.u8()? != 0)
    }
    fn write(&self, out: &mut BytesMut, _: bool, _: i16) {
        out.put_u8(u8::from(*self));
    }
}

impl Field for Uuid {
    fn read(reader: &mut Reader, _: bool, _: i16) -> Result<Self> {
        let bytes = reader.take(16).map_err(|_| WireError::Truncated)?;
        Ok(Uuid::from_slice(&bytes).expect("16 bytes"))
    }
    fn write(&self, out: &mut BytesMut, _: bool, _: i16) {
        out.put_slice(self.as_bytes());
    }
}

impl Field for Option<String> {
    fn read(reader: &mut Reader, flexible: bool, _: i16) -> Result<Self> {
        let Some(len) = reader.string_length(flexible)? else { return Ok(None) };
        let bytes = reader.take(len)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| WireError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }
    fn write(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_text(out, flexible, self.as_deref());
    }
}

/// The text shares the bytes of the message. Copy the text to keep it, because otherwise the whole
/// frame stays in memory.
impl Field for Option<StrBytes> {
    fn read(reader: &mut Reader, flexible: bool, _: i16) -> Result<Self> {
        let Some(len) = reader.string_length(flexible)? else { return Ok(None) };
        let text = StrBytes::from_utf8(reader.take(len)?).map_err(|_| WireError::NotUtf8)?;
        Ok(Some(text))
    }
    fn write(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_text(out, flexible, self.as_deref());
    }
}

/// Writes a string. If its length field has two bytes and the text is longer, the text is cut,
/// because the message would not decode again otherwise.
fn put_text(out: &mut BytesMut, flexible: bool, text: Option<&str>) {
    let text = match flexible {
        true => text,
        false => text.map(|text| &text[..text.floor_char_boundary(i16::MAX as usize)]),
    };
    match (flexible, text) {
        (true, text) => put_length(out, true, text.map(str::len)),
        (false, None) => out.put_i16(-1),
        (false, Some(text)) => out.put_i16(text.len() as i16),
    }
    out.put_slice(text.unwrap_or_default().as_bytes());
}

impl Field for Option<Bytes> {
    fn read(reader: &mut Reader, flexible: bool, _: i16) -> Result<Self> {
        match reader.length(flexible)? {
            None => Ok(None),
            Some(len) => Ok(Some(reader.take(len)?)),
        }
    }
    fn write(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_length(out, flexible, self.as_ref().map(Bytes::len));
        out.put_slice(self.as_deref().unwrap_or_default());
    }
}

impl<T: Field> Field for Option<Vec<T>> {
    fn read(reader: &mut Reader, flexible: bool, version: i16) -> Result<Self> {
        let Some(len) = reader.length(flexible)? else { return Ok(None) };
        // Reserve at once as much as the shape check of requests allows. Growing by doubling would
        // take up to three times the memory of the elements.
        let bytes = reader.remaining().saturating_mul(2).saturating_add(1 << 20);
        let affordable = bytes / size_of::<T>().max(1);
        let mut items = Vec::with_capacity(len.min(affordable));
        for _ in 0..len {
            items.push(T::read(reader, flexible, version)?);
        }
        Ok(Some(items))
    }
    fn write(&self, out: &mut BytesMut, flexible: bool, version: i16) {
        put_length(out, flexible, self.as_ref().map(Vec::len));
        for item in self.iter().flatten() {
            item.write(out, flexible, version);
        }
    }
}

/// Implements [`Field`] for types that cannot be null. Null on the wire is an error.
macro_rules! not_null {
    ($([$($generic:tt)*] $ty:ty),*) => {$(
        impl<$($generic)*> Field for $ty {
            fn read(reader: &mut Reader, flexible: bool, version: i16) -> Result<Self> {
                let value = <Option<$ty> as Field>::read(reader, flexible, version)?;
                value.ok_or(WireError::UnexpectedNull)
            }
            fn write(&self, out: &mut BytesMut, flexible: bool, version: i16) {
                write_some(self, out, flexible, version);
            }
        }
    )*};
}
not_null!([] String, [] StrBytes, [] Bytes, [T: Field] Vec<T>);

/// Writes a value in the form of its nullable type.
trait WriteSome {
    fn write_some(&self, out: &mut BytesMut, flexible: bool, version: i16);
}

fn write_some(value: &impl WriteSome, out: &mut BytesMut, flexible: bool, version: i16) {
    value.write_some(out, flexible, version);
}

impl WriteSome for String {
    fn write_some(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_text(out, flexible, Some(self));
    }
}

impl WriteSome for StrBytes {
    fn write_some(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_text(out, flexible, Some(self));
    }
}

impl WriteSome for Bytes {
    fn write_some(&self, out: &mut BytesMut, flexible: bool, _: i16) {
        put_length(out, flexible, Some(self.len()));
        out.put_slice(self);
    }
}

impl<T: Field> WriteSome for Vec<T> {
    fn write_some(&self, out: &mut BytesMut, flexible: bool, version: i16) {
        put_length(out, flexible, Some(self.len()));
        for item in self {
            item.write(out, flexible, version);
        }
    }
}

/// Declares a message, a record or a part of one.
///
/// ```text
/// wire! {
///     /// A partition's change of state (KRaft PartitionChangeRecord).
///     pub struct Example (flexible 0..) {
///         name: String, in 0..;                    // plain field of versions 0 and up
///         count: i32 = -1, in 1..=2;               // with a default, in versions 1 and 2
///         isr: Option<Vec<i32>>, in 0.., tag 0;    // tagged field
///     }
/// }
/// ```
///
/// A struct that is never flexible says `flexible never`. A nested struct declares the same
/// `flexible` as its message.
#[macro_export]
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident (flexible $($flex:tt)*) {
        $($(#[$fmeta:meta])* $field:ident: $ty:ty $(= $default:expr)?, in $range:expr
            $(, tag $tag:literal)?;)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::wire!(@default $($default)?),)* }
            }
        }

        impl $name {
            fn is_flexible(version: i16) -> bool {
                $crate::wire!(@flexible version, $($flex)*)
            }
        }

        impl $crate::protocol::schema::WireMessage for $name {}

        impl $crate::protocol::schema::Field for $name {
            #[allow(unused_variables, unused_mut, unused_comparisons)]
            fn read(
                reader: &mut $crate::protocol::schema::Reader,
                _: bool,
                version: i16,
            ) -> $crate::protocol::schema::Result<Self> {
                let flexible = Self::is_flexible(version);
                let mut value = Self::default();
                $($crate::wire!(@read
                    value, reader, flexible, version, $field, $ty, $range $(, $tag)?);)*
                if flexible {
                    reader.tagged_fields(|tag, reader| {
                        $($(if tag == $tag && ($range).contains(&version) {
                            value.$field = $crate::protocol::schema::Field::read(
                                reader, true, version)?;
                            return Ok(true);
                        })?)*
                        Ok(false)
                    })?;
                }
                Ok(value)
            }

            #[allow(unused_variables, unused_mut, unused_comparisons)]
            fn write(&self, out: &mut bytes::BytesMut, _: bool, version: i16) {
                let flexible = Self::is_flexible(version);
                $($crate::wire!(@write self, out, flexible, version, $field, $range $(, $tag)?);)*
                if flexible {
                    let absent = Self::default();
                    let mut tagged: Vec<(u32, bytes::BytesMut)> = Vec::new();
                    $($(if ($range).contains(&version)
                        && self.$field != absent.$field
                    {
                        let mut field = bytes::BytesMut::new();
                        $crate::protocol::schema::Field::write(
                            &self.$field, &mut field, true, version);
                        tagged.push(($tag, field));
                    })?)*
                    $crate::protocol::schema::put_tagged(out, tagged);
                }
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@flexible $version:ident, never) => { { let _ = $version; false } };
    (@flexible $version:ident, $from:literal ..) => { $version >= $from };
    (@read $value:ident, $reader:ident, $flexible:ident, $version:ident,
        $field:ident, $ty:ty, $range:expr) => {
        if ($range).contains(&$version) {
            $value.$field =
                <$ty as $crate::protocol::schema::Field>::read($reader, $flexible, $version)?;
        }
    };
    (@read $value:ident, $reader:ident, $flexible:ident, $version:ident,
        $field:ident, $ty:ty, $range:expr, $tag:literal) => {};
    (@write $self:ident, $out:ident, $flexible:ident, $version:ident,
        $field:ident, $range:expr) => {
        if ($range).contains(&$version) {
            $crate::protocol::schema::Field::write(&$self.$field, $out, $flexible, $version);
        }
    };
    (@write $self:ident, $out:ident, $flexible:ident, $version:ident,
        $field:ident, $range:expr, $tag:literal) => {};
}

/// Writes the tagged fields and their count, sorted by tag as the format requires.
pub fn put_tagged(out: &mut BytesMut, mut tagged: Vec<(u32, BytesMut)>) {
    tagged.sort_by_key(|(tag, _)| *tag);
    put_unsigned_varint(out, tagged.len() as u32);
    for (tag, field) in tagged {
        put_unsigned_varint(out, tag);
        put_unsigned_varint(out, field.len() as u32);
        out.put_slice(&field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    wire! {
        /// A part.
        pub struct Part (flexible 2..) {
            id: i32, in 0..;
        }
        /// A whole.
        pub struct Whole (flexible 2..) {
            name: String, in 0..;
            note: Option<String>, in 1..;
            parts: Vec<Part>, in 0..;
            count: i32 = -1, in 1..=1;
            isr: Option<Vec<i32>>, in 2.., tag 1;
            state: i8 = -1, in 2.., tag 0;
        }
        /// Old.
        pub struct Old (flexible never) {
            key: Bytes, in 0..;
        }
    }

    fn round_trip(whole: &Whole, version: i16) -> Whole {
        let mut out = BytesMut::new();
        whole.encode(&mut out, version);
        Whole::decode(out.freeze(), version).expect("decodes")
    }

    #[test]
    fn fields_live_in_their_versions() {
        let whole = Whole {
            name: "n".into(),
            note: Some("x".into()),
            parts: vec![Part { id: 7 }, Part { id: 8 }],
            count: 3,
            isr: Some(vec![1, 2]),
            state: 4,
        };
        assert_eq!(round_trip(&whole, 2), Whole { count: -1, ..whole.clone() });
        assert_eq!(round_trip(&whole, 1), Whole { isr: None, state: -1, ..whole.clone() });
        let v0 = Whole { note: None, count: -1, isr: None, state: -1, ..whole.clone() };
        assert_eq!(round_trip(&whole, 0), v0);
    }

    #[test]
    fn a_text_too_long_for_its_length_is_cut() {
        let whole = Whole { name: "\u{fffd}".repeat(20_000), ..Whole::default() };
        let read = round_trip(&whole, 0).name;
        assert_eq!(read.len(), 32_766);
        assert!(whole.name.starts_with(&read));
        assert_eq!(round_trip(&whole, 2).name, whole.name);
    }

    #[test]
    fn a_message_that_is_never_flexible_has_plain_lengths_in_every_version() {
        let old = Old { key: Bytes::from_static(b"k") };
        for version in [0, 9] {
            let mut out = BytesMut::new();
            old.encode(&mut out, version);
            assert_eq!(out[..], [0, 0, 0, 1, b'k']);
            assert_eq!(Old::decode(out.freeze(), version), Ok(old.clone()));
        }
    }

    #[test]
    fn bad_lengths_are_errors() {
        for bytes in [&[0x7f, 0xff][..], &[0xff, 0xfe], &[0, 1, b'a', 0x7f, 0xff, 0xff, 0xff]] {
            assert!(Whole::decode(Bytes::copy_from_slice(bytes), 0).is_err(), "{bytes:?}");
        }
        assert_eq!(Whole::decode(Bytes::from_static(&[0xff; 8]), 2), Err(WireError::VarintTooLong));
    }
}
