//! Decides how words on the command line are completed: as a script for a shell, and as kubectl asks for it.

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate};

use crate::arguments::{Arguments, ShellChoice};

/// What follows the candidates that kubectl asked for, after a colon: no files are offered beside them (cobra's
/// `ShellCompDirectiveNoFileComp`); 0 leaves the shell to offer files, where a path may be meant.
const NO_FILES: u8 = 4;
const FILES: u8 = 0;

/// The script for a shell.
pub fn script(shell: ShellChoice) -> String {
    let shell = match shell {
        ShellChoice::Bash => Shell::Bash,
        ShellChoice::Zsh => Shell::Zsh,
        ShellChoice::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    generate(shell, &mut Arguments::command(), "kubectl-lamina", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The words that may stand in place of the last one, each with its meaning behind a tab, as kubectl reads them of
/// `kubectl_complete-lamina`.
pub fn candidates(words: &[String]) -> String {
    let (last, before) = words.split_last().map_or(("", [].as_slice()), |(last, before)| (last.as_str(), before));
    let all = Arguments::command();
    let verb = before.iter().find_map(|word| all.find_subcommand(word));
    let command = verb.unwrap_or(&all);
    let valued =
        before.last().and_then(|word| flag(command, &all, word)).filter(|flag| flag.get_action().takes_values());
    let (found, directive) = match valued {
        Some(flag) => values_of(flag),
        None if last.starts_with('-') => (flags(command, &all), NO_FILES),
        None if verb.is_none() => (verbs(&all), NO_FILES),
        None => command.get_positionals().next().map_or_else(|| (Vec::new(), NO_FILES), values_of),
    };
    let begun = found.into_iter().filter(|(word, _)| word.starts_with(last));
    let lines: String = begun.map(|(word, meaning)| format!("{word}\t{meaning}\n")).collect();
    format!("{lines}:{directive}\n")
}

type Candidates = Vec<(String, String)>;

fn verbs(all: &Command) -> Candidates {
    let shown = all.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown.map(|verb| (verb.get_name().to_owned(), meaning(verb.get_about().map(ToString::to_string)))).collect()
}

fn flags(command: &Command, all: &Command) -> Candidates {
    let global = all.get_arguments().filter(|flag| flag.is_global_set());
    let flags = command.get_arguments().chain(global).filter(|flag| !flag.is_hide_set());
    let long = flags.filter_map(|flag| {
        Some((format!("--{}", flag.get_long()?), meaning(flag.get_help().map(ToString::to_string))))
    });
    let mut flags: Candidates = long.chain([("--help".to_owned(), "Print help".to_owned())]).collect();
    flags.sort();
    flags.dedup_by(|one, other| one.0 == other.0);
    flags
}

/// The flag that a word is.
fn flag<'a>(command: &'a Command, all: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().chain(all.get_arguments()).find(|flag| {
        let long = flag.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || flag.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&short.to_string()))
    })
}

fn values_of(argument: &Arg) -> (Candidates, u8) {
    let values = argument.get_possible_values();
    let told = values.iter().filter(|value| !value.is_hide_set());
    let told: Candidates =
        told.map(|value| (value.get_name().to_owned(), meaning(value.get_help().map(ToString::to_string)))).collect();
    let directive = if told.is_empty() { FILES } else { NO_FILES };
    (told, directive)
}

/// The first sentence of a help text, on one line.
fn meaning(help: Option<String>) -> String {
    help.unwrap_or_default().lines().next().unwrap_or_default().replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        let told = candidates(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        told.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn kubectl_is_told_verbs_flags_and_values() {
        assert_eq!(words(&["sta"]), ["status", ":4"]);
        assert!(words(&[""]).iter().all(|word| word != "__complete"));
        assert_eq!(words(&["top", "host-7", "--inter"]), ["--interval", ":4"]);
        assert_eq!(words(&["verify", "-o", ""]), ["table", "wide", "json", "yaml", ":4"]);
        assert_eq!(words(&["verify", "--output", "y"]), ["yaml", ":4"]);
        assert_eq!(words(&["status", "--color", "n"]), ["never", ":4"]);
        assert_eq!(words(&["completion", ""]), ["bash", "zsh", "fish", ":4"]);
        assert_eq!(words(&["plan", "-f", ""]), [":0"], "a file may be meant");
    }

    #[test]
    fn each_shell_has_a_script_that_knows_the_verbs() {
        for shell in [ShellChoice::Bash, ShellChoice::Zsh, ShellChoice::Fish] {
            assert!(script(shell).contains("verify"), "{shell:?}");
        }
    }
}
