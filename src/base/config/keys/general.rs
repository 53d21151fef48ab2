//! The broker as a whole: its ids, defaults of topics, and limits of responses.

use super::{Key, keys};

keys! {
    GENERAL:

    "broker.id" Int "-1" any High ReadOnly Used
        "The old name of node.id; -1 means that node.id decides.";
    "node.id" Int required (at_least 0) High ReadOnly Used
        "The id of this node, unique in the cluster.";
    "process.roles" List required (list_not_empty_of "broker" "controller") High ReadOnly Used
        "What this process is: broker, controller, or both.";
    "broker.rack" String null any Medium ReadOnly Used
        "Where this broker stands; replicas and nearby reads are placed by it.";
    "message.max.bytes" Int "1048588" (at_least 0) High ClusterWide Used
        "The largest record batch that a topic without its own limit takes, in bytes.";
    "num.io.threads" Int "8" (at_least 1) High ClusterWide Ignored
        "Worker threads that serve requests.";
    "background.threads" Int "10" (at_least 1) High ClusterWide Used
        "Flushes of partitions at a time that no producer waits for.";
    "request.timeout.ms" Int "30000" any High ReadOnly Used
        "How long this broker waits for the answer to its own requests.";
    "controlled.shutdown.enable" Boolean "true" any Medium ReadOnly Used
        "Whether leadership is handed over before the process stops.";
    "delete.topic.enable" Boolean "true" any High ReadOnly Used
        "Whether topics can be deleted.";
    "auto.create.topics.enable" Boolean "true" any High ReadOnly Used
        "Whether a topic comes into being when a client first asks for it.";
    "num.partitions" Int "1" (at_least 1) Medium ReadOnly Used
        "Partitions of a new topic whose creator does not say how many.";
    "default.replication.factor" Int "1" any Medium ReadOnly Used
        "Replicas of a new topic whose creator does not say how many.";
    "min.insync.replicas" Int "1" (at_least 1) High ClusterWide Used
        "Replicas that must hold a record before acks=all is answered.";
    "compression.type" String "producer"
        (one_of "uncompressed" "zstd" "lz4" "snappy" "gzip" "producer") High ClusterWide Used
        "How topics store batches; producer keeps what the producer chose.";
    "compression.gzip.level" Int "-1" gzip_level Medium ClusterWide Used
        "The effort of gzip, where the broker compresses.";
    "compression.lz4.level" Int "9" (between 1 17) Medium ClusterWide Used
        "The effort of lz4, where the broker compresses; the default 9 is its fast mode.";
    "compression.zstd.level" Int "3" (between -131072 22) Medium ClusterWide Used
        "The effort of zstd, where the broker compresses.";
    "max.incremental.fetch.session.cache.slots" Int "1000" (at_least 0) Medium ReadOnly Used
        "How many incremental fetch sessions (KIP-227) are remembered.";
    "fetch.max.bytes" Int "57671680" (at_least 1024) Medium ReadOnly Used
        "The most bytes that one fetch answer carries, whatever the client asks for.";
    "max.request.partition.size.limit" Int "2000" (at_least 1) Medium ReadOnly Used
        "The most partitions that one DescribeTopicPartitions answer lists.";
    "unstable.api.versions.enable" Boolean "false" any High ReadOnly HiddenUsed
        "Whether a producer must begin with sequence 0 in a partition that never had a record, \
        as in Kafka 4.5 (KAFKA-15591). Sordini has no unstable versions of APIs to advertise.";
    "unstable.feature.versions.enable" Boolean "false" any High ReadOnly HiddenIgnored
        "Whether feature levels still under development may be used.";
    "create.topic.policy.class.name" Class null any Low ReadOnly
        (protects "there is no JVM to load the policy into, so no topic is refused by it")
        "A Java class that judges new topics; there is no JVM to load it into.";
    "alter.config.policy.class.name" Class null any Low ReadOnly
        (protects "there is no JVM to load the policy into, so no config is refused by it")
        "A Java class that judges config changes; there is no JVM to load it into.";
    "config.providers" List "" list Low ClusterWide Used
        "Names of providers that fill in values written as ${provider:path:key}.";
    "fetch.purgatory.purge.interval.requests" Int "1000" any Medium ReadOnly Ignored
        "Taken for compatibility; waiting fetches are woken one by one.";
    "producer.purgatory.purge.interval.requests" Int "1000" any Medium ReadOnly Ignored
        "Taken for compatibility; waiting produces are woken one by one.";
    "delete.records.purgatory.purge.interval.requests" Int "1" any Medium ReadOnly Ignored
        "Taken for compatibility; waiting DeleteRecords are woken one by one.";
    "server.max.startup.time.ms" Long "9223372036854775807" (at_least 0) Medium ReadOnly HiddenIgnored
        "How long a start may take before it is given up.";
}
