//! Decides how what is used is told to people: slices with their services below them; wide also limits and waiting.

use super::used::{UnitUsed, Used};
use crate::arguments::Detail;
use crate::drawing::amount;
use crate::plan::own_name;
use crate::table::table;

/// The answer in words: what is used, and of how much; wide every limit, which CPUs, and how much tasks waited.
pub fn told(used: &Used, detail: Detail) -> String {
    if used.units.is_empty() {
        return format!("{}: no topology is held here\n", used.host);
    }
    let several = used.units.iter().any(|unit| unit.topology != used.units[0].topology);
    let head: &[&str] = match detail {
        Detail::Short => &["UNIT", "CPU", "OF", "MEMORY", "LIMIT", "TASKS"],
        Detail::Wide => {
            &["UNIT", "CPU", "OF", "MEMORY", "LIMIT", "TASKS", "HIGH", "MOST TASKS", "CPU WAIT", "MEMORY WAIT", "CPUS"]
        }
    };
    let cells = used.units.iter().map(|unit| cells(unit, several).into_iter().take(head.len()).collect());
    let rows: Vec<Vec<String>> =
        [head.iter().map(|cell| (*cell).to_owned()).collect()].into_iter().chain(cells).collect();
    let words = format!("{}: CPUs kept busy over {:.1} s\n", used.host, used.seconds);
    format!("{}\n{words}", table(&aligned(rows)))
}

fn cells(unit: &UnitUsed, several: bool) -> Vec<String> {
    let own = if several { unit.unit.stem().to_owned() } else { own_name(&unit.unit, &unit.topology) };
    let name = if unit.slice.is_some() { format!("  {own}") } else { own };
    let dash = || "-".to_owned();
    let bytes = |bytes: Option<u64>| bytes.map_or_else(dash, amount);
    let number = |number: Option<u64>| number.map_or_else(dash, |number| number.to_string());
    let percent = |share: Option<f64>| share.map_or_else(dash, |share| format!("{share:.1} %"));
    vec![
        name,
        unit.busy_cpus.map_or_else(dash, |busy| format!("{busy:.2}")),
        number(unit.cpus.as_ref().map(|cpus| cpus.len() as u64)),
        bytes(unit.memory),
        bytes(unit.memory_max),
        number(unit.tasks),
        bytes(unit.memory_high),
        number(unit.tasks_max),
        percent(unit.cpu_pressure),
        percent(unit.memory_pressure),
        unit.cpus.as_ref().map_or_else(dash, ToString::to_string),
    ]
}

/// Numbers end below each other: all columns but the first, and the last of the wide form, which is a list.
fn aligned(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len).min(10);
    for column in 1..columns {
        let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for row in &mut rows {
            row[column] = format!("{:>width$}", row[column]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::used::{tests::usage, used};
    use super::*;

    fn example() -> Used {
        let units = |cpu| [("shop-web.slice", None, Some(cpu)), ("shop-cart.service", Some("shop-web.slice"), None)];
        used(&usage(0, &units(0)), usage(1_200_000, &units(12_000_000)))
    }

    #[test]
    fn services_stand_below_their_slice_and_numbers_below_each_other() {
        let expected = "\
UNIT      CPU  OF   MEMORY   LIMIT  TASKS
web     10.00   8  1.5 GiB  12 GiB    112
  cart      -   8  1.5 GiB       -    112

host-7: CPUs kept busy over 1.2 s
";
        assert_eq!(told(&example(), Detail::Short), expected);
        let wide = told(&example(), Detail::Wide);
        assert!(wide.lines().nth(1).is_some_and(|line| line.ends_with("1.5 %            -  0-7")), "{wide}");
    }

    #[test]
    fn a_host_that_holds_nothing_says_so() {
        let nothing = used(&usage(0, &[]), usage(1_000_000, &[]));
        assert_eq!(told(&nothing, Detail::Short), "host-7: no topology is held here\n");
    }
}
