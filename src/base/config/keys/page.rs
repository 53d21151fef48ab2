//! The table as a page.

use std::fmt::Write;

use super::{BROKER_THEMES, client_metrics, group, topic};
use crate::base::config::key::{Default, Effect, Key, Mode};

/// The list of all keys as Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration keys\n\n\
         Generated from the table in `keys/`. These are the keys of Apache Kafka 4.3.1 with its\n\
         defaults, and a few of Sordini's own. All values are checked. *Effect*: a dot stands for a\n\
         key that is used, for all values or for those that follow. Where it is empty, the key has\n\
         no effect yet, and a start that sets it warns. A key marked *refused* asks for protection\n\
         that is missing: with any value but its default the broker does not start. *Change*:\n\
         whether a running broker takes a new value, for itself alone (broker) or for all at once\n\
         (cluster), by `kafka-configs`.\n",
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
