//! Compares encoded records with the bytes that Kafka 4.3.1's `MetadataRecordSerde` wrote for them.

use bytes::Bytes;
use uuid::Uuid;

use super::{MetadataRecord, RecordError, records::*};

const ID: Uuid = Uuid::from_u128(0x0102030405060708090a0b0c0d0e0f10);

fn first() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            RegisterBrokerRecord {
                broker_id: 1,
                incarnation_id: ID,
                broker_epoch: 12,
                end_points: vec![BrokerEndpoint {
                    name: "PLAINTEXT".into(),
                    host: "h".into(),
                    port: 40_000,
                    security_protocol: 0,
                }],
                features: vec![BrokerFeature {
                    name: "f".into(),
                    min_supported_version: 1,
                    max_supported_version: 2,
                }],
                rack: Some("r".into()),
                log_dirs: vec![ID],
                cordoned_log_dirs: Some(vec![]),
                ..Default::default()
            }
            .into(),
            "01000400000001000102030405060708090a0b0c0d0e0f10000000000000000c020a504c4149 \
         4e5445585402689c40000000020266000100020002720100020011020102030405060708090a \
         0b0c0d0e0f10010101",
        ),
        (
            UnregisterBrokerRecord { broker_id: 1, broker_epoch: 2 }.into(),
            "01010000000001000000000000000200",
        ),
        (FenceBrokerRecord { id: 1, epoch: 2 }.into(), "01070000000001000000000000000200"),
        (UnfenceBrokerRecord { id: 1, epoch: 2 }.into(), "01080000000001000000000000000200"),
        (
            BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 2,
                fenced: -1,
                ..Default::default()
            }
            .into(),
            "011100000000010000000000000002010001ff",
        ),
        (
            BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 2,
                in_controlled_shutdown: 1,
                ..Default::default()
            }
            .into(),
            "01110100000001000000000000000201010101",
        ),
    ]
}

fn second() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 2,
                log_dirs: vec![ID],
                ..Default::default()
            }
            .into(),
            "011102000000010000000000000002010211020102030405060708090a0b0c0d0e0f10",
        ),
        (
            BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 2,
                cordoned_log_dirs: Some(vec![]),
                ..Default::default()
            }
            .into(),
            "01110300000001000000000000000201030101",
        ),
        (
            TopicRecord { name: "topic".into(), topic_id: ID }.into(),
            "01020006746f7069630102030405060708090a0b0c0d0e0f1000",
        ),
        (
            PartitionRecord {
                partition_id: 3,
                topic_id: ID,
                replicas: vec![1, 2],
                isr: vec![1],
                leader: 1,
                leader_recovery_state: 1,
                leader_epoch: 4,
                partition_epoch: 5,
                directories: vec![ID, ID],
                eligible_leader_replicas: Some(vec![2]),
                last_known_elr: Some(vec![1]),
                ..Default::default()
            }
            .into(),
            "010302000000030102030405060708090a0b0c0d0e0f10030000000100000002020000000101 \
         01000000010000000400000005030102030405060708090a0b0c0d0e0f100102030405060708 \
         090a0b0c0d0e0f10030001010105020000000202050200000001",
        ),
        (
            ConfigRecord {
                resource_type: 2,
                resource_name: "topic".into(),
                name: "retention.ms".into(),
                value: None,
            }
            .into(),
            "0104000206746f7069630d726574656e74696f6e2e6d730000",
        ),
    ]
}

fn third() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            ConfigRecord {
                resource_type: 4,
                resource_name: "".into(),
                name: "k".into(),
                value: Some("v".into()),
            }
            .into(),
            "0104000401026b027600",
        ),
        (
            PartitionChangeRecord {
                partition_id: 3,
                topic_id: ID,
                isr: Some(vec![]),
                leader: -1,
                replicas: Some(vec![1]),
                removing_replicas: Some(vec![]),
                adding_replicas: Some(vec![2]),
                leader_recovery_state: 1,
                directories: Some(vec![ID]),
                eligible_leader_replicas: Some(vec![1]),
                last_known_elr: Some(vec![]),
            }
            .into(),
            "010502000000030102030405060708090a0b0c0d0e0f10090001010104ffffffff0205020000 \
         000103010104050200000002050101060502000000010701010811020102030405060708090a \
         0b0c0d0e0f10",
        ),
        (
            PartitionChangeRecord { partition_id: 3, topic_id: ID, ..Default::default() }.into(),
            "010502000000030102030405060708090a0b0c0d0e0f1000",
        ),
        (RemoveTopicRecord { topic_id: ID }.into(), "0109000102030405060708090a0b0c0d0e0f1000"),
        (
            DelegationTokenRecord {
                owner: "o".into(),
                requester: "r".into(),
                renewers: vec!["a".into(), "b".into()],
                issue_timestamp: 1,
                max_timestamp: 2,
                expiration_timestamp: 3,
                token_id: "t".into(),
            }
            .into(),
            "010a00026f027203026102620000000000000001000000000000000200000000000000030274 \
         00",
        ),
    ]
}

