//! Tests of registration, heartbeats, fencing and shutdown of brokers.

use uuid::Uuid;

use super::script::{Script, dir, registration, topic};
use crate::controller::*;

#[test]
fn a_broker_is_fenced_until_it_has_caught_up_with_its_registration() {
    let mut script = Script::of(1);
    script.register(&registration(2, 20));
    let behind = Heartbeat { current_metadata_offset: 10, ..script.heartbeat(2) };
    script.send(&behind);
    script.send(&Heartbeat { want_fence: true, ..script.heartbeat(2) });
    script.beat(2);
    script.beat(2);
    script.expect(
        "register 2 epoch 11 fenced
         -> epoch 11
         -> behind, fenced
         -> caught up, fenced
         broker 2 unfenced
         -> caught up, unfenced
         -> caught up, unfenced",
    );
}

#[test]
fn an_incarnation_keeps_its_epoch_and_another_one_waits_for_its_session_to_end() {
    let mut script = Script::of(2);
    script.register(&registration(2, 1_002));
    script.pass(9_000);
    script.register(&registration(2, 20));
    script.beat(1);
    script.pass(1);
    script.register(&registration(2, 20));
    script.expect(
        "register 2 epoch 11 unfenced
         -> epoch 11
         -> DuplicateBrokerRegistration: Another broker is registered with that broker id. If the \
         broker was recently restarted this should self-resolve once the heartbeat manager expires \
         the broker's session.
         -> caught up, unfenced
         broker 2 fenced
         register 2 epoch 15 fenced
         -> epoch 15",
    );
}

#[test]
fn registrations_are_checked() {
    let mut script = Script::of(1);
    let with = |log_dirs: &[u128]| Registration {
        log_dirs: log_dirs.iter().map(|id| Uuid::from_u128(*id)).collect(),
        ..registration(2, 20)
    };
    for dirs in [&[][..], &[5], &[200, 200], &[2_001]] {
        script.register(&with(dirs));
    }
    script.register(&Registration { features: Vec::new(), ..registration(2, 20) });
    let mut features = own_features();
    features[0].max_supported_version = 0;
    script.register(&Registration { features: features.clone(), ..registration(2, 20) });
    features.remove(0);
    script.register(&Registration { features, ..registration(2, 20) });
    script.expect(
        "-> InvalidRegistration: No directories specified in request
         -> InvalidRegistration: Reserved directory ID in request
         -> InvalidRegistration: Duplicate directory ID in request
         -> InvalidRegistration: Broker 1 is already registered with directory \
         00000000-0000-0000-0000-0000000007d1
         -> InvalidRegistration: Request features do not contain 'metadata.version'
         -> UnsupportedVersion: Unable to register because the broker does not support finalized \
         version 1 of group.version. The broker wants a version between 0 and 0, inclusive.
         -> UnsupportedVersion: Unable to register because the broker does not support finalized \
         version 1 of group.version. The broker wants a version between 0 and 0, inclusive.",
    );
}

#[test]
fn stale_epochs_are_refused_and_keep_no_session() {
    let mut script = Script::of(2);
    let former = script.heartbeat(2);
    script.gone(2);
    script.register(&registration(2, 20));
    script.text.clear();
    script.send(&former);
    script.send(&Heartbeat { broker_id: 7, ..former });
    script.ask_isr_of_stale_broker();
    script.expect(
        "-> StaleBrokerEpoch: Expected broker epoch 14, but got broker epoch 11
         -> StaleBrokerEpoch: No broker registration found for broker id 7
         -> StaleBrokerEpoch: Expected broker epoch 14, but got broker epoch 1",
    );
}

impl Script {
    fn ask_isr_of_stale_broker(&mut self) {
        let result = self.run(|cx| alter_partition::alter(cx, 2, 1, &[]));
        self.note(result);
    }
}

#[test]
fn a_silent_broker_is_fenced_and_its_partitions_go_to_others() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    script.pass(5_000);
    script.beat(2);
    script.beat(3);
    script.text.clear();
    script.pass(4_000);
    script.expect("");
    script.pass(1);
    script.show();
    script.pass(100_000);
    script.show();
    script.expect(
        "a-0 leader 2 isr [2, 3]
         broker 1 fenced
         a-0 leader 2 in 1, isr [2, 3] elr [] last []
         a-0 leader 3 isr [3]
         broker 2 fenced
         a-0 leader -1 isr [] elr [3] last [3]
         broker 3 fenced
         a-0 leader -1 in 3, isr [] elr [3] last [3]",
    );
    script.beat(1);
    script.show();
    script.beat(3);
    script.show();
    script.expect(
        "broker 1 unfenced
         -> caught up, unfenced
         a-0 leader -1 in 3, isr [] elr [3] last [3]
         broker 3 unfenced
         a-0 leader 3 isr [3] elr [] last []
         -> caught up, unfenced
         a-0 leader 3 in 4, isr [3] elr [] last []",
    );
}

