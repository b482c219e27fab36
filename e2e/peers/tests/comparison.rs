//! Lamina against the kubelet's own code, on the whole series.

#![expect(clippy::disallowed_methods, reason = "it reads the committed page")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

use lamina_peers::comparison::{Compared, compare};
use lamina_peers::instance::{LOADS, instances};
use lamina_peers::kubelet::Kubelet;
use lamina_peers::score::Fault;
use lamina_peers::table::page;
use lamina_peers::{PAGE, SERIES};

/// Everybody's outcome; the tests of this file share it.
fn series() -> &'static [Compared] {
    static SERIES_COMPARED: OnceLock<Vec<Compared>> = OnceLock::new();
    SERIES_COMPARED.get_or_init(|| {
        let instances = instances(SERIES.seed, SERIES.count);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = async { Kubelet::find().await?.answers(&instances).await };
        let answers = runtime.block_on(asked).expect("the kubelet answers");
        compare(&instances, &answers).expect("every answer of Lamina is a placement")
    })
}

/// How many there are, and the first of them.
fn none_of(losses: impl Iterator<Item = &'static Compared>) {
    let losses: Vec<String> = losses.filter_map(Compared::loss).collect();
    let first: Vec<&String> = losses.iter().take(20).collect();
    assert!(losses.is_empty(), "{} losses; `lamina-peers shrink ID` makes one small: {first:#?}", losses.len());
}

#[test]
fn lamina_is_never_worse_than_the_best_mode_of_the_kubelet() {
    assert!(series().len() >= 20_000);
    none_of(series().iter().filter(|compared| compared.best_mode().is_some_and(|best| best < compared.lamina)));
}

#[test]
fn lamina_has_every_optimum_that_the_search_finds() {
    none_of(series().iter().filter(|compared| compared.optimum.is_some_and(|optimum| optimum != compared.lamina)));
}

#[test]
fn what_lamina_calls_optimal_nobody_betters() {
    none_of(series().iter().filter(|compared| compared.proven && compared.loss().is_some()));
}

#[test]
fn lamina_refuses_nothing_that_fits() {
    let refused: Vec<&Compared> = series().iter().filter(|compared| compared.lamina.refused > 0).collect();
    let of: Vec<(u32, u32)> = refused.iter().map(|compared| (compared.id, compared.load)).collect();
    assert!(
        refused.is_empty(),
        "{} of them, by number and load: {of:?}; the first: {:?}",
        refused.len(),
        refused.first()
    );
}

#[test]
fn the_kubelet_gives_a_cpu_twice_only_where_sockets_are_unequal_and_mixes_kinds_only_where_there_are_two() {
    let instances = instances(SERIES.seed, SERIES.count);
    for (instance, compared) in instances.iter().zip(series()) {
        let packages = instance.machine.hardware().packages;
        let sizes: BTreeSet<usize> = packages.iter().map(|package| package.cpus.len()).collect();
        for (mode, score) in &compared.modes {
            let is_known = match score {
                Ok(_) => true,
                Err(Fault::Twice(_)) => sizes.len() > 1,
                Err(Fault::MixedKinds(_)) => instance.machine.kinds().len() > 1,
                Err(_) => false,
            };
            assert!(is_known, "instance {}, {mode}: {score:?}", instance.id);
        }
    }
}

#[test]
fn the_kubelet_answers_many_hybrid_machines_without_mixing_kinds() {
    let instances = instances(SERIES.seed, SERIES.count);
    let hybrids = || instances.iter().zip(series()).filter(|(instance, _)| instance.machine.kinds().len() > 1);
    let compared = hybrids().filter(|(_, compared)| compared.best_mode().is_some()).count();
    assert!(hybrids().count() > 900 && compared > 100, "{compared} of {}", hybrids().count());
}

#[test]
fn the_search_and_the_odds_are_worth_something() {
    for load in LOADS {
        let group: Vec<&Compared> = series().iter().filter(|compared| compared.load == load).collect();
        let searched = group.iter().filter(|compared| compared.optimum.is_some()).count();
        let better = group.iter().filter(|compared| compared.best_mode().is_none_or(|best| compared.lamina < best));
        assert!(group.len() > 2000 && searched * 4 > group.len(), "{load} %: {searched} of {}", group.len());
        assert!(better.count() > 0, "{load} %: the kubelet always ties, so the instances say nothing");
    }
}

#[test]
fn the_committed_page_is_what_the_command_writes() {
    let committed = fs::read_to_string(PAGE).expect("the page is there");
    assert!(committed == page(SERIES, series()), "docs/placement-comparison.md is old: run `make peers`");
}
