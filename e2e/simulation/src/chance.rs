//! Random histories: what users, foreign hands and the world do, drawn from a seed.

use lamina_crds::{CpuSet, UnitName};
use lamina_node_agent::property::{Property, Value};

use crate::accident::{Accident, Outage};
use crate::api::Kind as ObjectKind;
use crate::api::admission::OPERATORS_LEASE;
use crate::hand::Hand;
use crate::history::{Setting, Step};
use crate::host::Kind;
use crate::scenario::kind;
use crate::wish::{Wish, program};
use lamina_trees::Random;

/// A history with everything that decides it.
#[derive(Clone, Debug)]
pub struct Draw {
    /// What it starts from.
    pub setting: Setting,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The history of a seed: two operators, three hosts of different kinds.
pub fn draw(seed: u64) -> Draw {
    let mut random = Random::new(seed);
    let hosts: Vec<Kind> = (0..3).map(|_| kind(*random.pick(&[252, 257, 262]))).collect();
    let length = 4 + random.below(12);
    let mut author = Author { random: random.branch(), wish: Wish::app(), exists: true };
    let mut steps = vec![Step::Apply("app", author.wish.clone())];
    if author.random.chance(60) {
        steps.push(Step::Settle);
    }
    for _ in 0..length {
        let step = author.step();
        steps.push(step);
        if author.random.chance(50) {
            steps.push(Step::Round);
        }
    }
    steps.extend(peace());
    if author.exists {
        // What waits for the next start, or for the end of a pause, would wait for ever.
        author.wish.paused = false;
        author.wish.services.values_mut().for_each(|service| service.waits = false);
        steps.push(Step::Apply("app", author.wish.clone()));
    }
    steps.push(Step::Settle);
    let outage = outage(&mut random);
    Draw { setting: Setting { hosts, seed, accidents: Vec::new(), outage, is_told: false }, steps }
}

/// How often effects fail by chance, and how.
fn outage(random: &mut Random) -> Option<Outage> {
    let per_thousand = *random.pick(&[0, 10, 40, 100]);
    let kinds = vec![
        Accident::DeathBefore,
        Accident::DeathAfter,
        Accident::PowerLossAfter,
        Accident::FailureBefore,
        Accident::FailureAfter,
        Accident::Stop,
    ];
    (per_thousand > 0).then(|| Outage { per_thousand, random: random.branch(), kinds })
}

/// What cannot be healed from outside is taken back, so that everything asked becomes possible again.
fn peace() -> Vec<Step> {
    let mut steps = vec![Step::Calm];
    for host in hosts() {
        let hands = ["api", "router", "worker", "extra"].map(|name| Hand::RepairProgram(program(name)));
        let cpus = (0..8).map(Hand::CpuOn);
        let others = [Hand::AddUser("app".to_owned()), Hand::FreeDisk, Hand::RemoveEmptyFragments];
        steps.extend(hands.into_iter().chain(cpus).chain(others).map(|hand| Step::Hand(host.clone(), hand)));
        steps.push(Step::Role(host, "app"));
    }
    steps
}

fn hosts() -> [String; 3] {
    ["host-0", "host-1", "host-2"].map(str::to_owned)
}

struct Author {
    random: Random,
    wish: Wish,
    exists: bool,
}

impl Author {
    fn step(&mut self) -> Step {
        let host = self.random.pick(&hosts()).clone();
        match self.random.below(100) {
            0..25 => self.change(),
            25..30 => self.delete(),
            30..33 => self.by_force(host),
            33..36 => Step::Role(host, if self.random.chance(50) { "other" } else { "app" }),
            36..40 => Step::Away(self.random.chance(50)),
            40..45 => Step::KillAgent(host),
            45..47 => Step::KillOperator,
            47 => Step::DrainOperator,
            48..52 => Step::Reboot(host),
            52..55 => Step::LosePower(host),
            55..58 => Step::GoBack(host),
            58..60 => Step::OperatorGoesBack,
            60..62 => Step::StopOperator,
            62..65 => Step::OperatorsGoOn,
            65 => Step::DeleteByForce(ObjectKind::Lease, OPERATORS_LEASE.to_owned()),
            66..78 => Step::Round,
            _ => Step::Hand(host, self.hand()),
        }
    }

    fn change(&mut self) -> Step {
        if self.exists {
            self.wish = self.wish.mutated(&mut self.random);
        }
        self.exists = true;
        Step::Apply("app", self.wish.clone())
    }

    fn delete(&mut self) -> Step {
        self.exists = false;
        Step::Delete("app")
    }

    fn by_force(&mut self, host: String) -> Step {
        if self.random.chance(70) {
            return Step::DeleteByForce(ObjectKind::HostState, host);
        }
        self.exists = false;
        Step::DeleteByForce(ObjectKind::SliceTopology, "app".to_owned())
    }

    fn hand(&mut self) -> Hand {
        let service = self.unit(&["app-api.service", "app-router.service", "app-worker.service"]);
        let slice = self.unit(&["app-control.slice", "app-runner.slice"]);
        let any = if self.random.chance(50) { service.clone() } else { slice.clone() };
        let memory = Value::Number(300 << 20);
        let cpus: CpuSet = (0..8).collect();
        let program = program(self.random.pick::<&str>(&["api", "router", "worker"]));
        match self.random.below(21) {
            0 => Hand::EditFragment(any),
            1 => Hand::EditDropIn(any),
            2 => Hand::EmptyFragment(any),
            3 => Hand::RemoveFragment(any),
            4 => Hand::RemoveDropIn(any),
            5 => Hand::Disable(service),
            6 => Hand::Reload,
            7 => Hand::SetRuntime(any, Property::MemoryMax, memory),
            8 => Hand::SetPersistent(any, Property::MemoryMax, memory),
            9 => Hand::WriteCgroup(any, Property::MemoryMax, memory),
            10 => Hand::WriteCgroup(slice, Property::AllowedCpus, Value::Cpus(cpus)),
            11 => Hand::AddDropIn(any),
            12 => Hand::Stop(any),
            13 => Hand::Restart(service),
            14 => Hand::Kill(service),
            15 => Hand::Stray(service),
            16 => Hand::Stick(service, cpus),
            17 => Hand::CpuOff(1 + self.random.below(7)),
            18 => Hand::RemoveProgram(program),
            19 => Hand::BreakProgram(program),
            _ => Hand::EditFile("/etc/lamina/files/app/app.env".to_owned()),
        }
    }

    fn unit(&mut self, names: &[&str]) -> UnitName {
        crate::scenario::unit(self.random.pick::<&str>(names))
    }
}
