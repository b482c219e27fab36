//! Conducts the first part of a pass: reads the machine, the object and what was accepted before, and stores what is new
//! durably before anything is done about it.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::{CONFIRM_MACHINE_ANNOTATION, EntryState, digest_of_bytes};
use lamina_crds::{Hardware, TopologyName, UnitName};

use crate::accept::{Accepted, Recalled, accept, copies, older_term, recall, stored};
use crate::agent::Settings;
use crate::cluster::{EventKind, HostEvent, RawHostState, Seen};
use crate::desired::{DesiredEntry, DesiredHost};
use crate::host::{Host, HostError};
use crate::host_path::{HostPath, STATE};
use crate::memory::Memory;
use crate::plan::Notes;
use crate::preflight::Refusal;
use crate::render::render;
use crate::replace::replace_durably;
use crate::save::save;
use crate::takeover::{Taking, Takings};

/// What is to be done in this pass.
pub(crate) struct Task {
    /// The object, if there is one.
    pub(crate) object: Option<RawHostState>,
    /// The machine.
    pub(crate) hardware: Hardware,
    /// What is followed, as it is stored.
    pub(crate) accepted: Accepted,
    /// The same, rendered.
    pub(crate) desired: DesiredHost,
    /// Entries that are not followed.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Why nothing is changed at all, if so.
    pub(crate) hold: Option<Refusal>,
    /// Why the object is not followed, if it is an older operator's.
    pub(crate) older: Option<Refusal>,
    /// Entries with an instruction that was not there before.
    pub(crate) changed: BTreeSet<TopologyName>,
    /// Whether the instruction could not be stored: nothing that is reported speaks of it.
    pub(crate) is_unstored: bool,
    /// Services whose doubts could not be stored: their processes do not count as seen.
    pub(crate) in_doubt: BTreeSet<UnitName>,
    /// What went wrong, in sentences.
    pub(crate) problems: Vec<String>,
}

impl Task {
    /// The generation that is followed.
    pub(crate) fn generation(&self) -> i64 {
        let Some(object) = &self.object else { return self.accepted.generation };
        if self.is_unstored {
            return if object.uid == self.accepted.uid { self.accepted.generation } else { 0 };
        }
        // A lagging replica may show an older object than the one that is followed.
        let followed = if object.uid == self.accepted.uid { self.accepted.generation } else { object.generation };
        object.generation.max(followed)
    }

    /// Stores which processes may have read other files than those asked for, and which cannot have, before these files
    /// are changed: then nothing else tells. Where that fails, the files are left as they are.
    pub(crate) async fn note_processes(
        &mut self,
        memory: &mut Memory,
        host: &mut impl Host,
        notes: &BTreeMap<TopologyName, Notes>,
    ) {
        let mut accepted = self.accepted.clone();
        for (name, Notes { doubted, seen }) in notes {
            if let Some(kept) = accepted.entries.get_mut(name) {
                kept.doubted.extend(doubted.clone());
                kept.seen.extend(seen.clone());
            }
        }
        match store(host, accepted).await {
            Ok(accepted) => self.follow(memory, accepted),
            Err(error) => {
                self.problems.push(error.to_string());
                self.desired.paused.extend(notes.keys().cloned());
                self.in_doubt.extend(notes.values().flat_map(|notes| notes.doubted.keys()).cloned());
            }
        }
    }

    /// Saves foreign files and what was found of their processes, before they are replaced. Where that fails, the entry's
    /// part of the host is left as it is.
    pub(crate) async fn save_past(&mut self, memory: &mut Memory, host: &mut impl Host, takings: &Takings) {
        for (name, taking) in takings {
            let saved = match save(host, name, taking).await {
                Ok(()) => self.note_taking(memory, host, name, taking).await,
                Err(error) => Err(error),
            };
            if let Err(error) = saved {
                self.problems.push(error.to_string());
                self.desired.paused.insert(name.clone());
            }
        }
    }

