//! The named histories: what users do and what befalls hosts. Each is run as it is, and again with accidents at every
//! effect and every pair of effects.

use lamina_crds::{CpuSet, UnitName};
use lamina_node_agent::property::{Property, Value};

use crate::accident::Accident;
use crate::api::Kind as ObjectKind;
use crate::api::admission::OPERATORS_LEASE;
use crate::hand::Hand;
use crate::history::Step;
use crate::host::Kind;
use crate::wish::{CpuWish, SliceWish, Wish, program};

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
    let mut scenarios = users();
    scenarios.extend(hands());
    scenarios.extend(worlds());
    scenarios.extend(leaders());
    scenarios.extend(troubles());
    scenarios.extend(pasts());
    scenarios
}

/// What users do.
fn users() -> Vec<Scenario> {
    let app = Wish::app();
    let started = |then: Vec<Step>| [vec![Step::Apply("app", app.clone()), Step::Settle], then].concat();
    let changed = |edit: &dyn Fn(&mut Wish)| {
        let mut wish = app.clone();
        edit(&mut wish);
        vec![Step::Apply("app", wish), Step::Settle]
    };
    let removing = Wish { removes: true, ..app.clone() };
    vec![
        scenario("a topology comes up", started(vec![])),
        scenario(
            "a changed limit is live",
            started(changed(&|wish| wish.slices.values_mut().for_each(|s| s.memory = 4096))),
        ),
        scenario("a changed command restarts its service", started(changed(&|wish| service(wish, "api").argument = 2))),
        scenario("a changed file restarts its readers", started(changed(&|wish| wish.file = 2))),
        scenario("more cores restart nobody", started(changed(&|wish| slice(wish, "control").cpu = CpuWish::Cores(3)))),
        scenario("two slices trade their CPUs", trade()),
        scenario(
            "a service comes, another goes",
            started(changed(&|wish| {
                let worker = wish.services["worker"].clone();
                wish.services.remove("router");
                wish.services.insert("second", worker);
            })),
        ),
        scenario(
            "a service moves to another slice",
            started(changed(&|wish| service(wish, "router").slice = "runner")),
        ),
        scenario(
            "a slice is replaced by another",
            started(changed(&|wish| {
                wish.slices.remove("runner");
                wish.slices.insert("batch", SliceWish { cpu: CpuWish::Cores(2), memory: 512 });
                service(wish, "worker").slice = "batch";
            })),
        ),
        scenario(
            "a change waits for the next start",
            started(changed(&|wish| {
                service(wish, "api").waits = true;
                service(wish, "api").argument = 7;
            })),
        ),
        scenario(
            "a retained topology is taken over again",
            started(vec![Step::Delete("app"), Step::Settle, Step::Apply("app", app.clone()), Step::Settle]),
        ),
        scenario(
            "a removed topology leaves nothing",
            vec![
                Step::Apply("app", removing.clone()),
                Step::Apply("etl", Wish::etl()),
                Step::Settle,
                Step::Delete("app"),
                Step::Settle,
            ],
        ),
        scenario(
            "a host that no longer matches is cleared",
            vec![
                Step::Apply("app", removing),
                Step::Settle,
                Step::Role(HOST.to_owned(), "other"),
                Step::Settle,
                Step::Role(HOST.to_owned(), "app"),
                Step::Settle,
            ],
        ),
        scenario(
            "two topologies share a host",
            vec![
                Step::Apply("app", app.clone()),
                Step::Round,
                Step::Apply("etl", Wish::etl()),
                Step::Settle,
                Step::Delete("etl"),
                Step::Settle,
            ],
        ),
        scenario("a pause holds a change back until it ends", {
            let changed = |paused| {
                let mut wish = Wish { paused, ..app.clone() };
                service(&mut wish, "api").argument = 2;
                Step::Apply("app", wish)
            };
            started(vec![changed(true), Step::Round, Step::Round, changed(false), Step::Settle])
        }),
        scenario(
            "a change of mind ends where it began",
            started(vec![
                Step::Apply("app", {
                    let mut wish = app.clone();
                    service(&mut wish, "api").argument = 2;
                    wish
                }),
                Step::Round,
                Step::Apply("app", app.clone()),
                Step::Settle,
            ]),
        ),
    ]
}

