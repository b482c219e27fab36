//! Reads the pages that people read: the book in `docs/`, and what stands beside the code.

#![expect(clippy::disallowed_methods, reason = "the committed pages are what is read")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Pages that are not part of the book.
const BESIDE: [&str; 4] = ["README.md", "CONTRIBUTING.md", "charts/lamina/README.md", "CHANGELOG.md"];
/// The book's table of contents, which is no page of it.
pub const SUMMARY: &str = "docs/SUMMARY.md";

/// One page.
pub struct Page {
    /// Its path in the repository.
    pub path: String,
    /// What links and quotations say.
    pub parts: Vec<Part>,
    /// Its text as it is written.
    pub text: String,
}

/// A part of a page that can be true or not.
pub enum Part {
    /// A heading, by the anchor that leads to it.
    Heading { title: String, anchor: String },
    /// A link or picture.
    Link { target: String },
    /// A block of code with the words behind its opening fence.
    Block { info: String, text: String },
    /// Code within a sentence.
    Span { text: String },
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page of the book.
pub fn book() -> Vec<Page> {
    let mut paths = Vec::new();
    collect(&root().join("docs"), "docs", &mut paths);
    paths.sort();
    paths.into_iter().filter(|path| path != SUMMARY).map(page).collect()
}

/// The book, what stands beside the code, and the table of contents.
pub fn all() -> Vec<Page> {
    let beside = BESIDE.into_iter().chain([SUMMARY]).map(|path| page(path.to_owned()));
    book().into_iter().chain(beside).collect()
}

fn collect(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{prefix}/{}", entry.file_name().to_str().expect("a plain name"));
        if entry.path().is_dir() {
            collect(&entry.path(), &path, paths);
        } else if path.ends_with(".md") {
            paths.push(path);
        }
    }
}

/// One page by its path.
pub fn page(path: String) -> Page {
    let text = read(&path);
    Page { parts: parts(&text), path, text }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut heading: Option<String> = None;
    let mut block: Option<(String, String)> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let title = heading.take().unwrap_or_default();
                let anchor = anchor(&title, &mut known);
                parts.push(Part::Heading { title, anchor });
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                parts.push(Part::Link { target: dest_url.to_string() });
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                block = Some((info, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => {
                parts.extend(block.take().map(|(info, text)| Part::Block { info, text }));
            }
            Event::Text(words) => match (&mut heading, &mut block) {
                (Some(title), _) => title.push_str(&words),
                (None, Some((_, text))) => text.push_str(&words),
                (None, None) => {}
            },
            Event::Code(words) => {
                if let Some(title) = &mut heading {
                    title.push_str(&words);
                }
                parts.push(Part::Span { text: words.to_string() });
            }
            _ => {}
        }
    }
    parts
}

/// The anchor of a heading, as mdBook and most forges make it; the second one of a name gets a number.
fn anchor(title: &str, known: &mut BTreeMap<String, usize>) -> String {
    let symbol = |symbol: char| match symbol {
        symbol if symbol.is_alphanumeric() || matches!(symbol, '-' | '_') => Some(symbol.to_ascii_lowercase()),
        symbol if symbol.is_whitespace() => Some('-'),
        _ => None,
    };
    let name: String = title.chars().filter_map(symbol).collect();
    let count = known.entry(name.clone()).or_default();
    *count += 1;
    if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
}

impl Page {
    /// Blocks of code: the words behind the fence, and the text.
    pub fn blocks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Block { info, text } => Some((info.as_str(), text.as_str())),
            Part::Heading { .. } | Part::Link { .. } | Part::Span { .. } => None,
        })
    }

    /// Code within sentences.
    pub fn spans(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Span { text } => Some(text.as_str()),
            Part::Heading { .. } | Part::Link { .. } | Part::Block { .. } => None,
        })
    }

    /// Where links lead.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Link { target } => Some(target.as_str()),
            Part::Heading { .. } | Part::Span { .. } | Part::Block { .. } => None,
        })
    }

    /// Headings: title and anchor.
    pub fn headings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Heading { title, anchor } => Some((title.as_str(), anchor.as_str())),
            Part::Link { .. } | Part::Span { .. } | Part::Block { .. } => None,
        })
    }

    /// Its text with every run of white space as one space: sentences are found whatever line they end on.
    pub fn words(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
