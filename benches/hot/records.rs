//! Validation of a produced batch, and the CRC alone for comparison.

use std::fmt;

use bytes::Bytes;
use divan::{Bencher, counter::BytesCount};
use sordini::{
    base::TopicPartition,
    records::{AppendRules, Compression, TimestampType, TopicCompression, validate_for_append},
};

use crate::{NOW_MS, batch_of};

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    records: usize,
    record_len: usize,
    compression: Compression,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn shape(name: &'static str, records: usize, record_len: usize) -> Shape {
    Shape { name, records, record_len, compression: Compression::None }
}

const fn packed(name: &'static str, compression: Compression) -> Shape {
    Shape { compression, ..shape(name, 630, 100) }
}

const SHAPES: [Shape; 8] = [
    shape("1 of 100 B", 1, 100),
    shape("63 of 1 KiB", 63, 1024),
    shape("9,600 of 100 B", 9_600, 100),
    shape("630 of 100 B", 630, 100),
    packed("630 of 100 B, gzip", Compression::Gzip),
    packed("630 of 100 B, snappy", Compression::Snappy),
    packed("630 of 100 B, lz4", Compression::Lz4),
    packed("630 of 100 B, zstd", Compression::Zstd),
];

impl Shape {
    fn bytes(self) -> Bytes {
        let batch = batch_of(self.records, self.record_len, self.compression);
        [&batch.header.to_bytes()[..], &batch.payload].concat().into()
    }
}

fn rules() -> AppendRules {
    AppendRules {
        partition: TopicPartition::new("topic", 0),
        now_ms: NOW_MS,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compression: TopicCompression::Producer,
        max_message_bytes: 2 << 20,
        compacted: false,
        max_decompressed: 100 << 20,
        zstd_allowed: true,
    }
}

#[divan::bench(args = SHAPES, sample_size = 100)]
fn validate(bencher: Bencher, shape: Shape) {
    let (bytes, rules) = (shape.bytes(), rules());
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| validate_for_append(Some(bytes.clone()), &rules).expect("is a sound batch"));
}

#[divan::bench(args = SHAPES, sample_size = 100)]
fn crc_alone(bencher: Bencher, shape: Shape) {
    let bytes = shape.bytes();
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| crc32c::crc32c(divan::black_box(&bytes[21..])));
}
