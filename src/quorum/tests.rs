//! Tests of the quorum: a quorum of one here, and several nodes on a simulated network.

mod cluster;
mod control_records;
mod durability;
mod members;
mod network;
mod observers;
mod slow_disks;

use std::{fs, os::unix::fs::FileExt, path::Path};

use super::*;
use crate::{
    log::RealDisk,
    metadata::{ConfigResource, records::*},
};

fn topic(name: &str) -> MetadataRecord {
    TopicRecord { name: name.into(), topic_id: uuid::Uuid::from_u128(name.len() as u128) }.into()
}

async fn open(dir: &Path) -> (Quorum, Image, CommittedStream) {
    let config = QuorumConfig::alone(1, dir.join("__cluster_metadata-0"));
    Quorum::start(config).await.expect("starts")
}

fn log_path(dir: &Path) -> std::path::PathBuf {
    dir.join("__cluster_metadata-0/00000000000000000000.log")
}

#[tokio::test]
async fn a_lone_voter_leads_and_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (quorum, image, mut stream) = open(dir.path()).await;
    assert_eq!(image.offset, -1);
    let status = quorum.status();
    assert_eq!((status.leader_id, status.leader_epoch, status.high_watermark), (1, 1, 1));
    assert_eq!(stream.next().await.unwrap().last_offset, 0);
    let offset = quorum.propose(1, vec![topic("a"), topic("bb")]).await.unwrap();
    assert_eq!(offset, 2);
    let batch = stream.next().await.unwrap();
    assert_eq!((batch.last_offset, batch.epoch, batch.changes.len()), (2, 1, 2));
    assert!(quorum.image().topic("bb").is_some());
    let refused = quorum.propose(7, vec![topic("c")]).await;
    assert!(matches!(refused, Err(QuorumError::WrongEpoch { expected: 7, current: 1 })));
    quorum.stop().await.unwrap();
}

#[tokio::test]
async fn each_start_is_a_new_epoch_and_replays_all() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..4 {
        let (quorum, image, _stream) = open(dir.path()).await;
        assert_eq!(image.topics.len(), start);
        assert_eq!(quorum.epoch(), start as i32 + 1);
        let name = "x".repeat(start + 1);
        quorum.propose(quorum.epoch(), vec![topic(&name)]).await.unwrap();
        // A kill leaves no time to stop: every other time the handle is just dropped.
        if start % 2 == 0 {
            quorum.stop().await.unwrap();
        }
    }
    let epochs = dir.path().join("__cluster_metadata-0/leader-epoch-checkpoint");
    assert_eq!(fs::read_to_string(epochs).unwrap(), "0\n4\n1 0\n2 2\n3 4\n4 6\n");
}

#[tokio::test]
async fn the_epoch_grows_although_the_vote_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (quorum, ..) = open(dir.path()).await;
    quorum.stop().await.unwrap();
    let state = dir.path().join("__cluster_metadata-0/quorum-state");
    for lost in ["", "{"] {
        let (quorum, ..) = open(dir.path()).await;
        let epoch = quorum.epoch();
        quorum.stop().await.unwrap();
        fs::write(&state, lost).unwrap();
        let (quorum, ..) = open(dir.path()).await;
        assert_eq!(quorum.epoch(), epoch + 1);
        quorum.stop().await.unwrap();
    }
}

