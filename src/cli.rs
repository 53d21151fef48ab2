//! The command line: turns arguments, environment variables and a properties file into a
//! configuration.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use sordini::base::config::{FileAccess, LoadError, Loaded, Sources, load};

const AFTER_HELP: &str = "\
Without a command, `sordini` serves with its embedded defaults: clients on 127.0.0.1:9092, data in
./data, metrics and health on http://127.0.0.1:9644. There is nothing to format and no other
process to start. Try it with Apache Kafka's own tools:

  kafka-topics.sh --bootstrap-server localhost:9092 --create --topic hello
  kafka-console-producer.sh --bootstrap-server localhost:9092 --topic hello
  kafka-console-consumer.sh --bootstrap-server localhost:9092 --topic hello --from-beginning
  curl localhost:9644/metrics        (for Prometheus; /health answers 200 once it serves)

To start over, stop it and remove ./data.

Sources of the configuration; a later source overrides the earlier ones:
  1. the defaults of Apache Kafka 4.3.1, key by key
  2. the properties file, if one is given; Kafka's server.properties works as it is
  3. environment variables, as in Kafka's container images: KAFKA_LOG_DIRS=/data sets log.dirs
     (a `_` in a key is written `__`, a `-` is written `___`)
  4. --override KEY=VALUE, as often as needed
A file replaces the embedded defaults. A small file for a single broker:

  listeners=PLAINTEXT://127.0.0.1:9092
  log.dirs=/var/lib/sordini
  offsets.topic.replication.factor=1
  transaction.state.log.replication.factor=1
  transaction.state.log.min.isr=1

Examples:
  sordini serve --override listeners=PLAINTEXT://0.0.0.0:9092 \\
                --override advertised.listeners=PLAINTEXT://kafka.example.com:9092
  sordini serve --override log.dirs=/var/lib/sordini,/mnt/disk2/sordini
  sordini serve --override http.listener=0.0.0.0:9644     (or none)
  RUST_LOG=sordini=debug sordini serve /etc/kafka/server.properties

It logs to stderr. SIGTERM, SIGINT (Ctrl-C) and SIGHUP stop it in order, so that the next start need
not check its logs; under nohup it ignores SIGHUP. Nothing is reloaded: kafka-configs changes a running
broker. `sordini config` lists all keys with their defaults and effects; http.listener serves all
metrics at /metrics.";

#[derive(Parser, Debug)]
#[command(
    name = "sordini",
    version,
    about = "A Kafka broker: clients and tools of Apache Kafka connect to it as they are.",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the broker; this is what happens without a command, too.
    #[command(after_help = AFTER_HELP)]
    Serve(Serve),
    /// Prints all configuration keys with types, defaults, limits and effects, as Markdown.
    Config,
}

/// The command that the arguments select.
#[derive(Debug)]
pub enum Task {
    Serve(Box<Loaded>),
    PrintKeys,
}

#[derive(Args, Debug, Default)]
struct Serve {
    /// A Kafka properties file; without one, the embedded defaults.
    #[arg(value_name = "server.properties")]
    file: Option<PathBuf>,
    /// Sets one key, over file and environment; may be repeated.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = pair)]
    overrides: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').map(|(key, value)| (key.trim(), value)) {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE".to_owned()),
    }
}

/// The reason why the command line gives no [`Task`].
#[derive(Debug)]
pub enum CliError {
    /// The arguments are invalid, or they ask for the help or the version.
    Usage(clap::Error),
    File(PathBuf, std::io::Error),
    Config(LoadError),
}

impl CliError {
    /// The exit code of the process: 0 for help and version, 2 for invalid arguments, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(2),
            Self::File(..) | Self::Config(_) => 1,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Config(error) => error.fmt(f),
        }
    }
}

/// Reads the arguments, the environment and the properties file of this process.
pub fn parse_args() -> Result<Task, CliError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    configure(std::env::args_os(), environment.collect(), host_name())
}

