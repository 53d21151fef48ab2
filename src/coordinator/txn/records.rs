//! The records of `__transaction_state` in Kafka's formats (`TransactionLogKey`,
//! `TransactionLogValue`). A key begins with its type, a value with its version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::state::{Partitions, Transaction, TxnState};
use crate::{
    base::TopicPartition,
    coordinator::record_value,
    protocol::schema::{Reader, WireError, WireMessage},
    records::{Producer, TransactionVersion},
    wire,
};

/// The type of a key. It is written where other messages have their version (KIP-915).
const TRANSACTION_LOG: i16 = 0;
/// The newest version of a value, and the first with tagged fields.
const NEWEST_VALUE_VERSION: i16 = 1;

wire! {
    /// The key of a transactional id.
    pub struct TransactionLogKey (flexible never) {
        transactional_id: String, in 0..;
    }
    /// The value of a transactional id. As in Kafka, nothing reads or sets `next_producer_epoch`.
    pub struct TransactionLogValue (flexible 1..) {
        producer_id: i64, in 0..;
        previous_producer_id: i64 = -1, in 1.., tag 0;
        next_producer_id: i64 = -1, in 1.., tag 1;
        producer_epoch: i16, in 0..;
        next_producer_epoch: i16 = -1, in 1.., tag 3;
        transaction_timeout_ms: i32, in 0..;
        transaction_status: i8, in 0..;
        transaction_partitions: Option<Vec<PartitionsOfTopic>>, in 0..;
        transaction_last_update_timestamp_ms: i64, in 0..;
        transaction_start_timestamp_ms: i64, in 0..;
        client_transaction_version: i16 = 0, in 1.., tag 2;
    }
    /// The partitions of one topic in a transaction.
    pub struct PartitionsOfTopic (flexible 1..) {
        topic: String, in 0..;
        partition_ids: Vec<i32>, in 0..;
    }
}

/// The version of the value that Kafka writes at a finalised level of `transaction.version`.
pub fn value_version(finalised: TransactionVersion) -> i16 {
    match finalised {
        TransactionVersion::V0 => 0,
        TransactionVersion::V1 | TransactionVersion::V2 => NEWEST_VALUE_VERSION,
    }
}

/// A record of `__transaction_state`.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The state of a transactional id, in a version of the value.
    State { id: Arc<str>, value: Transaction, version: i16 },
    /// The tombstone of a transactional id.
    Expired { id: Arc<str> },
    /// A record that this version of the coordinator cannot read. It is only loaded, never written.
    Unreadable { key: Bytes, value: Option<Bytes>, reason: Unreadable },
}

/// Why a record is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("type {0} is unknown")]
    KeyType(i16),
    #[error("the key is invalid: {0}")]
    Key(WireError),
    #[error("the value is invalid: {0}")]
    Value(WireError),
    #[error("status {0} is unknown")]
    Status(i8),
}

impl Record {
    /// Encodes the record as the key and the value of the log.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let (id, value) = match self {
            Self::State { id, value, version } => {
                (id, Some(record_value::encode(&TransactionLogValue::from(value), *version)))
            }
            Self::Expired { id } => (id, None),
            Self::Unreadable { key, value, .. } => return (key.clone(), value.clone()),
        };
        let mut key = BytesMut::new();
        key.put_i16(TRANSACTION_LOG);
        TransactionLogKey { transactional_id: id.to_string() }.encode(&mut key, 0);
        (key.freeze(), value)
    }

    /// Decodes a record of the log. Ignores bytes that follow the key or the value.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Self {
        match decode(key.clone(), value.clone()) {
            Ok(record) => record,
            // Copies, because the key and the value are slices of the batch that was read.
            Err(reason) => Self::Unreadable {
                key: Bytes::copy_from_slice(&key),
                value: value.map(|value| Bytes::copy_from_slice(&value)),
                reason,
            },
        }
    }
}

