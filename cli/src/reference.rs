//! Decides what the reference in `docs/` says of command lines: verbs and options of each program, and exit codes.

use clap::{Arg, Command, CommandFactory};

use crate::arguments::Arguments;
use crate::outcome::{ERROR, Outcome};

/// How a text of help begins its part about exit codes.
const EXIT_CODES: &str = "Exit codes: ";

/// The page about verbs and options.
pub fn verbs() -> String {
    let program = program();
    let about = about(&program);
    let mut page = format!(
        "# kubectl lamina\n\nMade by `make generate` from `cli/src/arguments.rs`; do not edit.\n\n{about} \
         [How to use it](../kubectl-lamina.md) leads through it; [exit codes](exit-codes.md) have a page.\n\n\
         Everywhere:\n\n{OPTIONS}"
    );
    page.extend(program.get_arguments().filter(|argument| !argument.is_hide_set()).map(row));
    page.extend(verbs_of(&program).map(section));
    page
}

const OPTIONS: &str = "| Argument | Values | Default | Meaning |\n|---|---|---|---|\n";

fn section(verb: &Command) -> String {
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let arguments: String = own(verb).map(row).collect();
    let table = if arguments.is_empty() { String::new() } else { format!("\n{OPTIONS}{arguments}") };
    format!("\n## {}\n\n{}\n\n```text\n{usage}\n```\n{table}", verb.get_name(), about(verb))
}

/// Arguments of a verb that stand not on every verb.
fn own(verb: &Command) -> impl Iterator<Item = &Arg> {
    let is_everywhere = |argument: &&Arg| argument.is_global_set() || argument.get_id() == "help";
    verb.get_arguments().filter(move |argument| !is_everywhere(argument) && !argument.is_hide_set())
}

fn row(argument: &Arg) -> String {
    let names = [
        argument.get_short().map(|short| format!("`-{short}`")),
        argument.get_long().map(|long| format!("`--{long}`")),
    ];
    let names: Vec<String> = names.into_iter().flatten().collect();
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let takes_value = argument.get_action().takes_values() && !value.is_empty();
    let name = match (names.is_empty(), takes_value) {
        (true, _) => format!("`{value}`"),
        (false, true) => format!("{} `{value}`", names.join(", ")),
        (false, false) => names.join(", "),
    };
    let choices = argument.get_possible_values();
    let choices = choices.iter().filter(|_| takes_value).map(|choice| format!("`{}`", choice.get_name()));
    let defaults = argument.get_default_values().iter().filter(|_| takes_value);
    let defaults = defaults.map(|value| format!("`{}`", value.to_string_lossy()));
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (choices, defaults): (Vec<String>, Vec<String>) = (choices.collect(), defaults.collect());
    format!("| {name} | {} | {} | {} |\n", choices.join(", "), defaults.join(", "), help.replace('|', "\\|"))
}

/// The page about the programs that run without people: their options, environment variables and subcommands.
#[cfg(all(feature = "local", target_os = "linux"))]
pub fn programs() -> String {
    let mut page =
        "# lamina-operator and lamina-node-agent\n\nMade by `make generate` from `operator/src/flags.rs` and \
        `node-agent/src/options.rs`; do not edit.\n\nThe chart and the Debian package start both with what they need; \
        [exit codes](exit-codes.md) have a page. `RUST_LOG` says how much of each is logged (`error`, `warn`, `info`, \
        `debug`, `trace`; `info` without it).\n"
            .to_owned();
    for mut program in [lamina_operator::flags::Flags::command(), lamina_node_agent::options::Options::command()] {
        program.build();
        let options = program.get_arguments().filter(|argument| !is_for_help(argument)).map(served_row);
        let options: String = options.collect();
        page.push_str(&format!("\n## {}\n\n{}\n\n{SERVED}{options}", program.get_name(), about(&program)));
        for verb in verbs_of(&program) {
            let options: String = own(verb).map(served_row).collect();
            page.push_str(&format!("\n### {} {}\n\n{}\n", program.get_name(), verb.get_name(), about(verb)));
            page.push_str(&format!("\n{SERVED}{options}"));
        }
    }
    page
}

