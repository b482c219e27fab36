//! Decides which pod is a host's agent and whether it can be asked, and asks it by way of the API server.

use anyhow::Context;
use lamina_crds::host_state::AgentForm;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kubectl::Kubectl;
use super::objects::{Host, items};

/// An agent that runs as a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// The pod's name.
    pub name: String,
    /// Where it answers.
    pub port: u16,
}

/// What the host's agent answers now.
///
/// # Errors
/// Says why it cannot be asked, or what kubectl said of it.
pub fn ask(kubectl: &Kubectl, host: &Host, path: &str) -> Result<String, String> {
    if host.status.agent.as_ref().is_some_and(|agent| agent.form == AgentForm::Host) {
        return Err("its agent is a service of the host and no pod, so that nobody else can ask it".to_owned());
    }
    let pods = kubectl.agents().map_err(|error| format!("{error:#}"))?;
    let pod = pod_on(&pods, &host.name).map_err(|error| format!("{error} in namespace {}", kubectl.namespace()))?;
    kubectl.from_pod(&pod.name, pod.port, path).map_err(|error| format!("{error:#}"))
}

/// What an agent's answer means.
///
/// # Errors
/// Fails when the agent speaks in another form.
pub fn understood<T: DeserializeOwned>(answer: &str, host: &Host) -> anyhow::Result<T> {
    serde_json::from_str(answer)
        .with_context(|| format!("read what the agent of {} answers; is it of another version?", host.name))
}

/// The pod of the agent on this host.
fn pod_on(pods: &str, host: &str) -> Result<AgentPod, String> {
    let pods = items(pods).map_err(|error| format!("{error:#}"))?;
    let here = pods.iter().find(|pod| pod["spec"]["nodeName"].as_str() == Some(host));
    let Some(pod) = here else { return Err(format!("no pod of an agent runs on {host}")) };
    let ports = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = ports.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = ports.find(|port| port["name"] == "metrics").and_then(|port| port["containerPort"].as_u64());
    match (pod["metadata"]["name"].as_str(), port.and_then(|port| u16::try_from(port).ok())) {
        (Some(name), Some(port)) if is_running(pod) => Ok(AgentPod { name: name.to_owned(), port }),
        (Some(name), Some(_)) => Err(format!("pod {name} does not run")),
        (_, _) => Err(format!("the agent's pod on {host} has no port called metrics")),
    }
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"].as_str() == Some("Running")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_agent_of_a_host_is_the_running_pod_on_it() {
        let pod = |name: &str, node: &str, phase: &str| {
            json!({ "metadata": { "name": name }, "status": { "phase": phase }, "spec": { "nodeName": node,
                "containers": [{ "ports": [{ "name": "metrics", "containerPort": 9641 }] }] } })
        };
        let pods = json!({ "items": [pod("a", "host-1", "Running"), pod("b", "host-2", "Pending")] }).to_string();
        assert_eq!(pod_on(&pods, "host-1"), Ok(AgentPod { name: "a".to_owned(), port: 9641 }));
        assert_eq!(pod_on(&pods, "host-2"), Err("pod b does not run".to_owned()));
        assert_eq!(pod_on(&pods, "host-3"), Err("no pod of an agent runs on host-3".to_owned()));
    }
}
