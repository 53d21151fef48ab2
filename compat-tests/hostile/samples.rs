//! Frames with the reactions of Apache Kafka 4.3.1 to them.

use super::wire::{header, sized};

/// The expected reaction of the broker.
pub enum Expected {
    Closed,
    Answered,
    Exactly(&'static [u8]),
}
use Expected::*;

pub type Sample = (&'static str, Vec<u8>, Expected);

/// An ApiVersions response of version 0: UNSUPPORTED_VERSION, with the row of ApiVersions only.
const UNSUPPORTED: &[u8] = &[0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
/// An ApiVersions response of version 3: INVALID_REQUEST, with no rows.
const INVALID_REQUEST: &[u8] = &[0, 0, 0, 7, 0, 42, 1, 0, 0, 0, 0, 0];

pub fn all() -> impl Iterator<Item = Sample> {
    keys_and_versions().into_iter().chain(bodies()).chain(frames())
}

fn plain(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    sized(&[&header(api, version, false), body].concat())
}

fn compact(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    sized(&[&header(api, version, true), body].concat())
}

fn fetch_12(tags: &[u8]) -> Vec<u8> {
    let (replica_id, wait_and_bytes) = ([0xff; 4], [0; 12]);
    let (isolation, session_id, epoch, lists) = ([0], [0; 4], [0xff; 4], [1, 1, 1]);
    let parts: [&[u8]; 7] =
        [&replica_id, &wait_and_bytes, &isolation, &session_id, &epoch, &lists, tags];
    compact(1, 12, &parts.concat())
}

fn keys_and_versions() -> Vec<Sample> {
    vec![
        ("ApiVersions 0", plain(18, 0, &[]), Answered),
        ("ApiVersions 0 with more", plain(18, 0, b"zzz"), Answered),
        ("ApiVersions 3 with more", compact(18, 3, b"\x02a\x02b\0zzz"), Answered),
        ("ApiVersions 3, bad name", compact(18, 3, b"\x02$\x02b\0"), Exactly(INVALID_REQUEST)),
        ("ApiVersions 5", compact(18, 5, b"\x02a\x02b\0"), Exactly(UNSUPPORTED)),
        ("ApiVersions 99", compact(18, 99, &[]), Exactly(UNSUPPORTED)),
        ("ApiVersions -1", plain(18, -1, &[]), Exactly(UNSUPPORTED)),
        ("ApiVersions 99, half a header", sized(&[0, 18, 0, 99, 0, 0, 0, 7]), Closed),
        ("unknown key 1000", plain(1000, 0, &[]), Closed),
        ("unknown key -1", plain(-1, 0, &[]), Closed),
        ("a key of old", plain(4, 0, &[]), Closed),
        ("Metadata 14", compact(3, 14, &[]), Closed),
        ("Produce 2", plain(0, 2, &[0; 16]), Closed),
    ]
}

fn bodies() -> Vec<Sample> {
    vec![
        ("Metadata 1", plain(3, 1, &[0; 4]), Answered),
        ("Metadata 1 with more", plain(3, 1, &[0, 0, 0, 0, 9, 9]), Answered),
        ("Metadata 1, huge", plain(3, 1, &[0x7f, 0xff, 0xff, 0xff]), Closed),
        ("Metadata 0, null", plain(3, 0, &[0xff; 4]), Closed),
        ("Metadata 1, null name", plain(3, 1, &[0, 0, 0, 1, 0xff, 0xff]), Closed),
        ("Metadata 1, name of -2", plain(3, 1, &[0, 0, 0, 1, 0xff, 0xfe]), Closed),
        ("Metadata 4, a Boolean of 2", plain(3, 4, &[0, 0, 0, 0, 2]), Answered),
        (
            "Metadata 9, one in five bytes",
            compact(3, 9, &[0x81, 0x80, 0x80, 0x80, 0, 0, 0, 0, 0]),
            Answered,
        ),
        (
            "Metadata 9, six bytes",
            compact(3, 9, &[0x81, 0x80, 0x80, 0x80, 0x80, 0, 0, 0, 0, 0]),
            Closed,
        ),
        ("Metadata 9, unknown tag", compact(3, 9, &[1, 0, 0, 0, 1, 5, 2, 9, 9]), Answered),
        ("Metadata 9, tag twice", compact(3, 9, &[1, 0, 0, 0, 2, 5, 1, 9, 5, 1, 9]), Answered),
        ("Metadata 9, tags unordered", compact(3, 9, &[1, 0, 0, 0, 2, 6, 1, 9, 5, 1, 9]), Answered),
        ("Fetch 12, known tag", fetch_12(&[1, 0, 2, 2, b'x']), Answered),
        ("Fetch 12, known tag, size too large", fetch_12(&[1, 0, 3, 2, b'x']), Answered),
        ("Fetch 12, known tag, size zero", fetch_12(&[1, 0, 0, 2, b'x']), Answered),
    ]
}

fn frames() -> Vec<Sample> {
    vec![
        ("an empty frame", sized(&[]), Closed),
        ("a frame of two", sized(&[0, 18]), Closed),
        ("a frame of four", sized(&[0, 18, 0, 0]), Closed),
        ("no client id", sized(&[0, 18, 0, 0, 0, 0, 0, 7]), Closed),
        ("null client id", sized(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]), Answered),
        ("client id of -2", sized(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xfe]), Answered),
        ("client id too long", sized(&[0, 18, 0, 0, 0, 0, 0, 7, 0, 50]), Closed),
        ("client id not UTF-8", sized(&[0, 18, 0, 0, 0, 0, 0, 7, 0, 1, 0xff]), Answered),
        ("a negative frame", vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], Closed),
        ("a frame of 100 MiB and one", vec![6, 0x40, 0, 1, 0, 0, 0, 0], Closed),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Closed),
    ]
}
