//! Tests of images, changes, snapshots and transactions.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::{records::*, *};

fn id(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

/// Random records with few names and ids, so that many of them refer to the same topics and
/// brokers.
fn record() -> impl Strategy<Value = MetadataRecord> {
    let ids = || prop::collection::vec(0..4i32, 0..3);
    prop_oneof![
        (0..6u8).prop_map(|n| TopicRecord { name: format!("t{n}"), topic_id: id(n) }.into()),
        (0..6u8, 0..4i32, ids(), -1..4i32).prop_map(|(n, partition_id, replicas, leader)| {
            PartitionRecord {
                partition_id,
                topic_id: id(n),
                directories: vec![id(n); replicas.len()],
                isr: replicas.clone(),
                replicas,
                leader,
                leader_epoch: 1,
                partition_epoch: 2,
                ..Default::default()
            }
            .into()
        }),
        (0..6u8, 0..4i32, prop::option::of(ids()), -2..4i32).prop_map(
            |(n, partition_id, isr, leader)| {
                let eligible_leader_replicas = isr.clone();
                let topic_id = id(n);
                PartitionChangeRecord {
                    partition_id,
                    topic_id,
                    isr,
                    leader,
                    eligible_leader_replicas,
                    ..Default::default()
                }
                .into()
            }
        ),
        (0..6u8).prop_map(|n| RemoveTopicRecord { topic_id: id(n) }.into()),
        (0..6u8, prop::option::of("[ab]")).prop_map(|(n, value)| {
            ConfigRecord {
                resource_type: if n < 5 { 2 } else { 4 },
                resource_name: format!("t{n}"),
                name: "k".into(),
                value,
            }
            .into()
        }),
        (0..3i32, any::<bool>()).prop_map(|(broker_id, fenced)| {
            RegisterBrokerRecord { broker_id, fenced, ..Default::default() }.into()
        }),
        (0..3i32, -1..=1i8).prop_map(|(broker_id, fenced)| {
            BrokerRegistrationChangeRecord { broker_id, fenced, ..Default::default() }.into()
        }),
        (0..3i32).prop_map(|id| UnregisterBrokerRecord { broker_id: id, broker_epoch: 0 }.into()),
        ("[ab]", 0..3i16).prop_map(|(name, feature_level)| FeatureLevelRecord {
            name,
            feature_level
        }
        .into()),
        (0..5i64).prop_map(|next_producer_id| {
            ProducerIdsRecord { next_producer_id, ..Default::default() }.into()
        }),
        ("[uv]", "[kl]", any::<bool>()).prop_map(|(user, key, remove)| {
            let part = EntityData { entity_type: "user".into(), entity_name: Some(user) };
            ClientQuotaRecord { entity: vec![part], key, value: 2.0, remove }.into()
        }),
        Just(ClearElrRecord::default().into()),
    ]
}

fn replay(records: &[MetadataRecord]) -> Image {
    let mut image = Image::default();
    for record in records {
        image.apply(record);
    }
    image
}

/// Applies a change of topics, configurations or brokers to an image, and ignores other changes.
fn follow(image: &mut Image, change: &Change) {
    match change {
        Change::TopicCreated { id, name } => {
            image.apply(&TopicRecord { name: name.to_string(), topic_id: *id }.into());
        }
        Change::TopicDeleted { topic } => {
            image.apply(&RemoveTopicRecord { topic_id: topic.id }.into());
        }
        Change::PartitionAdded { id, partition, new, .. } => {
            image.apply(&new.to_record(*id, *partition).into());
        }
        Change::PartitionChanged(change) => {
            image.apply(&change.new.to_record(change.id, change.partition).into());
        }
        Change::ConfigChanged { resource, key, new, .. } => {
            let record = ConfigRecord {
                resource_type: resource.kind.id(),
                resource_name: resource.name.to_string(),
                name: key.clone(),
                value: new.clone(),
            };
            image.apply(&record.into());
        }
        Change::BrokerChanged { new, .. } => {
            image.apply(&BrokerImage::clone(new).into());
        }
        Change::BrokerUnregistered { id, .. } => {
            image.apply(&UnregisterBrokerRecord { broker_id: *id, broker_epoch: 0 }.into());
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn records_survive_their_bytes(record in record()) {
        prop_assert_eq!(MetadataRecord::decode(record.to_bytes()), Ok(record));
    }

    #[test]
    fn a_snapshot_is_the_image(records in prop::collection::vec(record(), 0..60)) {
        let image = replay(&records);
        let again = replay(&image.records());
        // A snapshot has no record of producer ids before the first block is allocated.
        let producer_ids = image.producer_ids.clone();
        prop_assert_eq!(Image { producer_ids, ..again }, image);
    }

    #[test]
    fn following_the_differences_leads_to_the_new_image(
        before in prop::collection::vec(record(), 0..40),
        after in prop::collection::vec(record(), 0..40),
    ) {
        let old = replay(&before);
        let mut new = old.clone();
        for record in &after {
            // The id of a deleted topic is never used again.
            let reborn = matches!(record, MetadataRecord::Topic(topic)
                if old.topic_by_id(topic.topic_id).is_some());
            // Only existing topics have a configuration.
            let stray = matches!(record, MetadataRecord::Config(config)
                if config.resource_type == 2 && new.topic(&config.resource_name).is_none());
            if !reborn && !stray {
                new.apply(record);
            }
        }
        let mut followed = old.clone();
        for change in diff(&old, &new) {
            follow(&mut followed, &change);
        }
        prop_assert_eq!(&followed.topics, &new.topics);
        prop_assert_eq!(&followed.configs, &new.configs);
        prop_assert_eq!(&followed.brokers, &new.brokers);
        prop_assert_eq!(diff(&new, &new), vec![]);
    }
}

#[test]
fn a_leader_in_a_change_moves_the_leader_epoch() {
    let partition = PartitionRecord {
        partition_id: 0,
        topic_id: id(1),
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 4,
        partition_epoch: 7,
        ..Default::default()
    };
    let topic = TopicRecord { name: "t".into(), topic_id: id(1) };
    let mut image = replay(&[topic.into(), partition.into()]);
    let change = |leader| PartitionChangeRecord {
        topic_id: id(1),
        partition_id: 0,
        leader,
        ..Default::default()
    };
    let epochs = |image: &Image| {
        let partition = image.partition("t", 0).unwrap();
        (partition.leader, partition.leader_epoch, partition.partition_epoch)
    };
    image.apply(&change(topics::NO_LEADER_CHANGE).into());
    assert_eq!(epochs(&image), (1, 4, 8));
    image.apply(&change(1).into());
    assert_eq!(epochs(&image), (1, 5, 9));
    image.apply(&change(topics::NO_LEADER).into());
    assert_eq!(epochs(&image), (-1, 6, 10));
}

#[test]
fn deleting_a_topic_takes_its_configuration_along() {
    let topic = |n| TopicRecord { name: "t".into(), topic_id: id(n) };
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "k".into(),
        value: Some("v".into()),
    };
    let mut image = replay(&[topic(1).into(), config.into()]);
    let kept = image.clone();
    let change = image.apply(&RemoveTopicRecord { topic_id: id(1) }.into());
    assert!(matches!(change, Change::TopicDeleted { topic } if &*topic.name == "t"));
    assert!(image.config(&ConfigResource::topic("t")).is_empty());
    assert_eq!(kept.config(&ConfigResource::topic("t")).len(), 1);
    image.apply(&topic(2).into());
    assert_eq!(image.topic("t").unwrap().id, id(2));
    assert_eq!(image.topic_by_id(id(1)), None);
}

#[test]
fn a_change_leaves_other_topics_shared() {
    let mut image = Image::default();
    for n in 0..200u8 {
        image.apply(&TopicRecord { name: format!("t{n}"), topic_id: id(n) }.into());
    }
    let before = image.clone();
    let partition = PartitionRecord { partition_id: 0, topic_id: id(7), ..Default::default() };
    image.apply(&partition.into());
    let shared =
        before.topics.iter().filter(|topic| Arc::ptr_eq(topic, image.topic(&topic.name).unwrap()));
    assert_eq!(shared.count(), 199);
}

#[test]
fn a_transaction_counts_at_its_end_or_not_at_all() {
    let topic = |n| MetadataRecord::from(TopicRecord { name: format!("t{n}"), topic_id: id(n) });
    let begin = || MetadataRecord::from(BeginTransactionRecord::default());
    let mut filter = TransactionFilter::default();
    let mut passed = Vec::new();
    let mut feed = |record| {
        filter.pass(record, |record| passed.push(record));
        passed.len()
    };
    assert_eq!(feed(topic(0)), 1);
    feed(begin());
    assert_eq!(feed(topic(1)), 1);
    assert_eq!(feed(EndTransactionRecord::default().into()), 2);
    feed(begin());
    feed(topic(2));
    assert_eq!(feed(AbortTransactionRecord::default().into()), 2);
    assert_eq!(feed(topic(3)), 3);
    assert_eq!(passed, [topic(0), topic(1), topic(3)]);
}
