mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse_args() {
        Ok(loaded) => serve(loaded),
        Err(cli::CliError::Usage(usage)) => {
            // Help goes to stdout, complaints to stderr; there is nobody to tell if that fails.
            let _ = usage.print();
            ExitCode::from(cli::CliError::Usage(usage).exit_code())
        }
        Err(error) => {
            eprintln!("sordini: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(loaded: sordini::base::config::Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("sordini: warning: {warning}");
    }
    ExitCode::SUCCESS
}
