//! Golden scripts: each test sends requests to the decisions, and compares the records and
//! responses with the expected text.

mod brokers;
mod partitions;
mod property;
mod script;

use self::script::{Script, registration, settings, topic};
use super::*;
use crate::metadata::{ConfigResource, records::*};

#[test]
fn topics_are_created_with_defaults_and_configs() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", -1, -1));
    let configs = vec![
        ("retention.ms".into(), Some("1000".into())),
        ("cleanup.policy".into(), Some("compact".into())),
    ];
    script.create(NewTopic { configs, ..topic("b", 2, 1) });
    script.expect(
        "topic a
         partition 0 replicas [1] isr [1] leader 1 dirs 2001
         -> ok
         topic b
         config 2:b cleanup.policy=compact
         config 2:b retention.ms=1000
         partition 0 replicas [1] isr [1] leader 1 dirs 2001
         partition 1 replicas [1] isr [1] leader 1 dirs 2001
         -> ok",
    );
}

#[test]
fn create_topics_errors_match_kafka() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a.b", 1, 1));
    script.text.clear();
    for name in ["", ".", "..", "a b", "a.b", "a_b"] {
        script.create(topic(name, 1, 1));
    }
    script.create(topic(&"x".repeat(250), 1, 1));
    script.create(topic("c", 0, 1));
    script.create(topic("c", 1, 0));
    script.create(topic("c", 1, 2));
    let configs = vec![("retention.ms".into(), None), ("k".into(), None)];
    script.create(NewTopic { configs, ..topic("c", 1, 1) });
    let long = "x".repeat(250);
    script.expect(&format!(
        "-> InvalidTopic: Topic name is invalid: the empty string is not allowed
         -> InvalidTopic: Topic name is invalid: '.' is not allowed
         -> InvalidTopic: Topic name is invalid: '..' is not allowed
         -> InvalidTopic: Topic name is invalid: 'a b' contains one or more characters other than \
         ASCII alphanumerics, '.', '_' and '-'
         -> TopicAlreadyExists: Topic 'a.b' already exists.
         -> InvalidTopic: Topic 'a_b' collides with existing topic: a.b
         -> InvalidTopic: Topic name is invalid: the length of '{long}' is longer than the max \
         allowed length 249
         -> InvalidPartitions: Number of partitions was set to an invalid non-positive value.
         -> InvalidReplicationFactor: Replication factor must be larger than 0, or -1 to use the \
         default value.
         -> InvalidReplicationFactor: Unable to replicate the partition 2 time(s): The target \
         replication factor of 2 cannot be reached because only 1 broker(s) are registered or some \
         brokers have all their log directories cordoned.
         -> InvalidConfig: Null value not supported for topic configs: retention.ms,k"
    ));
}

#[test]
fn assignments_are_checked() {
    let mut script = Script::new(&[(1, None), (2, None)]);
    let assigned = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments.iter().map(|(at, ids)| (*at, ids.to_vec())).collect(),
        ..topic("a", -1, -1)
    };
    script.create(NewTopic { partitions: 1, ..assigned(&[(0, &[1])]) });
    script.create(NewTopic { replication_factor: 1, ..assigned(&[(0, &[1])]) });
    script.create(assigned(&[(0, &[1]), (0, &[2])]));
    script.create(assigned(&[(0, &[])]));
    script.create(assigned(&[(0, &[3])]));
    script.create(assigned(&[(0, &[1, 1])]));
    script.create(assigned(&[(0, &[1, 2]), (1, &[1])]));
    script.create(assigned(&[(1, &[1])]));
    script.create(assigned(&[(1, &[1, 2]), (0, &[2, 1])]));
    script.expect(
        "-> InvalidRequest: A manual partition assignment was specified, but numPartitions was not \
         set to -1.
         -> InvalidRequest: A manual partition assignment was specified, but replication factor \
         was not set to -1.
         -> InvalidReplicaAssignment: Found multiple manual partition assignments for partition 0
         -> InvalidReplicaAssignment: The manual partition assignment includes an empty replica \
         list.
         -> InvalidReplicaAssignment: The manual partition assignment includes broker 3, but no \
         such broker is registered.
         -> InvalidReplicaAssignment: The manual partition assignment includes the broker 1 more \
         than once.
         -> InvalidReplicaAssignment: The manual partition assignment includes a partition with 1 \
         replica(s), but this is not consistent with previous partitions, which have 2 replica(s).
         -> InvalidReplicaAssignment: partitions should be a consecutive 0-based integer sequence
         topic a
         partition 0 replicas [2, 1] isr [2, 1] leader 2 dirs 2002,2001
         partition 1 replicas [1, 2] isr [1, 2] leader 1 dirs 2001,2002
         -> ok",
    );
}