#[test]
fn ended_process_is_fenced_and_may_reregister_at_once() {
    let mut script = Script::of(2).with_topic(&[2, 1]);
    script.run(|cx| registration::gone(cx, 2, Some(10)));
    script.expect("");
    script.run(|cx| registration::gone(cx, 2, Some(11)));
    script.gone(2);
    script.register(&registration(2, 20));
    script.beat(2);
    script.alter_isr(&[1, 2]);
    script.show();
    script.expect(
        "a-0 leader 1 isr [1]
         broker 2 fenced
         register 2 epoch 17 fenced
         -> epoch 17
         broker 2 unfenced
         -> caught up, unfenced
         a-0 isr [1, 2]
         -> ok
         a-0 leader 1 in 1, isr [1, 2] elr [] last []",
    );
}

#[test]
fn controlled_shutdown_waits_for_metadata_of_other_brokers() {
    let mut script = Script::of(3).with_topic(&[1, 2, 3]);
    for id in 1..=3 {
        script.beat(id);
    }
    script.text.clear();
    script.shut_down(1);
    script.shut_down(1);
    script.beat(2);
    script.shut_down(1);
    script.beat(3);
    script.shut_down(1);
    script.show();
    script.expect(
        "broker 1 shutting down
         a-0 leader 2 isr [2, 3]
         -> caught up, unfenced
         -> caught up, unfenced
         -> caught up, unfenced
         -> caught up, unfenced
         -> caught up, unfenced
         broker 1 fenced
         -> caught up, fenced, shut down
         a-0 leader 2 in 1, isr [2, 3] elr [] last []",
    );
    let epoch = script.epoch(1);
    let again = Registration { previous_broker_epoch: epoch, ..registration(1, 10) };
    script.register(&again);
    script.beat(1);
    script.expect(
        "register 1 epoch 20 fenced
         -> epoch 20
         broker 1 unfenced
         -> caught up, unfenced",
    );
}

#[test]
fn broker_without_leaderships_shuts_down_at_once() {
    let mut script = Script::of(2).with_topic(&[2]);
    script.shut_down(1);
    script.send(&Heartbeat { want_fence: true, ..script.heartbeat(2) });
    script.expect(
        "broker 1 fenced
         -> caught up, fenced, shut down
         a-0 leader -1 isr [] elr [2] last [2]
         broker 2 fenced
         -> caught up, fenced",
    );
}

/// After a controlled shutdown, the only replica is an eligible leader. After a kill, it is only
/// the last known leader.
#[test]
fn single_broker_restarts() {
    let mut script = Script::of(1).with_topic(&[1]);
    script.shut_down(1);
    script.shut_down(1);
    let epoch = script.epoch(1);
    script.register(&Registration { previous_broker_epoch: epoch, ..registration(1, 10) });
    script.beat(1);
    script.show();
    script.expect(
        "broker 1 shutting down
         a-0 leader -1 isr [] elr [1] last [1]
         -> caught up, unfenced
         broker 1 fenced
         -> caught up, fenced, shut down
         register 1 epoch 16 fenced
         -> epoch 16
         broker 1 unfenced
         a-0 leader 1 isr [1] elr [] last []
         -> caught up, unfenced
         a-0 leader 1 in 2, isr [1] elr [] last []",
    );
    // A controller in the same process does not wait for the session of the previous incarnation.
    script.volatile = VolatileState::activate(&script.image, Some(1), script.now_ms, script.now_ms);
    script.register(&registration(1, 11));
    script.beat(1);
    script.show();
    script.expect(
        "a-0 leader -1 isr [] last [1]
         register 1 epoch 20 fenced
         -> epoch 20
         broker 1 unfenced
         a-0 leader 1 isr [1] last [] recovering
         -> caught up, unfenced
         a-0 leader 1 in 4, isr [1] elr [] last []",
    );
}

#[test]
fn a_new_controller_gives_every_unfenced_broker_a_session() {
    let mut script = Script::of(3);
    script.gone(3);
    script.now_ms = 100_000;
    script.volatile = VolatileState::activate(&script.image, Some(1), script.now_ms, script.now_ms);
    let epoch = |script: &Script, id: i32| (id, script.epoch(id));
    let silent = vec![epoch(&script, 1), epoch(&script, 2)];
    assert_eq!(script.volatile.unheard_of(&script.image), silent);
    script.beat(1);
    assert_eq!(script.volatile.unheard_of(&script.image), silent[1..]);
    script.text.clear();
    script.pass(9_000);
    script.expect("");
    let elsewhere = vec![Uuid::from_u128(300)];
    script.register(&Registration { log_dirs: elsewhere, ..registration(2, 20) });
    script.text.clear();
    // Broker 2 has sent no heartbeat to this controller, so a registration with the same
    // directories replaces it at once.
    script.register(&registration(2, 20));
    script.pass(1);
    script.expect(
        "register 2 epoch 16 fenced
         -> epoch 16
         broker 1 fenced",
    );
}

