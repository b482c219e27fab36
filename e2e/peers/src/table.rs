//! Writes the comparison as a page of tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::comparison::Compared;
use crate::score::{Fault, Score};

/// What the page says about how it was made.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// The seed of the instances.
    pub seed: u64,
    /// How many there are.
    pub count: u32,
}

/// The page, in Markdown.
pub fn page(series: Series, all: &[Compared]) -> String {
    let Series { seed, count } = series;
    let mut page = format!("{HEADER}\n{count} instances of seed {seed}. {COLUMNS}");
    let mut by_load: BTreeMap<u32, Vec<&Compared>> = BTreeMap::new();
    all.iter().for_each(|compared| by_load.entry(compared.load).or_default().push(compared));
    means(&mut page, &by_load, "NUMA nodes", |score| score.nodes);
    means(&mut page, &by_load, "L3 caches", |score| score.caches);
    verdicts(&mut page, &by_load);
    faults(&mut page, all);
    page
}

const HEADER: &str = "\
# Placement compared with the kubelet

<!-- Written by `make peers`; do not edit. -->

How many NUMA nodes and L3 caches do requests straddle that they need not? Machines and requests are random: up to
eight NUMA nodes, up to 256 cores, one to four threads per core, caches inside nodes and over several nodes, unequal
nodes and caches, no caches, three ways to number CPUs, and two kinds of core on one machine in twenty. Requests are
whole cores of one kind, exclusive. The kubelet is the real one (`k8s.io/kubernetes` v1.37.2, `e2e/peers/kubelet`) with
the static CPU manager policy and `full-pcpus-only`; it takes requests one by one as they arrive. Lamina takes them
together, which is how a topology states them.
";

const COLUMNS: &str = "\
A cell is the mean per instance of the domains that requests use beyond the
fewest that each would need on the empty machine, summed over its requests. *Hints* is the topology manager's
best-effort policy. *Best of six* takes, for each instance, the mode that does best there.
";

fn means(page: &mut String, by_load: &BTreeMap<u32, Vec<&Compared>>, domain: &str, part: fn(&Score) -> u32) {
    let names = mode_names(by_load);
    let _ = write!(page, "\n## Excess {domain}\n\n| load |");
    let titles = names.iter().map(String::as_str).chain(["best of six", "Lamina"]);
    let titles: Vec<String> = titles.map(|title| format!(" {} |", title.replace('+', ", "))).collect();
    let _ = writeln!(page, "{}\n|---:|{}", titles.concat(), "---:|".repeat(titles.len()));
    for (load, group) in by_load {
        let _ = write!(page, "| {load} % |");
        for number in 0..names.len() {
            let scores = group.iter().filter_map(|compared| compared.modes.get(number)?.1.as_ref().ok());
            let _ = write!(page, " {} |", mean(scores.filter(|score| score.refused == 0).map(part)));
        }
        let best = group.iter().filter_map(|compared| compared.best_mode());
        let best = best.filter(|score| score.refused == 0).map(|score| part(&score));
        let lamina = group.iter().map(|compared| part(&compared.lamina));
        let _ = writeln!(page, " {} | **{}** |", mean(best), mean(lamina));
    }
}

fn verdicts(page: &mut String, by_load: &BTreeMap<u32, Vec<&Compared>>) {
    page.push_str(
        "\n## Lamina against the best of six\n\nNodes count first, then caches. *Proven* is how often Lamina says that \
         nothing is better; *searched* is\nhow often an exhaustive search of another make, where it ends soon enough, \
         found the same optimum.\n\n| load | instances | better | equal | worse | proven | searched | of them found |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (load, group) in by_load {
        let count = |matches: &dyn Fn(&Compared) -> bool| group.iter().filter(|compared| matches(compared)).count();
        let against = |wanted: std::cmp::Ordering| {
            count(&|compared| compared.best_mode().map(|best| compared.lamina.cmp(&best)) == Some(wanted))
        };
        let (better, equal, worse) = {
            use std::cmp::Ordering::{Equal, Greater, Less};
            (against(Less), against(Equal), against(Greater))
        };
        let proven = percent(count(&|compared| compared.proven), group.len());
        let searched = count(&|compared| compared.optimum.is_some());
        let found = count(&|compared| compared.optimum == Some(compared.lamina));
        let all = group.len();
        let _ =
            writeln!(page, "| {load} % | {all} | {better} | {equal} | {worse} | {proven} % | {searched} | {found} |");
    }
}

