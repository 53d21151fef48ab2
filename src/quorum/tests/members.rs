//! Voters are added and removed while the quorum works.

use std::time::Duration;

use uuid::Uuid;

use super::{
    super::*,
    cluster::{one_fault, seeds},
    network::*,
    observers::endpoint,
};
use crate::log::{disk::Disk, faulty::Crash};

fn directory(id: i32) -> Uuid {
    Uuid::from_u128(id as u128)
}

fn voter(id: i32) -> Voter {
    Voter::new(id, directory(id), endpoint(id))
}

/// Puts into a node's directory what `kafka-storage format --standalone` does.
fn format(cluster: &Cluster, id: i32, voters: &[Voter]) {
    let disk = cluster.disk(id);
    disk.create_dir_all(&dir()).unwrap();
    let content = checkpoint::SnapshotContent {
        image: Image { offset: -1, ..Image::default() },
        raft_index: 0,
        membership: voters::StoredMembership::new(None, voters::of_voters(voters)),
        kraft_version: 1,
    };
    checkpoint::write(&disk, &dir(), &content).unwrap();
    disk.sync_dir(dir().parent().unwrap()).unwrap();
}

/// Starts one voter. The other nodes exist and can be started and added.
async fn standalone(seed: u64, others: &[i32]) -> Cluster {
    let mut cluster = Cluster::new(seed, &[]);
    cluster.bootstrap = vec![1];
    cluster.bootstrap.extend(others);
    for id in cluster.bootstrap.clone() {
        cluster.add_observer(id);
    }
    format(&cluster, 1, &[voter(1)]);
    cluster.start(1).await;
    cluster
}

async fn leader_of(cluster: &Cluster) -> Quorum {
    let (id, _) = cluster.leader(Duration::from_secs(10)).await.expect("a leader");
    cluster.node(id)
}

const WITHIN: Duration = Duration::from_secs(20);

async fn join(cluster: &Cluster, id: i32) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let added = leader_of(cluster).await.add_voter(voter(id), WITHIN).await;
    assert_eq!(added, Ok(()), "{id}");
}

async fn three_that_joined(seed: u64) -> Cluster {
    let mut cluster = standalone(seed, &[2, 3]).await;
    for id in [2, 3] {
        cluster.start(id).await;
        join(&cluster, id).await;
    }
    cluster.settle().await;
    cluster
}

fn voter_ids(quorum: &Quorum) -> Vec<i32> {
    quorum.status().voters.iter().map(|it| it.replica_id).collect()
}

