//! The invariants, checked after each step against the state of all nodes and the clients' history.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use sordini::{
    broker::Broker,
    coordinator::{OFFSETS_TOPIC, group::partition_for},
    log::{Disk, disk::OpenMode, faulty::FaultyDisk},
    partition::{Partition, Role, View},
    records::BatchHeader,
};

use crate::{
    committed::{Committed, Contents},
    history::{Place, SharedHistory, WrongOffset},
    machines::OFFSETS_PARTITIONS,
    node::{EPOCH_MS, Node},
    rounds::Rounds,
};

/// Time within which a leader must answer an append after the high watermark passes it, and a
/// former leader after it loses its role.
const AT_ONCE_MS: u64 = 500;
/// How long the checks remember when a high watermark rose.
const RISES_MS: u64 = 5_000;
/// A broker that became coordinator of a group longer ago than this must return its offsets.
const COORDINATES_MS: u64 = 1_000;

/// One process of a node: the node id, and the number of its start.
type Run = (i32, u32);

/// The invariants, and what they remember of earlier steps:
///
/// - An epoch of the quorum, and a leader epoch of a partition, has one leader.
/// - Committed metadata and committed records never change.
/// - A leader has all records that were committed in earlier epochs.
/// - The high watermark of a replica never falls.
/// - Acknowledged records and records that a consumer received are committed.
/// - Those of [`Contents`].
#[derive(Default)]
pub struct Checks {
    raft_leaders: BTreeMap<i32, i32>,
    leaders: BTreeMap<(Place, i32), i32>,
    committed: BTreeMap<Place, Committed>,
    replicas: BTreeMap<(Run, Place), Replica>,
    /// The partitions of each node at the previous step.
    had: BTreeMap<i32, Vec<Arc<Partition>>>,
    metadata: Metadata,
    /// The newest metadata that any node has applied.
    newest: i64,
    now_ms: u64,
    states: BTreeMap<Place, (i32, i32, Vec<i32>, Vec<i32>)>,
    /// When each partition last got another leader or leader epoch.
    led_since_ms: BTreeMap<Place, u64>,
    brokers: BTreeMap<i32, (i64, bool)>,
    pub contents: Contents,
    pub rounds: Rounds,
    /// Changes of the metadata since the last step, as lines for the trace.
    pub trace_lines: Vec<String>,
}

/// The last observed state of a replica in one process.
#[derive(Default)]
struct Replica {
    /// The observed object. Once the broker removes and recreates the replica, it is another one.
    of: Weak<Partition>,
    /// When it took its current role.
    since_ms: u64,
    /// Recent rises of the high watermark: when, and to which offset.
    rises: VecDeque<(u64, i64)>,
    view: Option<Arc<View>>,
    high_watermark: i64,
    epoch: i32,
    /// How many committed entries have been found in its log while it leads in `epoch`.
    found: usize,
    /// How often compaction had replaced segments of its log.
    replacements: u64,
    /// Whether it moves to another log directory.
    is_moving: bool,
}

impl Checks {
    /// Checks all invariants. Returns the first violation as an error.
    pub fn step(
        &mut self,
        nodes: &[Node],
        history: &SharedHistory,
        now_ms: u64,
    ) -> Result<(), String> {
        self.now_ms = now_ms;
        for node in nodes {
            let Some(broker) = node.broker() else {
                if self.had.remove(&node.id).is_some() {
                    self.rounds.note_crash(&node.disk);
                }
                continue;
            };
            let of_node = |wrong| format!("n{}: {wrong}", node.id);
            self.raft(node.id, broker).map_err(of_node)?;
            self.metadata.step(node, broker).map_err(of_node)?;
            self.trace_changes(broker);
            // Before the broker serves, its metadata may be old, and so may the roles of replicas.
            if broker.serves() {
                self.partitions(node, broker).map_err(of_node)?;
            }
        }
        self.contents.transactions.check(&mut history.lock())?;
        self.consumer_groups(history)?;
        self.clients(history)
    }

