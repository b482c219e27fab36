//! Answers that take a look at the host: taken by somebody else on a thread of its own, one at a time, each good for a
//! second, so that however many ask, the host is looked at seldom and probes are answered meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::time::Instant;

use crate::answer::{Answer, plain};

/// How long an answer is good for those who ask the same.
const FRESH: Duration = Duration::from_secs(1);
/// How many wait for a look at once; the others are told to come again, so that there is room for probes.
const MOST_WAITING: usize = 4;
const JSON: &str = "application/json";

/// Takes a look and tells what was seen as JSON, or why nothing was.
pub type Look = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Paths whose answer is looked for when somebody asks.
#[derive(Clone)]
pub struct Looks(Arc<Inner>);

struct Inner {
    looks: BTreeMap<&'static str, Look>,
    last: Arc<Mutex<BTreeMap<&'static str, (Instant, Answer)>>>,
    places: Semaphore,
}

impl Looks {
    /// None.
    pub fn none() -> Self {
        Self::of(BTreeMap::new())
    }

    /// These, by path.
    pub fn of(looks: BTreeMap<&'static str, Look>) -> Self {
        Self(Arc::new(Inner { looks, last: Arc::default(), places: Semaphore::new(MOST_WAITING) }))
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.looks.keys().copied()
    }

    /// The answer at one of the paths: that of a moment ago, or a new one.
    pub async fn told(&self, path: &'static str) -> Answer {
        let Ok(_place) = self.0.places.try_acquire() else {
            return plain(StatusCode::TOO_MANY_REQUESTS, "others ask, too; ask again in a second");
        };
        let last = Arc::clone(&self.0.last).lock_owned().await;
        let inner = Arc::clone(&self.0);
        // Whoever does not wait for the answer leaves a look behind that still goes on: no other begins meanwhile, because
        // it holds the lock.
        let looking = tokio::task::spawn_blocking(move || inner.fresh(path, last));
        looking
            .await
            .unwrap_or_else(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("the look ended: {error}")))
    }
}

impl Inner {
    fn fresh(
        &self,
        path: &'static str,
        mut last: OwnedMutexGuard<BTreeMap<&'static str, (Instant, Answer)>>,
    ) -> Answer {
        if let Some((at, answer)) = last.get(path)
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match self.looks.get(path).map(|look| look()) {
            Some(Ok(body)) => Answer { status: StatusCode::OK, content_type: JSON, body },
            Some(Err(why)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &why),
            None => plain(StatusCode::NOT_FOUND, "nothing is looked at here"),
        };
        last.insert(path, (Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A look that counts how often it is taken, and takes a while.
    fn counted(count: &Arc<AtomicUsize>) -> Looks {
        let count = Arc::clone(count);
        let look: Look = Box::new(move || {
            std::thread::sleep(Duration::from_millis(100));
            Ok(format!("{}", count.fetch_add(1, Ordering::SeqCst)))
        });
        Looks::of([("/look", look)].into())
    }

    #[tokio::test]
    async fn those_who_ask_together_get_one_look_and_too_many_are_sent_away() {
        let count = Arc::new(AtomicUsize::new(0));
        let looks = counted(&count);
        let asked: Vec<_> = (0..MOST_WAITING + 2).map(|_| looks.told("/look")).collect();
        let answers = futures_of(asked).await;
        let status = |status: StatusCode| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((status(StatusCode::OK), status(StatusCode::TOO_MANY_REQUESTS)), (MOST_WAITING, 2));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tokio::time::sleep(FRESH).await;
        let later = looks.told("/look").await;
        assert_eq!((later.body.as_str(), later.content_type), ("1", JSON));
    }

    #[tokio::test]
    async fn who_leaves_early_starts_no_second_look_beside_the_first() {
        let count = Arc::new(AtomicUsize::new(0));
        let looks = counted(&count);
        let left = tokio::time::timeout(Duration::from_millis(20), looks.told("/look")).await;
        assert!(left.is_err());
        assert_eq!(looks.told("/look").await.body, "0", "the look that was left behind is told to the next");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_look_that_fails_says_why() {
        let look: Look = Box::new(|| Err("the bus is gone".to_owned()));
        let answer = Looks::of([("/look", look)].into()).told("/look").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (500, "the bus is gone\n"));
    }

    /// All of them, begun together.
    async fn futures_of(futures: Vec<impl Future<Output = Answer>>) -> Vec<Answer> {
        let mut pending: Vec<_> = futures.into_iter().map(Box::pin).collect();
        let mut done: Vec<Option<Answer>> = pending.iter().map(|_| None).collect();
        std::future::poll_fn(|context| {
            for (future, slot) in pending.iter_mut().zip(done.iter_mut()).filter(|(_, slot)| slot.is_none()) {
                if let std::task::Poll::Ready(answer) = future.as_mut().poll(context) {
                    *slot = Some(answer);
                }
            }
            if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done.into_iter().flatten().collect()
    }
}
