//! Tests of the choice of logs, on a node whose cleaner threads are off.

mod changes;

use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::*;
use crate::{
    base::{
        TopicId, TopicPartition,
        config::{Config, Properties, TopicConfig},
    },
    log::{Log, LogConfig, LogStart, checkpoint, faulty::FaultyDisk, testing::batch},
    partition::{Core, Partition, PartitionCallbacks, Role, Topic},
    server::{Environment, Server},
};

const NOW: i64 = 1_700_000_000_000;

/// A node with two log directories. The files of logs are on a disk in memory.
struct Site {
    server: Server,
    data: tempfile::TempDir,
    disk: FaultyDisk,
}

impl Site {
    async fn start() -> Self {
        Self::start_with(&[("log.cleaner.enable", "false")]).await
    }

    async fn start_with(overrides: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let dirs = ["a", "b"].map(|name| data.path().join(name).display().to_string());
        let pairs = [
            ("node.id", "3"),
            ("process.roles", "broker,controller"),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.bootstrap.servers", "127.0.0.1:1"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("http.listener", "none"),
            ("log.dirs", &dirs.join(",")),
        ];
        let pairs = [&pairs, overrides].concat();
        let config = Config::new(properties(&pairs), "localhost").expect("valid");
        let environment = Environment { listens: false, ..Environment::real(Handle::current()) };
        let server = Server::start_in(config, environment, |_| ()).await.expect("starts");
        Self { server, data, disk: FaultyDisk::default() }
    }

    fn cleaner(&self) -> &Arc<Cleaner> {
        &self.server.broker().cleaner
    }

    /// Adds a topic with one partition in a log directory: `clean` and then `dirty` segments of the
    /// same size, and an empty active segment.
    fn add(&self, name: &str, dir: &str, (clean, dirty): (i64, i64)) -> Arc<Partition> {
        self.add_with(name, dir, (clean, dirty), &[("cleanup.policy", "compact")])
    }

    fn add_with(
        &self,
        name: &str,
        dir: &str,
        (clean, dirty): (i64, i64),
        overrides: &[(&str, &str)],
    ) -> Arc<Partition> {
        self.add_log(name, dir, overrides, |log| {
            for _ in 0..clean + dirty {
                log.append(&mut [batch(log.log_end(), 10, 100)], 0, NOW).expect("appends");
                log.roll(log.log_end(), NOW).expect("rolls");
            }
            log.set_first_dirty(10 * clean);
        })
    }

    fn add_log(
        &self,
        name: &str,
        dir: &str,
        overrides: &[(&str, &str)],
        write: impl FnOnce(&mut Log),
    ) -> Arc<Partition> {
        let config = self.topic_config(overrides);
        let log_config = LogConfig {
            compact: config.cleanup_policy.compact,
            delete: config.cleanup_policy.delete,
            segment_bytes: config.segment_bytes as u64,
            ..LogConfig::default()
        };
        let id = TopicPartition::new(name, 0);
        let path = self.data.path().join(dir).join(id.to_string());
        let (disk, start) = (Arc::new(self.disk.clone()), LogStart::of_new(NOW));
        let mut log = Log::open(disk, &path, Arc::new(log_config), start).expect("opens").0;
        write(&mut log);
        let end = log.log_end();
        let core = Core::new(log, Role::Leader { epoch: 0 }, end);
        let partition = Arc::new(Partition::new(id, core, PartitionCallbacks::default()));
        let broker = self.server.broker();
        let metrics = broker.metrics.topic(name);
        let topic = Arc::new(Topic::new(name.into(), TopicId::new_v4(), config, metrics));
        topic.insert(Arc::clone(&partition));
        broker.replicas.partitions.insert(topic);
        partition
    }

    fn topic_config(&self, overrides: &[(&str, &str)]) -> Arc<TopicConfig> {
        let config = TopicConfig::resolve(&self.server.broker().config(), &properties(overrides));
        Arc::new(config.expect("valid"))
    }

    /// The names of the topics that threads claim, one after the other, at the same time.
    fn claimed(&self) -> Vec<String> {
        let mut claims = Vec::new();
        while let Some(claim) = self.cleaner().claim_dirtiest(NOW) {
            claims.push(claim);
        }
        claims.iter().map(|claim| claim.chosen.partition.id.topic.to_string()).collect()
    }

    fn checkpoint(&self, dir: &str) -> Vec<(TopicPartition, i64)> {
        let path = self.data.path().join(dir).join(checkpoint::CLEANER);
        let text = std::fs::read(path).expect("is there");
        let mut offsets: Vec<_> =
            checkpoint::decode(&text).expect("is sound").into_iter().collect();
        offsets.sort();
        offsets
    }

