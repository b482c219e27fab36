//! How many each slice gets: a plain list of answers, from everybody's full wish downwards. Slices that may share leave
//! first, in ascending priority; then those that may shrink do, in proportion to their wish.

use std::cmp::Reverse;

/// What one slice wants for itself.
#[derive(Clone, Debug)]
pub struct Want {
    /// Whose consent counts later: higher is served better.
    pub priority: i32,
    /// What it wants, and could get if it were alone, in its own unit.
    pub wish: u32,
    /// Down to what it agrees to shrink; none if it does not.
    pub min: Option<u32>,
    /// How much one unit of it counts.
    pub weight: u32,
    /// Whether it agrees to run inside another slice.
    pub may_share: bool,
}

/// What each slice gets, in the order of the wants; none where it runs inside another.
pub type Quantities = Vec<Option<u32>>;

/// Answers of one kind, each asking for less than the one before.
pub type Ladder = Vec<Quantities>;

/// The answers in the order in which they are tried, for slices in canonical order: first those in which nobody shrinks,
/// then those in which all sharers have left, and so on back to those in which none has, where sharing itself is in the
/// way. `capacity` is what there is.
pub fn sequence(wants: &[Want], capacity: u32) -> Vec<Ladder> {
    let mut quantities: Quantities = wants.iter().map(|want| Some(want.wish)).collect();
    let mut sharers: Vec<usize> = (0..wants.len()).filter(|index| wants[*index].may_share).collect();
    sharers.sort_by_key(|index| (wants[*index].priority, Reverse(*index)));
    let mut stages = vec![quantities.clone()];
    for leaving in sharers {
        quantities[leaving] = None;
        stages.push(quantities.clone());
    }
    let fits = |quantities: &&Quantities| total(wants, quantities) <= capacity;
    let mut ladders: Vec<Ladder> = vec![stages.iter().filter(fits).cloned().collect()];
    ladders.extend(stages.iter().rev().map(|quantities| shrinking(wants, quantities, capacity)));
    ladders.retain(|ladder| !ladder.is_empty());
    ladders
}

fn total(wants: &[Want], quantities: &Quantities) -> u32 {
    quantities.iter().zip(wants).map(|(quantity, want)| quantity.unwrap_or(0) * want.weight).sum()
}

/// One less in total each time, until everybody has its least.
fn shrinking(wants: &[Want], quantities: &Quantities, capacity: u32) -> Ladder {
    let floor = |(quantity, want): (&Option<u32>, &Want)| match quantity {
        Some(wish) => want.min.unwrap_or(*wish).min(*wish) * want.weight,
        None => 0,
    };
    let least: u32 = quantities.iter().zip(wants).map(floor).sum();
    let full = total(wants, quantities);
    let mut ladder = Ladder::new();
    for budget in (least..full.min(capacity.saturating_add(1))).rev() {
        let shrunk = shrink(wants, quantities, budget);
        if ladder.last() != Some(&shrunk) {
            ladder.push(shrunk);
        }
    }
    ladder
}

/// Shares a budget among those who still want cores: those without consent get their wish, the others in proportion.
fn shrink(wants: &[Want], quantities: &Quantities, budget: u32) -> Quantities {
    let mut result = quantities.clone();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = budget;
    for (index, want) in wants.iter().enumerate() {
        match (quantities[index], want.min) {
            (Some(_), Some(_)) => open.push(index),
            (Some(wish), None) => rest = rest.saturating_sub(wish * want.weight),
            (None, _) => {}
        }
    }
    // Whoever would get less than its min gets that, and the others share what is left.
    loop {
        let whole: u64 = open.iter().map(|index| u64::from(wants[*index].wish * wants[*index].weight)).sum();
        let short = |index: &usize| {
            let Want { wish, min, weight, .. } = &wants[*index];
            let min = u64::from(min.unwrap_or(*wish).min(*wish));
            u64::from(rest) * u64::from(*wish) < min * whole && *weight > 0
        };
        let Some(place) = open.iter().position(short) else { break };
        let index = open.remove(place);
        let min = wants[index].min.unwrap_or(0).min(wants[index].wish);
        result[index] = Some(min);
        rest = rest.saturating_sub(min * wants[index].weight);
    }
    apportion(wants, &open, rest, &mut result);
    result
}

/// Largest remainder: the whole part of the proportion each, then one more each for the largest fractions, the higher
/// priority first where they are equal.
fn apportion(wants: &[Want], open: &[usize], budget: u32, result: &mut Quantities) {
    let whole: u64 = open.iter().map(|index| u64::from(wants[*index].wish * wants[*index].weight)).sum();
    let product = |index: usize| u64::from(budget) * u64::from(wants[index].wish);
    let mut rest = budget;
    for index in open {
        let part = (product(*index).checked_div(whole).unwrap_or(0) as u32).min(wants[*index].wish);
        result[*index] = Some(part);
        rest = rest.saturating_sub(part * wants[*index].weight);
    }
    let mut order = open.to_vec();
    let fraction = |index: usize| product(index).checked_rem(whole).unwrap_or(0);
    order.sort_by_key(|index| (Reverse(fraction(*index)), Reverse(wants[*index].priority), *index));
    for index in order {
        let Want { wish, weight, .. } = wants[index];
        if let Some(part) = result[index].as_mut().filter(|part| **part < wish && weight <= rest) {
            *part += 1;
            rest -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(priority: i32, wish: u32, min: Option<u32>, may_share: bool) -> Want {
        Want { priority, wish, min, weight: 1, may_share }
    }

    fn first(wants: &[Want], capacity: u32) -> Quantities {
        sequence(wants, capacity).into_iter().flatten().next().unwrap_or_default()
    }

    fn example() -> Vec<Want> {
        vec![want(30, 8, Some(1), false), want(20, 8, Some(1), false), want(10, 4, None, true)]
    }

    #[test]
    fn all_get_what_they_want_where_there_is_enough() {
        assert_eq!(first(&example(), 20), [Some(8), Some(8), Some(4)]);
    }

    #[test]
    fn sharers_leave_before_anyone_shrinks() {
        assert_eq!(first(&example(), 19), [Some(8), Some(8), None]);
        assert_eq!(first(&example(), 16), [Some(8), Some(8), None]);
    }

    #[test]
    fn the_others_shrink_in_proportion_and_the_remainder_goes_to_the_higher_priority() {
        assert_eq!(first(&example(), 7), [Some(4), Some(3), None]);
        assert_eq!(first(&example(), 4), [Some(2), Some(2), None]);
    }

    #[test]
    fn nobody_gets_less_than_it_agreed_to() {
        let wants = [want(0, 10, Some(8), false), want(0, 10, Some(1), false)];
        assert_eq!(first(&wants, 10), [Some(8), Some(2)]);
        assert_eq!(sequence(&wants, 8), Vec::<Ladder>::new());
    }

    #[test]
    fn the_list_goes_on_down_to_the_least() {
        let sequence: Ladder = sequence(&example(), 20).into_iter().flatten().collect();
        assert_eq!(sequence[1], [Some(8), Some(8), None]);
        assert_eq!(sequence[2], [Some(8), Some(7), None]);
        assert!(sequence.contains(&vec![Some(1), Some(1), None]));
        assert_eq!(sequence.last(), Some(&vec![Some(1), Some(1), Some(4)]));
    }
}