fn decode(key: Bytes, value: Option<Bytes>) -> Result<Record, Unreadable> {
    let mut key = Reader::new(key);
    match key.i16().map_err(Unreadable::Key)? {
        TRANSACTION_LOG => {}
        other => return Err(Unreadable::KeyType(other)),
    }
    let key = TransactionLogKey::decode_start(key.into_rest(), 0).map_err(Unreadable::Key)?;
    let id = key.transactional_id.into();
    let Some(value) = value else { return Ok(Record::Expired { id }) };
    let version = Reader::new(value.clone()).i16().map_err(Unreadable::Value)?;
    let value: TransactionLogValue =
        record_value::decode(value, NEWEST_VALUE_VERSION).map_err(Unreadable::Value)?;
    let state = TxnState::from_id(value.transaction_status);
    let state = state.ok_or(Unreadable::Status(value.transaction_status))?;
    Ok(Record::State { id, value: value.into_transaction(state), version })
}

impl TransactionLogValue {
    fn into_transaction(self, state: TxnState) -> Transaction {
        let topics = match state {
            TxnState::Empty => Vec::new(),
            _ => self.transaction_partitions.unwrap_or_default(),
        };
        let mut partitions = Partitions::new();
        for PartitionsOfTopic { topic, partition_ids } in topics {
            let topic: Arc<str> = topic.into();
            let of_topic = partition_ids.into_iter();
            partitions.extend(of_topic.map(|index| TopicPartition::new(topic.clone(), index)));
        }
        Transaction {
            producer: Producer { id: self.producer_id, epoch: self.producer_epoch },
            last_epoch: -1,
            previous_id: self.previous_producer_id,
            next_id: self.next_producer_id,
            timeout_ms: self.transaction_timeout_ms,
            state,
            partitions: Arc::new(partitions),
            start_ms: self.transaction_start_timestamp_ms,
            last_update_ms: self.transaction_last_update_timestamp_ms,
            version: TransactionVersion::of_level(self.client_transaction_version),
        }
    }
}

/// Topics and partitions are written in ascending order. Kafka writes them in the order of its hash
/// tables, which depends on their history, and reads them in any order.
impl From<&Transaction> for TransactionLogValue {
    fn from(value: &Transaction) -> Self {
        let mut topics: Vec<PartitionsOfTopic> = Vec::new();
        for TopicPartition { topic, partition } in &*value.partitions {
            match topics.last_mut().filter(|last| *last.topic == **topic) {
                Some(last) => last.partition_ids.push(*partition),
                None => topics.push(PartitionsOfTopic {
                    topic: topic.to_string(),
                    partition_ids: vec![*partition],
                }),
            }
        }
        Self {
            producer_id: value.producer.id,
            previous_producer_id: value.previous_id,
            next_producer_id: value.next_id,
            producer_epoch: value.producer.epoch,
            next_producer_epoch: -1,
            transaction_timeout_ms: value.timeout_ms,
            transaction_status: value.state.id(),
            transaction_partitions: (value.state != TxnState::Empty).then_some(topics),
            transaction_last_update_timestamp_ms: value.last_update_ms,
            transaction_start_timestamp_ms: value.start_ms,
            client_transaction_version: value.version.level(),
        }
    }
}

/// An upper bound of the bytes that a record of a transactional id takes in a batch, in any state
/// with these partitions. `None` if the record cannot be encoded, because a name is too long.
pub fn size_bound(id: &str, partitions: &Partitions) -> Option<usize> {
    /// Bytes of lengths, deltas and versions in the record, its key and its value, and of the
    /// numbers in the value.
    const FIXED: usize = 192;
    /// Bytes of the lengths of a topic's name and partitions, and of its tagged fields.
    const TOPIC: usize = 16;
    const NAME_MAX: usize = i16::MAX as usize;
    let mut size = FIXED + id.len();
    let mut last_topic = None;
    for TopicPartition { topic, partition: _ } in partitions {
        if last_topic != Some(topic) {
            if topic.len() > NAME_MAX {
                return None;
            }
            size += TOPIC + topic.len();
            last_topic = Some(topic);
        }
        size += size_of::<i32>();
    }
    (id.len() <= NAME_MAX).then_some(size)
}
