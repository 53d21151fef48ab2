mod cli;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use sordini::{
    base::config::{Loaded, keys},
    server::{Environment, Server},
    telemetry::init_tracing,
};
use tokio::runtime::Builder;

/// Worker threads of the runtime for the quorum, the controller and the broker's heartbeats. While
/// one of them writes to the metadata log, the other continues.
const CONTROL_WORKERS: usize = 2;
/// The longest time that the end of the process waits for blocking threads.
const BLOCKED_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match cli::parse_args() {
        Ok(cli::Task::Serve(loaded)) => serve(*loaded),
        Ok(cli::Task::PrintKeys) => match io::stdout().write_all(keys::page().as_bytes()) {
            // A broken pipe is no failure: for example, `head` closes it early.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                complain(&error);
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(cli::CliError::Usage(usage)) => {
            // Help goes to stdout, errors to stderr. Either may be closed, which is ignored.
            let _ = usage.print();
            ExitCode::from(cli::CliError::Usage(usage).exit_code())
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints an error to stderr. A full or closed stderr is ignored; `eprintln!` would panic.
fn complain(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "sordini: {error}");
}

/// Runs the broker until it is stopped or fails.
fn serve(loaded: Loaded) -> ExitCode {
    let settings = &loaded.config.broker;
    let loggers = match init_tracing(&settings.logging_level, settings.logging_json) {
        Ok(loggers) => loggers,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let is_json = settings.logging_json;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let control = Builder::new_multi_thread()
        .worker_threads(CONTROL_WORKERS)
        .thread_name("control")
        .enable_all()
        .build();
    let runtimes =
        Builder::new_multi_thread().enable_all().build().and_then(|it| Ok((it, control?)));
    let ran = match runtimes {
        Ok((runtime, control)) => {
            let environment =
                Environment { loggers, ..Environment::real(control.handle().clone()) };
            let ran = runtime.block_on(Server::run(loaded.config, environment));
            // Blocking threads of an interrupted start may still be opening logs.
            runtime.shutdown_timeout(BLOCKED_MAX);
            control.shutdown_background();
            ran
        }
        Err(error) => Err(error.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match is_json {
                true => tracing::error!(%error, "broker failed"),
                false => complain(&error),
            }
            ExitCode::FAILURE
        }
    }
}
