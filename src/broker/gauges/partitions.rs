//! Metrics of each partition, from its view, so that no partition is locked.

use std::sync::Arc;

use crate::{
    partition::{IsrCounts, Partition, PartitionTable, Role, View},
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

/// Metrics that only the leader of a partition has.
const GAUGES_OF_LEADERS: [(&str, &str, Gauge); 3] = [
    ("kafka_topic_partition_replicas", "Replicas that the partition is to have", |view| {
        view.isr.replicas as f64
    }),
    ("kafka_topic_partition_in_sync_replica", "Replicas that are in sync", |view| {
        view.isr.in_sync as f64
    }),
    (
        "kafka_topic_partition_under_replicated_partition",
        "1 while the partition has fewer replicas in sync than it is to have",
        |view| f64::from(u8::from(view.isr.is_under_replicated())),
    ),
];

type IsCounted = fn(IsrCounts) -> bool;

/// Counts of partitions that this broker leads, by condition.
const COUNTS: [(&str, &str, IsCounted); 4] = [
    ("kafka_server_leaders", "Partitions that this broker leads", |_| true),
    (
        "kafka_server_under_replicated_partitions",
        "Partitions led here with fewer replicas in sync than they are to have",
        IsrCounts::is_under_replicated,
    ),
    (
        "kafka_server_under_min_isr_partitions",
        "Partitions led here with fewer replicas in sync than min.insync.replicas",
        IsrCounts::is_under_min,
    ),
    (
        "kafka_server_at_min_isr_partitions",
        "Partitions led here with just min.insync.replicas in sync",
        |isr| isr.in_sync == isr.min,
    ),
];

fn collect_led(views: &[(Arc<View>, Labels)], scrape: &mut Scrape) {
    let led = || views.iter().filter(|(view, _)| matches!(view.role, Role::Leader { .. }));
    for (name, help, value) in GAUGES_OF_LEADERS {
        let mut family = scrape.family(name, help, Kind::Gauge);
        for (view, labels) in led() {
            family.sample_of(labels, value(view));
        }
    }
    for (name, help, is_counted) in COUNTS {
        let count = led().filter(|(view, _)| is_counted(view.isr)).count();
        scrape.gauge(name, help, &[], count as f64);
    }
    let (name, help) = ("kafka_server_replicas", "Partitions with a replica on this broker");
    scrape.gauge(name, help, &[], views.len() as f64);
}

/// Collects the metrics of all partitions in the table.
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
    collect_led(&seen, scrape);
}