    fn raft(&mut self, id: i32, broker: &Broker) -> Result<(), String> {
        let leadership = *broker.quorum.leadership().borrow();
        let Some(leader) = leadership.leader else { return Ok(()) };
        let known = *self.raft_leaders.entry(leadership.epoch).or_insert(leader);
        match known == leader {
            true => Ok(()),
            false => Err(format!(
                "{leader} leads the quorum in epoch {}, says {id}, but {known} does",
                leadership.epoch
            )),
        }
    }

    /// Adds a line to the trace for each partition and broker whose state in metadata changed.
    fn trace_changes(&mut self, broker: &Broker) {
        let image = broker.metadata();
        if image.offset <= self.newest {
            return;
        }
        self.newest = image.offset;
        let mut topics: Vec<_> = image.topics.iter().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        for topic in topics {
            for (it, index) in topic.partitions.iter().zip(0..) {
                let state = (it.leader, it.leader_epoch, it.isr.clone(), it.elr.clone());
                let place = (topic.name.to_string(), index);
                if self.states.get(&place) != Some(&state) {
                    let (leader, epoch, isr, elr) = &state;
                    self.trace_lines.push(format!(
                        "{}-{index} at {}: leader {leader} in {epoch}, isr {isr:?}, elr {elr:?}",
                        topic.name, image.offset
                    ));
                    let before = self.states.insert(place.clone(), state.clone());
                    if before.is_none_or(|it| (it.0, it.1) != (state.0, state.1)) {
                        self.led_since_ms.insert(place, self.now_ms);
                    }
                }
            }
        }
        for (id, it) in image.brokers.iter() {
            let state = (it.broker_epoch, it.fenced);
            if self.brokers.insert(*id, state) != Some(state) {
                self.trace_lines.push(format!("broker {id} at {}: {state:?}", image.offset));
            }
        }
    }

    fn partitions(&mut self, node: &Node, broker: &Broker) -> Result<(), String> {
        let run = (node.id, node.starts);
        let image = broker.metadata();
        let in_sync = |topic: &str, index| {
            image.partition(topic, index).is_some_and(|it| it.isr.contains(&node.id))
        };
        let has = broker.replicas.partitions.partitions();
        // A partition that was removed in this step may have changed before its removal.
        let mut looked_at = self.had.insert(node.id, has.clone()).unwrap_or_default();
        looked_at.retain(|it| !has.iter().any(|here| Arc::ptr_eq(here, it)));
        looked_at.extend(has);
        for partition in looked_at {
            let place = (partition.id.topic.to_string(), partition.id.partition);
            let replica = self.replicas.entry((run, place.clone())).or_default();
            // A power loss may undo a truncation. Then the log may differ from the leader's below
            // the checkpointed high watermark. Kafka does not flush truncations either.
            if node.boots > 0 && !in_sync(&place.0, place.1) && !replica.led() {
                continue;
            }
            if !std::ptr::eq(replica.of.as_ptr(), Arc::as_ptr(&partition)) {
                *replica = Replica { of: Arc::downgrade(&partition), ..Replica::default() };
            }
            let view = partition.view();
            let dir = partition.log_dir().join(partition.id.to_string());
            let was_moving =
                std::mem::replace(&mut replica.is_moving, partition.future_view().is_some());
            if replica.is_moving && !was_moving {
                self.rounds.note_move(&node.disk, &dir);
            }
            let is_same = replica.view.as_ref().is_some_and(|it| Arc::ptr_eq(it, &view));
            let committed = self.committed.entry(place.clone()).or_default();
            if !is_same {
                if let Some(before) = &replica.view {
                    self.rounds.note_change(&node.disk, &dir, before, &view);
                }
                replica.note(&view, self.now_ms);
                replica.look(&place, &view, committed, &mut self.contents)?;
            }
            if let Role::Leader { epoch } = view.role {
                let leader = *self.leaders.entry((place.clone(), epoch)).or_insert(run.0);
                if leader != run.0 {
                    return Err(format!("{place:?}: {leader} leads in epoch {epoch} too"));
                }
                if replica.found < committed.len() {
                    committed.check_leader(&place, &view.log, replica.found, epoch)?;
                    replica.found = committed.len();
                }
            }
            replica.view = Some(view);
        }
        Ok(())
    }

