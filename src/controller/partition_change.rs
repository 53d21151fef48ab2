//! Builds the record that changes one partition (Kafka's `PartitionChangeBuilder`). The caller sets
//! what it wants to change, for example the ISR or the replicas. `build` adds what follows from it:
//! the leader, the eligible leader replicas for an empty ISR (KIP-966), and the end of a
//! reassignment.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Context;
use crate::metadata::{
    BrokerImage, Image, PartitionImage, TopicImage,
    records::PartitionChangeRecord,
    topics::{LOST, NO_LEADER, NO_LEADER_CHANGE},
};

/// The directory id of a replica that its broker has not assigned to a log directory yet (KIP-858).
pub const UNASSIGNED_DIR: Uuid = Uuid::from_u128(1);
/// `LeaderRecoveryState.RECOVERING`
pub const RECOVERING: i8 = 1;

/// Which replica an election may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The preferred leader, which is the first replica, if it is in sync. Otherwise as `Online`.
    Preferred,
    /// The present leader if it is in sync, or else any replica in sync.
    Online,
    /// As `Online`. If no replica is in sync, any live replica.
    Unclean,
}

/// Changes to the brokers that may lead. While the records of a fencing or an unfencing are built,
/// the image still has the state before it.
#[derive(Clone, Copy, Default)]
pub struct Candidates {
    /// The broker is about to be fenced or to shut down, or loses a log directory.
    pub leaving: Option<i32>,
    /// The broker is about to be unfenced.
    pub returning: Option<i32>,
    /// The broker has restarted after an unclean stop, so its log may lack acknowledged records.
    pub unclean: Option<i32>,
}

impl Candidates {
    pub fn leaving(broker: i32) -> Self {
        Self { leaving: Some(broker), ..Self::default() }
    }

    /// Whether the broker may lead: it is active and its replica's log directory is online.
    fn accept(&self, image: &Image, state: &PartitionImage, broker: i32) -> bool {
        let here = [self.leaving, self.unclean].contains(&Some(broker));
        if here || !(self.returning == Some(broker) || is_active(image, broker)) {
            return false;
        }
        let at = state.replicas.iter().position(|replica| *replica == broker);
        let directory = at.and_then(|at| state.directories.get(at));
        let registered = image.broker(broker);
        directory.zip(registered).is_some_and(|(dir, broker)| has_online_dir(broker, *dir))
    }
}

/// Whether the broker is neither fenced nor in controlled shutdown.
pub fn is_active(image: &Image, broker: i32) -> bool {
    image.broker(broker).is_some_and(|it| !it.fenced && !it.in_controlled_shutdown)
}

/// Whether the directory of a replica is not known yet (Kafka's `MIGRATING` and `UNASSIGNED`).
pub fn is_nowhere(directory: Uuid) -> bool {
    directory.is_nil() || directory == UNASSIGNED_DIR
}

/// Whether a replica in this directory can be used. A replica whose directory is not known yet can.
pub fn has_online_dir(broker: &BrokerImage, directory: Uuid) -> bool {
    directory != LOST
        && (is_nowhere(directory)
            || broker.log_dirs.is_empty()
            || broker.log_dirs.contains(&directory))
}

/// The initial directory of a new replica. If the broker has one log directory, it is that one. If
/// it has several, the broker chooses one later.
pub fn default_dir(image: &Image, broker: i32) -> Uuid {
    match image.broker(broker).map(|broker| broker.log_dirs.as_slice()) {
        Some([only]) => *only,
        Some([]) => Uuid::nil(),
        _ => UNASSIGNED_DIR,
    }
}

