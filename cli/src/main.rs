//! kubectl-lamina as a program: the command line in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use lamina_cli::arguments::Arguments;
use lamina_cli::commands::run;
use lamina_cli::outcome::ERROR;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) => {
            // clap's own exit code for mistakes is 2, which means something else here. A reader who left is no fault.
            let _ = asked.print();
            return if asked.use_stderr() { ExitCode::from(ERROR) } else { ExitCode::SUCCESS };
        }
    };
    match run(&arguments) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            eprintln!("kubectl-lamina: {error:#}");
            ExitCode::from(ERROR)
        }
    }
}
