//! The checks of consumer groups (KIP-848), by the committed records of `__consumer_offsets`:
//!
//! - A partition is owned by one member: it is assigned to the member, or the member must still
//!   revoke it. Kafka guarantees no more: the consumer of a removed member may go on for a while.
//! - While a member is in its group, it loses no partition that its consumer uses.
//! - Epochs of a group never fall, nor does the epoch of a member unless it joins again.
//! - Heartbeats and commits are answered once their records are committed.
//! - A coordinator knows the members that the records have.
//! - Committed offsets never go back. A deleted group has neither members nor offsets.
//! - Once all members stay, the group converges: each partition has an owner that uses it, the
//!   members have equally many, and all are stable.

use std::collections::{BTreeMap, BTreeSet};

use sordini::{
    base::{
        TopicId,
        planted_bugs::{plant, planted},
    },
    coordinator::{
        OFFSETS_TOPIC,
        group::{
            consumer::{
                ConsumerChange, ConsumerRecord,
                member::{CurrentAssignment, MemberState},
            },
            records::{OffsetCommitValue, Record as GroupRecord},
        },
    },
    records::Batch,
};

use crate::{
    consumer_history::{Answer, Member as Consumer, Partitions, Refused},
    history::{History, Place},
    transactions::RECORDS_MAX,
};

/// What happened to the groups of a run.
#[derive(Debug, Default)]
pub struct Counts {
    joined: u64,
    /// Members that had to revoke partitions.
    revoked: u64,
    /// Members that waited for other members to revoke partitions.
    waited: u64,
    removed: u64,
    /// Static members that left for a while.
    left_for_a_while: u64,
    deleted: u64,
}

/// A member as its last records say.
#[derive(Clone)]
struct Member {
    epoch: i32,
    previous_epoch: i32,
    state: MemberState,
    assigned: Partitions,
    /// The assigned partitions and those that it must revoke.
    owned: Partitions,
}

/// A group as its last records say.
#[derive(Default)]
struct Group {
    epoch: i32,
    target_epoch: i32,
    members: BTreeMap<String, Member>,
    /// The highest epoch of each member, also of former ones.
    highest_epochs: BTreeMap<String, i32>,
    offsets: BTreeMap<Place, i64>,
}

/// The assignments that a member had in an epoch.
type Assignments = BTreeSet<Partitions>;

#[derive(Default)]
pub struct ConsumerGroups {
    groups: BTreeMap<String, Group>,
    /// Committed records since the last check, in the order of their partition.
    noted: Vec<GroupRecord>,
    /// All committed assignments by group, member and epoch.
    committed: BTreeMap<(String, String, i32), Assignments>,
    /// All committed offsets by group and partition.
    committed_offsets: BTreeMap<(String, Place), BTreeSet<i64>>,
    pub counts: Counts,
    /// Changes of members since the last check, as lines for the trace.
    pub trace_lines: Vec<String>,
}

impl ConsumerGroups {
    /// Notes a committed batch of any partition. Those of a partition come in the order of its log.
    pub fn note(&mut self, place: &Place, batch: &Batch) -> Result<(), String> {
        let header = &batch.header;
        if place.0 != OFFSETS_TOPIC || header.is_control() || header.is_transactional() {
            return Ok(());
        }
        // A planted bug may be in the decoder.
        let bug = planted();
        plant(None);
        let decoded = decode(batch);
        plant(bug);
        self.noted.extend(decoded?);
        Ok(())
    }

