//! Validation of produced batches. The expected results are what Apache Kafka 4.3.1 answered to the
//! same bytes in a produce request (version 8), unless a test says that Sordini differs.

use super::RefusedKind::*;
use super::*;
use crate::records::builder::{BatchBuilder, BatchOptions, NO_TIMESTAMP};
use crate::records::varint::{write_i32, write_i64};
use crate::records::{compress, crc};
use proptest::prelude::*;

mod recompress;
mod timestamps;

const NOW: i64 = 1_795_265_918_832;
const HOUR: i64 = 3_600_000;
const BY_LOG: i16 = 0x08;
const CONTROL: i16 = 0x20;

fn rules() -> AppendRules {
    AppendRules {
        partition: TopicPartition::new("topic", 0),
        now_ms: NOW,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: HOUR,
        compression: TopicCompression::Producer,
        max_message_bytes: 1_048_588,
        compacted: false,
        max_decompressed: 1 << 20,
        zstd_allowed: true,
    }
}

/// A record whose fields may be invalid.
#[derive(Clone)]
struct Raw {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'static [u8]>,
    size_change: i32,
    header_count: i32,
    tail: &'static [u8],
}

fn raw(offset_delta: i32) -> Raw {
    let tail = b"";
    Raw { timestamp_delta: 0, offset_delta, key: None, size_change: 0, header_count: 0, tail }
}

impl Raw {
    fn at(self, timestamp_delta: i64) -> Self {
        Self { timestamp_delta, ..self }
    }

    fn key(self, key: &'static [u8]) -> Self {
        Self { key: Some(key), ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut body = vec![0];
        write_i64(&mut body, self.timestamp_delta);
        write_i32(&mut body, self.offset_delta);
        write_i32(&mut body, self.key.map_or(-1, |key| key.len() as i32));
        body.extend_from_slice(self.key.unwrap_or_default());
        write_i32(&mut body, 1);
        body.push(b'v');
        write_i32(&mut body, self.header_count);
        body.extend_from_slice(self.tail);
        let mut out = vec![];
        write_i32(&mut out, body.len() as i32 + self.size_change);
        out.extend_from_slice(&body);
        out
    }
}

fn payload(records: &[Raw]) -> Vec<u8> {
    records.iter().flat_map(Raw::bytes).collect()
}

/// A batch with any payload whose header declares `count` records. `change` runs before the CRC is
/// computed.
fn batch_of(payload: &[u8], count: i32, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader {
        base_offset: 0,
        batch_length: 49 + payload.len() as i32,
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count.wrapping_sub(1),
        base_timestamp: NOW,
        max_timestamp: NOW,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    };
    change(&mut header);
    let mut batch = Batch { header, payload: Bytes::copy_from_slice(payload) };
    batch.header.crc = batch.computed_crc();
    let mut out = vec![];
    batch.write_to(&mut out);
    out
}

fn batch(records: &[Raw]) -> Vec<u8> {
    batch_of(&payload(records), records.len() as i32, |_| {})
}

fn good() -> Vec<u8> {
    batch(&[raw(0)])
}

/// The good batch, with some of its bytes replaced after the CRC was computed.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = good();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch
}

fn validate(bytes: &[u8], rules: &AppendRules) -> Result<Batch, AppendRefused> {
    let batch = validate_for_append(Some(Bytes::copy_from_slice(bytes)), rules)?;
    batch.verify_crc().unwrap();
    assert_eq!(batch.header.size(), batch.size());
    Ok(batch)
}

#[track_caller]
fn accepted(bytes: &[u8], rules: &AppendRules) -> Batch {
    validate(bytes, rules).unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], rules: &AppendRules) -> AppendRefused {
    validate(bytes, rules).unwrap_err()
}

/// Checks that the batch is refused with this kind, without record errors and without a message to
/// the client.
#[track_caller]
fn check(bytes: &[u8], kind: RefusedKind) {
    let refused = refused(bytes, &rules());
    assert_eq!((refused.kind, refused.wire_message()), (kind, None), "{refused}");
    assert!(refused.record_errors.is_empty());
}

#[test]
fn a_good_batch_passes_as_it_is() {
    let bytes = good();
    let batch = accepted(&bytes, &rules());
    let mut out = vec![];
    batch.write_to(&mut out);
    assert_eq!(out, bytes);
}

