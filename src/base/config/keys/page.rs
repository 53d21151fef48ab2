//! The key table as the Markdown page `docs/configuration.md`.

use std::fmt::Write;

use super::{BROKER_THEMES, client_metrics, group, topic};
use crate::base::config::key::{Default, Effect, Key, Mode};

/// The list of all keys as Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration keys\n\n\
         This page is generated from the key table in `src/base/config/keys`. `sordini config` prints it.\n\n\
         The table has the keys of Apache Kafka 4.3.1 with their defaults, and a few keys of Sordini's\n\
         own. The broker checks the values of all keys, also of those without effect. Columns:\n\n\
         - *effect*: a dot means that the key is used, with all values or only with the listed ones.\n\
         \x20 An empty cell means that the key has no effect yet; a start that sets it logs a warning.\n\
         \x20 *Refused* means that the key asks for protection that is missing: with any value but its\n\
         \x20 default, the broker does not start.\n\
         - *change*: whether `kafka-configs` can change the key of a running broker, and for which\n\
         \x20 scope: one broker, or all brokers of the cluster.\n",
    );
    for (theme, keys) in BROKER_THEMES {
        section(&mut page, theme, keys);
    }
    section(&mut page, "Topics", topic::TOPIC);
    section(&mut page, "Group configs", group::GROUP);
    let metrics: Vec<Key> = client_metrics().values().map(|key| **key).collect();
    section(&mut page, "Client metrics subscriptions", &metrics);
    page
}

fn section(page: &mut String, title: &str, keys: &[Key]) {
    let _ = write!(
        page,
        "\n## {title}\n\n| key | type | default | allowed | change | effect | meaning |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for key in keys {
        let default = match key.default {
            Default::Is("") => "empty",
            Default::Is(text) => text,
            Default::Null => "",
            Default::Required => "must be set",
        };
        let change = match key.mode {
            Mode::ReadOnly => "",
            Mode::PerBroker => "broker",
            Mode::ClusterWide => "cluster",
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {} | {change} | {} | {} |",
            key.name,
            key.kind.name().to_ascii_lowercase(),
            key.valid,
            effect(key),
            key.doc
        );
    }
}

fn effect(key: &Key) -> String {
    match key.effect {
        Effect::Used => "•".to_owned(),
        Effect::UsedOnly(values) => format!("• {}", values.join(", ")),
        Effect::Ignored => String::new(),
        Effect::Protects(_) => "refused".to_owned(),
        Effect::ProtectsAbove(max, _) => format!("refused above {max}"),
    }
}
