//! Markers that a coordinator repeats, because they were not committed in time.

use super::*;
use crate::records::{Producer, TransactionVersion, TxnMarker};

const MARKER: TxnMarker = TxnMarker {
    producer: Producer { id: 7, epoch: 3 },
    commits: true,
    coordinator_epoch: 5,
    version: TransactionVersion::V1,
};

/// The offset of the marker, and whether the log had it already.
fn end(cluster: &mut Cluster, leader: usize, marker: &TxnMarker) -> (i64, bool) {
    let now = cluster.now_ms;
    let appended = cluster.core(leader).append_marker(marker, Acks::All, now).expect("leads");
    (appended.first_offset, appended.duplicate)
}

#[test]
fn repeated_marker_is_appended_only_once_it_is_committed() {
    let mut cluster = Cluster::new(2);
    cluster.produce(0, Acks::All).expect("leads");
    assert_eq!(cluster.core(0).uncommitted_marker(&MARKER), None);
    assert_eq!(end(&mut cluster, 0, &MARKER), (1, false));
    assert_eq!(end(&mut cluster, 0, &MARKER), (1, true));
    let uncommitted = cluster.core(0).uncommitted_marker(&MARKER).expect("waits for followers");
    assert_eq!((uncommitted.first_offset, uncommitted.last_offset), (1, 1));
    for follower in [1, 2, 1, 2] {
        cluster.fetch(follower);
    }
    assert_eq!(cluster.core(0).high_watermark(), 2);
    assert_eq!(cluster.core(0).uncommitted_marker(&MARKER), None);
    assert_eq!(end(&mut cluster, 0, &MARKER), (2, false));
}

#[test]
fn other_markers_of_the_producer_are_appended() {
    let mut cluster = Cluster::new(2);
    assert_eq!(end(&mut cluster, 0, &MARKER), (0, false));
    let others = [
        TxnMarker { commits: false, ..MARKER },
        TxnMarker { coordinator_epoch: 6, ..MARKER },
        TxnMarker { coordinator_epoch: 6, producer: Producer { id: 7, epoch: 4 }, ..MARKER },
        TxnMarker { producer: Producer { id: 8, epoch: 3 }, ..MARKER },
    ];
    for (at, marker) in others.iter().enumerate() {
        assert_eq!(end(&mut cluster, 0, marker), (at as i64 + 1, false));
    }
    let last = others[2];
    assert_eq!(end(&mut cluster, 0, &last), (3, true));
    let mut open = of_producer(batch(0, 1, 20), 7, 4, 0);
    open.header.attributes |= 1 << 4;
    let now = cluster.now_ms;
    let guard = cluster.core(0).verification_guard(last.producer, 0, last.version, now);
    let origin = Origin::Client(guard.expect("leads").into());
    let sent = &mut [sealed(open)];
    cluster.core(0).append_from(origin, sent, Acks::All, now).expect("is verified");
    assert_eq!(end(&mut cluster, 0, &last), (6, false), "it ends the next transaction");
}

/// In transaction version 1, the markers of all transactions of a producer are equal.
#[test]
fn marker_that_voids_a_guard_is_appended_again() {
    let mut cluster = Cluster::new(2);
    let now = cluster.now_ms;
    assert_eq!(end(&mut cluster, 0, &MARKER), (0, false));
    let guard_of = |cluster: &mut Cluster, epoch, version| {
        let producer = Producer { epoch, ..MARKER.producer };
        let guard = cluster.core(0).verification_guard(producer, 0, version, now);
        guard.expect("leads").expect("no transaction is open")
    };
    let guard = guard_of(&mut cluster, MARKER.producer.epoch, MARKER.version);
    assert_eq!(end(&mut cluster, 0, &MARKER), (1, false), "it may end the next transaction");
    let next = guard_of(&mut cluster, MARKER.producer.epoch, MARKER.version);
    assert_ne!(next, guard, "the marker has voided the guard");

    let bumped = TxnMarker {
        producer: Producer { id: 7, epoch: 4 },
        version: TransactionVersion::V2,
        ..MARKER
    };
    assert_eq!(end(&mut cluster, 0, &bumped), (2, false));
    let guard = guard_of(&mut cluster, 4, TransactionVersion::V2);
    assert_eq!(end(&mut cluster, 0, &bumped), (2, true), "it is that of the last transaction");
    assert_eq!(guard_of(&mut cluster, 4, TransactionVersion::V2), guard);
}

/// The next leader has the marker from the log.
#[test]
fn next_leader_does_not_append_an_uncommitted_marker_again() {
    let mut cluster = Cluster::new(2);
    assert_eq!(end(&mut cluster, 0, &MARKER), (0, false));
    cluster.fetch(1);
    cluster.fence(0);
    cluster.apply_all();
    assert_eq!(end(&mut cluster, 1, &MARKER), (0, true));
    assert_eq!(cluster.core(0).uncommitted_marker(&MARKER), None, "it does not lead");
}
