//! Property test: after any events, a replay of the records gives the same logged state, its
//! offsets are those that the log defines, and every token is answered at most once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    super::{Event, LoggedState, Record, TimerKey, VolatileState, messages::*},
    LoggedRecord, replay, write,
};
use crate::{
    base::{TopicId, TopicPartition},
    coordinator::{
        BatchKind, Shard, TimerOp,
        group::{GroupConfig, GroupShard},
    },
    records::{Producer, TransactionVersion, TxnMarker, Verification},
};

/// An event as small numbers. The state of the run decides which group, member and request they
/// stand for.
#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    group: u8,
    who: u8,
    value: i64,
    wait_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..15, 0u8..3, 0u8..6, 0i64..5, 0i64..20_000);
    let step = step.prop_map(|(kind, group, who, value, wait_ms)| Step {
        kind,
        group,
        who,
        value,
        wait_ms,
    });
    proptest::collection::vec(step, 1..120)
}

#[derive(Default)]
struct Run {
    logged: LoggedState,
    volatile: VolatileState,
    now_ms: i64,
    log: Vec<LoggedRecord>,
    timers: Vec<(i64, TimerKey)>,
    members: Vec<Arc<str>>,
    generation: i32,
    token: u64,
    answered: HashSet<u64>,
}

impl Run {
    fn event(&mut self, event: Event) {
        let outcome = GroupShard::decide(&self.logged, &mut self.volatile, self.now_ms, 0, event);
        for record in outcome.records {
            write(&mut self.logged, &mut self.log, record);
        }
        for op in outcome.timers {
            let (key, at_ms) = match op {
                TimerOp::Set { key, at_ms } => (key, Some(at_ms)),
                TimerOp::Cancel { key } => (key, None),
                TimerOp::SetOnce { .. } => panic!("only for members of consumer groups"),
            };
            self.timers.retain(|(_, other)| *other != key);
            self.timers.extend(at_ms.map(|at_ms| (at_ms, key)));
        }
        for (token, reply) in outcome.replies {
            assert!(self.answered.insert(token), "token {token} is answered twice");
            if let Reply::Join(reply) = reply {
                self.members.push(reply.member_id);
                self.generation = self.generation.max(reply.generation);
            }
        }
    }

    fn fire_due(&mut self) {
        loop {
            self.timers.sort();
            let due = self.timers.first().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms);
            if !due {
                return;
            }
            let (_, key) = self.timers.remove(0);
            self.event(Event::Timer(key));
        }
    }

    fn step(&mut self, step: &Step) {
        self.now_ms += step.wait_ms;
        self.fire_due();
        let group: Arc<str> = format!("g{}", step.group).into();
        let picked = self.members.get(self.members.len().wrapping_sub(1 + step.who as usize));
        let member_id = picked.cloned().unwrap_or_default();
        let instance_id: Option<Arc<str>> = (step.value == 4).then(|| "i".into());
        let generation = self.generation - i32::from(step.value == 3);
        let request = match step.kind {
            0..=3 => Request::Join(self.join(step, group, member_id, instance_id)),
            4 | 5 => Request::Sync(SyncRequest {
                group,
                generation,
                member_id: member_id.clone(),
                instance_id,
                protocol_type: None,
                protocol_name: None,
                assignments: vec![(member_id, Bytes::from_static(b"all"))],
            }),
            6 => Request::Heartbeat(HeartbeatRequest { group, generation, member_id, instance_id }),
            7 => Request::Leave(LeaveRequest {
                group,
                members: vec![LeavingMember { member_id, instance_id, reason: None }],
            }),
            8 => Request::CommitOffsets(CommitRequest {
                group,
                generation: if step.value == 0 { -1 } else { generation },
                member_id: if step.value == 0 { Arc::default() } else { member_id },
                instance_id: None,
                retention_ms: (step.value == 2).then_some(1000),
                knows_group_id_not_found: true,
                topics: vec![commit_topic(step)],
                transaction: None,
            }),
            11 | 12 => Request::CommitOffsets(CommitRequest {
                group,
                generation: -1,
                member_id: Arc::default(),
                instance_id: None,
                retention_ms: None,
                knows_group_id_not_found: false,
                topics: vec![commit_topic(step)],
                transaction: Some(CommitTransaction {
                    producer: producer(step),
                    verification: Verification::MustBeOpen,
                    version: TransactionVersion::V2,
                }),
            }),
            13 => Request::EndTransaction(TxnMarker {
                producer: producer(step),
                commits: step.value > 1,
                coordinator_epoch: 0,
                version: TransactionVersion::V2,
            }),
            9 => Request::DeleteGroups(vec![group]),
            10 => Request::ForgetPartitions(vec![TopicPartition::new("t", step.who.into())]),
            _ => Request::DeleteOffsets(DeleteOffsetsRequest {
                group,
                topics: vec![("t".into(), vec![step.who.into()])],
            }),
        };
        self.token += 1;
        self.event(Event::Request { token: self.token, request });
    }

    fn join(
        &self,
        step: &Step,
        group: Arc<str>,
        member_id: Arc<str>,
        instance_id: Option<Arc<str>>,
    ) -> JoinRequest {
        let names: &[&str] = if step.value == 1 { &["b", "a"] } else { &["a"] };
        JoinRequest {
            group,
            member_id: if step.kind < 2 { Arc::default() } else { member_id },
            instance_id,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: names
                .iter()
                .map(|name| ((*name).into(), Bytes::from_static(b"x")))
                .collect(),
            requires_known_member_id: step.value == 2,
            supports_skipping_assignment: step.value != 0,
            fresh_id: Uuid::from_u128(self.token.into()),
        }
    }
}