    fn consumer_groups(&mut self, history: &SharedHistory) -> Result<(), String> {
        let mut groups = std::mem::take(&mut self.contents.consumer_groups);
        let coordinates = |host: &str, group: &str, at_ms: i64| {
            self.coordinates(host, group, (at_ms - EPOCH_MS) as u64)
        };
        let checked = groups.check(&mut history.lock(), coordinates);
        self.trace_lines.append(&mut groups.trace_lines);
        self.contents.consumer_groups = groups;
        checked
    }

    fn clients(&mut self, history: &SharedHistory) -> Result<(), String> {
        let mut history = history.lock();
        if let Some(wrong) = history.wrong.pop() {
            return Err(wrong);
        }
        for acked in history.acked.drain(..) {
            self.committed.entry(acked.place.clone()).or_default().check_acked(&acked)?;
        }
        for read in history.read.drain(..) {
            self.committed.entry(read.place.clone()).or_default().check_read(&read)?;
        }
        history.wrong_offsets.drain(..).try_for_each(|it| self.wrong_offset(&it))
    }

    /// Checks a wrong committed offset. It is an error unless the broker that returned it does not
    /// coordinate the group, or has just become its coordinator.
    fn wrong_offset(&self, wrong: &WrongOffset) -> Result<(), String> {
        let WrongOffset { host, group, found, expected } = wrong;
        match self.coordinates(host, group, self.now_ms) {
            true => Err(format!("{host}: offset {found} of {group} is committed, not {expected}")),
            false => Ok(()),
        }
    }

    /// Whether a broker coordinates a group, and did so for a while before `at_ms`.
    fn coordinates(&self, host: &str, group: &str, at_ms: u64) -> bool {
        let place = (OFFSETS_TOPIC.to_owned(), partition_for(group, OFFSETS_PARTITIONS));
        let leads = self.states.get(&place).is_some_and(|it| format!("n{}", it.0) == host);
        let since_ms = self.led_since_ms.get(&place).copied().unwrap_or(self.now_ms);
        leads && since_ms + COORDINATES_MS < at_ms
    }

    /// Checks a REQUEST_TIMED_OUT response to an append. It is an error if the high watermark had
    /// already passed the batch, or if the replica had already ceased to lead.
    pub fn timed_out(&self, node: &Node, place: &Place, first: &str) -> Result<(), String> {
        let run = (node.id, node.starts);
        let Some(replica) = self.replicas.get(&(run, place.clone())) else { return Ok(()) };
        let Some(view) = &replica.view else { return Ok(()) };
        let since_ms = replica.since_ms;
        let is_old = |ms: u64| ms + AT_ONCE_MS < self.now_ms;
        if !matches!(view.role, Role::Leader { .. }) && is_old(since_ms) {
            let id = node.id;
            return Err(format!("n{id}: {first} timed out at a {:?} since {since_ms}", view.role));
        }
        let end = self.committed.get(place).and_then(|it| it.end_of(first));
        let rise = end.and_then(|end| replica.rises.iter().find(|(_, rise)| *rise >= end));
        match rise {
            Some((ms, rise)) if is_old(*ms) && is_old(since_ms) => {
                Err(format!("n{}: {first} timed out though {rise} was reached at {ms}", node.id))
            }
            _ => Ok(()),
        }
    }

    /// Number of committed records of all topics but internal ones.
    pub fn committed_records(&self) -> i64 {
        let of_topics = self.committed.iter().filter(|((topic, _), _)| !topic.starts_with("__"));
        of_topics.map(|(_, committed)| committed.end).sum()
    }
}

impl Replica {
    /// Whether it was leader at the last step.
    fn led(&self) -> bool {
        self.view.as_ref().is_some_and(|view| matches!(view.role, Role::Leader { .. }))
    }

