//! Every link leads somewhere, and the table of contents names every page.

use std::collections::BTreeSet;

use crate::pages::{SUMMARY, all, book, page, root};

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for page in all() {
        for link in page.links().filter(|link| !link.contains("://") && !link.is_empty()) {
            if let Err(why) = follow(&page.path, link) {
                dead.push(format!("{}: {link}: {why}", page.path));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// Where a link of a page leads, as a path in the repository.
fn follow(from: &str, link: &str) -> Result<String, String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { from.to_owned() } else { resolved(from, path)? };
    if !root().join(&target).exists() {
        return Err("there is no such file".to_owned());
    }
    if from.starts_with("docs/") && !target.starts_with("docs/") {
        return Err(
            "a page of the book links to pages of the book only; name the path in the source instead".to_owned()
        );
    }
    let is_known = |target: &str| page(target.to_owned()).headings().any(|(_, known)| known == anchor);
    if !anchor.is_empty() && !is_known(&target) {
        return Err("there is no such heading".to_owned());
    }
    Ok(target)
}

/// The path of a link, seen from the root.
fn resolved(from: &str, path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop().ok_or("it leads out of the repository")?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let summary = page(SUMMARY.to_owned());
    let listed: Vec<String> =
        summary.links().filter(|link| !link.is_empty()).map(|link| format!("docs/{link}")).collect();
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice: {listed:?}");
    let pages = book();
    let pages: BTreeSet<&String> = pages.iter().map(|page| &page.path).collect();
    assert_eq!(once, pages);
}
