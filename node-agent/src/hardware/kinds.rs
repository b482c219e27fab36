//! Reads which cores are fast and which frugal, on machines that mix them.

use lamina_crds::CpuSet;

use super::sysfs::Tree;

/// The CPUs of the two kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Those of fast cores.
    pub performance: CpuSet,
    /// Those of frugal cores.
    pub efficiency: CpuSet,
}

/// The kinds by the first source that tells two: capacity, event sources, highest frequency.
pub fn read(tree: &Tree, usable: &CpuSet) -> Option<Kinds> {
    by_value(tree, usable, "cpu_capacity")
        .or_else(|| by_event_source(tree, usable))
        .or_else(|| by_value(tree, usable, "cpufreq/cpuinfo_max_freq"))
}

/// Two kinds if the values of all CPUs fall apart: the slower at most four fifths of the faster. Among three kinds the
/// border is where the step is largest. Cores of one kind differ by less, even where single ones are favoured.
pub fn by_values(values: &[(CpuSet, u64)]) -> Option<Kinds> {
    let mut steps: Vec<u64> = values.iter().map(|(_, value)| *value).collect();
    steps.sort_unstable();
    steps.dedup();
    let apart = steps.windows(2).filter(|step| u128::from(step[0]) * 5 <= u128::from(step[1]) * 4);
    let larger = |a: &&[u64], b: &&[u64]| {
        (u128::from(a[1]) * u128::from(b[0])).cmp(&(u128::from(b[1]) * u128::from(a[0]))).then(b[0].cmp(&a[0]))
    };
    let slowest_fast = apart.max_by(larger)?[1];
    let of = |is_fast: bool| {
        let sets = values.iter().filter(|(_, value)| (*value >= slowest_fast) == is_fast);
        sets.fold(CpuSet::new(), |all, (cpus, _)| all.union(cpus))
    };
    Some(Kinds { performance: of(true), efficiency: of(false) })
}

fn by_value(tree: &Tree, usable: &CpuSet, file: &str) -> Option<Kinds> {
    let value = |cpu: u32| {
        let value = tree.value(&format!("sys/devices/system/cpu/cpu{cpu}/{file}")).filter(|value| *value > 0_u64)?;
        Some((CpuSet::from_iter([cpu]), value))
    };
    // A machine without such files is asked only once.
    by_values(&usable.iter().map(value).collect::<Option<Vec<_>>>()?)
}

/// Intel's performance counters differ by kind of core, so that each kind is an event source of its own.
fn by_event_source(tree: &Tree, usable: &CpuSet) -> Option<Kinds> {
    let cpus = |source: &str| tree.list(&format!("sys/devices/{source}/cpus"));
    let performance: CpuSet = cpus("cpu_core")?;
    let efficiency = cpus("cpu_atom")?.union(&cpus("cpu_lowpower").unwrap_or_default());
    let is_whole = usable.is_subset(&performance.union(&efficiency));
    is_whole.then_some(Kinds { performance, efficiency })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(values: &[u64]) -> Option<(String, String)> {
        let values: Vec<_> = (0..).zip(values).map(|(cpu, value)| (CpuSet::from_iter([cpu]), *value)).collect();
        by_values(&values).map(|kinds| (kinds.performance.to_string(), kinds.efficiency.to_string()))
    }

    #[test]
    fn a_large_step_divides_and_a_favoured_core_does_not() {
        assert_eq!(kinds(&[1024, 1024, 446, 446]), Some(("0-1".to_owned(), "2-3".to_owned())));
        assert_eq!(kinds(&[5_200_000, 5_000_000, 5_000_000]), None);
        assert_eq!(kinds(&[1000, 1000]), None);
    }

    #[test]
    fn of_three_kinds_the_largest_step_divides() {
        assert_eq!(kinds(&[1024, 800, 800, 250, 250]), Some(("0-2".to_owned(), "3-4".to_owned())));
    }
}