/// Wherever the file ends within the last batch, the batches before it remain, and the log
/// continues.
#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (quorum, ..) = open(dir.path()).await;
    quorum.propose(1, vec![topic("a")]).await.unwrap();
    let whole = fs::metadata(log_path(dir.path())).unwrap().len();
    quorum.propose(1, vec![topic("bb")]).await.unwrap();
    quorum.stop().await.unwrap();
    let bytes = fs::read(log_path(dir.path())).unwrap();
    for cut in (whole..bytes.len() as u64).step_by(7) {
        fs::write(log_path(dir.path()), &bytes[..cut as usize]).unwrap();
        let (quorum, image, _stream) = open(dir.path()).await;
        assert_eq!((image.topics.len(), image.offset), (1, 1), "cut at {cut}");
        let offset = quorum.propose(quorum.epoch(), vec![topic("ccc")]).await.unwrap();
        assert_eq!(offset, 3);
        quorum.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_bit_ends_the_log_there() {
    let dir = tempfile::tempdir().unwrap();
    let (quorum, ..) = open(dir.path()).await;
    quorum.propose(1, vec![topic("a")]).await.unwrap();
    let whole = fs::metadata(log_path(dir.path())).unwrap().len();
    quorum.propose(1, vec![topic("bb")]).await.unwrap();
    quorum.stop().await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(log_path(dir.path())).unwrap();
    file.write_all_at(&[0xff], whole + 70).unwrap();
    let (_quorum, image, _stream) = open(dir.path()).await;
    assert_eq!(image.topics.len(), 1);
}

#[tokio::test]
async fn snapshots_bound_the_log_and_replace_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("__cluster_metadata-0");
    let config = QuorumConfig { snapshot_bytes: 2_000, ..QuorumConfig::alone(1, cluster.clone()) };
    let mut expected = Image::default();
    for _ in 0..3 {
        let (quorum, image, mut stream) = Quorum::start(config.clone()).await.unwrap();
        assert_eq!(image.records(), expected.records());
        for round in 0..60 {
            let topic_id = uuid::Uuid::from_u128(image.topics.len() as u128 + round + 1);
            let record = TopicRecord { name: format!("t{topic_id}"), topic_id };
            quorum.propose(quorum.epoch(), vec![record.into()]).await.unwrap();
        }
        quorum.stop().await.unwrap();
        let mut last = None;
        while let Some(batch) = stream.next().await {
            assert!(last.is_none_or(|last| last < batch.last_offset));
            last = Some(batch.last_offset);
            expected = Image::clone(&batch.image);
        }
    }
    let (_, image, _) = Quorum::start(config).await.unwrap();
    assert_eq!(image.topics.len(), 180);
    assert_eq!(image.records(), expected.records());
    let names: Vec<_> = fs::read_dir(&cluster).unwrap().map(|e| e.unwrap().file_name()).collect();
    let count =
        |suffix: &str| names.iter().filter(|name| name.to_str().unwrap().ends_with(suffix)).count();
    assert_eq!(count(".checkpoint"), 1, "{names:?}");
    assert!(count(".log") <= 4, "{names:?}");
    assert!(!log_path(dir.path()).exists());
}

/// openraft purges the log while the leader's snapshot is still being written to disk.
#[tokio::test]
async fn the_log_stays_until_its_snapshot_is_there() {
    use openraft::storage::RaftLogStorage;
    let dir = tempfile::tempdir().unwrap();
    let (quorum, _, _stream) = open(dir.path()).await;
    quorum.propose(1, vec![topic("a")]).await.unwrap();
    let mut storage = quorum.inner.storage.clone();
    let upto = types::log_id(1, 1);
    let mut purge = Box::pin(storage.purge(upto));
    let soon = std::time::Duration::from_millis(50);
    tokio::time::timeout(soon, &mut purge).await.expect_err("nothing stands for it yet");
    let base = log::Base { index: 2, offset: 2, epoch: 1 };
    let membership = quorum.inner.storage.voter_state().effective().clone();
    let installed = storage::Installed { base, membership };
    quorum.inner.storage.snapshot_queued(installed);
    tokio::time::timeout(soon, purge).await.expect("it is there").unwrap();
    assert_eq!(quorum.inner.storage.log().next_index(), 2, "the rest stays");
    // A snapshot that reaches beyond the log takes its place, whichever comes first.
    let base = log::Base { index: 9, offset: 20, epoch: 1 };
    let membership = quorum.inner.storage.voter_state().effective().clone();
    quorum.inner.storage.snapshot_queued(storage::Installed { base, membership });
    storage.purge(types::log_id(1, 8)).await.unwrap();
    assert_eq!(quorum.inner.storage.log().next_index(), 9, "the log begins after it");
}

