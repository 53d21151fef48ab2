//! Elections, logs and faults in a quorum of three configured voters.

use std::time::Duration;

use super::{super::*, network::*, observers::with_observer};
use crate::log::faulty::Crash;

#[tokio::test(start_paused = true)]
async fn three_voters_elect_one_and_have_the_same_log() {
    for seed in 0..10 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        let started = tokio::time::Instant::now();
        let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let node = cluster.node(leader);
        let last = node.propose(epoch, records(3)).await.unwrap();
        assert_eq!(node.image().offset, last);
        cluster.settle().await;
        let status = node.status();
        assert_eq!(status.voters.len(), 3);
        assert!(status.voters.iter().all(|it| it.log_end_offset == status.high_watermark));
        for id in cluster.up().into_iter().filter(|id| *id != leader) {
            let told = *cluster.node(id).leadership().borrow();
            assert_eq!(told, Leadership { leader: Some(leader), epoch, active: false });
            let refused = cluster.node(id).propose(epoch, records(1)).await;
            assert!(matches!(refused, Err(QuorumError::NotLeader { .. })), "{refused:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leaders_decision_is_refused() {
    for seed in 0..5 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        assert!(cluster.propose().await);
        let (old, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.cut(old, true);
        let node = cluster.node(old);
        let lost = tokio::spawn({
            let node = node.clone();
            async move { node.propose(epoch, records(2)).await }
        });
        tokio::time::sleep(Duration::from_secs(4)).await;
        let lost = lost.await.unwrap();
        assert!(matches!(lost, Err(QuorumError::NotLeader { .. })), "{lost:?}");
        assert!(!node.leadership().borrow().active);
        let (new, later) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        assert!(new != old && later > epoch);
        cluster.heal();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let refused = node.propose(epoch, records(1)).await;
        assert!(matches!(refused, Err(QuorumError::WrongEpoch { .. })), "{refused:?}");
        // When the old leader is reachable again, it does not depose the new one.
        assert_eq!(cluster.leader(Duration::ZERO).await, Some((new, later)));
        cluster.settle().await;
        assert!(node.image().topic("xx").is_none());
    }
}

/// A candidate asks for votes in the next epoch while an earlier election may still succeed. Its new
/// leadership then ends with its own ballot, which it receives from a voter.
#[tokio::test(start_paused = true)]
async fn leader_deposed_by_its_own_later_ballot_is_elected_again() {
    for seed in 0..5 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        assert!(cluster.propose().await);
        let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let node = cluster.node(leader);
        // openraft refuses other votes for a while after an election.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ballot = openraft::Vote::new(epoch as u64 + 1, leader);
        let last = node.inner.storage.log().last_log_id();
        let last = last.map(|(epoch, index)| types::log_id(epoch, index));
        let request = openraft::raft::VoteRequest::new(ballot, last);
        let voted = node.raft().expect("a member").vote(request).await.unwrap();
        assert!(voted.vote_granted);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!node.leadership().borrow().active);
        let (_, later) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        assert!(later > epoch + 1);
        assert!(cluster.propose().await);
        cluster.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_process_ends_is_replaced_within_a_second() {
    for seed in 0..10 {
        let mut cluster = Cluster::started(seed, &[1, 2, 3]).await;
        assert!(cluster.propose().await);
        let (leader, epoch) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        cluster.crash(leader, Crash::LoseUnsynced).await;
        let ended = tokio::time::Instant::now();
        let (_, later) = cluster.leader(Duration::from_secs(5)).await.expect("another");
        assert!(ended.elapsed() < Duration::from_millis(1_500), "{:?}", ended.elapsed());
        assert!(later > epoch);
        cluster.start(leader).await;
        cluster.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_far_gets_a_snapshot() {
    for seed in 0..3 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        cluster.snapshot_bytes = 2_000;
        for id in [1, 2, 3] {
            cluster.start(id).await;
        }
        let (leader, lagging) = cluster.leave_one_behind().await;
        // The leader purges batches between two attempts to send them.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let reached = cluster.node(lagging).inner.storage.log().next_index();
        let log_start = cluster.node(leader).inner.storage.log().first_index();
        assert!(log_start > reached, "{log_start} {reached}");
        cluster.settle().await;
        assert!(cluster.node(lagging).inner.storage.log().first_index() > reached);
        // The snapshot is on disk, too.
        cluster.crash(lagging, Crash::LoseUnsynced).await;
        cluster.start(lagging).await;
        cluster.settle().await;
    }
}

/// Whatever is cut, lost or crashed, an epoch has one leader, committed batches stay, and
/// acknowledged batches are on every node in the end. `World` checks every step.
#[tokio::test(start_paused = true)]
async fn faults_lose_nothing_that_was_acknowledged() {
    for seed in seeds(4) {
        let mut cluster = Cluster::new(1_000 + seed, &[1, 2, 3]);
        cluster.snapshot_bytes = 3_000;
        cluster.add_observer(4);
        for id in [1, 2, 3, 4] {
            cluster.start(id).await;
        }
        for _ in 0..25 {
            one_fault(&mut cluster).await;
            for _ in 0..cluster.roll(4) {
                cluster.propose().await;
            }
            tokio::time::sleep(Duration::from_millis(cluster.roll(1_500))).await;
        }
        for id in cluster.ids() {
            if !cluster.up().contains(&id) {
                cluster.start(id).await;
            }
        }
        cluster.settle().await;
        assert!(!cluster.acknowledged.is_empty(), "{seed}");
    }
}

/// The seeds to run. `QUORUM_SEEDS=0..1000` replaces the usual range.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("QUORUM_SEEDS").ok();
    let range = asked.as_deref().and_then(|text| text.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..usual)
}

pub async fn one_fault(cluster: &mut Cluster) {
    let ids = cluster.ids();
    let id = ids[cluster.roll(ids.len() as u64) as usize];
    let is_up = cluster.up().contains(&id);
    match cluster.roll(8) {
        0 => cluster.cut(id, true),
        1 => cluster.cut(id, false),
        2 => cluster.world.lock().loss_percent = 20,
        3 => cluster.world.lock().delay_ms_max = 150,
        4 | 5 if is_up => {
            let crash = match cluster.roll(3) {
                0 => Crash::Process,
                1 => Crash::LoseUnsynced,
                _ => Crash::Tear(cluster.roll(101) as u8),
            };
            cluster.crash(id, crash).await;
        }
        4 | 5 => cluster.start(id).await,
        _ => {
            cluster.heal();
            cluster.world.lock().delay_ms_max = 2;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_are_refused() {
    let cluster = Cluster::started(7, &[1, 2, 3]).await;
    let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let node = cluster.node(leader);
    let header =
        messages::Header { cluster_id: "c".into(), from: 2, to: leader, ..Default::default() };
    let log = node.inner.storage.log().read(0).unwrap().unwrap();
    let entry = types::Entry {
        log_id: types::log_id(1, 0),
        content: types::Content::Batch { bytes: log, membership: None },
    };
    let append = Request::Append(openraft::raft::AppendEntriesRequest {
        vote: openraft::Vote::new(1, 2),
        prev_log_id: None,
        entries: vec![entry],
        leader_commit: None,
    });
    let whole = messages::encode_request(&header, &append);
    assert!(messages::decode_request(whole.clone()).is_ok());
    for len in 0..whole.len() {
        assert!(node.answer(whole.slice(..len)).await.is_err(), "{len}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x55;
        // The bytes may still be a message. They must not cause a panic.
        let _ = messages::decode_request(bytes.into());
    }
    let strange = messages::Header { cluster_id: "other".into(), ..header.clone() };
    let refused = node.answer(messages::encode_request(&strange, &Request::Probe)).await;
    assert!(matches!(refused, Err(MessageError::OtherCluster(_))));
    let astray = messages::Header { to: 9, ..header };
    let refused = node.answer(messages::encode_request(&astray, &Request::Probe)).await;
    assert!(matches!(refused, Err(MessageError::NotForThisNode(9))));
}

/// The stream of committed batches ends on a node that cannot write its log, because its broker
/// must not continue without them.
#[tokio::test(start_paused = true)]
async fn quorum_stops_on_write_failure() {
    let mut cluster = with_observer(3, 1 << 20).await;
    assert!(cluster.propose().await);
    let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let follower = [1, 2, 3].into_iter().find(|id| *id != leader).unwrap();
    for id in [follower, 4] {
        cluster.disk(id).fail_after(Some(0));
    }
    assert!(cluster.propose().await, "two of three are well");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.world.lock().ended, [follower, 4].into());
}

#[tokio::test(start_paused = true)]
async fn full_disk_is_reported_and_the_node_catches_up() {
    let mut cluster = with_observer(4, 1 << 20).await;
    assert!(cluster.propose().await);
    let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let follower = [1, 2, 3].into_iter().find(|id| *id != leader).unwrap();
    for id in [follower, 4] {
        cluster.disk(id).set_room(Some(0));
        let log = &cluster.node(id).inner.storage;
        // No room is reserved yet for what follows.
        log.log().forget_reserve();
    }
    // There is no room for a snapshot either, and the attempt leaves no file.
    let stuck = cluster.node(follower);
    stuck.inner.machine.write_snapshot().await.expect_err("is full");
    stuck.inner.enough.notify_one();
    for _ in 0..5 {
        assert!(cluster.propose().await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stuck = |cluster: &Cluster| {
        cluster.up().into_iter().filter(|id| cluster.node(*id).has_no_room()).collect::<Vec<_>>()
    };
    assert_eq!(stuck(&cluster), [follower, 4]);
    assert!(cluster.world.lock().ended.is_empty());
    let left = cluster.disk(follower).paths();
    assert!(left.iter().all(|path| !path.to_string_lossy().ends_with(".part")), "{left:?}");
    for id in [follower, 4] {
        cluster.disk(id).set_room(None);
    }
    cluster.settle().await;
    assert_eq!(stuck(&cluster), [0; 0]);
}
