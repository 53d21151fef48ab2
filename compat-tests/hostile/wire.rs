//! Bytes to attack with.

use kafka_protocol::messages::ApiKey;
use sordini::protocol::{
    api,
    shape::sample::{Length, Sample, Width},
};

pub const CORRELATION_ID: i32 = 7;

/// A frame with its size: what may come after it is up to the caller.
pub fn sized(frame: &[u8]) -> Vec<u8> {
    let mut out = (frame.len() as u32).to_be_bytes().to_vec();
    out.extend(frame);
    out
}

/// A header of any key and version, with the client id `c`.
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

/// A whole request of an API in the table, size and all.
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

/// Every way to lie about one length of a body.
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
            // Too long, too long by far, with a bit beyond the 32nd, one at length, and without
            // end.
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
        // The sample's own are small.
        Width::Varint => 1,
    };
    let mut lies: Vec<Vec<u8>> =
        values.into_iter().map(|value| [before, &value, &after[old_len..]].concat()).collect();
    // And the frame may end there.
    lies.push(before.to_vec());
    lies.push(body[..length.at + old_len].to_vec());
    lies
}