#[tokio::test]
async fn a_snapshot_without_a_log_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image { offset: 41, epoch: 3, ..Image::default() };
    image.apply(&topic("a"));
    let content = checkpoint::SnapshotContent {
        image: image.clone(),
        raft_index: 17,
        membership: Default::default(),
        kraft_version: 0,
    };
    checkpoint::write(&RealDisk, dir.path(), &content).unwrap();
    let config = QuorumConfig::alone(1, dir.path().to_owned());
    let (quorum, replayed, _stream) = Quorum::start(config).await.unwrap();
    assert_eq!((replayed.offset, replayed.epoch), (41, 3));
    assert_eq!(replayed.topics, image.topics);
    assert_eq!(quorum.propose(4, vec![topic("bb")]).await.unwrap(), 43);
}

/// A metadata log that a one-node Apache Kafka 4.3.1 wrote: formatted, two topics created, one
/// deleted, stopped in order.
const KAFKA_LOG: &[u8] = include_bytes!("testdata/kafka-4.3.1.log");
const KAFKA_STATE: &[u8] = include_bytes!("testdata/kafka-4.3.1.quorum-state");
/// What `kafka-storage format` wrote for it.
const KAFKA_BOOTSTRAP: &[u8] = include_bytes!("testdata/kafka-4.3.1.checkpoint");

#[tokio::test]
async fn a_log_of_apache_kafka_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("__cluster_metadata-0");
    fs::create_dir(&cluster).unwrap();
    fs::write(log_path(dir.path()), KAFKA_LOG).unwrap();
    fs::write(cluster.join("quorum-state"), KAFKA_STATE).unwrap();
    let (quorum, image, _stream) = open(dir.path()).await;
    assert_eq!(image.offset, 26);
    assert_eq!(image.feature("metadata.version"), 30);
    assert_eq!(image.config(&ConfigResource::default_broker())["min.insync.replicas"], "1");
    let topics: Vec<_> = image.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(topics, ["first"]);
    let partition = image.partition("first", 2).unwrap();
    // The broker stopped in order: the partition has no leader, and the broker is an eligible
    // leader.
    assert_eq!((partition.leader, partition.leader_epoch), (-1, 1));
    assert_eq!((&*partition.isr, &*partition.elr), (&[][..], &[1][..]));
    assert_eq!(image.config(&ConfigResource::topic("first"))["retention.ms"], "1000");
    assert!(image.broker(1).unwrap().fenced);
    assert_eq!(quorum.epoch(), 2);
    let written = fs::read(log_path(dir.path())).unwrap();
    assert_eq!(written[..KAFKA_LOG.len()], *KAFKA_LOG);
    assert_eq!(quorum.propose(2, vec![topic("a")]).await.unwrap(), 28);
}

/// Encoding what was decoded from Kafka's bytes gives the same bytes.
#[test]
fn batches_are_written_as_kafka_writes_them() {
    let mut bytes = bytes::Bytes::from_static(KAFKA_LOG);
    let mut batches = 0;
    while !bytes.is_empty() {
        let whole = bytes.clone();
        let batch = crate::records::Batch::split_first(&mut bytes).unwrap();
        let stamp = format::Stamp {
            base_offset: batch.header.base_offset,
            epoch: batch.header.leader_epoch,
            append_ms: batch.header.base_timestamp,
        };
        let again = match format::decode(&batch).unwrap() {
            format::Contents::Records(records) => format::encode_records(&stamp, &records),
            format::Contents::Control(controls) => format::encode_control(&stamp, &controls),
        };
        assert_eq!(again, whole.slice(..batch.size()));
        batches += 1;
    }
    assert_eq!(batches, 11);
}

#[test]
fn the_records_of_kafkas_format_command_are_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.checkpoint");
    fs::write(&path, KAFKA_BOOTSTRAP).unwrap();
    let formatted = read_checkpoint(&RealDisk, &path).unwrap();
    let ours = crate::controller::features::bootstrap(1);
    assert_eq!(crate::controller::features::bootstrap_with(formatted, 1), ours);
    fs::write(&path, &KAFKA_BOOTSTRAP[..300]).unwrap();
    assert!(read_checkpoint(&RealDisk, &path).is_err());
}
