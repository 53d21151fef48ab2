//! Tests of the configuration.

mod describe;
mod docs;
mod dynamic;
mod effects;
mod parse;
mod providers;
mod start;
mod topic;

use super::{Config, Properties, Sources, load};

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A configuration from a properties file that has only these lines.
fn config(pairs: &[(&str, &str)]) -> Config {
    started(pairs).expect("starts").0
}

/// The configuration and warnings of a start with these lines in the file, or the error.
fn started(pairs: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
    let lines: String = pairs.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let file = Some(("server.properties".to_owned(), lines.into_bytes()));
    let sources = Sources { file, host_name: "here".to_owned(), ..Sources::default() };
    let loaded = load(sources).map_err(|it| it.error.message)?;
    Ok((loaded.config, loaded.warnings))
}