#[test]
fn partitions_are_added() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 1, 1));
    script.text.clear();
    script.grow("a", 3, None);
    script.grow("a", 3, None);
    script.grow("a", 2, None);
    script.grow("b", 2, None);
    script.grow("a", 5, Some(vec![vec![1]]));
    script.grow("a", 4, Some(vec![vec![1]]));
    script.expect(
        "partition 1 replicas [1] isr [1] leader 1 dirs 2001
         partition 2 replicas [1] isr [1] leader 1 dirs 2001
         -> ok
         -> InvalidPartitions: Topic already has 3 partition(s).
         -> InvalidPartitions: The topic a currently has 3 partition(s); 2 would not be an increase.
         -> UnknownTopicOrPartition: null
         -> InvalidReplicaAssignment: Attempted to add 2 additional partition(s), but only 1 \
         assignment(s) were specified.
         partition 3 replicas [1] isr [1] leader 1 dirs 2001
         -> ok",
    );
}

#[test]
fn topics_are_deleted_once() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 1, 1));
    let id = script.image.topic("a").unwrap().id;
    script.text.clear();
    for _ in 0..2 {
        let mut results = script.run(|cx| topics::delete(cx, &[id]));
        script.note(results.remove(0).1);
    }
    script.expect(
        "RemoveTopicRecord
         -> ok
         -> UnknownTopicId: This server does not host this topic ID.",
    );
}

#[test]
fn one_request_may_be_too_large() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 10_001, 1));
    script.create(topic("a", 10_000, 1));
    let both = [topic("a", 6_000, 1), topic("b", 6_000, 1)];
    let refused = ControllerError::PolicyViolation(topics::TOO_MANY_PARTITIONS.into());
    for (_, result) in script.run(|cx| topics::create(cx, &both)) {
        assert_eq!(result, Err(refused.clone()));
    }
    assert_eq!(script.image.topics.len(), 0);
    script.expect(
        "-> PolicyViolation: Excessively large number of partitions per request.
         -> PolicyViolation: Unable to perform excessively large batch operation.",
    );
}

/// `random` shows how many topics were placed: after the topic that exceeds the limit, none.
#[test]
fn too_large_request_stops_at_limit() {
    let script = Script::new(&[(1, None)]);
    let refuse = |random: &mut Random, count: usize| {
        let new: Vec<_> = (0..count).map(|at| topic(&format!("t{at}"), 10, 1)).collect();
        let (image, settings) = (&script.image, &script.settings);
        let mut volatile = VolatileState::default();
        let mut cx = Context { image, settings, volatile: &mut volatile, random, now_ms: 0 };
        topics::create(&mut cx, &new)
    };
    let (mut first, mut all) = (Random::new(7), Random::new(7));
    refuse(&mut first, 910);
    let decision = refuse(&mut all, 1_000);
    assert_eq!(first.uuid(), all.uuid());
    assert!(decision.records.is_empty());
    assert_all_refused(decision.response);
}

