//! Random histories of three replicas. No record that the in-sync replicas have acknowledged is
//! lost, a leader's high watermark never falls, and replicas agree on the committed records.

use std::collections::{BTreeMap, HashMap};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{Acks, Answer, Cluster, Crash, LAG_MS, Role};

#[derive(Clone, Copy, Debug)]
enum Step {
    Produce(usize),
    Fetch(usize),
    /// A fetch whose response arrives with `Deliver`, or is lost.
    Ask(usize),
    Deliver(usize),
    Apply(usize),
    Pass(i64),
    CheckIsr(usize),
    /// The controller decides on the leader's proposal. If true, its answer is lost.
    Propose(usize, bool),
    Fence(usize),
    Unfence(usize),
    Restart(usize, bool),
    Flush(usize),
    Checkpoint(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..3usize;
    let step = prop_oneof![
        8 => node().prop_map(Step::Produce),
        16 => node().prop_map(Step::Fetch),
        3 => node().prop_map(Step::Ask),
        3 => node().prop_map(Step::Deliver),
        8 => node().prop_map(Step::Apply),
        2 => prop::sample::select(vec![10, LAG_MS / 3, LAG_MS + 1]).prop_map(Step::Pass),
        2 => node().prop_map(Step::CheckIsr),
        4 => (node(), any::<bool>()).prop_map(|(id, lost)| Step::Propose(id, lost)),
        1 => node().prop_map(Step::Fence),
        3 => node().prop_map(Step::Unfence),
        1 => (node(), any::<bool>()).prop_map(|(id, machine)| Step::Restart(id, machine)),
        1 => node().prop_map(Step::Flush),
        2 => node().prop_map(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..250)
}

/// A planted bug that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    SkipTruncation,
    AckBeforeHighWatermark,
}

struct Run {
    cluster: Cluster,
    bug: Bug,
    travelling: [Option<Answer>; 3],
    /// Node, leadership_generation and offset of the records that wait for the high watermark, by number.
    unacknowledged: BTreeMap<i64, (usize, u64, i64)>,
    /// Offsets of the acknowledged records, by number.
    acknowledged: BTreeMap<i64, i64>,
    /// The newest high watermark, by leader epoch.
    high_watermarks: HashMap<i32, i64>,
    checked_epoch: i32,
}

impl Run {
    fn new(bug: Bug) -> Self {
        Self {
            cluster: Cluster::new(2),
            bug,
            travelling: [None, None, None],
            unacknowledged: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            high_watermarks: HashMap::new(),
            checked_epoch: 0,
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.cluster.now_ms;
        match step {
            Step::Produce(id) => {
                let leadership_generation = self.cluster.core(id).view().leadership_generation;
                if let Ok((number, offset)) = self.cluster.produce(id, Acks::All) {
                    self.unacknowledged.insert(number, (id, leadership_generation, offset));
                }
            }
            Step::Fetch(id) => {
                if let Some(answer) = self.ask(id) {
                    self.cluster.take(id, answer);
                }
            }
            Step::Ask(id) => self.travelling[id] = self.ask(id),
            Step::Deliver(id) => {
                if let Some(answer) = self.travelling[id].take() {
                    self.cluster.take(id, answer);
                }
            }
            Step::Apply(id) => self.cluster.apply(id),
            Step::Pass(ms) => self.cluster.now_ms += ms,
            Step::CheckIsr(id) => self.cluster.core(id).check_isr(now),
            Step::Propose(id, is_lost) => self.propose(id, is_lost),
            Step::Fence(id) => self.cluster.fence(id),
            Step::Unfence(id) => self.cluster.unfence(id),
            Step::Restart(id, is_machine) => {
                // Only the last in-sync replica has all committed records.
                let is_last = self.cluster.image.isr == [id as i32];
                let crash = match is_machine && !is_last {
                    true => Crash::LoseUnsynced,
                    false => Crash::Process,
                };
                self.travelling[id] = None;
                self.unacknowledged.retain(|_, (node, ..)| *node != id);
                self.cluster.restart(id, crash);
            }
            Step::Flush(id) => self.cluster.core(id).log_mut().flush().expect("syncs"),
            Step::Checkpoint(id) => {
                let high_watermark = self.cluster.core(id).high_watermark();
                self.cluster.nodes[id].checkpoint = high_watermark;
            }
        }
    }

    fn ask(&mut self, id: usize) -> Option<Answer> {
        let answer = self.cluster.ask(id)?;
        let (Answer::Diverging { ask, .. }, Bug::SkipTruncation) = (&answer, self.bug) else {
            return Some(answer);
        };
        let leader = self.cluster.nodes[id].core.as_ref()?.role();
        let Role::Follower { leader, .. } = leader else { return None };
        let offset = self.cluster.core(id).log().log_end();
        let leader = self.cluster.core(leader as usize);
        let found = leader.log().view().batches_from(offset);
        let batches = found.map(|it| it.expect("is readable"));
        Some(Answer::Records {
            leader_epoch: ask.leader_epoch,
            offset,
            batches: batches.filter(|it| it.header.base_offset >= offset).collect(),
            ends: (leader.high_watermark(), leader.log().log_start()),
        })
    }

    fn propose(&mut self, id: usize, is_lost: bool) {
        let now = self.cluster.now_ms;
        let Some(proposal) = self.cluster.core(id).proposal().cloned() else { return };
        let answer = self.cluster.decide(&proposal);
        if !is_lost {
            self.cluster.core(id).answered(&proposal, answer, now);
        }
    }

    fn acknowledge(&mut self) {
        let cluster = &mut self.cluster;
        let bug = self.bug;
        let acknowledged = &mut self.acknowledged;
        self.unacknowledged.retain(|number, (node, leadership_generation, offset)| {
            let view = cluster.core(*node).view();
            if view.leadership_generation != *leadership_generation {
                return false;
            }
            let is_committed = view.high_watermark > *offset && view.isr.maximal >= view.isr.min;
            if is_committed || bug == Bug::AckBeforeHighWatermark {
                acknowledged.insert(*number, *offset);
                return false;
            }
            true
        });
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for id in 0..3 {
            let core = self.cluster.core(id);
            let (high_watermark, log) = (core.high_watermark(), core.log());
            prop_assert!(log.log_start() <= high_watermark && high_watermark <= log.log_end());
            if let Role::Leader { epoch } = core.role() {
                let before = self.high_watermarks.insert(epoch, high_watermark).unwrap_or(0);
                prop_assert!(before <= high_watermark, "it fell in epoch {epoch}");
            }
        }
        self.acknowledge();
        // A leader has all acknowledged records as soon as it is elected.
        let image = &self.cluster.image;
        if image.leader >= 0 && image.leader_epoch > self.checked_epoch {
            self.checked_epoch = image.leader_epoch;
            let leader = image.leader as usize;
            let records = self.cluster.records(leader);
            for (number, offset) in &self.acknowledged {
                prop_assert_eq!(records.get(offset), Some(number), "{} of {}", offset, leader);
            }
        }
        Ok(())
    }

    /// Lets all nodes apply the metadata and fetch all records, then checks that they agree.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for id in 0..3 {
            self.cluster.unfence(id);
        }
        for _ in 0..200 {
            self.cluster.apply_all();
            for id in 0..3 {
                self.step(Step::Fetch(id));
                self.step(Step::Propose(id, false));
            }
            self.check()?;
        }
        let ends = self.cluster.log_ends();
        prop_assert_eq!(self.cluster.high_watermarks(), ends);
        let records = [0, 1, 2].map(|id| self.cluster.records(id));
        prop_assert!(records[0] == records[1] && records[1] == records[2], "{:?}", records);
        for (number, offset) in &self.acknowledged {
            prop_assert_eq!(records[0].get(offset), Some(number));
        }
        Ok(())
    }
}

fn run(steps: &[Step], bug: Bug) -> Result<usize, TestCaseError> {
    let mut run = Run::new(bug);
    for step in steps {
        run.step(*step);
        run.check()?;
    }
    run.settle()?;
    Ok(run.acknowledged.len())
}

proptest! {
    #![proptest_config(Config { cases: 128, ..Config::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(steps in steps()) {
        run(&steps, Bug::None)?;
    }
}

/// Searches for a history in which the checks find the bug.
fn finds(bug: Bug) -> bool {
    let config =
        Config { cases: 400, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let found = runner.run(&steps(), |steps| run(&steps, bug).map(drop));
    matches!(found, Err(TestError::Fail(..)))
}

#[test]
fn planted_bugs_are_found() {
    assert!(finds(Bug::SkipTruncation));
    assert!(finds(Bug::AckBeforeHighWatermark));
}

#[test]
fn histories_acknowledge_something() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config { cases: 30, ..Config::default() }, rng);
    let total = std::cell::Cell::new(0);
    let ran = runner.run(&steps(), |steps| {
        total.set(total.get() + run(&steps, Bug::None)?);
        Ok(())
    });
    ran.expect("all hold");
    assert!(total.get() > 30, "{} records", total.get());
}
