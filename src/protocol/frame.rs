//! Frames: their size field, the request header, and the decoding of a body after the shape check.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::ApiKey,
    protocol::{Decodable, StrBytes},
};

use super::{
    api::{self, Api},
    error_code::ErrorCode,
    schema::{Reader, WireError},
    shape,
};

/// Why a frame is not a valid request. As in Kafka, the connection is closed without a response.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("frame size {0} is negative")]
    NegativeFrame(i32),
    #[error("frame size {size} is above socket.request.max.bytes ({max})")]
    FrameTooLarge { size: i32, max: i32 },
    #[error("request header: {0}")]
    Header(WireError),
    #[error("API key {0} is not known")]
    UnknownApi(i16),
    #[error("{api:?} has no version {version}")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("{api:?} version {version}: {error}")]
    Body { api: ApiKey, version: i16, error: WireError },
    #[error("{api:?} version {version} passed the shape check but does not decode: {error}")]
    Message { api: ApiKey, version: i16, error: String },
}

/// Checks the size field of a frame, as Kafka's `NetworkReceive` does, and returns the size in
/// bytes. [`parse_header`] refuses a frame that is too short for a header.
pub fn check_frame_size(size: i32, max: i32) -> Result<usize, DecodeError> {
    if size > max {
        return Err(DecodeError::FrameTooLarge { size, max });
    }
    usize::try_from(size).map_err(|_| DecodeError::NegativeFrame(size))
}

/// The header of a request in a supported version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api: &'static Api,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// The kind of a frame, by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Request(RequestHeader),
    /// ApiVersions in a version that this broker lacks. [`unsupported_api_versions`] is the
    /// response, so that the client can choose a version that both have (KIP-511).
    UnsupportedApiVersions {
        correlation_id: i32,
    },
    /// A message that controllers send each other, with [`RAFT_KEY`] as its API key.
    Raft {
        correlation_id: i32,
    },
}

/// The API key of Raft messages between controllers. They are openraft's messages and not KRaft's,
/// so their key is not one of Kafka's. A request is this key, a version, a correlation id and the
/// message. A response is the correlation id and the answer.
pub const RAFT_KEY: i16 = i16::from_be_bytes(*b"Ra");
const RAFT_VERSION: i16 = 0;

/// The request, without its size field, that sends a Raft message to another controller.
pub fn raft_request(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + message.len());
    out.put_i16(RAFT_KEY);
    out.put_i16(RAFT_VERSION);
    out.put_i32(0);
    out.put_slice(message);
    out.freeze()
}

/// The response frame, with its size field, to a Raft message.
pub fn raft_response(correlation_id: i32, answer: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(8 + answer.len());
    out.put_u32(4 + answer.len() as u32);
    out.put_i32(correlation_id);
    out.put_slice(answer);
    out
}

/// Parses the header of a frame and removes it, so that `frame` is the body.
pub fn parse_header(frame: &mut Bytes) -> Result<Incoming, DecodeError> {
    let mut reader = Reader::new(frame.clone());
    let (key, version, correlation_id) = read_numbers(&mut reader).map_err(DecodeError::Header)?;
    if (key, version) == (RAFT_KEY, RAFT_VERSION) {
        *frame = reader.into_rest();
        return Ok(Incoming::Raft { correlation_id });
    }
    let api = api::find(key).ok_or(DecodeError::UnknownApi(key))?;
    let supported = api.versions().contains(&version);
    if !supported && api.key != ApiKey::ApiVersions {
        return Err(DecodeError::UnsupportedVersion { api: api.key, version });
    }
    // The rest of the header must be well formed even for an unsupported ApiVersions.
    let client_id = read_client_id(&mut reader).map_err(DecodeError::Header)?;
    if api.request_header_version(version) == 2 {
        reader.tagged_fields(|_, _| Ok(false)).map_err(DecodeError::Header)?;
    }
    if !supported {
        return Ok(Incoming::UnsupportedApiVersions { correlation_id });
    }
    *frame = reader.into_rest();
    Ok(Incoming::Request(RequestHeader { api, version, correlation_id, client_id }))
}

fn read_numbers(reader: &mut Reader) -> Result<(i16, i16, i32), WireError> {
    Ok((reader.i16()?, reader.i16()?, reader.i32()?))
}

/// Reads the client id. As in Kafka, any negative length is null, and bytes that are not UTF-8 are
/// replaced.
fn read_client_id(reader: &mut Reader) -> Result<Option<StrBytes>, WireError> {
    let Ok(len) = usize::try_from(reader.i16()?) else { return Ok(None) };
    let bytes = reader.take(len)?;
    let lossy = |bytes: Bytes| StrBytes::from_string(String::from_utf8_lossy(&bytes).into_owned());
    Ok(Some(StrBytes::from_utf8(bytes.clone()).unwrap_or_else(|_| lossy(bytes))))
}

/// Checks the body of a request against its shape, and then decodes it.
pub fn decode_body<R: Decodable>(api: ApiKey, version: i16, body: Bytes) -> Result<R, DecodeError> {
    let checked = shape::check_request(api as i16, version, body);
    let mut body = checked.map_err(|error| DecodeError::Body { api, version, error })?;
    R::decode(&mut body, version).map_err(|error| DecodeError::Message {
        api,
        version,
        error: error.to_string(),
    })
}

/// Appends the response header for `version` of `api`.
pub fn put_response_header(out: &mut BytesMut, api: &Api, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if api.response_header_version(version) == 1 {
        out.put_u8(0); // no tagged fields
    }
}

/// The response frame, with its size field, to [`Incoming::UnsupportedApiVersions`]. It is version
/// 0 of the response, with UNSUPPORTED_VERSION and only the versions of ApiVersions itself.
pub fn unsupported_api_versions(correlation_id: i32) -> BytesMut {
    const BODY_LEN: i32 = 2 + 4 + 6;
    let mut out = BytesMut::with_capacity(4 + 4 + BODY_LEN as usize);
    let row = api::find(ApiKey::ApiVersions as i16).expect("in the table");
    out.put_i32(4 + BODY_LEN);
    put_response_header(&mut out, row, 0, correlation_id);
    out.put_i16(ErrorCode::UnsupportedVersion.code());
    out.put_i32(1);
    for number in [row.key as i16, row.min, row.max] {
        out.put_i16(number);
    }
    out
}

#[cfg(test)]
mod tests;
