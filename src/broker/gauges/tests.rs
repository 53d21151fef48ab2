//! Tests of the metrics of partitions, topics and groups.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    collect_topics,
    groups::{GroupGauges, Parked, RecordTimes},
    partitions,
};
use crate::{
    base::{
        TopicId, TopicPartition,
        config::{Config, Properties, TopicConfig},
    },
    coordinator::group::messages::GroupSurvey,
    log::{Log, LogConfig, LogStart, faulty::FaultyDisk, testing::batch},
    metadata::{PartitionImage, TopicImage},
    partition::{Acks, Core, Partition, PartitionCallbacks, PartitionTable, Role, Topic},
    records::{Batch, BatchBuilder, BatchOptions, Compression, TimestampType},
    telemetry::Metrics,
};

const NOW: i64 = 1_700_000_000_000;

fn partition(disk: &FaultyDisk, index: i32, flush_messages: i64) -> Arc<Partition> {
    let start =
        LogStart { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms: 0 };
    let config = LogConfig { segment_bytes: 500, flush_messages, ..LogConfig::default() };
    let path = format!("/data/t-{index}");
    let disk = Arc::new(disk.clone());
    let log = Log::open(disk, Path::new(&path), Arc::new(config), start).expect("opens").0;
    let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
    let id = TopicPartition::new("t", index);
    Arc::new(Partition::new(id, core, PartitionCallbacks::default()))
}

