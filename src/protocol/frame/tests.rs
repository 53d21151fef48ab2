//! Tests of frames: sizes, headers, and the shape check before the decoder.

use kafka_protocol::messages::MetadataRequest;

use super::*;

fn header(key: i16, version: i16, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(7);
    out.put_slice(rest);
    out.freeze()
}

fn request(frame: &mut Bytes) -> RequestHeader {
    match parse_header(frame).expect("a header") {
        Incoming::Request(header) => header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_is_taken_off_its_body() {
    let mut plain = header(3, 1, &[0, 1, b'c', 0, 0, 0, 0]);
    let parsed = request(&mut plain);
    assert_eq!((parsed.api.name, parsed.version, parsed.correlation_id), ("Metadata", 1, 7));
    assert_eq!(parsed.client_id.as_deref(), Some("c"));
    assert_eq!(plain.as_ref(), [0, 0, 0, 0]);

    let mut flexible = header(3, 9, &[0xff, 0xff, 1, 5, 2, b'z', b'z', 1, 0, 0, 0, 0]);
    assert_eq!(request(&mut flexible).client_id, None);
    assert_eq!(flexible.as_ref(), [1, 0, 0, 0, 0], "the unknown tagged field is gone");
}

#[test]
fn client_ids_are_read_as_leniently_as_kafka_does() {
    assert_eq!(request(&mut header(18, 0, &[0xff, 0xfe])).client_id, None);
    let replaced = request(&mut header(18, 0, &[0, 1, 0xff])).client_id;
    assert_eq!(replaced.as_deref(), Some("\u{fffd}"));
    let too_long = parse_header(&mut header(18, 0, &[0, 50, b'c']));
    assert_eq!(too_long, Err(DecodeError::Header(WireError::LengthTooLarge)));
}

#[test]
fn every_short_frame_is_an_error() {
    let whole = header(3, 9, &[0, 1, b'c', 0]);
    for len in 0..whole.len() {
        assert!(parse_header(&mut whole.slice(..len)).is_err(), "{len} bytes");
    }
}

#[test]
fn unknown_apis_and_versions_are_errors() {
    for key in [-1, 4, 999, i16::MAX] {
        let error = parse_header(&mut header(key, 0, &[0xff, 0xff]));
        assert_eq!(error, Err(DecodeError::UnknownApi(key)));
    }
    for version in [-1, 14] {
        let error = parse_header(&mut header(3, version, &[0xff, 0xff, 0]));
        let api = ApiKey::Metadata;
        assert_eq!(error, Err(DecodeError::UnsupportedVersion { api, version }));
    }
}

/// The expected bytes were recorded from Apache Kafka 4.3.1.
#[test]
fn an_unsupported_api_versions_is_answered_as_kafka_does() {
    for version in [-1, 5, 99] {
        let incoming = parse_header(&mut header(18, version, &[0, 1, b'c', 0]));
        assert_eq!(incoming, Ok(Incoming::UnsupportedApiVersions { correlation_id: 7 }));
    }
    let no_client_id = parse_header(&mut header(18, 99, &[]));
    assert_eq!(no_client_id, Err(DecodeError::Header(WireError::Truncated)));

    let kafka: [u8; 20] = [0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
    assert_eq!(unsupported_api_versions(7).as_ref(), kafka);
}

#[test]
fn frame_sizes_are_bounded() {
    assert_eq!(check_frame_size(0, 100), Ok(0));
    assert_eq!(check_frame_size(100, 100), Ok(100));
    assert_eq!(check_frame_size(101, 100), Err(DecodeError::FrameTooLarge { size: 101, max: 100 }));
    assert_eq!(check_frame_size(-1, 100), Err(DecodeError::NegativeFrame(-1)));
}

#[test]
fn body_is_decoded_after_shape_check() {
    let body = Bytes::from_static(&[0, 0, 0, 1, 0, 1, b't']);
    let request: MetadataRequest = decode_body(ApiKey::Metadata, 1, body).expect("decodes");
    assert_eq!(request.topics.expect("topics").len(), 1);

    let huge = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let refused = decode_body::<MetadataRequest>(ApiKey::Metadata, 1, huge);
    let (api, version, error) = (ApiKey::Metadata, 1, WireError::LengthTooLarge);
    assert_eq!(refused, Err(DecodeError::Body { api, version, error }));
}
