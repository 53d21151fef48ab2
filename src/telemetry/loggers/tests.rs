use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use tracing::{debug, info, subscriber::with_default};
use tracing_subscriber::{fmt::layer, layer::SubscriberExt, registry};

use super::*;

const API: &str = "kafka.server.KafkaApis";
const NETWORK: &str = "kafka.network.SocketServer";

fn set(logger: &'static str, level: LogLevel) -> LevelChange {
    LevelChange { logger, level: Some(level) }
}

fn unset(logger: &'static str) -> LevelChange {
    LevelChange { logger, level: None }
}

/// The levels of a start-up filter after some changes.
fn changed(filter: &str, changes: &[LevelChange]) -> Levels {
    let mut levels = Levels::from_filter(filter);
    changes.iter().for_each(|change| levels.change(*change));
    levels
}

/// Whether a module's file, or any file in a folder of modules, writes log lines.
fn logs(path: &Path) -> bool {
    let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| logs(&entry.path())),
        Err(_) => {
            let text = fs::read_to_string(path).unwrap_or_default();
            macros.iter().any(|it| text.contains(it))
        }
    }
}

#[test]
fn every_logger_stands_for_lines_that_no_other_stands_for() {
    assert!(LOGGERS.is_sorted_by(|a, b| a.0 < b.0), "names in order, each once");
    let targets: Vec<&str> = LOGGERS.iter().filter_map(|(_, target)| *target).collect();
    assert_eq!(targets.iter().collect::<BTreeSet<_>>().len(), targets.len(), "each target once");
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for target in targets.iter().filter_map(|it| it.strip_prefix("sordini::")) {
        let module = src.join(target.replace("::", "/"));
        assert!(logs(&module) || logs(&module.with_extension("rs")), "{target} logs nothing");
    }
}

#[test]
fn each_level_of_kafka_has_a_filter() {
    for (level, name, filter) in [
        (LogLevel::Fatal, "FATAL", LevelFilter::OFF),
        (LogLevel::Error, "ERROR", LevelFilter::ERROR),
        (LogLevel::Warn, "WARN", LevelFilter::WARN),
        (LogLevel::Info, "INFO", LevelFilter::INFO),
        (LogLevel::Debug, "DEBUG", LevelFilter::DEBUG),
        (LogLevel::Trace, "TRACE", LevelFilter::TRACE),
    ] {
        assert!(LogLevel::SETTABLE.contains(&level));
        assert_eq!((level.name(), level.filter()), (name, filter));
        let levels = changed("info", &[set(API, level)]);
        assert_eq!((levels.of(API), levels.of(NETWORK)), (level, LogLevel::Info));
        assert!(levels.directives().contains(&format!(",sordini::handlers={filter},")));
        if level != LogLevel::Fatal {
            assert_eq!(LogLevel::from(filter), level);
        }
    }
    assert_eq!(LogLevel::from(LevelFilter::OFF), LogLevel::Off);
}

#[test]
fn loggers_inherit_from_their_nearest_set_parent() {
    use LogLevel::{Debug, Error, Info, Warn};
    let controller = "org.apache.kafka.controller";
    let task = "org.apache.kafka.controller.QuorumController";
    let mut levels = Levels::from_filter("info");
    for (change, expected) in [
        (set("org.apache.kafka", Debug), (Info, Info, Debug, Debug)),
        (set(controller, Warn), (Info, Info, Warn, Warn)),
        (set(task, Error), (Info, Info, Warn, Error)),
        (unset(controller), (Info, Info, Debug, Error)),
        (unset("org.apache.kafka"), (Info, Info, Info, Error)),
        (set(ROOT, Warn), (Warn, Warn, Warn, Error)),
        (set("kafka", Debug), (Debug, Debug, Warn, Error)),
        (unset(task), (Debug, Debug, Warn, Warn)),
        (unset(task), (Debug, Debug, Warn, Warn)),
        (unset("kafka"), (Warn, Warn, Warn, Warn)),
    ] {
        levels.change(change);
        let got = (levels.of("kafka"), levels.of(API), levels.of(controller), levels.of(task));
        assert_eq!(got, expected, "after {change:?}");
    }
}

/// Targets of log lines: those of loggers, of modules in and around them, and of other crates.
fn targets() -> Vec<String> {
    let of_loggers = LOGGERS.iter().filter_map(|(_, target)| *target);
    let nested = of_loggers.flat_map(|target| [target.to_owned(), format!("{target}::within")]);
    let others =
        ["sordini::broker", "sordini::broker::gauges", "sordini::metadata", "hyper", "h2::x"];
    nested.chain(others.map(str::to_owned)).collect()
}

