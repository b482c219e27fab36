//! What the page about troubleshooting quotes is what operator and agent can say.

#![expect(clippy::disallowed_methods, reason = "it reads the sources of who speaks")]

use std::collections::BTreeSet;
use std::path::Path;

use crate::pages::{page, read, root};

const PAGE: &str = "docs/troubleshooting.md";
/// Another page, whose blocks of text are messages.
const PODS: &str = "docs/beside-pods.md";
/// Who speaks in conditions.
const SPEAKERS: [&str; 3] = ["crds/src", "node-agent/src", "operator/src"];

#[test]
fn every_message_that_is_quoted_can_be_said() {
    let sentences = sentences();
    let messages = quoted(&read(PAGE));
    assert!(messages.len() > 20, "{PAGE} quotes only {messages:?}");
    let of_pods = page(PODS.to_owned());
    let told = of_pods.blocks().filter(|(words, _)| *words == "text");
    let told: Vec<String> = told.map(|(_, text)| one_line(text)).collect();
    assert_eq!(told.len(), 2, "{PODS} quotes {told:?}");
    for message in messages.into_iter().chain(told) {
        for clause in message.split("; ") {
            let parts = || clause.split(": ").filter(|part| part.contains(' '));
            let is_said = sentences.can_say(clause) || parts().all(|part| sentences.can_say(part));
            assert!(is_said, "the book quotes `{message}`, of which nobody says `{clause}`");
        }
    }
}

/// Paragraphs that are messages, each on one line.
fn quoted(page: &str) -> Vec<String> {
    let paragraphs = page.split("\n\n").map(str::trim);
    let message = |paragraph: &str| {
        let inner = paragraph.strip_prefix('`')?.strip_suffix('`')?;
        let is_one = !inner.contains('`') && inner.contains(' ');
        is_one.then(|| one_line(inner))
    };
    paragraphs.filter_map(message).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The constant parts of what can be said; between them stands what is filled in.
struct Sentences(BTreeSet<Vec<String>>);

impl Sentences {
    fn can_say(&self, text: &str) -> bool {
        self.0.iter().any(|parts| fits(parts, text))
    }
}

/// Whether a text is these parts in their order, with something between every two.
fn fits(parts: &[String], text: &str) -> bool {
    let [first, between @ .., last] = parts else {
        return parts.iter().any(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
        return false;
    };
    for part in between {
        let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
        rest = after;
    }
    true
}

fn sentences() -> Sentences {
    let mut all = BTreeSet::new();
    for folder in SPEAKERS {
        collect(&root().join(folder), &mut all);
    }
    Sentences(all)
}

fn collect(folder: &Path, all: &mut BTreeSet<Vec<String>>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, all);
        } else {
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            all.extend(literals(code).iter().flat_map(|literal| clauses(literal)));
        }
    }
}

/// The clauses of a literal as parts; what has no two words of its own could be anything.
fn clauses(literal: &str) -> Vec<Vec<String>> {
    let whole = literal.split("; ");
    let pieces = literal.split("; ").flat_map(|clause| clause.split(": "));
    let parts = |clause: &str| -> Option<Vec<String>> {
        let mut parts = vec![String::new()];
        for (at, piece) in clause.split(['{', '}']).enumerate() {
            if at % 2 == 0 { parts.last_mut()?.push_str(piece) } else { parts.push(String::new()) }
        }
        let words: usize = parts.iter().map(|part| part.split_whitespace().count()).sum();
        (words >= 2).then_some(parts)
    };
    whole.chain(pieces).filter_map(parts).collect()
}

/// The text literals of a source, with continued lines joined.
fn literals(code: &str) -> Vec<String> {
    let mut literals = Vec::new();
    let mut symbols = code.chars();
    while let Some(symbol) = symbols.next() {
        match symbol {
            '"' => literals.push(literal(&mut symbols)),
            // A quotation mark as a single symbol begins no text.
            '\'' if symbols.as_str().starts_with("\"'") => drop(symbols.nth(1)),
            _ => {}
        }
    }
    literals
}

/// The rest of a literal whose opening mark was read.
fn literal(symbols: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(symbol) = symbols.next() {
        match symbol {
            '"' => break,
            '\\' => match symbols.next() {
                Some('\n') => {
                    let rest = symbols.as_str();
                    *symbols = rest.trim_start().chars();
                }
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}

#[test]
fn a_message_is_known_by_its_constant_parts() {
    let code = "let x = '\"'; format!(\"{host}: slice {name} asks for \\\n    CPUs {cpus}; name \\\"others\\\"\")";
    assert_eq!(literals(code), ["{host}: slice {name} asks for CPUs {cpus}; name \"others\""]);
    let parts = clauses("{host}: slice {name} asks for CPUs {cpus}; name others");
    let can_say = |text: &str| parts.iter().any(|parts| fits(parts, text));
    assert!(can_say("slice a asks for CPUs 0-3") && can_say("host-7: slice a asks for CPUs 0-3"));
    assert!(can_say("name others") && !can_say("name others too") && !can_say("slice a wants CPUs 0-3"));
    assert_eq!(quoted("`a b\nc; d`\n\n`--flag`\n\n`a b` and `c d`\n"), ["a b c; d"]);
}