/// What the kubelet refused or got wrong; such an instance is in no mean of that mode.
fn faults(page: &mut String, all: &[Compared]) {
    let mut by_mode: BTreeMap<&str, [u32; 4]> = BTreeMap::new();
    for (mode, score) in all.iter().flat_map(|compared| &compared.modes) {
        let [refused, twice, mixed, other] = by_mode.entry(mode).or_default();
        match score {
            Ok(score) => *refused += u32::from(score.refused > 0),
            Err(Fault::Twice(_)) => *twice += 1,
            Err(Fault::MixedKinds(_)) => *mixed += 1,
            Err(Fault::OtherRequests | Fault::Absent(_) | Fault::PartOfACore(_) | Fault::OtherNumber(..)) => {
                *other += 1
            }
        }
    }
    page.push_str(
        "\n## What the kubelet did not place\n\nInstances by what is wrong with the answer.\n\n\
         | mode | refused | CPUs given twice | kinds of core mixed | otherwise invalid |\n|---|---:|---:|---:|---:|\n",
    );
    for (mode, [refused, twice, mixed, other]) in by_mode {
        let _ = writeln!(page, "| {} | {refused} | {twice} | {mixed} | {other} |", mode.replace('+', ", "));
    }
    page.push_str(
        "\nWhere sockets have unequal numbers of CPUs online, it takes a partly used one for a free one and gives CPUs \
         twice.\nOf kinds of core it knows nothing, so requests for cores of one kind get some of both. Such answers are in \
         no mean of\ntheir mode, and nobody is compared with them: an instance with nothing else is neither better, equal \
         nor worse.\n",
    );
}

fn mode_names(by_load: &BTreeMap<u32, Vec<&Compared>>) -> Vec<String> {
    let first = by_load.values().flatten().next();
    first.map(|compared| compared.modes.iter().map(|(mode, _)| mode.clone()).collect()).unwrap_or_default()
}

/// With two digits, in whole numbers only, so that every machine prints the same.
fn mean(values: impl Iterator<Item = u32>) -> String {
    let (count, sum) = values.fold((0u64, 0u64), |(count, sum), value| (count + 1, sum + u64::from(value)));
    if count == 0 {
        return "-".to_owned();
    }
    let hundredths = (sum * 100 + count / 2) / count;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn percent(part: usize, whole: usize) -> String {
    let tenths = part * 1000 / whole.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_two_digits() {
        assert_eq!(mean([1, 0, 0].into_iter()), "0.33");
        assert_eq!(mean([2, 3].into_iter()), "2.50");
        assert_eq!(mean([].into_iter()), "-");
        assert_eq!(percent(2, 3), "66.6");
    }

    #[test]
    fn a_refusal_is_in_no_mean() {
        let score = |refused, nodes| Ok(Score { refused, nodes, caches: 0 });
        let compared = Compared {
            id: 0,
            load: 50,
            modes: vec![("packed".into(), score(1, 9)), ("packed+hints".into(), score(0, 2))],
            lamina: Score { refused: 0, nodes: 1, caches: 0 },
            proven: true,
            optimum: None,
        };
        let page = page(Series { seed: 1, count: 1 }, &[compared]);
        assert!(page.contains("| load | packed | packed, hints | best of six | Lamina |"), "{page}");
        assert!(page.contains("| 50 % | - | 2.00 | 2.00 | **1.00** |"), "{page}");
        assert!(page.contains("| 50 % | 1 | 1 | 0 | 0 | 100.0 % | 0 | 0 |"), "{page}");
        assert!(page.contains("| packed | 1 | 0 | 0 | 0 |"), "{page}");
    }

    #[test]
    fn what_is_wrong_is_counted_by_what_it_is() {
        let twice = Fault::Twice("1".parse().unwrap());
        let mixed = Fault::MixedKinds("0-1".parse().unwrap());
        let modes = [("packed", twice), ("aligned", mixed.clone()), ("aligned+hints", mixed)];
        let compared = Compared {
            id: 0,
            load: 50,
            modes: modes.into_iter().map(|(mode, fault)| (mode.into(), Err(fault))).collect(),
            lamina: Score::default(),
            proven: true,
            optimum: None,
        };
        let page = page(Series { seed: 1, count: 1 }, &[compared]);
        assert!(page.contains("| packed | 0 | 1 | 0 | 0 |\n"), "{page}");
        assert!(page.contains("| aligned | 0 | 0 | 1 | 0 |\n| aligned, hints | 0 | 0 | 1 | 0 |\n"), "{page}");
        assert!(page.contains("| 50 % | 1 | 0 | 0 | 0 | 100.0 % | 0 | 0 |"), "{page}");
    }
}
