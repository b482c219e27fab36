//! The words that operator, node-agent and users share: the two kinds, their value types, conditions and names.

pub mod bytes;
pub mod cel;
pub mod conditions;
pub mod decode;
pub mod hardware;
pub mod host_state;
pub mod id_set;
pub mod manifests;
pub mod measured;
pub mod names;
pub mod reference;
pub mod rules;
pub mod seconds;
pub mod slice_request;
pub mod slice_topology;
pub mod term;
pub mod text;
pub mod told;
pub mod wishes;

pub use bytes::Bytes;
pub use hardware::Hardware;
pub use host_state::{HostState, HostStateSpec, HostStateStatus, TopologyEntry};
pub use id_set::{CpuSet, NodeSet};
pub use names::{DeviceName, ServiceName, SliceName, TopologyName, UnitKind, UnitName, UserName};
pub use slice_topology::{SliceTopology, SliceTopologySpec, SliceTopologyStatus};
pub use term::Term;
