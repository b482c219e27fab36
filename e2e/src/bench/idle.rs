//! What Lamina costs while nothing changes: memory of its two programs, and the calls of a pass with nothing to do.

#![expect(clippy::disallowed_methods, reason = "it reads what the kernel knows of a process")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fleet::example::Example;

/// How long nothing must happen before Lamina counts as idle.
const QUIET: Duration = Duration::from_secs(10);

/// The memory of one process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `VmRSS`: with the pages of the program's file, which are shared and can be dropped.
    pub resident: u64,
    /// `RssAnon`: what it has allocated.
    pub anonymous: u64,
}

/// The memory of both programs.
pub struct Memories {
    /// The agent's, in its host.
    pub agent: Memory,
    /// The operator's.
    pub operator: Memory,
}

/// The calls of one pass.
pub struct Quiet {
    /// Calls to systemd, as the agent counts them.
    pub bus_calls: u64,
    /// Calls to systemd per pass, as a monitor of the bus counts them.
    pub bus_saw: u64,
    /// Writes to the API server, as the agent counts them.
    pub api_writes: u64,
    /// Writes about topologies, hosts and events, as the API server counts them.
    pub api_counted: u64,
}

/// Waits until nothing happens, and measures.
pub async fn memory(example: &Example) -> Result<Memories> {
    tokio::time::sleep(QUIET).await;
    let agent = example.on_host("cat /proc/$(systemctl show -p MainPID --value lamina-agent)/status").await?;
    let pid = example.fleet.operators().first().context("the operator runs")?.process().pid;
    let path = format!("/proc/{pid}/status");
    let operator = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(Memories { agent: memory_in(&agent)?, operator: memory_in(&operator)? })
}

/// `proc_pid_status(5)`.
fn memory_in(status: &str) -> Result<Memory> {
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("finding {key} of a process"))
    };
    Ok(Memory { resident: field("VmRSS")?, anonymous: field("RssAnon")? })
}

/// Causes a pass with nothing to do, by writing a value into a cgroup file that is there already, and counts its calls.
pub async fn pass(example: &Example) -> Result<Quiet> {
    let talkative = "mkdir -p /etc/systemd/system/lamina-agent.service.d
        printf '[Service]\\nEnvironment=RUST_LOG=info,lamina_node_agent=debug\\n' \
            > /etc/systemd/system/lamina-agent.service.d/bench.conf
        systemctl daemon-reload; systemctl restart lamina-agent";
    example.on_host(talkative).await?;
    tokio::time::sleep(QUIET).await;
    let before = writes_in(&example.fleet.kubectl(&["get", "--raw", "/metrics"]).await?);
    let seen = example.on_host(&caused_pass()).await?;
    let after = writes_in(&example.fleet.kubectl(&["get", "--raw", "/metrics"]).await?);
    let (calls, log) = seen.split_once('\n').context("the agent's log has a pass")?;
    let passes = passes_in(log);
    let count = passes.len() as u64;
    ensure!(count > 0, "the agent did not look again: {log}");
    ensure!(passes.iter().all(|pass| pass["steps"] == 0), "there was something to do: {log}");
    let most = |key: &str| passes.iter().filter_map(|pass| pass[key].as_u64()).max().unwrap_or_default();
    let calls: u64 = calls.trim().parse().with_context(|| format!("reading the number of calls in `{calls}`"))?;
    Ok(Quiet {
        bus_calls: most("bus_calls"),
        bus_saw: calls / count,
        api_writes: most("api_writes"),
        api_counted: after - before,
    })
}

/// Prints how many calls systemd got over the bus, then the agent's log. Root's `systemctl` does not use the bus.
fn caused_pass() -> String {
    let file = format!("{}/memory.high", Example::cgroup_of("control"));
    format!(
        "cursor=$(journalctl -u lamina-agent -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p')
        dbus-monitor --system type=method_call,destination=org.freedesktop.systemd1 > /run/bench-calls 2> /dev/null &
        sleep 2; value=$(cat {file}); echo \"$value\" > {file}; sleep 6; kill $!
        grep -c '^method call.*destination=org.freedesktop.systemd1' /run/bench-calls
        journalctl -u lamina-agent --after-cursor=\"$cursor\" -o cat --no-pager"
    )
}

/// The figures of every pass that a log tells of.
fn passes_in(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|mut line| line["fields"].take()).filter(|fields| fields["message"] == "pass is over").collect()
}

/// How many writes an API server has counted, without the Leases that are renewed all the time.
fn writes_in(metrics: &str) -> u64 {
    let requests = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let ours = |line: &&str| {
        let resources = ["hoststates", "slicetopologies", "events"];
        let verbs = ["APPLY", "PATCH", "POST", "PUT", "DELETE"];
        resources.iter().any(|resource| line.contains(&format!("resource=\"{resource}\"")))
            && verbs.iter().any(|verb| line.contains(&format!("verb=\"{verb}\"")))
    };
    requests.filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_that_concern_lamina_are_counted() {
        let metrics = "# TYPE apiserver_request_total counter\n\
            apiserver_request_total{code=\"200\",resource=\"hoststates\",subresource=\"status\",verb=\"APPLY\"} 5\n\
            apiserver_request_total{code=\"200\",resource=\"hoststates\",subresource=\"\",verb=\"WATCH\"} 7\n\
            apiserver_request_total{code=\"200\",resource=\"leases\",subresource=\"\",verb=\"PUT\"} 9\n\
            apiserver_request_total{code=\"201\",resource=\"events\",subresource=\"\",verb=\"POST\"} 2\n";
        assert_eq!(writes_in(metrics), 7);
    }

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        let status = "Name:\tlamina\nVmRSS:\t   14092 kB\nRssAnon:\t    2008 kB\n";
        assert_eq!(memory_in(status).unwrap(), Memory { resident: 14092, anonymous: 2008 });
    }
}
