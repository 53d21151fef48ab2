//! Keys that Kafka does not have. DescribeConfigs lists them only if they are set.

use super::{Key, keys};

keys! {
    OWN:

    "http.listener" String "127.0.0.1:9644" any Medium ReadOnly HiddenUsed
        "Where /metrics and /health answer: host:port, or none.";
    "logging.level" String "info" any Medium ReadOnly HiddenUsed
        "What is logged: a level or the directives of RUST_LOG, which goes before it.";
    "logging.format" String "text" (one_of "text" "json") Low ReadOnly HiddenUsed
        "How log lines are written.";
}