    async fn note_taking(
        &mut self,
        memory: &mut Memory,
        host: &mut impl Host,
        name: &TopologyName,
        taking: &Taking,
    ) -> Result<(), HostError> {
        let mut accepted = self.accepted.clone();
        if let Some(kept) = accepted.entries.get_mut(name) {
            for (path, content) in &taking.files {
                let digest = digest_of_bytes(content.as_bytes());
                kept.past.saved.entry(path.to_string()).or_default().insert(digest);
            }
            kept.past.adopted.extend(taking.adopted.clone());
        }
        let accepted = store(host, accepted).await?;
        self.follow(memory, accepted);
        Ok(())
    }

    fn follow(&mut self, memory: &mut Memory, accepted: Accepted) {
        let paused = std::mem::take(&mut self.desired.paused);
        self.desired = DesiredHost { paused, ..desired(&accepted) };
        memory.accepted = Some(accepted.clone());
        self.accepted = accepted;
    }
}

/// Reads the machine and the accepted state, and accepts what is new: stored durably before anything is done about it.
pub(crate) async fn prepare(
    memory: &mut Memory,
    host: &mut impl Host,
    seen: Seen,
    settings: &Settings,
) -> Result<Task, HostError> {
    let hardware = host.hardware().await?;
    let object = match seen {
        Seen::NotYet | Seen::Nothing => None,
        Seen::Object(object) => Some(*object),
    };
    let (former, newer) = match memory.accepted.take() {
        Some(accepted) => (accepted, None),
        None => {
            make_name_durable(host).await?;
            remember(host).await?
        }
    };
    let hold = newer.or_else(|| object.as_ref().and_then(|object| other_machine(object, &hardware, &settings.host)));
    let mut task = Task {
        desired: DesiredHost::default(),
        accepted: former,
        refused: BTreeMap::new(),
        changed: BTreeSet::new(),
        is_unstored: false,
        in_doubt: BTreeSet::new(),
        problems: Vec::new(),
        object,
        hardware,
        hold,
        older: None,
    };
    let paused = take_over(memory, &mut task, host).await;
    task.older = task.object.as_ref().and_then(|object| older_term(&task.accepted, object));
    let readable = task.hold.as_ref().is_none_or(|hold| hold.reason != Reason::NotUnderstood);
    memory.accepted = readable.then(|| task.accepted.clone());
    task.desired = DesiredHost { paused, ..known_or_rendered(memory, &task.accepted) };
    Ok(task)
}

/// Accepts what the object says and stores it. What cannot be stored is not followed; what it lets go, removes or brings
/// back is not changed against its word either: these entries are returned.
async fn take_over(memory: &mut Memory, task: &mut Task, host: &mut impl Host) -> BTreeSet<TopologyName> {
    let (None, Some(object)) = (&task.hold, &task.object) else { return BTreeSet::new() };
    if let Some((uid, generation, refused)) = &memory.judged
        && (uid, *generation) == (&object.uid, object.generation)
    {
        task.refused.clone_from(refused);
        return BTreeSet::new();
    }
    memory.events.extend(older_term(&task.accepted, object).map(not_followed));
    let judged = accept(&task.accepted, object);
    task.refused = judged.refused;
    memory.judged = None;
    let judgement = (object.uid.clone(), object.generation, task.refused.clone());
    if judged.accepted == task.accepted {
        memory.judged = Some(judgement);
        return BTreeSet::new();
    }
    let former = |name: &TopologyName| task.accepted.entries.get(name);
    let entries = &judged.accepted.entries;
    let changed = entries.iter().filter(|(name, entry)| former(name) != Some(*entry));
    let changed: BTreeSet<TopologyName> = changed.map(|(name, _)| name.clone()).collect();
    let is_turned = |name: &&TopologyName| state(&judged.accepted, name) != state(&task.accepted, name);
    let turned = changed.iter().filter(is_turned).cloned().collect();
    match store(host, judged.accepted).await {
        Ok(accepted) => {
            memory.judged = Some(judgement);
            task.changed = changed;
            task.accepted = accepted;
            BTreeSet::new()
        }
        Err(error) => {
            task.is_unstored = true;
            task.problems.push(format!("the instruction is not followed yet: {error}"));
            turned
        }
    }
}

