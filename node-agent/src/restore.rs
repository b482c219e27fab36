//! Conducts the way back: what a topology took the place of stands there again, and nothing is stopped or started.
//!
//! Every step may be taken twice. Whatever dies in between leaves each unit with one whole text, Lamina's or the former
//! one, and another try goes on from there. The before-image stays.

use std::collections::BTreeSet;

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::EntryState;
use lamina_crds::{TopologyName, UnitName};

use crate::accept::{Accepted, Recalled as State, copies, recall as recall_state};
use crate::before_image::{BeforeImage, Recalled, SavedFile, path_of, recall};
use crate::host::{Host, HostError};
use crate::host_path::HostPath;
use crate::marker::{Mark, mark};
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit, Scope};
use crate::preflight::Refusal;
use crate::property::{Properties, Property, Value};

/// What was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files that stand there as before.
    pub files: Vec<HostPath>,
    /// Files of Lamina's that are gone.
    pub removed: Vec<HostPath>,
    /// Units whose limits in force were set to what their former files say.
    pub eased: Vec<UnitName>,
}

/// Why nothing was put back, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// It must not be, or cannot be.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// An effect failed; another try goes on.
    #[error("{0}; nothing was stopped, try again")]
    Host(#[from] HostError),
}

/// Puts back what stands in the topology's before-image.
pub async fn restore(host: &mut impl Host, topology: &TopologyName) -> Result<Restored, NotRestored> {
    let image = image(host, topology).await?;
    let before = look(host, topology).await?;
    let plan = restoration(topology, &image, &before);
    for (path, file) in &plan.write {
        put_back(host, path, file).await?;
    }
    for path in plan.remove.iter() {
        host.remove(path).await?;
    }
    for (path, target) in &plan.link {
        host.make_directory(&path.directory()).await?;
        host.link(path, target).await?;
    }
    for directory in plan.sync.iter().filter(|directory| !plan.remove.contains(directory)) {
        host.sync(directory).await?;
    }
    host.reload().await?;
    let eased = ease(host, topology).await?;
    let files = plan.write.into_iter().map(|(path, _)| path).collect();
    Ok(Restored { files, removed: plan.remove, eased })
}

/// The image, if the topology is not enforced any more.
async fn image(host: &mut impl Host, topology: &TopologyName) -> Result<BeforeImage, NotRestored> {
    let mut contents = Vec::new();
    for path in copies() {
        contents.push(host.read(&path).await?);
    }
    let accepted = match recall_state(&contents) {
        State::Nothing => Accepted::default(),
        State::Accepted(accepted) => *accepted,
        State::Newer { schema } => {
            let message = format!("a newer agent left its state here (format {schema}); use that agent's `restore`");
            return Err(refused(Reason::NotUnderstood, message));
        }
    };
    if accepted.entries.get(topology).is_some_and(|kept| kept.entry.state != EntryState::Released) {
        let message = format!(
            "topology {topology} is still enforced on this host; delete it with deletionPolicy: Retain, or let its hostSelector leave this host out, and wait until it is released"
        );
        return Err(refused(Reason::InvalidSpec, message));
    }
    let path = path_of(topology);
    match recall(topology, host.read(&path).await?.as_deref()) {
        Recalled::Image(image) => Ok(image),
        Recalled::Nothing => {
            let message = format!("{path} is not there: topology {topology} took the place of nothing on this host");
            Err(refused(Reason::InvalidSpec, message))
        }
        Recalled::Unreadable => {
            Err(refused(Reason::NotUnderstood, format!("{path} is no whole before-image of {topology}")))
        }
    }
}

fn refused(reason: Reason, message: String) -> NotRestored {
    NotRestored::Refused(Refusal::new(reason, message))
}

async fn look(host: &mut impl Host, topology: &TopologyName) -> Result<ObservedHost, HostError> {
    host.observe(&Scope { topologies: BTreeSet::from([topology.clone()]), ..Scope::default() }).await
}

/// What is to be done on disk, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Restoration {
    write: Vec<(HostPath, SavedFile)>,
    remove: Vec<HostPath>,
    link: Vec<(HostPath, String)>,
    sync: BTreeSet<HostPath>,
}

