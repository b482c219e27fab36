//! Makes an instance that Lamina loses as small as it can be while it still loses.

use anyhow::{Error, Result};

use crate::comparison::{Compared, compare};
use crate::instance::Instance;
use crate::kubelet::Kubelet;

/// The smallest instance found that still is a loss, with how everybody does on it; nothing if it is none.
///
/// # Errors
/// As [`Kubelet::answers_once`] and [`compare`].
pub async fn shrink(kubelet: &Kubelet, instance: Instance) -> Result<Option<(Instance, Compared)>> {
    let mut smallest = first_loss(kubelet, vec![instance]).await?;
    while let Some((instance, compared)) = smallest {
        match first_loss(kubelet, smaller(&instance)).await? {
            Some(found) => smallest = Some(found),
            None => return Ok(Some((instance, compared))),
        }
    }
    Ok(None)
}

async fn first_loss(kubelet: &Kubelet, instances: Vec<Instance>) -> Result<Option<(Instance, Compared)>> {
    let answers = kubelet.answers_once(&instances).await?;
    let compared = compare(&instances, &answers).map_err(Error::msg)?;
    Ok(instances.into_iter().zip(compared).find(|(_, compared)| compared.loss().is_some()))
}

/// Everything that is one step smaller: a request less, a core less in a request, a core less in the machine.
fn smaller(instance: &Instance) -> Vec<Instance> {
    let mut all = Vec::new();
    for number in 0..instance.requests.len() {
        let mut without = instance.clone();
        without.requests.remove(number);
        if !without.requests.is_empty() {
            all.push(without);
        }
    }
    for number in 0..instance.requests.len() {
        let mut less = instance.clone();
        less.requests[number] -= 1;
        if less.requests[number] > 0 {
            all.push(less);
        }
    }
    let asked = instance.requests.iter().sum::<u32>() as usize;
    for number in 0..instance.machine.cores.len() {
        let mut without = instance.clone();
        without.machine.cores.remove(number);
        if without.machine.cores.len() >= asked.max(1) {
            all.push(without);
        }
    }
    all
}