    /// Checks what was committed, and what members received, since the last call. `coordinates`
    /// says whether a broker surely coordinated a group at a time of the clients' clock.
    pub fn check(
        &mut self,
        history: &mut History,
        coordinates: impl Fn(&str, &str, i64) -> bool,
    ) -> Result<(), String> {
        for record in std::mem::take(&mut self.noted) {
            match record {
                GroupRecord::Consumer(record) => self.change(history, record)?,
                GroupRecord::Offset { group, topic, partition, value } => {
                    let place = (topic.to_string(), partition);
                    self.commit(history, &group, place, value.as_ref())?;
                }
                _ => {}
            }
        }
        for answer in std::mem::take(&mut history.consumers.answers) {
            self.check_answer(answer)?;
        }
        for (group, place, offset) in std::mem::take(&mut history.acked_commits) {
            let committed = self.committed_offsets.get(&(group.clone(), place.clone()));
            if !committed.is_some_and(|it| it.contains(&offset)) {
                return Err(format!("{group}: {offset} of {place:?} is acknowledged only"));
            }
        }
        for refused in std::mem::take(&mut history.consumers.refused) {
            if coordinates(&refused.host, refused.group, refused.sent_ms) {
                self.check_refused(&refused)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, history: &History, record: ConsumerRecord) -> Result<(), String> {
        let id = &*record.group;
        let group = self.groups.entry(id.to_owned()).or_default();
        match record.change {
            ConsumerChange::Group(Some(value)) => {
                check_rise(id, "epoch", group.epoch, value.epoch)?;
                group.epoch = value.epoch;
            }
            ConsumerChange::TargetEpoch(Some(value)) => {
                check_rise(id, "target epoch", group.target_epoch, value.assignment_epoch)?;
                group.target_epoch = value.assignment_epoch;
            }
            ConsumerChange::Group(None) => {
                let (members, offsets) = (group.members.keys(), &group.offsets);
                if members.len() > 0 || !offsets.is_empty() {
                    let members: Vec<_> = members.collect();
                    return Err(format!("{id} is deleted with {members:?} and {offsets:?}"));
                }
                *group = Group::default();
                self.counts.deleted += 1;
            }
            ConsumerChange::Current(member, Some(current)) => {
                let next = Member::of(&current);
                self.trace_lines.push(format!("{id}: {member} {next}"));
                self.counts.note(group.members.get(&*member), &next);
                group.check_owners(&member, &next)?;
                if let Some(before) = group.members.get(&*member) {
                    check_released(history, (id, &*member), before, &next)?;
                }
                let highest = group.highest_epochs.entry(member.to_string()).or_default();
                if next.epoch > 0 {
                    check_rise(&member, "epoch", *highest, next.epoch)?;
                    *highest = next.epoch;
                }
                let key = (id.to_string(), member.to_string(), next.epoch);
                self.committed.entry(key).or_default().insert(next.assigned.clone());
                group.members.insert(member.to_string(), next);
            }
            ConsumerChange::Current(member, None) | ConsumerChange::Member(member, None) => {
                let was_member = group.members.remove(&*member).is_some();
                if was_member {
                    self.trace_lines.push(format!("{id}: {member} is removed"));
                    self.counts.removed += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a committed offset or a tombstone of one.
    fn commit(
        &mut self,
        history: &mut History,
        id: &str,
        place: Place,
        value: Option<&OffsetCommitValue>,
    ) -> Result<(), String> {
        let Some(group) = self.groups.get_mut(id) else { return Ok(()) };
        let Some(offset) = value.map(|value| value.offset) else {
            group.offsets.remove(&place);
            return Ok(());
        };
        let key = (id.to_owned(), place.clone());
        self.committed_offsets.entry(key).or_default().insert(offset);
        let is_late = history.commits(id, &place).is_unsettled(offset);
        match group.offsets.insert(place.clone(), offset) {
            Some(before) if before > offset && !is_late => {
                Err(format!("{id}: the committed offset of {place:?} fell: {before}, {offset}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the member had the epoch and the assignment that it received.
    fn check_answer(&self, answer: Answer) -> Result<(), String> {
        let Answer { group, member, epoch, assigned } = answer;
        let committed = self.committed.get(&(group.to_owned(), member.clone(), epoch));
        let has = match (committed, &assigned) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(committed), Some(assigned)) => committed.contains(assigned),
        };
        match has {
            true => Ok(()),
            false => Err(format!(
                "{group}: {member} was answered epoch {epoch} and {assigned:?}, not committed: \
                 {committed:?}"
            )),
        }
    }

    /// Checks a refusal of a coordinator that did not know the member in its epoch.
    fn check_refused(&self, refused: &Refused) -> Result<(), String> {
        let Refused { host, group, member, epoch, code, .. } = refused;
        let group_now = self.groups.get(*group);
        let known = group_now.and_then(|it| it.members.get(member)).map(|it| it.epoch);
        match known == Some(*epoch) {
            false => Ok(()),
            true => {
                Err(format!("{host}: {group} has {member} in epoch {epoch}, but answers {code}"))
            }
        }
    }

    /// Why a group with these running consumers has not converged; `None` if it has. `topics` are
    /// the subscribed topics with their numbers of partitions.
    pub fn unsettled(
        &self,
        id: &str,
        running: &BTreeMap<String, Consumer>,
        topics: &[(TopicId, i32)],
    ) -> Option<String> {
        let Some(group) = self.groups.get(id) else { return Some("no records".to_owned()) };
        let used: BTreeMap<_, _> = running.iter().map(|(id, it)| (id, &it.owned)).collect();
        let assigned: BTreeMap<_, _> =
            group.members.iter().map(|(member, it)| (member, &it.assigned)).collect();
        if used != assigned {
            return Some(format!("{used:?} are used, {assigned:?} are assigned"));
        }
        let target_epoch = group.target_epoch;
        let is_stable = |it: &Member| (it.state, it.epoch) == (MemberState::Stable, target_epoch);
        if group.epoch != target_epoch || !group.members.values().all(is_stable) {
            let epochs: Vec<_> = group.members.values().map(|it| (it.state, it.epoch)).collect();
            return Some(format!("epoch {}, target {target_epoch}, {epochs:?}", group.epoch));
        }
        let all = topics.iter().flat_map(|(topic, count)| (0..*count).map(|at| (*topic, at)));
        let all: Partitions = all.collect();
        let owned: Partitions = assigned.values().copied().flatten().copied().collect();
        if owned != all {
            return Some(format!("{owned:?} are assigned of {all:?}"));
        }
        let sizes = || assigned.values().map(|it| it.len());
        match sizes().max().unwrap_or(0) - sizes().min().unwrap_or(0) {
            0..=1 => None,
            _ => Some(format!("not balanced: {assigned:?}")),
        }
    }
}

impl Group {
    /// Checks that no other member owns one of the member's partitions.
    fn check_owners(&self, member: &str, next: &Member) -> Result<(), String> {
        for (other, it) in self.members.iter().filter(|(other, _)| *other != member) {
            if let Some(partition) = it.owned.intersection(&next.owned).next() {
                return Err(format!("{partition:?} is {member}'s, but {other} still owns it"));
            }
        }
        Ok(())
    }
}

impl Member {
    fn of(current: &CurrentAssignment) -> Self {
        let assigned = current.assigned.iter();
        let assigned = assigned.flat_map(|(topic, of)| of.keys().map(|at| (*topic, *at)));
        Self {
            epoch: current.epoch,
            previous_epoch: current.previous_epoch,
            state: current.state,
            assigned: assigned.collect(),
            owned: current.owned().collect(),
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in epoch {}:", self.state, self.epoch)?;
        for partition in &self.owned {
            let mark = if self.assigned.contains(partition) { "" } else { " (revoked)" };
            write!(f, " {}-{}{mark}", &partition.0.simple().to_string()[..4], partition.1)?;
        }
        Ok(())
    }
}

impl Counts {
    fn note(&mut self, before: Option<&Member>, next: &Member) {
        self.joined += u64::from(before.is_none());
        let state = before.map(|it| it.state);
        let enters = |it: MemberState| u64::from(next.state == it && state != Some(it));
        self.revoked += enters(MemberState::UnrevokedPartitions);
        self.waited += enters(MemberState::UnreleasedPartitions);
        self.left_for_a_while += u64::from(next.epoch == -2);
    }
}

fn decode(batch: &Batch) -> Result<Vec<GroupRecord>, String> {
    let mut decoded = Vec::new();
    for record in batch.records(RECORDS_MAX).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        let Some(key) = record.key else { continue };
        let record = GroupRecord::decode(key, record.value).map_err(|error| error.to_string())?;
        decoded.extend(record);
    }
    Ok(decoded)
}

fn check_rise(of: &str, what: &str, before: i32, after: i32) -> Result<(), String> {
    match before <= after {
        true => Ok(()),
        false => Err(format!("the {what} of {of} fell: {before}, {after}")),
    }
}

/// Checks that the consumer of a member does not use the partitions that the member has lost,
/// unless one of its heartbeats may have arrived late.
fn check_released(
    history: &History,
    (group, id): (&str, &str),
    before: &Member,
    next: &Member,
) -> Result<(), String> {
    let Some(consumer) = history.consumers.find(group, id) else { return Ok(()) };
    let epochs = [before.epoch, before.previous_epoch];
    for partition in before.owned.difference(&next.owned) {
        if consumer.owned.contains(partition) && !consumer.may_have_released(partition, epochs) {
            return Err(format!("{group}: {id} uses {partition:?}, but does not own it any more"));
        }
    }
    Ok(())
}
