//! Control records of the metadata log, compared with bytes that Apache Kafka 4.3.1's own classes
//! wrote.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::{
    protocol::schema::WireMessage,
    quorum::{
        Endpoint, Voter,
        format::{self, Contents, Control, LeaderChangeMessage, SnapshotFooter, SnapshotHeader},
        voters,
    },
    records::{Batch, ControlRecordType},
};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn value(message: &impl WireMessage) -> Bytes {
    let mut value = BytesMut::new();
    message.encode(&mut value, 0);
    value.freeze()
}

/// Compares a batch of one control record with Kafka's, and reads it again.
fn check(java: &str, control: Control) {
    let stamp = format::Stamp { base_offset: 0, epoch: 3, append_ms: 777 };
    let ours = format::encode_control(&stamp, std::slice::from_ref(&control));
    assert_eq!(ours, unhex(java), "{:?}", control.kind);
    let batch = Batch::split_first(&mut ours.clone()).unwrap();
    assert_eq!(format::decode(&batch), Ok(Contents::Control(vec![control])));
}

#[test]
fn control_records_are_those_of_the_java_classes() {
    let one = || format::Voter { voter_id: 1, ..Default::default() };
    let change = LeaderChangeMessage {
        version: 0,
        leader_id: 1,
        voters: vec![one()],
        granting_voters: vec![one()],
    };
    let java = "00000000000000000000004f0000000302669722fe00200000000000000000000003090000000000\
        000309ffffffffffffffffffffffffffff000000013a00000008000000022600000000000102000000010002\
        00000001000000";
    check(java, Control { kind: ControlRecordType::LeaderChange, value: value(&change) });

    let header = SnapshotHeader { last_contained_log_timestamp: 55, ..SnapshotHeader::default() };
    let java = "0000000000000000000000470000000302a719b70000200000000000000000000003090000000000\
        000309ffffffffffffffffffffffffffff000000012a000000080000000316000000000000000000370000";
    check(java, Control { kind: ControlRecordType::SnapshotHeader, value: value(&header) });

    let footer = SnapshotFooter { version: 0 };
    let java = "00000000000000000000003f00000003023a40522000200000000000000000000003090000000000\
        000309ffffffffffffffffffffffffffff000000011a00000008000000040600000000";
    check(java, Control { kind: ControlRecordType::SnapshotFooter, value: value(&footer) });

    let java = "0000000000000000000000410000000302ff407f8400200000000000000000000003090000000000\
        000309ffffffffffffffffffffffffffff000000011e00000008000000050a000000010000";
    check(java, voters::kraft_version(1));
}

#[test]
fn voters_are_those_of_the_java_class() {
    let endpoint = Endpoint { name: "C".into(), host: "h".into(), port: 65000 };
    let voter = Voter::new(1, Uuid::from_u64_pair(1, 2), endpoint);
    let value = voters::encode(&voters::of_voters(&[voter]));
    let java = "000000000000000000000062000000030211f5127a00200000000000000000000003090000000000\
        000309ffffffffffffffffffffffffffff000000016000000008000000064c00000200000001000000000000\
        000100000000000000020202430268fde8000000000100000000";
    check(java, Control { kind: ControlRecordType::KraftVoters, value: value.clone() });
    for cut in 0..value.len() - 1 {
        assert!(voters::decode(value.slice(..cut)).is_err());
    }
}

/// Kafka skips the tagged fields of a joint configuration.
#[test]
fn joint_configuration_is_in_tagged_fields() {
    let voter = |id| Voter { id, ..Voter::default() };
    let plain = voters::encode(&voters::of_voters(&[voter(1), voter(2)]));
    let configs = vec![[1].into(), [1, 2].into()];
    let nodes: BTreeMap<i32, Voter> = (1..=3).map(|id| (id, voter(id))).collect();
    let joint = voters::Membership::new(configs, nodes);
    let value = voters::encode(&joint);
    // The last byte of the plain record is the number of its tagged fields.
    let (tagged, fields) = plain.split_last().unwrap();
    assert_eq!(*tagged, 0);
    assert!(value.starts_with(fields) && value.len() > plain.len());
    assert_eq!(voters::decode(value).unwrap(), joint);
}
