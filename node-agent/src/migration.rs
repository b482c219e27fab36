//! Decides what an entry means now for slices whose memory nodes change while they run: moving pages blocks systemd, so
//! the nodes stay as they are until the slice's services have been restarted, unless the entry says at once.

use std::borrow::Cow;

use lamina_crds::wishes::Migration;
use lamina_crds::{NodeSet, TopologyName};

use crate::desired::{DesiredEntry, DesiredService, DesiredSlice};
use crate::host_path::HostPath;
use crate::marker::{Mark, mark};
use crate::observed::{ObservedFile, ObservedHost};
use crate::property::{Property, Value};
use crate::render::{service_drop_in, slice_drop_in};

/// The entry with the memory nodes that may be in force now.
///
/// A slice keeps those of its drop-in as long as a process runs in it that was started for them. They are read from
/// Lamina's own file and from nowhere else: whatever somebody changed by hand is still put back.
pub fn in_force<'a>(name: &TopologyName, entry: &'a DesiredEntry, observed: &ObservedHost) -> Cow<'a, DesiredEntry> {
    let kept: Vec<(usize, Option<NodeSet>)> = entry
        .slices
        .iter()
        .enumerate()
        .filter_map(|(index, slice)| Some((index, kept_nodes(name, entry, slice, observed)?)))
        .collect();
    if kept.is_empty() {
        return Cow::Borrowed(entry);
    }
    let mut entry = entry.clone();
    for (index, nodes) in kept {
        keep(name, &mut entry, index, nodes);
    }
    Cow::Owned(entry)
}

/// The nodes that the slice keeps for now, `Some(None)` if it has none of its own; `None` if it has what is asked for.
fn kept_nodes(
    name: &TopologyName,
    entry: &DesiredEntry,
    slice: &DesiredSlice,
    observed: &ObservedHost,
) -> Option<Option<NodeSet>> {
    let waits = match slice.migrate {
        Migration::OnRestart => true,
        Migration::Now => false,
    };
    let mut inside = entry.services.iter().filter(|service| service.slice == slice.unit);
    if !waits || !inside.any(|service| is_from_before(service, observed)) {
        return None;
    }
    let written = written_nodes(name, slice, observed)?;
    (written != slice.memory_nodes).then_some(written)
}

/// Whether a process of the service runs that was started for other memory nodes, or nobody knows for which.
fn is_from_before(service: &DesiredService, observed: &ObservedHost) -> bool {
    let seen = observed.units.get(&service.unit).filter(|seen| seen.main_pid != 0);
    seen.is_some_and(|seen| seen.started_from.as_ref().is_none_or(|from| from.derived != service.digests.derived))
}

/// What Lamina's drop-in of the slice says about memory nodes; `None` without an intact one.
fn written_nodes(name: &TopologyName, slice: &DesiredSlice, observed: &ObservedHost) -> Option<Option<NodeSet>> {
    let Some(ObservedFile::Regular { content }) = observed.files.get(&HostPath::drop_in(&slice.unit)) else {
        return None;
    };
    if mark(name, content) != Mark::Intact {
        return None;
    }
    let text = String::from_utf8_lossy(content);
    let mut values =
        text.lines().filter_map(|line| line.strip_prefix(Property::AllowedMemoryNodes.key())?.strip_prefix('='));
    match values.next_back() {
        Some(list) => Some(Some(list.parse().ok()?)),
        None => Some(None),
    }
}

fn keep(name: &TopologyName, entry: &mut DesiredEntry, index: usize, nodes: Option<NodeSet>) {
    let slice = &mut entry.slices[index];
    match &nodes {
        Some(nodes) => slice.properties.insert(Property::AllowedMemoryNodes, Value::Nodes(nodes.clone())),
        None => slice.properties.remove(&Property::AllowedMemoryNodes),
    };
    slice.text.drop_in = slice_drop_in(name, &slice.properties);
    slice.memory_nodes.clone_from(&nodes);
    let unit = slice.unit.clone();
    let Some(nodes) = nodes else { return };
    for service in entry.services.iter_mut().filter(|service| service.slice == unit) {
        service.numa = service.numa.as_ref().map(|numa| numa.within(&nodes));
        service.text.drop_in = service_drop_in(name, &service.properties, service.numa.as_ref());
    }
}
