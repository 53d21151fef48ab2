//! A round of compaction on a cleaner thread (Kafka's `CleanerThread.cleanLog`).

use std::{ops::ControlFlow, sync::Arc};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Cleaner, Thread, choice::Claim, choice::is_out_of_service, stats::RoundStats};
use crate::{
    base::{
        config::CleanerSettings,
        environment::{new_uuid, now_ms, sleep_on_thread},
    },
    log::{
        DeletedSegment,
        clean::{CleanError, CleanOptions, Cleaned, Pace},
    },
};

/// The smallest buffer of a thread, in bytes, if `log.cleaner.io.buffer.size` is less.
const IO_BUFFER_MIN: usize = 4096;

impl Cleaner {
    /// Compacts the dirtiest log. Returns false if no log is due, or if the round could not be
    /// completed. The thread then rests.
    pub(super) fn clean_dirtiest(self: &Arc<Self>, thread: &Thread) -> bool {
        let now = now_ms();
        let Some(claim) = self.claim_dirtiest(now) else { return false };
        let partition = &claim.chosen.partition;
        let options = options(&thread.settings, claim.chosen.config.delete_retention_ms, now);
        let mut pace =
            RoundPace { cleaner: self, thread, claim: &claim, began: Instant::now(), mapped: None };
        let cleaned = partition.clean(claim.chosen.to_clean.range, &options, &mut pace);
        let (began, mapped) = (pace.began, pace.mapped);
        match cleaned {
            Ok(cleaned) => {
                self.replicas.write_first_dirty();
                self.report(thread, &claim, &cleaned, (began, mapped));
                // Without progress, another round would find the same.
                let has_progress = cleaned.end_offset > claim.chosen.to_clean.range.first_dirty;
                if !has_progress {
                    self.postpone(partition, now);
                }
                has_progress
            }
            Err(error) => {
                self.round_failed(thread, &claim, error, now);
                false
            }
        }
    }

    fn round_failed(
        self: &Arc<Self>,
        thread: &Thread,
        claim: &Claim,
        error: CleanError,
        now_ms: i64,
    ) {
        let partition = &claim.chosen.partition;
        match error {
            CleanError::Aborted => {
                info!(partition = %partition.id, "compaction aborted");
                if !thread.is_ended() {
                    self.postpone(partition, now_ms);
                }
            }
            CleanError::Uncleanable { .. } => self.give_up(partition, &error.to_string()),
            CleanError::Log(error) if error.is_disk_failure() => {
                self.replicas.on_log_error(partition, &error);
            }
            // For example a full disk. The partition stays online, because nothing is lost.
            CleanError::Log(error) => {
                warn!(partition = %partition.id, %error, "compaction failed, will be retried");
                self.postpone(partition, now_ms);
            }
        }
    }

    fn report(
        &self,
        thread: &Thread,
        claim: &Claim,
        cleaned: &Cleaned,
        (began, mapped): (Instant, Option<Instant>),
    ) {
        let (map, filter) = (cleaned.stats.map, cleaned.stats.filter);
        let duration = began.elapsed();
        let map_duration = mapped.map_or(duration, |mapped| mapped - began);
        let seconds = duration.as_secs_f64().max(0.001);
        let percent_less = |kept: u64, read: u64| match read {
            0 => 0.0,
            read => 100.0 * (1.0 - kept as f64 / read as f64),
        };
        info!(
            partition = %claim.chosen.partition.id,
            thread = thread.index,
            first_dirty = claim.chosen.to_clean.range.first_dirty,
            end = cleaned.end_offset,
            seconds = format_args!("{seconds:.3}"),
            bytes_per_second = (filter.bytes_read as f64 / seconds) as u64,
            mapped_bytes = map.bytes_read,
            map_seconds = format_args!("{:.3}", map_duration.as_secs_f64()),
            buffer_utilization_percent = format_args!("{:.1}", 100.0 * cleaned.stats.map_utilization),
            bytes_read = filter.bytes_read,
            bytes_kept = filter.bytes_kept,
            messages_read = filter.messages_read,
            messages_kept = filter.messages_kept,
            size_reduction_percent =
                format_args!("{:.1}", percent_less(filter.bytes_kept, filter.bytes_read)),
            message_reduction_percent =
                format_args!("{:.1}", percent_less(filter.messages_kept, filter.messages_read)),
            "log compacted"
        );
        if filter.invalid_messages > 0 {
            warn!(
                partition = %claim.chosen.partition.id, messages = filter.invalid_messages,
                "compaction has dropped records without a key"
            );
        }
        let round = RoundStats {
            map_utilization: cleaned.stats.map_utilization,
            bytes_read: filter.bytes_read,
            bytes_kept: filter.bytes_kept,
            duration,
            compaction_delay_ms: claim.compaction_delay_ms,
        };
        self.stats.lock().note_round(thread.index, round);
    }
}

/// The options of a round on one of the threads, which share the buffers.
fn options(settings: &CleanerSettings, delete_retention_ms: i64, now_ms: i64) -> CleanOptions {
    let threads = settings.log_cleaner_threads.max(1);
    let map_bytes = settings.log_cleaner_dedupe_buffer_size / i64::from(threads);
    // A buffer for reads and one for writes.
    let io_buffer_bytes = settings.log_cleaner_io_buffer_size / threads / 2;
    CleanOptions {
        map_bytes: usize::try_from(map_bytes).unwrap_or(0),
        load_factor: settings.log_cleaner_io_buffer_load_factor,
        io_buffer_bytes: usize::try_from(io_buffer_bytes).unwrap_or(0).max(IO_BUFFER_MIN),
        hash_key: new_uuid().into_bytes(),
        now_ms,
        delete_retention_ms,
    }
}

/// Throttles a round, and ends it if the thread stops or the log must not be compacted any more.
struct RoundPace<'a> {
    cleaner: &'a Arc<Cleaner>,
    thread: &'a Thread,
    claim: &'a Claim,
    began: Instant,
    mapped: Option<Instant>,
}

impl RoundPace<'_> {
    fn is_over(&self) -> bool {
        let chosen = &self.claim.chosen;
        self.thread.is_ended()
            || is_out_of_service(&chosen.partition)
            || !chosen.topic.config.load().cleanup_policy.compact
    }
}

impl Pace for RoundPace<'_> {
    fn passed(&mut self, bytes: u64) -> ControlFlow<()> {
        let rate = self.thread.settings.log_cleaner_io_max_bytes_per_second;
        let mut pause = self.cleaner.throttle.lock().note(bytes, rate, Instant::now());
        loop {
            if self.is_over() {
                return ControlFlow::Break(());
            }
            if pause.is_zero() {
                return ControlFlow::Continue(());
            }
            let part = pause.min(super::LOOK_EVERY);
            sleep_on_thread(part);
            pause -= part;
        }
    }

    fn mapped(&mut self) {
        self.mapped = Some(Instant::now());
    }

    fn replaced(&mut self, old: Vec<DeletedSegment>) {
        self.cleaner.replicas.remove_later(&self.claim.chosen.partition, old);
    }
}
