//! Three replicas of a partition, which the tests drive step by step through fetches, commits,
//! changes of the in-sync replicas, failovers and crashes.

mod gaps;
mod markers;
mod property;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{
    log::{
        Log, LogConfig, LogStart,
        faulty::{Crash, FaultyDisk},
        testing::{batch, of_producer, sealed},
    },
    metadata::PartitionImage,
    partition::{
        Acks, AppendError, Assignment, BrokerStatus, Core, FetchPosition, Fetched, FollowError,
        FollowerFetch, FollowerFetchError, IsrRules, Origin, Proposal, ProposalAnswer, Role,
        Truncated,
    },
    records::Batch,
};

const LAG_MS: i64 = 30_000;
const NOBODY: Role = Role::Follower { epoch: -1, leader: -1 };

struct Node {
    disk: FaultyDisk,
    /// None while its process is down.
    core: Option<Core>,
    broker_epoch: i64,
    is_fenced: bool,
    /// The high watermark in the last checkpoint.
    checkpoint: i64,
}

/// Nodes 0, 1 and 2, and the controller's state of the partition.
struct Cluster {
    nodes: Vec<Node>,
    image: PartitionImage,
    now_ms: i64,
    min_in_sync: usize,
    next_record: i64,
    /// `replica.fetch.wait.max.ms` of all followers.
    max_wait_ms: i64,
}

/// A leader's response to a follower's fetch.
#[derive(Debug)]
enum Answer {
    Records { leader_epoch: i32, offset: i64, batches: Vec<Batch>, ends: (i64, i64) },
    Diverging { ask: FetchPosition, at: (i32, i64) },
    OutOfRange { ask: FetchPosition, range: (i64, i64) },
    Refused(FollowerFetchError),
}

fn open(disk: &FaultyDisk) -> Log {
    let config = LogConfig { segment_bytes: 500, ..LogConfig::default() };
    let start =
        LogStart { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms: 0 };
    let disk = Arc::new(disk.clone());
    Log::open(disk, Path::new("/data/t-0"), Arc::new(config), start).expect("opens").0
}

impl Cluster {
    fn new(min_in_sync: usize) -> Self {
        let image = PartitionImage {
            replicas: vec![0, 1, 2],
            isr: vec![0, 1, 2],
            leader: 0,
            leader_epoch: 0,
            partition_epoch: 0,
            ..PartitionImage::default()
        };
        let mut cluster = Self {
            nodes: Vec::new(),
            image,
            now_ms: 1_000_000,
            min_in_sync,
            next_record: 0,
            max_wait_ms: 500,
        };
        for id in 0..3 {
            cluster.nodes.push(Node {
                disk: FaultyDisk::default(),
                core: None,
                broker_epoch: i64::from(id),
                is_fenced: false,
                checkpoint: 0,
            });
            cluster.start(id as usize);
        }
        cluster.apply_all();
        cluster
    }

    fn core(&mut self, id: usize) -> &mut Core {
        self.nodes[id].core.as_mut().expect("is up")
    }

    fn start(&mut self, id: usize) {
        let rules = IsrRules { min_in_sync: self.min_in_sync, lag_max_ms: LAG_MS };
        let node = &mut self.nodes[id];
        let mut core = Core::new(open(&node.disk), NOBODY, node.checkpoint);
        core.set_rules(rules, self.now_ms);
        node.core = Some(core);
    }

    /// Applies the controller's newest state on a node.
    fn apply(&mut self, id: usize) {
        let standings: Vec<_> = self.nodes.iter().map(Node::status).collect();
        let status = |id: i32| standings[id as usize];
        let assignment = Assignment { me: id as i32, partition: &self.image, status: &status };
        if let Some(core) = &mut self.nodes[id].core {
            core.assign(&assignment, self.now_ms);
        }
    }

    fn apply_all(&mut self) {
        (0..3).for_each(|id| self.apply(id));
    }

    /// Appends one record, whose timestamp is its number. Returns its number and offset.
    fn produce(&mut self, id: usize, acks: Acks) -> Result<(i64, i64), AppendError> {
        let mut sent = batch(0, 1, 20);
        sent.header.base_timestamp = self.next_record;
        sent.header.max_timestamp = self.next_record;
        let now = self.now_ms;
        let appended = self.core(id).append(&mut [sealed(sent)], acks, now)?;
        self.next_record += 1;
        Ok((self.next_record - 1, appended.first_offset))
    }

