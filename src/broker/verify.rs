//! [`Verifier`]: asks transaction coordinators about the first batch of a producer's transaction in
//! a partition (KIP-890, Kafka's `AddPartitionsToTxnManager`).
//!
//! The questions to one coordinator are batched: while one request is in flight, further questions
//! wait for the next. Of each transactional id, at most one question waits.

use std::{collections::HashMap, mem, sync::Arc};

use kafka_protocol::{
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ProducerId, TopicName,
        TransactionalId,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
    },
    protocol::StrBytes,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{BrokerChannels, Node};
use crate::{
    base::TopicPartition,
    coordinator::{TRANSACTIONS_TOPIC, group::partition_for},
    peers::Channel,
    protocol::ErrorCode,
    records::Producer,
};

/// The version of AddPartitionsToTxn in which brokers ask. It knows TRANSACTION_ABORTABLE.
const VERSION: i16 = 5;

/// Whether a transaction has partitions, or the request to add them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The transactional id.
    pub id: Arc<str>,
    pub producer: Producer,
    pub partitions: Vec<TopicPartition>,
    /// Whether the coordinator adds the partitions. Otherwise it only looks (`verifyOnly`).
    pub adds: bool,
}

impl Question {
    fn refused(&self, code: ErrorCode) -> Refusals {
        self.partitions.iter().map(|partition| (partition.clone(), code)).collect()
    }

    fn to_wire(&self) -> AddPartitionsToTxnTransaction {
        let topics = TopicPartition::by_topic(&self.partitions);
        let topic = |(name, partitions): (&str, Vec<i32>)| {
            AddPartitionsToTxnTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                .with_partitions(partitions)
        };
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(TransactionalId(StrBytes::from_string(self.id.to_string())))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_verify_only(!self.adds)
            .with_topics(topics.into_iter().map(topic).collect())
    }
}

/// The partitions that a transaction does not have, with the reasons. A broker that does not reach
/// the coordinator answers NETWORK_EXCEPTION.
pub type Refusals = HashMap<TopicPartition, ErrorCode>;

struct Asked {
    question: Question,
    answer: oneshot::Sender<Refusals>,
}

impl Asked {
    fn refuse(self, code: ErrorCode) {
        let refusals = self.question.refused(code);
        let _ = self.answer.send(refusals); // the client may be gone
    }
}

/// The questions that wait for the next request to a coordinator.
#[derive(Default)]
struct Queue {
    in_flight: bool,
    waiting: HashMap<Arc<str>, Asked>,
}

impl Queue {
    /// Adds a question. An earlier one of the same transactional id is refused: its producer is
    /// fenced, or its client has sent the request again. A question with an older epoch is refused
    /// itself.
    fn add(&mut self, asked: Asked) {
        let epoch = asked.question.producer.epoch;
        match self.waiting.get(&asked.question.id).map(|it| it.question.producer.epoch) {
            Some(earlier) if earlier > epoch => asked.refuse(ErrorCode::InvalidProducerEpoch),
            Some(earlier) => {
                let code = match earlier < epoch {
                    true => ErrorCode::InvalidProducerEpoch,
                    false => ErrorCode::NetworkException,
                };
                let id = Arc::clone(&asked.question.id);
                if let Some(earlier) = self.waiting.insert(id, asked) {
                    earlier.refuse(code);
                }
            }
            None => {
                self.waiting.insert(Arc::clone(&asked.question.id), asked);
            }
        }
    }
}

/// Asks the coordinators of all transactional ids. Clones share it.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    channels: BrokerChannels,
    /// By the id of the coordinator's broker.
    queues: Mutex<HashMap<i32, Queue>>,
}

impl Verifier {
    pub fn new(node: Arc<Node>, own: Arc<dyn Channel>) -> Self {
        let channels = BrokerChannels::new(Arc::clone(&node), own);
        Self(Arc::new(Inner { node, channels, queues: Mutex::default() }))
    }

    /// Asks the coordinator of the transactional id, and returns the partitions that it refuses.
    /// PRODUCER_FENCED is returned as INVALID_PRODUCER_EPOCH, which producers expect here.
    pub async fn ask(&self, question: Question) -> Refusals {
        let Some(coordinator) = self.0.coordinator_of(&question.id) else {
            return question.refused(ErrorCode::CoordinatorNotAvailable);
        };
        let (answer, answered) = oneshot::channel();
        let lost = question.refused(ErrorCode::NetworkException);
        self.enqueue(coordinator, Asked { question, answer });
        answered.await.unwrap_or(lost)
    }

    fn enqueue(&self, coordinator: i32, asked: Asked) {
        let mut queues = self.0.queues.lock();
        let queue = queues.entry(coordinator).or_default();
        queue.add(asked);
        if !mem::replace(&mut queue.in_flight, true) {
            let inner = Arc::clone(&self.0);
            self.0.node.runtime.spawn(async move { inner.send_all(coordinator).await });
        }
    }
}

impl Inner {
    /// The broker that leads the transactional id's partition of `__transaction_state`.
    fn coordinator_of(&self, id: &str) -> Option<i32> {
        let image = self.node.metadata();
        let topic = image.topic(TRANSACTIONS_TOPIC)?;
        let index = partition_for(id, topic.partitions.len() as i32);
        let leader = topic.partitions.get(index as usize)?.leader;
        image.broker(leader).filter(|it| !it.fenced).map(|_| leader)
    }

    /// Sends requests until no question waits.
    async fn send_all(&self, coordinator: i32) {
        while let Some(batch) = self.take(coordinator) {
            self.send(coordinator, batch).await;
        }
    }

