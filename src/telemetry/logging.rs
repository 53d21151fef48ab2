//! The subscriber that writes logs to stderr.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

const DEFAULT_FILTER: &str = "info";
/// The Raft library is silent unless the filter names it: it logs a node that does not answer as an
/// error. `quorum` logs what an operator needs: leaders, voters that do not answer, and the error that
/// Raft ends with.
const QUIET: &str = "openraft=off";

/// Starts logging to stderr, as lines or as JSON objects. `RUST_LOG` wins over `filter`, which wins
/// over `info`; one that does not parse is reported and passed over. A second call changes nothing.
pub fn init_tracing(filter: Option<&str>, json: bool) {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, rejected) = choose_filter(from_environment.as_deref(), filter);
    let filter = match filter.to_string().contains("openraft") {
        true => filter,
        false => filter.add_directive(QUIET.parse().expect("a directive")),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would report a stderr that cannot be written to stderr, and panic: a full disk under
        // the log must not stop anything.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if json { subscriber.json().try_init() } else { subscriber.try_init() };
    if started.is_ok() {
        for filter in rejected {
            tracing::warn!(filter, "log filter is not valid");
        }
    }
}

/// The first filter that parses, and those before it that do not.
fn choose_filter(environment: Option<&str>, configured: Option<&str>) -> (EnvFilter, Vec<String>) {
    let mut rejected = vec![];
    for text in [environment, configured].into_iter().flatten() {
        match EnvFilter::try_new(text) {
            Ok(filter) => return (filter, rejected),
            Err(_) => rejected.push(text.to_string()),
        }
    }
    (EnvFilter::new(DEFAULT_FILTER), rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins() {
        let chosen = |environment, configured| {
            let (filter, rejected) = choose_filter(environment, configured);
            (filter.to_string(), rejected.len())
        };
        assert_eq!(chosen(Some("debug"), Some("warn")), ("debug".to_string(), 0));
        assert_eq!(chosen(None, Some("warn")), ("warn".to_string(), 0));
        assert_eq!(chosen(None, None), ("info".to_string(), 0));
        assert_eq!(chosen(Some("a=b=c"), Some("warn")), ("warn".to_string(), 1));
        assert_eq!(chosen(None, Some("a=b=c")), ("info".to_string(), 1));
    }

    #[test]
    fn starting_twice_is_harmless() {
        init_tracing(None, false);
        init_tracing(Some("debug"), true);
    }
}
