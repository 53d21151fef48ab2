//! Tests of leaders, ISRs, eligible leader replicas and reassignments.

use super::script::{Script, registration, topic};
use crate::controller::*;

#[test]
fn a_leader_changes_its_isr() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.alter_isr(&[1, 2]);
    script.alter_isr(&[1, 2]);
    script.alter_isr(&[2, 1, 3]);
    script.show();
    script.expect(
        "a-0 isr [1, 2]
         -> ok
         -> ok
         a-0 isr [2, 1, 3]
         -> ok
         a-0 leader 1 in 0, isr [2, 1, 3] elr [] last []",
    );
}

#[test]
fn isr_changes_that_do_not_fit_are_refused() {
    let mut script = Script::of(4).with_topic(&[1, 2, 3]);
    script.alter_isr(&[1, 2]);
    script.text.clear();
    let base = script.isr_change(&[1, 2, 3]);
    let with = |change: &dyn Fn(&mut AlterPartition)| {
        let mut changed = base.clone();
        change(&mut changed);
        changed
    };
    for change in [
        with(&|it| it.partition = 1),
        with(&|it| it.leader_epoch = 1),
        with(&|it| it.partition_epoch = 2),
        with(&|it| it.leader_epoch = -1),
        with(&|it| it.partition_epoch = 0),
        with(&|it| it.isr = vec![]),
        with(&|it| it.isr = vec![(1, -1), (1, -1)]),
        with(&|it| it.isr = vec![(1, -1), (4, -1)]),
        with(&|it| it.isr = vec![(2, -1)]),
        with(&|it| it.leader_recovery_state = 1),
        with(&|it| it.isr[2].1 = 1),
    ] {
        script.ask_isr(1, change);
    }
    script.ask_isr(2, base);
    script.expect(
        "-> UnknownTopicOrPartition: null
         -> NotController: The leader knows of a later epoch.
         -> NotController: The leader knows of a later epoch.
         -> FencedLeaderEpoch: the leader epoch is older than the partition's
         -> InvalidUpdateVersion: The partition epoch is 1, not 0.
         -> InvalidRequest: The ISR is not made of replicas.
         -> InvalidRequest: The ISR is not made of replicas.
         -> InvalidRequest: The ISR is not made of replicas.
         -> InvalidRequest: The ISR does not include the leader.
         -> InvalidRequest: The leader recovery state cannot be RECOVERING.
         -> IneligibleReplica: 3 (broker epoch mismatch: requested=1 VS expected=13)
         -> InvalidRequest: The broker does not lead the partition.",
    );
}

#[test]
fn replicas_that_are_fenced_or_shut_down_do_not_join_an_isr() {
    let mut script = Script::of(4).with_topic(&[1, 2, 3]).also_led_by(4);
    script.gone(2);
    script.shut_down(4);
    script.reassign(Some(&[1, 2, 3, 4]));
    script.text.clear();
    script.alter_isr(&[1, 3, 2]);
    script.alter_isr(&[1, 3, 4]);
    script.expect(
        "-> IneligibleReplica: 2 (fenced)
         -> IneligibleReplica: 4 (shutting down)",
    );
}

impl Script {
    /// Adds a topic `b` that the broker leads, so that it cannot shut down at once.
    fn also_led_by(mut self, broker: i32) -> Self {
        let assignments = vec![(0, vec![broker, 1])];
        self.create(NewTopic { assignments, ..topic("b", -1, -1) });
        self.text.clear();
        self
    }
}

/// KIP-966: a replica that leaves an ISR below `min.insync.replicas` has all acknowledged records.
#[test]
fn eligible_leaders_are_kept_below_the_minimum() {
    let mut script = Script::of(4).with_topic(&[1, 2, 3, 4]);
    script.set("min.insync.replicas", "3");
    for broker in [4, 3, 2, 1] {
        script.gone(broker);
    }
    script.show();
    script.beat(2);
    script.alter_isr(&[2]);
    script.beat(3);
    script.alter_isr(&[2, 3]);
    script.beat(1);
    script.alter_isr(&[2, 3, 1]);
    script.show();
    script.expect(
        "a-0 isr [1, 2, 3]
         broker 4 fenced
         a-0 isr [1, 2] elr [3]
         broker 3 fenced
         a-0 isr [1] elr [2, 3]
         broker 2 fenced
         a-0 leader -1 isr [] elr [1, 2, 3] last [1]
         broker 1 fenced
         a-0 leader -1 in 1, isr [] elr [1, 2, 3] last [1]
         broker 2 unfenced
         a-0 leader 2 isr [2] elr [1, 3] last []
         -> caught up, unfenced
         -> ok
         broker 3 unfenced
         -> caught up, unfenced
         a-0 isr [2, 3] elr [1]
         -> ok
         broker 1 unfenced
         -> caught up, unfenced
         a-0 isr [2, 3, 1] elr []
         -> ok
         a-0 leader 2 in 2, isr [2, 3, 1] elr [] last []",
    );
}

