//! The operators' processes: two of them, of which one leads. One may be stopped in the middle of a write, which then
//! arrives when it goes on.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::Term;
use lamina_operator::cluster::{Cluster as _, ClusterError};
use lamina_operator::{controller, memory};

use crate::api::election::{campaign, hand_back, moment, renew, watch};
use crate::api::operator::OperatorClient;
use crate::api::{ApiServer, Kind};
use crate::wake::Look;

/// How many there are.
pub const SEATS: usize = 2;

/// The place of one operator, whether or not its process lives.
#[derive(Default)]
pub struct Seat {
    /// Its process, if it lives and is not in the middle of a turn.
    pub process: Option<Operator>,
    turn: Option<Pin<Box<dyn Future<Output = Done>>>>,
    lives: u64,
}

/// An operator's process.
pub struct Operator {
    memory: memory::Memory,
    term: Option<Term>,
    look: Option<Look<[u64; 4]>>,
    /// Its connection.
    pub client: OperatorClient,
}

/// A process whose turn has ended.
struct Done {
    operator: Operator,
    is_current: bool,
}

/// What became of a turn.
pub enum Turn {
    /// There is nobody, or somebody who is stopped.
    None,
    /// It ended; whatever it wrote last of topologies may be judged if it knew everything.
    Ended {
        /// Whether it knew everything.
        is_current: bool,
    },
    /// Its author died.
    Died,
}

/// How long after a write that came too late, or was refused, the operator looks again.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

impl Seat {
    /// Whether a process lives here, stopped or not.
    pub fn is_taken(&self) -> bool {
        self.process.is_some() || self.turn.is_some()
    }

    /// A new process, if there is none.
    pub fn fill(&mut self, seat: usize, api: &ApiServer, now: Timestamp) {
        if !self.is_taken() {
            self.lives += 1;
            let client = OperatorClient::new(api, seat, self.lives, now);
            self.process = Some(Operator { memory: memory::Memory::default(), term: None, look: None, client });
        }
    }

    /// The same seat in another world; none while its process is in the middle of a turn.
    pub fn moved_to(&self, api: &ApiServer) -> Option<Self> {
        let Self { process, turn, lives } = self;
        let process = process.as_ref().map(|operator| operator.moved_to(api));
        turn.is_none().then_some(Self { process, turn: None, lives: *lives })
    }

    /// The process is killed, wherever it is.
    pub fn kill(&mut self) {
        (self.process, self.turn) = (None, None);
    }

    /// The process is asked to end: it hands the Lease back.
    pub fn drain(&mut self) {
        let Some(mut operator) = self.process.take() else { return };
        let OperatorClient { api, author, candidate, .. } = &mut operator.client;
        // What does not come to its end has died on the way.
        let _ = once(&mut Box::pin(hand_back(api, author, candidate)));
    }

    /// Time has passed: whoever lives and is not stopped renews what it holds.
    pub fn renew(&mut self) {
        let Some(operator) = self.process.as_mut().filter(|operator| !operator.client.is_stopped()) else { return };
        let highest = operator.client.snapshot().highest_term();
        let OperatorClient { api, author, candidate, .. } = &mut operator.client;
        renew(api, author, candidate, highest);
    }

    /// Time has passed: the watch of the Leases shows everything.
    pub fn watch(&mut self, now: Timestamp) {
        let Some(operator) = self.process.as_mut().filter(|operator| !operator.client.is_stopped()) else { return };
        let client = &mut operator.client;
        client.api.with(|store| client.view.catch_up_leases(store));
        client.watch_leases(now);
        watch(&client.api, &mut client.candidate, &client.view);
    }

    /// Whether it may write now.
    pub fn leads(&self, now: Timestamp) -> bool {
        let tenure = self.process.as_ref().and_then(|operator| operator.client.candidate.tenure());
        tenure.is_some_and(|tenure| tenure.left(moment(now)).is_some())
    }

    /// One turn: the election, and a pass if it leads. One that was stopped in the middle goes on where it was.
    pub fn take_turn(&mut self, seat: usize, api: &ApiServer, now: Timestamp) -> Turn {
        let mut turn = match (self.turn.take(), self.process.take()) {
            (Some(turn), _) => turn,
            (None, Some(operator)) if operator.client.is_stopped() || !operator.client.view.is_complete() => {
                self.process = Some(operator);
                return Turn::None;
            }
            (None, Some(operator)) => Box::pin(operator.turn(now)),
            (None, None) => return Turn::None,
        };
        match once(&mut turn) {
            Some(Done { operator, is_current }) => {
                self.process = Some(operator);
                Turn::Ended { is_current }
            }
            None if api.with(|store| store.stopped.contains(&seat)) => {
                self.turn = Some(turn);
                Turn::None
            }
            None => Turn::Died,
        }
    }
}

impl Operator {
    fn moved_to(&self, api: &ApiServer) -> Self {
        let Self { memory, term, look, client } = self;
        Self { memory: memory.clone(), term: *term, look: look.clone(), client: client.moved_to(api) }
    }

    async fn turn(mut self, now: Timestamp) -> Done {
        self.client.watch_leases(now);
        self.stand().await;
        let term = self.client.candidate.tenure().map(|tenure| tenure.term);
        if self.term != term {
            self = Self { memory: memory::Memory::default(), term, look: None, client: self.client };
        }
        let heard = self.client.heard();
        let rests = self.look.as_ref().is_some_and(|look| !look.is_over(&heard, now));
        let Some(term) = term.filter(|_| !rests) else { return Done { operator: self, is_current: false } };
        let client = &mut self.client;
        let is_current = client.api.with(|store| client.view.is_current(store));
        let result = controller::pass(&mut self.memory, client, term, now).await;
        let due = due(&result, now);
        self.look = Some(Look { at: now, heard, due });
        // Whoever was stopped in between knows of another time.
        let is_current = is_current && self.client.api.with(|store| store.now == now);
        Done { operator: self, is_current }
    }

    async fn stand(&mut self) {
        if self.client.view.of(Kind::HostState).is_none() {
            return;
        }
        let highest = self.client.snapshot().highest_term();
        let OperatorClient { api, author, candidate, view, .. } = &mut self.client;
        campaign(api, author, candidate, view, highest).await;
    }
}

/// When the operator looks again even if it hears nothing.
fn due(result: &Result<controller::PassSummary, ClusterError>, now: Timestamp) -> Option<Timestamp> {
    let summary = match result {
        Ok(summary) => summary,
        Err(ClusterError::NotLeading { .. }) => return Some(now + AFTER_CONFLICT),
        Err(_) => return Some(now),
    };
    let conflict = (summary.conflicts > 0).then(|| now + AFTER_CONFLICT);
    let refusal = (summary.refusals > 0).then(|| now + AFTER_REFUSAL);
    [summary.wake_at, conflict, refusal].into_iter().flatten().min()
}

/// Lets somebody act until the end, or until it dies or is stopped: simulated effects never wait otherwise.
fn once<T>(future: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
