//! Decides what the reference in `docs/` says of every metric.

use crate::catalog::{ALL, Kind, Metric, Teller};

/// The page, made of the catalog.
pub fn reference() -> String {
    let mut page = "# Metrics\n\nMade by `make generate` from `endpoint/src/catalog.rs`; do not edit.\n\n\
                    Operators answer `/metrics` at port 9640 of their pod, agents at port 9641 of their node. Labels hold\n\
                    topologies, slices and closed words, nothing that grows with time.\n"
        .to_owned();
    for (teller, title) in [
        (Teller::Agent, "Told by the agent of each host"),
        (Teller::Operator, "Told by every operator"),
        (Teller::Leader, "Told by the operator that leads"),
    ] {
        page.push_str(&format!("\n## {title}\n\n| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n"));
        page.extend(ALL.iter().filter(|metric| metric.teller == teller).map(row));
    }
    page
}

fn row(Metric { name, kind, labels, help, teller: _ }: &Metric) -> String {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
}
