//! Disks that take seconds for each sync.

use std::{sync::atomic::Ordering, time::Duration};

use super::{network::Cluster, topic};
use crate::{
    base::{
        environment::{Simulated, simulate},
        random::Random,
    },
    log::faulty::Crash,
    metadata::records::TopicRecord,
};

/// Makes every operation that waits for a disk slow, on all nodes.
fn slow_down(seed: u64) {
    let random = Random::new(seed);
    let machine = Simulated { now_ms: 1, random, boots: 0, has_slow_disk: true };
    simulate(Some(machine));
}

/// Makes each write to one node's metadata log take this many seconds.
fn slow_down_one(cluster: &Cluster, id: i32, seconds: u64) {
    let delay_ms = &cluster.node(id).inner.storage.thread.thread.delay_ms;
    delay_ms.store(seconds * 1_000, Ordering::Relaxed);
}

#[tokio::test(start_paused = true)]
async fn slow_disks_delay_commits_and_change_no_leader() {
    let mut cluster = Cluster::started(11, &[1, 2, 3]).await;
    let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    cluster.settle().await;
    slow_down(11);
    let node = cluster.node(led.0);
    let mut offset = node.image().offset;
    for at in 0..15 {
        let records = vec![topic(&format!("slow-{at}"))];
        let proposed = tokio::time::timeout(Duration::from_secs(40), node.propose(led.1, records));
        offset = proposed.await.expect("in time").expect("committed").max(offset);
        for id in cluster.up() {
            let leadership = *cluster.node(id).leadership().borrow();
            assert_eq!((leadership.leader, leadership.epoch), (Some(led.0), led.1));
        }
    }
    assert!(node.image().offset >= offset);
    simulate(None);
    cluster.settle().await;
}

#[tokio::test(start_paused = true)]
async fn entries_count_only_once_a_majority_has_them_on_disk() {
    let mut acknowledged = 0;
    for seed in 0..20 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.settle().await;
        slow_down(seed);
        let node = cluster.node(led.0);
        for at in 0..4 {
            let name = format!("slow-{at}");
            let topic_id = uuid::Uuid::from_u128(1 + at);
            let records = vec![TopicRecord { name: name.clone(), topic_id }.into()];
            let wait = Duration::from_millis(cluster.roll(6_000));
            let proposed = tokio::time::timeout(wait, node.propose(led.1, records)).await;
            if matches!(proposed, Ok(Ok(_))) {
                cluster.acknowledged.push(name);
                acknowledged += 1;
            }
        }
        simulate(None);
        // All nodes lose power at once. What was acknowledged is on the disks of a majority.
        for id in cluster.up() {
            cluster.crash(id, Crash::LoseUnsynced).await;
        }
        for id in cluster.ids() {
            cluster.start(id).await;
        }
        cluster.settle().await;
    }
    assert!(acknowledged > 0, "no change was committed in time");
}

/// The leader cannot count the other voter's acknowledgements before its own disk has written the
/// entries. But that voter answers, so the leader does not resign.
#[tokio::test(start_paused = true)]
async fn a_leader_with_a_slow_disk_stays_while_another_voter_is_down() {
    for seed in 0..5 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.settle().await;
        slow_down_one(&cluster, led.0, 20);
        // The other two commit entries that are not on the leader's disk yet.
        for _ in 0..3 {
            assert!(cluster.propose().await);
        }
        let other = cluster.up().into_iter().find(|id| *id != led.0).unwrap();
        cluster.crash(other, Crash::Process).await;
        let node = cluster.node(led.0);
        let proposal =
            tokio::spawn(
                async move { node.propose(led.1, vec![topic("waits for the disk")]).await },
            );
        for _ in 0..150 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for id in cluster.up() {
                let leadership = *cluster.node(id).leadership().borrow();
                assert_eq!((leadership.leader, leadership.epoch), (Some(led.0), led.1), "{seed}");
            }
        }
        let committed = tokio::time::timeout(Duration::from_secs(60), proposal).await;
        committed.expect("in time").unwrap().expect("committed");
        slow_down_one(&cluster, led.0, 0);
        cluster.start(other).await;
        cluster.settle().await;
    }
}

