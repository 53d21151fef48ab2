//! Builds frames and malformed request bodies.

use kafka_protocol::messages::ApiKey;
use sordini::protocol::{
    api,
    shape::sample::{Length, Sample, Width},
};

pub const CORRELATION_ID: i32 = 7;

/// Returns the frame with its size before it.
pub fn sized(frame: &[u8]) -> Vec<u8> {
    let mut out = (frame.len() as u32).to_be_bytes().to_vec();
    out.extend(frame);
    out
}

/// Builds a request header with any API key and version, and the client id `c`.
pub fn header(api: i16, version: i16, flexible: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(api.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(CORRELATION_ID.to_be_bytes());
    out.extend([0, 1, b'c']);
    if flexible {
        out.push(0);
    }
    out
}

/// Builds a complete request of an API in the table, with its size and header.
pub fn request(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let row = api::find(api as i16).expect("in the table");
    let mut frame = header(api as i16, version, row.is_flexible(version));
    frame.extend(body);
    sized(&frame)
}

pub fn varint(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Returns copies of the body with wrong values for one length, and two that end at that length.
pub fn lies(sample: &Sample, length: Length) -> Vec<Vec<u8>> {
    let body = &sample.body;
    let (before, after) = body.split_at(length.at);
    let values: Vec<Vec<u8>> = match length.width {
        Width::I16 => {
            [i16::MAX, i16::MIN, -1, -2, 0, 2, 100].map(|n| n.to_be_bytes().into()).into()
        }
        Width::I32 => {
            let left = after.len() as i32 - 4;
            let counts = [i32::MAX, i32::MIN, -1, -2, 0, 2, 0x10_0000, left, left + 1];
            counts.map(|n| n.to_be_bytes().into()).into()
        }
        Width::Varint => {
            let left = after.len() as u32;
            let mut all: Vec<_> =
                [u32::MAX, 0x8000_0000, 0, 1, 3, 0x10_0000, left, left + 1].map(varint).into();
            // Malformed varints: too long, much too long, more than 32 bits, a padded 1.
            all.push(vec![0x81, 0x80, 0x80, 0x80, 0x80, 0x01]);
            all.push(vec![0xff; 12]);
            all.push(vec![0xff, 0xff, 0xff, 0xff, 0x7f]);
            all.push(vec![0x81, 0x80, 0x80, 0x80, 0x00]);
            all
        }
    };
    let old_len = match length.width {
        Width::I16 => 2,
        Width::I32 => 4,
        // Lengths in samples are small: one byte.
        Width::Varint => 1,
    };
    let mut lies: Vec<Vec<u8>> =
        values.into_iter().map(|value| [before, &value, &after[old_len..]].concat()).collect();
    // Bodies that end before and after the length.
    lies.push(before.to_vec());
    lies.push(body[..length.at + old_len].to_vec());
    lies
}