#[test]
fn nothing_is_refused() {
    for nothing in [None, Some(Bytes::new())] {
        assert_eq!(validate_for_append(nothing, &rules()).unwrap_err().kind, InvalidRecord);
    }
}

#[test]
fn exactly_one_batch() {
    check(&[good(), good()].concat(), InvalidRecord);
    let base_5 = batch_of(&payload(&[raw(0)]), 1, |header| header.base_offset = 5);
    check(&[base_5, good()].concat(), InvalidRecord);
    // An incomplete second batch is dropped.
    let cut = good();
    for tail in [&b"abc"[..], &cut[..cut.len() - 1], &cut[..16]] {
        let batch = accepted(&[&good()[..], tail].concat(), &rules());
        assert_eq!(batch.size(), cut.len());
    }
    for tail in [&[0; 13][..], &[0; 20], &[0xff; 20], &patched(16, &[3])] {
        check(&[&good()[..], tail].concat(), CorruptMessage);
    }
    let overflow = patched(8, &i32::MAX.to_be_bytes());
    check(&[good(), overflow].concat(), UnknownServerError);
}

#[test]
fn magic() {
    check(&patched(16, &[0]), InvalidRecord);
    check(&patched(16, &[1]), InvalidRecord);
    for (magic, message) in
        [(3, "Invalid magic found in record: 3"), (0xff, "Invalid magic found in record: -1")]
    {
        let refused = refused(&patched(16, &[magic]), &rules());
        assert_eq!((refused.kind, refused.wire_message()), (CorruptMessage, Some(message)));
    }
}

#[test]
fn lengths() {
    let with_length = |length: i32| patched(8, &length.to_be_bytes());
    for length in [-1, 0, 13] {
        let refused = refused(&with_length(length), &rules());
        let message = format!("Record size {length} is less than the minimum record overhead (14)");
        assert_eq!((refused.kind, refused.wire_message()), (CorruptMessage, Some(&message[..])));
    }
    let length = good().len() as i32 - 12;
    for short in [14, 20, 48, 49, 50, length - 1] {
        check(&with_length(short), CorruptMessage);
    }
    for long in [length + 1, 1 << 30, i32::MAX - 12] {
        check(&with_length(long), InvalidRecord);
    }
    check(&with_length(i32::MAX - 11), UnknownServerError);
    check(&with_length(i32::MAX), UnknownServerError);
    for cut in 0..good().len() {
        check(&good()[..cut], InvalidRecord);
    }
}

#[test]
fn crc() {
    check(&patched(17, &[0; 4]), CorruptMessage);
    let mut flipped = good();
    *flipped.last_mut().unwrap() ^= 1;
    check(&flipped, CorruptMessage);
}

#[test]
fn counts_and_offsets() {
    let one = payload(&[raw(0)]);
    let two = payload(&[raw(0), raw(1)]);
    let header = |payload: &[u8], count: i32, last_offset_delta: i32| {
        batch_of(payload, count, |header| header.last_offset_delta = last_offset_delta)
    };
    check(&header(b"", 0, -1), InvalidRecord);
    check(&header(b"", 1, 0), InvalidRecord);
    check(&header(&one, 0, 0), InvalidRecord);
    check(&header(&one, 0, -1), InvalidRecord);
    check(&header(&one, -1, 0), InvalidRecord);
    check(&header(&two, 2, 0), InvalidRecord);
    check(&header(&two, 1, 1), InvalidRecord);
    check(&header(&one, 1, -5), InvalidRecord);
    check(&header(&one, i32::MIN, i32::MAX), InvalidRecord);
    check(&header(&one, 2, 1), InvalidRecord);
    check(&header(&two, 1, 0), InvalidRecord);
    check(&header(&[&one[..], &[0]].concat(), 1, 0), InvalidRecord);
    for base_offset in [5, -1] {
        check(&batch_of(&one, 1, |header| header.base_offset = base_offset), InvalidRecord);
    }
    // Kafka does not check the offset deltas of uncompressed records.
    for deltas in [[5, 9], [0, 0], [-1, 1]] {
        accepted(&batch(&deltas.map(raw)), &rules());
    }
}

