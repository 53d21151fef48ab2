//! Configs that change during rounds.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    broker::cleaner::Thread,
    metadata::{Image, records::ConfigRecord},
    records::{Batch, BatchBuilder, BatchOptions},
};

const COMPACTED: [(&str, &str); 2] =
    [("cleanup.policy", "compact"), ("internal.segment.bytes", "500")];
const KEYS: u8 = 5;
/// The time within which a round must begin or end.
const LIMIT: Duration = Duration::from_secs(20);

fn of_key(key: u8) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, Some(&[key]), Some(&[key; 100]), &[]);
    builder.build()
}

/// Writes 30 records of five keys, about three in a segment.
fn write_keys(log: &mut Log) {
    for at in 0..30 {
        log.append(&mut [of_key(at % KEYS)], 0, NOW).expect("appends");
    }
    log.roll(log.log_end(), NOW).expect("rolls");
    assert!(log.view().segment_count() > 8);
}

fn offsets(partition: &Partition) -> Vec<i64> {
    let batches = partition.view().log.batches_from(0);
    batches.map(|batch| batch.expect("reads").header.base_offset).collect()
}

#[track_caller]
fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_true() {
        assert!(since.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Site {
    fn has_unfinished_files(&self) -> bool {
        let is_new = |path: &PathBuf| {
            [".cleaned", ".swap"].iter().any(|suffix| path.to_string_lossy().ends_with(suffix))
        };
        self.disk.paths().iter().any(is_new)
    }

    fn set_policy(&self, topic: &str, policy: &str) {
        let config = self.topic_config(&[("cleanup.policy", policy)]);
        let topics = &self.server.broker().replicas.partitions;
        topics.topic(topic).expect("is there").config.store(config);
    }

    /// Changes dynamic configs of all brokers.
    fn set_broker(&self, configs: &[(&str, &str)]) {
        let mut image = Image::default();
        for (name, value) in configs {
            let record = ConfigRecord {
                resource_type: 4,
                resource_name: String::new(),
                name: (*name).into(),
                value: Some((*value).into()),
            };
            image.apply(&record.into());
        }
        self.server.broker().reconfigure(&image);
    }

    /// Number of threads that do not rest.
    fn busy(&self) -> usize {
        *self.cleaner().busy.borrow()
    }
}

/// The policy changes while the first group of a round is written, and back after it.
#[tokio::test(flavor = "multi_thread")]
async fn policy_without_compaction_ends_a_round() {
    let site = Site::start().await;
    let partition = site.add_log("switched", "a", &COMPACTED, write_keys);
    let (_stop, stop) = watch::channel(false);
    let (_supersede, superseded) = watch::channel(false);
    let settings = site.cleaner().settings();
    let cleaner_thread = Thread { index: 0, settings, stop, superseded };
    let clean = || site.cleaner().clean_dirtiest(&cleaner_thread);
    site.disk.allow_syncs(Some(0));
    thread::scope(|scope| {
        let round = scope.spawn(clean);
        wait_until("the new segment is written", || site.disk.waiting_syncs() > 0);
        assert!(site.has_unfinished_files());
        site.set_policy("switched", "delete");
        site.disk.allow_syncs(None);
        assert!(!round.join().expect("does not panic"), "it is aborted");
    });
    assert!(!site.has_unfinished_files());
    assert_eq!(partition.view().log.replacements(), 1, "the first group");
    assert_eq!(partition.view().log.first_dirty(), None, "the round is not complete");
    let left = offsets(&partition);
    assert!(left.len() > 15 && left.contains(&29), "the others are left: {left:?}");
    // By then, the partition does not wait after the aborted round any more.
    let later = now_ms() + 10_000;
    assert!(site.cleaner().claim_dirtiest(later).is_none(), "the policy is delete");
    site.set_policy("switched", "compact");
    assert!(clean(), "it is compacted");
    assert_eq!(offsets(&partition), (25..30).collect::<Vec<_>>());
    assert_eq!(partition.view().log.first_dirty(), Some(30));
    assert_eq!(site.checkpoint("a"), [(partition.id.clone(), 30)]);
    assert!(!site.has_unfinished_files());
}

/// Two threads compact one log each, slowly. Each change aborts their rounds.
#[tokio::test(flavor = "multi_thread")]
async fn number_of_threads_changes_during_rounds() {
    let site = Site::start_with(&[
        ("log.cleaner.threads", "2"),
        ("log.cleaner.backoff.ms", "5"),
        ("log.cleaner.io.max.bytes.per.second", "50"),
    ])
    .await;
    let partitions =
        ["first", "second"].map(|name| site.add_log(name, "a", &COMPACTED, write_keys));
    tokio::task::block_in_place(|| {
        wait_until("two rounds", || site.busy() == 2);
        site.set_broker(&[("log.cleaner.threads", "1")]);
        wait_until("the rounds have ended", || site.busy() < 2);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(200) {
            assert!(site.busy() < 2, "no second thread");
            thread::sleep(Duration::from_millis(2));
        }
        wait_until("one round", || site.busy() == 1);
        site.set_broker(&[("log.cleaner.threads", "2")]);
        wait_until("two rounds again", || site.busy() == 2);
        assert!(partitions.iter().all(|it| it.view().log.first_dirty().is_none()));
        let fast = ("log.cleaner.io.max.bytes.per.second", "1000000000");
        site.set_broker(&[("log.cleaner.threads", "2"), fast]);
        wait_until("both logs are compacted", || {
            partitions.iter().all(|it| it.view().log.first_dirty() == Some(30))
        });
    });
    for partition in &partitions {
        assert_eq!(offsets(partition), (25..30).collect::<Vec<_>>());
    }
    assert_eq!(site.cleaner().stats.lock().dead_threads, 0);
    assert!(!site.has_unfinished_files());
}

/// A follower writes the checkpoints before it fetches again.
#[tokio::test(flavor = "multi_thread")]
async fn truncation_lowers_the_checkpointed_offset() {
    let site = Site::start().await;
    let partition = site.add("cut", "a", (3, 1));
    let other = site.add("other", "a", (2, 1));
    site.server.broker().replicas.write_checkpoints();
    let both = |cut| vec![(partition.id.clone(), cut), (other.id.clone(), 20)];
    assert_eq!(site.checkpoint("a"), both(30));
    partition.update(|core| {
        core.set_role(Role::Follower { epoch: 1, leader: 2 });
        core.log_mut().truncate_to(25, 0).expect("cuts");
    });
    site.server.broker().replicas.write_checkpoints();
    assert_eq!(site.checkpoint("a"), both(20));
}
