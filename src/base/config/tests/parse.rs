//! The syntax of properties files, and values of each type.

use crate::base::config::{keys, parse};

fn pairs(text: &str) -> Vec<(String, String)> {
    read(text.as_bytes())
}

fn read(bytes: &[u8]) -> Vec<(String, String)> {
    let pairs = parse::properties(bytes).expect("well-formed").into_iter();
    pairs.map(|it| (it.name, it.value)).collect()
}

fn pair(text: &str) -> (String, String) {
    let pairs = pairs(text);
    assert_eq!(pairs.len(), 1, "{pairs:?}");
    pairs[0].clone()
}

fn owned(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn separators_and_blanks_are_javas() {
    for text in ["a.b=c d ", "a.b : c d ", "  a.b c d ", "a.b\tc d ", "a.b =c d ", "a.b\u{c}= c d "]
    {
        assert_eq!(pair(text), owned("a.b", "c d "), "{text:?}");
    }
    assert_eq!(pair("a"), owned("a", ""));
    assert_eq!(pair("a=="), owned("a", "="));
    assert_eq!(pair("a = = b"), owned("a", "= b"));
    assert_eq!(pair("=b"), owned("", "b"));
    assert_eq!(pair("a#b=c#d"), owned("a#b", "c#d"));
}

#[test]
fn comments_and_empty_lines_are_ignored() {
    assert_eq!(pairs("# a=1\n  ! b=2\n\n \t\r\n#c=\\\nd=4\n"), [owned("d", "4")]);
}

#[test]
fn a_backslash_continues_a_line_and_takes_the_next_lines_indent() {
    assert_eq!(pair("a=1,\\\n   2,\\\r\n\t3"), owned("a", "1,2,3"));
    assert_eq!(pair("a\\\n  b=1"), owned("ab", "1"));
    assert_eq!(pair("a=1\\"), owned("a", "1"));
    assert_eq!(pairs("a=1\\\\\nb=2"), [owned("a", "1\\"), owned("b", "2")]);
    assert_eq!(pair("a=1\\\n#2"), owned("a", "1#2"));
}

#[test]
fn escapes_are_javas() {
    assert_eq!(pair("a\\=b\\:c\\ d=\\t\\n\\r\\f\\x\\\\"), owned("a=b:c d", "\t\n\r\u{c}x\\"));
    assert_eq!(pair("a=\\u00e9\\ud83d\\ude00"), owned("a", "\u{e9}\u{1f600}"));
    assert!(parse::properties(b"a=\\u12").is_err());
    assert!(parse::properties(b"a=\\u+123").is_err());
}

#[test]
fn bytes_are_utf_8_or_else_iso_8859_1() {
    assert_eq!(pair("a=\u{e9}"), owned("a", "\u{e9}"));
    let latin = read(b"a=\xe9");
    assert_eq!(latin, [owned("a", "\u{e9}")]);
}

#[test]
fn a_key_given_twice_comes_twice_in_order() {
    assert_eq!(pairs("a=1\ra=2"), [owned("a", "1"), owned("a", "2")]);
}

/// The value as it is printed after parsing, or the error.
fn value(name: &str, text: &str) -> Result<String, String> {
    let key = keys::broker()[name];
    let value = parse::value(key, name, text);
    value.map(|value| value.text()).map_err(|error| error.message)
}

#[test]
fn values_are_read_as_kafka_reads_them() {
    for (name, text, printed) in [
        ("num.partitions", " 7 ", "7"),
        ("num.partitions", "+5", "5"),
        ("log.retention.ms", "-1", "-1"),
        ("auto.create.topics.enable", " TRUE ", "true"),
        ("log.cleanup.policy", "delete, compact", "delete,compact"),
        ("log.cleanup.policy", "delete,delete", "delete"),
        ("log.cleanup.policy", "", ""),
        ("log.cleaner.io.buffer.load.factor", "1e3d", "1000.0"),
        ("log.cleaner.io.buffer.load.factor", "NaN", "NaN"),
        ("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308", "1.7976931348623157E308"),
        ("log.cleaner.min.cleanable.ratio", "0.50", "0.5"),
        ("log.cleaner.min.cleanable.ratio", "0.0001", "1.0E-4"),
        ("group.consumer.migration.policy", "Upgrade", "Upgrade"),
        ("compression.gzip.level", "-1", "-1"),
        ("controller.quorum.voters", "1@h:9093, 2@[::1]:9093", "1@h:9093,2@[::1]:9093"),
    ] {
        assert_eq!(value(name, text).as_deref(), Ok(printed), "{name}={text}");
    }
}

fn invalid(text: &str, name: &str, why: &str) -> String {
    format!("Invalid value {text} for configuration {name}: {why}")
}

fn check_refusals(refusals: &[(&str, &str, String)]) {
    for (name, text, refusal) in refusals {
        assert_eq!(value(name, text), Err(refusal.clone()), "{name}={text}");
    }
}

#[test]
fn numbers_and_booleans_are_refused_in_kafkas_words() {
    for (name, text, kind) in [
        ("num.partitions", "abc", "INT"),
        ("num.partitions", "1.5", "INT"),
        ("num.partitions", "", "INT"),
        ("num.partitions", "+-5", "INT"),
        ("num.partitions", "99999999999", "INT"),
        ("offsets.topic.replication.factor", "70000", "SHORT"),
        ("log.retention.ms", "x", "LONG"),
        ("log.cleaner.io.buffer.load.factor", "inf", "DOUBLE"),
    ] {
        let why = format!("Not a number of type {kind}");
        check_refusals(&[(name, text, invalid(text, name, &why))]);
    }
    let ratio = "log.cleaner.min.cleanable.ratio";
    let gzip = "compression.gzip.level";
    let zstd = "compression.zstd.level";
    let auto = "auto.create.topics.enable";
    check_refusals(&[
        ("num.partitions", "0", invalid("0", "num.partitions", "Value must be at least 1")),
        (ratio, "1.5", invalid("1.5", ratio, "Value must be no more than 1")),
        (ratio, "-1", invalid("-1.0", ratio, "Value must be at least 0")),
        (gzip, "0", invalid("0", gzip, "Value must be between 1 and 9 or equal to -1")),
        (zstd, "23", invalid("23", zstd, "Value must be no more than 22")),
        (auto, "yes", invalid("yes", auto, "Expected value to be either true or false")),
    ]);
}

#[test]
fn texts_and_lists_are_refused_in_kafkas_words() {
    let codecs = "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer";
    let policy = "log.cleanup.policy";
    let policies = "String must be one of: compact, delete";
    let migration = "group.consumer.migration.policy";
    let migrations = "String must be one of (case insensitive): DISABLED, DOWNGRADE, UPGRADE, \
                      BIDIRECTIONAL";
    let prefix = "remote.log.storage.manager.impl.prefix";
    let empty = |name: &str, allowed: &str| {
        format!("Configuration '{name}' must not be empty. Valid values include: {allowed}")
    };
    check_refusals(&[
        ("compression.type", "GZIP", invalid("GZIP", "compression.type", codecs)),
        (policy, "delete,foo", invalid("foo", policy, policies)),
        (policy, "delete,", format!("Configuration '{policy}' values must not be empty.")),
        ("log.dirs", "", empty("log.dirs", "any non-empty value")),
        ("process.roles", "", empty("process.roles", "[broker, controller]")),
        (migration, "x", invalid("x", migration, migrations)),
        (prefix, "", invalid("", prefix, "String must be non-empty")),
        ("controller.quorum.voters", "1@h", {
            "Failed to parse host name from entry 1@h for the configuration \
             controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`."
                .to_owned()
        }),
        ("controller.quorum.voters", "abc", {
            "Invalid configuration value for controller.quorum.voters. Each entry should be in \
             the form `{id}@{host}:{port}`."
                .to_owned()
        }),
        ("controller.quorum.bootstrap.servers", "x", {
            "Failed to parse host name from x for the configuration \
             controller.quorum.bootstrap.servers. Each entry should be in the form \
             \"{host}:{port}\""
                .to_owned()
        }),
    ]);
}

#[test]
fn every_default_of_the_table_fits_its_own_row() {
    for table in [keys::broker(), keys::topic(), keys::group(), keys::client_metrics()] {
        for (name, key) in table {
            let Some(text) = key.default_text() else { continue };
            let value = parse::value(key, name, text).expect("the default is valid");
            assert_eq!(value.text(), text, "{name} is printed as it is written");
        }
    }
}

#[test]
fn list_items_are_javas_split() {
    for (text, items) in [
        ("a,b", &["a", "b"][..]),
        ("a,b,,", &["a", "b"]),
        (",a", &["", "a"]),
        ("a,,b", &["a", "", "b"]),
        ("", &[""]),
        (",,", &[]),
    ] {
        assert_eq!(parse::list_items(text).collect::<Vec<_>>(), items, "{text:?}");
    }
}

#[test]
fn throttled_replicas_may_have_empty_elements() {
    let key = keys::topic()["leader.replication.throttled.replicas"];
    let is_valid = |text: &str| parse::value(key, key.name, text).is_ok();
    for text in ["", "0:1,", ",0:1", "0:1,,1:1", ",", "*,", " * ", "0:1 , 1:1"] {
        assert!(is_valid(text), "{text:?}");
    }
    for text in ["x", "0:1,*", "0:", "*,*"] {
        assert!(!is_valid(text), "{text:?}");
    }
}
