//! Puts the answers of everybody to one series of instances side by side.

use std::num::NonZero;
use std::thread;

use lamina_operator::placement::Verdict;

use crate::exhaustive;
use crate::instance::Instance;
use crate::kubelet::{KubeletAnswer, ModeAnswer};
use crate::lamina;
use crate::score::{Fault, Score, score};

/// How everybody did on one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The instance's number.
    pub id: u32,
    /// Its load in percent.
    pub load: u32,
    /// The score of each mode of the kubelet, in the peer's order; or what is wrong with its answer.
    pub modes: Vec<(String, Result<Score, Fault>)>,
    /// Lamina's score.
    pub lamina: Score,
    /// Whether Lamina says that nothing is better.
    pub proven: bool,
    /// The best there is, where an exhaustive search found it.
    pub optimum: Option<Score>,
}

impl Compared {
    /// The best valid score of the kubelet's modes.
    pub fn best_mode(&self) -> Option<Score> {
        self.modes.iter().filter_map(|(_, score)| score.as_ref().ok()).min().copied()
    }

    /// What is wrong with Lamina's answer, if anything is: a mode of the kubelet, or the search, did better.
    pub fn loss(&self) -> Option<String> {
        let Self { id, load, modes, lamina, proven, optimum } = self;
        let better = modes.iter().find(|(_, score)| score.as_ref().is_ok_and(|score| score < lamina));
        let verdict = if *proven { "Optimal" } else { "Feasible" };
        let said =
            |other: String| format!("instance {id} at {load} %: {other}, Lamina has {lamina} and calls it {verdict}");
        match (better, optimum) {
            (Some((mode, Ok(score))), _) => Some(said(format!("{mode} has {score}"))),
            (Some((_, Err(_))) | None, Some(best)) if best != lamina => Some(said(format!("{best} is possible"))),
            (Some((_, Err(_))) | None, _) => None,
        }
    }
}

/// Compares on all instances, using all processors.
///
/// # Errors
/// Fails when an answer of Lamina is not a placement at all.
pub fn compare(instances: &[Instance], kubelet: &[KubeletAnswer]) -> Result<Vec<Compared>, String> {
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let share = instances.len().div_ceil(workers).max(1);
    let parts = instances.chunks(share).zip(kubelet.chunks(share));
    thread::scope(|scope| {
        let running: Vec<_> = parts
            .map(|(instances, answers)| {
                scope.spawn(move || instances.iter().zip(answers).map(|(one, other)| compared(one, other)).collect())
            })
            .collect();
        let mut all = Vec::new();
        for worker in running {
            let part: Result<Vec<Compared>, String> =
                worker.join().map_err(|_| "a comparison panicked; its message is above".to_owned())?;
            all.extend(part?);
        }
        Ok(all)
    })
}

fn compared(instance: &Instance, kubelet: &KubeletAnswer) -> Result<Compared, String> {
    let lamina = lamina::answer(instance);
    let wrong = |error: Fault| format!("Lamina's answer to instance {} is none: {error}", instance.id);
    let mode = |answer: &ModeAnswer| (answer.mode.clone(), score(instance, &answer.places));
    Ok(Compared {
        id: instance.id,
        load: instance.load,
        modes: kubelet.modes.iter().map(mode).collect(),
        lamina: score(instance, &lamina.places).map_err(wrong)?,
        proven: lamina.verdict == Verdict::Optimal,
        optimum: exhaustive::optimum(instance),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(kubelet: u32, lamina: u32, optimum: Option<u32>) -> Compared {
        let score = |nodes| Score { refused: 0, nodes, caches: 0 };
        Compared {
            id: 1,
            load: 90,
            modes: vec![("packed".into(), Ok(score(9))), ("aligned".into(), Ok(score(kubelet)))],
            lamina: score(lamina),
            proven: true,
            optimum: optimum.map(score),
        }
    }

    #[test]
    fn worse_than_any_mode_or_than_what_is_possible_is_a_loss() {
        assert_eq!(compared(1, 1, None).loss(), None);
        assert_eq!(compared(2, 1, Some(1)).loss(), None);
        assert!(compared(0, 1, None).loss().unwrap().contains("aligned"));
        assert!(compared(1, 1, Some(0)).loss().unwrap().contains("possible"));
    }

    #[test]
    fn a_mode_that_refuses_is_worse_than_any_that_does_not() {
        let mut refusing = compared(5, 5, None);
        refusing.modes.push(("refuses".into(), Ok(Score { refused: 1, nodes: 0, caches: 0 })));
        refusing.modes.push(("nonsense".into(), Err(Fault::OtherRequests)));
        assert_eq!(refusing.loss(), None);
    }
}
