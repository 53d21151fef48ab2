//! A key that is marked as used has a reader: the table promises no effect that is not there.

use std::{fs, path::Path};

use crate::base::config::{
    key::Key,
    keys::{self, topic::SYNONYMS},
};

/// Keys whose field has another name than the key.
const FIELDS: &[(&str, &str)] = &[
    ("internal.segment.bytes", "segment_bytes"),
    ("log.dir", "log_dirs"),
    ("socket.listen.backlog.size", "socket_listen_backlog"),
    ("broker.id", "node_id"),
    ("logging.format", "logging_json"),
    ("max.connections.per.ip.overrides", "max_connections_per_ip"),
    ("offsets.retention.minutes", "offsets_retention_ms"),
    ("group.min.session.timeout.ms", "min_session_timeout_ms"),
    ("group.max.session.timeout.ms", "max_session_timeout_ms"),
    ("group.initial.rebalance.delay.ms", "initial_rebalance_delay_ms"),
    ("group.max.size", "max_size"),
];

/// Keys that have all their effect within the configuration: they sort and name the listeners.
const WITHIN: &[&str] = &["controller.listener.names", "listener.security.protocol.map"];

#[test]
fn every_used_key_has_a_reader() {
    let mut code = String::new();
    read_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let broker = keys::BROKER_THEMES.iter().flat_map(|(_, keys)| keys.iter());
    let all = broker.chain(keys::topic::TOPIC).chain(keys::group::GROUP);
    let unread: Vec<_> = all
        .filter(|key| key.is_used() && !WITHIN.contains(&key.name) && !is_read(key, &code))
        .map(|key| key.name)
        .collect();
    assert!(unread.is_empty(), "used, says the table, but nothing reads {unread:?}");
    for name in WITHIN {
        let quoted = format!("\"{name}\"");
        assert!(!has_word(&code, &quoted), "{name} is read elsewhere by now");
    }
}

fn is_read(key: &Key, code: &str) -> bool {
    let of_topic = SYNONYMS.iter().filter(|(_, all)| all.iter().any(|(name, _)| *name == key.name));
    let names = of_topic.map(|(name, _)| *name).chain([key.name]);
    names.into_iter().any(|name| {
        let renamed = FIELDS.iter().find(|(of, _)| *of == name).map(|(_, field)| *field);
        let field = renamed.map_or_else(|| name.replace('.', "_"), str::to_owned);
        has_word(code, &format!(".{field}")) || has_word(code, &format!("\"{name}\""))
    })
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[at + word.len()..].starts_with(is_part))
}

/// All code outside of the configuration, without tests.
fn read_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        let is_test = path.ends_with("tests") || path.ends_with("tests.rs");
        if is_test || path.ends_with("base/config") {
            continue;
        }
        if path.is_dir() {
            read_code(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let end = text.find("#[cfg(test)]").unwrap_or(text.len());
            code.push_str(&text[..end]);
        }
    }
}
