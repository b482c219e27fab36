//! Touches the operators' Lease: does what `election` decides, on a thread of its own, so that no long pass keeps it from
//! renewing; hands the Lease back at the end.

#![expect(clippy::disallowed_methods, reason = "a Lease carries the time of its renewal, for people")]

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use lamina_crds::Term;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::changes::FIELD_MANAGER;
use crate::clock::moment;
use crate::election::{Candidate, Decision, Lease, Moment, Seen, Tenure};

/// How long one call may take: two of them fit into a tenure.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long after a call that failed the next one is tried.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a watch lasts before it is renewed, in seconds.
const WATCH_SECONDS: u32 = 60;

/// This operator's part in the election.
pub struct Leadership {
    tenure: watch::Receiver<Option<Tenure>>,
    highest: watch::Sender<Option<Term>>,
    resign: oneshot::Sender<Farewell>,
    thread: JoinHandle<()>,
}

/// How an operator takes its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Its last write has ended: somebody else may begin at once.
    HandBack,
    /// A write has had no answer and may still be done: the Lease runs out by itself.
    RunOut,
}

/// Which Lease, and who stands for election.
#[derive(Clone, Debug)]
pub struct Candidacy {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// What no other process, past or present, is called.
    pub identity: String,
}

impl Leadership {
    /// Stands for election from the first call of [`Leadership::note`] on.
    pub fn seek(client: &kube::Config, candidacy: Candidacy) -> anyhow::Result<Self> {
        let (tenure_sender, tenure) = watch::channel(None);
        let (highest, highest_receiver) = watch::channel(None);
        let (resign, resigned) = oneshot::channel();
        let config = client.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let stand = move || {
            runtime.block_on(async move {
                match Client::try_from(config) {
                    Ok(client) => {
                        let campaign = Campaign::new(&client, &candidacy, highest_receiver, tenure_sender);
                        campaign.run(resigned).await;
                    }
                    Err(error) => warn!(%error, "no client for the operators' Lease"),
                }
            });
        };
        let thread = std::thread::Builder::new().name("leadership".to_owned()).spawn(stand);
        Ok(Self { tenure, highest, resign, thread: thread.context("start a thread")? })
    }

    /// Says which is the highest term that any host shows: known only once every cache is complete.
    pub fn note(&self, highest: Term) {
        self.highest.send_if_modified(|known| known.replace(highest) != Some(highest));
    }

    /// The right to write, as it stands at every moment.
    pub fn tenure(&self) -> watch::Receiver<Option<Tenure>> {
        self.tenure.clone()
    }

    /// Ends it, and waits until that is done.
    pub fn resign(self, farewell: Farewell) {
        let Self { tenure: _, highest: _, resign, thread } = self;
        // Whoever has ended already holds nothing.
        let _ = resign.send(farewell);
        let _ = thread.join();
    }
}

struct Campaign {
    leases: Api<v1::Lease>,
    name: String,
    candidate: Candidate,
    highest: watch::Receiver<Option<Term>>,
    tenure: watch::Sender<Option<Tenure>>,
}

impl Campaign {
    fn new(
        client: &Client,
        candidacy: &Candidacy,
        highest: watch::Receiver<Option<Term>>,
        tenure: watch::Sender<Option<Tenure>>,
    ) -> Self {
        let Candidacy { namespace, name, identity } = candidacy.clone();
        let leases = Api::namespaced(client.clone(), &namespace);
        info!(%namespace, lease = %name, %identity, "standing for election");
        Self { leases, name, candidate: Candidate::new(identity), highest, tenure }
    }

