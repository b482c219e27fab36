//! Decides the least set of writes that turns what the cluster holds into what was resolved.

use std::collections::BTreeMap;

use lamina_crds::HostStateSpec;
use lamina_crds::host_state::{ORIGIN_LABEL, ORIGIN_NODE};
use serde_json::{Value, json};

/// One write to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Create the HostState of a node: no entries yet. "Already there" is success.
    CreateHostState {
        /// The host's name.
        host: String,
    },
    /// Server-side apply of the whole spec of a HostState, forced, as [`FIELD_MANAGER`].
    ApplyHostSpec {
        /// The HostState as it was seen.
        target: Target,
        /// All entries of the host.
        spec: HostStateSpec,
    },
    /// Delete a HostState, if it is still the one that was seen. "Gone" is success.
    DeleteHostState {
        /// The HostState as it was seen.
        target: Target,
    },
    /// Set the finalizers of a topology (merge patch), if it is still as it was seen.
    SetFinalizers {
        /// The topology as it was seen.
        target: Target,
        /// All finalizers it should carry.
        finalizers: Vec<String>,
    },
}

/// An object as it was seen when a change was decided; both parts are preconditions of the write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The object's name.
    pub name: String,
    /// The object's identity.
    pub uid: String,
    /// The object's version.
    pub resource_version: String,
}

/// The field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "lamina-operator";

/// Argo CD shall not refresh its applications each time an agent reports.
const QUIET_ANNOTATION: &str = "argocd.argoproj.io/ignore-resource-updates";

impl Change {
    /// The JSON document that is sent: the object to create or apply, the merge patch, or the delete options.
    pub fn body(&self) -> Value {
        match self {
            Self::CreateHostState { host } => host_state(json!({
                "name": host,
                "labels": BTreeMap::from([(ORIGIN_LABEL, ORIGIN_NODE)]),
                "annotations": BTreeMap::from([(QUIET_ANNOTATION, "true")]),
            })),
            Self::ApplyHostSpec { target, spec } => {
                let mut object = host_state(target.metadata());
                object["spec"] = json!(spec);
                object
            }
            Self::DeleteHostState { target } => json!({
                "preconditions": { "uid": target.uid, "resourceVersion": target.resource_version },
            }),
            Self::SetFinalizers { target, finalizers } => {
                let mut metadata = target.metadata();
                metadata["finalizers"] = json!(finalizers);
                json!({ "metadata": metadata })
            }
        }
    }

    /// The change in words, for logs and errors: verb and object.
    pub fn attempt(&self) -> String {
        match self {
            Self::CreateHostState { host } => format!("create HostState {host}"),
            Self::ApplyHostSpec { target, spec: _ } => format!("apply the spec of HostState {}", target.name),
            Self::DeleteHostState { target } => format!("delete HostState {}", target.name),
            Self::SetFinalizers { target, finalizers: _ } => {
                format!("set the finalizers of SliceTopology {}", target.name)
            }
        }
    }
}

impl Target {
    /// The metadata that names this very object and version.
    pub fn metadata(&self) -> Value {
        json!({ "name": self.name, "uid": self.uid, "resourceVersion": self.resource_version })
    }
}

fn host_state(metadata: Value) -> Value {
    json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": metadata, "spec": {} })
}
