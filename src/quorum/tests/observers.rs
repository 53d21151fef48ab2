//! Observers follow the log with Fetch and FetchSnapshot.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    fetch_response::{
        EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
        SnapshotId,
    },
    fetch_snapshot_response,
};

use super::{super::*, network::*, topic};
use crate::log::faulty::Crash;

/// The port of a node in these tests is its id.
pub struct Client(pub Arc<Mutex<World>>);

pub fn endpoint(id: i32) -> Endpoint {
    Endpoint { name: String::new(), host: "node".into(), port: id as u16 }
}

impl Client {
    fn node(&self, to: &Endpoint) -> Result<Quorum, TransportError> {
        let found = self.0.lock().node(i32::from(to.port));
        found.ok_or_else(|| TransportError::Refused("it is down".into()))
    }
}

impl LeaderClient for Client {
    fn fetch(
        &self,
        to: Endpoint,
        request: FetchRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<FetchResponse, TransportError>> {
        let node = self.node(&to);
        Box::pin(async move {
            let answer = answer_fetch(node?, request);
            let late = |_| TransportError::NoAnswer("timed out".into());
            tokio::time::timeout(timeout, answer).await.map_err(late)
        })
    }

    fn fetch_snapshot(
        &self,
        to: Endpoint,
        request: FetchSnapshotRequest,
        _: Duration,
    ) -> BoxFuture<'static, Result<FetchSnapshotResponse, TransportError>> {
        let node = self.node(&to);
        Box::pin(async move {
            let asked = &request.topics[0].partitions[0];
            let id = (asked.snapshot_id.end_offset, asked.snapshot_id.epoch);
            let part = node?.read_snapshot(id, asked.position, 100, asked.current_leader_epoch);
            let part = part.map_err(|error| TransportError::NoAnswer(error.to_string()))?;
            let partition = fetch_snapshot_response::PartitionSnapshot::default()
                .with_size(part.size)
                .with_position(asked.position)
                .with_unaligned_records(part.bytes);
            let topic =
                fetch_snapshot_response::TopicSnapshot::default().with_partitions(vec![partition]);
            Ok(FetchSnapshotResponse::default().with_topics(vec![topic]))
        })
    }
}

async fn answer_fetch(node: Quorum, request: FetchRequest) -> FetchResponse {
    let asked = &request.topics[0].partitions[0];
    let replica = Replica {
        id: request.replica_state.replica_id.0,
        directory_id: asked.replica_directory_id,
    };
    let from = FetchFrom {
        offset: asked.fetch_offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        leader_epoch: asked.current_leader_epoch,
        max_bytes: 300,
    };
    let max_wait = Duration::from_millis(request.max_wait_ms as u64);
    let fetched = node.fetch_or_wait(Some(replica), from, max_wait).await;
    let mut partition =
        PartitionData::default().with_high_watermark(fetched.high_watermark).with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(fetched.leader.unwrap_or(-1).into())
                .with_leader_epoch(fetched.leader_epoch),
        );
    match fetched.outcome {
        FetchOutcome::Records(records) => partition.records = Some(records),
        FetchOutcome::Diverging { epoch, end_offset } => {
            partition.diverging_epoch =
                EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
        }
        FetchOutcome::Snapshot { end_offset, epoch } => {
            partition.snapshot_id =
                SnapshotId::default().with_end_offset(end_offset).with_epoch(epoch);
        }
        FetchOutcome::NotLeader => partition.error_code = 6,
        FetchOutcome::FencedEpoch => partition.error_code = 74,
        FetchOutcome::UnknownEpoch => partition.error_code = 75,
        FetchOutcome::Failed => partition.error_code = 56,
    }
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    let leader = fetched.leader.map(|id| {
        let at = endpoint(id);
        NodeEndpoint::default()
            .with_node_id(id.into())
            .with_host(kafka_protocol::protocol::StrBytes::from_string(at.host))
            .with_port(i32::from(at.port))
    });
    FetchResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(leader.into_iter().collect())
}

