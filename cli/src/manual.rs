//! Decides what the pages of the manual say: what the command line knows of itself, as man(1) reads it.

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::arguments::Arguments;

/// The page about a verb, or about all.
///
/// # Errors
/// Names the verbs, if this is none of them.
pub fn page(verb: Option<&str>) -> Result<String, String> {
    let all = whole();
    let Some(verb) = verb else { return rendered(all) };
    match all.get_subcommands().find(|command| command.get_name() == verb && !command.is_hide_set()) {
        Some(command) => rendered(command.clone().version(env!("CARGO_PKG_VERSION"))),
        None => Err(format!("manual: there is no verb {verb}; verbs are {}", verbs().join(", "))),
    }
}

/// The names of the verbs that have a page.
pub fn verbs() -> Vec<String> {
    let all = whole();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// The command line; each verb knows the flags that all have, and is called as its page is.
fn whole() -> Command {
    let mut all = Arguments::command().disable_help_subcommand(true);
    all.build();
    let names: Vec<String> = all.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    names.into_iter().fold(all, |all, verb| {
        let page = format!("kubectl-lamina-{verb}");
        all.mut_subcommand(verb, |command| command.display_name(page))
    })
}

fn rendered(command: Command) -> Result<String, String> {
    let man = Man::new(command).manual("Lamina").section("1").source(format!("Lamina {}", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render(&mut text).map_err(|error| format!("write the page: {error}"))?;
    String::from_utf8(text).map_err(|error| format!("write the page: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_verb_and_its_flags() {
        let page = page(Some("verify")).expect("a verb");
        for words in ["kubectl\\-lamina\\-verify", "\\-\\-interval", "\\-\\-context", "\\-\\-color", "Exit codes"] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
        let error = super::page(Some("fly")).expect_err("no verb");
        assert!(error.contains("there is no verb fly") && error.contains("status"), "{error}");
    }
}