#[test]
fn producers_and_control_batches() {
    let one = payload(&[raw(0)]);
    check(&batch_of(&one, 1, |header| header.attributes = CONTROL), InvalidRecord);
    let with_producer = |epoch: i16, sequence: i32| {
        batch_of(&one, 1, |header| {
            header.producer_id = 99;
            header.producer_epoch = epoch;
            header.base_sequence = sequence;
        })
    };
    check(&with_producer(0, -1), InvalidRecord);
    check(&with_producer(0, -7), InvalidRecord);
    accepted(&with_producer(0, 0), &rules());
    accepted(&with_producer(-1, 0), &rules());
    accepted(&batch_of(&one, 1, |header| header.base_sequence = 5), &rules());
    // Unknown bits and a delete horizon are accepted.
    for attributes in [0x40, 0x80, 0x4000] {
        let batch = accepted(&batch_of(&one, 1, |h| h.attributes = attributes), &rules());
        assert_eq!(batch.header.attributes, attributes);
    }
}

#[test]
fn codecs() {
    let one = payload(&[raw(0)]);
    for codec in 5..8 {
        check(&batch_of(&one, 1, |header| header.attributes = codec), UnknownServerError);
        let no_records = batch_of(&one, 0, |header| header.attributes = codec);
        check(&no_records, UnknownServerError);
    }
    for codec in 1..5 {
        for garbage in [&b"garbagegarbage"[..], b""] {
            let bytes = batch_of(garbage, 1, |header| header.attributes = codec);
            if codec == 4 && garbage.is_empty() {
                check(&bytes, InvalidRecord);
            } else {
                check(&bytes, UnknownServerError);
            }
        }
    }
    let mismatch = batch_of(b"garbage", 2, |header| {
        header.attributes = 1;
        header.last_offset_delta = 0;
    });
    check(&mismatch, InvalidRecord);
}

fn compressed(codec: Compression, records: &[Raw]) -> Vec<u8> {
    compressed_with(codec, records, |_| {})
}

fn compressed_with(
    codec: Compression,
    records: &[Raw],
    change: impl FnOnce(&mut BatchHeader),
) -> Vec<u8> {
    let payload = compress(codec, None, &payload(records)).unwrap();
    batch_of(&payload, records.len() as i32, |header| {
        header.attributes = codec.attributes();
        change(header);
    })
}

const PACKED: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

#[test]
fn compressed_batches_pass_untouched() {
    for codec in PACKED {
        let bytes = compressed(codec, &[raw(0), raw(1)]);
        let mut out = vec![];
        accepted(&bytes, &rules()).write_to(&mut out);
        assert_eq!(out, bytes);
    }
}

#[test]
fn zstd_needs_version_7() {
    let old = AppendRules { zstd_allowed: false, ..rules() };
    let zstd = compressed(Compression::Zstd, &[raw(0)]);
    for bytes in [&zstd[..], &[&zstd[..], &zstd].concat()] {
        let refused = refused(bytes, &old);
        assert_eq!(refused.kind, UnsupportedCompressionType);
        assert_eq!(refused.wire_message(), None);
    }
    accepted(&compressed(Compression::Lz4, &[raw(0)]), &old);
}

#[test]
fn record_framing() {
    let sized = |size_change| batch(&[Raw { size_change, ..raw(0) }]);
    for change in [90, -4, -8, -7] {
        check(&sized(change), InvalidRecord);
    }
    let one = |payload: &[u8]| batch_of(payload, 1, |_| {});
    check(&one(&[0]), InvalidRecord);
    check(&one(&[0xff]), InvalidRecord);
    check(&one(&[0xff; 7]), UnknownServerError);
    // A timestamp delta with too many bytes, and a key that ends past the record.
    check(&one(&[[24, 0].as_slice(), &[0xff; 11]].concat()), InvalidRecord);
    check(&one(&[0x10, 0, 0, 0, 0x7f, 2, b'v', 0, 0]), InvalidRecord);
    let headers = |header_count, tail| batch(&[Raw { header_count, tail, ..raw(0) }]);
    check(&headers(-1, b""), InvalidRecord);
    check(&headers(50, b""), InvalidRecord);
    check(&headers(1, &[1, 0]), InvalidRecord);
    check(&headers(0, b"zz"), InvalidRecord);
    accepted(&headers(2, &[2, 0xff, 1, 0, 2, b'1']), &rules());
    // Any negative length means null, and any attributes are accepted.
    accepted(&one(&[14, 1, 0, 0, 3, 2, b'v', 0]), &rules());
}