fn fourth() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            UserScramCredentialRecord {
                name: "u".into(),
                mechanism: 1,
                salt: Bytes::from_static(&[1, 2]),
                stored_key: Bytes::from_static(&[3]),
                server_key: Bytes::new(),
                iterations: 4096,
            }
            .into(),
            "010b000275010301020203010000100000",
        ),
        (
            FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 }.into(),
            "010c00116d657461646174612e76657273696f6e001e00",
        ),
        (
            ClientQuotaRecord {
                entity: vec![EntityData { entity_type: "user".into(), entity_name: None }],
                key: "k".into(),
                value: 1.5,
                remove: false,
            }
            .into(),
            "010e000205757365720000026b3ff80000000000000000",
        ),
        (
            ProducerIdsRecord { broker_id: 1, broker_epoch: 2, next_producer_id: 1000 }.into(),
            "010f0000000001000000000000000200000000000003e800",
        ),
        (
            AccessControlEntryRecord {
                id: ID,
                resource_type: 2,
                resource_name: "n".into(),
                pattern_type: 3,
                principal: "User:a".into(),
                host: "*".into(),
                operation: 4,
                permission_type: 3,
            }
            .into(),
            "0112000102030405060708090a0b0c0d0e0f1002026e0307557365723a61022a040300",
        ),
        (
            RemoveAccessControlEntryRecord { id: ID }.into(),
            "0113000102030405060708090a0b0c0d0e0f1000",
        ),
        (NoOpRecord {}.into(), "01140000"),
        (ZkMigrationStateRecord { zk_migration_state: 1 }.into(), "0115000100"),
        (
            RemoveUserScramCredentialRecord { name: "u".into(), mechanism: 1 }.into(),
            "01160002750100",
        ),
    ]
}

fn fifth() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            BeginTransactionRecord { name: Some("Bootstrap records".into()) }.into(),
            "01170001001212426f6f747374726170207265636f726473",
        ),
        (EndTransactionRecord {}.into(), "01180000"),
        (AbortTransactionRecord { reason: Some("why".into()) }.into(), "01190001000404776879"),
        (RemoveDelegationTokenRecord { token_id: "t".into() }.into(), "011a00027400"),
        (
            RegisterControllerRecord {
                controller_id: 1,
                incarnation_id: ID,
                zk_migration_ready: false,
                end_points: vec![ControllerEndpoint {
                    name: "C".into(),
                    host: "h".into(),
                    port: 1,
                    security_protocol: 0,
                }],
                features: vec![ControllerFeature {
                    name: "f".into(),
                    min_supported_version: 1,
                    max_supported_version: 2,
                }],
            }
            .into(),
            "011b00000000010102030405060708090a0b0c0d0e0f10000202430268000100000002026600 \
         0100020000",
        ),
        (ClearElrRecord { topic_name: "t".into() }.into(), "011c00027400"),
    ]
}

fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn all() -> Vec<(MetadataRecord, &'static str)> {
    [first(), second(), third(), fourth(), fifth()].concat()
}

#[test]
fn the_bytes_are_those_of_kafka() {
    for (record, hex) in all() {
        let expected = unhex(hex);
        assert_eq!(record.to_bytes(), expected, "{record:?}");
        assert_eq!(MetadataRecord::decode(expected), Ok(record));
    }
}

#[test]
fn every_kind_of_record_is_among_them() {
    let mut keys: Vec<i16> = all().iter().map(|(record, _)| record.api_key()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 26);
}

#[test]
fn what_is_cut_or_unknown_is_an_error() {
    for (record, hex) in all() {
        let bytes = unhex(hex);
        for len in 0..bytes.len() {
            assert!(MetadataRecord::decode(bytes.slice(..len)).is_err(), "{record:?} to {len}");
        }
    }
    let decode = |bytes: &'static [u8]| MetadataRecord::decode(Bytes::from_static(bytes));
    assert_eq!(decode(&[2, 20, 0, 0]), Err(RecordError::UnsupportedFrame(2)));
    assert_eq!(decode(&[1, 6, 0, 0]), Err(RecordError::UnknownType(6)));
    let version = RecordError::UnsupportedVersion { api_key: 20, version: 1 };
    assert_eq!(decode(&[1, 20, 1, 0]), Err(version));
}