#[test]
fn topics_are_not_grown_beyond_what_one_request_may() {
    let mut script = Script::new(&[(1, None)]);
    let small: Vec<_> = (0..1_000).map(|at| topic(&format!("t{at}"), 1, 1)).collect();
    script.run(|cx| topics::create(cx, &small));
    let refuse = |random: &mut Random, count: usize| {
        let name = |at: usize| format!("t{at}");
        let grown = (0..count)
            .map(|at| NewPartitions { name: name(at), count: 10_000, assignments: None })
            .collect::<Vec<_>>();
        let (image, settings) = (&script.image, &script.settings);
        let mut volatile = VolatileState::default();
        let mut cx = Context { image, settings, volatile: &mut volatile, random, now_ms: 0 };
        topics::create_partitions(&mut cx, &grown)
    };
    let (mut first, mut all) = (Random::new(7), Random::new(7));
    refuse(&mut first, 2);
    let decision = refuse(&mut all, 1_000);
    assert_eq!(first.uuid(), all.uuid());
    assert!(decision.records.is_empty());
    assert_all_refused(decision.response);
}

#[track_caller]
fn assert_all_refused<T: std::fmt::Debug>(results: Results<T>) {
    assert_eq!(results.len(), 1_000);
    for (at, (name, result)) in results.into_iter().enumerate() {
        assert_eq!(name, format!("t{at}"));
        assert!(matches!(result, Err(ControllerError::PolicyViolation(_))), "{result:?}");
    }
}

#[test]
fn configs_are_set_deleted_and_edited() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 1, 1));
    script.text.clear();
    let a = ConfigResource::topic("a");
    let policy = "cleanup.policy";
    script.alter(&a, policy, ConfigOp::Append("compact".into()));
    script.alter(&a, policy, ConfigOp::Append("compact".into()));
    script.alter(&a, policy, ConfigOp::Subtract("delete".into()));
    script.alter(&a, policy, ConfigOp::Delete);
    script.alter(&a, policy, ConfigOp::Delete);
    script.alter(&a, "retention.ms", ConfigOp::Append("1".into()));
    script.alter(&a, "no.such.key", ConfigOp::Set("1".into()));
    script.alter(&a, "retention.ms", ConfigOp::Set("never".into()));
    script.alter(&ConfigResource::topic("b"), "retention.ms", ConfigOp::Set("1".into()));
    script.alter(&ConfigResource::topic(""), "retention.ms", ConfigOp::Set("1".into()));
    script.alter(&ConfigResource::broker(1), "log.retention.ms", ConfigOp::Set("1".into()));
    script.alter(&ConfigResource::broker(1), "log.retention.ms", ConfigOp::Set("1".into()));
    script.expect(
        "config 2:a cleanup.policy=delete,compact
         -> ok
         -> ok
         config 2:a cleanup.policy=compact
         -> ok
         config 2:a cleanup.policy=null
         -> ok
         -> ok
         -> InvalidConfig: Can't APPEND to key retention.ms because its type is not LIST.
         -> InvalidConfig: Unknown topic config name: no.such.key
         -> InvalidConfig: Invalid value never for configuration retention.ms: Not a number of \
         type LONG
         -> UnknownTopicOrPartition: The topic 'b' does not exist.
         -> InvalidRequest: Default topic resources are not allowed.
         config 4:1 log.retention.ms=1
         -> ok
         config 4:1 log.retention.ms=1
         -> ok",
    );
}

#[test]
fn alter_configs_unsets_unnamed_keys() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 1, 1));
    script.text.clear();
    for keys in [&["retention.ms", "segment.ms"][..], &["segment.ms"], &[]] {
        let pairs = keys.iter().map(|key| (key.to_string(), Some("1000".to_owned())));
        let change = (ConfigResource::topic("a"), pairs.collect());
        let mut results = script.run(|cx| configs::alter(cx, &[change]));
        script.note(results.remove(0).1);
    }
    script.expect(
        "config 2:a retention.ms=1000
         config 2:a segment.ms=1000
         -> ok
         config 2:a retention.ms=null
         -> ok
         config 2:a segment.ms=null
         -> ok",
    );
}

