//! Comparisons with bytes that Apache Kafka 4.3.1's own classes wrote, and round trips.

use super::builder::NO_TIMESTAMP;
use super::control::EndTxnMarker;
use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn whole(batch: &Batch) -> Bytes {
    let mut out = vec![];
    batch.write_to(&mut out);
    out.into()
}

/// Appends the records of the golden batches.
fn fill(builder: &mut BatchBuilder) {
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"h", Some(b"1")), (b"h", None), (b"", Some(b""))];
    builder.append(1000, Some(b"key"), Some(b"value"), &headers);
    builder.append(900, None, Some(&[0; 200]), &[]);
    builder.append(5000, Some(b""), None, &[]);
}

fn built(options: BatchOptions) -> Batch {
    let mut builder = BatchBuilder::new(options);
    fill(&mut builder);
    builder.build()
}

/// The encoded records of each golden batch.
fn golden_records() -> String {
    let zeros = "00".repeat(200);
    format!(
        "2e000000066b65790a76616c756506026802310268010000a00300c7010201900300\
         {}0e00c03e04000100",
        zeros
    )
}

#[test]
fn uncompressed_batches_are_those_of_the_java_builder() {
    let plain = built(BatchOptions::default());
    let head = "000000000000000000000123ffffffff02bdc10bdb00000000000200000000000003e8\
        0000000000001388ffffffffffffffffffffffffffff00000003";
    assert_eq!(whole(&plain), unhex(&(head.to_string() + &golden_records())));

    let transactional = built(BatchOptions {
        base_offset: 77,
        leader_epoch: 12,
        producer_id: 4000,
        producer_epoch: 3,
        base_sequence: 9,
        is_transactional: true,
        ..BatchOptions::default()
    });
    let head = "000000000000004d000001230000000c02b9951d9c00100000000200000000000003e8\
        00000000000013880000000000000fa000030000000900000003";
    assert_eq!(whole(&transactional), unhex(&(head.to_string() + &golden_records())));

    let by_log = built(BatchOptions {
        base_offset: 5,
        leader_epoch: 2,
        timestamp_type: TimestampType::LogAppendTime,
        log_append_time: 123_456,
        ..BatchOptions::default()
    });
    let head = "000000000000000500000123000000020227b7694700080000000200000000000003e8\
        000000000001e240ffffffffffffffffffffffffffff00000003";
    assert_eq!(whole(&by_log), unhex(&(head.to_string() + &golden_records())));
}

/// The same records, compressed by the Java client with each codec.
const JAVA_COMPRESSED: [&str; 4] = [
    "000000000000000000000071ffffffff02711601a400010000000200000000000003e80000000000001388ffffff\
     ffffffffffffffffffffff000000031f8b08000000000000ffd363606060cb4eade42a4bcc294d6563ca603264ca\
     60646058c0cc709c9189710233c370017c0c07ec5818181900cccd907ef2000000",
    "00000000000000000000007fffffffff02f56fd03d00020000000200000000000003e80000000000001388ffffff\
     ffffffffffffffffffffff0000000382534e415050590000000001000000010000003af201882e000000066b6579\
     0a76616c756506026802310268010000a00300c701020190030000fe0200fe0200fe02000d021c0e00c03e040001\
     00",
    "000000000000000000000070ffffffff02b1e71c2a00030000000200000000000003e80000000000001388ffffff\
     ffffffffffffffffffffff0000000304224d1860408230000000ff132e000000066b65790a76616c756506026802\
     310268010000a00300c70102019003000100b5800e00c03e0400010000000000",
    "00000000000000000000006fffffffff027d6baa8300040000000200000000000003e80000000000001388ffffff\
     ffffffffffffffffffffff0000000328b52ffd0058940100a4022e000000066b65790a76616c7565060268023102\
     68010000a00300c70102019003000e00c03e0400010001002a52e009010000",
];