    /// Sends a follower's fetch to the leader that its metadata names. `None` if the replica does
    /// not follow, or if either broker is down.
    fn ask(&mut self, follower: usize) -> Option<Answer> {
        let now = self.now_ms;
        let broker_epoch = self.nodes[follower].broker_epoch;
        let core = self.nodes[follower].core.as_mut()?;
        let Role::Follower { epoch, leader } = core.role() else { return None };
        core.begin_to_follow(epoch).expect("the disk works");
        let fetch = FollowerFetch {
            replica: follower as i32,
            broker_epoch,
            fetch_offset: core.log().log_end(),
            last_fetched_epoch: core.log().latest_epoch().unwrap_or(-1),
            log_start: core.log().log_start(),
            max_wait_ms: self.max_wait_ms,
        };
        let ask = FetchPosition {
            offset: fetch.fetch_offset,
            log_start: fetch.log_start,
            leader_epoch: epoch,
            last_epoch: fetch.last_fetched_epoch,
        };
        let leader = self.nodes.get_mut(usize::try_from(leader).ok()?)?.core.as_mut()?;
        if leader.role() != (Role::Leader { epoch }) {
            return Some(Answer::Refused(FollowerFetchError::NotLeader));
        }
        let log_range = (leader.log().log_start(), leader.log().log_end());
        Some(match leader.follower_fetched(&fetch, now) {
            Ok(Some(at)) => Answer::Diverging { ask, at },
            Ok(None) => {
                let found = leader.log().view().batches_from(fetch.fetch_offset);
                let batches = found.take(3).map(|it| it.expect("is readable")).collect();
                Answer::Records {
                    leader_epoch: epoch,
                    offset: fetch.fetch_offset,
                    batches,
                    ends: (leader.high_watermark(), log_range.0),
                }
            }
            Err(FollowerFetchError::OutOfRange) => Answer::OutOfRange { ask, range: log_range },
            Err(error) => Answer::Refused(error),
        })
    }

    /// Delivers a response, perhaps to a replica whose role has changed since its fetch.
    fn take(&mut self, follower: usize, answer: Answer) -> Option<Truncated> {
        let now = self.now_ms;
        let core = self.nodes[follower].core.as_mut()?;
        match answer {
            Answer::Records { leader_epoch, offset, batches, ends } => {
                let (high_watermark, log_start) = ends;
                let fetched = Fetched {
                    leader_epoch,
                    fetch_offset: offset,
                    batches: &batches,
                    high_watermark,
                    log_start,
                };
                // A late response is refused and changes nothing.
                let _ = core.append_fetched(&fetched, now);
                None
            }
            Answer::Diverging { ask, at } => core.truncate_to_diverging(ask, at, now).ok(),
            Answer::OutOfRange { ask, range } => core.truncate_to_range(ask, range, now).ok(),
            Answer::Refused(_) => None,
        }
    }

    fn fetch(&mut self, follower: usize) -> Option<Truncated> {
        let answer = self.ask(follower)?;
        self.take(follower, answer)
    }

    fn fetch_often(&mut self, times: usize, follower: usize) {
        for _ in 0..times {
            self.fetch(follower);
        }
    }

    /// The controller decides on a proposal.
    fn decide(&mut self, proposal: &Proposal) -> ProposalAnswer {
        let is_current = proposal.partition_epoch == self.image.partition_epoch
            && proposal.leader_epoch == self.image.leader_epoch;
        if !is_current {
            return ProposalAnswer::Outdated;
        }
        let leader = self.image.leader;
        let is_eligible = |(id, epoch): &(i32, i64)| {
            let node = &self.nodes[*id as usize];
            !node.is_fenced && (*id == leader || *epoch == -1 || node.broker_epoch == *epoch)
        };
        if !proposal.isr.iter().all(is_eligible) {
            return ProposalAnswer::Refused;
        }
        self.image.isr = proposal.isr.iter().map(|(id, _)| *id).collect();
        self.image.partition_epoch += 1;
        ProposalAnswer::Committed {
            leader_epoch: self.image.leader_epoch,
            partition_epoch: self.image.partition_epoch,
            isr: self.image.isr.clone(),
        }
    }

    /// Sends the leader's proposal to the controller and delivers the answer.
    fn settle_isr(&mut self, leader: usize) -> Option<ProposalAnswer> {
        let proposal = self.core(leader).proposal()?.clone();
        let answer = self.decide(&proposal);
        let now = self.now_ms;
        self.core(leader).answered(&proposal, answer.clone(), now);
        Some(answer)
    }

