//! What a scrape tells of each partition, read from its view: no partition is locked for it.
//! The names are those of kafka_exporter where it has one.

use std::sync::Arc;

use super::Broker;
use crate::{
    partition::{Partition, PartitionTable, View},
    telemetry::{Kind, Scrape},
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

impl Broker {
    /// Has each scrape tell of the partitions.
    pub(super) fn add_gauges(self: &Arc<Self>) {
        // The broker owns its metrics: a collector that owned the broker would keep both for ever.
        let broker = Arc::downgrade(self);
        self.metrics.add_collector(Box::new(move |scrape| {
            if let Some(broker) = broker.upgrade() {
                collect(&broker.partitions, scrape);
            }
        }));
    }
}

fn collect(table: &PartitionTable, scrape: &mut Scrape) {
    let mut partitions = table.partitions();
    partitions.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let look = |partition: Arc<Partition>| {
        let index = partition.id.partition.to_string();
        (partition.view(), partition, index)
    };
    let seen: Vec<_> = partitions.into_iter().map(look).collect();
    for (name, help, value) in GAUGES {
        let mut family = scrape.family(name, help, Kind::Gauge);
        for (view, partition, index) in &seen {
            let labels = [("topic", &*partition.id.topic), ("partition", index.as_str())];
            family.sample(&labels, value(view));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        base::{
            TopicId, TopicPartition,
            config::{Config, Properties, TopicConfig},
        },
        log::{Log, LogConfig, LogStart, faulty::FaultyDisk, testing::batch},
        partition::{Core, Role, Topic},
        telemetry::Metrics,
    };

    fn partition(index: i32) -> Arc<Partition> {
        let start = LogStart { recovery_point: 0, log_start: None, clean: false, now_ms: 0 };
        let config = LogConfig { segment_bytes: 500, flush_messages: 1, ..LogConfig::default() };
        let disk = Arc::new(FaultyDisk::default());
        let log = Log::open(disk, Path::new("/data/t"), Arc::new(config), start).expect("opens").0;
        let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
        let id = TopicPartition::new("t", index);
        Arc::new(Partition::new(id, core, Box::new(|_, _| {})))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scrape_tells_of_each_partition() {
        let pairs = [
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.listener.names", "CONTROLLER"),
            ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::new(Properties::from(pairs), "here").expect("valid");
        let config = TopicConfig::resolve(&config, &Properties::new()).expect("valid");
        let metrics = Metrics::new();
        let id = TopicId::from_u128(7);
        let topic = Arc::new(Topic::new("t".into(), id, Arc::new(config), metrics.topic("t")));
        let table = Arc::new(PartitionTable::default());
        table.insert(Arc::clone(&topic));
        let (empty, full) = (partition(10), partition(2));
        topic.insert(Arc::clone(&empty));
        topic.insert(Arc::clone(&full));
        for _ in 0..4 {
            let appended = full.append(&mut [batch(0, 2, 150)], 0).expect("the disk takes it");
            assert!(full.wait_committed(appended.last_offset + 1).await);
        }
        full.update(|core| core.delete_records(3)).expect("in range");
        let collected = Arc::clone(&table);
        metrics.add_collector(Box::new(move |scrape| collect(&collected, scrape)));
        let text = metrics.render();
        let (size, segments) = (full.view().log.size(), full.view().log.segment_count());
        assert!(size > 300 && segments > 1, "{size} bytes in {segments} segments");
        for (name, of_full) in [
            ("kafka_topic_partition_current_offset", 8),
            ("kafka_topic_partition_oldest_offset", 3),
            ("kafka_log_size_bytes", size),
            ("kafka_log_segments", segments as u64),
        ] {
            let of_empty = u64::from(name == "kafka_log_segments");
            let sample =
                |index, value| format!("{name}{{topic=\"t\",partition=\"{index}\"}} {value}\n");
            let expected = sample(2, of_full) + &sample(10, of_empty);
            assert!(text.contains(&expected), "{expected} is not in {text}");
        }
    }
}
