//! The metadata quorum and its log (KRaft).

use super::{Key, keys};

keys! {
    METADATA:

    "initial.broker.registration.timeout.ms" Int "60000" any Medium ReadOnly Used
        "How long a starting broker tries to register.";
    "broker.heartbeat.interval.ms" Int "2000" any Medium ReadOnly Used
        "How often a broker tells the controller that it lives.";
    "broker.session.timeout.ms" Int "9000" any Medium ReadOnly Used
        "A broker silent for this long is fenced.";
    "controller.listener.names" List required list_not_empty High ReadOnly Used
        "Names of the listeners that belong to the controller.";
    "sasl.mechanism.controller.protocol" String "GSSAPI" any High ReadOnly
        (protects "there is no SASL, so controllers do not authenticate")
        "The SASL mechanism towards controllers.";
    "controller.performance.sample.period.ms" Long "60000" (at_least 100) Medium ReadOnly HiddenIgnored
        "How often the controller reports slow events.";
    "controller.performance.always.log.threshold.ms" Long "2000" (at_least 0) Medium ReadOnly HiddenIgnored
        "An event of the controller slower than this is always logged.";
    "metadata.log.max.record.bytes.between.snapshots" Long "20971520"
        (at_least 1) High ReadOnly Ignored
        "Bytes of metadata records between two snapshots.";
    "metadata.log.max.snapshot.interval.ms" Long "3600000" (at_least 0) High ReadOnly Ignored
        "The longest time between two snapshots of changed metadata.";
    "metadata.log.dir" String null any High ReadOnly Used
        "The directory of the metadata log; the first of log.dirs if not set.";
    "metadata.log.segment.bytes" Int "1073741824" (at_least 8388608) High ReadOnly Ignored
        "Segment size of the metadata log.";
    "metadata.log.segment.ms" Long "604800000" any High ReadOnly Ignored
        "The age at which a segment of the metadata log is closed.";
    "metadata.max.retention.bytes" Long "104857600" any High ReadOnly Ignored
        "The most bytes of metadata log and snapshots before old ones go.";
    "metadata.max.retention.ms" Long "604800000" any High ReadOnly Ignored
        "The age at which metadata log and snapshots go.";
    "metadata.max.idle.interval.ms" Int "500" (at_least 0) Low ReadOnly Ignored
        "How often an idle controller writes a no-op record; 0 never.";
    "internal.metadata.log.segment.bytes" Int null any Low ReadOnly HiddenIgnored
        "Segment size of the metadata log, without its lower bound.";
    "internal.metadata.max.batch.size.in.bytes" Int "8388608" any Low ReadOnly HiddenIgnored
        "The largest batch of the metadata log.";
    "internal.metadata.delete.delay.millis" Long "60000" any Low ReadOnly HiddenIgnored
        "How long deleted files of the metadata log stay.";
    "controller.quorum.voters" List "" voters High ReadOnly Used
        "The voters of a fixed quorum: id@host:port, separated by commas.";
    "controller.quorum.bootstrap.servers" List "" bootstrap_servers High ReadOnly Used
        "Where a node first asks for the quorum.";
    "controller.quorum.election.timeout.ms" Int "1000" (at_least 0) High ReadOnly Used
        "How long a voter waits for a leader before it stands for election.";
    "controller.quorum.fetch.timeout.ms" Int "2000" (at_least 0) High ReadOnly Used
        "How long a voter goes without its leader before it stands for election.";
    "controller.quorum.election.backoff.max.ms" Int "1000" (at_least 0) High ReadOnly Ignored
        "The longest rest between two elections.";
    "controller.quorum.append.linger.ms" Int "25" (at_least 0) Medium ReadOnly Ignored
        "How long the leader gathers records before it writes them.";
    "controller.quorum.request.timeout.ms" Int "2000" (at_least 0) Medium ReadOnly Used
        "How long a voter waits for an answer.";
    "controller.quorum.retry.backoff.ms" Int "20" (at_least 0) Low ReadOnly Ignored
        "The rest before a request in the quorum is sent again.";
    "controller.quorum.auto.join.enable" Boolean "false" any Low ReadOnly Used
        "Whether a controller joins the voters by itself.";
    "controller.quorum.fetch.snapshot.max.bytes" Int "1048576" (at_least 1) Low ReadOnly Ignored
        "The most bytes of one FetchSnapshot answer.";
    "controller.quorum.fetch.max.bytes" Int "1048576" (at_least 1) Low ReadOnly Ignored
        "The most bytes of one fetch of the metadata log.";
}