#[test]
fn a_broker_is_unregistered() {
    let mut script = Script::of(2).with_topic(&[2, 1]);
    for _ in 0..2 {
        let result = script.run(|cx| registration::unregister(cx, 2));
        script.note(result);
    }
    script.expect(
        "a-0 leader 1 isr [1]
         unregister 2
         -> ok
         -> BrokerIdNotRegistered: Broker ID 2 is not currently registered",
    );
}

#[test]
fn failed_log_dir_removes_replicas_from_isr() {
    let mut script = Script::of(2);
    let two = vec![Uuid::from_u128(300), Uuid::from_u128(301)];
    script.register(&Registration { log_dirs: two.clone(), ..registration(3, 30) });
    script.beat(3);
    script.create(NewTopic { assignments: vec![(0, vec![3, 1])], ..topic("a", -1, -1) });
    let id = script.image.topic("a").unwrap().id;
    script.text.clear();
    let epoch = script.epoch(3);
    let assign = |script: &mut Script, dir: Uuid, broker: i32, epoch: i64| {
        let asked = vec![(dir, vec![(id, vec![0])])];
        let result = script.run(|cx| directories::assign(cx, broker, epoch, &asked));
        script.note(result.and_then(|mut dirs| dirs.remove(0).1.remove(0).1.remove(0).1));
    };
    assign(&mut script, two[0], 3, epoch);
    assign(&mut script, two[0], 3, epoch);
    let other = script.epoch(2);
    assign(&mut script, dir(2), 2, other);
    let offline_log_dirs = vec![two[0]];
    script.send(&Heartbeat { offline_log_dirs, ..script.heartbeat(3) });
    script.elect(ElectionType::Preferred);
    script.expect(
        "a-0 dirs 300,2001
         -> ok
         -> ok
         -> NotLeaderOrFollower: the broker is not a replica of the partition
         a-0 leader 1 isr [1]
         broker 3 dirs 301
         -> caught up, unfenced
         -> PreferredLeaderNotAvailable: The preferred leader was not available.",
    );
    let lost = crate::metadata::topics::LOST;
    let here = script.epoch(1);
    assign(&mut script, lost, 1, here);
    script.expect(
        "a-0 dirs 300,2
         a-0 leader -1 isr [] elr [1] last [1]
         -> ok",
    );
    // The next incarnation reports the directory of its replica.
    script.gone(1);
    script.register(&Registration { previous_broker_epoch: here, ..registration(1, 10) });
    let here = script.epoch(1);
    assign(&mut script, dir(1), 1, here);
    script.beat(1);
    script.expect(
        "broker 1 fenced
         register 1 epoch 23 fenced
         -> epoch 23
         a-0 dirs 300,2001
         -> ok
         broker 1 unfenced
         a-0 leader 1 isr [1] elr [] last []
         -> caught up, unfenced",
    );
}

/// A broker must not become leader of a replica in a directory that the same heartbeat reports as
/// failed.
#[test]
fn failed_log_dirs_are_recorded_before_unfencing() {
    let mut script = Script::of(1);
    let two = vec![Uuid::from_u128(300), Uuid::from_u128(301)];
    script.register(&Registration { log_dirs: two.clone(), ..registration(3, 30) });
    script.text.clear();
    let offline_log_dirs = vec![two[0]];
    let beat = Heartbeat { offline_log_dirs, ..script.heartbeat(3) };
    script.send(&beat);
    script.send(&beat);
    script.expect(
        "broker 3 dirs 301
         -> caught up, fenced
         broker 3 unfenced
         -> caught up, unfenced",
    );
}

/// A node that used to be a broker and is now only a controller gives the registered broker with
/// its id a session, which then times out.
#[test]
fn controller_only_node_times_out_its_former_broker() {
    for (here, fenced) in [(Some(1), ""), (None, "broker 1 fenced")] {
        let mut script = Script::of(1);
        script.volatile =
            VolatileState::activate(&script.image, here, script.now_ms, script.now_ms);
        script.text.clear();
        script.pass(9_001);
        script.expect(fenced);
    }
}

#[test]
fn cordoned_directories_get_no_replicas() {
    let mut script = Script::of(2);
    let cordoned_log_dirs = Some(vec![dir(2)]);
    let heartbeat = Heartbeat { cordoned_log_dirs, ..script.heartbeat(2) };
    script.send(&heartbeat);
    script.send(&heartbeat);
    script.create(topic("a", 1, 2));
    script.create(topic("a", 2, 1));
    script.expect(
        "broker 2 cordoned 2002
         -> caught up, unfenced
         -> caught up, unfenced
         -> InvalidReplicationFactor: Unable to replicate the partition 2 time(s): The target \
         replication factor of 2 cannot be reached because only 1 broker(s) are registered or some \
         brokers have all their log directories cordoned.
         topic a
         partition 0 replicas [1] isr [1] leader 1 dirs 2001
         partition 1 replicas [1] isr [1] leader 1 dirs 2001
         -> ok",
    );
}
