//! Tests of the group state machine: golden scripts, and the property that a replay of the records
//! gives the same logged state.

mod consumer_property;
mod conversion_property;
mod property;
mod script;

use std::collections::BTreeMap;

use crate::coordinator::golden;

use super::{GroupShard, LoggedState, Record, TimerKey};
use crate::{
    coordinator::{BatchKind, Shard},
    records::ControlRecordType,
};

/// A record of the log, with the kind of its batch.
type LoggedRecord = (BatchKind, Record);

/// Applies a record and adds it to the log, as the runtime does.
fn write(logged: &mut LoggedState, log: &mut Vec<LoggedRecord>, record: Record) {
    let (offset, kind) = (log.len() as i64, GroupShard::batch_kind(&record));
    match kind {
        BatchKind::Control(_) => apply_encoded(logged, offset, kind, &record),
        _ => GroupShard::apply(logged, offset, kind, &record),
    }
    log.push((kind, record));
}

/// The state after the records, as the runtime loads it.
fn replay(log: &[LoggedRecord]) -> LoggedState {
    let mut logged = LoggedState::default();
    for (offset, (kind, record)) in log.iter().enumerate() {
        apply_encoded(&mut logged, offset as i64, *kind, record);
    }
    logged
}

/// Removes the timer that is due first, if that is at `until_ms` or before.
fn pop_due(timers: &mut BTreeMap<TimerKey, i64>, until_ms: i64) -> Option<(i64, TimerKey)> {
    let due = timers.iter().map(|(key, at_ms)| (*at_ms, key.clone())).min();
    let (at_ms, key) = due.filter(|(at_ms, _)| *at_ms <= until_ms)?;
    timers.remove(&key);
    Some((at_ms, key))
}

/// Encodes a record, and applies what the log then has.
fn apply_encoded(logged: &mut LoggedState, offset: i64, kind: BatchKind, record: &Record) {
    let (key, value) = record.encode();
    if let BatchKind::Control(producer) = kind {
        let commits = ControlRecordType::from_key(&key) == Ok(ControlRecordType::Commit);
        return GroupShard::end_transaction(logged, producer.id, commits);
    }
    let decoded = Record::decode(key, value).unwrap().unwrap();
    GroupShard::apply(logged, offset, kind, &decoded);
}

#[test]
fn golden_scripts() {
    golden::check_scripts::<script::Machine>("src/coordinator/group/testscripts");
}

#[test]
fn groups_find_their_partition_as_in_kafka() {
    use super::partition_for;
    // From Java: Utils.abs(group.hashCode()) % 50.
    let known = [
        ("", 0),
        ("g", 3),
        ("console-consumer-1", 24),
        ("polygenelubricants", 0), // i32::MIN
        ("grüppe-😀", 14),
    ];
    for (group, partition) in known {
        assert_eq!(partition_for(group, 50), partition, "{group}");
    }
}
