//! A model of the API server as far as Lamina uses it: versions and conflicts, generations, server-side apply by owner,
//! status apart from spec, finalizers, and every version that ever was, so that watches can be late and go back.

pub mod admission;
pub mod agent;
pub mod election;
pub mod operator;
mod view;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use lamina_crds::decode::decode;
use lamina_crds::{Term, TopologyEntry};
use lamina_operator::snapshot::RawObject;
use serde_json::Value;

pub use view::View;

use crate::accident::{Accident, Fuse, Place};
use crate::api::admission::{Author, Part, admit, admit_term};
use crate::story::Story;

/// The kinds of objects that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What users write.
    SliceTopology,
    /// One per host.
    HostState,
    /// Kubernetes nodes: only their labels matter.
    Node,
    /// The agents' signs of life.
    Lease,
}

/// The API server, shared by everybody in a history.
#[derive(Clone, Debug)]
pub struct ApiServer(Rc<RefCell<Store>>);

/// An object from one version of the store on; `None` where it was gone.
type Version = (u64, Option<Arc<RawObject>>);

/// Entries by host, with the version of the object in which they stood.
type ReadEntries = BTreeMap<String, (String, Rc<[TopologyEntry]>)>;

/// Everything the API server keeps.
#[derive(Clone, Debug)]
pub struct Store {
    /// Counts every change.
    pub version: u64,
    /// The versions at which something of a kind changed, oldest first.
    changes: BTreeMap<Kind, Vec<u64>>,
    /// All versions of all objects, oldest first.
    history: BTreeMap<(Kind, String), Vec<Version>>,
    /// Which entries of a HostState the operator applied, by host.
    applied: BTreeMap<String, BTreeSet<String>>,
    /// Whether nobody can reach it.
    pub is_away: bool,
    /// Whether Lamina's definitions are being deleted.
    pub definitions_leave: bool,
    /// What time it is.
    pub now: Timestamp,
    /// Writes by operator and agents, signs of life not counted.
    pub writes: u64,
    /// What the admission rules refused, in sentences.
    pub refused: Vec<String>,
    /// Events, as sentences.
    pub events: Vec<String>,
    /// Seats of operators whose processes are stopped.
    pub stopped: BTreeSet<usize>,
    /// The entries of each host's spec as last read, with the version that was.
    read_entries: RefCell<ReadEntries>,
    fuse: Fuse,
    story: Story,
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The object is not the one, or not at the version, that the write is for.
    Conflict(String),
    /// There is no such object.
    NotFound,
    /// There is one already.
    Exists,
    /// The author may not do this.
    Refused(String),
    /// No answer.
    Unavailable,
}

/// Which object a write is for; what is given must be so.
#[derive(Clone, Debug, Default)]
pub struct Precondition {
    /// Its identity.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
}

impl ApiServer {
    /// An empty one.
    pub fn new(fuse: Fuse, story: Story, now: Timestamp) -> Self {
        Self(Rc::new(RefCell::new(Store {
            version: 1,
            changes: BTreeMap::new(),
            history: BTreeMap::new(),
            applied: BTreeMap::new(),
            is_away: false,
            definitions_leave: false,
            now,
            writes: 0,
            refused: Vec::new(),
            events: Vec::new(),
            stopped: BTreeSet::new(),
            read_entries: RefCell::default(),
            fuse,
            story,
        })))
    }

    /// Another server that keeps the same and goes its own way.
    pub fn fork(&self, fuse: Fuse, story: Story) -> Self {
        let store = self.0.borrow().clone();
        Self(Rc::new(RefCell::new(Store { fuse, story, ..store })))
    }

    /// Looks at or changes what it keeps, as nobody but the server itself can.
    pub fn with<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// One request of the operator or an agent: counted, and the place where an accident happens.
    pub async fn request<T>(
        &self,
        author: &Author,
        words: &dyn Display,
        act: impl FnOnce(&mut Store) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let accident = self.with(|store| {
            store.writes += 1;
            store.fuse.strike(Place::ApiServer, words)
        });
        match &accident {
            Some(Accident::DeathBefore | Accident::PowerLossBefore) => {
                self.with(|store| store.story.tell(author, || format!("{accident:?} to: {words}")));
                return std::future::pending().await;
            }
            Some(Accident::FailureBefore) => {
                self.with(|store| store.story.tell(author, || format!("no answer, not done: {words}")));
                return Err(WriteError::Unavailable);
            }
            Some(Accident::Stop) => self.stop(author, words).await,
            Some(Accident::DeathAfter | Accident::PowerLossAfter | Accident::FailureAfter | Accident::Hand(_))
            | None => {}
        }
        let result = self.with(|store| if store.is_away { Err(WriteError::Unavailable) } else { act(store) });
        self.with(|store| {
            store.story.tell(author, || match &result {
                Ok(_) => words.to_string(),
                Err(error) => format!("{words}: {error:?}"),
            });
        });
        match &accident {
            Some(Accident::DeathAfter | Accident::PowerLossAfter) => {
                self.with(|store| store.story.tell(author, || format!("{accident:?}")));
                std::future::pending().await
            }
            Some(Accident::FailureAfter) => Err(WriteError::Unavailable),
            _ => result,
        }
    }
}

