//! Group coordinators and the offsets topic.

use super::{Key, keys};

keys! {
    GROUPS:

    "group.coordinator.rebalance.protocols" List "classic,consumer,streams"
        (list_not_empty_of "consumer" "classic" "share" "streams") Medium ReadOnly
        (used_only "classic" "consumer")
        "The rebalance protocols that this broker's groups may use.";
    "group.coordinator.threads" Int "4" (at_least 1) High ReadOnly Ignored
        "Threads that run the group coordinator.";
    "group.coordinator.background.threads" Int "2" (at_least 1) High ReadOnly Ignored
        "Threads for the group coordinator's slow work.";
    "group.coordinator.append.linger.ms" Int "-1" (at_least -1) Medium ReadOnly Ignored
        "How long the coordinator gathers writes; -1 adapts by itself.";
    "group.coordinator.cached.buffer.max.bytes" Int "1048588"
        (at_least 524288) Medium ClusterWide Ignored
        "The largest write buffer that the group coordinator keeps for the next write.";
    "offsets.commit.timeout.ms" Int "5000" (at_least 1) High ReadOnly Used
        "How long an offset commit waits for its replicas.";
    "offsets.load.buffer.size" Int "5242880" (at_least 1) High ReadOnly Ignored
        "Bytes read at a time when a coordinator loads its groups.";
    "offsets.topic.replication.factor" Short "3" (at_least 1) High ReadOnly Used
        "Replicas of __consumer_offsets when it is created.";
    "offsets.topic.num.partitions" Int "50" (at_least 1) High ReadOnly Used
        "Partitions of __consumer_offsets when it is created.";
    "offsets.topic.segment.bytes" Int "104857600" (at_least 1) High ReadOnly Used
        "Segment size of __consumer_offsets.";
    "offsets.topic.compression.codec" Int "0" any High ReadOnly Ignored
        "Codec id of the coordinator's batches; 0 stores them plain.";
    "offset.metadata.max.bytes" Int "4096" any High ReadOnly Used
        "The longest note that may be kept with a committed offset.";
    "offsets.retention.minutes" Int "10080" (at_least 1) High ReadOnly Used
        "How long the offsets of an empty group are kept.";
    "offsets.retention.check.interval.ms" Long "600000" (at_least 1) High ReadOnly Used
        "How often expired offsets are looked for.";
    "group.min.session.timeout.ms" Int "6000" any Medium ReadOnly Used
        "The shortest session timeout that a classic member may ask for.";
    "group.max.session.timeout.ms" Int "1800000" any Medium ReadOnly Used
        "The longest session timeout that a classic member may ask for.";
    "group.initial.rebalance.delay.ms" Int "3000" any Medium ReadOnly Used
        "How long the first rebalance of an empty group waits for more members.";
    "group.max.size" Int "2147483647" (at_least 1) Medium ReadOnly Used
        "The most members of a classic group.";
    "group.consumer.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Used
        "Session timeout of consumer groups (KIP-848).";
    "group.consumer.min.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Used
        "The shortest session timeout that a consumer group may have.";
    "group.consumer.max.session.timeout.ms" Int "60000" (at_least 1) Medium ReadOnly Used
        "The longest session timeout that a consumer group may have.";
    "group.consumer.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Used
        "Heartbeat interval of consumer groups.";
    "group.consumer.min.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Used
        "The shortest heartbeat interval that a consumer group may have.";
    "group.consumer.max.heartbeat.interval.ms" Int "15000" (at_least 1) Medium ReadOnly Used
        "The longest heartbeat interval that a consumer group may have.";
    "group.consumer.max.size" Int "2147483647" (at_least 1) Medium ReadOnly Used
        "The most members of a consumer group.";
    "group.consumer.assignors" List "uniform,range" list_not_empty Medium ReadOnly Used
        "The assignors for consumer groups, the default first.";
    "group.consumer.migration.policy" String "bidirectional"
        (one_of_ignoring_case "DISABLED" "DOWNGRADE" "UPGRADE" "BIDIRECTIONAL") Medium ReadOnly Used
        "Which way groups may change between the classic and the consumer protocol.";
    "group.consumer.assignment.interval.ms" Int "1000" (at_least 0) Medium ClusterWide Used
        "The least time between two assignments of a consumer group.";
    "group.consumer.min.assignment.interval.ms" Int "0" (at_least 0) Medium ReadOnly Used
        "The shortest assignment interval that a consumer group may have.";
    "group.consumer.max.assignment.interval.ms" Int "15000" (at_least 0) Medium ReadOnly Used
        "The longest assignment interval that a consumer group may have.";
    "group.consumer.regex.refresh.interval.ms" Int "600000" (at_least 10000) Medium ReadOnly HiddenUsed
        "How often regular expressions of subscriptions are matched again.";
    "group.share.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "Session timeout of share groups (KIP-932).";
    "group.share.min.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "The shortest session timeout that a share group may have.";
    "group.share.max.session.timeout.ms" Int "60000" (at_least 1) Medium ReadOnly Ignored
        "The longest session timeout that a share group may have.";
    "group.share.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "Heartbeat interval of share groups.";
    "group.share.min.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "The shortest heartbeat interval that a share group may have.";
    "group.share.max.heartbeat.interval.ms" Int "15000" (at_least 1) Medium ReadOnly Ignored
        "The longest heartbeat interval that a share group may have.";
    "group.share.max.size" Int "200" (between 1 1000) Medium ReadOnly Ignored
        "The most members of a share group.";
    "group.share.assignors" List "simple" list_not_empty Medium ReadOnly Ignored
        "The assignors for share groups.";
    "group.share.assignment.interval.ms" Int "1000" (at_least 0) Medium ClusterWide Ignored
        "The least time between two assignments of a share group.";
    "group.share.min.assignment.interval.ms" Int "0" (at_least 0) Medium ReadOnly Ignored
        "The shortest assignment interval that a share group may have.";
    "group.share.max.assignment.interval.ms" Int "15000" (at_least 0) Medium ReadOnly Ignored
        "The longest assignment interval that a share group may have.";
    "group.share.initialize.retry.interval.ms" Int "30000" (at_least 1) Low ReadOnly HiddenIgnored
        "How long until the setting up of share state is tried again.";
    "group.share.delivery.count.limit" Int "5" (between 2 10) Medium ReadOnly Ignored
        "How often a record is delivered before it is given up.";
    "group.share.max.delivery.count.limit" Int "10" (between 5 25) Medium ReadOnly Ignored
        "The largest delivery limit that a share group may have.";
    "group.share.min.delivery.count.limit" Int "2" (between 2 5) Medium ReadOnly Ignored
        "The smallest delivery limit that a share group may have.";
    "group.share.record.lock.duration.ms" Int "30000"
        (between 1000 3600000) Medium ReadOnly Ignored
        "How long a consumer holds a delivered record.";
    "group.share.min.record.lock.duration.ms" Int "15000"
        (between 1000 30000) Medium ReadOnly Ignored
        "The shortest hold that a share group may have.";
    "group.share.max.record.lock.duration.ms" Int "60000"
        (between 30000 3600000) Medium ReadOnly Ignored
        "The longest hold that a share group may have.";
    "group.share.partition.max.record.locks" Int "2000" (between 100 10000) Medium ReadOnly Ignored
        "The most records of a partition held at once.";
    "group.share.max.partition.max.record.locks" Int "4000"
        (between 2000 10000) Medium ReadOnly Ignored
        "The largest number of held records that a share group may have.";
    "group.share.min.partition.max.record.locks" Int "100"
        (between 100 2000) Medium ReadOnly Ignored
        "The smallest number of held records that a share group may have.";
    "share.fetch.purgatory.purge.interval.requests" Int "1000" any Medium ReadOnly Ignored
        "Taken for compatibility; waiting share fetches are woken one by one.";
    "group.share.max.share.sessions" Int "2000" (at_least 1) Medium ReadOnly Ignored
        "The most share sessions that a broker remembers.";
    "group.share.persister.class.name" String
        "org.apache.kafka.server.share.persister.DefaultStatePersister" any Medium ReadOnly HiddenIgnored
        "A Java class that stores share state.";
    "group.streams.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "Session timeout of streams groups (KIP-1071).";
    "group.streams.min.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "The shortest session timeout that a streams group may have.";
    "group.streams.max.session.timeout.ms" Int "60000" (at_least 1) Medium ReadOnly Ignored
        "The longest session timeout that a streams group may have.";
    "group.streams.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "Heartbeat interval of streams groups.";
    "group.streams.min.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "The shortest heartbeat interval that a streams group may have.";
    "group.streams.max.heartbeat.interval.ms" Int "15000" (at_least 1) Medium ReadOnly Ignored
        "The longest heartbeat interval that a streams group may have.";
    "group.streams.max.size" Int "2147483647" (at_least 1) Medium ReadOnly Ignored
        "The most members of a streams group.";
    "group.streams.num.standby.replicas" Int "0" (at_least 0) Medium ReadOnly Ignored
        "Standby replicas of each streams task.";
    "group.streams.max.standby.replicas" Int "2" (at_least 0) Medium ReadOnly Ignored
        "The most standby replicas that a streams group may have.";
    "group.streams.initial.rebalance.delay.ms" Int "3000" (at_least 0) Medium ReadOnly Ignored
        "How long the first rebalance of a streams group waits for more members.";
    "group.streams.assignment.interval.ms" Int "1000" (at_least 0) Medium ClusterWide Ignored
        "The least time between two assignments of a streams group.";
    "group.streams.min.assignment.interval.ms" Int "0" (at_least 0) Medium ReadOnly Ignored
        "The shortest assignment interval that a streams group may have.";
    "group.streams.max.assignment.interval.ms" Int "15000" (at_least 0) Medium ReadOnly Ignored
        "The longest assignment interval that a streams group may have.";
}