    async fn run(mut self, mut resigned: oneshot::Receiver<Farewell>) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name)).timeout(WATCH_SECONDS);
        let mut news = std::pin::pin!(watcher(self.leases.clone(), config));
        let mut listed = Seen::Missing;
        loop {
            let pause = self.act().await;
            self.publish();
            tokio::select! {
                biased;
                farewell = &mut resigned => return self.leave(farewell.unwrap_or(Farewell::HandBack)).await,
                () = next(&mut news, &mut listed, &mut self.candidate) => {}
                changed = self.highest.changed() => if changed.is_err() { return },
                () = until(pause) => {}
            }
        }
    }

    /// Does what is to be done now. Says when to look again; `None` if only news matter.
    async fn act(&mut self) -> Option<Moment> {
        let highest = *self.highest.borrow_and_update();
        match self.candidate.decide(highest?, moment()) {
            Decision::Wait { until } => until,
            Decision::Stop => {
                warn!("another operator holds the Lease; this one writes nothing any more");
                self.candidate.stop();
                Some(moment())
            }
            Decision::Acquire { over, term } => {
                info!(%term, "taking the Lease");
                self.write(over, self.candidate.lease(term)).await
            }
            Decision::Renew { over } => {
                let lease = self.candidate.lease(over.term);
                self.write(Some(over), lease).await
            }
            Decision::Restore { term } => {
                warn!("the operators' Lease was lost; waiting for whoever held it");
                self.write(None, self.candidate.vacant(term)).await
            }
        }
    }

    async fn write(&mut self, over: Option<Lease>, lease: Lease) -> Option<Moment> {
        let began = moment();
        match self.replace(over.as_ref(), &lease).await {
            Ok(written) => {
                let led = self.candidate.tenure().map(|tenure| tenure.term);
                let leads = written.term;
                self.candidate.wrote(written, began, moment());
                if self.candidate.tenure().is_some() && led != Some(leads) {
                    info!(term = %leads, "this operator leads");
                }
                Some(moment())
            }
            Err(error) => {
                debug!(error = format!("{error:#}"), "the Lease is not written");
                self.read_again().await;
                Some(moment().after(AFTER_FAILURE))
            }
        }
    }

    /// What stands there now, told by the server itself.
    async fn read_again(&mut self) {
        let found = timeout(DEADLINE, self.leases.get_opt(&self.name)).await;
        match found {
            Ok(Ok(Some(lease))) => self.candidate.read(Seen::There(seen(&lease)), moment()),
            Ok(Ok(None)) => self.candidate.read(Seen::Missing, moment()),
            Ok(Err(error)) => debug!(%error, "the Lease cannot be read"),
            Err(_) => debug!("the Lease cannot be read in time"),
        }
    }

    /// A PUT: with identity and version it replaces that very object only, without them it creates. Both are rights on one
    /// name. A version alone would not do: where there is no object, the server makes one, whatever version is asked for.
    async fn replace(&self, over: Option<&Lease>, lease: &Lease) -> anyhow::Result<Lease> {
        let Lease { holder, term, duration, renewed: _, uid: _, version: _ } = lease;
        let known = |part: fn(&Lease) -> &String| over.map(part).filter(|text| !text.is_empty());
        let object = serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "uid": known(|over| &over.uid),
                "resourceVersion": known(|over| &over.version),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration.as_secs(),
                "leaseTransitions": term,
                "renewTime": MicroTime(Timestamp::now()),
            },
        }))
        .context("write a Lease")?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = timeout(DEADLINE, self.leases.replace(&self.name, &parameters, &object)).await;
        Ok(seen(&written.context("no answer in time")??))
    }

    fn publish(&self) {
        let tenure = self.candidate.tenure();
        self.tenure.send_if_modified(|known| std::mem::replace(known, tenure) != tenure);
    }

    async fn leave(mut self, farewell: Farewell) {
        self.candidate.stop();
        self.publish();
        let Some((over, lease)) = self.candidate.handed_back().filter(|_| farewell == Farewell::HandBack) else {
            return;
        };
        match self.replace(Some(&over), &lease).await {
            Ok(_) => info!("the Lease is handed back"),
            Err(error) => warn!(error = format!("{error:#}"), "the Lease is not handed back; it runs out by itself"),
        }
    }
}

/// Waits for one piece of news about the Lease and tells the candidate.
async fn next(
    news: &mut (impl Stream<Item = watcher::Result<Event<v1::Lease>>> + Unpin),
    listed: &mut Seen,
    candidate: &mut Candidate,
) {
    match news.next().await {
        Some(Ok(Event::Init)) => *listed = Seen::Missing,
        Some(Ok(Event::InitApply(lease))) => *listed = Seen::There(seen(&lease)),
        Some(Ok(Event::InitDone)) => candidate.see(std::mem::replace(listed, Seen::Missing), moment()),
        Some(Ok(Event::Apply(lease))) => candidate.see(Seen::There(seen(&lease)), moment()),
        Some(Ok(Event::Delete(_))) => candidate.see(Seen::Missing, moment()),
        Some(Err(error)) => {
            debug!(%error, "the watch of the Lease is interrupted; starting it again");
            sleep(AFTER_FAILURE).await;
        }
        None => sleep(AFTER_FAILURE).await,
    }
}

async fn until(moment_: Option<Moment>) {
    match moment_ {
        Some(then) => sleep(moment().until(then)).await,
        None => std::future::pending().await,
    }
}

fn seen(lease: &v1::Lease) -> Lease {
    let spec = lease.spec.clone().unwrap_or_default();
    let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    Lease {
        holder: spec.holder_identity.unwrap_or_default(),
        term: spec.lease_transitions.and_then(|number| Term::new(i64::from(number))).unwrap_or_default(),
        duration: Duration::from_secs(duration),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
        uid: lease.uid().unwrap_or_default(),
        version: lease.resource_version().unwrap_or_default(),
    }
}
