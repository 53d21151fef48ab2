//! TxnOffsetCommit.

use kafka_protocol::messages::{
    ProducerId, TopicName, TxnOffsetCommitRequest,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
};

use super::{
    Node,
    requests::{self, TOPIC, commit_offset_in_transaction},
};
use crate::{handlers::ErrorCode, records::Producer};

async fn start() -> Node {
    let node = Node::start().await;
    node.create_data().await;
    node
}

/// The topics of a response, each with its partitions and their error codes.
type Results = Vec<(String, Vec<(i32, i16)>)>;

impl Node {
    async fn commit(&self, version: i16, request: &TxnOffsetCommitRequest) -> Results {
        let response = self.ask(version, request).await;
        let topics = response.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let codes = partitions.map(|it| (it.partition_index, it.error_code)).collect();
            (topic.name.to_string(), codes)
        });
        topics.collect()
    }
}

fn topic(name: &'static str, offsets: &[(i32, i64)]) -> TxnOffsetCommitRequestTopic {
    let partition = |(index, offset): &(i32, i64)| {
        TxnOffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
    };
    TxnOffsetCommitRequestTopic::default()
        .with_name(TopicName(requests::text(name)))
        .with_partitions(offsets.iter().map(partition).collect())
}

fn request(producer: Producer, topics: Vec<TxnOffsetCommitRequestTopic>) -> TxnOffsetCommitRequest {
    commit_offset_in_transaction()
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_topics(topics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_partitions_come_before_the_others() {
    let node = start().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let unavailable = ErrorCode::CoordinatorNotAvailable.code();
    let topics = vec![
        topic("missing", &[(0, 1), (1, 1)]),
        topic("missing too", &[]),
        topic(TOPIC, &[]),
        topic(TOPIC, &[(0, 1), (1, 1), (-1, 1)]),
        topic("missing", &[(2, 1)]),
    ];
    let sent = request(Producer { id: 7, epoch: 0 }, topics);
    let expected = [
        ("missing".to_owned(), vec![(0, unknown), (1, unknown), (2, unknown)]),
        ("missing too".to_owned(), vec![]),
        (TOPIC.to_owned(), vec![(1, unknown), (-1, unknown), (0, unavailable)]),
    ];
    assert_eq!(node.commit(3, &sent).await, expected);
    let nothing = request(Producer { id: 7, epoch: 0 }, vec![topic(TOPIC, &[])]);
    assert_eq!(node.commit(3, &nothing).await, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_is_refused_without_a_transaction_coordinator() {
    let node = start().await;
    let sent = request(Producer { id: 7, epoch: 1 }, vec![topic(TOPIC, &[(0, 1)])]);
    let refused = |code: ErrorCode| [(TOPIC.to_owned(), vec![(0, code.code())])];
    for version in 0..=5 {
        let expected = refused(ErrorCode::CoordinatorNotAvailable);
        assert_eq!(node.commit(version, &sent).await, expected);
        let no_group = sent.clone().with_group_id(Default::default());
        assert_eq!(node.commit(version, &no_group).await, refused(ErrorCode::InvalidGroupId));
    }
    node.stop().await;
}