    /// Fences a broker. The last in-sync replica stays in the in-sync replicas.
    fn fence(&mut self, id: usize) {
        self.nodes[id].is_fenced = true;
        let id = id as i32;
        if self.image.isr.len() > 1 {
            self.image.isr.retain(|it| *it != id);
        }
        if self.image.leader == id {
            self.image.leader = -1;
        }
        self.elect();
    }

    fn unfence(&mut self, id: usize) {
        self.nodes[id].is_fenced = false;
        self.elect();
    }

    fn elect(&mut self) {
        if self.image.leader < 0 {
            let mut isr = self.image.isr.iter();
            let leader = isr.find(|id| !self.nodes[**id as usize].is_fenced);
            self.image.leader = leader.copied().unwrap_or(-1);
            self.image.leader_epoch += 1;
        }
        self.image.partition_epoch += 1;
    }

    /// Crashes a node and restarts it with a new broker epoch.
    fn restart(&mut self, id: usize, crash: Crash) {
        self.fence(id);
        let node = &mut self.nodes[id];
        node.core = None;
        node.disk = node.disk.crash(crash);
        node.broker_epoch += 10;
        self.start(id);
        self.unfence(id);
    }

    /// Numbers of the records by offset.
    fn records(&mut self, id: usize) -> BTreeMap<i64, i64> {
        let view = self.core(id).log().view();
        let batches = view.batches_from(view.log_start());
        let read = batches.map(|batch| batch.expect("is readable").header);
        read.map(|header| (header.base_offset, header.base_timestamp)).collect()
    }

    fn high_watermarks(&mut self) -> [i64; 3] {
        [0, 1, 2].map(|id| self.core(id).high_watermark())
    }

    fn log_ends(&mut self) -> [i64; 3] {
        [0, 1, 2].map(|id| self.core(id).log().log_end())
    }
}

impl Node {
    fn status(&self) -> BrokerStatus {
        BrokerStatus {
            epoch: (!self.is_fenced).then_some(self.broker_epoch),
            is_shutting_down: false,
        }
    }
}

#[test]
fn high_watermark_follows_the_in_sync_replicas() {
    let mut cluster = Cluster::new(2);
    cluster.produce(0, Acks::All).expect("leads");
    cluster.produce(0, Acks::All).expect("leads");
    cluster.fetch(1);
    cluster.fetch(2);
    assert_eq!(cluster.log_ends(), [2, 2, 2]);
    assert_eq!(cluster.high_watermarks(), [0, 0, 0], "nobody has said that it has them");
    cluster.fetch(1);
    assert_eq!(cluster.high_watermarks(), [0, 0, 0], "one of them has not");
    cluster.fetch(2);
    assert_eq!(cluster.high_watermarks(), [2, 0, 2], "the answer tells the last one");
    cluster.fetch(1);
    assert_eq!(cluster.high_watermarks(), [2, 2, 2]);
    assert!(matches!(cluster.produce(1, Acks::All), Err(AppendError::NotLeader)));
}

/// If another broker may have led in between, followers may have truncated records that they had
/// reported to this leader.
#[test]
fn offsets_from_before_another_leader_do_not_count() {
    for (epochs, committed) in [(1, 2), (2, 0)] {
        let mut cluster = Cluster::new(2);
        cluster.produce(0, Acks::All).expect("leads");
        cluster.produce(0, Acks::All).expect("leads");
        cluster.fetch_often(2, 1);
        assert_eq!(cluster.core(0).high_watermark(), 0, "2 lags");
        cluster.image.isr = vec![0, 1];
        cluster.image.leader_epoch += epochs;
        cluster.image.partition_epoch += epochs;
        cluster.apply(0);
        assert_eq!(cluster.core(0).high_watermark(), committed, "{epochs} epochs later");
    }
}