#[tokio::test(start_paused = true)]
async fn from_one_voter_to_three_and_back() {
    for seed in 0..4 {
        let mut cluster = standalone(seed, &[2, 3]).await;
        assert!(cluster.propose().await);
        let alone = leader_of(&cluster).await;
        let stranger = alone.add_voter(voter(2), WITHIN).await;
        assert!(matches!(stranger, Err(VoterChangeError::NotReady(_))), "{stranger:?}");
        for id in [2, 3] {
            cluster.start(id).await;
            join(&cluster, id).await;
            assert!(cluster.propose().await);
        }
        cluster.settle().await;
        let leader = leader_of(&cluster).await;
        assert_eq!(voter_ids(&leader), [1, 2, 3]);
        assert_eq!(leader.endpoint(3), Some(endpoint(3)));
        let again = leader.add_voter(voter(3), WITHIN).await.unwrap_err();
        let text = "The voter id for ReplicaKey(id=3, directoryId=AAAAAAAAAAAAAAAAAAAAAw) is \
                    already part of the set of voters [ReplicaKey(id=1, ";
        assert!(again.to_string().starts_with(text), "{again}");
        // All three are voters, so the quorum can lose the first.
        cluster.crash(1, Crash::LoseUnsynced).await;
        assert!(cluster.propose().await, "{seed} {:?}", cluster.states());
        cluster.start(1).await;
        cluster.settle().await;
        let (leading, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let other = cluster.up().into_iter().find(|id| *id != leading).unwrap();
        // Removes a follower, then the leader itself.
        for id in [other, leading] {
            let node = leader_of(&cluster).await;
            assert_eq!(node.remove_voter(id, directory(id), WITHIN).await, Ok(()), "{id}");
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(cluster.propose().await, "{seed} {id} {:?}", cluster.states());
        }
        cluster.settle().await;
        let last = leader_of(&cluster).await;
        assert_eq!(voter_ids(&last).len(), 1);
        let id = voter_ids(&last)[0];
        let kept = last.remove_voter(id, directory(id), WITHIN).await;
        assert!(matches!(kept, Err(VoterChangeError::NotFound(..))));
        let seen: Vec<_> = last.status().observers.iter().map(|it| it.replica_id).collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn voters_survive_snapshots_and_restarts() {
    let mut cluster = standalone(5, &[2, 3]).await;
    cluster.snapshot_bytes = 2_000;
    cluster.crash(1, Crash::Process).await;
    cluster.start(1).await;
    for id in [2, 3] {
        cluster.start(id).await;
        join(&cluster, id).await;
    }
    for _ in 0..80 {
        assert!(cluster.propose().await);
    }
    cluster.settle().await;
    for id in [1, 2, 3] {
        cluster.crash(id, Crash::LoseUnsynced).await;
    }
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    cluster.settle().await;
    let leader = leader_of(&cluster).await;
    assert!(leader.inner.storage.log().first_index() > 10);
    assert_eq!(voter_ids(&leader), [1, 2, 3]);
    let moved = Endpoint { port: 99, ..endpoint(2) };
    let moved = Voter { endpoints: vec![endpoint(2), moved], ..voter(2) };
    assert_eq!(leader.update_voter(moved.clone(), WITHIN).await, Ok(()));
    assert_eq!(leader.status().voters[1].endpoints, moved.endpoints);
    let stranger = leader.update_voter(voter(9), WITHIN).await;
    assert!(matches!(stranger, Err(VoterChangeError::NotFound(..))));
}

#[tokio::test(start_paused = true)]
async fn a_voter_removed_while_it_is_down_goes_on_as_an_observer() {
    let mut cluster = three_that_joined(6).await;
    let (leading, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let other = cluster.up().into_iter().find(|id| *id != leading).unwrap();
    cluster.crash(other, Crash::LoseUnsynced).await;
    let leader = leader_of(&cluster).await;
    assert_eq!(leader.remove_voter(other, directory(other), WITHIN).await, Ok(()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.start(other).await;
    assert!(cluster.propose().await);
    cluster.settle().await;
    assert!(!cluster.node(other).is_voter());
    let back = leader_of(&cluster).await.begin_adding_voter(voter(other), WITHIN).await;
    assert_eq!(back, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.settle().await;
    assert!(cluster.node(other).is_voter());
}

/// A leader that has removed itself leads for up to a heartbeat after it is no member any more.
#[tokio::test(start_paused = true)]
async fn removed_leader_changes_no_voters() {
    let mut cluster = three_that_joined(10).await;
    let (id, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
    let (leader, other) = (cluster.node(id), id % 3 + 1);
    assert_eq!(leader.remove_voter(id, directory(id), WITHIN).await, Ok(()));
    let is_member = || {
        let known = leader.inner.storage.voter_state().clone();
        known.effective().membership().get_node(&id).is_some()
    };
    while is_member() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(leader.leader(), Some(id), "it still leads");
    let refused = loop {
        match leader.remove_voter(other, directory(other), WITHIN).await {
            Err(VoterChangeError::Pending) => tokio::time::sleep(Duration::from_millis(1)).await,
            result => break result,
        }
    };
    assert_eq!(refused, Err(VoterChangeError::NotLeader));
    assert!(cluster.propose().await, "{:?}", cluster.states());
    assert!(voter_ids(&leader_of(&cluster).await).contains(&other));
}

/// A change passes through a configuration in which the voters before it still decide.
#[tokio::test(start_paused = true)]
async fn a_voter_is_listed_once_the_quorum_can_lose_another() {
    for seed in 0..4 {
        let mut cluster = standalone(seed, &[2, 3]).await;
        for id in [2, 3] {
            cluster.start(id).await;
        }
        join(&cluster, 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = leader_of(&cluster).await;
        assert_eq!(first.leader(), Some(1));
        assert_eq!(first.begin_adding_voter(voter(3), WITHIN).await, Ok(()));
        let deadline = tokio::time::Instant::now() + WITHIN;
        while voter_ids(&first) != [1, 2, 3] {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", cluster.states());
            let observers = first.status().observers;
            assert!(observers.iter().any(|it| it.replica_id == 3), "it is listed all the time");
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        cluster.crash(1, Crash::LoseUnsynced).await;
        assert!(cluster.propose().await, "{seed} {:?}", cluster.states());
    }
}

/// Without this vote no leader could be elected, and without a leader the voter would never receive
/// the change that made it a voter.
#[tokio::test(start_paused = true)]
async fn voter_grants_vote_before_learning_of_its_membership() {
    let mut cluster = Cluster::new(8, &[]);
    cluster.bootstrap = vec![1, 2];
    for id in [1, 2] {
        cluster.add_observer(id);
    }
    format(&cluster, 1, &[voter(1), voter(2)]);
    for id in [1, 2] {
        cluster.start(id).await;
    }
    assert!(!cluster.node(2).is_voter());
    assert!(cluster.propose().await, "{:?}", cluster.states());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.node(2).is_voter());
}

/// Each voter became an observer, as if the others were the quorum.
#[tokio::test(start_paused = true)]
async fn voters_that_have_all_left_come_back() {
    let mut cluster = three_that_joined(9).await;
    for id in [1, 2, 3] {
        cluster.node(id).observe().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(cluster.propose().await, "{:?}", cluster.states());
    cluster.settle().await;
    assert_eq!(voter_ids(&leader_of(&cluster).await), [1, 2, 3]);
}

/// The same faults while the voters change at random.
#[tokio::test(start_paused = true)]
async fn voters_change_through_faults() {
    for seed in seeds(3) {
        let mut cluster = standalone(2_000 + seed, &[2, 3]).await;
        cluster.snapshot_bytes = 3_000;
        for id in [2, 3] {
            cluster.start(id).await;
        }
        for _ in 0..25 {
            one_fault(&mut cluster).await;
            let id = cluster.roll(3) as i32 + 1;
            let (what, within) = (cluster.roll(3), Duration::from_secs(3));
            if let Some((leader, _)) = cluster.leader(Duration::from_secs(2)).await {
                let leader = cluster.node(leader);
                // Because of the faults, this may fail.
                let _ = match what {
                    0 => leader.remove_voter(id, directory(id), within).await,
                    1 => leader.begin_adding_voter(voter(id), within).await,
                    _ => leader.add_voter(voter(id), within).await,
                };
            }
            cluster.propose().await;
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

#[tokio::test(start_paused = true)]
async fn configured_voters_do_not_change() {
    let mut cluster = Cluster::started(1, &[1, 2, 3]).await;
    assert!(cluster.propose().await);
    let refused = leader_of(&cluster).await.remove_voter(1, directory(1), WITHIN).await;
    let text = "Cluster doesn't support removing voter because the kraft.version feature is 0";
    assert_eq!(refused.unwrap_err().to_string(), text);
}
