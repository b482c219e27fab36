//! Every `kubectl lamina` of a page is a command line that the program takes; those that need nothing but files of the
//! source are run, and answer what stands below them.

#![expect(clippy::disallowed_methods, reason = "it writes the reader's files")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use lamina_cli::arguments::{Arguments, Verb};

use crate::pages::{Page, all, root};

/// What of the source a reader uses.
const SOURCE: [&str; 2] = ["charts", "examples"];

/// A command of a page, and what it answers there.
struct Told {
    line: String,
    words: Vec<String>,
    answer: Vec<String>,
    /// Whether something takes its answer, or what stands below it is not all there is.
    is_piped: bool,
}

#[test]
fn every_command_line_of_ours_is_one() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in all() {
        for told in told(&page) {
            seen += 1;
            if let Err(error) = Arguments::try_parse_from(&told.words)
                && error.use_stderr()
            {
                wrong.push(format!("{}: {}: {error}", page.path, told.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 10, "only {seen} commands are found");
}

#[test]
fn what_needs_only_files_answers_what_the_page_says() {
    let mut wrong = Vec::new();
    let mut ran = 0;
    for page in all() {
        let folder = folder(&page);
        for told in told(&page).into_iter().filter(|told| !told.is_piped && !told.answer.is_empty()) {
            let Ok(Arguments { verb, .. }) = Arguments::try_parse_from(&told.words) else { continue };
            if !needs_only_files(&verb, folder.path()) {
                continue;
            }
            ran += 1;
            let found = run(&told.words, folder.path());
            if !agrees(&told.answer, &found) {
                wrong.push(format!("{}: $ {}\n{}", page.path, told.line, found.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "these answer otherwise than their pages say:\n{}", wrong.join("\n\n"));
    assert!(ran > 5, "only {ran} commands were run");
}

/// Where a reader of this page types: the source, and the objects that the page names.
fn folder(page: &Page) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in SOURCE {
        symlink(root().canonicalize().expect("the source").join(name), folder.path().join(name)).expect("a link");
    }
    for (info, text) in page.blocks() {
        for name in info.split_whitespace().skip(1).filter(|word| word.ends_with(".yaml")) {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
    }
    folder
}

/// Whether a reader with the source alone can run it, on any machine.
fn needs_only_files(verb: &Verb, folder: &Path) -> bool {
    let is_there = |path: &PathBuf| folder.join(path).exists();
    match verb {
        Verb::Hardware(arguments) => arguments.path.as_ref().is_some_and(is_there),
        Verb::Plan(arguments) => arguments.hardware.iter().chain(&arguments.topologies).all(is_there),
        Verb::Place(arguments) => arguments.path.as_ref().is_some_and(is_there),
        Verb::Map(arguments) => {
            arguments.path.is_some() && arguments.path.iter().chain(&arguments.topologies).all(is_there)
        }
        Verb::Import(arguments) => is_there(&arguments.directory),
        _ => false,
    }
}

/// What a person would see: both outputs, as the terminal of a page is, without trailing spaces.
fn run(words: &[String], folder: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lamina"));
    command.args(&words[1..]).current_dir(folder).env("NO_COLOR", "1");
    let output = command.output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8(output.stderr).expect("UTF-8");
    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Whether an answer is what is written, where a line `...` stands for any number of lines.
fn agrees(written: &[String], found: &[String]) -> bool {
    match written.split_first() {
        None => found.is_empty(),
        Some((line, rest)) if line == "..." => (0..=found.len()).any(|skipped| agrees(rest, &found[skipped..])),
        Some((line, rest)) => found.first() == Some(line) && agrees(rest, &found[1..]),
    }
}

fn told(page: &Page) -> Vec<Told> {
    let mut all = Vec::new();
    for (info, text) in page.blocks() {
        match info.split_whitespace().next() {
            Some("console") => sessions(text, &mut all),
            Some("sh") => all.extend(text.lines().filter_map(command)),
            Some(_) | None => {}
        }
    }
    all
}

/// Commands behind a prompt, each with the lines up to the next prompt.
fn sessions(text: &str, all: &mut Vec<Told>) {
    let mut is_ours = false;
    for line in text.lines() {
        match behind_prompt(line) {
            Some(line) => {
                let found = command(line);
                is_ours = found.is_some();
                all.extend(found);
            }
            None if is_ours => all.last_mut().into_iter().for_each(|told| told.answer.push(line.trim_end().to_owned())),
            None => {}
        }
    }
    for told in all {
        while told.answer.last().is_some_and(String::is_empty) {
            told.answer.pop();
        }
    }
}

/// The command behind `$ `, `# ` or `host-7# `.
fn behind_prompt(line: &str) -> Option<&str> {
    let (prompt, rest) = line.split_once(' ')?;
    let is_host = |name: &str| name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '-');
    (prompt == "$" || prompt.strip_suffix('#').is_some_and(is_host)).then_some(rest)
}

fn command(line: &str) -> Option<Told> {
    let rest = line.trim_start().strip_prefix("kubectl lamina ").or_else(|| line.strip_prefix("kubectl-lamina "))?;
    let mut words = vec!["kubectl-lamina".to_owned()];
    let mut is_piped = false;
    for word in split(rest) {
        match word.as_str() {
            "#" => break,
            "|" | ">" | "&&" | "2>" | "||" => {
                is_piped = true;
                break;
            }
            word => words.push(word.to_owned()),
        }
    }
    Some(Told { line: line.to_owned(), words, answer: Vec::new(), is_piped })
}

/// The words of a command line, as a shell would see them, quotes taken off.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for symbol in line.chars() {
        match (quote, symbol) {
            (Some(open), symbol) if symbol == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(symbol);
                word.get_or_insert_default();
            }
            (None, symbol) if symbol.is_whitespace() => words.extend(word.take()),
            (_, symbol) => word.get_or_insert_default().push(symbol),
        }
    }
    words.extend(word);
    words
}

#[test]
fn what_is_left_out_may_be_anything() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(agrees(&lines("a\n...\nc"), &lines("a\nb\nb\nc")));
    assert!(agrees(&lines("a\n..."), &lines("a")));
    assert!(!agrees(&lines("a\n...\nc"), &lines("a\nb")));
    assert_eq!(split("-f 'a b' --x=\"\" c"), ["-f", "a b", "--x=", "c"]);
}
