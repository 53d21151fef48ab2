//! Batches whose codec differs from that of the topic.

use super::*;

fn fixed(codec: Compression) -> AppendRules {
    AppendRules { compression: TopicCompression::Fixed(codec, None), ..rules() }
}

#[test]
fn the_topics_codec_replaces_the_producers() {
    let all = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
    let tail = &[2, b'a', 1, 2, b'a', 2, b'1'];
    let records = [Raw { header_count: 2, tail, ..raw(0) }, raw(1).key(b"k").at(5)];
    let plain = payload(&records);
    for source in all.into_iter().chain([Compression::Zstd]) {
        for target in all.into_iter().chain([Compression::Zstd]) {
            let bytes = compressed_with(source, &records, |header| {
                header.max_timestamp = NOW + 5;
                header.producer_id = 7;
                header.producer_epoch = 1;
                header.base_sequence = 3;
                header.attributes |= 0x10;
            });
            let batch = accepted(&bytes, &fixed(target));
            assert_eq!(batch.header.compression(), Ok(target));
            assert_eq!(batch.uncompressed_payload(1000).unwrap()[..], plain[..]);
            let sent = Batch::split_first(&mut bytes.into()).unwrap().header;
            let expected = BatchHeader {
                batch_length: batch.header.batch_length,
                crc: batch.header.crc,
                attributes: target.attributes() | 0x10,
                ..sent
            };
            assert_eq!(batch.header, expected);
        }
    }
}

#[test]
fn recompressing_builds_anew_what_is_not_in_order() {
    // Offsets become consecutive, and timestamp deltas are relative to the first record.
    let bytes = batch(&[raw(4).at(10), raw(9).at(30).key(b"k")]);
    let built = accepted(&bytes, &fixed(Compression::Gzip));
    let mut expected = BatchBuilder::new(BatchOptions::default());
    expected.append(NOW + 10, None, Some(b"v"), &[]);
    expected.append(NOW + 30, Some(b"k"), Some(b"v"), &[]);
    let expected = expected.build();
    assert_eq!(built.uncompressed_payload(1000).unwrap(), expected.payload);
    assert_eq!(built.header.base_timestamp, NOW + 10);
    assert_eq!(built.header.max_timestamp, NOW + 30);
    assert_eq!(built.header.last_offset_delta, 1);
    // If the batch has LogAppendTime, its maximum timestamp becomes that of each record.
    let records = [raw(0).at(1), raw(1).at(2)];
    let bytes = compressed_with(Compression::Gzip, &records, |header| {
        header.attributes |= BY_LOG;
        header.max_timestamp = NOW - 5;
    });
    let built = accepted(&bytes, &fixed(Compression::None));
    assert_eq!(built.header.attributes, 0);
    assert_eq!((built.header.base_timestamp, built.header.max_timestamp), (NOW - 5, NOW - 5));
    assert!(built.records(0).unwrap().all(|record| record.unwrap().timestamp == NOW - 5));
}

#[test]
fn recompressing_under_the_logs_time() {
    let rules =
        AppendRules { timestamp_type: TimestampType::LogAppendTime, ..fixed(Compression::Lz4) };
    let records = [raw(0), raw(1).at(2 * HOUR)];
    for records in [&records[..], &[raw(3), raw(5)]] {
        let batch = accepted(&batch(records), &rules);
        assert_eq!(batch.header.attributes, 3 | BY_LOG);
        assert_eq!(batch.header.max_timestamp, NOW);
    }
}

#[test]
fn recompressing_checks_records_and_size() {
    let garbage = batch_of(b"garbage", 1, |header| header.attributes = 1);
    assert_eq!(refused(&garbage, &fixed(Compression::None)).kind, UnknownServerError);
    let less = compress(Compression::Gzip, None, &payload(&[raw(0)])).unwrap();
    let less = batch_of(&less, 2, |header| header.attributes = 1);
    assert_eq!(refused(&less, &fixed(Compression::None)).kind, InvalidRecord);
    let late = batch(&[raw(0).at(2 * HOUR)]);
    assert_eq!(refused(&late, &fixed(Compression::Gzip)).kind, InvalidTimestamp);
    let mut builder = BatchBuilder::new(BatchOptions {
        compression: Compression::Gzip,
        ..BatchOptions::default()
    });
    builder.append(NOW, None, Some(&[b'x'; 5000]), &[]);
    let mut grows = vec![];
    builder.build().write_to(&mut grows);
    let small = AppendRules { max_message_bytes: 1000, ..fixed(Compression::None) };
    accepted(&grows, &AppendRules { compression: TopicCompression::Producer, ..small.clone() });
    assert_eq!(refused(&grows, &small).kind, MessageTooLarge);
}

/// A client can set the attribute of a delete horizon. As in Kafka's builder, the batch loses it,
/// and the first record's timestamp becomes the base timestamp.
#[test]
fn recompressing_removes_a_delete_horizon() {
    let horizon = 9 * HOUR;
    let records = [raw(0).at(-9 * HOUR), raw(1).at(5 - 9 * HOUR)];
    let bytes = batch_of(&payload(&records), 2, |header| {
        header.attributes |= 0x40;
        header.base_timestamp = NOW + horizon;
    });
    let built = accepted(&bytes, &fixed(Compression::Lz4));
    assert_eq!(built.header.attributes, 3);
    assert_eq!((built.header.base_timestamp, built.header.max_timestamp), (NOW, NOW + 5));
    let timestamps: Vec<i64> =
        built.records(1000).unwrap().map(|record| record.unwrap().timestamp).collect();
    assert_eq!(timestamps, [NOW, NOW + 5]);
}
