//! What the members of consumer groups sent and received, for the checks.

use std::collections::{BTreeMap, BTreeSet};

use sordini::base::{TopicId, environment::now_ms};

/// Partitions by topic id and index.
pub type Partitions = BTreeSet<(TopicId, i32)>;

/// How long a heartbeat without a response may still arrive at a coordinator: longer than any
/// pause, cut link and slow disk.
const LATE_MS: i64 = 30_000;

/// What a heartbeat says about the member's partitions.
pub struct Report {
    pub epoch: i32,
    pub owned: Partitions,
    sent_ms: i64,
}

/// A member that has joined or joins.
#[derive(Default)]
pub struct Member {
    /// The partitions that it uses.
    pub owned: Partitions,
    /// The heartbeats that report partitions and have no response. One may arrive late, after
    /// the member has taken other partitions.
    reports: Vec<Report>,
}

/// A heartbeat response without an error.
pub struct Answer {
    pub group: &'static str,
    pub member: String,
    pub epoch: i32,
    pub assigned: Option<Partitions>,
}

/// A heartbeat that a coordinator refused because it did not know the member in this epoch.
pub struct Refused {
    pub host: String,
    pub group: &'static str,
    pub member: String,
    pub epoch: i32,
    pub sent_ms: i64,
    pub code: i16,
}

#[derive(Default)]
pub struct ConsumerHistory {
    /// The running consumers of each group by member id.
    pub members: BTreeMap<&'static str, BTreeMap<String, Member>>,
    pub answers: Vec<Answer>,
    pub refused: Vec<Refused>,
    /// Whether members must stay in their groups.
    pub must_settle: bool,
}

impl ConsumerHistory {
    pub fn member(&mut self, group: &'static str, id: &str) -> &mut Member {
        self.members.entry(group).or_default().entry(id.to_owned()).or_default()
    }

    pub fn remove(&mut self, group: &'static str, id: &str) {
        if let Some(members) = self.members.get_mut(group) {
            members.remove(id);
        }
    }

    /// The member of a group with this id, if its consumer runs.
    pub fn find(&self, group: &str, id: &str) -> Option<&Member> {
        self.members.get(group)?.get(id)
    }
}

impl Member {
    /// Notes a heartbeat before it is sent.
    pub fn report(&mut self, epoch: i32, owned: Partitions) {
        let sent_ms = now_ms();
        self.reports.retain(|it| it.sent_ms + LATE_MS > sent_ms);
        self.reports.push(Report { epoch, owned, sent_ms });
    }

    /// Notes that the last heartbeat was answered.
    pub fn answered(&mut self) {
        self.reports.pop();
    }

    /// Whether a heartbeat that may arrive late reports that the member does not own a partition.
    /// The coordinator accepts it if its epoch is one of `epochs`, or if it joins or leaves.
    pub fn may_have_released(&self, partition: &(TopicId, i32), epochs: [i32; 2]) -> bool {
        let is_accepted = |it: &Report| it.epoch <= 0 || epochs.contains(&it.epoch);
        self.reports.iter().any(|it| is_accepted(it) && !it.owned.contains(partition))
    }
}