impl ApiServer {
    /// An operator is stopped while it sends something, until somebody lets it go on.
    async fn stop(&self, author: &Author, words: &dyn Display) {
        let Author::Operator(seat) = *author else { return };
        self.with(|store| {
            store.stopped.insert(seat);
            store.story.tell(author, || format!("is stopped while it sends: {words}"));
        });
        let goes_on = |_: &mut Context<'_>| {
            if self.with(|store| store.stopped.contains(&seat)) { Poll::Pending } else { Poll::Ready(()) }
        };
        std::future::poll_fn(goes_on).await;
    }
}

impl Store {
    /// The term of a HostState of this identity at a generation.
    pub fn term_of(&self, host: &str, uid: &str, generation: i64) -> Option<Term> {
        let versions = self.history.get(&(Kind::HostState, host.to_owned()))?;
        let mut objects = versions.iter().rev().filter_map(|(_, object)| object.as_ref());
        objects.find(|object| object.uid == uid && object.generation == generation).map(|object| object.term())
    }

    /// The object as it is now.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<RawObject>> {
        self.history.get(&(kind, name.to_owned()))?.last()?.1.as_ref()
    }

    /// All objects of a kind as they were at a version.
    pub fn list_at(&self, kind: Kind, version: u64) -> impl Iterator<Item = (&str, &Arc<RawObject>)> {
        let of_kind = self.history.iter().filter(move |((of, _), _)| *of == kind);
        of_kind.filter_map(move |((_, name), versions)| Some((name.as_str(), at(versions, version)?)))
    }

    /// One object as it was at a version.
    pub fn get_at(&self, kind: Kind, name: &str, version: u64) -> Option<&Arc<RawObject>> {
        at(self.history.get(&(kind, name.to_owned()))?, version)
    }

    /// The newest version of the present HostState of a host that has this generation or an earlier one.
    pub fn at_generation(&self, host: &str, generation: i64) -> Option<&Arc<RawObject>> {
        let uid = &self.get(Kind::HostState, host)?.uid;
        let versions = self.history.get(&(Kind::HostState, host.to_owned()))?;
        let objects = versions.iter().rev().filter_map(|(_, object)| object.as_ref());
        objects.filter(|object| object.uid == *uid).find(|object| object.generation <= generation)
    }

    /// Every SliceTopology of this name that ever was at this generation, in all its versions.
    pub fn topologies_at(&self, name: &str, generation: i64) -> impl Iterator<Item = &Arc<RawObject>> {
        let versions = self.history.get(&(Kind::SliceTopology, name.to_owned())).into_iter().flatten();
        let objects = versions.filter_map(|(_, object)| object.as_ref());
        objects.filter(move |object| object.generation == generation)
    }

    /// The entries of a HostState's spec that can be read: once for each version.
    pub fn entries(&self, object: &RawObject) -> Rc<[TopologyEntry]> {
        let mut read = self.read_entries.borrow_mut();
        if let Some((version, entries)) = read.get(&object.name)
            && *version == object.resource_version
        {
            return Rc::clone(entries);
        }
        let list = object.spec.get("topologies").and_then(Value::as_array);
        let entries: Rc<[TopologyEntry]> = list.into_iter().flatten().filter_map(|value| decode(value).ok()).collect();
        read.insert(object.name.clone(), (object.resource_version.clone(), Rc::clone(&entries)));
        entries
    }

    /// The last version not above this one at which something of a kind changed.
    pub fn last_change(&self, kind: Kind, version: u64) -> u64 {
        let changes = self.changes.get(&kind).map(Vec::as_slice).unwrap_or_default();
        changes[..changes.partition_point(|change| *change <= version)].last().copied().unwrap_or(0)
    }

    /// All objects of a kind as they are now.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&str, &Arc<RawObject>)> {
        self.list_at(kind, u64::MAX)
    }

    /// Creates an object.
    pub fn create(&mut self, author: &Author, kind: Kind, object: RawObject) -> Result<Arc<RawObject>, WriteError> {
        self.admit(author, kind, &object.name, Part::Whole)?;
        if self.get(kind, &object.name).is_some() {
            return Err(WriteError::Exists);
        }
        let uid = format!("{}-{}", object.name, self.version + 1);
        let created = Some(self.now);
        Ok(self.keep(kind, RawObject { uid, created, generation: 1, deletion_asked: None, ..object }))
    }

    /// Changes an object. A changed spec counts as a new generation; a write that changes nothing is no new version.
    pub fn change(
        &mut self,
        author: &Author,
        (kind, name, part): (Kind, &str, Part),
        precondition: &Precondition,
        edit: impl FnOnce(&mut RawObject),
    ) -> Result<Arc<RawObject>, WriteError> {
        self.admit(author, kind, name, part)?;
        let present = Arc::clone(self.get(kind, name).ok_or(WriteError::NotFound)?);
        precondition.holds(&present)?;
        let mut object = RawObject::clone(&present);
        edit(&mut object);
        if kind == Kind::HostState {
            admit_term(present.term(), object.term()).map_err(WriteError::Refused)?;
        }
        if object == *present {
            return Ok(present);
        }
        if object.spec != present.spec {
            object.generation += 1;
        }
        if object.deletion_asked.is_some() && object.finalizers.is_empty() {
            self.forget(kind, name);
            return Ok(Arc::new(object));
        }
        Ok(self.keep(kind, object))
    }

    /// Asks for the deletion of an object: finalizers hold it.
    pub fn delete(
        &mut self,
        author: &Author,
        kind: Kind,
        name: &str,
        precondition: &Precondition,
    ) -> Result<(), WriteError> {
        self.admit(author, kind, name, Part::Whole)?;
        let present = Arc::clone(self.get(kind, name).ok_or(WriteError::NotFound)?);
        precondition.holds(&present)?;
        if present.finalizers.is_empty() {
            self.forget(kind, name);
        } else if present.deletion_asked.is_none() {
            let mut object = RawObject::clone(&present);
            object.deletion_asked = Some(self.now);
            object.generation += 1;
            self.keep(kind, object);
        }
        Ok(())
    }

    /// Server-side apply of a HostState's entries by the operator: what it applied before and leaves out now goes, what
    /// others applied stays.
    pub fn apply_entries(
        &mut self,
        author: &Author,
        host: &str,
        precondition: &Precondition,
        term: Term,
        entries: Vec<Value>,
    ) -> Result<Arc<RawObject>, WriteError> {
        let name = |entry: &Value| entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let own: BTreeSet<String> = entries.iter().map(name).collect();
        let before = self.applied.get(host).cloned().unwrap_or_default();
        let changed = self.change(author, (Kind::HostState, host, Part::Whole), precondition, |object| {
            let present = object.spec.get("topologies").and_then(Value::as_array).cloned().unwrap_or_default();
            let of_others =
                present.into_iter().filter(|entry| !before.contains(&name(entry)) && !own.contains(&name(entry)));
            let all: Vec<Value> = entries.iter().cloned().chain(of_others).collect();
            let mut spec = serde_json::json!({ "term": term });
            if !all.is_empty() {
                spec["topologies"] = all.into();
            }
            object.spec = spec.into();
        })?;
        self.applied.insert(host.to_owned(), own);
        Ok(changed)
    }

    /// Deletes objects as somebody does who does not care: finalizers are taken off.
    pub fn delete_by_force(&mut self, kind: Kind, name: &str) {
        if self.get(kind, name).is_some() {
            self.forget(kind, name);
        }
    }

    fn admit(&mut self, author: &Author, kind: Kind, name: &str, part: Part) -> Result<(), WriteError> {
        admit(author, kind, name, part).map_err(|message| {
            self.refused.push(message.clone());
            WriteError::Refused(message)
        })
    }

    fn keep(&mut self, kind: Kind, mut object: RawObject) -> Arc<RawObject> {
        self.count(kind);
        object.resource_version = self.version.to_string();
        let key = (kind, object.name.clone());
        let object = Arc::new(object);
        self.history.entry(key).or_default().push((self.version, Some(Arc::clone(&object))));
        object
    }

    fn count(&mut self, kind: Kind) {
        self.version += 1;
        self.changes.entry(kind).or_default().push(self.version);
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        self.count(kind);
        self.history.entry((kind, name.to_owned())).or_default().push((self.version, None));
        if kind == Kind::HostState {
            self.applied.remove(name);
        }
    }
}

