//! What an arrangement must cost at least, once some tasks have their share: each task that waits needs so many domains
//! of what is free. The bound is lexicographic: a lower level may count on the higher ones being met exactly.

use lamina_crds::wishes::AlignPolicy;
use smallvec::{SmallVec, smallvec};

use crate::placement::company::broken_company;
use crate::placement::machine::KINDS;
use crate::placement::problem::{Cost, End, NODE, Own, Problem, Side, Task, Tie};
use crate::placement::state::State;

/// What can be said of a problem before anything is given out.
pub struct Outlook {
    /// For each task the first one that needs domains in the same way; such tasks share the counting.
    alike: Vec<usize>,
    /// How many domains of each kind can be used at all.
    present: [u32; KINDS],
    /// The least sum of distances between so many nodes.
    distances: Vec<u32>,
}

/// What an arrangement must cost at least that keeps what is given out, and what that counts on.
pub struct Prospect {
    /// The cost.
    pub bound: Cost,
    /// How many domains each task needs that waits.
    needs: AllNeeds,
}

/// How many domains a task needs, by kind.
type Needs = [u32; KINDS];

/// The same by task; none for those who have their share.
type AllNeeds = SmallVec<[Option<Needs>; 32]>;

/// For each kind of core that a task may choose, and each kind of domain: how much the largest domains hold, added up from
/// the largest on.
pub type Rooms = SmallVec<[[SmallVec<[u32; 16]>; KINDS]; 1]>;

impl Outlook {
    /// Looks at a problem.
    pub fn of(problem: &Problem) -> Self {
        let same = |one: &Task, other: &Task| {
            one.held == 0
                && other.held == 0
                && one.by_cpu == other.by_cpu
                && one.kinds == other.kinds
                && one.allowed == other.allowed
        };
        let tasks = &problem.tasks;
        let first = |task: usize| (0..task).find(|other| same(&tasks[*other], &tasks[task])).unwrap_or(task);
        let most = tasks.iter().map(|task| task.least[NODE]).max().unwrap_or(0);
        Self {
            alike: (0..tasks.len()).map(first).collect(),
            present: present(problem),
            distances: (0..=most.max(2)).map(|count| least_distance(problem, count as usize)).collect(),
        }
    }

    /// The least cost of any arrangement that keeps what is given out; none if there is none. `cost` is that of what is
    /// given out.
    pub fn look(&self, problem: &Problem, state: &State, cost: &Cost) -> Option<Prospect> {
        let mut bound = cost.clone();
        let needs = self.needs(problem, state)?;
        for (index, task) in problem.tasks.iter().enumerate() {
            let Some(needs) = &needs[index] else { continue };
            problem.add(&mut bound, task.class, &self.own(problem, state, index, needs));
        }
        for tie in &problem.ties {
            let [wishes, distance] = self.unmet(problem, state, tie, &needs);
            bound[problem.width - 2] += wishes;
            bound[problem.width - 1] += distance;
        }
        Some(Prospect { bound, needs })
    }

    /// What all others cost at least, whatever a task that waits gets: the bound without that task's part. Its ties are part
    /// of it, for they are bounded by the fewest domains that it may use.
    pub fn others(&self, problem: &Problem, state: &State, task: usize, prospect: &Prospect) -> Cost {
        let Prospect { bound, needs } = prospect;
        let mut others = bound.clone();
        if let Some(own) = needs[task].as_ref().map(|needs| self.own(problem, state, task, needs)) {
            problem.subtract(&mut others, problem.tasks[task].class, &own);
        }
        let here = End::Task(task);
        for tie in problem.ties.iter().filter(|tie| tie.from == here || tie.to == here) {
            let [wishes, distance] = self.unmet(problem, state, tie, needs);
            others[problem.width - 2] -= wishes;
            others[problem.width - 1] -= distance;
        }
        others
    }

    /// The bound before the search begins, sharper.
    pub fn first_bound(&self, problem: &Problem, state: &State, cost: &Cost) -> Option<Cost> {
        let Prospect { mut bound, needs } = self.look(problem, state, cost)?;
        if problem.ties.is_empty() {
            return Some(bound);
        }
        let nodes: Vec<Option<u32>> = needs.iter().map(|needs| needs.map(|needs| needs[NODE])).collect();
        let broken = broken_company(problem, state, &nodes);
        bound[problem.width - 2] += broken;
        bound[problem.width - 1] += broken * self.nearest();
        Some(bound)
    }

    /// The least distance within tasks that use so many nodes beyond what each needs.
    pub fn distance_of(&self, problem: &Problem, tasks: &[usize], extra: u32) -> u32 {
        let mut least = vec![0; extra as usize + 1];
        for (place, task) in tasks.iter().enumerate() {
            let needs = problem.tasks[*task].least[NODE] as usize;
            let distance = |more: usize| match self.distances.get(needs + more) {
                Some(known) => *known,
                None => least_distance(problem, needs + more),
            };
            let with = |sum: usize| (0..=sum).map(|more| least[sum - more] + distance(more)).min().unwrap_or(0);
            least = match place {
                0 => (0..least.len()).map(distance).collect(),
                _ => (0..least.len()).map(with).collect(),
            };
        }
        least[extra as usize]
    }

