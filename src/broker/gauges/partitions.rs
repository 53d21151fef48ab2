//! What a scrape tells of each partition, read from its view: no partition is locked for it.

use std::sync::Arc;

use crate::{
    partition::{Partition, PartitionTable, View},
    telemetry::{Kind, Labels, Scrape},
};

type Gauge = fn(&View) -> f64;

const GAUGES: [(&str, &str, Gauge); 4] = [
    (
        "kafka_topic_partition_current_offset",
        "The offset after the last one that consumers may read",
        |view| view.high_watermark as f64,
    ),
    ("kafka_topic_partition_oldest_offset", "The first offset of the log", |view| {
        view.log.log_start() as f64
    }),
    ("kafka_log_size_bytes", "Bytes of record batches in the log's segments", |view| {
        view.log.size() as f64
    }),
    ("kafka_log_segments", "Segments of the log", |view| view.log.segment_count() as f64),
];

pub fn collect(table: &PartitionTable, scrape: &mut Scrape) {
    let mut partitions = table.partitions();
    partitions.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let look = |partition: Arc<Partition>| {
        let index = partition.id.partition.to_string();
        let labels = Labels::new(&[("topic", &partition.id.topic), ("partition", &index)]);
        (partition.view(), labels)
    };
    let seen: Vec<_> = partitions.into_iter().map(look).collect();
    for (name, help, value) in GAUGES {
        let mut family = scrape.family(name, help, Kind::Gauge);
        for (view, labels) in &seen {
            family.sample_of(labels, value(view));
        }
    }
}