    fn note(&mut self, view: &View, now_ms: u64) {
        if self.view.as_ref().is_none_or(|before| before.role != view.role) {
            self.since_ms = now_ms;
        }
        if view.high_watermark > self.high_watermark {
            self.rises.push_back((now_ms, view.high_watermark));
            while self.rises.front().is_some_and(|(ms, _)| ms + RISES_MS < now_ms) {
                self.rises.pop_front();
            }
        }
    }

    fn look(
        &mut self,
        place: &Place,
        view: &View,
        committed: &mut Committed,
        contents: &mut Contents,
    ) -> Result<(), String> {
        let high_watermark = view.high_watermark;
        if high_watermark < self.high_watermark {
            let before = self.high_watermark;
            return Err(format!("{place:?}: the high watermark fell: {before}, {high_watermark}"));
        }
        // A leader that has just become follower may have committed more in its old epoch.
        let epoch = view.role.leader_epoch();
        let committed_in = if self.view.is_some() { self.epoch } else { epoch };
        if epoch != self.epoch {
            self.found = 0;
        }
        if epoch < 0 {
            // Its disk failed. What it committed before remains committed.
            committed.extend(place, &view.log, high_watermark, self.epoch, contents)?;
        } else {
            let committed_in = committed_in.max(0);
            committed.extend(place, &view.log, high_watermark, committed_in, contents)?;
            // Compaction may have changed everything.
            let replacements = std::mem::replace(&mut self.replacements, view.log.replacements());
            let is_same = replacements == self.replacements;
            let from = if is_same { self.high_watermark } else { 0 };
            committed.check_prefix(place, &view.log, (from, high_watermark))?;
            self.epoch = epoch;
        }
        self.high_watermark = high_watermark;
        Ok(())
    }
}

/// The committed batches of the metadata log, by base offset.
#[derive(Default)]
struct Metadata {
    batches: BTreeMap<i64, (i64, u64)>,
    /// Up to where each process has been checked: its committed offset then, and the file and
    /// position after the last batch that was compared.
    seen: BTreeMap<Run, Seen>,
}

#[derive(Default)]
struct Seen {
    committed: i64,
    file: String,
    position: u64,
}

impl Metadata {
    fn step(&mut self, node: &Node, broker: &Broker) -> Result<(), String> {
        let committed = broker.quorum.image().offset;
        let seen = self.seen.entry((node.id, node.starts)).or_default();
        if committed <= seen.committed {
            return Ok(());
        }
        let dir = format!("/sim/node{}/__cluster_metadata-0", node.id);
        let mut names: Vec<_> = node
            .disk
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(&dir) && path.extension().is_some_and(|it| it == "log"))
            .filter_map(|path| path.to_str().map(str::to_owned))
            .collect();
        names.sort();
        for name in names {
            if *name < *seen.file {
                continue;
            }
            if name != seen.file {
                (seen.file, seen.position) = (name, 0);
            }
            let bytes = read(&node.disk, &seen.file, seen.position)?;
            let mut at = 0;
            while let Ok(header) = BatchHeader::parse(&bytes[at.min(bytes.len())..]) {
                let end = at + header.size();
                if header.last_offset() > committed || end > bytes.len() {
                    break;
                }
                let found = (header.last_offset(), crate::trace::hash_of(&bytes[at..end]));
                let known = *self.batches.entry(header.base_offset).or_insert(found);
                if known != found {
                    let at = header.base_offset;
                    return Err(format!("the committed metadata at {at} has changed"));
                }
                at = end;
            }
            seen.position += at as u64;
        }
        seen.committed = committed;
        Ok(())
    }
}

fn read(disk: &FaultyDisk, path: &str, position: u64) -> Result<Bytes, String> {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let file = disk.open(path.as_ref(), OpenMode::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?.saturating_sub(position);
    let mut bytes = vec![0; len as usize];
    sordini::log::disk::read_exact_at(&*file, &mut bytes, position).map_err(failed)?;
    Ok(bytes.into())
}
