//! What is committed around the catalog agrees with it: reference, alerts, runbooks, dashboard.

#![expect(clippy::disallowed_methods, reason = "the committed files are what is compared")]

use std::collections::BTreeSet;

use lamina_endpoint::catalog::{ALL, Kind};
use lamina_endpoint::reference::reference;
use serde_json::Value;

fn committed(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_yaml::from_str(&committed("charts/lamina/monitoring/alerts.yaml")).expect("YAML");
    let groups = file["groups"].as_array().expect("a list");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("a list").clone()).collect()
}

fn panels() -> Vec<Value> {
    let file: Value = serde_json::from_str(&committed("charts/lamina/monitoring/dashboard.json")).expect("JSON");
    file["panels"].as_array().expect("a list").clone()
}

fn queries() -> Vec<String> {
    let panels = panels();
    let of_panels =
        panels.iter().flat_map(|panel| panel["targets"].as_array().expect("a list")).map(|target| &target["expr"]);
    let alerts = alerts();
    let all = of_panels.chain(alerts.iter().map(|alert| &alert["expr"]));
    all.map(|query| query.as_str().expect("a text").to_owned()).collect()
}

/// Everything in a query that looks like one of our names.
fn names(query: &str) -> BTreeSet<String> {
    let is_part = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_';
    let words = query.split(|symbol| !is_part(symbol));
    words.filter(|word| word.starts_with("lamina_")).map(str::to_owned).collect()
}

#[test]
fn the_reference_is_that_of_the_catalog() {
    assert!(
        committed("docs/reference/metrics.md") == reference(),
        "docs/reference/metrics.md is old; run `make generate`"
    );
}

#[test]
fn nobody_asks_for_what_is_not_told() {
    let series = ALL.iter().flat_map(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", metric.name)).to_vec(),
        Kind::Gauge | Kind::Counter => vec![metric.name.to_owned()],
    });
    let told: BTreeSet<String> = series.collect();
    for query in queries() {
        let asked = names(&query);
        assert!(!asked.is_empty() && asked.is_subset(&told), "{query}");
    }
}

#[test]
fn whatever_is_told_is_shown() {
    let asked: BTreeSet<String> = queries().iter().flat_map(|query| names(query)).collect();
    for metric in ALL {
        assert!(asked.iter().any(|name| name.starts_with(metric.name)), "{} is on no panel", metric.name);
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_has_a_page() {
    let mut pages = BTreeSet::from(["README.md".to_owned()]);
    let overview = committed("docs/runbooks/README.md");
    let tests = committed("e2e/tests/metrics/alerts-test.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a text");
        assert!(
            ["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().expect("a text")),
            "{name}"
        );
        assert!(["summary", "description"].iter().all(|text| alert["annotations"][text].is_string()), "{name}");
        assert_eq!(alert["annotations"]["runbook_url"], format!("docs/runbooks/{name}.md"));
        let page = committed(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}: ")), "{name}");
        for heading in ["## What it means\n", "## Where to look\n", "## What to do\n"] {
            assert!(page.contains(heading), "{name} lacks {heading}");
        }
        assert!(overview.contains(&format!("[{name}]({name}.md)")), "{name} is not in the overview");
        assert!(tests.contains(&format!("name: {name}\n")), "{name} has no test");
        pages.insert(format!("{name}.md"));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks");
    let files = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("a file").file_name().into_string().expect("a text"));
    assert_eq!(files.collect::<BTreeSet<_>>(), pages);
}

#[test]
fn every_panel_says_what_it_shows_and_none_covers_another() {
    let mut covered = BTreeSet::new();
    for panel in panels() {
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{}", panel["title"]);
        for place in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            assert!(covered.insert(place), "{} covers another panel", panel["title"]);
        }
    }
}
