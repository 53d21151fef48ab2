//! The choice of the log that a cleaner thread compacts next (Kafka's `LogCleanerManager`), with
//! the partitions that are being compacted and those that cannot be.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use tracing::{error, warn};

use super::Cleaner;
use crate::{
    base::TopicPartition,
    log::{LogConfig, ReadError, clean::LogToClean},
    partition::{Partition, Topic, View},
};

/// How long a partition waits after a round that failed, for example because the disk is full.
/// Otherwise, the dirtiest partition would keep the threads from all others.
const RETRY_AFTER_MS: i64 = 10_000;

/// Partitions that no thread may choose.
#[derive(Default)]
pub struct Taken {
    being_cleaned: HashSet<TopicPartition>,
    /// Until when partitions wait after a failed round, in milliseconds.
    postponed: HashMap<TopicPartition, i64>,
    uncleanable: HashMap<TopicPartition, Uncleanable>,
}

/// A partition whose round has found something that compaction does not understand. It is left
/// alone until the next start.
struct Uncleanable {
    /// A later topic of the same name has another partition.
    partition: Weak<Partition>,
    /// The dirty bytes when a thread last looked.
    dirty_bytes: u64,
}

impl Taken {
    fn is_uncleanable(&self, partition: &Arc<Partition>) -> bool {
        let entry = self.uncleanable.get(&partition.id);
        entry.is_some_and(|entry| std::ptr::eq(entry.partition.as_ptr(), &raw const **partition))
    }
}

/// A log that may be compacted.
pub struct Candidate {
    pub topic: Arc<Topic>,
    pub partition: Arc<Partition>,
    pub config: Arc<LogConfig>,
    pub to_clean: LogToClean,
}

/// The chosen log. No other thread chooses it until this is dropped.
pub struct Claim {
    pub chosen: Candidate,
    /// The largest delay of all logs, when this one was chosen.
    pub compaction_delay_ms: i64,
    cleaner: Arc<Cleaner>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Otherwise, one thread after the other would panic in the same log.
        if std::thread::panicking() {
            self.cleaner.give_up(&self.chosen.partition, "a cleaner thread panicked");
        }
        self.cleaner.taken.lock().being_cleaned.remove(&self.chosen.partition.id);
    }
}

impl Cleaner {
    /// Chooses the dirtiest of the logs for which a round is due. `None` if there is none.
    pub(super) fn claim_dirtiest(self: &Arc<Self>, now_ms: i64) -> Option<Claim> {
        let _choosing = self.choosing.lock();
        self.stats.lock().last_run_ms = now_ms;
        // The clock may have been set back.
        let is_later = |until: i64| (1..=RETRY_AFTER_MS).contains(&until.saturating_sub(now_ms));
        self.taken.lock().postponed.retain(|_, until| is_later(*until));
        let candidates = self.candidates(now_ms);
        let delays = candidates.iter().map(|it| it.to_clean.delay_ms);
        let compaction_delay_ms = delays.max().unwrap_or(0);
        let ratios = candidates.iter().map(|it| it.to_clean.ratio());
        self.stats.lock().max_dirty_ratio = ratios.fold(0.0, f64::max);
        let mut due = candidates;
        due.retain(|it| it.to_clean.is_due(&it.config));
        due.sort_by(|a, b| b.to_clean.ratio().total_cmp(&a.to_clean.ratio()));
        let chosen = due.into_iter().next()?;
        self.taken.lock().being_cleaned.insert(chosen.partition.id.clone());
        Some(Claim { chosen, compaction_delay_ms, cleaner: Arc::clone(self) })
    }

