//! The named histories: what users do and what befalls hosts. Each is run as it is, and again with accidents at every
//! effect and every pair of effects.

mod clusters;
mod hosts;
mod users;

use lamina_crds::{CpuSet, UnitName};

use crate::history::Step;
use crate::host::Kind;
use crate::wish::{SliceWish, Wish};

/// A named history.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, a fact.
    pub name: &'static str,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The one host of scenarios.
pub const HOST: &str = "host-0";

/// A host of eight CPUs on two nodes.
pub fn kind(systemd: u32) -> Kind {
    let node = |text: &str| text.parse::<CpuSet>().expect("a legal list");
    Kind { systemd, nodes: vec![node("0-3"), node("4-7")] }
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let parts =
        [users::users(), hosts::hands(), clusters::worlds(), clusters::leaders(), hosts::troubles(), hosts::pasts()];
    parts.concat()
}

fn scenario(name: &'static str, steps: Vec<Step>) -> Scenario {
    Scenario { name, steps }
}

fn service<'a>(wish: &'a mut Wish, name: &str) -> &'a mut crate::wish::ServiceWish {
    wish.services.get_mut(name).expect("the wish has it")
}

fn slice<'a>(wish: &'a mut Wish, name: &str) -> &'a mut SliceWish {
    wish.slices.get_mut(name).expect("the wish has it")
}

/// A unit of that name.
pub fn unit(name: &str) -> UnitName {
    UnitName::new(name).expect("a legal name")
}