fn configure(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(String, String)>,
    host_name: String,
) -> Result<Task, CliError> {
    let cli = Cli::try_parse_from(arguments).map_err(CliError::Usage)?;
    let Serve { file, overrides } = match cli.command {
        Some(Command::Config) => return Ok(Task::PrintKeys),
        Some(Command::Serve(serve)) => serve,
        None => Serve::default(),
    };
    let file = match file {
        None => None,
        Some(path) => match fs::read(&path) {
            Ok(bytes) => Some((path.display().to_string(), bytes)),
            Err(error) => return Err(CliError::File(path, error)),
        },
    };
    let files = FileAccess {
        exists: Path::exists,
        is_file: Path::is_file,
        is_dir: Path::is_dir,
        read: |path| fs::read(path),
    };
    let loaded = load(Sources { file, environment, overrides, host_name, files });
    loaded.map(|loaded| Task::Serve(Box::new(loaded))).map_err(CliError::Config)
}

/// The host name of this machine, or `localhost`. Listeners without a host advertise it.
fn host_name() -> String {
    let from_kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, CliError> {
        let arguments = ["sordini"].iter().chain(arguments).map(OsString::from);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        match configure(arguments, environment, "here".to_owned())? {
            Task::Serve(loaded) => Ok(*loaded),
            Task::PrintKeys => panic!("nothing is to be served"),
        }
    }

    #[test]
    fn no_arguments_serve_with_the_embedded_defaults() {
        let broker = run(&[], &[]).expect("starts").config.broker;
        assert_eq!((broker.node_id, broker.log_dirs.as_slice()), (1, &["./data".into()][..]));
        assert_eq!(broker.listeners[0].host, "127.0.0.1");
        assert_eq!(broker.group.offsets_topic_replication_factor, 1);
    }

    /// The properties file in the help text loads without a warning.
    #[test]
    fn the_file_in_the_help_is_whole() {
        let lines = AFTER_HELP.lines().map(str::trim);
        let shown = lines.skip_while(|line| !line.starts_with("listeners=")).take(5);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("server.properties");
        fs::write(&file, shown.collect::<Vec<_>>().join("\n")).expect("written");
        let loaded = run(&["serve", &file.display().to_string()], &[]).expect("starts");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.config.broker.log_dirs, ["/var/lib/sordini".into()] as [PathBuf; 1]);
        assert_eq!(loaded.config.broker.group.offsets_topic_replication_factor, 1);
    }

    #[test]
    fn later_sources_win() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("server.properties");
        fs::write(&file, "num.partitions=2\nnum.io.threads=3\nbackground.threads=4\n")
            .expect("written");
        let arguments = ["serve", &file.display().to_string(), "--override", "num.partitions=9"];
        let environment = [("KAFKA_NUM_PARTITIONS", "8"), ("KAFKA_NUM_IO_THREADS", "7")];
        let config = run(&arguments, &environment).expect("starts").config;
        assert_eq!(config.broker.num_partitions, 9);
        assert_eq!(config.values().i32("num.io.threads"), 7);
        assert_eq!(config.values().i32("background.threads"), 4);
        assert_eq!(config.broker.group.offsets_topic_replication_factor, 3);
    }

    #[test]
    fn what_cannot_start_says_why_in_one_line() {
        let code_of = |arguments: &[&str]| {
            let error = run(arguments, &[]).expect_err("refused");
            (error.exit_code(), error.to_string())
        };
        let (code, message) = code_of(&["serve", "--override", "num.partitions=abc"]);
        assert_eq!(code, 1);
        assert_eq!(
            message,
            "Invalid value abc for configuration num.partitions: Not a number of type INT \
             (--override sets num.partitions)"
        );
        let (code, message) = code_of(&["serve", "no-such-file"]);
        assert_eq!(code, 1);
        assert!(message.starts_with("cannot read no-such-file: "), "{message}");
        assert_eq!(code_of(&["serve", "--override", "nothing"]).0, 2);
        assert_eq!(code_of(&["bogus"]).0, 2);
        assert_eq!(code_of(&["--help"]).0, 0);
        assert!(code_of(&["--version"]).1.starts_with("sordini "));
    }
}
