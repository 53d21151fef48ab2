//! Fuzz targets for requests, batches and Raft messages, and for records of internal topics.

use bytes::Bytes;
use sordini::{
    base::TopicPartition,
    coordinator::{group::records::Record as GroupRecord, txn::Record as TxnRecord},
    handlers::{self, TABLE},
    metadata::{Image, MetadataRecord},
    protocol::frame::{self, Incoming},
    quorum::formats::{self as quorum, decode_request},
    records::{
        AppendRules, Batch, Compression, TimestampType, TopicCompression, compress,
        compression::{Decoder, Scratch},
        validate_for_append,
    },
};

use crate::Input;

/// The most bytes that a target decompresses.
const DECOMPRESSED_MAX: usize = 1 << 20;

/// Decodes the body of a request. The first byte chooses the API, the second one the version.
pub fn requests(data: &[u8]) {
    let mut input = Input(data);
    let entry = &TABLE[usize::from(input.byte()) % TABLE.len()];
    let (min, max) = (entry.row.min, entry.row.max);
    let version = min + i16::from(input.byte()) % (max - min + 1);
    let _ = (entry.try_decode)(version, Bytes::copy_from_slice(input.rest()));
}

/// Parses the header of a frame that has no size.
pub fn request_headers(data: &[u8]) {
    let mut body = Bytes::copy_from_slice(data);
    let Ok(Incoming::Request(header)) = frame::parse_header(&mut body) else { return };
    assert!(header.api.versions().contains(&header.version));
    let Some(entry) = handlers::find(header.api.key) else { return };
    let _ = (entry.try_decode)(header.version, body);
}

/// Decodes Raft messages between controllers.
pub fn raft_messages(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    let message = Bytes::copy_from_slice(input.rest());
    match kind % 5 {
        0 => {
            let Ok((header, request)) = decode_request(message) else { return };
            let encoded = quorum::encode_request(&header, &request);
            assert!(decode_request(encoded.clone()).is_ok(), "{encoded:?}");
        }
        1 => drop(quorum::decode_appended(message)),
        2 => drop(quorum::decode_ballot_result(message)),
        3 => drop(quorum::decode_chunk_result(message)),
        _ => drop(quorum::decode_probed(message)),
    }
}

/// Reads batches as they are in a log.
pub fn batches(data: &[u8]) {
    let mut rest = Bytes::from(Input(data).batches());
    while let Ok(batch) = Batch::split_first(&mut rest) {
        let _ = batch.verify_crc();
        let _ = batch.uncompressed_payload(DECOMPRESSED_MAX);
        let _ = batch.find_record(|record| record.value_len() == Some(usize::MAX));
        if let Ok(records) = batch.records(DECOMPRESSED_MAX) {
            records.for_each(drop);
        }
    }
}

/// Validates the records of a partition in a Produce request. The first bytes choose the topic's
/// configs.
pub fn produced_batches(data: &[u8]) {
    let mut input = Input(data);
    let (codec, flags) = (input.byte(), input.byte());
    let compression = match codec % 6 {
        0 => TopicCompression::Producer,
        codec => TopicCompression::Fixed(codec_of(codec - 1), None),
    };
    let is_set = |bit: u8| flags & (1 << bit) != 0;
    let rules = AppendRules {
        partition: TopicPartition::new("t", 0),
        now_ms: 1_700_000_000_000,
        timestamp_type: match is_set(0) {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        },
        before_max_ms: if is_set(1) { 1_000 } else { i64::MAX },
        after_max_ms: if is_set(2) { 1_000 } else { i64::MAX },
        compression,
        max_message_bytes: 1 << 20,
        compacted: is_set(3),
        max_decompressed: DECOMPRESSED_MAX,
        zstd_allowed: is_set(4),
    };
    let records = Bytes::from(input.batches());
    let Ok(batch) = validate_for_append(Some(records), &rules) else { return };
    batch.verify_crc().expect("an accepted batch has its CRC");
    if !matches!(batch.header.compression(), Ok(Compression::None)) {
        // As in Kafka, a compressed batch that is stored as sent may have records with a wrong
        // size.
        return;
    }
    let records = batch.records(DECOMPRESSED_MAX).expect("an accepted batch can be read");
    let count = records.map(|record| record.expect("accepted records are well-formed")).count();
    assert_eq!(count, batch.header.record_count as usize);
}

pub fn codec_of(number: u8) -> Compression {
    Compression::from_attributes(i16::from(number % 5)).expect("there are five codecs")
}

/// Decompresses a payload. The first byte chooses the codec.
pub fn codecs(data: &[u8]) {
    let mut input = Input(data);
    let codec = codec_of(input.byte());
    let data = input.rest();
    let _ = decompress(codec, data);
    let compressed = compress(codec, None, data).expect("all bytes can be compressed");
    assert_eq!(decompress(codec, &compressed).as_deref(), Some(data), "{codec:?}");
}

/// Returns the first [`DECOMPRESSED_MAX`] bytes of a payload, or `None` if it is malformed.
fn decompress(codec: Compression, data: &[u8]) -> Option<Vec<u8>> {
    Scratch::with(|scratch| {
        let mut decoder = Decoder::open(codec, data, scratch).ok()?;
        let mut out = Vec::new();
        while let Some(len) = decoder.read(scratch).ok()? {
            out.extend_from_slice(scratch.chunk(len));
            if out.len() > DECOMPRESSED_MAX {
                break;
            }
        }
        Some(out)
    })
}

/// Decodes records of the metadata log, and applies them to a metadata image.
pub fn metadata_records(data: &[u8]) {
    let mut input = Input(data);
    let mut image = Image::default();
    while !input.0.is_empty() {
        let Ok(record) = MetadataRecord::decode(Bytes::copy_from_slice(input.piece())) else {
            continue;
        };
        // Compared as text, because the value of a quota can be NaN, which is not equal to itself.
        let again = MetadataRecord::decode(record.to_bytes()).expect("encoded by the broker");
        assert_eq!(format!("{again:?}"), format!("{record:?}"));
        image.apply(&record);
    }
    image.records();
}

/// Decodes records of `__consumer_offsets`.
pub fn group_records(data: &[u8]) {
    let mut input = Input(data);
    let has_value = input.byte() % 2 == 1;
    let key = Bytes::copy_from_slice(input.piece());
    let value = has_value.then(|| Bytes::copy_from_slice(input.rest()));
    let Ok(Some(record)) = GroupRecord::decode(key, value) else { return };
    let (key, value) = record.encode();
    let decoded = GroupRecord::decode(key, value);
    assert_eq!(decoded.map(|again| again.is_some()), Ok(true), "{record:?}");
}

/// Decodes records of `__transaction_state`.
pub fn transaction_records(data: &[u8]) {
    let mut input = Input(data);
    let has_value = input.byte() % 2 == 1;
    let key = Bytes::copy_from_slice(input.piece());
    let value = has_value.then(|| Bytes::copy_from_slice(input.rest()));
    let record = TxnRecord::decode(key, value);
    let (key, value) = record.encode();
    assert_eq!(TxnRecord::decode(key, value), record);
}
