//! Tests of the rules, on source files made of strings: each has a violation of a rule and, beside
//! it, similar code that the rule allows.

use super::{
    BROKER_FIELDS_MAX, Exception, FILE_LINES_MAX, FUNCTION_LINES_MAX, LAYERS, LINE_COLUMNS_MAX,
    Violation, import_circles, impurities,
    source::{Source, remove_test_files},
    too_long, too_many_fields, unexpected, upward_imports,
};

/// Builds a crate of these files, with a `lib.rs` that declares all of its folders.
fn files(files: &[(&str, &str)]) -> Vec<Source> {
    let folders = LAYERS.iter().map(|(layer, _)| format!("mod {layer};")).collect::<String>();
    let mut sources = vec![Source::new("lib.rs", &folders)];
    sources.extend(files.iter().map(|(name, text)| Source::new(name, text)));
    remove_test_files(&mut sources);
    sources
}

fn upward(text: &str) -> Vec<Violation> {
    upward_imports(&files(&[("log/mod.rs", text)]))
}

fn violation(file: &str, what: &str) -> Violation {
    (file.to_owned(), what.to_owned())
}

#[test]
fn layers_come_after_all_that_they_name() {
    for (index, (layer, lower)) in LAYERS.iter().enumerate() {
        for other in *lower {
            let is_before = LAYERS[..index].iter().any(|(name, _)| name == other);
            assert!(is_before, "{layer} names {other}");
        }
    }
}

#[test]
fn upward_import_is_found_in_every_form() {
    for text in [
        "use crate::broker::Broker;",
        "use crate::broker;",
        "use crate::{base::TopicId, broker};",
        "use crate::{base::{TopicId, ids}, broker::{self, Broker}};",
        "pub(crate) use crate::broker::Broker as Other;",
        "pub use super::broker::Broker;",
        "fn name(broker: &crate::broker::Broker) {}",
        "fn name() { let broker = super::broker::Broker::new(); }",
        "fn name() { debug!(\"a\", crate::broker::name()); }",
        "mod inner;\n#[cfg(test)]\nmod tests;\nuse crate::broker::Broker;",
        "#[cfg(test)]\nmod tests {\n}\nuse crate::broker::Broker;",
        "#[cfg(not(test))]\nuse crate::broker::Broker;",
        "#[cfg(not(any(test, feature = \"simulation\")))]\nuse crate::broker::Broker;",
        "struct Name { #[cfg(test)] one: u8, two: crate::broker::Broker }",
    ] {
        assert_eq!(upward(text), [violation("log/mod.rs", "names broker")], "{text}");
    }
}

#[test]
fn downward_import_is_allowed() {
    for text in [
        "use crate::{base::{TopicId, broker}, records::broker::Batch};",
        "use std::{net::SocketAddr, sync::Arc};\nuse tokio::net::TcpStream;",
        "mod broker;\nuse broker::Broker;",
        "// use crate::broker::Broker;\n/// See crate::broker::Broker.\nfn name() {}",
        "fn name() { let text = \"crate::broker::Broker\"; }",
        "#[cfg(test)]\nmod tests { use crate::broker::Broker; }",
        "#[cfg(test)]\nuse crate::broker::{Broker, Name};",
        "#[cfg(any(test, feature = \"simulation\"))]\nuse crate::broker::Broker;",
        "struct Name { #[cfg(test)] one: crate::broker::Broker, two: u8 }",
    ] {
        assert_eq!(upward(text), [], "{text}");
    }
}

#[test]
fn file_of_tests_is_no_production_code() {
    let text = "use crate::broker::Broker;";
    let of_tests = [
        ("log/mod.rs", "#[cfg(test)]\nmod testing;"),
        ("log/testing.rs", "mod inner;\nuse crate::broker::Broker;"),
        ("log/testing/inner.rs", text),
    ];
    assert_eq!(upward_imports(&files(&of_tests)), []);
    let of_production = [("log/mod.rs", "mod testing;"), ("log/testing.rs", text)];
    let found = upward_imports(&files(&of_production));
    assert_eq!(found, [violation("log/testing.rs", "names broker")]);
}

