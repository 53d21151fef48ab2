//! The shape check before the decoders. The message crate reserves memory for every array by the
//! count on the wire, so four bytes can make it reserve 4 GiB. It also accepts varints of any
//! length. Therefore, each request is first walked field by field along its shape, which allocates
//! almost nothing. It is decoded only if the walk reaches the last field.
//!
//! The walk refuses what Apache Kafka refuses:
//! - a length beyond the frame,
//! - a negative length where null is not allowed,
//! - an array with more elements than bytes are left,
//! - a string above 32,767 bytes,
//! - a varint above five bytes.
//!
//! As in Kafka, any negative length is null where null is allowed, bytes after the last field are
//! ignored, and the size of a known tagged field follows from its type, not from its size field.
//!
//! Because the decoders do so, the walk also refuses three things that Kafka accepts and that no
//! client sends:
//! - strings that are not UTF-8,
//! - a count of tagged fields that Kafka reads as negative, and therefore as zero,
//! - tagged fields that only other versions have.
//!
//! This module does not know what a field means. Invariant: decoding a request that passes
//! allocates at most [`memory_limit`] bytes.

mod parse;
#[cfg(any(test, feature = "simulation"))]
pub mod sample;
mod table;

use std::{ops::Range, sync::LazyLock};

use bytes::Bytes;

use super::{
    api,
    schema::{Result, WireError},
};
use parse::{Field, Kind};

/// The most memory, in bytes, that decoding a request of `len` bytes may take.
///
/// Strings, bytes and records are slices of the frame, so only array elements take memory. Of all
/// real requests, a Fetch of topics with one partition each takes the most per byte: 176 bytes for
/// 51 bytes on the wire. A limit of 1 MiB and twice the frame allows 14,000 such topics, 20,000
/// topics in Metadata, and 50,000 partitions of one topic in Fetch or OffsetCommit. It refuses
/// frames that consist of small elements only from about 15,000 elements on. (A topic name of two
/// bytes takes 72 bytes in memory, a tagged field of one byte up to 450.) The limit is never above
/// 4 MiB, because larger requests consist of records or group metadata, which take no memory here.
pub const fn memory_limit(len: usize) -> usize {
    const MIB: usize = 1 << 20;
    let grown = MIB.saturating_add(len.saturating_mul(2));
    if grown < 4 * MIB { grown } else { 4 * MIB }
}

/// Java reads the length of a string as a signed 16-bit number, compact or not.
const STRING_LEN_MAX: usize = i16::MAX as usize;

/// The memory, in bytes, of unknown tagged fields in the crate's map. The first one allocates a
/// node with eleven places. Each further one takes about a hundred bytes, because nodes are half
/// full.
const FIRST_UNKNOWN_TAG: usize = 448;
const NEXT_UNKNOWN_TAG: usize = 104;

static SHAPES: LazyLock<Vec<(i16, Vec<Field>)>> = LazyLock::new(|| {
    table::REQUESTS.iter().map(|(key, text)| (*key as i16, parse::fields(text))).collect()
});

fn shape(api: i16) -> Option<&'static [Field]> {
    let at = SHAPES.binary_search_by_key(&api, |(key, _)| *key).ok()?;
    Some(&SHAPES[at].1)
}

/// Checks the body of a request, without its header, against its shape. Returns the bytes to
/// decode. These are `body` itself, or a copy if it has lengths below -1: they mean null, but the
/// decoders accept only -1 as null.
///
/// # Errors
/// The first fault that the walk finds. An API without a shape is an `UnsupportedVersion`, too.
pub fn check_request(api: i16, version: i16, body: Bytes) -> Result<Bytes> {
    let walked = walk(api, version, &body)?;
    if walked.odd_nulls.is_empty() {
        return Ok(body);
    }
    let mut plain = body.to_vec();
    for place in walked.odd_nulls {
        plain[place].fill(0xff); // -1
    }
    Ok(plain.into())
}

/// The result of a walk that reached the last field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Walked {
    /// Bytes after the last field.
    trailing: usize,
    /// An upper bound of what decoding allocates, in bytes.
    memory: usize,
    /// The places of lengths below -1, as ranges of bytes in the body.
    odd_nulls: Vec<Range<usize>>,
}

fn walk(api: i16, version: i16, body: &[u8]) -> Result<Walked> {
    let unsupported = WireError::UnsupportedVersion(version);
    let row = api::find(api).ok_or(unsupported)?;
    if !row.versions().contains(&version) {
        return Err(unsupported);
    }
    let fields = shape(api).ok_or(unsupported)?;
    let limit = memory_limit(body.len());
    let flexible = row.is_flexible(version);
    let mut walk = Walk {
        rest: body,
        len: body.len(),
        version,
        flexible,
        memory_left: limit,
        odd_nulls: Vec::new(),
    };
    walk.fields(fields)?;
    let (trailing, memory) = (walk.rest.len(), limit - walk.memory_left);
    Ok(Walked { trailing, memory, odd_nulls: walk.odd_nulls })
}