/// After an unclean stop, records that were not flushed may be missing.
#[test]
fn unclean_restart_leaves_elr() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.set("min.insync.replicas", "2");
    for broker in [3, 2, 1] {
        script.gone(broker);
    }
    script.text.clear();
    for broker in [2, 1] {
        script.register(&registration(broker, broker as u128));
        script.beat(broker);
    }
    script.show();
    script.expect(
        "a-0 elr [1]
         register 2 epoch 26 fenced
         -> epoch 26
         broker 2 unfenced
         -> caught up, unfenced
         a-0 elr []
         register 1 epoch 29 fenced
         -> epoch 29
         broker 1 unfenced
         a-0 leader 1 isr [1] last [] recovering
         -> caught up, unfenced
         a-0 leader 1 in 2, isr [1] elr [] last []",
    );
}

#[test]
fn last_isr_member_stays_without_elr() {
    let mut script = Script::of(2);
    let update = FeatureUpdate {
        name: "eligible.leader.replicas.version".into(),
        level: 0,
        upgrade: UpgradeType::SafeDowngrade,
    };
    script.run(|cx| features::update(cx, &[update], 0)).unwrap();
    let mut script = script.with_topic(&[1, 2]);
    script.gone(2);
    script.gone(1);
    script.beat(2);
    script.elect(ElectionType::Unclean);
    script.show();
    script.beat(1);
    script.expect(
        "a-0 isr [1]
         broker 2 fenced
         a-0 leader -1
         broker 1 fenced
         broker 2 unfenced
         -> caught up, unfenced
         a-0 leader 2 isr [2] recovering
         -> ok
         a-0 leader 2 in 2, isr [2] elr [] last []
         broker 1 unfenced
         -> caught up, unfenced",
    );
    let change = script.isr_change(&[2, 1]);
    script.ask_isr(2, AlterPartition { leader_recovery_state: 1, ..change.clone() });
    script.ask_isr(2, change);
    script.expect(
        "-> InvalidRequest: The leader recovery state cannot be RECOVERING.
         a-0 isr [2, 1] recovered
         -> ok",
    );
}

#[test]
fn unclean_elections_happen_where_they_are_allowed() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.alter_isr(&[1]);
    script.gone(1);
    script.elect(ElectionType::Preferred);
    script.expect(
        "a-0 isr [1]
         -> ok
         a-0 leader -1 isr [] elr [1] last [1]
         broker 1 fenced
         -> PreferredLeaderNotAvailable: The preferred leader was not available.",
    );
    script.pass(400_000);
    script.expect("broker 2 fenced\n broker 3 fenced");
    script.beat(2);
    script.set("unclean.leader.election.enable", "true");
    script.text.clear();
    for _ in 0..50 {
        script.pass(8_000);
        script.beat(2);
    }
    script.text = script.text.replace("-> caught up, unfenced\n", "");
    script.expect("a-0 leader 2 isr [2] elr [] last [] recovering");
}

#[test]
fn requested_unclean_election_elects_live_replica() {
    let mut script = Script::of(2).with_topic(&[1, 2]);
    script.alter_isr(&[1]);
    script.elect(ElectionType::Unclean);
    script.gone(1);
    script.text.clear();
    script.elect(ElectionType::Unclean);
    script.gone(2);
    script.elect(ElectionType::Unclean);
    script.expect(
        "a-0 leader 2 isr [2] elr [] last [] recovering
         -> ok
         a-0 leader -1 isr [] elr [2] last [2]
         broker 2 fenced
         -> EligibleLeadersNotAvailable: Eligible topic partition leaders are not available.",
    );
}

#[test]
fn leadership_returns_to_the_preferred_replica() {
    let mut script = Script::of(2).with_topic(&[2, 1]);
    script.pass(0);
    script.gone(2);
    script.beat(2);
    script.elect(ElectionType::Preferred);
    script.alter_isr(&[1, 2]);
    script.text.clear();
    for _ in 0..40 {
        script.pass(8_000);
        script.beat(1);
        script.beat(2);
    }
    script.text = script.text.replace("-> caught up, unfenced\n", "");
    script.expect("a-0 leader 2");
    script.elect(ElectionType::Preferred);
    script.expect("-> ElectionNotNeeded: Leader election not needed for topic partition.");
}

#[test]
fn idle_controller_waits_only_for_sessions() {
    let mut script = Script::of(2).with_topic(&[2, 1]);
    script.gone(1);
    script.gone(2);
    script.beat(2);
    script.alter_isr(&[2]);
    script.gone(2);
    script.now_ms = 1_000_000;
    script.pass(0);
    assert_eq!(script.volatile.next_deadline(9_000), Some(1_300_000), "broker 1 may come back");
    script.beat(2);
    let deletion = script.image.topic("a").unwrap().id;
    script.run(|cx| topics::delete(cx, &[deletion]));
    script.gone(2);
    script.pass(300_000);
    script.pass(300_000);
    assert_eq!(script.volatile.next_deadline(9_000), None);
}