#[test]
fn too_large() {
    let small = AppendRules { max_message_bytes: good().len() - 1, ..rules() };
    let refused_kind = |bytes: &[u8]| {
        let refused = refused(bytes, &small);
        assert_eq!(refused.wire_message(), None);
        refused.kind
    };
    assert_eq!(refused_kind(&good()), MessageTooLarge);
    // The size is checked before the CRC and the codec, but after the base offset.
    assert_eq!(refused_kind(&patched(17, &[0; 4])), MessageTooLarge);
    let one = payload(&[raw(0)]);
    assert_eq!(refused_kind(&batch_of(&one, 1, |h| h.attributes = 5)), MessageTooLarge);
    assert_eq!(refused_kind(&batch_of(&one, 1, |h| h.base_offset = 5)), InvalidRecord);
    let exact = AppendRules { max_message_bytes: good().len(), ..rules() };
    accepted(&good(), &exact);
    accepted(&[&good()[..], b"dropped"].concat(), &exact);
}

#[test]
fn keyless_records_of_a_compacted_topic() {
    let rules = AppendRules { compacted: true, ..rules() };
    let in_topic = "Compacted topic cannot accept message without key in topic partition topic-0";
    let records: Vec<Raw> = (0..5).map(raw).collect();
    for bytes in [batch(&records), compressed(Compression::Zstd, &records)] {
        let refused = refused(&bytes, &rules);
        assert_eq!(refused.kind, InvalidRecord);
        let errors: Vec<_> = (0..5).map(|index| (index, Some(in_topic.to_string()))).collect();
        assert_eq!(refused.record_errors, errors);
        let shown = |index: i32| format!("RecordError(batchIndex={index}, message='{in_topic}')");
        let message = format!(
            "One or more records have been rejected due to 5 record errors in total, and only \
             showing the first three errors at most: [{}, {}, {}]",
            shown(0),
            shown(1),
            shown(2)
        );
        assert_eq!(refused.wire_message(), Some(&message[..]));
    }
    accepted(&batch(&[raw(0).key(b"")]), &rules);
    accepted(&compressed(Compression::Snappy, &[raw(0).key(b"k")]), &rules);
    // The key is checked before the timestamp. One invalid timestamp decides the error code.
    let late = |record: Raw| record.at(2 * HOUR);
    let mixed = [raw(0).key(b"k"), raw(1), late(raw(2).key(b"")), late(raw(3))];
    let mixed = refused(&batch(&mixed), &rules);
    assert_eq!(mixed.kind, InvalidTimestamp);
    let indexes: Vec<i32> = mixed.record_errors.iter().map(|error| error.0).collect();
    assert_eq!(indexes, [1, 2, 3]);
    assert_eq!(mixed.record_errors[2].1.as_deref(), Some(in_topic));
    // A malformed record takes precedence over refused records.
    let malformed = Raw { size_change: 90, ..raw(1) };
    let malformed = refused(&batch(&[raw(0), malformed]), &rules);
    assert_eq!((malformed.kind, malformed.record_errors.len()), (InvalidRecord, 0));
}

#[test]
fn streamed_decompression_has_no_size_limit() {
    // One record with a value of 64 MiB.
    let value_len = 64 << 20;
    let mut record = vec![0, 0, 0, 1];
    write_i32(&mut record, value_len);
    record.resize(record.len() + value_len as usize, 0);
    record.push(0);
    let mut bomb = vec![];
    write_i32(&mut bomb, record.len() as i32);
    bomb.extend_from_slice(&record);
    for codec in PACKED {
        let payload = compress(codec, None, &bomb).unwrap();
        let bytes = batch_of(&payload, 1, |header| header.attributes = codec.attributes());
        let roomy = AppendRules { max_message_bytes: 16 << 20, ..rules() };
        accepted(&bytes, &roomy);
        // If the codec changes, the batch would have to be in memory as a whole, so it is refused.
        let compression = TopicCompression::Fixed(Compression::None, None);
        let unpacked = AppendRules { compression, ..roomy };
        assert_eq!(refused(&bytes, &unpacked).kind, MessageTooLarge, "{codec:?}");
    }
}