/// The head of a table of options that may come from the environment, too.
#[cfg(all(feature = "local", target_os = "linux"))]
const SERVED: &str = "| Argument | Variable | Values | Default | Meaning |\n|---|---|---|---|---|\n";

#[cfg(all(feature = "local", target_os = "linux"))]
fn served_row(argument: &Arg) -> String {
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let row = row(argument);
    let (name, rest) = row[2..].split_once(" | ").unwrap_or_default();
    format!("| {name} | {variable} | {rest}")
}

#[cfg(all(feature = "local", target_os = "linux"))]
fn is_for_help(argument: &Arg) -> bool {
    ["help", "version"].contains(&argument.get_id().as_str())
}

/// The page about exit codes.
pub fn exit_codes() -> String {
    let program = program();
    let code = |outcome: Outcome| outcome.code();
    let mut page = format!(
        "# Exit codes\n\nMade by `make generate` from `cli/src/outcome.rs` and `cli/src/arguments.rs`; do not edit.\n\n\
         ## kubectl lamina\n\n| Code | Meaning |\n|---:|---|\n\
         | {} | it is done: as asked, nothing to change |\n\
         | {} | something would change, or is not as asked yet |\n\
         | {ERROR} | an error, a mistake on the command line, or something that cannot be done |\n\n\
         | Verb | Its codes |\n|---|---|\n",
        code(Outcome::Done),
        code(Outcome::Changes),
    );
    let general = exit_codes_of(&program).unwrap_or_default();
    page.extend(verbs_of(&program).map(|verb| {
        let told = exit_codes_of(verb).unwrap_or_else(|| "0 done, 1 error".to_owned());
        format!("| `{}` | {} |\n", verb.get_name(), told.replace('|', "\\|"))
    }));
    page.push_str(&format!("\n`kubectl lamina --help` says in short: {general}.\n"));
    page.push_str(OTHERS);
    page
}

const OTHERS: &str = "\n## lamina-node-agent\n\n\
| Called as | Codes |\n|---|---|\n\
| a service | 0 asked to end by SIGTERM or SIGINT, 1 it cannot begin: another agent works on this host, or the host cannot be \
watched |\n\
| `--once` | 0 everything asked is true and measured, 2 something is not, 1 error |\n\
| `restore TOPOLOGY` | 0 the former files stand there again, 1 refused or failed |\n\
| with a mistake on the command line | 2 |\n\n\
## lamina-operator\n\n\
| Called as | Codes |\n|---|---|\n\
| a service | 0 asked to end, 1 it cannot begin, or was asked to end twice |\n\
| `teardown` | 0 nothing that Lamina ran is left, 1 something is, or an error |\n\
| with a mistake on the command line | 2 |\n";

/// The sentence about exit codes in the help of a verb.
fn exit_codes_of(command: &Command) -> Option<String> {
    let text = command.get_after_help().map(ToString::to_string)?;
    let (_, codes) = text.split_once(EXIT_CODES)?;
    let codes: Vec<&str> = codes.split_whitespace().collect();
    Some(codes.join(" ").trim_end_matches('.').to_owned())
}

fn program() -> Command {
    let mut program = Arguments::command();
    program.build();
    program
}

fn verbs_of(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if about.is_empty() || about.ends_with('.') { about } else { format!("{about}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(feature = "local", target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "the committed pages are what is compared")]
    fn the_committed_pages_are_those_of_the_command_line() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference");
        for (name, page) in
            [("kubectl-lamina.md", verbs()), ("exit-codes.md", exit_codes()), ("programs.md", programs())]
        {
            let committed = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            assert!(committed == page, "docs/reference/{name} is old; run `make generate`");
        }
    }

    #[test]
    fn every_argument_says_what_it_means() {
        let program = program();
        for verb in verbs_of(&program) {
            assert!(!about(verb).is_empty(), "{}", verb.get_name());
            for argument in own(verb) {
                assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }
}
