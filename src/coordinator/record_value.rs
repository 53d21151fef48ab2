//! Values of the records of coordinators: a version, then the value in that version.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::schema::{Reader, WireError, WireMessage};

pub fn encode(value: &impl WireMessage, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version);
    value.encode(&mut out, version);
    out.freeze()
}

/// Decodes a value of version 0 to `newest`. Ignores bytes that follow it.
///
/// # Errors
/// The value is invalid or has another version.
pub fn decode<T: WireMessage>(value: Bytes, newest: i16) -> Result<T, WireError> {
    let mut reader = Reader::new(value);
    let version = reader.i16()?;
    if !(0..=newest).contains(&version) {
        return Err(WireError::UnsupportedVersion(version));
    }
    T::decode_start(reader.into_rest(), version)
}