fn not_followed(refusal: Refusal) -> HostEvent {
    HostEvent { kind: EventKind::Warning, reason: "OlderTerm", action: "Accept", note: refusal.message }
}

fn state(accepted: &Accepted, name: &TopologyName) -> Option<EntryState> {
    accepted.entries.get(name).map(|kept| kept.entry.state)
}

/// Whoever wrote the accepted state may have died before its name was durable: it must not be gone after the next loss of
/// power, when what it asks for has been done.
async fn make_name_durable(host: &mut impl Host) -> Result<(), HostError> {
    match host.sync(&HostPath::new(STATE)).await {
        Err(HostError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What stands on disk; a state that a newer agent wrote holds everything.
pub(crate) async fn remember(host: &mut impl Host) -> Result<(Accepted, Option<Refusal>), HostError> {
    let mut contents = Vec::new();
    for path in copies() {
        contents.push(host.read(&path).await?);
    }
    Ok(match recall(&contents) {
        Recalled::Nothing => (Accepted::default(), None),
        Recalled::Accepted(accepted) => (*accepted, None),
        Recalled::Newer { schema } => {
            let message =
                format!("a newer agent left its state here (format {schema}); upgrade this one, nothing is changed");
            (Accepted::default(), Some(Refusal::new(Reason::NotUnderstood, message)))
        }
    })
}

/// Another machine wrote the status under this name, and nobody said that this one takes its place.
fn other_machine(object: &RawHostState, hardware: &Hardware, host: &str) -> Option<Refusal> {
    let other = &object.status.as_ref()?.hardware.as_ref()?.machine_id;
    let own = &hardware.machine_id;
    let confirmed = object.annotations.get(CONFIRM_MACHINE_ANNOTATION).is_some_and(|id| id == own);
    (!other.is_empty() && !own.is_empty() && other != own && !confirmed).then(|| {
        let message = format!(
            "machine {own} claims the name {host}, which machine {other} bears; if it replaces that one, annotate this object with {CONFIRM_MACHINE_ANNOTATION}={own}"
        );
        Refusal::new(Reason::IdentityMismatch, message)
    })
}

pub(crate) async fn store(host: &mut impl Host, mut accepted: Accepted) -> Result<Accepted, HostError> {
    accepted.sequence += 1;
    let (path, content) = stored(&accepted);
    replace_durably(host, &path, content.as_bytes()).await?;
    Ok(accepted)
}

/// What is rendered once need not be rendered again.
fn known_or_rendered(memory: &mut Memory, accepted: &Accepted) -> DesiredHost {
    if let Some((entries, desired)) = &memory.rendered
        && *entries == accepted.entries
    {
        return desired.clone();
    }
    let desired = desired(accepted);
    memory.rendered = Some((accepted.entries.clone(), desired.clone()));
    desired
}

pub(crate) fn desired(accepted: &Accepted) -> DesiredHost {
    let rendered = accepted.entries.iter().filter_map(|(name, kept)| {
        let written = kept.written.iter().map(|path| HostPath::new(path.clone())).collect();
        let formerly = kept.formerly.iter().map(|(path, digests)| (HostPath::new(path.clone()), digests.clone()));
        let saved = kept.past.saved.iter().map(|(path, digests)| (HostPath::new(path.clone()), digests.clone()));
        let (formerly, saved) = (formerly.collect(), saved.collect());
        let mut entry = DesiredEntry { written, formerly, saved, ..render(&kept.entry).ok()? };
        for service in &mut entry.services {
            service.adopted = kept.past.adopted.get(&service.unit).cloned();
            service.doubted = kept.doubted.get(&service.unit).cloned();
            service.seen = kept.seen.get(&service.unit).cloned();
        }
        Some((name.clone(), entry))
    });
    DesiredHost { entries: rendered.collect(), ..DesiredHost::default() }
}