/// The newest content of every path comes back where Lamina's file or nothing stands; what somebody else put there since
/// is left alone. Then Lamina's other files of these units go, but for delivered ones: a process may still read them.
fn restoration(topology: &TopologyName, image: &BeforeImage, observed: &ObservedHost) -> Restoration {
    let is_ours = |path: &HostPath| match observed.files.get(path) {
        Some(ObservedFile::Regular { content }) => matches!(mark(topology, content), Mark::Intact | Mark::Damaged),
        Some(ObservedFile::Link { .. } | ObservedFile::Other { .. }) | None => false,
    };
    let newest =
        image.files.iter().filter_map(|(path, versions)| Some((HostPath::new(path.clone()), versions.last()?.clone())));
    let write: Vec<_> = newest.filter(|(path, _)| is_ours(path) || !observed.files.contains_key(path)).collect();
    let comes_back: BTreeSet<HostPath> = image.files.keys().map(|path| HostPath::new(path.clone())).collect();
    let units: BTreeSet<UnitName> = comes_back.iter().filter_map(HostPath::unit).collect();
    let former =
        |unit: &UnitName| units.contains(unit) || UnitName::of_topology(topology).is_ok_and(|own| own == *unit);
    let ours = observed.files.keys().filter(|path| is_ours(path) && !comes_back.contains(*path));
    let mut remove: Vec<HostPath> =
        ours.filter(|path| path.unit().is_some_and(|unit| former(&unit))).cloned().collect();
    let emptied: BTreeSet<HostPath> = remove.iter().map(HostPath::directory).collect();
    let is_empty = |directory: &HostPath| {
        let mut inside = observed.files.keys().filter(|path| path.directory() == *directory);
        inside.all(|path| remove.contains(path)) && !write.iter().any(|(path, _)| path.directory() == *directory)
    };
    let emptied: Vec<HostPath> =
        emptied.into_iter().filter(|directory| directory.as_str().ends_with(".d") && is_empty(directory)).collect();
    remove.extend(emptied);
    let links: Vec<HostPath> = units.iter().map(HostPath::enablement).collect();
    let was_linked = |path: &HostPath| image.links.contains_key(path.as_str());
    let unlinked = links.iter().filter(|path| observed.files.contains_key(*path) && !was_linked(path));
    remove.extend(unlinked.cloned());
    let missing = image.links.iter().map(|(path, target)| (HostPath::new(path.clone()), target.clone()));
    let link: Vec<_> = missing.filter(|(path, _)| !observed.files.contains_key(path)).collect();
    let touched = write.iter().map(|(path, _)| path).chain(&remove).chain(link.iter().map(|(path, _)| path));
    let sync = touched.map(HostPath::directory).collect();
    Restoration { write, remove, link, sync }
}

async fn put_back(host: &mut impl Host, path: &HostPath, file: &SavedFile) -> Result<(), HostError> {
    let staging = path.staging();
    host.make_directory(&path.directory()).await?;
    host.write(&staging, file.content.as_bytes()).await?;
    host.set_mode(&staging, file.mode).await?;
    host.sync(&staging).await?;
    host.rename(&staging, path).await
}

/// Sets in the kernel what the former files say now, where a reload alone did not; what this leaves on disk is removed.
async fn ease(host: &mut impl Host, topology: &TopologyName) -> Result<Vec<UnitName>, NotRestored> {
    let hardware = host.hardware().await?;
    let observed = look(host, topology).await?;
    let whole = Properties::from([
        (Property::AllowedCpus, Value::Cpus(hardware.present_cpus())),
        (Property::AllowedMemoryNodes, Value::Nodes(hardware.memory_nodes())),
    ]);
    let mut eased = Vec::new();
    for (unit, seen) in &observed.units {
        let values = eased_values(seen, &whole);
        if values.is_empty() {
            continue;
        }
        host.set_properties(unit, &values).await?;
        for property in values.keys() {
            host.remove(&HostPath::runtime_push(unit, *property)).await?;
        }
        eased.push(unit.clone());
    }
    if !eased.is_empty() {
        host.reload().await?;
    }
    Ok(eased)
}

/// Values that the kernel holds otherwise than systemd has them loaded. An empty list cannot be given back to a cgroup
/// that is in use (kernel 6.1: ENOSPC; later: no effect on its processes), the whole machine can.
fn eased_values(seen: &ObservedUnit, whole: &Properties) -> Properties {
    let is_empty = |value: Option<&Value>| match value {
        None => true,
        Some(Value::Cpus(cpus)) => cpus.is_empty(),
        Some(Value::Nodes(nodes)) => nodes.is_empty(),
        Some(Value::Number(_) | Value::Infinity | Value::Default) => false,
    };
    let differing = seen.kernel.iter().filter_map(|(property, kernel)| {
        let loaded = seen.loaded.get(property);
        let wanted = match whole.get(property) {
            Some(all) if is_empty(loaded) => (!is_empty(Some(kernel))).then_some(all)?,
            Some(_) | None => loaded?,
        };
        (*kernel != property.in_kernel(wanted)).then(|| (*property, wanted.clone()))
    });
    if seen.control_group.is_empty() { Properties::new() } else { differing.collect() }
}
