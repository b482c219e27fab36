//! The operators' Lease on the model API server: does for one operator what the operator's own election decides.

use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::Term;
use lamina_operator::election::{Candidate, Decision, Lease, Moment, Seen};
use lamina_operator::snapshot::RawObject;
use serde_json::{Value, json};

use super::admission::{Author, OPERATORS_LEASE, Part};
use super::{ApiServer, Kind, Precondition, Store, View, WriteError, object};

/// The moment on the one clock that everybody has here.
pub fn moment(now: Timestamp) -> Moment {
    Moment::new(Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default())
}

/// Stands for election until nothing is left to do now. `highest` is the highest term that the operator sees on hosts.
pub async fn campaign(api: &ApiServer, author: &Author, candidate: &mut Candidate, view: &View, highest: Term) {
    watch(api, candidate, view);
    // A write is answered, or what stands there is read: a few turns are enough.
    for _ in 0..4 {
        let began = api.with(|store| moment(store.now));
        let (over, lease, words) = match candidate.decide(highest, began) {
            Decision::Wait { .. } => return,
            Decision::Stop => {
                candidate.stop();
                continue;
            }
            Decision::Renew { .. } => return renew(api, author, candidate, highest),
            Decision::Acquire { over, term } => {
                (over, candidate.lease(term), format!("takes the Lease in term {term}"))
            }
            Decision::Restore { term } => (None, candidate.vacant(term), format!("restores the Lease of term {term}")),
        };
        let written = api.request(author, &words, |store| put(store, author, over.as_ref(), &lease)).await;
        let now = api.with(|store| moment(store.now));
        match written {
            Ok(lease) => candidate.wrote(lease, began, now),
            Err(WriteError::Unavailable) => return,
            Err(_) => candidate.read(api.with(|store| seen(store, u64::MAX)), now),
        }
    }
}

/// Takes note of what the watch of the Lease shows.
pub fn watch(api: &ApiServer, candidate: &mut Candidate, view: &View) {
    let Some(version) = view.of(Kind::Lease) else { return };
    api.with(|store| candidate.see(seen(store, version), moment(store.now)));
}

/// Renews the Lease if it is time. Written every few seconds whatever happens, it is neither counted nor an accident's
/// place.
pub fn renew(api: &ApiServer, author: &Author, candidate: &mut Candidate, highest: Term) {
    api.with(|store| {
        let now = moment(store.now);
        let Decision::Renew { over } = candidate.decide(highest, now) else { return };
        if store.is_away {
            return;
        }
        match put(store, author, Some(&over), &candidate.lease(over.term)) {
            Ok(lease) => candidate.wrote(lease, now, now),
            Err(_) => candidate.read(seen(store, u64::MAX), now),
        }
    });
}

/// Hands the Lease back, if it is this operator's.
pub async fn hand_back(api: &ApiServer, author: &Author, candidate: &mut Candidate) {
    candidate.stop();
    let Some((over, lease)) = candidate.handed_back() else { return };
    // Whoever gets no answer lets it run out.
    let _ = api.request(author, &"hands the Lease back", |store| put(store, author, Some(&over), &lease)).await;
}

/// A PUT: with identity and version it replaces that very object only, without them it creates.
fn put(store: &mut Store, author: &Author, over: Option<&Lease>, lease: &Lease) -> Result<Lease, WriteError> {
    let spec = json!({ "holder": lease.holder, "term": lease.term, "renewed": store.now.to_string() });
    let written = match over {
        None => store.create(author, Kind::Lease, object(OPERATORS_LEASE, Default::default(), spec))?,
        Some(Lease { uid, version, .. }) => {
            let precondition = Precondition { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
            store.change(author, (Kind::Lease, OPERATORS_LEASE, Part::Whole), &precondition, |lease| {
                lease.spec = spec.into()
            })?
        }
    };
    Ok(read(&written))
}

fn seen(store: &Store, version: u64) -> Seen {
    match store.get_at(Kind::Lease, OPERATORS_LEASE, version) {
        Some(lease) => Seen::There(read(lease)),
        None => Seen::Missing,
    }
}

fn read(lease: &RawObject) -> Lease {
    let text = |key: &str| lease.spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Lease {
        holder: text("holder"),
        term: lease.term(),
        duration: Duration::ZERO,
        renewed: text("renewed"),
        uid: lease.uid.clone(),
        version: lease.resource_version.clone(),
    }
}
