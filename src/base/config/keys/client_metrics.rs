//! Client metrics subscriptions (KIP-714).

use super::{Key, keys};

keys! {
    CLIENT_METRICS:

    "metrics" List "" list Medium ReadOnly Ignored
        "Prefixes of the metrics that clients push; empty for none, * for all.";
    "interval.ms" Int "300000" any Medium ReadOnly Ignored
        "How often clients push them.";
    "match" List "" list Medium ReadOnly Ignored
        "Which clients: name=regular expression, separated by commas.";
}
