//! An administrator: creates topics, changes configs, elects leaders, adds partitions, moves them
//! to other brokers and to other log directories, and takes voters from the quorum.

use std::time::Duration;

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId,
    CreatePartitionsRequest, DescribeQuorumRequest, ElectLeadersRequest, RemoveRaftVoterRequest,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    create_partitions_request::CreatePartitionsTopic,
    describe_quorum_request,
};
use sordini::{
    coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC},
    peers::Address,
    protocol::ErrorCode,
};
use tokio::time::sleep;

use crate::{
    client::Client,
    machines::{OFFSETS_PARTITIONS, TRANSACTIONS_PARTITIONS, log_dirs},
    requests::{self, topic_name},
};

/// Topics with their partitions.
pub const TOPICS: [(&str, i32); 2] = [("first", 2), ("second", 1)];
const TIMEOUT_MS: i32 = 2_500;

pub async fn create_topics(client: &mut Client) {
    for (name, partitions) in TOPICS {
        create_topic(client, name, partitions).await;
    }
}

/// Creates a topic, unless it exists.
pub async fn create_topic(client: &mut Client, name: &str, partitions: i32) {
    let configs = [("min.insync.replicas", "2")];
    let request = requests::create_topic(name, partitions, 3, &configs);
    let request = request.with_timeout_ms(TIMEOUT_MS);
    loop {
        let broker = client.any_broker();
        let answer = client.ask(&broker, 7, &request).await;
        let code = answer.and_then(|mut it| it.topics.pop()).map(|it| it.error_code);
        if code == Some(0) || code == Some(ErrorCode::TopicAlreadyExists.code()) {
            return;
        }
        client.history.lock().refused(code.unwrap_or_default());
        client.rest().await;
    }
}

/// Requests more partitions of a topic. Returns whether this added them, and whether the topic has
/// them now, because an earlier request without a response may have added them.
pub async fn grow(
    client: &mut Client,
    broker: &Address,
    topic: &str,
    partitions: i32,
) -> (bool, bool) {
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name(topic))
        .with_count(partitions)
        .with_assignments(None);
    let request =
        CreatePartitionsRequest::default().with_timeout_ms(TIMEOUT_MS).with_topics(vec![topic]);
    let answer = client.ask(broker, 3, &request).await;
    let code = answer.and_then(|mut it| it.results.pop()).map(|it| it.error_code);
    let done = code == Some(0);
    (done, done || code == Some(ErrorCode::InvalidPartitions.code()))
}

/// Sends administrative requests for as long as the run lasts. It does not check their effects:
/// the invariants do.
pub async fn run(mut client: Client, nodes: i32, has_joining_voters: bool) {
    create_topics(&mut client).await;
    let last = if has_joining_voters { 8 } else { 6 };
    let mut partitions = 1;
    loop {
        let pause = client.rng.between(300, 3_000);
        sleep(Duration::from_millis(pause)).await;
        let broker = client.any_broker();
        let done = match client.rng.between(0, last) {
            0 => client.ask(&broker, 2, &preferred()).await.is_some(),
            1 => {
                let segment_ms = client.rng.between(2, 9) * 1_000;
                let (key, value) = ("segment.ms", segment_ms.to_string());
                let request = requests::alter_config(requests::TOPIC, "first", key, Some(&value));
                client.ask(&broker, 1, &request).await.is_some()
            }
            2 if partitions < 6 => {
                let (done, has) = grow(&mut client, &broker, "second", partitions + 1).await;
                partitions += i32::from(has);
                done
            }
            3..5 => move_replica(&mut client, &broker).await.is_some(),
            7.. => remove_voter(&mut client, &broker).await.is_some(),
            _ => {
                let request = reorder(&mut client, nodes);
                client.ask(&broker, 0, &request).await.is_some()
            }
        };
        if done {
            let mut history = client.history.lock();
            history.note_progress("admin");
        }
    }
}

/// Requests preferred leader elections of all partitions, once.
pub async fn elect_preferred(mut client: Client) {
    let broker = client.any_broker();
    client.ask(&broker, 2, &preferred()).await;
}

fn preferred() -> ElectLeadersRequest {
    ElectLeadersRequest::default().with_timeout_ms(TIMEOUT_MS).with_topic_partitions(None)
}

/// Removes a random voter from the quorum. With auto-join, it adds itself again.
async fn remove_voter(client: &mut Client, broker: &Address) -> Option<()> {
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let mut quorum = client.ask(broker, 2, &request).await?;
    let mut voters = quorum.topics.pop()?.partitions.pop()?.current_voters;
    let at = client.rng.between(0, voters.len().checked_sub(1)? as u64) as usize;
    let voter = voters.swap_remove(at);
    let request = RemoveRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_voter_id(*voter.replica_id)
        .with_voter_directory_id(voter.replica_directory_id);
    let code = client.ask(broker, 0, &request).await?.error_code;
    client.history.lock().refused(code);
    (code == 0).then_some(())
}

/// Moves a broker's replica of a partition to one of its log directories.
async fn move_replica(client: &mut Client, broker: &Address) -> Option<()> {
    let topics = [
        (OFFSETS_TOPIC, OFFSETS_PARTITIONS),
        (TRANSACTIONS_TOPIC, TRANSACTIONS_PARTITIONS),
        TOPICS[0],
    ];
    let (topic, partitions) = topics[client.rng.between(0, topics.len() as u64 - 1) as usize];
    let partition = client.rng.between(0, partitions as u64 - 1) as i32;
    let node = broker.host.trim_start_matches('n').parse().ok()?;
    let dirs = log_dirs(node);
    let dir = &dirs[client.rng.between(0, dirs.len() as u64 - 1) as usize];
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let dir = AlterReplicaLogDir::default().with_path(dir.clone().into()).with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    let mut answer = client.ask(broker, 2, &request).await?;
    let code = answer.results.pop()?.partitions.pop()?.error_code;
    client.history.lock().refused(code);
    (code == 0).then_some(())
}

/// Reorders the replicas of a partition, which changes its preferred leader.
fn reorder(client: &mut Client, nodes: i32) -> AlterPartitionReassignmentsRequest {
    let first = client.rng.between(0, nodes as u64 - 1) as i32;
    let replicas = (0..3).map(|at| BrokerId((first + at) % nodes + 1)).collect();
    let partition =
        ReassignablePartition::default().with_partition_index(0).with_replicas(Some(replicas));
    let topic = ReassignableTopic::default()
        .with_name(topic_name("first"))
        .with_partitions(vec![partition]);
    AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(vec![topic])
}