#[test]
fn the_java_clients_compressed_batches_are_read() {
    let expected: Vec<Record> =
        built(BatchOptions::default()).records(LIMIT).unwrap().collect::<Result<_, _>>().unwrap();
    for java in JAVA_COMPRESSED {
        let batch = Batch::split_first(&mut unhex(java)).unwrap();
        batch.verify_crc().unwrap();
        let records: Vec<Record> = batch.records(LIMIT).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(records, expected, "{:?}", batch.header.compression());
    }
    assert_eq!(expected[0].headers.len(), 3);
    assert_eq!(expected[0].headers[1], (Bytes::from("h"), None));
    assert_eq!(expected[2].value, None);
    assert_eq!((expected[1].offset, expected[1].timestamp), (1, 900));
}

#[test]
fn snappy_and_lz4_frames_start_as_the_java_clients() {
    for (codec, java, frame_header) in
        [(Compression::Snappy, JAVA_COMPRESSED[1], 16), (Compression::Lz4, JAVA_COMPRESSED[2], 7)]
    {
        let java = Batch::split_first(&mut unhex(java)).unwrap();
        let ours = built(BatchOptions { compression: codec, ..BatchOptions::default() });
        assert_eq!(ours.payload[..frame_header], java.payload[..frame_header]);
        assert_eq!(ours.header.attributes, java.header.attributes);
    }
}

#[test]
fn transaction_markers_are_those_of_the_java_class() {
    let kind = ControlRecordType::Commit;
    let marker = EndTxnMarker { coordinator_epoch: 8 };
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: 10,
        leader_epoch: 3,
        producer_id: 4000,
        producer_epoch: 1,
        is_transactional: true,
        is_control: true,
        ..BatchOptions::default()
    });
    builder.append(777, Some(&kind.to_key()), Some(&marker.to_value()), &[]);
    let ours = builder.build();
    let java = "000000000000000a00000042000000030293045cb0003000000000000000000000030900000000\
        000003090000000000000fa00001ffffffff000000012000000008000000010c00000000000800";
    assert_eq!(whole(&ours), unhex(java));
    let record = ours.records(LIMIT).unwrap().next().unwrap().unwrap();
    assert_eq!(ControlRecordType::from_key(&record.key.unwrap()), Ok(kind));
    assert_eq!(EndTxnMarker::from_value(&record.value.unwrap()), Ok(marker));
    for cut in 0..6 {
        assert!(EndTxnMarker::from_value(&marker.to_value()[..cut]).is_err());
    }
}

#[test]
fn control_keys_are_checked() {
    assert!(ControlRecordType::from_key(&[0, 0, 0]).is_err());
    assert!(ControlRecordType::from_key(&[0xff, 0xff, 0, 1]).is_err());
    let later = ControlRecordType::from_key(&[0, 1, 0, 99, 7]);
    assert_eq!(later, Ok(ControlRecordType::Unknown(99)));
}

#[test]
fn gaps_are_kept() {
    let mut builder = BatchBuilder::new(BatchOptions { base_offset: 10, ..Default::default() });
    builder.append(1, None, None, &[]);
    builder.skip_to(5);
    builder.append(2, None, None, &[]);
    let batch = builder.build();
    let offsets: Vec<i64> =
        batch.records(LIMIT).unwrap().map(|record| record.unwrap().offset).collect();
    assert_eq!(offsets, [10, 15]);
    assert_eq!((batch.header.last_offset_delta, batch.header.record_count), (5, 2));
}

#[test]
fn the_logs_time_is_each_records_time() {
    let batch = built(BatchOptions {
        timestamp_type: TimestampType::LogAppendTime,
        log_append_time: 99,
        ..Default::default()
    });
    assert!(batch.records(LIMIT).unwrap().all(|record| record.unwrap().timestamp == 99));
    let mut frames = Frames::new(&batch.header, &batch.payload).unwrap();
    assert!(frames.all(|frame| frame.unwrap().summary.timestamp == 99));
}

type TestRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

fn any_record() -> impl Strategy<Value = TestRecord> {
    let header = (any_bytes(), proptest::option::of(any_bytes()));
    let headers = proptest::collection::vec(header, 0..4);
    let (key, value) = (proptest::option::of(any_bytes()), proptest::option::of(any_bytes()));
    (any::<i64>(), key, value, headers)
}

fn any_records() -> impl Strategy<Value = Vec<TestRecord>> {
    proptest::collection::vec(any_record(), 1..20)
}

