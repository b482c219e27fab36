//! kubectl-lamina as a program: the command line in, an exit code out.

use std::process::ExitCode;

use clap::Parser;
use lamina_cli::arguments::Arguments;
use lamina_cli::commands::run;
use lamina_cli::outcome::Outcome;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) => {
            // clap's own exit code for mistakes is 2, which means something else here. A reader who left is no fault.
            let _ = asked.print();
            return ExitCode::from(u8::from(asked.use_stderr()));
        }
    };
    match run(&arguments) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Changes) => ExitCode::from(2),
        Ok(Outcome::Incomplete) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kubectl-lamina: {error:#}");
            ExitCode::FAILURE
        }
    }
}
