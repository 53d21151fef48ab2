//! Replication, leadership and quotas.

use super::{Key, keys};

keys! {
    REPLICATION:

    "replica.lag.time.max.ms" Long "30000" any High ReadOnly Used
        "A follower this far behind leaves the in-sync replicas.";
    "replica.socket.timeout.ms" Int "30000" any High ReadOnly Used
        "Socket timeout of a follower's fetches.";
    "replica.socket.receive.buffer.bytes" Int "65536" any High ReadOnly Ignored
        "The kernel's receive buffer of a follower's connection.";
    "replica.fetch.max.bytes" Int "1048576" (at_least 0) Medium ReadOnly Used
        "The most bytes that a follower asks for per partition.";
    "replica.fetch.wait.max.ms" Int "500" any High ReadOnly Used
        "The longest that a follower's fetch waits at its leader.";
    "replica.fetch.backoff.ms" Int "1000" (at_least 0) Medium ReadOnly Used
        "How long a follower rests after a failed fetch.";
    "replica.fetch.min.bytes" Int "1" any High ReadOnly Used
        "The fewest bytes that a follower's fetch waits for.";
    "replica.fetch.response.max.bytes" Int "10485760" (at_least 0) Medium ReadOnly Used
        "The most bytes that a follower asks for in all.";
    "num.replica.fetchers" Int "1" (at_least 1) High ClusterWide Used
        "Connections over which a broker follows each other broker.";
    "replica.high.watermark.checkpoint.interval.ms" Long "5000" any High ReadOnly Used
        "How often the high watermarks are written down.";
    "replica.selector.class" String null any Medium ReadOnly
        (used_only "org.apache.kafka.common.replica.RackAwareReplicaSelector")
        "A Java class that chooses the replica to read from.";
    "auto.leader.rebalance.enable" Boolean "true" any High ReadOnly Used
        "Whether leadership returns to the preferred replicas by itself.";
    "leader.imbalance.check.interval.seconds" Long "300" (at_least 1) High ReadOnly Used
        "How often the balance of leaders is looked at.";
    "unclean.leader.election.interval.ms" Long "300000" (at_least 1) Medium ReadOnly HiddenUsed
        "How often unclean elections are looked for.";
    "unclean.leader.election.enable" Boolean "false" any High ClusterWide Used
        "Whether a replica that is not in sync may lead when no other can.";
    "follower.fetch.last.tiered.offset.enable" Boolean "false" any Medium ClusterWide Ignored
        "Whether an empty follower starts at the last tiered offset.";
    "quota.window.num" Int "11" (at_least 1) Low ReadOnly Ignored
        "Windows over which client quotas are measured.";
    "replication.quota.window.num" Int "11" (at_least 1) Low ReadOnly Ignored
        "Windows over which replication quotas are measured.";
    "alter.log.dirs.replication.quota.window.num" Int "11" (at_least 1) Low ReadOnly Ignored
        "Windows over which directory moves are measured.";
    "controller.quota.window.num" Int "11" (at_least 1) Low ReadOnly Ignored
        "Windows over which topic changes are measured.";
    "quota.window.size.seconds" Int "1" (at_least 1) Low ReadOnly Ignored
        "The length of a window of client quotas.";
    "replication.quota.window.size.seconds" Int "1" (at_least 1) Low ReadOnly Ignored
        "The length of a window of replication quotas.";
    "alter.log.dirs.replication.quota.window.size.seconds" Int "1"
        (at_least 1) Low ReadOnly Ignored
        "The length of a window of directory moves.";
    "controller.quota.window.size.seconds" Int "1" (at_least 1) Low ReadOnly Ignored
        "The length of a window of topic changes.";
    "client.quota.callback.class" Class null any Low ReadOnly
        (protects "there is no JVM to load the callback into, so it sets no quota")
        "A Java class that decides quotas; there is no JVM to load it into.";
    "leader.replication.throttled.rate" Long null (at_least 0) Medium ClusterWide HiddenUsed
        "The most bytes a second that leaders send for throttled replicas.";
    "follower.replication.throttled.rate" Long null (at_least 0) Medium ClusterWide HiddenUsed
        "The most bytes a second that followers take for throttled replicas.";
    "replica.alter.log.dirs.io.max.bytes.per.second" Long null
        (at_least 0) Medium ClusterWide HiddenUsed
        "The most bytes a second that moving replicas between directories uses.";
}