#[test]
fn compressed_records_are_checked_wherever_chunks_end() {
    // Values of many lengths, so that each field of a record once lies across the end of a chunk.
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for at in 0..3000 {
        let value = vec![b'v'; 200 + at % 91];
        builder.append(
            NOW + at as i64,
            Some(b"key"),
            Some(&value),
            &[(b"h", None), (b"", Some(b"v"))],
        );
    }
    let plain = builder.build();
    for codec in PACKED {
        let payload = compress(codec, None, &plain.payload).unwrap();
        let with_count =
            |count: i32| batch_of(&payload, count, |header| header.attributes = codec.attributes());
        assert_eq!(accepted(&with_count(3000), &rules()).header.max_timestamp, NOW + 2999);
        check(&with_count(2999), InvalidRecord);
        check(&with_count(3001), InvalidRecord);
    }
}

#[test]
fn the_records_inside_a_compressed_batch_are_checked() {
    for codec in PACKED {
        let with = |records: &[Raw]| compressed(codec, records);
        check(&with(&[raw(0), raw(2)]), UnknownServerError);
        check(&with(&[raw(1)]), UnknownServerError);
        let headers = |header_count, tail| with(&[Raw { header_count, tail, ..raw(0) }]);
        check(&headers(-1, b""), InvalidRecord);
        check(&headers(50, b""), InvalidRecord);
        check(&headers(1, &[1, 0]), InvalidRecord);
        check(&headers(0, b"zz"), InvalidRecord);
        accepted(&headers(2, &[2, 0xff, 1, 0, 2, b'1']), &rules());
        // Kafka skips field by field, so it does not detect a wrong record size.
        accepted(&with(&[Raw { size_change: 4, ..raw(0) }, raw(1)]), &rules());
        let short = compress(codec, None, &payload(&[raw(0)])[..5]).unwrap();
        check(&batch_of(&short, 1, |h| h.attributes = codec.attributes()), InvalidRecord);
        let keyless = compressed(codec, &[raw(0).key(b"k"), raw(1)]);
        let compacted = AppendRules { compacted: true, ..rules() };
        assert_eq!(refused(&keyless, &compacted).record_errors.len(), 1);
    }
}

#[test]
fn an_answer_lists_a_bounded_number_of_records() {
    let record = raw(0).at(2 * HOUR).bytes();
    let count = RECORD_ERRORS_MAX + 10;
    let records = compress(Compression::Zstd, None, &record.repeat(count)).unwrap();
    let bytes = batch_of(&records, count as i32, |header| header.attributes = 4);
    assert_eq!(refused(&bytes, &rules()).record_errors.len(), RECORD_ERRORS_MAX);
}

proptest! {
    #[test]
    fn no_bytes_panic(
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..5),
        fix_crc: bool,
        codec in 0..5_usize,
        target in 0..6_usize,
        compacted: bool,
    ) {
        let codecs = [&[Compression::None][..], &PACKED].concat();
        let mut bytes = compressed(codecs[codec], &[raw(0), raw(1).key(b"key"), raw(2)]);
        for (at, byte) in damage {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if fix_crc {
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let mut rules = AppendRules { compacted, ..rules() };
        if let Some(target) = codecs.get(target) {
            rules.compression = TopicCompression::Fixed(*target, None);
        }
        // An accepted batch has a valid CRC, and its record count fits its offsets.
        if let Ok(batch) = validate(&bytes, &rules) {
            prop_assert_eq!(batch.header.record_count, batch.header.last_offset_delta + 1);
        }
    }
}

#[test]
fn a_changed_header_needs_no_second_pass() {
    let (old, new) = ([1_u8; 40], [2_u8; 40]);
    let payload = vec![7; 65_536];
    let before = crc32c::crc32c_append(crc32c::crc32c(&old), &payload);
    let after = crc32c::crc32c_append(crc32c::crc32c(&new), &payload);
    assert_eq!(crc::replace_prefix(before, &old, &new, payload.len()), after);
}