#[test]
fn without_changes_the_start_filter_stays() {
    for filter in [
        "info",
        "off",
        "sordini=debug",
        "sordini",
        "info,openraft=off",
        "warn,sordini=trace,openraft=info",
        "error,sordini::quorum=debug,sordini::quorum::network=info",
        "info,sordini::broker=debug,sordini::broker::replicas::logs=warn",
        "info,sordini::broker::replicas::replication=debug,hyper=warn,h2=off",
        "sordini::broker=debug,sordini::broker=error",
        "debug,info,sordini::h=off",
        "4,sordini::net=0",
    ] {
        let before: Targets = filter.parse().expect("valid");
        let after: Targets = Levels::from_filter(filter).directives().parse().expect("valid");
        for target in targets() {
            for level in [tracing::Level::ERROR, tracing::Level::INFO, tracing::Level::DEBUG] {
                let passes = |filter: &Targets| filter.would_enable(&target, &level);
                assert_eq!(passes(&after), passes(&before), "{filter}: {level} of {target}");
            }
        }
    }
}

#[test]
fn levels_of_the_start_filter_belong_to_loggers() {
    use LogLevel::{Debug, Info, Off, Trace, Warn};
    let of = |filter, logger| Levels::from_filter(filter).of(logger);
    assert_eq!(of("sordini=debug", ROOT), Off);
    assert_eq!(of("sordini=debug", API), Debug);
    assert_eq!(of("sordini=debug", "org.apache.kafka.controller"), Debug);
    assert_eq!(of("warn,openraft=off", API), Warn);
    assert_eq!(of("warn,openraft=off", "openraft"), Off);
    assert_eq!(of("info,sordini::broker=trace", "state.change.logger"), Trace);
    // This filter sets only `kafka` and `org.apache.kafka`, so the other loggers inherit from them.
    let lowered = changed("info,sordini=debug", &[set("kafka", Warn)]);
    assert_eq!((lowered.of(API), lowered.of("org.apache.kafka.controller")), (Warn, Debug));
    // A level from the filter stays when `root` changes, until it is unset.
    let mut levels = changed("info,sordini::net=debug", &[set(ROOT, Warn)]);
    assert_eq!((levels.of(NETWORK), levels.of(API)), (Debug, Warn));
    levels.change(unset(NETWORK));
    assert_eq!(levels.of(NETWORK), Warn);
    assert!(levels.directives().contains(",sordini::net=warn,"));
    // Directives that belong to no logger stay.
    let levels = changed("info,[span]=debug,sordini::net::output=trace", &[set(NETWORK, Info)]);
    assert!(levels.directives().starts_with("info,[span]=debug,sordini::net::output=trace,"));
}

/// The output of a subscriber.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock());
        String::from_utf8(bytes).expect("UTF-8")
    }
}

#[test]
fn changed_levels_decide_which_lines_are_written() {
    let written = Written::default();
    let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
    let writer = written.clone();
    let lines = layer().with_ansi(false).with_writer(move || writer.clone());
    let loggers = Loggers::new("info", move |changed| handle.reload(changed));
    let lines_of = |changes: &[LevelChange]| {
        loggers.alter(changes).expect("valid levels");
        written.take();
        debug!(target: "sordini::net::listener", "debug-net");
        info!(target: "sordini::net::listener", "info-net");
        debug!(target: "sordini::handlers", "debug-handlers");
        info!(target: "sordini::metadata", "info-metadata");
        let text = written.take();
        let names = ["debug-net", "info-net", "debug-handlers", "info-metadata"];
        names.into_iter().filter(|name| text.contains(name)).collect::<Vec<_>>()
    };
    with_default(registry().with(filter).with(lines), || {
        assert_eq!(lines_of(&[]), ["info-net", "info-metadata"]);
        let debug_net = lines_of(&[set(NETWORK, LogLevel::Debug)]);
        assert_eq!(debug_net, ["debug-net", "info-net", "info-metadata"]);
        let both = [unset(NETWORK), set(API, LogLevel::Trace)];
        assert_eq!(lines_of(&both), ["info-net", "debug-handlers", "info-metadata"]);
        assert_eq!(lines_of(&[set("kafka", LogLevel::Fatal)]), ["debug-handlers"]);
        assert_eq!(lines_of(&[unset("kafka"), unset(API)]), ["info-net", "info-metadata"]);
    });
}

#[test]
fn levels_stay_if_the_filter_cannot_be_replaced() {
    let (filter, handle) =
        reload::Layer::<EnvFilter, tracing_subscriber::Registry>::new("info".into());
    drop(filter);
    let loggers = Loggers::new("info", move |changed| handle.reload(changed));
    let error = loggers.alter(&[set(API, LogLevel::Debug)]).expect_err("no subscriber");
    assert!(error.to_string().starts_with("the log filter cannot be replaced: "), "{error}");
    assert!(loggers.all().contains(&(API, LogLevel::Info)));
}
