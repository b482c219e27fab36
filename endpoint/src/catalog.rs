//! Everything that operator and agent measure: names, labels and what they mean. The programs, the reference in `docs/` and
//! the tests of dashboard and alerts all read it here.

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, as Prometheus sees it.
    pub name: &'static str,
    /// How its values are to be read.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Who tells it.
    pub teller: Teller,
}

/// How values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows, from 0 at each start of the program.
    Counter,
    /// How often something took how long.
    Histogram,
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// The agent of each host.
    Agent,
    /// Every operator, whether it leads or not.
    Operator,
    /// Only the operator that leads.
    Leader,
}

const fn metric(
    teller: Teller,
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help, teller }
}

use Kind::{Counter, Gauge, Histogram};
use Teller::{Agent, Leader, Operator};

macro_rules! catalog {
    ($($constant:ident: $teller:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = metric($teller, $kind, $name, &[$($label),*], $help);)*
        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

catalog! {
    AGENT_INFO: Agent Gauge "lamina_agent_info" ["host", "version", "form"]
        "Always 1; its labels say which host this is, which version runs there, and how it was started (Pod or Host)";
    AGENT_PASS_SECONDS: Agent Histogram "lamina_agent_pass_duration_seconds" []
        "How long passes over the host took: to look, to change what differs, to measure and to report";
    AGENT_STEPS: Agent Counter "lamina_agent_steps_total" []
        "Changes tried on the host, of whatever kind";
    AGENT_HEALS: Agent Counter "lamina_agent_heals_total" []
        "Differences made by somebody else that were put back";
    AGENT_RESTARTS: Agent Counter "lamina_agent_restarts_total" []
        "Services restarted because what they run is no longer asked for";
    AGENT_PROBLEMS: Agent Counter "lamina_agent_problems_total" []
        "Effects on the host and calls of the API server that failed; each is tried again";
    AGENT_BUS_CALLS: Agent Counter "lamina_agent_bus_calls_total" []
        "Calls of systemd over D-Bus";
    AGENT_API_WRITES: Agent Counter "lamina_agent_api_writes_total" []
        "Calls that wrote to the API server, successful or not, without those that renew the Lease";
    HOST_CONDITION: Agent Gauge "lamina_host_condition" ["condition", "status"]
        "1 where the host's condition has this status (True, False or Unknown), else 0";
    HOST_TOPOLOGY_CONDITION: Agent Gauge "lamina_host_topology_condition" ["topology", "condition", "status"]
        "1 where the condition of this topology on this host has this status, else 0";
    HOST_CPUS: Agent Gauge "lamina_host_cpus" []
        "Online logical CPUs of the host";
    HOST_DRIFTED: Agent Gauge "lamina_host_drifted_units" []
        "Units on which a foreign hand is visible";
    SLICE_CPUS: Agent Gauge "lamina_slice_cpus" ["topology", "slice"]
        "CPUs that the kernel lets this slice use";
    SLICE_SERVICES: Agent Gauge "lamina_slice_services" ["topology", "slice"]
        "Services asked for in this slice";
    SLICE_SERVICES_READY: Agent Gauge "lamina_slice_services_ready" ["topology", "slice"]
        "Services of this slice that run, pinned and limited as asked";
    OPERATOR_INFO: Operator Gauge "lamina_operator_info" ["version"]
        "Always 1; its label says which version runs";
    OPERATOR_LEADING: Operator Gauge "lamina_operator_leading" []
        "1 while this operator leads, else 0";
    OPERATOR_TERM: Operator Gauge "lamina_operator_term" []
        "The term in which this operator leads; 0 while it does not";
    OPERATOR_PASS_SECONDS: Operator Histogram "lamina_operator_pass_duration_seconds" []
        "How long passes over all topologies and hosts took, with their writes";
    OPERATOR_WRITES: Operator Counter "lamina_operator_writes_total" ["outcome"]
        "Writes to the API server: Done, Conflict (too late, decided anew) or Refused";
    OPERATOR_FAILED_PASSES: Operator Counter "lamina_operator_failed_passes_total" []
        "Passes that ended early because the API server did not answer or this operator led no more";
    OPERATOR_VIOLATIONS: Leader Gauge "lamina_operator_violations" []
        "Faults that the last pass found in its own decision; nothing is written to the hosts concerned";
    HOSTS: Leader Gauge "lamina_hosts" ["agent"]
        "HostStates by what is known of their agents: Live, Silent, or Unjudged as long as they were not watched for 40 s";
    TOPOLOGY_CONDITION: Leader Gauge "lamina_topology_condition" ["topology", "condition", "status"]
        "1 where the topology's condition has this status (True, False or Unknown), else 0";
    TOPOLOGY_HOSTS: Leader Gauge "lamina_topology_hosts" ["topology", "state"]
        "Hosts of the topology: Selected, and of these Updated, Ready, Degraded, Stalled, Offline";
    TOPOLOGY_BEHIND: Leader Gauge "lamina_topology_generations_behind" ["topology"]
        "Generations of the topology's spec that its status does not speak of yet";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn is_word(text: &str) -> bool {
        !text.is_empty() && text.chars().all(|symbol| symbol.is_ascii_lowercase() || symbol == '_')
    }

    /// The rules of Prometheus for names, as its own checker applies them: prefix, base units, `_total` for counters only.
    #[test]
    fn names_keep_the_rules_of_prometheus() {
        for Metric { name, kind, labels, help, teller: _ } in ALL {
            assert!(name.starts_with("lamina_") && is_word(name), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(labels.iter().all(|label| is_word(label) && *label != "instance" && *label != "job"), "{name}");
            assert!(!help.ends_with('.') && help.len() > 10, "{name}: {help}");
            let is_told_per_second = name.contains("second");
            assert!(*kind != Histogram || (is_told_per_second && name.ends_with("_seconds")), "{name}");
        }
    }

    #[test]
    fn no_name_stands_for_two_things() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