fn build_all(records: &[TestRecord], options: BatchOptions) -> Batch {
    let mut builder = BatchBuilder::new(options);
    for (timestamp, key, value, headers) in records {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build()
}

fn read_all(batch: &Batch) -> Result<Vec<TestRecord>, RecordError> {
    let plain = |bytes: Bytes| bytes.to_vec();
    batch
        .records(LIMIT)?
        .map(|record| {
            let Record { timestamp, key, value, headers, .. } = record?;
            let headers = headers.into_iter().map(|(k, v)| (plain(k), v.map(plain))).collect();
            Ok((timestamp, key.map(plain), value.map(plain), headers))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back(records in any_records(), codec in 0..Compression::ALL.len(), base_offset: i32) {
        let batch = build_all(&records, BatchOptions {
            base_offset: base_offset.into(),
            compression: Compression::ALL[codec],
            ..BatchOptions::default()
        });
        prop_assert_eq!(batch.verify_crc(), Ok(()));
        let split = Batch::split_first(&mut whole(&batch)).unwrap();
        prop_assert_eq!(&split, &batch);
        prop_assert_eq!(read_all(&batch).unwrap(), records.clone());
        let max = records.iter().map(|record| record.0).max().unwrap().max(NO_TIMESTAMP);
        prop_assert_eq!(batch.header.max_timestamp, max);
        let payload = batch.uncompressed_payload(LIMIT).unwrap();
        let frames: Vec<Frame> =
            Frames::new(&batch.header, &payload).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(frames.iter().map(|frame| frame.size()).sum::<usize>(), payload.len());
        for (index, (frame, record)) in frames.iter().zip(&records).enumerate() {
            prop_assert_eq!(frame.summary.offset_delta, index as i32);
            prop_assert_eq!(frame.summary.key_len(), record.1.as_ref().map(Vec::len));
            prop_assert_eq!(frame.summary.value_len(), record.2.as_ref().map(Vec::len));
        }
    }

    #[test]
    fn damaged_records_are_an_error_or_records(
        records in any_records(),
        codec in 0..Compression::ALL.len(),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
        cut: u16,
    ) {
        let options = BatchOptions { compression: Compression::ALL[codec], ..BatchOptions::default() };
        let mut batch = build_all(&records, options);
        let mut payload = batch.payload.to_vec();
        for (at, byte) in damage {
            let at = usize::from(at) % payload.len();
            payload[at] = byte;
        }
        if cut % 4 == 0 {
            payload.truncate(usize::from(cut) % payload.len());
        }
        batch.payload = payload.into();
        // No input causes a panic, and an error ends the iteration.
        let failed = |read: &mut Records| read.any(|record| record.is_err());
        if let Ok(mut read) = batch.records(LIMIT) {
            prop_assert!(!failed(&mut read) || read.next().is_none());
        }
    }

    #[test]
    fn the_message_crate_reads_and_writes_the_same(records in any_records()) {
        use kafka_protocol::records as other;
        // The other crate keeps headers in a map, and panics on some timestamps.
        let records: Vec<TestRecord> = records
            .into_iter()
            .map(|(timestamp, key, value, _)| (timestamp & 0xffff_ffff, key, value, vec![]))
            .collect();
        let batch = build_all(&records, BatchOptions::default());
        let read = other::RecordBatchDecoder::decode(&mut whole(&batch)).unwrap().records;
        prop_assert_eq!(read.len(), records.len());
        for (theirs, ours) in read.iter().zip(&records) {
            prop_assert_eq!(theirs.timestamp, ours.0);
            prop_assert_eq!(theirs.key.as_deref(), ours.1.as_deref());
            prop_assert_eq!(theirs.value.as_deref(), ours.2.as_deref());
        }
        let mut written = bytes::BytesMut::new();
        let options = other::RecordEncodeOptions {
            version: 2,
            compression: other::Compression::None,
        };
        other::RecordBatchEncoder::encode(&mut written, read.iter(), &options).unwrap();
        let mut theirs = written.freeze();
        let theirs = Batch::split_first(&mut theirs).unwrap();
        theirs.verify_crc().unwrap();
        prop_assert_eq!(read_all(&theirs).unwrap(), records);
    }
}
