//! Config providers and their variables.

use std::{fs, path::Path};

use crate::base::config::{FileAccess, Loaded, Sources, load};

const FILES: FileAccess = FileAccess {
    exists: Path::exists,
    is_file: Path::is_file,
    is_dir: Path::is_dir,
    read: |path| fs::read(path),
};

const CLASSES: &str = "
config.providers=env,file,dir
config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.dir.class=org.apache.kafka.common.config.provider.DirectoryConfigProvider
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
";

fn start(lines: &str) -> Result<Loaded, String> {
    let file = Some(("server.properties".to_owned(), format!("{CLASSES}{lines}").into_bytes()));
    let environment = [("RACK", "r1"), ("HIDDEN", "s3cret"), ("LOOP", "${env:RACK}")];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let environment = environment.map(owned).to_vec();
    let sources = Sources { file, environment, files: FILES, ..Sources::default() };
    load(sources).map_err(|error| error.to_string())
}

/// The resolved `broker.rack` for a value, and the warnings.
fn rack(value: &str, lines: &str) -> (String, Vec<String>) {
    let loaded = start(&format!("{lines}\nbroker.rack={value}\n")).expect(value);
    (loaded.config.broker.broker_rack.clone().unwrap_or_default(), loaded.warnings)
}

#[test]
fn variables_are_resolved() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("secrets");
    fs::write(&file, "rack = r2\nrack: r3\na\\:b=r4\n").expect("written");
    let (file, dir) = (file.display(), dir.path().display());
    for (value, resolved) in [
        ("${env:RACK}", "r1"),
        ("a-${env:RACK}-${env:RACK}-b", "a-r1-r1-b"),
        ("$${env:RACK}}", "$r1}"),
        ("${x ${env:RACK}", "${x ${env:RACK}"),
        ("${x}${env:RACK}", "${x}r1"),
        ("${env:LOOP}", "${env:RACK}"),
        (&format!("${{file:{file}:rack}}"), "r3"),
        (&format!("${{file:{file}:a:b}}"), "r4"),
        (&format!("${{dir:{dir}:secrets}}"), "rack = r2\nrack: r3\na:b=r4"),
    ] {
        // Backslashes in the file that the provider reads stay as they are.
        let expected = resolved.replace("a:b=r4", "a\\:b=r4");
        assert_eq!(rack(value, "").0, expected.trim_end(), "{value}");
    }
}

#[test]
fn unresolved_variables_stay_with_a_warning() {
    for value in ["${env:NONE}", "${other:x}", "${file:rack}", "${dir:/none:x}", "${file::x}"] {
        let (rack, warnings) = rack(value, "");
        assert_eq!(rack, value);
        let unresolved = format!("broker.rack: no config provider resolves {value}");
        assert_eq!(warnings, [format!("{unresolved}, so the value is used unchanged")]);
    }
    let plain = ["text", "$x", "${x}", "${", "${x:"];
    for value in plain {
        assert_eq!(rack(value, ""), (value.to_owned(), Vec::new()));
    }
}

#[test]
fn providers_respect_allowed_paths_and_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).expect("made");
        fs::write(folder.join("f"), "k=v").expect("written");
    }
    let allowed = format!(
        "config.providers.file.param.allowed.paths={0}\nconfig.providers.dir.param.allowed.paths={0}",
        inside.display()
    );
    let value = |provider: &str, path: &Path, key: &str| {
        rack(&format!("${{{provider}:{}:{key}}}", path.display()), &allowed).0
    };
    assert_eq!(value("file", &inside.join("f"), "k"), "v");
    assert_eq!(value("dir", &inside, "f"), "k=v");
    assert!(value("file", &outside.join("f"), "k").starts_with("${file:"));
    assert!(value("file", &inside.join("../out/f"), "k").starts_with("${file:"));
    assert!(value("dir", &outside, "f").starts_with("${dir:"));
    assert!(value("dir", &inside, "../out/f").starts_with("${dir:"));
    let read = |paths: &str| {
        let paths = format!("config.providers.file.param.allowed.paths={paths}");
        rack(&format!("${{file:{}:k}}", inside.join("f").display()), &paths).0
    };
    assert_eq!(read(&format!("{},,", inside.display())), "v");
    assert!(read(",").starts_with("${file:"), "commas alone allow no path");
    let pattern = "config.providers.env.param.allowlist.pattern=RA.*";
    assert_eq!(rack("${env:RACK}", pattern).0, "r1");
    assert_eq!(rack("${env:HIDDEN}", pattern).0, "${env:HIDDEN}");
    assert_eq!(rack("${env:RACK}", &pattern.replace("RA.*", "ACK")).0, "${env:RACK}");
}

#[test]
fn invalid_provider_configs_stop_the_start() {
    let refusal = |lines: &str| start(lines).expect_err(lines);
    let class = "config.providers.env.class=com.example.Vault";
    assert!(refusal(class).starts_with(
        "Invalid value com.example.Vault for configuration config.providers.env.class"
    ));
    let spaced = "config.providers.env.class=\
                  org.apache.kafka.common.config.provider.EnvVarConfigProvider ";
    assert!(refusal(spaced).contains("config.providers.env.class"));
    assert!(refusal("broker.rack=${env:path:RACK}").contains("Path is not supported"));
    assert!(
        refusal("broker.rack=${file:/none:x}")
            .contains("Could not read properties from file /none")
    );
    let paths = "config.providers.file.param.allowed.paths";
    assert!(refusal(&format!("{paths}=a")).contains("Path a is not absolute"));
    assert!(refusal(&format!("{paths}=/none")).contains("Path /none does not exist"));
    assert!(refusal("config.providers.env.param.allowlist.pattern=(").contains("cannot be used"));
}

#[test]
fn errors_do_not_show_resolved_values() {
    let refusal = start("num.partitions=${env:HIDDEN}").expect_err("refused");
    assert!(refusal.starts_with("Invalid value ${env:HIDDEN} for configuration num.partitions"));
    let refusal = start("listeners=PLAINTEXT://:9092,${env:HIDDEN}").expect_err("refused");
    assert!(refusal.starts_with("Unable to parse a listener name from ${env:HIDDEN}"));
    let refusal = start("authorizer.class.name=${env:HIDDEN}").expect_err("refused");
    assert!(!refusal.contains("s3cret"), "{refusal}");
}
