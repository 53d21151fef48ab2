//! Producer ids, transactions, and the state of share groups.

use super::{Key, keys};

keys! {
    TRANSACTIONS:

    "transaction.state.log.min.isr" Int "2" (at_least 1) High ReadOnly Used
        "In-sync replicas that __transaction_state needs.";
    "transaction.state.log.load.buffer.size" Int "5242880" (at_least 1) High ReadOnly Ignored
        "Bytes read at a time when a coordinator loads its transactions.";
    "transaction.state.log.replication.factor" Short "3" (at_least 1) High ReadOnly Used
        "Replicas of __transaction_state when it is created.";
    "transaction.state.log.num.partitions" Int "50" (at_least 1) High ReadOnly Used
        "Partitions of __transaction_state when it is created.";
    "transaction.state.log.segment.bytes" Int "104857600" (at_least 1) High ReadOnly Used
        "Segment size of __transaction_state.";
    "transaction.partition.verification.enable" Boolean "true" any Low ClusterWide Used
        "Whether a partition asks the coordinator before it takes transactional records.";
    "producer.id.expiration.ms" Int "86400000" (at_least 1) Low ClusterWide Used
        "A producer id silent for this long is forgotten by its partitions.";
    "producer.id.expiration.check.interval.ms" Int "600000" (at_least 1) Low ReadOnly HiddenUsed
        "How often silent producer ids are looked for.";
    "transactional.id.expiration.ms" Int "604800000" (at_least 1) High ReadOnly Used
        "A transactional id unused for this long is forgotten.";
    "transaction.max.timeout.ms" Int "900000" (at_least 1) High ReadOnly Used
        "The longest transaction timeout that a producer may ask for.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms" Int "10000"
        (at_least 1) Low ReadOnly Used
        "How often overdue transactions are aborted.";
    "transaction.remove.expired.transaction.cleanup.interval.ms" Int "3600000"
        (at_least 1) Low ReadOnly Used
        "How often unused transactional ids are removed.";
    "transaction.two.phase.commit.enable" Boolean "false" any Low ReadOnly Ignored
        "Whether producers may take part in two-phase commits (KIP-939).";
    "add.partitions.to.txn.retry.backoff.max.ms" Int "100" (at_least 0) High ReadOnly Used
        "How long a partition may be tried to be added to a transaction on the server's side.";
    "add.partitions.to.txn.retry.backoff.ms" Int "20" (at_least 1) High ReadOnly Used
        "The rest between two such tries.";
    "share.coordinator.state.topic.num.partitions" Int "50" (at_least 1) High ReadOnly Ignored
        "Partitions of __share_group_state when it is created.";
    "share.coordinator.state.topic.replication.factor" Short "3" (at_least 1) High ReadOnly Ignored
        "Replicas of __share_group_state when it is created.";
    "share.coordinator.state.topic.min.isr" Short "2" (at_least 1) High ReadOnly Ignored
        "In-sync replicas that __share_group_state needs.";
    "share.coordinator.state.topic.segment.bytes" Int "104857600"
        (at_least 1) High ReadOnly Ignored
        "Segment size of __share_group_state.";
    "share.coordinator.threads" Int "1" (at_least 1) Medium ReadOnly Ignored
        "Threads that run the share coordinator.";
    "share.coordinator.snapshot.update.records.per.snapshot" Int "500"
        (between 0 500) Medium ReadOnly Ignored
        "Updates of share state between two snapshots.";
    "share.coordinator.load.buffer.size" Int "5242880" (at_least 1) High ReadOnly Ignored
        "Bytes read at a time when a share coordinator loads.";
    "share.coordinator.state.topic.compression.codec" Int "0" any High ReadOnly Ignored
        "Codec id of the share coordinator's batches.";
    "share.coordinator.append.linger.ms" Int "-1" (at_least -1) Medium ReadOnly Ignored
        "How long the share coordinator gathers writes; -1 adapts by itself.";
    "share.coordinator.write.timeout.ms" Int "5000" (at_least 1) High ReadOnly Ignored
        "How long a write of share state waits for its replicas.";
    "share.coordinator.state.topic.prune.interval.ms" Int "300000" (at_least 1) Low ReadOnly HiddenIgnored
        "How often old share state is removed.";
    "share.coordinator.cold.partition.snapshot.interval.ms" Int "300000"
        (at_least 1) Low ReadOnly HiddenIgnored
        "How often quiet share state is written as a snapshot.";
    "share.coordinator.cached.buffer.max.bytes" Int "1048588"
        (at_least 524288) Medium ClusterWide Ignored
        "The largest write buffer that the share coordinator keeps for the next write.";
}