    /// The least distance between two nodes.
    pub fn nearest(&self) -> u32 {
        self.distances.get(2).copied().unwrap_or(0)
    }

    /// What each waiting task needs; none if one does not fit or all together do not.
    fn needs(&self, problem: &Problem, state: &State) -> Option<AllNeeds> {
        let mut needs: AllNeeds = smallvec![None; problem.tasks.len()];
        let mut counted: SmallVec<[(usize, Rooms); 2]> = SmallVec::new();
        let mut wanted = 0;
        // Tasks of one size mostly follow each other.
        let mut last = None;
        for (index, task) in problem.tasks.iter().enumerate() {
            if state.shares[index].is_some() {
                continue;
            }
            wanted += task.count;
            if task.held > 0 {
                needs[index] = Some(needs_beside_held(problem, state, index)?);
                continue;
            }
            let first = self.alike[index];
            if let Some((_, _, known)) = last.filter(|(other, count, _)| (*other, *count) == (first, task.count)) {
                needs[index] = Some(known);
                continue;
            }
            let place = counted.iter().position(|(other, _)| *other == first).unwrap_or_else(|| {
                counted.push((first, sorted_rooms(problem, state, task)));
                counted.len() - 1
            });
            let known = fewest(&counted[place].1, task.count)?;
            last = Some((first, task.count, known));
            needs[index] = Some(known);
        }
        let free: u32 = state.free.iter().sum();
        (wanted <= free).then_some(needs)
    }

    fn own(&self, problem: &Problem, state: &State, index: usize, needs: &Needs) -> Own {
        let task = &problem.tasks[index];
        let mut own = Own::default();
        if task.held > 0 {
            let cells = problem.cells.iter().enumerate().filter(|(_, cell)| cell.holder == Some(index));
            let held: u32 = cells.map(|(cell, _)| problem.room(task, cell, &state.free)).sum();
            own.moves = task.held.min(task.count).saturating_sub(held);
        }
        for (position, (slot, policy)) in task.align.iter().enumerate() {
            own.excess[position] = match policy {
                AlignPolicy::Prefer => needs[*slot].saturating_sub(task.least[*slot]),
                AlignPolicy::Require | AlignPolicy::Spread | AlignPolicy::Ignore => 0,
            };
        }
        let outside = |wished: &Vec<u16>| needs[NODE].saturating_sub(wished.len() as u32);
        own.wishes = task.wished_nodes.iter().map(outside).sum();
        own.distance = self.distances.get(needs[NODE] as usize).copied().unwrap_or(0);
        own
    }

    /// The wishes and the distance that a tie costs at least that is not decided yet.
    fn unmet(&self, problem: &Problem, state: &State, tie: &Tie, needs: &[Option<Needs>]) -> [u32; 2] {
        let unmet = self.tied(problem, state, tie, needs);
        let is_far = tie.side == Side::Near && tie.slot == NODE;
        [unmet, if is_far { unmet * self.nearest() } else { 0 }]
    }

    /// By how many domains a tie must go unmet that is not decided yet.
    fn tied(&self, problem: &Problem, state: &State, tie: &Tie, needs: &[Option<Needs>]) -> u32 {
        let waits = |end: &End| matches!(end, End::Task(task) if state.shares[*task].is_none());
        if !waits(&tie.from) && !waits(&tie.to) {
            return 0;
        }
        // The fewest and, counting on the higher levels, the most domains that an end uses.
        let range = |end: &End| match end {
            End::Settled(used) => (used[tie.slot].len() as u32, used[tie.slot].len() as u32),
            End::Task(task) => match (&state.shares[*task], &needs[*task]) {
                (Some(share), _) => (share.used[tie.slot].len() as u32, share.used[tie.slot].len() as u32),
                (None, Some(needs)) if is_aligned(&problem.tasks[*task], tie.slot) => {
                    (needs[tie.slot], needs[tie.slot])
                }
                (None, Some(needs)) => (needs[tie.slot], u32::MAX),
                (None, None) => (0, u32::MAX),
            },
        };
        let (from, to) = (range(&tie.from), range(&tie.to));
        match tie.side {
            Side::Near => from.0.saturating_sub(to.1),
            Side::Apart if tie.from == tie.to => from.0,
            Side::Apart => (from.0 + to.0).saturating_sub(self.present[tie.slot]),
        }
    }
}

fn is_aligned(task: &Task, slot: usize) -> bool {
    let counts = |policy: AlignPolicy| matches!(policy, AlignPolicy::Require | AlignPolicy::Prefer);
    task.align.iter().any(|(own, policy)| *own == slot && counts(*policy))
}

