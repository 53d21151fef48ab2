//! Topic configs, and the broker keys with their defaults.

use super::{Key, keys};

keys! {
    TOPIC:

    "segment.bytes" Int "1073741824" (at_least 1048576) Medium ReadOnly Used
        "A segment is closed before it grows beyond this.";
    "segment.ms" Long "604800000" (at_least 1) Medium ReadOnly Used
        "A segment is closed at this age, full or not.";
    "segment.jitter.ms" Long "0" (at_least 0) Medium ReadOnly Used
        "The most by which the age of closing is brought forward, at random.";
    "segment.index.bytes" Int "10485760" (at_least 4) Medium ReadOnly Used
        "The largest offset index of a segment.";
    "flush.messages" Long "9223372036854775807" (at_least 1) Medium ReadOnly Used
        "Records after which the log is forced to disk.";
    "flush.ms" Long "9223372036854775807" (at_least 0) Medium ReadOnly Used
        "How long a record may wait before it is forced to disk.";
    "retention.bytes" Long "-1" any Medium ReadOnly Used
        "Old segments go while a partition is larger than this; -1 sets no bound.";
    "retention.ms" Long "604800000" (at_least -1) Medium ReadOnly Used
        "Records older than this are deleted; -1 keeps them for ever.";
    "max.message.bytes" Int "1048588" (at_least 0) Medium ReadOnly Used
        "The largest record batch that is taken, in bytes.";
    "index.interval.bytes" Int "4096" (at_least 0) Medium ReadOnly Used
        "Bytes of records between two entries of the offset index.";
    "delete.retention.ms" Long "86400000" (at_least 0) Medium ReadOnly Used
        "How long a tombstone stays in a compacted log.";
    "min.compaction.lag.ms" Long "0" (at_least 0) Medium ReadOnly Used
        "A record stays uncompacted at least this long.";
    "max.compaction.lag.ms" Long "9223372036854775807" (at_least 1) Medium ReadOnly Used
        "A record stays uncompacted at most this long.";
    "file.delete.delay.ms" Long "60000" (at_least 0) Medium ReadOnly Used
        "How long a deleted segment's files stay before they are removed.";
    "min.cleanable.dirty.ratio" Double "0.5" (between_decimals 0.0 1.0) Medium ReadOnly Used
        "The dirty part of the log above which it is compacted.";
    "cleanup.policy" List "delete" (list_of "compact" "delete") Medium ReadOnly Used
        "What becomes of old segments: delete, compact, or both.";
    "unclean.leader.election.enable" Boolean "false" any Medium ReadOnly Used
        "Whether a replica that is not in sync may lead when no other can.";
    "min.insync.replicas" Int "1" (at_least 1) Medium ReadOnly Used
        "Replicas that must hold a record before acks=all is answered.";
    "compression.type" String "producer"
        (one_of "uncompressed" "zstd" "lz4" "snappy" "gzip" "producer") Medium ReadOnly Used
        "How batches are stored; producer keeps what the producer chose.";
    "compression.gzip.level" Int "-1" gzip_level Medium ReadOnly Used
        "The effort of gzip, where the broker compresses.";
    "compression.lz4.level" Int "9" (between 1 17) Medium ReadOnly Used
        "The effort of lz4, where the broker compresses; the default 9 is its fast mode.";
    "compression.zstd.level" Int "3" (between -131072 22) Medium ReadOnly Used
        "The effort of zstd, where the broker compresses.";
    "preallocate" Boolean "false" any Medium ReadOnly Ignored
        "Whether a new segment's file gets its full size at once.";
    "message.timestamp.type" String "CreateTime"
        (one_of "CreateTime" "LogAppendTime") Medium ReadOnly Used
        "Whether a record keeps its producer's time or gets the broker's.";
    "message.timestamp.before.max.ms" Long "9223372036854775807" (at_least 0) Medium ReadOnly Used
        "How far in the past a record's timestamp may lie.";
    "message.timestamp.after.max.ms" Long "3600000" (at_least 0) Medium ReadOnly Used
        "How far in the future a record's timestamp may lie.";
    "leader.replication.throttled.replicas" List "" throttled_replicas Medium ReadOnly Used
        "Replicas (partition:broker, or *) whose leaders are throttled.";
    "follower.replication.throttled.replicas" List "" throttled_replicas Medium ReadOnly Used
        "Replicas (partition:broker, or *) whose followers are throttled.";
    "remote.storage.enable" Boolean "false" any Medium ReadOnly Ignored
        "Whether segments of the topic are tiered (KIP-405).";
    "local.retention.ms" Long "-2" (at_least -2) Medium ReadOnly Ignored
        "How long records stay on local disk when tiered; -2: retention.ms.";
    "local.retention.bytes" Long "-2" (at_least -2) Medium ReadOnly Ignored
        "What stays on local disk when tiered, in bytes; -2: retention.bytes.";
    "remote.log.copy.disable" Boolean "false" any Medium ReadOnly Ignored
        "Whether a tiered topic stops copying segments away.";
    "remote.log.delete.on.disable" Boolean "false" any Medium ReadOnly Ignored
        "Whether turning tiering off deletes what was tiered.";
    "internal.segment.bytes" Int null any Medium ReadOnly HiddenUsed
        "As segment.bytes, without its lower bound; for tests.";
}