/// Hosts on which the units run before Lamina comes.
fn pasts() -> Vec<Scenario> {
    let past = || Step::Hand(HOST.to_owned(), Hand::InstallPast);
    let app = Wish::app();
    let replacing = Wish { replaces: true, ..app.clone() };
    let mut changed = replacing.clone();
    service(&mut changed, "router").argument = 2;
    vec![
        scenario(
            "a host with a past is left alone until there is leave",
            vec![
                past(),
                Step::Apply("app", app),
                Step::Round,
                Step::Round,
                Step::Round,
                Step::Apply("app", replacing.clone()),
                Step::Settle,
            ],
        ),
        scenario(
            "a host with a past is taken over, changed and released",
            vec![
                past(),
                Step::Apply("app", replacing.clone()),
                Step::Settle,
                Step::Apply("app", changed.clone()),
                Step::Settle,
                Step::Delete("app"),
                Step::Settle,
                Step::Apply("app", changed.clone()),
                Step::Settle,
            ],
        ),
        scenario("only what differs from the past restarts", vec![past(), Step::Apply("app", changed), Step::Settle]),
        scenario(
            "units that somebody installs over Lamina's are taken over again",
            vec![Step::Apply("app", replacing), Step::Settle, past(), Step::Settle],
        ),
    ]
}

/// What others do on a host.
fn hands() -> Vec<Scenario> {
    let with = |hands: Vec<Hand>| {
        let mut steps = vec![Step::Apply("app", Wish::app()), Step::Settle];
        for hand in hands {
            steps.extend([Step::Hand(HOST.to_owned(), hand), Step::Settle]);
        }
        steps
    };
    let memory = || (Property::MemoryMax, Value::Number(300 << 20));
    let cpus = |text: &str| (Property::AllowedCpus, Value::Cpus(text.parse().expect("a legal list")));
    vec![
        scenario(
            "edited files are put back",
            with(vec![
                Hand::EditFragment(unit("app-api.service")),
                Hand::EditDropIn(unit("app-runner.slice")),
                Hand::EditFile("/etc/lamina/files/app/app.env".to_owned()),
                Hand::RemoveDropIn(unit("app-control.slice")),
            ]),
        ),
        scenario(
            "lost files are put back",
            with(vec![
                Hand::EmptyFragment(unit("app-api.service")),
                Hand::RemoveFragment(unit("app-worker.service")),
                Hand::Disable(unit("app-router.service")),
                Hand::RemoveFragment(unit("app-control.slice")),
            ]),
        ),
        scenario(
            "values set behind our back are put back",
            with(vec![
                Hand::SetRuntime(unit("app-control.slice"), memory().0, memory().1),
                Hand::WriteCgroup(unit("app-runner.slice"), cpus("0-7").0, cpus("0-7").1),
                Hand::WriteCgroup(unit("app.slice"), Property::MemoryMin, Value::Number(0)),
                Hand::WriteCgroup(unit("app-api.service"), memory().0, memory().1),
            ]),
        ),
        scenario(
            "a lasting foreign value is outranked",
            vec![
                Step::Apply("app", Wish::app()),
                Step::Settle,
                Step::Hand(HOST.to_owned(), Hand::SetPersistent(unit("app-control.slice"), memory().0, memory().1)),
                Step::Hand(HOST.to_owned(), Hand::AddDropIn(unit("app-api.service"))),
                Step::Round,
                Step::Hand(HOST.to_owned(), Hand::Reload),
            ],
        ),
        scenario(
            "what was stopped runs again",
            with(vec![
                Hand::Stop(unit("app-api.service")),
                Hand::Kill(unit("app-worker.service")),
                Hand::Stop(unit("app-control.slice")),
            ]),
        ),
        scenario(
            "what strayed comes back",
            with(vec![
                Hand::Stray(unit("app-router.service")),
                Hand::Stick(unit("app-worker.service"), "0-7".parse().expect("a legal list")),
                Hand::Stick(unit("app-api.service"), "0-7".parse().expect("a legal list")),
            ]),
        ),
        scenario(
            "a missing program holds up nobody else",
            vec![
                Step::Hand(HOST.to_owned(), Hand::RemoveProgram(program("api"))),
                Step::Hand(HOST.to_owned(), Hand::BreakProgram(program("worker"))),
                Step::Apply("app", Wish::app()),
                Step::Round,
                Step::Round,
                Step::Hand(HOST.to_owned(), Hand::RepairProgram(program("api"))),
                Step::Hand(HOST.to_owned(), Hand::RepairProgram(program("worker"))),
            ],
        ),
        scenario("a CPU goes and comes back", with(vec![Hand::CpuOff(5), Hand::CpuOn(5)])),
        scenario(
            "a full disk is waited for",
            vec![
                Step::Apply("app", Wish::app()),
                Step::Hand(HOST.to_owned(), Hand::FillDisk),
                Step::Round,
                Step::Round,
                Step::Round,
                Step::Hand(HOST.to_owned(), Hand::FreeDisk),
            ],
        ),
    ]
}