/// One of three producers.
fn producer(step: &Step) -> Producer {
    Producer { id: i64::from(step.who) % 3, epoch: 0 }
}

fn commit_topic(step: &Step) -> CommitTopic {
    let partition = CommitPartition {
        partition: step.who.into(),
        offset: step.value,
        leader_epoch: step.value as i32 - 1,
        metadata: None,
    };
    let id = TopicId::from_u128(step.value as u128);
    CommitTopic { name: "t".into(), id, partitions: vec![partition] }
}

/// The offset of the record that commits an offset of the partition, and whether an open
/// transaction has an offset of it. The key is a group, a topic and a partition.
type Offsets = BTreeMap<(Arc<str>, Arc<str>, i32), (Option<i64>, bool)>;

fn offsets_of(logged: &LoggedState) -> Offsets {
    let mut offsets = Offsets::new();
    for (group, topics) in logged.offsets.groups() {
        for (topic, partitions) in topics {
            for (partition, committed) in partitions {
                let place = (group.clone(), topic.clone(), *partition);
                offsets.insert(place, (Some(committed.record_offset), false));
            }
        }
    }
    for group in logged.pending.groups() {
        for (topic, partition) in logged.pending.partitions(group) {
            let place = (group.clone(), topic.clone(), partition);
            offsets.entry(place).or_default().1 = true;
        }
    }
    offsets
}

/// The offsets by a search of the log: after its last tombstone, the last record of a partition
/// counts that is in no transaction or in one that has committed.
fn expected_offsets(log: &[LoggedRecord]) -> Offsets {
    let mut offsets = Offsets::new();
    for (at, (kind, record)) in log.iter().enumerate() {
        let (place, is_tombstone) = match record {
            Record::Offset { group, topic, partition, value } => {
                ((group.clone(), topic.clone(), *partition), value.is_none())
            }
            Record::OffsetInTransaction { group, topic, partition, .. } => {
                ((group.clone(), topic.clone(), *partition), false)
            }
            _ => continue,
        };
        if is_tombstone {
            offsets.remove(&place);
            continue;
        }
        let commits = match kind {
            BatchKind::Transactional(producer) => log[at..].iter().find_map(|(_, it)| match it {
                Record::Marker(marker) if marker.producer == *producer => Some(marker.commits),
                _ => None,
            }),
            _ => Some(true),
        };
        let (committed, is_pending) = offsets.entry(place).or_default();
        match commits {
            Some(true) => *committed = Some(at as i64),
            Some(false) => {}
            None => *is_pending = true,
        }
    }
    offsets.retain(|_, (committed, is_pending)| committed.is_some() || *is_pending);
    offsets
}

proptest! {
    #[test]
    fn replay_gives_the_live_state(steps in steps(), cut in any::<Index>()) {
        let mut run = Run::default();
        run.volatile.cluster.config = Arc::new(GroupConfig {
            max_size: 3,
            offsets_retention_ms: 60_000,
            offsets_retention_check_interval_ms: 30_000,
            ..GroupConfig::default()
        });
        run.event(Event::Loaded);
        let cut = cut.index(steps.len());
        for (at, step) in steps.iter().enumerate() {
            run.step(step);
            if at == cut {
                prop_assert_eq!(&replay(&run.log), &run.logged);
            }
        }
        let replayed = replay(&run.log);
        prop_assert_eq!(&replayed, &run.logged);
        prop_assert_eq!(offsets_of(&replayed), expected_offsets(&run.log));
        // The group coordinator can start from any such state.
        let mut volatile = VolatileState::new(run.volatile.cluster.clone());
        GroupShard::decide(&replayed, &mut volatile, run.now_ms, 0, Event::Loaded);
        // If no further requests arrive, all waiting requests are answered in time.
        for _ in 0..200 {
            run.now_ms += 30_000;
            run.fire_due();
        }
        prop_assert_eq!(run.answered.len() as u64, run.token);
    }
}