/// For each kind of core that the task may choose, and each kind of domain: how much the largest domains hold, added up
/// from the largest on.
pub fn sorted_rooms(problem: &Problem, state: &State, task: &Task) -> Rooms {
    let mut rooms = Rooms::new();
    for kind in &task.kinds {
        let mut by_slot = problem.domains.map(|count| smallvec![0; count]);
        for (index, cell) in problem.cells.iter().enumerate() {
            if task.kinds.len() > 1 && cell.kind != *kind {
                continue;
            }
            let room = problem.room(task, index, &state.free);
            for (slot, rooms) in by_slot.iter_mut().enumerate() {
                let rooms: &mut SmallVec<[u32; 16]> = rooms;
                rooms[cell.domains[slot] as usize] += room;
            }
        }
        by_slot.iter_mut().for_each(|rooms| add_up(rooms));
        rooms.push(by_slot);
    }
    rooms
}

/// Puts the largest first and makes each the sum of itself and all before it.
fn add_up(rooms: &mut [u32]) {
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for room in rooms {
        sum += *room;
        *room = sum;
    }
}

/// How many domains of each kind so much needs, on cores of one kind; none if it does not fit.
pub fn fewest(rooms: &Rooms, count: u32) -> Option<Needs> {
    let fitting = rooms.iter().filter_map(|rooms| needs_of(rooms, count));
    fitting.reduce(|a, b| [0, 1, 2].map(|slot| a[slot].min(b[slot])))
}

fn needs_of<T: AsRef<[u32]>>(rooms: &[T; KINDS], count: u32) -> Option<Needs> {
    let mut needs = [0; KINDS];
    for (need, rooms) in needs.iter_mut().zip(rooms) {
        let rooms = rooms.as_ref();
        let fewer = rooms.partition_point(|room| *room < count);
        if fewer == rooms.len() {
            return None;
        }
        *need = fewer as u32 + 1;
    }
    Some(needs)
}

/// How many domains a task needs that keeps what it holds.
fn needs_beside_held(problem: &Problem, state: &State, index: usize) -> Option<Needs> {
    let task = &problem.tasks[index];
    let mut held: [Vec<u32>; KINDS] = problem.domains.map(|count| vec![0; count]);
    let mut other: [Vec<u32>; KINDS] = problem.domains.map(|count| vec![0; count]);
    let (mut total_held, mut total) = (0, 0);
    for (number, cell) in problem.cells.iter().enumerate() {
        let room = problem.room(task, number, &state.free);
        let is_held = cell.holder == Some(index);
        total += room;
        total_held += if is_held { room } else { 0 };
        for slot in 0..KINDS {
            let rooms = if is_held { &mut held[slot] } else { &mut other[slot] };
            rooms[cell.domains[slot] as usize] += room;
        }
    }
    if total < task.count {
        return None;
    }
    if total_held >= task.count {
        held.iter_mut().for_each(|rooms| add_up(rooms));
        return needs_of(&held, task.count);
    }
    let mut needs = [0; KINDS];
    for slot in 0..KINDS {
        let mut rest = task.count - total_held;
        let mut untouched = Vec::new();
        for (held, other) in held[slot].iter().zip(&other[slot]) {
            if *held > 0 {
                needs[slot] += 1;
                rest = rest.saturating_sub(*other);
            } else {
                untouched.push(*other);
            }
        }
        if rest > 0 {
            add_up(&mut untouched);
            needs[slot] += untouched.partition_point(|room| *room < rest) as u32 + 1;
        }
    }
    Some(needs)
}

fn present(problem: &Problem) -> [u32; KINDS] {
    [0, 1, 2].map(|slot| {
        let mut domains: Vec<u16> = problem.cells.iter().map(|cell| cell.domains[slot]).collect();
        for end in problem.ties.iter().flat_map(|tie| [&tie.from, &tie.to]) {
            if let End::Settled(used) = end {
                domains.extend(&used[slot]);
            }
        }
        domains.sort_unstable();
        domains.dedup();
        domains.len() as u32
    })
}

/// The least sum of distances between so many different nodes: nobody's nearest are nearer than that.
fn least_distance(problem: &Problem, count: usize) -> u32 {
    if count < 2 {
        return 0;
    }
    let mut nodes: Vec<u16> = problem.cells.iter().map(|cell| cell.domains[NODE]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let around = |node: &u16| {
        let others = nodes.iter().filter(|other| *other != node);
        let mut distances: Vec<u32> =
            others.map(|other| problem.distance(*node.min(other), *node.max(other))).collect();
        distances.sort_unstable();
        distances.iter().take(count - 1).sum::<u32>()
    };
    let mut sums: Vec<u32> = nodes.iter().map(around).collect();
    sums.sort_unstable();
    sums.iter().take(count).sum::<u32>().div_ceil(2)
}