#[test]
fn folder_outside_the_layers_is_found() {
    let sources = [Source::new("other/mod.rs", "fn name() {}")];
    let found = upward_imports(&sources);
    assert_eq!(found, [violation("other/mod.rs", "belongs to no layer")]);
}

#[test]
fn circle_of_files_is_found() {
    let between_siblings = [
        ("log/mod.rs", "mod one;\nmod two;"),
        ("log/one.rs", "use super::two::Two;"),
        ("log/two.rs", "struct Two;\nfn name() { super::one::name(); }"),
    ];
    let through_a_third = [
        ("log/mod.rs", "mod one;\nmod two;\nmod three;"),
        ("log/one.rs", "use super::two::Two;"),
        ("log/two.rs", "use crate::log::three;"),
        ("log/three.rs", "use super::{one};"),
    ];
    let through_reexports = [
        ("log/mod.rs", "mod one;\nmod two;\npub use one::One as First;\npub use self::two::*;"),
        ("log/one.rs", "use super::Two;\npub struct One;"),
        ("log/two.rs", "use crate::log::First;\npub struct Two;"),
    ];
    let between_folders = [
        ("log/mod.rs", "mod one;\nuse one::One;\nfn name(one: One) {}"),
        ("log/one.rs", "use crate::metadata::Two;\nstruct One;"),
        ("metadata/mod.rs", "use crate::log::name;\nstruct Two;"),
    ];
    let circles: [(&[_], _); 4] = [
        (&between_siblings, r#"a circle: ["log/one.rs", "log/two.rs"]"#),
        (&through_a_third, r#"a circle: ["log/one.rs", "log/three.rs", "log/two.rs"]"#),
        (&through_reexports, r#"a circle: ["log/one.rs", "log/two.rs"]"#),
        (&between_folders, r#"a circle: ["log/mod.rs", "log/one.rs", "metadata/mod.rs"]"#),
    ];
    for (planted, found) in circles {
        assert_eq!(import_circles(&files(planted), &[]), [found]);
    }
}

#[test]
fn module_and_the_files_in_its_folder_may_name_each_other() {
    let sources = files(&[
        ("log/mod.rs", "mod one;\nmod two;\npub use two::Two;\nfn name(one: one::One) {}"),
        ("log/one.rs", "use super::name;\nuse super::Two;\npub struct One;"),
        ("log/two.rs", "mod inner;\npub struct Two(inner::Inner);"),
        ("log/two/inner.rs", "use super::Two;\npub struct Inner;"),
    ]);
    assert_eq!(import_circles(&sources, &[]), [""; 0]);
}

#[test]
fn exceptions_may_only_shrink() {
    let circle = [
        ("log/mod.rs", "mod one;\nmod two;"),
        ("log/one.rs", "use super::two;"),
        ("log/two.rs", "use super::one;"),
    ];
    const KNOWN: Exception = ("log/one.rs", "log/two.rs");
    assert_eq!(import_circles(&files(&circle), &[KNOWN]), [""; 0]);
    let unneeded = r#"the exception ("log/one.rs", "log/two.rs") is not needed"#;
    assert_eq!(import_circles(&files(&circle[..2]), &[KNOWN]), [unneeded]);
    assert_eq!(import_circles(&files(&circle[..1]), &[KNOWN]), [unneeded]);

    let found = || vec![violation("log/one.rs", "names net")];
    assert_eq!(unexpected(found(), &[]), ["log/one.rs: names net"]);
    assert_eq!(unexpected(found(), &[("log/one.rs", "names net")]), [""; 0]);
    let unneeded = r#"the exception "log/one.rs: names net" is not needed"#;
    assert_eq!(unexpected(vec![], &[("log/one.rs", "names net")]), [unneeded]);
}

#[test]
fn impure_code_in_a_pure_folder_is_found() {
    for (text, what) in [
        ("use tokio::sync::Notify;", "has tokio"),
        ("pub(super) async fn name() {}", "has async"),
        ("fn name() { let now = std::time::SystemTime::now(); }", "has SystemTime"),
        ("use std::time::{Duration, Instant};", "has Instant"),
        ("fn name() { let id = uuid::Uuid::new_v4(); }", "has new_v4"),
        ("fn name() { rand::random(); }", "has rand"),
        ("use crate::base::{TopicId, environment::now_ms};", "names base::environment"),
        ("use crate::base::environment;", "names base::environment"),
        ("#[cfg(test)]\nmod tests;\nuse tokio::sync::Notify;", "has tokio"),
    ] {
        let found = impurities(&files(&[("records/mod.rs", text)]));
        assert_eq!(found, [violation("records/mod.rs", what)], "{text}");
    }
    let pure =
        "// tokio::spawn\nfn name(now_ms: i64) {}\n#[cfg(test)]\nmod tests { use tokio::spawn; }";
    assert_eq!(impurities(&files(&[("records/mod.rs", pure)])), []);
    assert_eq!(impurities(&files(&[("quorum/mod.rs", "use tokio::spawn;")])), []);
}

#[test]
fn long_function_is_found_in_every_form() {
    let body = "    step();\n".repeat(FUNCTION_LINES_MAX - 1);
    let what = format!("name has {} lines", FUNCTION_LINES_MAX + 1);
    for start in [
        "fn name()",
        "pub(super) async fn name()",
        "pub(crate) const unsafe fn name()",
        "pub(in crate::log) extern \"C\" fn name(one: [u8; 2])",
        "fn name<T>(one: T) -> Result<(), ()> where T: Into<[u8; 3]>",
        "#[cfg(test)] fn name()",
        "impl Name { fn name()",
    ] {
        let end = if start.starts_with("impl") { "}}" } else { "}" };
        let source = Source::new("log/mod.rs", &format!("{start} {{\n{body}{end}\n"));
        assert_eq!(too_long(&source), [violation("log/mod.rs", &what)], "{start}");
    }
    let short = body.replacen("    step();\n", "", 1);
    let source = Source::new("log/mod.rs", &format!("fn name() {{\n{short}}}\n{body}"));
    assert_eq!(too_long(&source), []);
    let without_body = format!("trait Name {{\nfn name();\nconst ONE: u8 = {{{body}1}};\n}}");
    assert_eq!(too_long(&Source::new("log/mod.rs", &without_body)), []);
}

#[test]
fn long_file_and_long_line_are_found() {
    let source = Source::new("log/mod.rs", &"//\n".repeat(FILE_LINES_MAX + 1));
    let what = format!("has {} lines", FILE_LINES_MAX + 1);
    assert_eq!(too_long(&source), [violation("log/mod.rs", &what)]);
    let source = Source::new("log/mod.rs", &format!("\n// {}", "x".repeat(LINE_COLUMNS_MAX)));
    let what = format!("line 2 has {} columns", LINE_COLUMNS_MAX + 3);
    assert_eq!(too_long(&source), [violation("log/mod.rs", &what)]);
    let source = Source::new("log/mod.rs", &"//\n".repeat(FILE_LINES_MAX));
    assert_eq!(too_long(&source), []);
}

#[test]
fn struct_with_too_many_fields_is_found() {
    let broker = |count: usize| {
        let field = |number| format!("pub(super) field{number}: std::sync::Arc<Map<u8, [u8; 2]>>,");
        let fields: String = (0..count).map(field).collect();
        let text = format!("struct Other {{ one: u8 }}\nstruct Broker {{ {fields} }}\nenum A {{}}");
        Source::new("broker/mod.rs", &text)
    };
    let what = format!("Broker has {} fields", BROKER_FIELDS_MAX + 1);
    let found = too_many_fields(&broker(BROKER_FIELDS_MAX + 1));
    assert_eq!(found, Some(violation("broker/mod.rs", &what)));
    assert_eq!(too_many_fields(&broker(BROKER_FIELDS_MAX)), None);
}
