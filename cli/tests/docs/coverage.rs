//! Nothing that a reader may look for is missing: reasons that ask for a hand, verbs, alerts.

use clap::CommandFactory;
use lamina_cli::arguments::Arguments;
use lamina_crds::reference::reasons;
use lamina_crds::told::remedy;

use crate::pages::{Page, book, page, read};

#[test]
fn every_reason_that_asks_for_a_hand_has_a_section() {
    let page = page("docs/troubleshooting.md".to_owned());
    let titles: Vec<&str> = page.headings().map(|(title, _)| title).collect();
    for (reason, _) in reasons().iter().filter(|(reason, _)| remedy(*reason).is_some()) {
        assert!(titles.contains(&reason.word().as_str()), "docs/troubleshooting.md has no section {}", reason.word());
    }
}

#[test]
fn every_verb_has_a_section() {
    let pages: Vec<Page> = book().into_iter().filter(|page| page.path.starts_with("docs/kubectl-lamina")).collect();
    let titles: Vec<&str> = pages.iter().flat_map(Page::headings).map(|(title, _)| title).collect();
    let names =
        |title: &&str, verb: &str| title.split(|symbol: char| !symbol.is_alphanumeric()).any(|word| word == verb);
    let command = Arguments::command();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs.map(clap::Command::get_name) {
        assert!(
            titles.iter().any(|title| names(title, verb)),
            "no page docs/kubectl-lamina*.md has a section about {verb}"
        );
    }
}

#[test]
fn the_quickstart_shows_the_example_that_it_applies() {
    let example = read("examples/first.yaml");
    let (_, object) = example.split_once("\napiVersion:").expect("a comment, then the object");
    let page = page("docs/quickstart.md".to_owned());
    assert!(page.blocks().any(|(_, text)| text == format!("apiVersion:{object}")), "it shows another topology");
}
