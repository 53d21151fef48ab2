//! Checks and changes of timestamps.

use super::*;

#[test]
fn timestamps_out_of_range() {
    let rules = AppendRules { before_max_ms: 10_000, after_max_ms: 1000, ..rules() };
    let bytes = batch(&[raw(0), raw(1).at(HOUR), raw(2).at(2 * HOUR), raw(3).at(-HOUR)]);
    let refused = refused(&bytes, &rules);
    assert_eq!(refused.kind, InvalidTimestamp);
    let summary = "One or more records have been rejected due to invalid timestamp";
    assert_eq!(refused.wire_message(), Some(summary));
    let error = |index: i32, timestamp: i64| {
        let range = format!("[{}, {}]", NOW - 10_000, NOW + 1000);
        let message = format!(
            "Timestamp {timestamp} of message with offset {index} is out of range. \
             The timestamp should be within {range}"
        );
        (index, Some(message))
    };
    let errors = [error(1, NOW + HOUR), error(2, NOW + 2 * HOUR), error(3, NOW - HOUR)];
    assert_eq!(refused.record_errors, errors);
    // The limits themselves are accepted, and so is a record without a timestamp.
    accepted(&batch(&[raw(0).at(1000), raw(1).at(-10_000), raw(2).at(-1 - NOW)]), &rules);
}

#[test]
fn the_default_range_prints_as_javas_does() {
    let refused = refused(&batch(&[raw(0).at(2 * HOUR)]), &rules());
    let message = refused.record_errors[0].1.clone().unwrap();
    let earliest = NOW.wrapping_sub(i64::MAX);
    assert!(message.ends_with(&format!("within [{earliest}, {}]", NOW + HOUR)), "{message}");
    assert!(earliest < -9_000_000_000_000_000_000);
}

#[test]
fn the_header_takes_the_records_maximum() {
    let bytes = batch_of(&payload(&[raw(0).at(3), raw(1).at(2)]), 2, |header| {
        header.attributes = 0x4040;
        header.max_timestamp = NOW + 7;
    });
    let batch = accepted(&bytes, &rules());
    assert_eq!((batch.header.max_timestamp, batch.header.attributes), (NOW + 3, 0x40));
    let low = batch_of(&payload(&[raw(0)]), 1, |header| header.max_timestamp = 0);
    assert_eq!(accepted(&low, &rules()).header.max_timestamp, NOW);
    let negative = batch_of(&payload(&[raw(0)]), 1, |header| {
        (header.base_timestamp, header.max_timestamp) = (-5, -5);
    });
    assert_eq!(accepted(&negative, &rules()).header.max_timestamp, NO_TIMESTAMP);
}

#[test]
fn the_logs_time() {
    let by_log = AppendRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    let any_time = batch(&[raw(0).at(-HOUR), raw(1).at(9 * HOUR)]);
    for bytes in [any_time, compressed(Compression::Lz4, &[raw(0), raw(1)])] {
        let batch = accepted(&bytes, &by_log);
        assert_eq!(batch.header.max_timestamp, NOW);
        assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.payload[..], bytes[61..]);
    }
}

#[test]
fn a_producer_that_claims_the_logs_time() {
    let one = [raw(0).key(b"kk"), raw(1)];
    let claim = |max_timestamp: i64| {
        batch_of(&payload(&one), 2, |header| {
            header.attributes = BY_LOG | 0x80;
            header.max_timestamp = max_timestamp;
        })
    };
    // If the topic uses CreateTime, the batch's LogAppendTime is removed.
    let batch = accepted(&claim(NOW - 5), &rules());
    assert_eq!((batch.header.attributes, batch.header.max_timestamp), (0, NOW - 5));
    assert_eq!(refused(&claim(NOW + 2 * HOUR), &rules()).kind, InvalidTimestamp);
    let message = |class: &str, index: i32, timestamp: i64, key: i32| {
        let message = format!(
            "Invalid timestamp type in message {class}(offset={index}, timestamp={timestamp}, \
             key={key} bytes, value=1 bytes). Producer should not set timestamp type to \
             LogAppendTime."
        );
        (index, Some(message))
    };
    let without_time = refused(&claim(-1), &rules());
    let errors = [message("DefaultRecord", 0, -1, 2), message("DefaultRecord", 1, -1, 0)];
    assert_eq!(
        (without_time.kind, &without_time.record_errors[..]),
        (InvalidTimestamp, &errors[..])
    );
    let by_log = AppendRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    let errors = [message("DefaultRecord", 0, NOW, 2), message("DefaultRecord", 1, NOW, 0)];
    assert_eq!(refused(&claim(NOW), &by_log).record_errors, errors);
    let packed = compressed_with(Compression::Gzip, &one, |header| header.attributes |= BY_LOG);
    let class = "PartialDefaultRecord";
    let errors = [message(class, 0, NOW, 2), message(class, 1, NOW, -1)];
    assert_eq!(refused(&packed, &by_log).record_errors, errors);
}

/// As kafkajs sends it: the maximum timestamp in the header ignores the second of two records.
#[test]
fn a_compressed_batch_gets_the_maximum_of_its_records() {
    let claim = |max_timestamp: i64, records: &[Raw]| {
        compressed_with(Compression::Gzip, records, |header| {
            header.base_timestamp = NOW - 2 * HOUR;
            header.max_timestamp = max_timestamp;
        })
    };
    let records = [raw(0), raw(1).at(2 * HOUR)];
    for too_low in [NOW - 2 * HOUR, NO_TIMESTAMP, 0] {
        let batch = accepted(&claim(too_low, &records), &rules());
        assert_eq!(
            (batch.header.base_timestamp, batch.header.max_timestamp),
            (NOW - 2 * HOUR, NOW)
        );
    }
    let ahead = claim(NOW + HOUR / 2, &[raw(0), raw(1)]);
    assert_eq!(accepted(&ahead, &rules()).header.max_timestamp, NOW - 2 * HOUR);
    // Kafka clears unknown attributes when it rewrites the header.
    let unknown = compressed_with(Compression::Gzip, &records, |header| {
        header.attributes |= 0x4040;
        header.max_timestamp = 7;
    });
    assert_eq!(refused(&unknown, &rules()).kind, InvalidTimestamp);
    let unknown = compressed_with(Compression::Gzip, &[raw(0)], |header| {
        header.attributes |= 0x4040;
        header.max_timestamp = 7;
    });
    assert_eq!(accepted(&unknown, &rules()).header.attributes, 0x41);
}

#[test]
fn a_compressed_record_out_of_range_is_refused_whatever_the_header_says() {
    for codec in PACKED {
        let records = [raw(0), raw(1).at(30 * HOUR), raw(2).at(-HOUR)];
        let bytes = compressed_with(codec, &records, |header| header.max_timestamp = NOW);
        let late = refused(&bytes, &rules());
        assert_eq!((late.kind, late.record_errors.len()), (InvalidTimestamp, 1), "{codec:?}");
        let range = format!("[{}, {}]", NOW.wrapping_sub(i64::MAX), NOW + HOUR);
        let message = format!(
            "Timestamp {} of message with offset 1 is out of range. \
             The timestamp should be within {range}",
            NOW + 30 * HOUR
        );
        assert_eq!(late.record_errors, [(1, Some(message))]);
        let past = AppendRules { before_max_ms: 10_000, ..rules() };
        let both = refused(&bytes, &past);
        let indexes: Vec<i32> = both.record_errors.iter().map(|error| error.0).collect();
        assert_eq!(indexes, [1, 2]);
    }
}
