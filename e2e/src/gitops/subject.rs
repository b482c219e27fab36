//! What a fleet in Git is tried with: topologies of one slice and one service, the ConfigMap that they are compared with,
//! and how long each took.

use std::time::Duration;

use serde_json::{Value, json};

/// A topology of one slice with so many cores and one service in it, to be changed as a test likes.
pub fn topology(name: &str, cores: u32) -> Value {
    json!({
        "apiVersion": "lamina.dev/v1alpha1",
        "kind": "SliceTopology",
        "metadata": { "name": name },
        "spec": {
            "hostSelector": { "matchLabels": { "lamina.dev/role": "orchestrator" } },
            "slices": [{ "name": "only", "cpu": { "cores": cores } }],
            "services": [{
                "name": "sleeper", "slice": "only", "user": "orchestrator", "command": ["/usr/bin/sleep", "infinity"],
            }],
        },
    })
}

/// The same topology with one field of its spec set.
pub fn with(mut topology: Value, field: &str, value: &Value) -> Value {
    topology["spec"][field] = value.clone();
    topology
}

/// A ConfigMap: what costs an engine least.
pub fn config_map(value: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "settings", "namespace": "default" },
        "data": { "value": value },
    })
}

/// What took how long.
#[derive(Debug, Default)]
pub struct Times(Vec<(&'static str, Duration)>);

impl Times {
    /// One more line.
    pub fn add(&mut self, what: &'static str, took: Duration) {
        self.0.push((what, took));
    }

    /// Everything, for people.
    pub fn told(&self) -> String {
        self.0.iter().map(|(what, took)| format!("{:>6.1} s  {what}\n", took.as_secs_f64())).collect()
    }
}
