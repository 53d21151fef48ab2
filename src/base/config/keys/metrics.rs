//! Metrics of the JVM broker and of clients.

use super::{Key, keys};

keys! {
    METRICS:

    "metrics.num.samples" Int "2" (at_least 1) Low ReadOnly Ignored
        "Samples kept for a metric of the JVM broker.";
    "metrics.sample.window.ms" Long "30000" (at_least 1) Low ReadOnly Ignored
        "The length of one such sample.";
    "metric.reporters" List "org.apache.kafka.common.metrics.JmxReporter"
        list Low ClusterWide Ignored
        "Java classes that report metrics; metrics are on /metrics here.";
    "metrics.recording.level" String "INFO" any Low ReadOnly Ignored
        "Which metrics of the JVM broker are recorded.";
    "kafka.metrics.reporters" List "" list Low ReadOnly Ignored
        "Java classes that report the older metrics.";
    "kafka.metrics.polling.interval.secs" Int "10" (at_least 1) Low ReadOnly Ignored
        "How often those are asked.";
    "telemetry.max.bytes" Int "1048576" (at_least 1) Low ReadOnly Ignored
        "The largest push of metrics from a client (KIP-714).";
}