#[test]
fn lagging_follower_leaves_the_isr_and_rejoins() {
    let mut cluster = Cluster::new(2);
    cluster.produce(0, Acks::All).expect("leads");
    cluster.fetch(1);
    cluster.now_ms += LAG_MS / 2;
    cluster.fetch(1);
    let now = cluster.now_ms;
    cluster.core(0).check_isr(now);
    assert_eq!(cluster.core(0).proposal(), None, "it may lag for a while");
    cluster.now_ms += LAG_MS / 2 + 1;
    let now = cluster.now_ms;
    cluster.core(0).check_isr(now);
    assert_eq!(cluster.high_watermarks(), [0, 0, 0], "it counts until the controller agrees");
    cluster.settle_isr(0).expect("has something to propose");
    assert_eq!(cluster.core(0).isr(), [0, 1]);
    assert_eq!(cluster.image.isr, [0, 1]);
    assert_eq!(cluster.core(0).high_watermark(), 1);
    cluster.produce(0, Acks::All).expect("two are enough");
    cluster.fetch(2);
    assert_eq!(cluster.core(0).proposal(), None, "it has nothing yet");
    cluster.fetch(2);
    let proposal = cluster.core(0).proposal().expect("it has what is committed").clone();
    assert_eq!(proposal.isr, [(0, -1), (1, 1), (2, 2)]);
    cluster.fetch(1);
    cluster.fetch(1);
    assert_eq!(cluster.core(0).high_watermark(), 2);
    cluster.produce(0, Acks::All).expect("leads");
    cluster.fetch(1);
    cluster.fetch(1);
    assert_eq!(cluster.core(0).high_watermark(), 2, "who may be in sync by now counts");
    cluster.settle_isr(0).expect("proposes");
    assert_eq!(cluster.core(0).isr(), [0, 1, 2]);
}

#[test]
fn under_min_isr_refuses_appends_and_commits_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.produce(0, Acks::All).expect("leads");
    cluster.fence(1);
    cluster.fence(2);
    cluster.apply(0);
    assert_eq!(cluster.core(0).isr(), [0]);
    assert_eq!(cluster.core(0).high_watermark(), 0, "one is too few (KIP-966)");
    let refused = cluster.produce(0, Acks::All);
    assert!(matches!(refused, Err(AppendError::NotEnoughReplicas { in_sync: 1, min: 2 })));
    cluster.produce(0, Acks::Leader).expect("nobody promises anything");
    cluster.unfence(1);
    cluster.apply_all();
    cluster.fetch_often(3, 1);
    cluster.settle_isr(0).expect("1 has come back");
    assert_eq!(cluster.core(0).high_watermark(), 2);
}

#[test]
fn former_leader_truncates_unreplicated_records() {
    let mut cluster = Cluster::new(1);
    cluster.produce(0, Acks::All).expect("leads");
    for follower in [1, 2, 1, 2] {
        cluster.fetch(follower);
    }
    cluster.produce(0, Acks::Leader).expect("leads");
    cluster.produce(0, Acks::Leader).expect("leads");
    cluster.fence(0);
    cluster.apply(1);
    cluster.apply(2);
    let (new, _) = cluster.produce(1, Acks::All).expect("leads now");
    cluster.fetch(2);
    assert_eq!(cluster.log_ends(), [3, 2, 2]);
    cluster.unfence(0);
    cluster.apply_all();
    let cut = cluster.fetch(0).expect("it must truncate");
    assert_eq!(cut, Truncated { log_end: 1, log_end_before: 3, below_high_watermark: None });
    cluster.fetch(0);
    let of_leader = cluster.records(1);
    assert_eq!(cluster.records(0), of_leader);
    assert_eq!(of_leader, BTreeMap::from([(0, 0), (1, new)]));
}

#[test]
fn an_unclean_leader_has_others_cut_below_the_high_watermark() {
    let mut cluster = Cluster::new(1);
    cluster.produce(0, Acks::All).expect("leads");
    for follower in [1, 1, 2, 2, 1] {
        cluster.fetch(follower);
    }
    cluster.image.isr = vec![0, 1];
    cluster.image.partition_epoch += 1;
    cluster.now_ms += LAG_MS + 1;
    cluster.apply_all();
    for _ in 0..4 {
        cluster.produce(0, Acks::All).expect("leads");
        cluster.fetch_often(2, 1);
    }
    cluster.fetch(1);
    assert_eq!(cluster.high_watermarks(), [5, 5, 1]);
    cluster.image.isr = vec![2];
    (cluster.image.leader, cluster.image.leader_epoch) = (2, 1);
    cluster.image.partition_epoch += 1;
    cluster.apply_all();
    let (new, _) = cluster.produce(2, Acks::All).expect("leads");
    let cut = cluster.fetch(1).expect("truncates");
    assert_eq!(cut.below_high_watermark, Some(5), "which is an error to tell");
    assert_eq!((cluster.core(1).high_watermark(), cut.log_end), (1, 1));
    cluster.fetch(1);
    assert_eq!(cluster.records(1), BTreeMap::from([(0, 0), (1, new)]));
}

