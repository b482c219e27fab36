//! Groups the cells of a machine by the domains that a slice weighs, the most important outermost.

use lamina_crds::wishes::AlignPolicy;

use crate::placement::problem::{L3, Problem};

/// The cells of a machine, grouped by the domains of one `align`, most important outermost.
pub struct Tree {
    /// Slots and policies from the outermost grouping inwards; fewest L3 caches is always part of it.
    pub positions: Vec<(usize, AlignPolicy)>,
    /// All groups; the first holds all cells.
    pub branches: Vec<Branch>,
}

/// A group of cells.
pub struct Branch {
    /// The domain they share, of the kind of the grouping around them.
    pub domain: u16,
    /// How many groupings are around them.
    pub depth: usize,
    /// The groups within.
    pub children: Vec<usize>,
    /// Their cells.
    pub cells: Vec<usize>,
}

impl Tree {
    /// Groups the cells.
    pub fn of(problem: &Problem, align: &[(usize, AlignPolicy)]) -> Self {
        let weighed = align.iter().filter(|(_, policy)| *policy != AlignPolicy::Ignore);
        let mut positions: Vec<(usize, AlignPolicy)> = weighed.copied().collect();
        if positions.iter().all(|(slot, _)| *slot != L3) {
            positions.push((L3, AlignPolicy::Prefer));
        }
        let root = Branch { domain: 0, depth: 0, children: Vec::new(), cells: (0..problem.cells.len()).collect() };
        let mut tree = Self { positions, branches: vec![root] };
        let mut next = 0;
        while next < tree.branches.len() {
            tree.grow(problem, next);
            next += 1;
        }
        tree
    }

    fn grow(&mut self, problem: &Problem, branch: usize) {
        let depth = self.branches[branch].depth;
        let Some((slot, _)) = self.positions.get(depth).copied() else { return };
        let cells = self.branches[branch].cells.clone();
        for cell in cells {
            let domain = problem.cells[cell].domains[slot];
            let known = self.branches[branch].children.iter().find(|child| self.branches[**child].domain == domain);
            match known.copied() {
                Some(child) => self.branches[child].cells.push(cell),
                None => {
                    let child = self.branches.len();
                    self.branches.push(Branch { domain, depth: depth + 1, children: Vec::new(), cells: vec![cell] });
                    self.branches[branch].children.push(child);
                }
            }
        }
    }
}