/// A walk in progress.
struct Walk<'a> {
    /// The bytes that have not been walked yet.
    rest: &'a [u8],
    /// The length of the whole body in bytes.
    len: usize,
    version: i16,
    flexible: bool,
    memory_left: usize,
    odd_nulls: Vec<Range<usize>>,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, fields: &[Field]) -> Result<()> {
        for field in fields {
            if field.tag.is_none() && field.versions.contains(&self.version) {
                self.value(field)?;
            }
        }
        if self.flexible { self.tagged(fields) } else { Ok(()) }
    }

    fn tagged(&mut self, fields: &[Field]) -> Result<()> {
        let mut unknown_cost = FIRST_UNKNOWN_TAG;
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()?;
            let known =
                |field: &&Field| field.tag == Some(tag) && field.versions.contains(&self.version);
            match fields.iter().find(known) {
                Some(field) => self.value(field)?,
                None if fields.iter().any(|field| field.tag == Some(tag)) => {
                    return Err(WireError::TagOfOtherVersions);
                }
                None => {
                    self.take(size as usize)?;
                    self.pay(unknown_cost)?;
                    unknown_cost = NEXT_UNKNOWN_TAG;
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, field: &Field) -> Result<()> {
        let nullable = self.version >= field.null_from;
        match &field.kind {
            Kind::Array(item) => self.array(item, nullable),
            Kind::Struct(fields) if nullable => match self.take(1)?[0] as i8 {
                -1 => Ok(()),
                1 => self.fields(fields),
                _ => Err(WireError::UnexpectedNull),
            },
            kind => self.plain(kind, nullable),
        }
    }

    fn plain(&mut self, kind: &Kind, nullable: bool) -> Result<()> {
        match kind {
            Kind::Fixed(len) => self.take(*len).map(|_| ()),
            Kind::Text => {
                let Some(len) = self.text_len(nullable)? else { return Ok(()) };
                let text = self.take(len)?;
                std::str::from_utf8(text).map(|_| ()).map_err(|_| WireError::NotUtf8)
            }
            Kind::Bytes => {
                let Some(len) = self.len(nullable)? else { return Ok(()) };
                self.take(len).map(|_| ())
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Array(item) => self.array(item, nullable),
        }
    }

    fn array(&mut self, item: &Kind, nullable: bool) -> Result<()> {
        let Some(count) = self.len(nullable)? else { return Ok(()) };
        self.pay(count.saturating_mul(item.memory()))?;
        if let Kind::Fixed(len) = item {
            return self.take(count.saturating_mul(*len)).map(|_| ());
        }
        for _ in 0..count {
            self.plain(item, false)?;
        }
        Ok(())
    }

    /// Subtracts memory that the decoder will allocate from what is left of the limit.
    fn pay(&mut self, bytes: usize) -> Result<()> {
        self.memory_left = self.memory_left.checked_sub(bytes).ok_or(WireError::TooManyElements)?;
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u32> {
        // Nearly all lengths and counts fit in one byte.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u32::from(*byte));
        }
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::VarintTooLong)
    }

    /// Reads the length of an array, of bytes or of records. `None` is null.
    fn len(&mut self, nullable: bool) -> Result<Option<usize>> {
        let len = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            let bytes = self.take(4)?.try_into().expect("sliced to length");
            i64::from(i32::from_be_bytes(bytes))
        };
        self.bounded(len, 4, nullable)
    }

    /// Reads the length of a string. `None` is null.
    fn text_len(&mut self, nullable: bool) -> Result<Option<usize>> {
        let len = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            let bytes = self.take(2)?.try_into().expect("sliced to length");
            i64::from(i16::from_be_bytes(bytes))
        };
        match self.bounded(len, 2, nullable)? {
            Some(len) if len > STRING_LEN_MAX => Err(WireError::LengthTooLarge),
            len => Ok(len),
        }
    }

    /// Checks a length. Every element takes at least one byte, so a length above the number of
    /// bytes that are left is invalid. `width` is the size in bytes of a length that is not
    /// compact. A compact length is never below -1.
    fn bounded(&mut self, len: i64, width: usize, nullable: bool) -> Result<Option<usize>> {
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(Some(len)),
            Ok(_) => Err(WireError::LengthTooLarge),
            Err(_) if len == -1 && nullable => Ok(None),
            Err(_) if nullable => self.odd_null(width).map(|()| None),
            Err(_) => Err(WireError::UnexpectedNull),
        }
    }

    /// Notes that the length just read must become -1 in a copy of the body.
    fn odd_null(&mut self, width: usize) -> Result<()> {
        if self.odd_nulls.is_empty() {
            self.pay(self.len)?;
        }
        self.pay(2 * size_of::<Range<usize>>())?; // a growing list has room for twice as many
        let end = self.len - self.rest.len();
        self.odd_nulls.push(end - width..end);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
