//! The rdkafka crate against the broker at `KAFKA_BOOTSTRAP`.
#![cfg(test)]

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

fn config(pairs: &[(&str, &str)]) -> ClientConfig {
    let bootstrap = std::env::var("KAFKA_BOOTSTRAP").expect("KAFKA_BOOTSTRAP names the broker");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in pairs {
        config.set(*key, *value);
    }
    config
}

async fn create(topic: &str, partitions: i32) -> AdminClient<DefaultClientContext> {
    let admin: AdminClient<_> = config(&[]).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let results = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    assert_eq!(results, [Ok(topic.to_owned())]);
    admin
}

async fn produce(topic: &str, count: usize, pairs: &[(&str, &str)]) {
    let producer: FutureProducer = config(pairs).create().unwrap();
    for n in 0..count {
        let (key, value) = (format!("k{n}"), format!("v{n}"));
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some("1") });
        let record =
            FutureRecord::to(topic).partition(0).key(&key).payload(&value).headers(headers);
        let delivery = producer.send(record, TIMEOUT).await.unwrap();
        assert_eq!(delivery.partition, 0);
    }
}

fn member(group: &str, topic: &str) -> StreamConsumer {
    let pairs =
        [("group.id", group), ("auto.offset.reset", "earliest"), ("enable.auto.commit", "false")];
    let consumer: StreamConsumer = config(&pairs).create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

async fn read(consumer: &StreamConsumer, count: usize) -> Vec<OwnedMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = tokio::time::timeout(TIMEOUT, consumer.recv()).await.expect("in time");
        messages.push(message.unwrap().detach());
    }
    messages
}

#[tokio::test]
async fn round_trip() {
    create("rust-round-trip", 1).await;
    produce("rust-round-trip", 50, &[("enable.idempotence", "true"), ("linger.ms", "0")]).await;
    let messages = read(&member("rust-round-trip-group", "rust-round-trip"), 50).await;
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message.offset(), n as i64);
        assert_eq!(message.key(), Some(format!("k{n}").as_bytes()));
        assert_eq!(message.payload(), Some(format!("v{n}").as_bytes()));
        assert_eq!(message.headers().unwrap().get(0).value, Some(&b"1"[..]));
    }
}

#[tokio::test]
async fn group_resumes_where_it_committed() {
    create("rust-resumed", 1).await;
    produce("rust-resumed", 10, &[("linger.ms", "0")]).await;
    let first = member("rust-group", "rust-resumed");
    read(&first, 6).await;
    let mut commit = TopicPartitionList::new();
    commit.add_partition_offset("rust-resumed", 0, Offset::Offset(6)).unwrap();
    first.commit(&commit, CommitMode::Sync).unwrap();
    drop(first);
    let second = member("rust-group", "rust-resumed");
    assert_eq!(read(&second, 4).await[0].offset(), 6);
    let committed = second.committed(TIMEOUT).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(6));
}

#[tokio::test]
async fn watermarks_and_times() {
    create("rust-timed", 1).await;
    produce("rust-timed", 3, &[("linger.ms", "0")]).await;
    let consumer = member("rust-timed-group", "rust-timed");
    assert_eq!(consumer.fetch_watermarks("rust-timed", 0, TIMEOUT).unwrap(), (0, 3));
    let mut times = TopicPartitionList::new();
    times.add_partition_offset("rust-timed", 0, Offset::Offset(1)).unwrap();
    let found = consumer.offsets_for_times(times, TIMEOUT).unwrap();
    assert_eq!(found.elements()[0].offset(), Offset::Offset(0));
}

#[tokio::test]
async fn metadata() {
    create("rust-metadata", 3).await;
    let consumer = member("rust-metadata-group", "rust-metadata");
    let metadata = consumer.fetch_metadata(Some("rust-metadata"), TIMEOUT).unwrap();
    assert_eq!(metadata.brokers().iter().map(|b| b.id()).collect::<Vec<_>>(), [1]);
    assert_eq!(metadata.topics()[0].partitions().len(), 3);
    assert!(metadata.topics()[0].partitions().iter().all(|p| p.leader() == 1));
}

#[tokio::test]
async fn admin() {
    let admin = create("rust-admin", 1).await;
    let options = AdminOptions::new();
    let twice = NewTopic::new("rust-admin", 1, TopicReplication::Fixed(1));
    let refused = admin.create_topics([&twice], &options).await.unwrap();
    let exists = RDKafkaErrorCode::TopicAlreadyExists;
    assert_eq!(refused, [Err(("rust-admin".to_owned(), exists))]);
    let more = admin.create_partitions([&NewPartitions::new("rust-admin", 2)], &options).await;
    assert_eq!(more.unwrap(), [Ok("rust-admin".to_owned())]);
    let topic = ResourceSpecifier::Topic("rust-admin");
    let entries = HashMap::from([("retention.ms", "777")]);
    let altered = admin.alter_configs([&AlterConfig { specifier: topic, entries }], &options).await;
    assert!(altered.unwrap()[0].is_ok());
    let described = admin.describe_configs([&topic], &options).await.unwrap();
    let described = described.into_iter().next().unwrap().unwrap();
    assert!(described.entry_map().contains_key("retention.ms"));
    assert!(admin.delete_topics(&["rust-admin"], &options).await.unwrap()[0].is_ok());
}
