//! Tiered storage (KIP-405). Accepted, but not used yet.

use super::{Key, keys};

keys! {
    REMOTE:

    "remote.log.storage.system.enable" Boolean "false" any Medium ReadOnly
        (protects "segments are not copied to remote storage")
        "Whether segments can be tiered to remote storage (KIP-405).";
    "remote.log.storage.manager.impl.prefix" String "rsm.config." non_empty Medium ReadOnly Ignored
        "Prefix of the settings for the remote storage manager.";
    "remote.log.metadata.manager.impl.prefix" String "rlmm.config."
        non_empty Medium ReadOnly Ignored
        "Prefix of the settings for the remote metadata manager.";
    "remote.log.storage.manager.class.name" String null non_empty Medium ReadOnly Ignored
        "The Java class of the remote storage manager.";
    "remote.log.storage.manager.class.path" String null any Medium ReadOnly Ignored
        "Where that class is.";
    "remote.log.metadata.manager.class.name" String
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"
        non_empty Medium ReadOnly Ignored
        "The Java class of the remote metadata manager.";
    "remote.log.metadata.manager.class.path" String null any Medium ReadOnly Ignored
        "Where that class is.";
    "remote.log.metadata.manager.listener.name" String null non_empty Medium ReadOnly Ignored
        "The listener by which the metadata manager reaches the brokers.";
    "remote.log.metadata.custom.metadata.max.bytes" Int "128" (at_least 0) Low ReadOnly Ignored
        "The most custom metadata kept per tiered segment.";
    "remote.log.index.file.cache.total.size.bytes" Long "1073741824"
        (at_least 1) Low ClusterWide Ignored
        "Disk space for the indexes of tiered segments.";
    "remote.log.index.file.cache.ttl.ms" Long "900000" (at_least -1) Low ReadOnly HiddenIgnored
        "How long such an index stays unused; -1 for ever.";
    "remote.log.manager.thread.pool.size" Int "2" (at_least 1) Medium ReadOnly Ignored
        "Threads of the remote log manager.";
    "remote.log.manager.copier.thread.pool.size" Int "10" (at_least 1) Medium ClusterWide Ignored
        "Threads that copy segments away.";
    "remote.log.manager.expiration.thread.pool.size" Int "10"
        (at_least 1) Medium ClusterWide Ignored
        "Threads that delete tiered segments.";
    "remote.log.manager.follower.thread.pool.size" Int "2" (at_least 1) Medium ClusterWide Ignored
        "Threads for the partitions that follow.";
    "remote.log.manager.task.interval.ms" Long "30000" (at_least 1) Low ReadOnly Ignored
        "How often segments to copy or delete are looked for.";
    "remote.log.manager.task.retry.backoff.ms" Long "500" (at_least 1) Low ReadOnly HiddenIgnored
        "The first rest after a failed copy.";
    "remote.log.manager.task.retry.backoff.max.ms" Long "30000" (at_least 1) Low ReadOnly HiddenIgnored
        "The longest rest after a failed copy.";
    "remote.log.manager.task.retry.jitter" Double "0.2"
        (between_decimals 0.0 0.5) Low ReadOnly HiddenIgnored
        "The random part of those rests.";
    "remote.log.reader.threads" Int "10" (at_least 1) Medium ClusterWide Ignored
        "Threads that read tiered segments.";
    "remote.log.reader.max.pending.tasks" Int "100" (at_least 1) Medium ReadOnly Ignored
        "The most reads of tiered segments that may wait.";
    "remote.log.manager.copy.max.bytes.per.second" Long "9223372036854775807"
        (at_least 1) Medium ClusterWide Ignored
        "The most bytes copied away in a second.";
    "remote.log.manager.copy.quota.window.num" Int "11" (at_least 1) Medium ReadOnly Ignored
        "Windows over which copying is measured.";
    "remote.log.manager.copy.quota.window.size.seconds" Int "1"
        (at_least 1) Medium ReadOnly Ignored
        "The length of such a window.";
    "remote.log.manager.fetch.max.bytes.per.second" Long "9223372036854775807"
        (at_least 1) Medium ClusterWide Ignored
        "The most bytes read from remote storage in a second.";
    "remote.log.manager.fetch.quota.window.num" Int "11" (at_least 1) Medium ReadOnly Ignored
        "Windows over which remote reading is measured.";
    "remote.log.manager.fetch.quota.window.size.seconds" Int "1"
        (at_least 1) Medium ReadOnly Ignored
        "The length of such a window.";
    "remote.fetch.max.wait.ms" Int "500" (at_least 1) Medium ClusterWide Ignored
        "The longest that a fetch waits for remote storage.";
    "remote.list.offsets.request.timeout.ms" Long "30000" (at_least 1) Medium ClusterWide Ignored
        "The longest that ListOffsets waits for remote storage.";
}
