//! The error that a leader returns for a batch that does not follow the last one of its producer.

use super::*;

/// After a change of leaders, a client may have to send older batches again after newer ones.
#[test]
fn gap_after_a_leader_change_returns_not_leader() {
    let mut cluster = Cluster::new(2);
    let send = |cluster: &mut Cluster, id: usize, (epoch, sequence): (i16, i32)| {
        let now = cluster.now_ms;
        let sent = of_producer(batch(0, 1, 20), 7, epoch, sequence);
        cluster.core(id).append(&mut [sent], Acks::All, now).map(|appended| appended.first_offset)
    };
    assert_eq!(send(&mut cluster, 0, (0, 0)).expect("leads"), 0);
    cluster.fetch_often(2, 1);
    let gap = send(&mut cluster, 0, (0, 2)).expect_err("lacks 1");
    assert!(matches!(gap, AppendError::NotLeader), "1 is not heard of: {gap}");
    cluster.fetch(2);
    let gap = send(&mut cluster, 0, (0, 2)).expect_err("lacks 1");
    assert!(matches!(gap, AppendError::Producer(_)), "nobody led before: {gap}");
    (cluster.image.leader, cluster.image.leader_epoch) = (1, 1);
    cluster.image.partition_epoch += 1;
    cluster.apply_all();
    for early in [(0, 2), (1, 1)] {
        let refused = send(&mut cluster, 1, early).expect_err("lacks a batch");
        assert!(matches!(refused, AppendError::NotLeader), "{early:?}: {refused}");
    }
    assert_eq!(send(&mut cluster, 1, (0, 1)).expect("leads"), 1);
    assert_eq!(send(&mut cluster, 1, (0, 2)).expect("has no gap now"), 2);
    cluster.now_ms += 10_000;
    let gap = send(&mut cluster, 1, (0, 9)).expect_err("lacks a batch");
    assert!(matches!(gap, AppendError::NotLeader), "it may have been deposed: {gap}");
    cluster.fetch(0);
    cluster.fetch(2);
    let gap = send(&mut cluster, 1, (0, 9)).expect_err("lacks a batch");
    assert!(matches!(gap, AppendError::Producer(_)), "nothing is on its way any more: {gap}");
}

/// While there are no new records, a follower's next fetch arrives only after the fetch wait.
#[test]
fn leader_of_an_idle_partition_reports_gaps_whatever_the_fetch_wait() {
    for max_wait_ms in [0, 500, 5_000, 20_000] {
        let mut cluster = Cluster::new(2);
        cluster.max_wait_ms = max_wait_ms;
        let send_at = |cluster: &mut Cluster, now_ms| {
            let sent = of_producer(batch(0, 1, 20), 7, 0, 9);
            cluster.core(0).append(&mut [sent], Acks::All, now_ms).expect_err("has a gap")
        };
        cluster
            .core(0)
            .append(&mut [of_producer(batch(0, 1, 20), 7, 0, 0)], Acks::All, 1_000_000)
            .expect("leads");
        cluster.fetch_often(2, 1);
        cluster.fetch(2);
        let last = cluster.now_ms;
        let on_time = send_at(&mut cluster, last + max_wait_ms + 1_000);
        assert!(matches!(on_time, AppendError::Producer(_)), "{max_wait_ms}: {on_time}");
        let overdue = send_at(&mut cluster, last + max_wait_ms + 2_000);
        assert!(matches!(overdue, AppendError::NotLeader), "{max_wait_ms}: {overdue}");
    }
}

/// If the client received a sequence error, it would start a new producer epoch and write batches
/// again that are not committed yet.
#[test]
fn gap_after_a_refusal_returns_not_leader() {
    let mut cluster = Cluster::new(2);
    let send = |cluster: &mut Cluster, sequence: i32| {
        let now = cluster.now_ms;
        let sent = of_producer(batch(0, 1, 20), 7, 0, sequence);
        cluster.core(0).append(&mut [sent], Acks::All, now).map(|appended| appended.first_offset)
    };
    assert_eq!(send(&mut cluster, 0).expect("leads"), 0);
    cluster.fence(1);
    cluster.fence(2);
    cluster.apply(0);
    let refused = send(&mut cluster, 1).expect_err("is alone");
    assert!(matches!(refused, AppendError::NotEnoughReplicas { .. }), "{refused}");
    cluster.unfence(1);
    cluster.apply_all();
    cluster.fetch_often(3, 1);
    cluster.settle_isr(0).expect("1 has come back");
    let gap = send(&mut cluster, 2).expect_err("lacks 1");
    assert!(matches!(gap, AppendError::NotLeader), "1 is to come again: {gap}");
    assert_eq!(send(&mut cluster, 1).expect("leads"), 1);
    assert_eq!(send(&mut cluster, 2).expect("has no gap now"), 2);
    cluster.now_ms += 10_000;
    cluster.fetch(1);
    let gap = send(&mut cluster, 9).expect_err("lacks a batch");
    assert!(matches!(gap, AppendError::Producer(_)), "nothing was refused lately: {gap}");
}
