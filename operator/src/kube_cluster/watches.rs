//! Touches the API server: one watch per kind, feeding the caches and waking the pass. Lists are streamed; a server that
//! cannot do that is asked for small pages instead.

#![expect(clippy::disallowed_methods, reason = "this file reads the clock for decisions that take it as `now`")]

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, Resource, ResourceExt};
use lamina_crds::{HostState, SliceTopology};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::kube_cluster::caches::{Caches, Weight};
use crate::snapshot::RawObject;

/// How many objects one page holds where lists cannot be streamed.
const PAGE: u32 = 50;
/// How long a watch lasts before it is renewed, in seconds: a link that was cut silently is noticed by then.
const WATCH_SECONDS: u32 = 120;
/// The same for leases, whose silence is judged after 40 s.
const LEASE_WATCH_SECONDS: u32 = 30;

/// How long a watch that failed rests before it is started again, at first.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The same, at most: there is one operator, and people wait for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Starts all watches as local tasks.
pub fn start(client: &Client, lease_namespace: &str, caches: &Rc<RefCell<Caches>>, changed: &Rc<Notify>) {
    let feed = || Feed { caches: Rc::clone(caches), changed: Rc::clone(changed) };
    let topologies = Api::all_with(client.clone(), &ApiResource::erase::<SliceTopology>(&()));
    let host_states = Api::all_with(client.clone(), &ApiResource::erase::<HostState>(&()));
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), lease_namespace);
    tokio::task::spawn_local(follow("slicetopologies", topologies, WATCH_SECONDS, feed(), |caches, news| {
        each(news, raw).map_or(Weight::Idle, |event| caches.topologies.take(event))
    }));
    tokio::task::spawn_local(follow("hoststates", host_states, WATCH_SECONDS, feed(), |caches, news| {
        each(news, raw).map_or(Weight::Idle, |event| caches.host_states.take(event))
    }));
    tokio::task::spawn_local(follow("nodes", nodes, WATCH_SECONDS, feed(), |caches, news| {
        let labels = |node: PartialObjectMeta<Node>| Some((node.name_any(), node.metadata.labels.unwrap_or_default()));
        each(news, labels).map_or(Weight::Idle, |event| caches.nodes.take(event))
    }));
    tokio::task::spawn_local(follow("leases", leases, LEASE_WATCH_SECONDS, feed(), |caches, news| match news {
        News::Event(event) => {
            each(News::Event(event), renewal).map_or(Weight::Idle, |event| caches.take_lease(event, Timestamp::now()))
        }
        News::Lost => {
            caches.leases_were_lost(Timestamp::now());
            Weight::Idle
        }
    }));
}

/// Where news go.
struct Feed {
    caches: Rc<RefCell<Caches>>,
    changed: Rc<Notify>,
}

impl Feed {
    fn give<K>(&self, take: impl Fn(&mut Caches, News<K>) -> Weight, news: News<K>) {
        if take(&mut self.caches.borrow_mut(), news) == Weight::Matters {
            self.changed.notify_one();
        }
    }
}

/// What a watch says.
enum News<K> {
    Event(Event<K>),
    /// It failed and is being started again.
    Lost,
}

/// Watches one kind for ever.
async fn follow<K>(
    what: &'static str,
    api: Api<K>,
    seconds: u32,
    feed: Feed,
    take: impl Fn(&mut Caches, News<K>) -> Weight,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let streamed = Config::default().timeout(seconds).streaming_lists();
    let paged = Config::default().timeout(seconds).page_size(PAGE);
    for config in [streamed, paged.clone()].into_iter().chain(std::iter::repeat(paged)) {
        let mut stream = watch(api.clone(), config).boxed_local();
        let mut pause = SHORTEST_PAUSE;
        while let Some(news) = stream.next().await {
            match news {
                Ok(event) => {
                    pause = SHORTEST_PAUSE;
                    feed.give(&take, News::Event(event));
                }
                Err(error) if refuses_streams(&error) => {
                    info!(what, "the API server does not stream lists; asking for pages");
                    break;
                }
                Err(error) => {
                    warn!(what, %error, "a watch is interrupted; starting it again");
                    feed.give(&take, News::Lost);
                    // The stream does nothing until it is asked for more.
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        tokio::time::sleep(SHORTEST_PAUSE).await;
    }
}

/// A server without streaming lists answers 422: `sendInitialEvents` is forbidden there.
fn refuses_streams(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 422,
        watcher::Error::WatchError(status) => status.code == 422,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

/// The event with its object reduced to what is kept of it. None for a lost watch and for objects without a name.
fn each<K, T>(news: News<K>, reduce: impl Fn(K) -> Option<(String, T)>) -> Option<Event<(String, T)>> {
    let News::Event(event) = news else { return None };
    Some(match event {
        Event::Apply(object) => Event::Apply(reduce(object)?),
        Event::Delete(object) => Event::Delete(reduce(object)?),
        Event::InitApply(object) => Event::InitApply(reduce(object)?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

fn raw(object: DynamicObject) -> Option<(String, Arc<RawObject>)> {
    let value = serde_json::to_value(object).ok()?;
    let raw = RawObject::from_json(&value)?;
    Some((raw.name.clone(), Arc::new(raw)))
}

fn renewal(lease: Lease) -> Option<(String, String)> {
    let spec = lease.spec.as_ref();
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.to_string());
    Some((lease.name_any(), renewed.unwrap_or_default()))
}