fn at(versions: &[(u64, Option<Arc<RawObject>>)], version: u64) -> Option<&Arc<RawObject>> {
    let known = versions.partition_point(|(of, _)| *of <= version);
    versions[..known].last()?.1.as_ref()
}

impl Precondition {
    /// An object of this identity and version.
    pub fn of(target: &lamina_operator::changes::Target) -> Self {
        Self { uid: Some(target.uid.clone()), resource_version: Some(target.resource_version.clone()) }
    }

    fn holds(&self, object: &RawObject) -> Result<(), WriteError> {
        let Self { uid, resource_version } = self;
        if uid.as_ref().is_some_and(|uid| *uid != object.uid) {
            return Err(WriteError::Conflict("the uid is another".to_owned()));
        }
        if resource_version.as_ref().is_some_and(|version| *version != object.resource_version) {
            return Err(WriteError::Conflict("the object has been modified".to_owned()));
        }
        Ok(())
    }
}

/// Words that are only made up if somebody wants to read them.
pub struct Words<F: Fn() -> String>(pub F);

impl<F: Fn() -> String> Display for Words<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0())
    }
}

/// An object with nothing in it but a name, labels and a spec.
pub fn object(name: &str, labels: BTreeMap<String, String>, spec: Value) -> RawObject {
    RawObject {
        name: name.to_owned(),
        uid: String::new(),
        resource_version: String::new(),
        generation: 0,
        labels,
        annotations: BTreeMap::new(),
        finalizers: Vec::new(),
        created: None,
        deletion_asked: None,
        spec: spec.into(),
        status: Value::Null.into(),
    }
}