#[test]
fn producer_ids_are_given_in_blocks() {
    let mut script = Script::new(&[(1, None)]);
    let epoch = script.epoch(1);
    let first = script.run(|cx| producer_ids::allocate(cx, 1, epoch));
    let second = script.run(|cx| producer_ids::allocate(cx, 1, epoch));
    assert_eq!((first, second), (Ok(0), Ok(1_000)));
    let stale = script.run(|cx| producer_ids::allocate(cx, 1, epoch - 1));
    script.note(stale);
    script.expect(
        "producer ids from 1000
         producer ids from 2000
         -> StaleBrokerEpoch: Expected broker epoch 9, but got broker epoch 8",
    );
}

#[test]
fn feature_levels_are_limited_to_supported_range() {
    let mut script = Script::new(&[(1, None)]);
    for (name, level, upgrade) in [
        ("group.version", 0, UpgradeType::Upgrade),
        ("group.version", 0, UpgradeType::SafeDowngrade),
        ("group.version", 1, UpgradeType::SafeDowngrade),
        ("group.version", 1, UpgradeType::Upgrade),
        ("group.version", 9, UpgradeType::Upgrade),
        ("no.version", 1, UpgradeType::Upgrade),
        ("metadata.version", 30, UpgradeType::Upgrade),
        ("group.version", 1, UpgradeType::Unknown),
        ("kraft.version", 2, UpgradeType::Upgrade),
        ("kraft.version", 1, UpgradeType::Upgrade),
        ("kraft.version", 0, UpgradeType::SafeDowngrade),
        ("kraft.version", 0, UpgradeType::UnsafeDowngrade),
    ] {
        let update = FeatureUpdate { name: name.into(), level, upgrade };
        let result = script.run(|cx| features::update(cx, &[update], 1));
        script.note(result);
    }
    script.expect(
        "-> InvalidUpdateVersion: Invalid update version 0 for feature group.version. Can't \
         downgrade the version of this feature without setting the upgrade type to either safe or \
         unsafe downgrade.
         feature group.version=0
         -> ok
         -> InvalidUpdateVersion: Invalid update version 1 for feature group.version. Can't \
         downgrade to a newer version.
         feature group.version=1
         -> ok
         -> InvalidUpdateVersion: Invalid update version 9 for feature group.version. Local \
         controller 1 only supports versions 0-1
         -> InvalidUpdateVersion: Invalid update version 1 for feature no.version. Local \
         controller 1 does not support this feature.
         feature metadata.version=30
         -> ok
         -> InvalidUpdateVersion: Invalid update version 1 for feature group.version. The \
         controller does not support the given upgrade type.
         -> InvalidUpdateVersion: Invalid update version 2 for feature kraft.version. Local \
         controller 1 only supports versions 0-1
         -> ok
         -> InvalidUpdateVersion: Invalid update version 0 for feature kraft.version. Can't \
         downgrade the version of this feature.
         -> InvalidUpdateVersion: Invalid update version 0 for feature kraft.version. Can't \
         downgrade the version of this feature.",
    );
}

#[test]
fn elections_answer_as_kafka_does() {
    let mut script = Script::new(&[(1, None)]);
    script.create(topic("a", 1, 1));
    script.text.clear();
    let asked = vec![("a".to_owned(), vec![0, 1]), ("b".to_owned(), vec![0])];
    for kind in [ElectionType::Preferred, ElectionType::Unclean] {
        for (_, partitions) in script.run(|cx| elections::elect(cx, kind, Some(&asked))) {
            for (_, result) in partitions {
                script.note(result);
            }
        }
    }
    let all = script.run(|cx| elections::elect(cx, ElectionType::Preferred, None));
    assert_eq!(all, [("a".to_owned(), vec![])]);
    let thrice = "-> ElectionNotNeeded: Leader election not needed for topic partition.
         -> UnknownTopicOrPartition: No such partition as a-1
         -> UnknownTopicOrPartition: No such topic as b\n";
    script.expect(&thrice.repeat(2));
}