#[test]
fn a_follower_without_the_start_of_the_leaders_log_starts_there() {
    let mut cluster = Cluster::new(1);
    cluster.image.isr = vec![0];
    cluster.image.partition_epoch += 1;
    cluster.apply_all();
    for _ in 0..9 {
        cluster.produce(0, Acks::All).expect("leads");
    }
    cluster.now_ms += 2 * LAG_MS;
    cluster.produce(0, Acks::All).expect("leads");
    assert_eq!(cluster.core(0).delete_records(7).expect("are committed"), 7);
    cluster.fetch(1);
    assert_eq!(cluster.log_ends()[1], 7);
    cluster.fetch(1);
    assert_eq!(cluster.records(1), cluster.records(0));
    cluster.core(0).delete_records(9).expect("are committed");
    cluster.fetch(1);
    assert_eq!(cluster.core(1).log().log_start(), 9, "the leader's start is the follower's");
    cluster.fetch(1);
    assert_eq!(cluster.core(0).low_watermark(), -1, "the other one has not been heard of");
    cluster.fence(2);
    cluster.apply(0);
    assert_eq!(cluster.core(0).low_watermark(), 9);
}

#[test]
fn late_answers_and_stale_brokers_change_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.produce(0, Acks::All).expect("leads");
    let late = cluster.ask(1).expect("the leader is up");
    cluster.fetch(1);
    cluster.take(1, late);
    assert_eq!(cluster.log_ends(), [1, 1, 0]);
    let late = cluster.ask(2).expect("the leader is up");
    cluster.fence(0);
    cluster.apply(2);
    cluster.take(2, late);
    assert_eq!(cluster.log_ends()[2], 0, "it is of an older epoch");

    let mut cluster = Cluster::new(1);
    cluster.restart(1, Crash::Process);
    cluster.apply_all();
    cluster.nodes[1].broker_epoch -= 10;
    let refused = cluster.ask(1).expect("the leader is up");
    assert!(matches!(refused, Answer::Refused(FollowerFetchError::StaleBrokerEpoch)));
}

#[test]
fn an_answer_that_comes_late_does_not_undo_metadata() {
    let mut cluster = Cluster::new(1);
    cluster.produce(0, Acks::All).expect("leads");
    cluster.now_ms += LAG_MS + 1;
    let now = cluster.now_ms;
    cluster.core(0).check_isr(now);
    let proposal = cluster.core(0).proposal().expect("both lag").clone();
    let answer = cluster.decide(&proposal);
    assert_eq!(cluster.core(0).isr(), [0, 1, 2]);
    cluster.apply(0);
    assert_eq!(cluster.core(0).isr(), [0], "metadata has told it first");
    assert!(!cluster.core(0).answered(&proposal, answer, now));
    cluster.fetch_often(2, 1);
    let proposal = cluster.core(0).proposal().expect("1 is back").clone();
    cluster.apply(0);
    assert_eq!(cluster.core(0).proposal(), Some(&proposal), "nothing newer is known");
    assert!(cluster.core(0).answered(&proposal, ProposalAnswer::Refused, now));
    assert_eq!(cluster.core(0).isr(), [0]);
    assert_eq!(cluster.core(0).proposal(), None);
}

/// As in Kafka (`UnifiedLog.maybeIncrementLogStartOffset`), the leader's log start deletes
/// committed records only.
#[test]
fn follower_refuses_a_log_start_past_the_high_watermark() {
    let log = open(&FaultyDisk::default());
    let mut core = Core::new(log, Role::Follower { epoch: 0, leader: 1 }, 0);
    let batches: Vec<Batch> = (0..10).map(|offset| batch(offset, 1, 20)).collect();
    let fetched = |fetch_offset, high_watermark, log_start| Fetched {
        leader_epoch: 0,
        fetch_offset,
        batches: &batches[fetch_offset as usize..],
        high_watermark,
        log_start,
    };
    let refused = core.append_fetched(&fetched(0, 4, 7), 0);
    let expected = FollowError::LogStartPastHighWatermark { log_start: 7, high_watermark: 4 };
    assert_eq!(refused.expect_err("is refused").to_string(), expected.to_string());
    assert_eq!((core.log().log_end(), core.high_watermark()), (0, 0));
    core.append_fetched(&fetched(0, 4, 0), 0).expect("appends");
    core.append_fetched(&fetched(10, 4, 7), 0).expect_err("is refused");
    assert_eq!((core.log().log_start(), core.high_watermark()), (0, 4));
    core.append_fetched(&fetched(10, 7, 7), 0).expect("appends");
    assert_eq!((core.log().log_start(), core.high_watermark()), (7, 7));
}