/// A change of one partition. The public fields begin with the present state.
pub struct PartitionChange<'a> {
    image: &'a Image,
    topic: &'a TopicImage,
    partition_id: i32,
    state: &'a PartitionImage,
    /// `min.insync.replicas`, but at most the number of replicas.
    min_isr: usize,
    elr_enabled: bool,
    elr: Vec<i32>,
    pub candidates: Candidates,
    pub election: Election,
    pub isr: Vec<i32>,
    pub replicas: Vec<i32>,
    pub removing: Vec<i32>,
    pub adding: Vec<i32>,
    pub leader_recovery_state: i8,
    pub directories: BTreeMap<i32, Uuid>,
}

impl<'a> PartitionChange<'a> {
    /// A change of a partition; `None` if the partition does not exist. Built without further
    /// settings, it only elects a leader if the present one cannot lead. The election is unclean if
    /// the topic allows it.
    pub fn new(cx: &Context<'a>, topic: &'a TopicImage, partition_id: i32) -> Option<Self> {
        let state = topic.partitions.get(usize::try_from(partition_id).ok()?)?;
        let unclean = cx.allows_unclean_election(&topic.name);
        Some(Self {
            image: cx.image,
            topic,
            partition_id,
            state,
            min_isr: cx.min_isr(topic),
            elr_enabled: cx.elr_enabled(),
            elr: state.elr.clone(),
            candidates: Candidates::default(),
            election: if unclean { Election::Unclean } else { Election::Online },
            isr: state.isr.clone(),
            replicas: state.replicas.clone(),
            removing: state.removing_replicas.clone(),
            adding: state.adding_replicas.clone(),
            leader_recovery_state: state.leader_recovery_state,
            directories: state.replicas.iter().copied().zip(state.directories.clone()).collect(),
        })
    }

    /// Builds the record; `None` if nothing changes.
    pub fn build(mut self) -> Option<PartitionChangeRecord> {
        let unchanged = PartitionChangeRecord {
            topic_id: self.topic.id,
            partition_id: self.partition_id,
            ..PartitionChangeRecord::default()
        };
        let mut record = unchanged.clone();
        self.complete_reassignment();
        self.find_eligible();
        self.elect(&mut record);
        // Setting the leader raises the leader epoch, so that the removed replica can no longer
        // fetch.
        let loses_replicas = !self.state.replicas.iter().all(|id| self.replicas.contains(id));
        if record.leader == NO_LEADER_CHANGE && loses_replicas {
            record.leader = self.state.leader;
        }
        self.record_eligible(&mut record);
        let may_be_set = self.elr_enabled || !self.isr.is_empty();
        if record.isr.is_none() && may_be_set && self.isr != self.state.isr {
            record.isr = Some(self.isr.clone());
        }
        self.record_last_leader(&mut record);
        self.record_assignment(&mut record);
        if self.leader_recovery_state != self.state.leader_recovery_state {
            record.leader_recovery_state = self.leader_recovery_state;
        }
        (record != unchanged).then_some(record)
    }

    /// Ends the reassignment, if there is one, once all new replicas are in the ISR.
    fn complete_reassignment(&mut self) {
        if self.removing.is_empty() && self.adding.is_empty() {
            return;
        }
        let without_removed = |ids: &[i32]| -> Vec<i32> {
            ids.iter().copied().filter(|id| !self.removing.contains(id)).collect()
        };
        let (replicas, isr) = (without_removed(&self.replicas), without_removed(&self.isr));
        if !isr.is_empty() && replicas.iter().all(|id| isr.contains(id)) {
            (self.replicas, self.isr) = (replicas, isr);
            self.removing.clear();
            self.adding.clear();
        }
    }

    /// Updates the eligible leader replicas. While the ISR is below `min.insync.replicas`, no write
    /// with `acks=all` is acknowledged. The replicas whose leaving made the ISR so small therefore
    /// have all acknowledged records. Unlike in Kafka, a broker that is no longer a replica is
    /// removed.
    fn find_eligible(&mut self) {
        if !self.elr_enabled {
            return;
        }
        if self.isr.len() >= self.min_isr {
            self.elr.clear();
            return;
        }
        let known: BTreeSet<i32> = self.elr.iter().chain(&self.state.isr).copied().collect();
        let is_eligible = |id: &i32| {
            let leaves = self.isr.contains(id) || self.candidates.unclean == Some(*id);
            !leaves && self.replicas.contains(id)
        };
        self.elr = known.into_iter().filter(is_eligible).collect();
    }

