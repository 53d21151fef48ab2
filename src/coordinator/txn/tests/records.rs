//! Records as Kafka writes them.

use std::sync::Arc;

use bytes::Bytes;

use super::super::{
    records::{Record, Unreadable, size_bound},
    state::{Partitions, Transaction, TxnState},
};
use crate::{
    base::TopicPartition,
    protocol::WireError,
    records::{Producer, TransactionVersion},
};

fn bytes(hex: &str) -> Bytes {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn in_one_partition(state: TxnState) -> Transaction {
    Transaction {
        producer: Producer { id: 1000, epoch: 5 },
        last_epoch: -1,
        previous_id: 1000,
        next_id: -1,
        timeout_ms: 60_000,
        state,
        partitions: Arc::new(Partitions::from([TopicPartition::new("t", 3)])),
        start_ms: 1_700_000_000_001,
        last_update_ms: 1_700_000_000_002,
        version: TransactionVersion::V2,
    }
}

/// Values that `TransactionLog.valueToBytes` of Kafka 4.3.1 returns, with their version.
fn written_by_kafka() -> Vec<(i16, Transaction, &'static str)> {
    let empty = Transaction {
        producer: Producer { id: 1000, epoch: 0 },
        partitions: Arc::default(),
        start_ms: -1,
        last_update_ms: 1_700_000_000_000,
        version: TransactionVersion::V0,
        ..in_one_partition(TxnState::Empty)
    };
    let ongoing = in_one_partition(TxnState::Ongoing);
    let prepared = Transaction {
        producer: Producer { id: 1000, epoch: 32767 },
        next_id: 2000,
        last_update_ms: 1_700_000_000_003,
        ..in_one_partition(TxnState::PrepareCommit)
    };
    let completed = Transaction {
        producer: Producer { id: 2000, epoch: 0 },
        partitions: Arc::default(),
        last_update_ms: 1_700_000_000_004,
        ..in_one_partition(TxnState::CompleteCommit)
    };
    let aborted = Transaction {
        producer: Producer { id: 1000, epoch: 7 },
        version: TransactionVersion::V0,
        state: TxnState::CompleteAbort,
        ..completed.clone()
    };
    vec![
        (0, empty.clone(), EMPTY_0),
        (1, empty, EMPTY_1),
        (0, ongoing.clone(), ONGOING_0),
        (1, ongoing, ONGOING_1),
        (1, prepared, PREPARED_1),
        (1, completed, COMPLETED_1),
        (0, aborted, ABORTED_0),
    ]
}

const EMPTY_0: &str = "000000000000000003e800000000ea6000ffffffff0000018bcfe56800ffffffffffffffff";
const EMPTY_1: &str = "000100000000000003e800000000ea6000000000018bcfe56800ffffffffffffffff0100\
                       0800000000000003e8";
const ONGOING_0: &str = "000000000000000003e800050000ea60010000000100017400000001000000030000018b\
                         cfe568020000018bcfe56801";
const ONGOING_1: &str = "000100000000000003e800050000ea60010202740200000003000000018bcfe568020000\
                         018bcfe5680102000800000000000003e802020002";
const PREPARED_1: &str = "000100000000000003e87fff0000ea60020202740200000003000000018bcfe568030000\
                          018bcfe5680103000800000000000003e8010800000000000007d002020002";
const COMPLETED_1: &str = "000100000000000007d000000000ea6004010000018bcfe568040000018bcfe568010200\
                           0800000000000003e802020002";
const ABORTED_0: &str =
    "000000000000000003e800070000ea6005000000000000018bcfe568040000018bcfe56801";

#[test]
fn records_are_those_of_kafka() {
    let key = bytes("0000000774c3a473742d31");
    let id: Arc<str> = "täst-1".into();
    for (version, value, hex) in written_by_kafka() {
        let record = Record::State { id: id.clone(), value: value.clone(), version };
        let (encoded_key, encoded) = record.encode();
        assert_eq!((encoded_key, encoded), (key.clone(), Some(bytes(hex))), "{record:?}");
        let decoded = Record::decode(key.clone(), Some(bytes(hex)));
        let logged = Record::State { id: id.clone(), value: value.as_logged(version), version };
        assert_eq!(decoded, logged);
    }
    let tombstone = Record::Expired { id };
    assert_eq!(tombstone.encode(), (key.clone(), None));
    assert_eq!(Record::decode(key, None), tombstone);
}

/// Kafka writes topics and partitions in the order of its hash tables.
#[test]
fn partitions_are_read_in_any_order() {
    let hex = "000100000000000003e800050000ea60030302740400000002000000010000000000135f5f636f6e7375\
               6d65725f6f66667365747304000000000000000100000002000000018bcfe568020000018bcfe5680102\
               000800000000000003e802020001";
    let record = Record::decode(bytes("0000000161"), Some(bytes(hex)));
    let Record::State { value, .. } = &record else { panic!("{record:?}") };
    let expected = ["__consumer_offsets", "t"]
        .into_iter()
        .flat_map(|topic| (0..3).map(move |index| TopicPartition::new(topic, index)));
    assert_eq!(*value.partitions, expected.collect());
    assert_eq!((value.state, value.version), (TxnState::PrepareAbort, TransactionVersion::V1));
    let (key, encoded) = record.encode();
    assert_eq!(encoded.as_ref().map(Bytes::len), Some(bytes(hex).len()));
    assert_eq!(Record::decode(key, encoded), record);
}

#[test]
fn bytes_after_keys_and_values_are_ignored() {
    let key = bytes("0000000161");
    let (version, value, hex) = &written_by_kafka()[0];
    let followed = Record::decode(bytes("0000000161ff"), Some(bytes(&format!("{hex}ff"))));
    let value = value.as_logged(*version);
    assert_eq!(followed, Record::State { id: "a".into(), value, version: *version });
    assert_eq!(Record::decode(bytes("0000000161ff"), None), Record::decode(key, None));
}

#[test]
fn unknown_and_invalid_records_are_kept_as_unreadable() {
    let reason = |key: &str, value: Option<&str>| {
        let (key, value) = (bytes(key), value.map(bytes));
        let record = Record::decode(key.clone(), value.clone());
        assert_eq!(record.encode(), (key, value));
        match record {
            Record::Unreadable { reason, .. } => Some(reason),
            _ => None,
        }
    };
    let key = "0000000161";
    assert_eq!(reason("0001000161", None), Some(Unreadable::KeyType(1)));
    assert_eq!(reason("00", None), Some(Unreadable::Key(WireError::Truncated)));
    assert_eq!(reason("0000000261", None), Some(Unreadable::Key(WireError::LengthTooLarge)));
    let newer = WireError::UnsupportedVersion(2);
    assert_eq!(reason(key, Some("0002ff")), Some(Unreadable::Value(newer)));
    assert_eq!(reason(key, Some("")), Some(Unreadable::Value(WireError::Truncated)));
    let dead = "000000000000000003e800000000ea6006ffffffff0000018bcfe56800ffffffffffffffff";
    assert_eq!(reason(key, Some(dead)), Some(Unreadable::Status(6)));
    let huge = "000000000000000003e800000000ea60017fffffff0000018bcfe56800ffffffffffffffff";
    assert_eq!(reason(key, Some(huge)), Some(Unreadable::Value(WireError::LengthTooLarge)));
}

#[test]
fn size_bound_holds_in_every_state() {
    let topics = ["a".repeat(249), "b".into()];
    let partitions = topics.iter().flat_map(|topic| {
        let topic: Arc<str> = topic.as_str().into();
        (0..200).map(move |index| TopicPartition::new(topic.clone(), index))
    });
    let value = Transaction {
        partitions: Arc::new(partitions.collect()),
        next_id: 7,
        ..in_one_partition(TxnState::PrepareCommit)
    };
    let id: Arc<str> = "i".repeat(i16::MAX as usize).into();
    let bound = size_bound(&id, &value.partitions).unwrap();
    for version in [0, 1] {
        let (key, value) = Record::State { id: id.clone(), value: value.clone(), version }.encode();
        let size = key.len() + value.unwrap().len();
        assert!((size + 100..size + 400).contains(&bound), "{size} {bound}");
    }
    let id = "i".repeat(i16::MAX as usize + 1);
    assert_eq!(size_bound(&id, &value.partitions), None);
}