/// A table with the topic `t`, and that topic.
fn table() -> (Arc<PartitionTable>, Arc<Topic>) {
    let pairs = [
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
        ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::new(Properties::from(pairs), "here").expect("valid");
    let config = TopicConfig::resolve(&config, &Properties::new()).expect("valid");
    let id = TopicId::from_u128(7);
    let metrics = Metrics::new().topic("t");
    let topic = Arc::new(Topic::new("t".into(), id, Arc::new(config), metrics));
    let table = Arc::new(PartitionTable::default());
    table.insert(Arc::clone(&topic));
    (table, topic)
}

/// A batch with one record per age (in seconds).
fn aged(ages: &[i64], options: BatchOptions) -> Batch {
    let mut builder = BatchBuilder::new(options);
    for age in ages {
        builder.append(NOW - age * 1000, None, Some(b"value"), &[]);
    }
    builder.build()
}

fn append(partition: &Arc<Partition>, batch: Batch) {
    partition.append(&mut [batch], Acks::All, NOW).expect("the disk takes it");
}

fn survey(group: &str, offsets: &[(i32, i64)]) -> GroupSurvey {
    let offsets = offsets.iter().map(|(index, at)| (TopicPartition::new("t", *index), *at));
    GroupSurvey {
        group: group.into(),
        state: "Stable",
        generation: 1,
        members: 2,
        parked: 1,
        sessions: 3,
        offsets: offsets.collect(),
    }
}

/// The text and the counts of a scrape of the groups at the time `NOW`.
async fn scrape(
    table: &PartitionTable,
    record_times: &mut RecordTimes,
    surveys: Vec<GroupSurvey>,
    look_up: Duration,
) -> (String, Parked) {
    let mut scrape = crate::telemetry::Scrape::default();
    record_times.begin(Instant::now() + look_up);
    let mut gauges = GroupGauges { partitions: table, record_times, now_ms: NOW };
    let parked = gauges.collect(surveys, &mut scrape);
    (scrape.into_text(), parked)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_of_each_partition() {
    let disk = FaultyDisk::default();
    let (table, topic) = table();
    let (empty, full) = (partition(&disk, 10, 1), partition(&disk, 2, 1));
    topic.insert(Arc::clone(&empty));
    topic.insert(Arc::clone(&full));
    for _ in 0..4 {
        let appended =
            full.append(&mut [batch(0, 2, 150)], Acks::All, 0).expect("the disk takes it");
        assert!(
            full.wait_committed(appended.last_offset + 1, appended.leadership_generation).await
        );
    }
    full.update(|core| core.delete_records(3)).expect("in range");
    let mut scrape = crate::telemetry::Scrape::default();
    partitions::collect(&table, &mut scrape);
    let text = scrape.into_text();
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

#[tokio::test]
async fn topics_count_their_partitions_and_the_unusable_ones() {
    let (table, topic) = table();
    let disk = FaultyDisk::default();
    topic.insert(partition(&disk, 0, i64::MAX));
    topic.insert_offline(1);
    let failed = partition(&disk, 2, i64::MAX);
    failed.fail();
    topic.insert(failed);
    let led = PartitionImage { leader: 1, ..PartitionImage::default() };
    let unled = PartitionImage { leader: -1, ..led.clone() };
    let partitions = vec![led.clone(), led.clone(), unled.clone(), unled, led];
    let topics = [Arc::new(TopicImage { id: topic.id, name: "t".into(), partitions })];
    let mut scrape = crate::telemetry::Scrape::default();
    collect_topics(topics.iter(), &table, &mut scrape);
    let text = scrape.into_text();
    assert!(text.contains("kafka_topic_partitions{topic=\"t\"} 5\n"), "{text}");
    assert!(text.contains("\nkafka_server_offline_partitions 3\n"), "{text}");
}

#[tokio::test]
async fn groups_are_behind_in_offsets_and_in_seconds() {
    let disk = FaultyDisk::default();
    let (table, topic) = table();
    let plain = BatchOptions::default;
    let of_log = BatchOptions {
        timestamp_type: TimestampType::LogAppendTime,
        log_append_time: NOW - 5000,
        ..plain()
    };
    let zipped = BatchOptions { compression: Compression::Zstd, ..plain() };
    for (index, options) in [(0, plain()), (1, of_log), (2, zipped)] {
        let partition = partition(&disk, index, i64::MAX);
        append(&partition, aged(&[90, 80, 70], options.clone()));
        append(&partition, aged(&[60, 50, 40], options));
        topic.insert(partition);
    }
    // Delete the first record of one partition, and all records of another.
    topic.partition(0).expect("here").update(|core| core.delete_records(1)).expect("in range");
    let emptied = partition(&disk, 3, i64::MAX);
    append(&emptied, aged(&[9, 8], plain()));
    emptied.update(|core| core.delete_records(2)).expect("in range");
    topic.insert(emptied);

    let surveys = vec![
        survey("z", &[(0, 0), (1, 4), (2, 4), (3, 0)]),
        survey("a", &[(0, 2), (1, 6), (2, 9), (9, 1)]),
    ];
    let mut times = RecordTimes::default();
    let (text, parked) = scrape(&table, &mut times, surveys, LONG).await;
    assert_eq!(parked, Parked { rebalances: 2, sessions: 6 });
    let family = |name: &str| {
        let prefix = format!("{name}{{consumergroup=\"");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let short = |line: &str| {
            line.replace("\",topic=\"t\",partition=\"", " ").replace("\"} ", " ").replace("\"}", "")
        };
        lines.map(short).collect::<Vec<_>>()
    };
    assert_eq!(family("kafka_consumergroup_members"), ["a 2", "z 2"]);
    assert!(text.contains("kafka_consumergroup_state{consumergroup=\"a\",state=\"Stable\"} 1\n"));
    assert!(text.contains("kafka_server_groups{state=\"Stable\"} 2\n"));
    assert!(text.contains("kafka_server_groups{state=\"Empty\"} 0\n"));
    assert_eq!(
        family("kafka_consumergroup_current_offset"),
        ["a 0 2", "a 1 6", "a 2 9", "a 9 1", "z 0 0", "z 1 4", "z 2 4", "z 3 0"]
    );
    // Partition 9 is not here. An offset that is committed past the end has no lag.
    let lags = ["a 0 4", "a 1 0", "a 2 0", "z 0 6", "z 1 2", "z 2 2", "z 3 2"];
    assert_eq!(family("kafka_consumergroup_lag"), lags);
    // The record's timestamp; if the record was deleted, that of the next one; the log append time;
    // and the first timestamp of a compressed batch. If no record is left to consume, 0.
    let seconds = ["a 0 70", "a 1 0", "a 2 0", "z 0 80", "z 1 5", "z 2 60", "z 3 0"];
    assert_eq!(family("kafka_consumergroup_lag_seconds"), seconds);
}

#[tokio::test]
async fn positions_that_stay_are_not_looked_up_again() {
    let disk = FaultyDisk::default();
    let (table, topic) = table();
    let partition = partition(&disk, 0, i64::MAX);
    append(&partition, aged(&[90, 80, 70], BatchOptions::default()));
    topic.insert(partition);
    let mut times = RecordTimes::default();
    let mut seconds = async |at: i64, look_up: Duration| {
        let surveys = vec![survey("g", &[(0, at)])];
        let (text, _) = scrape(&table, &mut times, surveys, look_up).await;
        let line = text.lines().find(|line| line.starts_with("kafka_consumergroup_lag_seconds"));
        line.map(|line| line.rsplit_once(' ').expect("has a value").1.to_owned())
    };
    let (long, none) = (LONG, Duration::ZERO);
    assert_eq!(seconds(1, none).await, None, "there was no time for it");
    assert_eq!(seconds(1, long).await.as_deref(), Some("80"));
    assert_eq!(seconds(1, none).await.as_deref(), Some("80"), "it is remembered");
    assert_eq!(seconds(1, none).await.as_deref(), Some("80"), "and still is");
    assert_eq!(seconds(2, long).await.as_deref(), Some("70"));
    assert_eq!(seconds(1, none).await, None, "what nobody asked for is forgotten");
}
