//! Metrics of the JVM broker and of clients.

use super::{Key, keys};

keys! {
    METRICS:

    "metrics.num.samples" Int "2" (at_least 1) Low ReadOnly Accepted
        "Samples kept for a metric of the JVM broker.";
    "metrics.sample.window.ms" Long "30000" (at_least 1) Low ReadOnly Accepted
        "The length of one such sample.";
    "metric.reporters" List "org.apache.kafka.common.metrics.JmxReporter"
        list Low ClusterWide Accepted
        "Java classes that report metrics; metrics are on /metrics here.";
    "metrics.recording.level" String "INFO" any Low ReadOnly Accepted
        "Which metrics of the JVM broker are recorded.";
    "kafka.metrics.reporters" List "" list Low ReadOnly Accepted
        "Java classes that report the older metrics.";
    "kafka.metrics.polling.interval.secs" Int "10" (at_least 1) Low ReadOnly Accepted
        "How often those are asked.";
    "telemetry.max.bytes" Int "1048576" (at_least 1) Low ReadOnly Accepted
        "The largest push of metrics from a client (KIP-714).";
}
