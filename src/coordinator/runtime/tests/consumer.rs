//! Consumer groups through the coordinator: topics and configs reach the shards, and regular
//! expressions are resolved beside them.

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::group::{
    config::ConsumerGroupConfig,
    consumer::messages::{
        ConsumerHeartbeatReply, ConsumerHeartbeatRequest, TopicInfo, TopicsSnapshot,
    },
};

fn topics(named: &[(&str, i32)]) -> Arc<TopicsSnapshot> {
    let mut snapshot = TopicsSnapshot::default();
    for (name, partitions) in named {
        let (id, name): (_, Arc<str>) = (TopicId::from_u128(name.len() as u128), (*name).into());
        let info = TopicInfo { id, partitions: *partitions, hash: i64::from(*partitions) };
        snapshot.topics.insert(name.clone(), Arc::new(info));
        snapshot.names.insert(id, name);
    }
    Arc::new(snapshot)
}

fn heartbeat(member_epoch: i32, regex: &str) -> ConsumerHeartbeatRequest {
    let joins = member_epoch == 0;
    ConsumerHeartbeatRequest {
        group: "g".into(),
        member_id: "m".into(),
        member_epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: None,
        subscribed_topic_regex: joins.then(|| regex.into()),
        server_assignor: None,
        owned_partitions: joins.then(Vec::new),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
    }
}

async fn beat(groups: &GroupCoordinator, epoch: i32, regex: &str) -> ConsumerHeartbeatReply {
    groups.consumer_heartbeat(heartbeat(epoch, regex)).await.wait().await.unwrap().unwrap()
}

/// Sends heartbeats until the member has entered an epoch. Returns the last response.
async fn beat_until(groups: &GroupCoordinator, epoch: i32) -> ConsumerHeartbeatReply {
    let mut reply = beat(groups, 0, "t+").await;
    while reply.member_epoch < epoch {
        tokio::time::sleep(Duration::from_millis(1)).await;
        reply = beat(groups, reply.member_epoch, "").await;
    }
    reply
}

#[tokio::test]
async fn regexes_are_resolved_beside_the_shard() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    let refused = groups.consumer_heartbeat(heartbeat(0, "t+")).await.wait().await.unwrap();
    assert_eq!(refused.unwrap_err().error, GroupError::CoordinatorLoadInProgress);

    groups.set_topics(topics(&[("t", 2), ("tt", 1), ("xyz", 1)]));
    let reply = beat_until(&groups, 2).await;
    let expected = [(TopicId::from_u128(1), vec![0, 1]), (TopicId::from_u128(2), vec![0])];
    assert_eq!(reply.assignment, Some(expected.into()));
}

#[tokio::test]
async fn shards_know_topics_and_configs_from_before_and_after_their_election() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    groups.set_topics(topics(&[("t", 1)]));
    ready(&groups).await;
    assert_eq!(beat_until(&groups, 2).await.heartbeat_interval_ms, 5_000);

    // The same log has a new shard.
    let config = ConsumerGroupConfig {
        heartbeat_interval_ms: Some(7_000),
        ..ConsumerGroupConfig::default()
    };
    groups.set_group_configs(Arc::new(BTreeMap::from([("g".into(), config)])));
    assert_eq!(beat(&groups, 2, "").await.heartbeat_interval_ms, 7_000);
    groups.on_elected(0, 1, Arc::clone(&log) as _);
    ready(&groups).await;
    let reply = beat(&groups, 2, "").await;
    assert_eq!((reply.member_epoch, reply.heartbeat_interval_ms), (2, 7_000));
    let described = groups.describe_consumer_groups(vec!["g".into(), "h".into()]).await;
    let errors: Vec<_> =
        described.iter().map(|(id, it)| (&**id, it.as_ref().err().map(|it| it.error))).collect();
    assert_eq!(errors, [("g", None), ("h", Some(GroupError::GroupIdNotFound))]);
}

#[tokio::test]
async fn older_topics_do_not_replace_newer_ones() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    for partitions in 1..=50 {
        groups.set_topics(topics(&[("t", partitions)]));
    }
    let reply = beat_until(&groups, 2).await;
    assert_eq!(reply.assignment.unwrap()[&TopicId::from_u128(1)].len(), 50);
}