#[test]
fn a_partition_moves() {
    let mut script = Script::of(4).with_topic(&[1, 2]);
    script.reassign(Some(&[3, 4]));
    script.reassign(Some(&[3, 4]));
    script.alter_isr(&[1, 2, 3]);
    script.alter_isr(&[1, 2, 3, 4]);
    script.show();
    script.expect(
        "a-0 replicas [3, 4, 1, 2] removing [1, 2] adding [3, 4] dirs 2003,2004,2001,2002
         -> ok
         -> ok
         a-0 isr [1, 2, 3]
         -> ok
         a-0 leader 3 isr [3, 4] replicas [3, 4] removing [] adding [] dirs 2003,2004
         -> NewLeaderElected: the leader has changed
         a-0 leader 3 in 1, isr [3, 4] elr [] last []",
    );
}

#[test]
fn replicas_are_reordered_and_removed_at_once() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.reassign(Some(&[2, 1, 3]));
    script.reassign(Some(&[2, 1]));
    script.show();
    script.reassign(Some(&[3]));
    script.reassign(None);
    script.show();
    script.reassign(None);
    script.expect(
        "a-0 replicas [2, 1, 3] dirs 2002,2001,2003
         -> ok
         a-0 leader 1 isr [1, 2] replicas [2, 1] dirs 2002,2001
         -> ok
         a-0 leader 1 in 1, isr [1, 2] elr [] last []
         a-0 replicas [3, 1, 2] removing [1, 2] adding [3] dirs 2003,2001,2002
         -> ok
         a-0 leader 1 replicas [1, 2] removing [] adding [] dirs 2001,2002
         -> ok
         a-0 leader 1 in 2, isr [1, 2] elr [] last []
         -> NoReassignmentInProgress: null",
    );
}

#[test]
fn cancel_without_live_isr_needs_unclean_election() {
    let mut script = Script::of(4).with_topic(&[1, 2]);
    script.reassign(Some(&[3, 4]));
    script.alter_isr(&[1, 2, 3]);
    script.gone(1);
    script.gone(2);
    script.text.clear();
    script.reassign(None);
    script.expect(
        "-> InvalidReplicaAssignment: Unable to revert partition assignment for a:0 because it \
         would require an unclean leader election.",
    );
    script.set("unclean.leader.election.enable", "true");
    script.reassign(None);
    script.beat(1);
    script.expect(
        "a-0 leader -1 isr [1] replicas [1, 2] removing [] adding [] last [3] dirs 2001,2002
         -> ok
         broker 1 unfenced
         a-0 leader 1 last []
         -> caught up, unfenced",
    );
}

#[test]
fn reassignments_are_checked() {
    let mut script = Script::of(3).with_topic(&[1, 2]);
    script.reassign(Some(&[]));
    script.reassign(Some(&[1, 7]));
    script.reassign(Some(&[1, 1]));
    let asked = |name: &str, partition, replicas: &[i32]| {
        vec![(name.to_owned(), vec![Reassignment { partition, replicas: Some(replicas.into()) }])]
    };
    for topics in [asked("b", 0, &[1]), asked("a", 1, &[1]), asked("a", 0, &[1, 2, 3])] {
        let mut results = script.run(|cx| reassignment::alter(cx, &topics, false));
        script.note(results.remove(0).1.remove(0).1);
    }
    script.expect(
        "-> InvalidReplicaAssignment: The manual partition assignment includes an empty replica \
         list.
         -> InvalidReplicaAssignment: The manual partition assignment includes broker 7, but no \
         such broker is registered.
         -> InvalidReplicaAssignment: The manual partition assignment includes the broker 1 more \
         than once.
         -> UnknownTopicOrPartition: Unable to find a topic named b.
         -> UnknownTopicOrPartition: Unable to find partition a:1.
         -> InvalidReplicationFactor: The replication factor is changed from 2 to 3",
    );
}

/// A new `min.insync.replicas` makes other replicas eligible. Which ones is not known, so the ELR
/// is cleared.
#[test]
fn min_isr_change_clears_elr() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.set("min.insync.replicas", "3");
    script.gone(3);
    script.text.clear();
    let topic = crate::metadata::ConfigResource::topic("a");
    script.alter(&topic, "min.insync.replicas", ConfigOp::Set("2".into()));
    script.show();
    let update = |level, upgrade| FeatureUpdate { name: features::ELR.into(), level, upgrade };
    let [off, on] = [update(0, UpgradeType::SafeDowngrade), update(1, UpgradeType::Upgrade)];
    script.run(|cx| features::update(cx, &[off], 0)).unwrap();
    let broker = crate::metadata::ConfigResource::broker(2);
    script.alter(&broker, "min.insync.replicas", ConfigOp::Set("2".into()));
    script.run(|cx| features::update(cx, &[on], 0)).unwrap();
    script.expect(
        "config 2:a min.insync.replicas=2
         ClearElrRecord
         -> ok
         a-0 leader 1 in 0, isr [1, 2] elr [] last []
         feature eligible.leader.replicas.version=0
         ClearElrRecord
         config 4:2 min.insync.replicas=2
         -> ok
         feature eligible.leader.replicas.version=1
         ClearElrRecord
         config 4:2 min.insync.replicas=null",
    );
}