    fn uncleanable(&self) -> Vec<(String, usize, u64)> {
        let name = |path: &str| PathBuf::from(path).file_name().map(Path::new).map(Path::to_owned);
        let by_dir = self.cleaner().uncleanable_by_dir().into_iter();
        let short = by_dir.map(|(path, partitions, bytes)| {
            (name(&path).unwrap_or_default().display().to_string(), partitions, bytes)
        });
        short.collect()
    }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dirtiest_log_comes_first_and_is_claimed_once() {
    let site = Site::start().await;
    site.add("half", "a", (2, 2));
    site.add("dirtier", "b", (1, 3));
    site.add("dirtiest", "a", (0, 2));
    site.add("clean", "a", (3, 0));
    site.add("empty", "a", (0, 0));
    site.add_with("deleted", "a", (0, 3), &[("cleanup.policy", "delete")]);
    assert_eq!(site.claimed(), ["dirtiest", "dirtier"]);
    assert_eq!(site.claimed(), ["dirtiest", "dirtier"], "the claims have ended");
    // Like Kafka's, the ratio leaves out logs that are being compacted.
    drop(site.cleaner().claim_dirtiest(NOW).expect("one is due"));
    let stats = site.cleaner().stats.lock();
    assert!((stats.max_dirty_ratio - 1.0).abs() < 1e-9);
    assert_eq!(stats.last_run_ms, NOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_out_of_service_are_left_alone() {
    let site = Site::start().await;
    let failed = site.add("failed", "a", (0, 2));
    let moving = site.add("moving", "a", (0, 2));
    site.add("served", "a", (0, 1));
    failed.fail();
    let disk = Arc::new(FaultyDisk::default());
    let config = Arc::new(LogConfig::default());
    let copy = Log::open(disk, Path::new("/b/copy"), config, LogStart::of_new(NOW));
    moving.begin_move(copy.expect("opens").0);
    assert_eq!(site.claimed(), ["served"]);
    moving.take_future();
    assert_eq!(site.claimed().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_outside_of_the_log_is_rewritten() {
    let site = Site::start().await;
    let ahead = site.add("ahead", "a", (0, 2));
    ahead.update(|core| core.log_mut().restore_first_dirty(Some(99)));
    let behind = site.add_with("behind", "b", (0, 3), &[("cleanup.policy", "compact,delete")]);
    behind.update(|core| {
        core.log_mut().advance_log_start(20).expect("in range");
        core.log_mut().restore_first_dirty(Some(5));
    });
    site.claimed();
    assert_eq!(ahead.view().log.first_dirty(), Some(0));
    assert_eq!(site.checkpoint("a"), [(ahead.id.clone(), 0)]);
    assert_eq!(site.checkpoint("b"), [(behind.id.clone(), 20)]);
}

/// DeleteRecords can move the log start into the active segment, which is never compacted.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_start_in_the_active_segment_is_checkpointed_once() {
    let site = Site::start().await;
    let partition = site.add("emptied", "a", (2, 0));
    partition.update(|core| {
        let log = core.log_mut();
        log.append(&mut [batch(20, 10, 100)], 0, NOW).expect("appends");
        log.advance_log_start(25).expect("in range");
    });
    site.claimed();
    assert_eq!(partition.view().log.first_dirty(), Some(25));
    assert_eq!(site.checkpoint("a"), [(partition.id.clone(), 25)]);
    std::fs::remove_file(site.data.path().join("a").join(checkpoint::CLEANER)).expect("is there");
    site.claimed();
    assert!(!site.data.path().join("a").join(checkpoint::CLEANER).exists(), "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_given_up_is_counted_until_its_topic_is_deleted() {
    let site = Site::start().await;
    let bad = site.add("bad", "b", (1, 3));
    site.cleaner().give_up(&bad, "planted by a test");
    assert_eq!(site.claimed(), [""; 0]);
    let dirty = bad.view().log.size() / 4 * 3;
    assert_eq!(site.uncleanable(), [("a".to_owned(), 0, 0), ("b".to_owned(), 1, dirty)]);
    // A new topic gets the name.
    site.add("bad", "a", (1, 3));
    assert_eq!(site.claimed(), ["bad"]);
    assert_eq!(site.uncleanable(), [("a".to_owned(), 0, 0), ("b".to_owned(), 0, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_round_lets_other_logs_go_first() {
    let site = Site::start().await;
    let full = site.add("full", "a", (0, 2));
    site.add("other", "b", (1, 3));
    site.cleaner().postpone(&full, NOW);
    assert_eq!(site.claimed(), ["other"]);
    site.cleaner().postpone(&full, NOW - 10_000);
    assert_eq!(site.claimed(), ["full", "other"], "its time is up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_gives_up_only_its_log() {
    let site = Site::start().await;
    site.add("first", "a", (0, 2));
    site.add("second", "a", (1, 3));
    let worked = without_panic(|| {
        let claim = site.cleaner().claim_dirtiest(NOW).expect("one is due");
        assert_eq!(&*claim.chosen.partition.id.topic, "first");
        panic!("planted by a test");
    });
    assert_eq!(worked, None::<()>);
    assert_eq!(site.claimed(), ["second"]);
}
