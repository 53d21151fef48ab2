//! Property test: invariants of partitions hold after any sequence of events.

use proptest::prelude::*;

use super::script::{Script, registration, topic};
use crate::{controller::*, metadata::PartitionImage};

#[derive(Debug, Clone)]
enum Event {
    Beat(i32),
    /// The broker registers as a new incarnation, after a clean stop or not.
    Restart(i32, bool),
    Gone(i32),
    ShutDown(i32),
    Pass(i64),
    /// The leader requests an ISR of itself and these brokers (a bit for each).
    Isr(u8),
    Elect(bool),
    Reassign(Option<u8>),
    MinIsr(i32),
    Unclean(bool),
    NewController,
}

const BROKERS: i32 = 5;

fn event() -> impl Strategy<Value = Event> {
    let broker = || 1..=BROKERS;
    prop_oneof![
        6 => broker().prop_map(Event::Beat),
        2 => (broker(), any::<bool>()).prop_map(|(id, clean)| Event::Restart(id, clean)),
        2 => broker().prop_map(Event::Gone),
        2 => broker().prop_map(Event::ShutDown),
        2 => (1i64..12_000).prop_map(Event::Pass),
        6 => any::<u8>().prop_map(Event::Isr),
        1 => any::<bool>().prop_map(Event::Elect),
        2 => proptest::option::of(any::<u8>()).prop_map(Event::Reassign),
        1 => (1i32..4).prop_map(Event::MinIsr),
        1 => any::<bool>().prop_map(Event::Unclean),
        1 => Just(Event::NewController),
    ]
}

fn chosen(bits: u8) -> Vec<i32> {
    (1..=BROKERS).filter(|id| bits & (1 << id) != 0).collect()
}

fn happen(script: &mut Script, event: &Event, incarnation: u128) {
    match event {
        Event::Beat(id) => script.beat(*id),
        Event::Restart(id, was_clean) => {
            let previous_broker_epoch = if *was_clean { script.epoch(*id) } else { -1 };
            let registration = registration(*id, incarnation);
            script.register(&Registration { previous_broker_epoch, ..registration });
        }
        Event::Gone(id) => script.gone(*id),
        Event::ShutDown(id) => script.shut_down(*id),
        Event::Pass(ms) => script.pass(*ms),
        Event::Isr(bits) => {
            let leader = script.partition().leader;
            let replicas = script.partition().replicas.clone();
            let mut isr = chosen(*bits);
            isr.retain(|id| replicas.contains(id) && *id != leader);
            isr.push(leader);
            script.ask_isr(leader, script.isr_change(&isr));
        }
        Event::Elect(true) => script.elect(ElectionType::Unclean),
        Event::Elect(false) => script.elect(ElectionType::Preferred),
        Event::Reassign(bits) => {
            let target = bits.map(chosen);
            script.reassign(target.as_deref());
        }
        Event::MinIsr(min) => script.set("min.insync.replicas", &min.to_string()),
        Event::Unclean(allowed) => {
            script.set("unclean.leader.election.enable", &allowed.to_string());
        }
        Event::NewController => {
            script.volatile =
                VolatileState::activate(&script.image, Some(99), script.now_ms, script.now_ms);
        }
    }
}

fn check(script: &Script, old: &PartitionImage) {
    let new = script.partition();
    let text = &script.text;
    if new.leader >= 0 {
        assert!(new.isr.contains(&new.leader), "the leader is in the ISR\n{text}");
        let broker = script.image.broker(new.leader).expect("the leader is registered");
        assert!(!broker.fenced, "the leader is not fenced\n{text}");
    }
    assert!(new.isr.iter().all(|id| new.replicas.contains(id)), "ISR of replicas\n{text}");
    assert!(new.elr.iter().all(|id| !new.isr.contains(id)), "ISR or ELR, not both\n{text}");
    assert!(new.elr.iter().all(|id| new.replicas.contains(id)), "ELR of replicas\n{text}");
    let fenced = |id: &i32| script.image.broker(*id).is_none_or(|broker| broker.fenced);
    // If a cancelled reassignment leaves only a fenced broker, it stays in the ISR, without a
    // leader.
    let led = new.leader >= 0;
    assert!(!(led && new.isr.iter().any(fenced)), "nobody in the ISR is fenced\n{text}");
    assert!(new.leader_epoch >= old.leader_epoch, "leader epochs only rise\n{text}");
    let rises = new.partition_epoch > old.partition_epoch;
    // A new `min.insync.replicas` clears the ELR without a change of the partition epoch.
    let (elr, last_known_elr) = (new.elr.clone(), new.last_known_elr.clone());
    let same = new.elr.is_empty() && *new == PartitionImage { elr, last_known_elr, ..old.clone() };
    assert!(rises || new == old || same, "each change raises the partition epoch\n{text}");
    if new.leader != old.leader {
        assert!(new.leader_epoch > old.leader_epoch, "a leader per epoch\n{text}");
    }
    let removing = &new.removing_replicas;
    assert!(removing.iter().all(|id| new.replicas.contains(id)), "still replicas\n{text}");
    assert_eq!(new.directories.len(), new.replicas.len(), "a directory each\n{text}");
}

/// Checks that without permission for unclean elections, the new leader was in the ISR or the ELR,
/// or was the last known leader and is then marked as recovering.
fn check_clean(script: &Script, old: &PartitionImage, event: &Event) {
    let new = script.partition();
    let asked = matches!(event, Event::Elect(true) | Event::Reassign(_) | Event::Isr(_));
    let topic = crate::metadata::ConfigResource::topic("a");
    let config = script.image.config(&topic).get("unclean.leader.election.enable");
    let allowed = asked || config.is_some_and(|value| value == "true");
    if allowed || new.leader < 0 || new.leader == old.leader {
        return;
    }
    let clean = old.isr.contains(&new.leader) || old.elr.contains(&new.leader);
    let last = old.last_known_elr == [new.leader];
    assert!(clean || last && new.leader_recovery_state == 1, "{old:?}\n{new:?}\n{}", script.text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold(events in proptest::collection::vec(event(), 1..120)) {
        let mut script = Script::of(BROKERS).with_topic(&[1, 2, 3]);
        let assignments = vec![(0, vec![4, 5]), (1, vec![5, 4])];
        script.create(NewTopic { assignments, ..topic("b", -1, -1) });
        for (at, event) in events.iter().enumerate() {
            let old = script.partition().clone();
            script.text.clear();
            happen(&mut script, event, 10_000 + at as u128);
            check(&script, &old);
            check_clean(&script, &old, event);
        }
    }
}