/// How the value of a broker key becomes that of a topic config (`ConfigSynonym` of Kafka).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Convert {
    Same,
    HoursToMs,
    MinutesToMs,
}

/// For a topic config, the broker keys with its default. The first one that is set counts
/// (`ServerTopicConfigSynonyms` of Kafka).
pub static SYNONYMS: &[(&str, &[(&str, Convert)])] = &[
    ("segment.bytes", &[("log.segment.bytes", Convert::Same)]),
    ("segment.ms", &[("log.roll.ms", Convert::Same), ("log.roll.hours", Convert::HoursToMs)]),
    (
        "segment.jitter.ms",
        &[("log.roll.jitter.ms", Convert::Same), ("log.roll.jitter.hours", Convert::HoursToMs)],
    ),
    ("segment.index.bytes", &[("log.index.size.max.bytes", Convert::Same)]),
    ("flush.messages", &[("log.flush.interval.messages", Convert::Same)]),
    (
        "flush.ms",
        &[
            ("log.flush.interval.ms", Convert::Same),
            ("log.flush.scheduler.interval.ms", Convert::Same),
        ],
    ),
    ("retention.bytes", &[("log.retention.bytes", Convert::Same)]),
    (
        "retention.ms",
        &[
            ("log.retention.ms", Convert::Same),
            ("log.retention.minutes", Convert::MinutesToMs),
            ("log.retention.hours", Convert::HoursToMs),
        ],
    ),
    ("max.message.bytes", &[("message.max.bytes", Convert::Same)]),
    ("index.interval.bytes", &[("log.index.interval.bytes", Convert::Same)]),
    ("delete.retention.ms", &[("log.cleaner.delete.retention.ms", Convert::Same)]),
    ("min.compaction.lag.ms", &[("log.cleaner.min.compaction.lag.ms", Convert::Same)]),
    ("max.compaction.lag.ms", &[("log.cleaner.max.compaction.lag.ms", Convert::Same)]),
    ("file.delete.delay.ms", &[("log.segment.delete.delay.ms", Convert::Same)]),
    ("min.cleanable.dirty.ratio", &[("log.cleaner.min.cleanable.ratio", Convert::Same)]),
    ("cleanup.policy", &[("log.cleanup.policy", Convert::Same)]),
    ("unclean.leader.election.enable", &[("unclean.leader.election.enable", Convert::Same)]),
    ("min.insync.replicas", &[("min.insync.replicas", Convert::Same)]),
    ("compression.type", &[("compression.type", Convert::Same)]),
    ("compression.gzip.level", &[("compression.gzip.level", Convert::Same)]),
    ("compression.lz4.level", &[("compression.lz4.level", Convert::Same)]),
    ("compression.zstd.level", &[("compression.zstd.level", Convert::Same)]),
    ("preallocate", &[("log.preallocate", Convert::Same)]),
    ("message.timestamp.type", &[("log.message.timestamp.type", Convert::Same)]),
    ("message.timestamp.before.max.ms", &[("log.message.timestamp.before.max.ms", Convert::Same)]),
    ("message.timestamp.after.max.ms", &[("log.message.timestamp.after.max.ms", Convert::Same)]),
    ("local.retention.ms", &[("log.local.retention.ms", Convert::Same)]),
    ("local.retention.bytes", &[("log.local.retention.bytes", Convert::Same)]),
];