/// What befalls the cluster and its machines.
fn worlds() -> Vec<Scenario> {
    let host = || HOST.to_owned();
    let started = |then: Vec<Step>| [vec![Step::Apply("app", Wish::app()), Step::Settle], then].concat();
    let changed = || {
        let mut wish = Wish::app();
        service(&mut wish, "api").argument = 2;
        slice(&mut wish, "runner").memory = 4096;
        Step::Apply("app", wish)
    };
    vec![
        scenario(
            "a host comes up without the API server",
            started(vec![
                Step::Away(true),
                Step::Reboot(host()),
                Step::Hand(
                    host(),
                    Hand::WriteCgroup(unit("app-runner.slice"), Property::MemoryMax, Value::Number(1 << 30)),
                ),
                Step::Round,
                Step::Round,
                Step::Away(false),
            ]),
        ),
        scenario(
            "an outage in the middle of a change",
            started(vec![
                changed(),
                Step::Round,
                Step::Away(true),
                Step::Round,
                Step::KillAgent(host()),
                Step::KillOperator,
                Step::Round,
                Step::LosePower(host()),
                Step::Round,
            ]),
        ),
        scenario(
            "objects deleted by force stop nothing",
            started(vec![
                Step::DeleteByForce(ObjectKind::HostState, host()),
                Step::Round,
                Step::DeleteByForce(ObjectKind::SliceTopology, "app".to_owned()),
                Step::Round,
                Step::DeleteByForce(ObjectKind::HostState, host()),
                Step::Settle,
                Step::Apply("app", Wish::app()),
            ]),
        ),
        scenario(
            "definitions that leave stop nothing",
            vec![
                Step::Apply("app", Wish { removes: true, ..Wish::app() }),
                Step::Settle,
                Step::DefinitionsLeave(true),
                Step::Delete("app"),
                Step::Round,
                Step::Round,
                Step::DeleteByForce(ObjectKind::HostState, host()),
                Step::Round,
                Step::Settle,
            ],
        ),
        scenario(
            "a watch that goes back in time undoes nothing",
            started(vec![
                changed(),
                Step::Round,
                Step::Round,
                Step::Round,
                Step::GoBack(host()),
                Step::Round,
                Step::OperatorGoesBack,
                Step::Round,
                Step::GoBack(host()),
                Step::Round,
            ]),
        ),
    ]
}

