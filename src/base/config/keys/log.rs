//! Logs on disk: segments, retention, flushing, recovery, compaction.

use super::{Key, keys};

keys! {
    LOG:

    "log.dir" List "/tmp/kafka-logs" list_not_empty High ReadOnly Used
        "A data directory, where log.dirs is not set.";
    "log.dirs" List null list_not_empty High ReadOnly Used
        "The data directories, separated by commas.";
    "cordoned.log.dirs" List "" list Medium PerBroker Used
        "Data directories that get no new partitions (KIP-1066).";
    "log.segment.bytes" Int "1073741824" (at_least 1048576) High ClusterWide Used
        "A segment of a log is closed before it grows beyond this.";
    "log.roll.ms" Long null any High ClusterWide Used
        "A segment is closed at this age, in milliseconds.";
    "log.roll.hours" Int "168" (at_least 1) High ReadOnly Used
        "A segment is closed at this age, in hours, unless log.roll.ms is set.";
    "log.roll.jitter.ms" Long null any High ClusterWide Used
        "The most by which the age of closing is brought forward, in milliseconds.";
    "log.roll.jitter.hours" Int "0" (at_least 0) High ReadOnly Used
        "The most by which the age of closing is brought forward, in hours.";
    "log.retention.ms" Long null any High ClusterWide Used
        "Records older than this are deleted; -1 keeps them for ever.";
    "log.retention.minutes" Int null any High ReadOnly Used
        "As log.retention.ms, in minutes, where that is not set.";
    "log.retention.hours" Int "168" any High ReadOnly Used
        "As log.retention.minutes, in hours, where that is not set.";
    "log.retention.bytes" Long "-1" any High ClusterWide Used
        "Old segments go while a partition is larger than this; -1 sets no bound.";
    "log.retention.check.interval.ms" Long "300000" (at_least 1) Medium ReadOnly Used
        "How often logs are searched for segments to delete.";
    "log.cleanup.policy" List "delete" (list_of "compact" "delete") Medium ClusterWide Used
        "What becomes of old segments: delete, compact, or both.";
    "log.index.size.max.bytes" Int "10485760" (at_least 4) Medium ClusterWide Used
        "The largest offset index of a segment.";
    "log.index.interval.bytes" Int "4096" (at_least 0) Medium ClusterWide Used
        "Bytes of records between two entries of the offset index.";
    "log.flush.interval.messages" Long "9223372036854775807" (at_least 1) High ClusterWide Used
        "Records after which a log is forced to disk.";
    "log.flush.interval.ms" Long null any High ClusterWide Used
        "How long a record may wait before it is forced to disk.";
    "log.flush.scheduler.interval.ms" Long "9223372036854775807" any High ReadOnly Used
        "How often logs are searched for some that must be forced to disk.";
    "log.flush.offset.checkpoint.interval.ms" Int "60000" (at_least 0) High ReadOnly Used
        "How often the recovery points are written down.";
    "log.flush.start.offset.checkpoint.interval.ms" Int "60000" (at_least 0) High ReadOnly Ignored
        "How often the log start offsets are written down.";
    "log.segment.delete.delay.ms" Long "60000" (at_least 0) High ClusterWide Used
        "How long a deleted segment's files stay before they are removed.";
    "log.preallocate" Boolean "false" any Medium ClusterWide Ignored
        "Whether a new segment's file gets its full size at once.";
    "log.message.timestamp.type" String "CreateTime"
        (one_of "CreateTime" "LogAppendTime") Medium ClusterWide Used
        "Whether a record keeps its producer's time or gets the broker's.";
    "log.message.timestamp.before.max.ms" Long "9223372036854775807"
        (at_least 0) Medium ClusterWide Used
        "How far in the past a record's timestamp may lie.";
    "log.message.timestamp.after.max.ms" Long "3600000" (at_least 0) Medium ClusterWide Used
        "How far in the future a record's timestamp may lie.";
    "log.dir.failure.timeout.ms" Long "30000" (at_least 1) Low ReadOnly Ignored
        "How long a broker stays up with a failed directory it cannot report.";
    "log.initial.task.delay.ms" Long "30000" (at_least 0) Low ReadOnly HiddenUsed
        "How long after the start the periodic log work first runs.";
    "log.local.retention.ms" Long "-2" (at_least -2) Medium ClusterWide Ignored
        "How long records stay on local disk when they are tiered; -2: log.retention.ms.";
    "log.local.retention.bytes" Long "-2" (at_least -2) Medium ClusterWide Ignored
        "What stays on local disk when tiered, in bytes; -2: log.retention.bytes.";
    "num.recovery.threads.per.data.dir" Int "2" (at_least 1) High ClusterWide Used
        "Threads per data directory that recover logs at start and flush them at stop.";
    "num.replica.alter.log.dirs.threads" Int null any High ReadOnly Used
        "Threads that move replicas between directories.";
    "log.cleaner.threads" Int "1" (at_least 0) Medium ClusterWide Used
        "Threads that compact logs.";
    "log.cleaner.io.max.bytes.per.second" Double "1.7976931348623157E308"
        any Medium ClusterWide Used
        "The most bytes that compaction reads and writes in a second.";
    "log.cleaner.dedupe.buffer.size" Long "134217728" any Medium ClusterWide Used
        "Memory for the keys of compaction, all threads together.";
    "log.cleaner.io.buffer.size" Int "524288" (at_least 0) Medium ClusterWide Used
        "Memory for the buffers of compaction, all threads together.";
    "log.cleaner.io.buffer.load.factor" Double "0.9" any Medium ClusterWide Used
        "How full the key buffer may get.";
    "log.cleaner.backoff.ms" Long "15000" (at_least 0) Medium ClusterWide Used
        "How long compaction rests when nothing needs it.";
    "log.cleaner.min.cleanable.ratio" Double "0.5"
        (between_decimals 0.0 1.0) Medium ClusterWide Used
        "The dirty part of a log above which it is compacted.";
    "log.cleaner.enable" Boolean "true" any Medium ReadOnly Used
        "Whether logs are compacted at all (deprecated).";
    "log.cleaner.delete.retention.ms" Long "86400000" (at_least 0) Medium ClusterWide Used
        "How long a tombstone stays in a compacted log.";
    "log.cleaner.min.compaction.lag.ms" Long "0" (at_least 0) Medium ClusterWide Used
        "A record stays uncompacted at least this long.";
    "log.cleaner.max.compaction.lag.ms" Long "9223372036854775807"
        (at_least 1) Medium ClusterWide Used
        "A record stays uncompacted at most this long.";
}