/// A leader that no other voter answers resigns by a vote for the first of them, which is down. So
/// its vote in the next epoch is used up when the third voter asks for it.
#[tokio::test(start_paused = true)]
async fn a_leader_is_elected_after_a_vote_for_a_node_that_is_down() {
    for seed in 0..12 {
        let mut cluster = Cluster::started(200 + seed, &[1, 2, 3]).await;
        let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.settle().await;
        let down = cluster.up().into_iter().find(|id| *id != led.0).expect("there are three");
        cluster.crash(down, Crash::Process).await;
        cluster.cut(led.0, true);
        tokio::time::sleep(Duration::from_millis(2_500 + cluster.roll(1_000))).await;
        cluster.heal();
        let elected = cluster.leader(Duration::from_secs(8)).await;
        assert!(elected.is_some_and(|it| it.1 > led.1), "{seed}: {elected:?}");
        assert!(cluster.propose().await, "{seed}");
        cluster.start(down).await;
        cluster.settle().await;
    }
}

/// Crashes the leader while `slow` of the other two disks are slow. Another leader is elected.
async fn elects_with_slow_disks(slow: usize) {
    for seed in 0..6 {
        let mut cluster = Cluster::started(100 + seed, &[1, 2, 3]).await;
        let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.settle().await;
        let mut others: Vec<_> = cluster.up().into_iter().filter(|id| *id != led.0).collect();
        if seed % 2 == 0 {
            others.reverse();
        }
        for id in &others[..slow] {
            slow_down_one(&cluster, *id, 5);
        }
        cluster.crash(led.0, Crash::Process).await;
        let next = cluster.leader(Duration::from_secs(120)).await;
        let (_, epoch) = next.unwrap_or_else(|| panic!("no leader: {:?}", cluster.states()));
        // The epoch shows how many elections there were.
        assert!((led.1 + 1..led.1 + 6).contains(&epoch), "{seed}: {epoch} after {}", led.1);
        for id in others {
            slow_down_one(&cluster, id, 0);
        }
        cluster.start(led.0).await;
        cluster.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_elected_while_the_disk_of_one_of_two_voters_is_slow() {
    elects_with_slow_disks(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_elected_while_the_disks_of_both_remaining_voters_are_slow() {
    elects_with_slow_disks(2).await;
}

/// No disk is fast enough, and which one is slower changes all the time.
#[tokio::test(start_paused = true)]
async fn leaders_are_elected_while_all_disks_are_slow() {
    for seed in 0..6 {
        let mut cluster = Cluster::started(200 + seed, &[1, 2, 3]).await;
        let led = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.settle().await;
        slow_down(seed);
        cluster.crash(led.0, Crash::Process).await;
        let next = cluster.leader(Duration::from_secs(300)).await;
        assert!(next.is_some(), "{seed}: no leader: {:?}", cluster.states());
        simulate(None);
        cluster.start(led.0).await;
        cluster.settle().await;
    }
}

/// The disk takes longer to refuse a reservation than the follower waits for it.
#[tokio::test(start_paused = true)]
async fn full_disk_is_reported_however_late_it_answers() {
    let mut cluster = Cluster::started(5, &[1, 2, 3]).await;
    let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    cluster.settle().await;
    let follower = cluster.up().into_iter().find(|id| *id != leader).expect("there are three");
    slow_down_one(&cluster, follower, 5);
    cluster.disk(follower).set_room(Some(0));
    cluster.node(follower).inner.storage.log().forget_reserve();
    assert!(cluster.propose().await, "two of three have room");
    assert!(!cluster.node(follower).has_no_room(), "the disk has not answered yet");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(cluster.node(follower).has_no_room());
    cluster.disk(follower).set_room(None);
    slow_down_one(&cluster, follower, 0);
    cluster.settle().await;
    assert!(!cluster.node(follower).has_no_room());
}
