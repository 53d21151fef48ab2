//! The subscriber that writes logs to stderr.

use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        format::Writer,
        layer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry, reload,
    util::SubscriberInitExt,
};

use super::Loggers;

/// Turns off the log lines of the Raft library unless the filter names it, because it logs each
/// node that does not respond as an error. `quorum` logs what operators need: leaders, voters that
/// do not respond, and the error with which Raft stops.
const QUIET: &str = "openraft=off";

/// Module names that are valid directives without a level.
const NAMES: [&str; 2] = [env!("CARGO_PKG_NAME"), "openraft"];

/// The error for an invalid log filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "Invalid value {filter} for {source_name}: it must be a level (off, error, warn, info, debug or \
     trace) or directives such as info,sordini::quorum=debug"
)]
pub struct InvalidFilter {
    source_name: &'static str,
    filter: String,
}

/// Starts logging to stderr, as text lines or as JSON objects. The filter is `RUST_LOG` or, without
/// it, `level` (the value of `logging.level`). Fails if either is invalid. The returned loggers
/// change the filter. In a process that has a subscriber already, that one stays, and the returned
/// loggers change nothing.
pub fn init_tracing(level: &str, json: bool) -> Result<Loggers, InvalidFilter> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let filter = choose_filter(from_environment.as_deref(), level)?;
    let (filter_layer, handle) = reload::Layer::new(filter.parsed);
    let lines = layer()
        .with_writer(std::io::stderr)
        // Otherwise an error of writing to stderr would be written to stderr, too, and panic. A
        // full disk under the log must not stop the broker.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    // If there is a subscriber already, it stays.
    let _ = registry().with(filter_layer).with(lines).try_init();
    Ok(Loggers::new(&filter.text, move |changed| handle.reload(changed)))
}

/// A line in the format of JSON log lines, for output that does not go through the subscriber.
pub fn json_line(fields: serde_json::Value) -> String {
    let mut timestamp = String::new();
    // If the clock cannot be read, the timestamp is empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = serde_json::json!({
        "timestamp": timestamp, "level": "INFO", "fields": fields, "target": env!("CARGO_PKG_NAME"),
    });
    line.to_string()
}

/// A valid log filter.
#[derive(Debug)]
struct Filter {
    /// Its directives, separated by commas without blanks.
    text: String,
    parsed: EnvFilter,
}

fn choose_filter(environment: Option<&str>, level: &str) -> Result<Filter, InvalidFilter> {
    let configured = parse("logging.level", level)?;
    match environment.filter(|text| !text.trim().is_empty()) {
        Some(text) => parse("RUST_LOG", text),
        None => Ok(configured),
    }
}

/// Parses a log filter. A word that is neither a level nor a known module name is an error:
/// `EnvFilter` would take it for a module, log everything of that module, and nothing else. A
/// filter without directives is an error, too. [`QUIET`] is added to a filter that does not name
/// the Raft library.
fn parse(source_name: &'static str, filter: &str) -> Result<Filter, InvalidFilter> {
    let invalid = || InvalidFilter { source_name, filter: filter.to_owned() };
    let mut directives: Vec<&str> =
        filter.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    let is_module = |it: &str| it.contains(['=', '[']) || it.contains("::") || NAMES.contains(&it);
    let is_level = |it: &str| it.parse::<LevelFilter>().is_ok();
    if directives.is_empty() || !directives.iter().all(|it| is_level(it) || is_module(it)) {
        return Err(invalid());
    }
    if !filter.contains("openraft") {
        directives.push(QUIET);
    }
    let text = directives.join(",");
    let parsed = EnvFilter::try_new(&text).map_err(|_| invalid())?;
    Ok(Filter { text, parsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins() {
        let chosen = |environment, level| choose_filter(environment, level).map(|it| it.text);
        assert_eq!(chosen(Some("debug"), "warn").expect("valid"), "debug,openraft=off");
        assert_eq!(chosen(None, "warn").expect("valid"), "warn,openraft=off");
        assert_eq!(chosen(Some(""), "warn").expect("valid"), "warn,openraft=off");
        let named = Some("debug, openraft=warn");
        assert_eq!(chosen(named, "warn").expect("valid"), "debug,openraft=warn");
        assert!(chosen(Some("garbage"), "warn").is_err());
        assert!(chosen(Some("debug"), "garbage").is_err());
    }

    #[test]
    fn filters_that_are_no_levels_or_directives_are_refused() {
        for filter in [
            "info",
            "WARN",
            "off",
            "0",
            "info,sordini::quorum=debug",
            "sordini=debug",
            "sordini",
            "sordini::net",
            "warn, openraft=off",
            "[span]=debug",
            "sordini[request{api=1}]=trace",
        ] {
            assert!(parse("RUST_LOG", filter).is_ok(), "{filter}");
        }
        for filter in
            ["verbose", "garbage", "infos", "a=b=c", "sordini=verbose", "info,loud", "", ",", "6"]
        {
            let refusal = parse("logging.level", filter).expect_err(filter).to_string();
            let start = format!("Invalid value {filter} for logging.level: it must be a level");
            assert!(refusal.starts_with(&start), "{refusal}");
        }
    }

    #[test]
    fn starting_twice_is_harmless() {
        init_tracing("info", false).expect("valid");
        init_tracing("debug", true).expect("valid");
    }
}
