use std::{fmt::Write, fs, path::Path};

use crate::base::config::{
    key::{Default, Effect, Key, Mode},
    keys,
};

/// The list of all keys as a page; `SORDINI_UPDATE=1` writes it anew.
#[test]
fn the_page_of_keys_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/base/config/KEYS.md");
    let page = page();
    if std::env::var_os("SORDINI_UPDATE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == page, "KEYS.md is out of date: run this test with SORDINI_UPDATE=1");
}

fn page() -> String {
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
    for (theme, keys) in keys::BROKER_THEMES {
        section(&mut page, theme, keys);
    }
    section(&mut page, "Topics", keys::topic::TOPIC);
    section(&mut page, "Group configs", keys::group::GROUP);
    let metrics: Vec<Key> = keys::client_metrics().values().map(|key| **key).collect();
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