    fn take(&self, coordinator: i32) -> Option<HashMap<Arc<str>, Asked>> {
        let mut queues = self.queues.lock();
        let queue = queues.get_mut(&coordinator)?;
        if queue.waiting.is_empty() {
            queues.remove(&coordinator);
            return None;
        }
        Some(mem::take(&mut queue.waiting))
    }

    async fn send(&self, coordinator: i32, mut batch: HashMap<Arc<str>, Asked>) {
        let transactions = batch.values().map(|asked| asked.question.to_wire()).collect();
        let request = AddPartitionsToTxnRequest::default().with_transactions(transactions);
        let answered = self.channels.send(coordinator, VERSION, &request).await;
        let code = match answered {
            Ok(response) => match ErrorCode::try_from_code(response.error_code) {
                None => {
                    answer_each(response, &mut batch);
                    // The coordinator has left these out.
                    ErrorCode::UnknownServerError
                }
                // A client can do nothing about the rights of brokers.
                Some(ErrorCode::ClusterAuthorizationFailed) => ErrorCode::InvalidTxnState,
                Some(code) => code,
            },
            Err(error) => {
                tracing::warn!(coordinator, %error, "cannot ask a transaction coordinator");
                ErrorCode::NetworkException
            }
        };
        batch.into_values().for_each(|asked| asked.refuse(code));
    }
}

/// Answers the questions that the response names, and removes them from the batch.
fn answer_each(response: AddPartitionsToTxnResponse, batch: &mut HashMap<Arc<str>, Asked>) {
    for result in response.results_by_transaction {
        let Some(asked) = batch.remove(result.transactional_id.as_str()) else { continue };
        let mut refusals = asked.question.refused(ErrorCode::UnknownServerError);
        for topic in result.topic_results {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            for partition in topic.results_by_partition {
                let key = TopicPartition::new(Arc::clone(&name), partition.partition_index);
                match ErrorCode::try_from_code(partition.partition_error_code) {
                    None => {
                        refusals.remove(&key);
                    }
                    Some(code) => {
                        refusals.entry(key).and_modify(|it| *it = code_for_client(code));
                    }
                }
            }
        }
        let _ = asked.answer.send(refusals); // the client may be gone
    }
}

fn code_for_client(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::add_partitions_to_txn_response::{
        AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    };

    use super::*;

    fn question(epoch: i16) -> Question {
        Question {
            id: "id".into(),
            producer: Producer { id: 7, epoch },
            partitions: vec![TopicPartition::new("a", 0), TopicPartition::new("a", 1)],
            adds: true,
        }
    }

    fn asked(epoch: i16) -> (Asked, oneshot::Receiver<Refusals>) {
        let (answer, answered) = oneshot::channel();
        (Asked { question: question(epoch), answer }, answered)
    }

    #[test]
    fn one_question_of_a_transactional_id_waits() {
        let mut queue = Queue::default();
        let (first, mut first_answer) = asked(1);
        queue.add(first);
        assert!(first_answer.try_recv().is_err(), "it waits");
        let (repeated, mut repeated_answer) = asked(1);
        queue.add(repeated);
        let refused = first_answer.try_recv().expect("the client has repeated its request");
        assert_eq!(refused, question(1).refused(ErrorCode::NetworkException));
        let (newer, mut newer_answer) = asked(2);
        queue.add(newer);
        let refused = repeated_answer.try_recv().expect("its producer is fenced");
        assert_eq!(refused, question(1).refused(ErrorCode::InvalidProducerEpoch));
        let (older, mut older_answer) = asked(1);
        queue.add(older);
        let refused = older_answer.try_recv().expect("its producer is fenced");
        assert_eq!(refused, question(1).refused(ErrorCode::InvalidProducerEpoch));
        assert!(newer_answer.try_recv().is_err(), "it waits");
        assert_eq!(queue.waiting.len(), 1);
    }

    fn answer(partitions: &[(&'static str, i32, i16)]) -> AddPartitionsToTxnResponse {
        let topic = |(name, partition, code): &(&'static str, i32, i16)| {
            let result = AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(*code);
            AddPartitionsToTxnTopicResult::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_results_by_partition(vec![result])
        };
        let result = AddPartitionsToTxnResult::default()
            .with_transactional_id(TransactionalId(StrBytes::from_static_str("id")))
            .with_topic_results(partitions.iter().map(topic).collect());
        AddPartitionsToTxnResponse::default().with_results_by_transaction(vec![result])
    }

    #[test]
    fn partitions_count_as_refused_unless_the_answer_says_otherwise() {
        let fenced = ErrorCode::ProducerFenced.code();
        let unknown = ErrorCode::UnknownServerError;
        for (partitions, expected) in [
            (&[("a", 0, 0), ("a", 1, 0)][..], vec![]),
            (&[("a", 0, 0), ("a", 1, fenced)], vec![(1, ErrorCode::InvalidProducerEpoch)]),
            // The response leaves out one partition of the question, and names two others.
            (&[("a", 1, 0), ("b", 0, 0), ("a", 2, fenced)], vec![(0, unknown)]),
            (&[], vec![(0, unknown), (1, unknown)]),
        ] {
            let (asked, mut answered) = asked(1);
            let mut batch = HashMap::from([(Arc::from("id"), asked)]);
            answer_each(answer(partitions), &mut batch);
            assert!(batch.is_empty());
            let expected = expected.into_iter();
            let expected =
                expected.map(|(partition, code)| (TopicPartition::new("a", partition), code));
            assert_eq!(answered.try_recv().expect("answered"), expected.collect());
        }
    }
}
