//! What counts as durable of the metadata log.

use std::{sync::Arc, time::Duration};

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

/// A thread that panicked has not written what it was to write.
#[tokio::test(start_paused = true)]
async fn a_panic_while_the_log_is_written_stops_the_quorum() {
    let panics: [fn(&Cluster, i32); 3] = [
        |cluster, id| {
            cluster.disk(id).fail_files(Some(|operation, _| -> Option<Errno> {
                assert_ne!(operation, Operation::Sync, "planted");
                None
            }));
            cluster.node(id).inner.storage.sync_soon();
        },
        |cluster, id| {
            cluster.node(id).inner.storage.on_disk_thread_soon(|| panic!("planted"));
        },
        |cluster, id| cluster.node(id).inner.storage.sync_then(|_| panic!("planted")),
    ];
    for panics in panics {
        let cluster = Cluster::started(5, &[1, 2, 3]).await;
        let (leader, _) = cluster.leader(Duration::from_secs(5)).await.expect("a leader");
        let mut failure = cluster.node(leader).inner.storage.failure();
        panics(&cluster, leader);
        let soon = Duration::from_secs(1);
        let failed = tokio::time::timeout(soon, failure.wait_for(Option::is_some)).await;
        failed.expect("in time").expect("a failure");
        tokio::time::sleep(soon).await;
        assert!(cluster.world.lock().unwrap().ended.contains(&leader), "its stream has ended");
    }
}
