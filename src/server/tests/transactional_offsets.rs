//! Offsets in transactions: AddOffsetsToTxn, TxnOffsetCommit, and OffsetFetch while a transaction is
//! open. Most tests switch the verification of transactions off, so that they need no coordinator of
//! transactions.

use std::time::Duration;

use kafka_protocol::messages::{
    EndTxnRequest, ProducerId, TopicName, TxnOffsetCommitRequest,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
};

use super::{
    Node,
    requests::{self, TOPIC, commit_offset_in_transaction},
};
use crate::{
    handlers::ErrorCode,
    protocol::error_code::NONE,
    records::{Producer, TransactionVersion, TxnMarker},
};

const UNSTABLE: ErrorCode = ErrorCode::UnstableOffsetCommit;

async fn start() -> Node {
    let node = Node::start_with([("transaction.partition.verification.enable", "false")]).await;
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

    /// The offset and the error code of the only committed partition.
    async fn fetch(&self, require_stable: bool, names_topic: bool) -> (i64, i16) {
        let topics = names_topic.then(|| vec![requests::named_topic()]);
        let request = requests::fetch_offsets(topics).with_require_stable(require_stable);
        let response = self.ask(9, &request).await;
        let partition = &response.groups[0].topics[0].partitions[0];
        (partition.committed_offset, partition.error_code)
    }

    async fn end_transaction(&self, producer: Producer, commits: bool) {
        let marker =
            TxnMarker { producer, commits, coordinator_epoch: 0, version: TransactionVersion::V0 };
        let groups = &self.server.broker().coordinators.groups;
        groups.end_transaction(0, marker).await.expect("committed");
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
async fn offsets_count_once_their_transaction_commits() {
    let node = start().await;
    let producer = Producer { id: 7, epoch: 1 };
    let mut committed = 1;
    for version in 0..=4 {
        for commits in [false, true] {
            let offset = 10 + i64::from(version);
            let sent = request(producer, vec![topic(TOPIC, &[(0, offset)])]);
            let answered = node.commit(version, &sent).await;
            assert_eq!(answered, [(TOPIC.to_owned(), vec![(0, 0)])]);
            for names_topic in [true, false] {
                assert_eq!(node.fetch(true, names_topic).await, (-1, UNSTABLE.code()));
                assert_eq!(node.fetch(false, names_topic).await, (committed, 0));
            }
            node.end_transaction(producer, commits).await;
            committed = if commits { offset } else { committed };
            assert_eq!(node.fetch(true, true).await, (committed, 0));
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_partitions_come_before_the_others() {
    let node = start().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
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
        (TOPIC.to_owned(), vec![(1, unknown), (-1, unknown), (0, 0)]),
    ];
    assert_eq!(node.commit(3, &sent).await, expected);
    let nothing = request(Producer { id: 7, epoch: 0 }, vec![topic(TOPIC, &[])]);
    assert_eq!(node.commit(3, &nothing).await, []);
    node.stop().await;
}

/// Version 5 asks the coordinator even if the verification is off. There is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_what_the_client_can_do() {
    let node = start().await;
    let sent = request(Producer { id: 7, epoch: 1 }, vec![topic(TOPIC, &[(0, 1)])]);
    let results = |code: i16| [(TOPIC.to_owned(), vec![(0, code)])];
    let refused = |code: ErrorCode| results(code.code());
    assert_eq!(node.commit(5, &sent).await, refused(ErrorCode::CoordinatorNotAvailable));
    let no_group = sent.clone().with_group_id(Default::default());
    assert_eq!(node.commit(4, &no_group).await, refused(ErrorCode::InvalidGroupId));
    let fenced = sent.clone().with_generation_id(3).with_member_id(requests::text("member"));
    assert_eq!(node.commit(4, &fenced).await, refused(ErrorCode::UnknownMemberId));
    assert_eq!(node.commit(4, &sent).await, results(NONE));
    let older = sent.with_producer_epoch(0);
    assert_eq!(node.commit(4, &older).await, refused(ErrorCode::InvalidProducerEpoch));
    assert_eq!(node.fetch(true, true).await, (-1, UNSTABLE.code()));
    node.stop().await;
}

/// A producer whose coordinator is loaded.
async fn init_producer(node: &Node) -> Producer {
    let find = requests::find_coordinator(1, "transaction");
    assert_eq!(node.ask(6, &find).await.coordinators[0].error_code, NONE);
    loop {
        let response = node.ask(4, &requests::init_producer()).await;
        if response.error_code == NONE {
            return Producer { id: response.producer_id.0, epoch: response.producer_epoch };
        }
        assert_eq!(response.error_code, ErrorCode::CoordinatorLoadInProgress.code());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Node {
    async fn add_offsets(&self, version: i16, producer: Producer) -> i16 {
        let request = requests::add_offsets()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch);
        self.ask(version, &request).await.error_code
    }

    /// Commits the transaction, and waits until its marker is written for the group.
    async fn commit_transaction(&self, version: i16, producer: Producer) {
        let request = EndTxnRequest::default()
            .with_transactional_id(commit_offset_in_transaction().transactional_id)
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(true);
        assert_eq!(self.ask(version, &request).await.error_code, NONE);
        while self.fetch(true, true).await.1 == UNSTABLE.code() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinator_of_the_transaction_must_agree() {
    let node = Node::start().await;
    node.create_data().await;
    let producer = init_producer(&node).await;
    let sent = |producer, offset| request(producer, vec![topic(TOPIC, &[(0, offset)])]);
    let results = |code: i16| [(TOPIC.to_owned(), vec![(0, code)])];
    let not_added = [(3, ErrorCode::InvalidTxnState), (4, ErrorCode::TransactionAbortable)];
    for (version, code) in not_added {
        assert_eq!(node.commit(version, &sent(producer, 5)).await, results(code.code()));
    }
    let fenced = Producer { epoch: producer.epoch + 1, ..producer };
    assert_eq!(node.add_offsets(1, fenced).await, ErrorCode::InvalidProducerEpoch.code());
    assert_eq!(node.add_offsets(2, fenced).await, ErrorCode::ProducerFenced.code());
    let unknown = Producer { id: producer.id + 1, ..producer };
    let code = ErrorCode::InvalidProducerIdMapping.code();
    assert_eq!(node.add_offsets(4, unknown).await, code);
    assert_eq!(node.add_offsets(4, producer).await, NONE);
    assert_eq!(node.commit(4, &sent(producer, 5)).await, results(NONE));
    assert_eq!(node.fetch(true, true).await, (-1, UNSTABLE.code()));
    node.commit_transaction(4, producer).await;
    assert_eq!(node.fetch(true, true).await, (5, NONE));
    // Version 5 adds the partition itself. The last transaction may still be completing.
    let mut answered = node.commit(5, &sent(producer, 6)).await;
    while answered == results(ErrorCode::ConcurrentTransactions.code()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        answered = node.commit(5, &sent(producer, 6)).await;
    }
    assert_eq!(answered, results(NONE));
    assert_eq!(node.fetch(true, true).await, (-1, UNSTABLE.code()));
    node.commit_transaction(5, producer).await;
    assert_eq!(node.fetch(true, true).await, (6, NONE));
    let late = node.commit(4, &sent(producer, 7)).await;
    assert_eq!(late, results(ErrorCode::InvalidProducerEpoch.code()));
    node.stop().await;
}
