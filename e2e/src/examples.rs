//! The examples that users get, and copies of them that fit smaller machines.

#![expect(clippy::disallowed_methods, reason = "it reads the examples")]

use std::path::Path;

use anyhow::{Context, Result};
use lamina_crds::{Bytes, SliceTopology};
use serde_json::Value;

/// `examples/orchestrator.yaml`, word for word.
pub const ORCHESTRATOR: &str = include_str!("../../examples/orchestrator.yaml");

/// The least that a scaled limit leaves: what a small program needs, and what the API accepts.
const SMALLEST: Bytes = Bytes::mebi(64);

/// The fields of `memory` that hold amounts.
const AMOUNTS: [&str; 5] = ["min", "low", "high", "max", "swapMax"];

/// The text of an example by its file name.
pub fn read(name: &str) -> Result<String> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The orchestrator example for a machine with a `1/divisor` of the memory: every amount of memory of slices and
/// services is divided; everything else is as it stands in the file.
pub fn scaled_orchestrator(divisor: u64) -> Result<SliceTopology> {
    let mut manifest: Value = serde_yaml::from_str(ORCHESTRATOR).context("reading the orchestrator example")?;
    for list in ["slices", "services"] {
        for item in manifest["spec"][list].as_array_mut().into_iter().flatten() {
            let fields = item["memory"].as_object_mut().into_iter().flatten();
            for (_, amount) in fields.filter(|(field, _)| AMOUNTS.contains(&field.as_str())) {
                *amount = scaled(amount, divisor)?;
            }
        }
    }
    serde_json::from_value(manifest).context("understanding the scaled orchestrator example")
}

/// A `1/divisor` of an amount in whole mebibytes, at least 64Mi.
fn scaled(amount: &Value, divisor: u64) -> Result<Value> {
    let text = amount.as_str().with_context(|| format!("{amount} is not a quantity"))?;
    let bytes: Bytes = text.parse().with_context(|| format!("reading {text}"))?;
    let mebibytes = (bytes.get() / divisor.max(1)) >> 20;
    Ok(Value::String(Bytes::mebi(mebibytes).max(SMALLEST).to_string()))
}

#[cfg(test)]
mod tests {
    use lamina_crds::rules::topology_faults;

    use super::*;

    #[test]
    fn a_scaled_copy_differs_in_memory_only() {
        let full = scaled_orchestrator(1).expect("the example decodes");
        let mut small = scaled_orchestrator(32).expect("the example scales");
        let memory = small.spec.slices[0].memory.clone().expect("control has limits");
        assert_eq!(
            [memory.min, memory.high, memory.max].map(|amount| amount.map(|a| a.to_string())),
            [Some("128Mi".to_owned()), Some("256Mi".to_owned()), Some("384Mi".to_owned()),]
        );
        for (slice, original) in small.spec.slices.iter_mut().zip(&full.spec.slices) {
            slice.memory = original.memory.clone();
        }
        for (service, original) in small.spec.services.iter_mut().zip(&full.spec.services) {
            service.memory = original.memory;
        }
        assert_eq!(small.spec, full.spec);
    }

    #[test]
    fn the_examples_keep_every_rule() {
        for name in ["orchestrator.yaml", "smallest.yaml", "every-field.yaml"] {
            let topology: SliceTopology = serde_yaml::from_str(&read(name).expect(name)).expect(name);
            let own_name = topology.metadata.name.clone().unwrap_or_default();
            assert_eq!(topology_faults(&own_name, &topology.spec), [], "{name}");
        }
        assert_eq!(topology_faults("orchestrator", &scaled_orchestrator(64).expect("scales").spec), []);
    }
}