    /// Elects a leader. An eligible or unclean leader becomes the only member of the ISR.
    fn elect(&mut self, record: &mut PartitionChangeRecord) {
        let (leader, is_unclean) = self.find_leader();
        if leader == self.state.leader {
            return;
        }
        if self.elr.contains(&leader) {
            self.isr = vec![leader];
            self.elr.retain(|id| *id != leader);
        }
        record.leader = leader;
        if is_unclean {
            record.isr = Some(vec![leader]);
            if self.state.leader_recovery_state != RECOVERING {
                record.leader_recovery_state = RECOVERING;
            }
        }
    }

    /// Returns the leader, and whether it may lack acknowledged records.
    fn find_leader(&self) -> (i32, bool) {
        let present = self.state.leader;
        let preferred = self.replicas.first().filter(|_| self.election == Election::Preferred);
        let in_order = preferred.into_iter().chain([&present]).chain(&self.replicas);
        if let Some(leader) = in_order.copied().find(|id| self.is_in_sync(*id)) {
            return (leader, false);
        }
        if let Some(last) = self.last_leader() {
            return (last, true);
        }
        let any = self.replicas.iter().copied().find(|id| self.accepts(*id));
        match any.filter(|_| self.election == Election::Unclean) {
            Some(leader) => (leader, true),
            None => (NO_LEADER, false),
        }
    }

    fn accepts(&self, broker: i32) -> bool {
        self.candidates.accept(self.image, self.state, broker)
    }

    fn is_in_sync(&self, broker: i32) -> bool {
        let in_elr = self.isr.is_empty() && self.elr.contains(&broker);
        (self.isr.contains(&broker) || in_elr) && self.accepts(broker)
    }

    /// The last leader. If ISR and ELR are empty, no replica is known to have all acknowledged
    /// records, and the last leader probably has the most.
    fn last_leader(&self) -> Option<i32> {
        let nobody = self.isr.is_empty() && self.elr.is_empty();
        match self.state.last_known_elr[..] {
            [last] if self.elr_enabled && nobody => Some(last).filter(|last| self.accepts(*last)),
            _ => None,
        }
    }

    fn record_eligible(&mut self, record: &mut PartitionChangeRecord) {
        let was_unclean = record.isr.is_some();
        if was_unclean || !self.elr_enabled {
            self.elr.clear();
        }
        if self.elr != self.state.elr {
            record.eligible_leader_replicas = Some(self.elr.clone());
        }
    }

    fn record_last_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.elr_enabled {
            return;
        }
        let known = !self.state.last_known_elr.is_empty();
        if record.leader == NO_LEADER && !known && self.state.leader != NO_LEADER {
            record.last_known_elr = Some(vec![self.state.leader]);
        } else if record.leader >= 0 && known {
            record.last_known_elr = Some(Vec::new());
        }
    }

    fn record_assignment(&self, record: &mut PartitionChangeRecord) {
        let changed = |new: &Vec<i32>, old: &Vec<i32>| (new != old).then(|| new.clone());
        if !self.replicas.is_empty() {
            let replicas = self.replicas.iter();
            let directory = |id: &i32| {
                let known = self.directories.get(id).copied();
                known.unwrap_or_else(|| default_dir(self.image, *id))
            };
            let directories: Vec<_> = replicas.map(directory).collect();
            record.directories = (directories != self.state.directories).then_some(directories);
            record.replicas = changed(&self.replicas, &self.state.replicas);
        }
        record.removing_replicas = changed(&self.removing, &self.state.removing_replicas);
        record.adding_replicas = changed(&self.adding, &self.state.adding_replicas);
    }
}