/// What becomes of leaders.
fn leaders() -> Vec<Scenario> {
    let host = || HOST.to_owned();
    let started = |then: Vec<Step>| [vec![Step::Apply("app", Wish::app()), Step::Settle], then].concat();
    let with = |argument| {
        let mut wish = Wish::app();
        service(&mut wish, "api").argument = argument;
        Step::Apply("app", wish)
    };
    // Long enough for a Lease to be free.
    let patience = || vec![Step::Round; 8];
    let late = |part| Step::Accident(part, Accident::Stop);
    vec![
        scenario(
            "a leader that dies is followed by another",
            started([vec![Step::KillOperator, with(2)], patience()].concat()),
        ),
        scenario(
            "a leader that is drained hands over",
            started(vec![Step::DrainOperator, with(2), Step::Round, Step::Round]),
        ),
        scenario(
            "a leader that was stopped finds another one",
            started(
                [vec![Step::StopOperator, with(2)], patience(), vec![Step::OperatorsGoOn, with(3)], patience()]
                    .concat(),
            ),
        ),
        scenario(
            "what a deposed leader had sent comes too late",
            started(
                [vec![late("apply the spec"), with(2), Step::Round, with(3)], patience(), vec![Step::OperatorsGoOn]]
                    .concat(),
            ),
        ),
        scenario(
            "a host that a deposed leader makes again follows nobody older",
            [
                vec![late("create HostState"), Step::Apply("app", Wish::app())],
                patience(),
                vec![
                    Step::Round,
                    Step::DeleteByForce(ObjectKind::HostState, host()),
                    Step::StopOperator,
                    Step::OperatorsGoOn,
                    Step::Round,
                    Step::Round,
                ],
            ]
            .concat(),
        ),
        scenario(
            "a host that is made again after another leader is not locked out",
            started(vec![
                Step::KillOperator,
                Step::Settle,
                Step::DeleteByForce(ObjectKind::HostState, host()),
                with(2),
                Step::Settle,
                Step::DeleteByForce(ObjectKind::Lease, OPERATORS_LEASE.to_owned()),
                Step::DeleteByForce(ObjectKind::HostState, host()),
                Step::KillOperator,
                Step::KillOperator,
                with(3),
                Step::Settle,
            ]),
        ),
        scenario(
            "a lost Lease is waited for",
            started(
                [
                    vec![Step::DeleteByForce(ObjectKind::Lease, OPERATORS_LEASE.to_owned()), with(2)],
                    patience(),
                    vec![Step::KillOperator, with(3)],
                ]
                .concat(),
            ),
        ),
    ]
}

/// What once went wrong.
fn troubles() -> Vec<Scenario> {
    let host = || HOST.to_owned();
    let router = unit("app-router.service");
    let api = unit("app-api.service");
    let waiting = || {
        let mut wish = Wish::app();
        service(&mut wish, "api").waits = true;
        wish
    };
    vec![
        scenario(
            "what is to be let go is let go even if that cannot be stored",
            vec![
                Step::Apply("app", Wish::app()),
                Step::Settle,
                Step::Hand(host(), Hand::Stray(router)),
                Step::Accident("restart app-router.service", Accident::FailureBefore),
                Step::Accident("rename to /var/lib/lamina/accepted", Accident::FailureAfter),
                Step::Delete("app"),
                Step::Settle,
            ],
        ),
        scenario(
            "a process that read an edited file is not forgotten while its restart waits",
            vec![
                Step::Apply("app", waiting()),
                Step::Settle,
                Step::Hand(host(), Hand::EditFile("/etc/lamina/files/app/app.env".to_owned())),
                Step::Hand(host(), Hand::Restart(api)),
                Step::Settle,
                Step::KillAgent(host()),
                Step::Apply("app", Wish::app()),
                Step::Settle,
            ],
        ),
    ]
}

fn trade() -> Vec<Step> {
    let sets = |control: &'static str, runner: &'static str| {
        let mut wish = Wish::app();
        slice(&mut wish, "control").cpu = CpuWish::Set(control);
        slice(&mut wish, "runner").cpu = CpuWish::Set(runner);
        Step::Apply("app", wish)
    };
    vec![sets("0-3", "4-7"), Step::Settle, sets("4-7", "0-3"), Step::Settle]
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
