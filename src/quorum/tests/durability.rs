//! Which batches of the metadata log count as durable.

use std::{path::Path, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{
    network::{Cluster, dir},
    topic,
};
use crate::{
    log::{
        Disk,
        faulty::{FaultyDisk, Operation},
    },
    quorum::{
        format::{Stamp, encode_records},
        log::{Base, BatchState, MetadataLog},
    },
};

fn batch(epoch: i32, base_offset: i64) -> bytes::Bytes {
    encode_records(&Stamp { base_offset, epoch, append_ms: 1 }, &[topic("a")])
}

fn empty_log() -> MetadataLog {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::default());
    disk.create_dir_all(&dir()).unwrap();
    MetadataLog::open((&disk, &dir()), Base::default(), 1 << 20, |_| Ok(())).unwrap()
}

#[test]
fn a_sync_covers_no_batch_that_replaced_another_meanwhile() {
    let mut log = empty_log();
    log.append(&batch(1, 0)).unwrap();
    let (mark, sync) = log.sync();
    sync().unwrap();
    log.truncate(0).unwrap();
    log.append(&batch(2, 0)).unwrap();
    log.synced(mark);
    assert_eq!(log.state_of((2, 0)), BatchState::NotDurable);
    assert_eq!(log.state_of((1, 0)), BatchState::Replaced);
    assert_eq!(log.last_durable(), None);
    let (mark, sync) = log.sync();
    sync().unwrap();
    log.synced(mark);
    assert_eq!(log.state_of((2, 0)), BatchState::Durable);
}

/// A panic on the log's thread means that a write may be missing, so the log fails.
#[tokio::test(start_paused = true)]
async fn a_panic_while_the_log_is_written_stops_the_quorum() {
    let panics: [fn(&Cluster, i32); 3] = [
        |cluster, id| {
            cluster.disk(id).fail_files(Some(|operation, _| -> Option<Errno> {
                assert_ne!(operation, Operation::Sync, "planted");
                None
            }));
            cluster.node(id).inner.storage.thread.sync_soon();
        },
        |cluster, id| {
            cluster.node(id).inner.storage.thread.run_soon(|| panic!("planted"));
        },
        |cluster, id| cluster.node(id).inner.storage.thread.sync_then(|_| panic!("planted")),
    ];
    for panics in panics {
        let cluster = Cluster::started(5, &[1, 2, 3]).await;
        let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let mut failure = cluster.node(leader).inner.storage.thread.failure();
        panics(&cluster, leader);
        let soon = Duration::from_secs(1);
        let failed = tokio::time::timeout(soon, failure.wait_for(Option::is_some)).await;
        failed.expect("in time").expect("a failure");
        tokio::time::sleep(soon).await;
        assert!(cluster.world.lock().ended.contains(&leader), "its stream has ended");
    }
}

/// A crash that loses a snapshot also loses the batches after it.
#[test]
fn no_batch_after_a_snapshot_is_durable_before_the_snapshot() {
    let mut log = empty_log();
    log.append(&batch(1, 0)).unwrap();
    let obsolete = log.continue_after(Base { index: 9, offset: 20, epoch: 1 }).unwrap();
    log.append(&batch(2, 20)).unwrap();
    let sync = |log: &mut MetadataLog| {
        let (mark, sync) = log.sync();
        sync().unwrap();
        log.synced(mark);
        log.state_of((2, 9))
    };
    assert_eq!(sync(&mut log), BatchState::NotDurable);
    obsolete.delete().unwrap();
    log.snapshot_is_durable();
    assert_eq!(log.state_of((2, 9)), BatchState::NotDurable, "the deletion is not durable");
    assert_eq!(sync(&mut log), BatchState::Durable);
}

/// Each operation of the test below that may wait for the disk, with the thread that did it.
static WAITS: Mutex<Vec<(Operation, String)>> = Mutex::new(Vec::new());

fn note_thread(operation: Operation, path: &Path) -> Option<Errno> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let waits = match operation {
        Operation::Reserve => true,
        Operation::Remove => name.ends_with(".log"),
        Operation::Rename => name == "received.checkpoint.part",
        _ => false,
    };
    if waits {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        WAITS.lock().push((operation, thread));
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_of_the_quorum_waits_for_a_snapshot_a_purge_or_room() {
    let mut cluster = Cluster::new(3, &[1, 2, 3]);
    cluster.snapshot_bytes = 2_000;
    for id in [1, 2, 3] {
        cluster.start(id).await;
        cluster.disk(id).fail_files(Some(note_thread));
    }
    cluster.leave_one_behind().await;
    // The leader purges batches between two attempts to send them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.settle().await;
    let waits = WAITS.lock();
    for operation in [Operation::Reserve, Operation::Remove, Operation::Rename] {
        assert!(waits.iter().any(|it| it.0 == operation), "no {operation:?}");
    }
    let elsewhere: Vec<_> = waits.iter().filter(|it| it.1 != "metadata-log").collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