    /// Looks at all compacted logs. Replaces checkpoints that are outside of their logs.
    fn candidates(&self, now_ms: i64) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut uncleanable = HashMap::new();
        let mut has_reset = false;
        for topic in self.replicas.partitions.topics() {
            if !topic.config.load().cleanup_policy.compact {
                continue;
            }
            for partition in topic.partitions() {
                if is_out_of_service(&partition) || self.is_taken(&partition) {
                    continue;
                }
                let config = partition.with_log(|log| Arc::clone(log.config()));
                let view = partition.view();
                let looked = LogToClean::of(&view.log, &config, view.last_stable_offset, now_ms);
                match looked {
                    Ok(to_clean) if self.taken.lock().is_uncleanable(&partition) => {
                        uncleanable.insert(partition.id.clone(), to_clean.dirty_bytes);
                    }
                    Ok(to_clean) => {
                        has_reset |= reset_invalid(&partition, &config, &to_clean);
                        let topic = Arc::clone(&topic);
                        candidates.push(Candidate { topic, partition, config, to_clean });
                    }
                    Err(error) => self.look_failed(&partition, &view, error),
                }
            }
        }
        if has_reset {
            self.replicas.write_first_dirty();
        }
        self.keep_uncleanable(&uncleanable);
        candidates
    }

    fn is_taken(&self, partition: &Partition) -> bool {
        let taken = self.taken.lock();
        taken.being_cleaned.contains(&partition.id) || taken.postponed.contains_key(&partition.id)
    }

    /// Lets other logs go first for a while.
    pub(super) fn postpone(&self, partition: &Partition, now_ms: i64) {
        let until = now_ms.saturating_add(RETRY_AFTER_MS);
        self.taken.lock().postponed.insert(partition.id.clone(), until);
    }

    fn look_failed(&self, partition: &Arc<Partition>, view: &View, error: ReadError) {
        match error {
            ReadError::Corrupt { .. } | ReadError::Records { .. } => {
                self.give_up(partition, &error.to_string());
            }
            // The log was truncated meanwhile, or the failure is the disk's.
            ReadError::Io { .. } | ReadError::OffsetOutOfRange { .. } => {
                partition.read_failed(view, error);
            }
        }
    }

    /// Leaves a partition alone until the next start.
    pub(super) fn give_up(&self, partition: &Arc<Partition>, reason: &str) {
        let entry = Uncleanable { partition: Arc::downgrade(partition), dirty_bytes: 0 };
        if !self.taken.lock().is_uncleanable(partition) {
            error!(
                partition = %partition.id, reason,
                "log cannot be compacted, leaving it as it is until the next start"
            );
        }
        self.taken.lock().uncleanable.insert(partition.id.clone(), entry);
    }

    /// Updates the dirty bytes of uncleanable partitions, and forgets deleted ones.
    fn keep_uncleanable(&self, dirty_bytes: &HashMap<TopicPartition, u64>) {
        self.taken.lock().uncleanable.retain(|id, entry| {
            if let Some(bytes) = dirty_bytes.get(id) {
                entry.dirty_bytes = *bytes;
            }
            let served = self.replicas.partitions.get(&id.topic, id.partition);
            served.is_ok_and(|served| std::ptr::eq(entry.partition.as_ptr(), &raw const *served))
        });
    }

    /// For each log directory, the number and the dirty bytes of uncleanable partitions.
    pub(super) fn uncleanable_by_dir(&self) -> Vec<(String, usize, u64)> {
        let found: Vec<_> = {
            let taken = self.taken.lock();
            let entries = taken.uncleanable.values();
            entries
                .filter_map(|it| Some((it.partition.upgrade()?.log_dir(), it.dirty_bytes)))
                .collect()
        };
        let dirs = self.replicas.lock_dirs();
        let counts = dirs.dirs().iter().map(|dir| {
            let here = || found.iter().filter(|(path, _)| ***path == dir.path);
            let bytes = here().map(|(_, bytes)| bytes).sum();
            (dir.path.display().to_string(), here().count(), bytes)
        });
        counts.collect()
    }
}

/// Whether the partition's log must not be compacted now: it is offline or closed, or it moves to
/// another log directory.
pub(super) fn is_out_of_service(partition: &Partition) -> bool {
    partition.view().role.is_final() || partition.future_view().is_some()
}

/// Replaces a first dirty offset that lies outside of the log. Returns whether it did.
fn reset_invalid(partition: &Partition, config: &LogConfig, to_clean: &LogToClean) -> bool {
    let Some(checkpoint) = to_clean.invalid_checkpoint else { return false };
    let first_dirty = to_clean.range.first_dirty;
    // With both policies, retention often moves the log start past the offset.
    if !config.delete || checkpoint > first_dirty {
        warn!(
            partition = %partition.id, checkpoint, first_dirty,
            "checkpointed first dirty offset is outside of the log, compacting from the log start"
        );
    }
    partition.update(|core| core.log_mut().set_first_dirty(first_dirty));
    true
}