/// Three voters and a node 4 that observes them.
pub async fn with_observer(seed: u64, snapshot_bytes: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, &[1, 2, 3]);
    cluster.snapshot_bytes = snapshot_bytes;
    cluster.add_observer(4);
    for id in [1, 2, 3, 4] {
        cluster.start(id).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn observer_follows_each_new_leader() {
    for seed in 0..3 {
        let mut cluster = with_observer(seed, 1 << 20).await;
        for _ in 0..5 {
            assert!(cluster.propose().await);
        }
        cluster.settle().await;
        let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let told = *cluster.node(4).leadership().borrow();
        assert_eq!(told, Leadership { leader: Some(leader), epoch, active: false });
        let status = cluster.node(leader).status();
        let seen = &status.observers;
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].replica_id, seen[0].log_end_offset), (4, status.high_watermark));
        assert!(seen[0].last_caught_up_ms > 0);
        cluster.crash(leader, Crash::LoseUnsynced).await;
        for _ in 0..3 {
            cluster.propose().await;
        }
        // Batches that the observer loses in a crash do not prevent it from following again.
        cluster.crash(4, Crash::LoseUnsynced).await;
        cluster.start(4).await;
        cluster.start(leader).await;
        cluster.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_far_behind_gets_a_snapshot() {
    for seed in 0..3 {
        let mut cluster = with_observer(seed, 2_000).await;
        assert!(cluster.propose().await);
        cluster.settle().await;
        cluster.crash(4, Crash::Process).await;
        for _ in 0..100 {
            assert!(cluster.propose().await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        assert!(cluster.node(leader).inner.storage.log().first_index() > 10);
        cluster.start(4).await;
        cluster.settle().await;
        assert!(cluster.node(4).inner.storage.log().first_index() > 10);
        cluster.crash(4, Crash::LoseUnsynced).await;
        cluster.start(4).await;
        cluster.settle().await;
    }
}

/// A sole voter need not sync deferred batches that only it relies on. It syncs them before an
/// observer gets them.
#[tokio::test(start_paused = true)]
async fn what_an_observer_has_seen_survives_the_machine_of_a_sole_voter() {
    let mut cluster = Cluster::new(5, &[1]);
    cluster.add_observer(4);
    cluster.start(1).await;
    cluster.start(4).await;
    for _ in 0..3 {
        let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let node = cluster.node(leader);
        let record = || vec![topic("deferred")];
        let last = node.propose_with(epoch, record(), Durability::Deferred).await.unwrap();
        while cluster.node(4).image().offset < last {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.crash(1, Crash::LoseUnsynced).await;
        cluster.start(1).await;
        assert!(cluster.node(1).image().offset >= last, "it is lost");
        cluster.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_are_answered_as_kafka_answers_them() {
    let mut cluster = Cluster::started(3, &[1, 2, 3]).await;
    for _ in 0..3 {
        assert!(cluster.propose().await);
    }
    let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let node = cluster.node(leader);
    let end = node.image().offset + 1;
    let from = |offset, last_fetched_epoch, leader_epoch| FetchFrom {
        offset,
        last_fetched_epoch,
        leader_epoch,
        max_bytes: 1 << 20,
    };
    let outcome = |from| node.fetch(None, from).outcome;
    assert!(matches!(outcome(from(0, 0, epoch)), FetchOutcome::Records(it) if it.len() > 200));
    assert_eq!(outcome(from(end, epoch, epoch)), FetchOutcome::Records(Bytes::new()));
    let diverging = FetchOutcome::Diverging { epoch, end_offset: end };
    assert_eq!(outcome(from(end + 5, epoch, epoch)), diverging);
    let unknown = FetchOutcome::Diverging { epoch, end_offset: end };
    assert_eq!(outcome(from(end, epoch + 3, epoch)), unknown);
    assert_eq!(outcome(from(end, epoch, epoch - 1)), FetchOutcome::FencedEpoch);
    assert_eq!(outcome(from(end, epoch, epoch + 1)), FetchOutcome::UnknownEpoch);
    let other = cluster.up().into_iter().find(|id| *id != leader).unwrap();
    let refused = cluster.node(other).fetch(None, from(0, 0, -1));
    assert_eq!((refused.outcome, refused.leader), (FetchOutcome::NotLeader, Some(leader)));
    let missing = node.read_snapshot((9, 1), 0, 10, epoch);
    assert!(matches!(missing, Err(SnapshotReadError::NotFound)));
}