/// Checks the guarantees of Kafka's placer, with racks and fenced brokers.
#[test]
fn replicas_are_spread_over_racks_and_brokers() {
    let racks = [Some("x"), Some("x"), Some("y"), Some("y"), Some("z"), None];
    let brokers: Vec<_> = racks.iter().enumerate().map(|(id, rack)| (id as i32, *rack)).collect();
    let mut script = Script::new(&brokers);
    let fenced = BrokerRegistrationChangeRecord { broker_id: 1, fenced: 1, ..Default::default() };
    script.commit(&[fenced.into()]);
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let placed = placement::place(&script.image, 60, 3, &mut random).unwrap();
        let mut leads = [0; 6];
        for replicas in &placed {
            leads[replicas[0] as usize] += 1;
            let used: std::collections::BTreeSet<_> =
                replicas.iter().map(|id| racks[*id as usize]).collect();
            assert_eq!(used.len(), 3, "each in a rack of its own: {replicas:?}");
        }
        assert_eq!(leads[1], 0, "a fenced broker never leads");
        assert!(leads.iter().enumerate().all(|(id, n)| id == 1 || *n >= 6), "{leads:?}");
        assert_eq!(placed, placement::place(&script.image, 60, 3, &mut Random::new(seed)).unwrap());
    }
    assert!(placement::place(&script.image, 1, 6, &mut Random::new(1)).is_ok());
}

#[test]
fn ids_are_random_and_never_look_like_options() {
    let mut random = Random::new(3);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let id = random.uuid();
        assert_eq!(id.get_version_num(), 4);
        assert_ne!(id.as_bytes()[0] >> 2, 62);
        assert!(seen.insert(id));
    }
}

/// Requests that wait at the same time are one batch. Each sees the decisions before it.
#[tokio::test]
async fn concurrent_requests_see_each_other() {
    use crate::quorum::{Quorum, QuorumConfig};
    let dir = tempfile::tempdir().unwrap();
    let config = QuorumConfig::alone(1, dir.path().to_owned());
    let (quorum, _, mut stream) = Quorum::start(config).await.unwrap();
    let controller = Controller::start(quorum.clone(), settings(), None);
    let registered = controller.register_broker(registration(1, 9)).await.unwrap();
    assert_eq!(registered.value, Ok(10));
    let heartbeat = Heartbeat {
        broker_id: 1,
        broker_epoch: 10,
        current_metadata_offset: registered.offset,
        ..Heartbeat::default()
    };
    let reply = controller.heartbeat(heartbeat).await.unwrap().value;
    assert!(reply.is_caught_up && !reply.is_fenced);
    let create = || controller.create_topics(vec![topic("a", 1, 1)], false);
    let (first, second, third) = tokio::join!(create(), create(), create());
    let created = [first, second, third].map(|outcome| outcome.unwrap());
    let ok = created.iter().filter(|outcome| outcome.value[0].1.is_ok()).count();
    assert_eq!(ok, 1, "{created:?}");
    let image = quorum.image();
    assert!(created.iter().all(|outcome| outcome.offset == image.offset));
    assert!(image.topic("a").is_some());
    let checked = controller.create_topics(vec![topic("b", 1, 1)], true).await.unwrap();
    assert!(checked.value[0].1.is_ok());
    assert!(quorum.image().topic("b").is_none());
    let mut last = -1;
    while let Some(batch) = stream.try_next() {
        last = batch.last_offset;
    }
    assert_eq!(last, image.offset);
}

/// One of two voters cannot become the leader, so its controller refuses requests.
#[tokio::test]
async fn inactive_controller_returns_not_controller() {
    use crate::quorum::{Endpoint, Quorum, QuorumConfig, Voter};
    let dir = tempfile::tempdir().unwrap();
    let mut config = QuorumConfig::alone(1, dir.path().to_owned());
    config.voters.push(Voter::new(2, uuid::Uuid::nil(), Endpoint::default()));
    let (quorum, ..) = Quorum::start(config).await.unwrap();
    let controller = Controller::start(quorum.clone(), settings(), None);
    for _ in 0..2 {
        let error = controller.heartbeat(Heartbeat::default()).await.unwrap_err();
        assert_eq!(error, ControllerError::not_controller(None));
    }
    assert_eq!(quorum.image().features.len(), 0);
}
