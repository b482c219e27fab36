//! Decides what slices and services used between two looks at their host.

use jiff::Timestamp;
use lamina_crds::measured::{API_VERSION, HostUsage, UnitUsage};
use lamina_crds::{CpuSet, TopologyName, UnitName};
use serde::Serialize;

/// What is answered to `top`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// The version of this form.
    pub api_version: &'static str,
    /// Always `Used`.
    pub kind: &'static str,
    /// The host.
    pub host: String,
    /// When the second look was taken, by the host's clock.
    pub measured_at: Timestamp,
    /// The time between both, in seconds.
    pub seconds: f64,
    /// Slices, each followed by its services.
    pub units: Vec<UnitUsed>,
}

/// What one unit used.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitUsed {
    /// Its topology.
    pub topology: TopologyName,
    /// Its unit.
    pub unit: UnitName,
    /// The slice that it is in; nothing for slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<UnitName>,
    /// CPUs it kept busy, between both looks; nothing where it did not run all the time.
    pub busy_cpus: Option<f64>,
    /// CPUs that it has.
    pub cpus: Option<CpuSet>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Where the kernel begins to reclaim, in bytes.
    pub memory_high: Option<u64>,
    /// The most it may have, in bytes.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// At most so many.
    pub tasks_max: Option<u64>,
    /// Share of the last ten seconds in which some task waited for a CPU, in percent.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
}

/// Whether the second look is a later one of the same host since the same boot: an answer may come out of a cache.
pub fn is_later(first: &HostUsage, second: &HostUsage) -> bool {
    second.uptime_microseconds > first.uptime_microseconds
}

/// What was used between two looks.
pub fn used(first: &HostUsage, second: HostUsage) -> Used {
    let microseconds = second.uptime_microseconds.saturating_sub(first.uptime_microseconds);
    let unit = |unit: UnitUsage| {
        let before = first.units.iter().find(|before| before.unit == unit.unit);
        unit_used(before, unit, microseconds)
    };
    Used {
        api_version: API_VERSION,
        kind: "Used",
        host: second.host,
        measured_at: second.measured_at,
        seconds: rounded(microseconds as f64 / 1e6, 3),
        units: second.units.into_iter().map(unit).collect(),
    }
}

fn unit_used(before: Option<&UnitUsage>, unit: UnitUsage, microseconds: u64) -> UnitUsed {
    let busy =
        before.and_then(|before| before.cpu_microseconds).zip(unit.cpu_microseconds).and_then(|(first, second)| {
            // A smaller number is that of a cgroup that was made in between.
            let spent = second.checked_sub(first)?;
            (microseconds > 0).then(|| rounded(spent as f64 / microseconds as f64, 3))
        });
    UnitUsed {
        topology: unit.topology,
        unit: unit.unit,
        slice: unit.slice,
        busy_cpus: busy,
        cpus: unit.cpus,
        memory: unit.memory,
        memory_high: unit.memory_high,
        memory_max: unit.memory_max,
        tasks: unit.tasks,
        tasks_max: unit.tasks_max,
        cpu_pressure: unit.cpu_pressure,
        memory_pressure: unit.memory_pressure,
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::top) fn usage(uptime: u64, units: &[(&str, Option<&str>, Option<u64>)]) -> HostUsage {
        let unit = |(unit, slice, cpu): &(&str, Option<&str>, Option<u64>)| UnitUsage {
            topology: TopologyName::new("shop").expect("legal"),
            unit: UnitName::new(*unit).expect("legal"),
            slice: slice.map(|slice| UnitName::new(slice).expect("legal")),
            cpus: "0-7".parse().ok(),
            cpu_microseconds: *cpu,
            memory: Some(3 << 29),
            memory_high: None,
            memory_max: slice.is_none().then_some(12 << 30),
            tasks: Some(112),
            tasks_max: None,
            cpu_pressure: Some(1.5),
            memory_pressure: None,
        };
        HostUsage {
            api_version: API_VERSION.to_owned(),
            kind: "HostUsage".to_owned(),
            host: "host-7".to_owned(),
            measured_at: "2026-11-26T10:00:00Z".parse().expect("a time"),
            uptime_microseconds: uptime,
            units: units.iter().map(unit).collect(),
        }
    }

    #[test]
    fn cpus_are_counted_by_the_time_they_were_busy() {
        let web = Some("shop-web.slice");
        let first = usage(1_000_000, &[("shop-web.slice", None, Some(500)), ("shop-a.service", web, Some(9_000_000))]);
        let units = [
            ("shop-web.slice", None, Some(6_400_500)),
            ("shop-a.service", web, Some(100)),
            ("shop-b.service", web, Some(5)),
        ];
        let second = usage(3_000_000, &units);
        assert!(is_later(&first, &second) && !is_later(&second, &second));
        let used = used(&first, second);
        let busy: Vec<_> = used.units.iter().map(|unit| unit.busy_cpus).collect();
        assert_eq!(busy, [Some(3.2), None, None], "a unit that began in between has no past to compare with");
        assert_eq!(used.seconds, 2.0);
        let json = serde_json::to_value(&used).expect("plain data");
        assert_eq!((json["kind"].as_str(), json["units"][0]["busyCpus"].as_f64()), (Some("Used"), Some(3.2)));
        assert!(json["units"][0].get("slice").is_none() && json["units"][1]["slice"] == "shop-web.slice");
    }
}
