//! The histories of what befalls hosts: a past, other people's hands, and what once went wrong.

use lamina_node_agent::property::{Property, Value};

use super::{HOST, Scenario, scenario, service, unit};
use crate::accident::Accident;
use crate::hand::Hand;
use crate::history::Step;
use crate::wish::{Wish, program};

/// Hosts on which the units run before Lamina comes.
pub(super) fn pasts() -> Vec<Scenario> {
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
pub(super) fn hands() -> Vec<Scenario> {
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

/// What once went wrong.
pub(super) fn troubles() -> Vec<Scenario> {
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
        scenario(
            "a process that read an edited file is not forgotten while it is held",
            vec![
                Step::Apply("app", Wish::app()),
                Step::Settle,
                Step::Hand(host(), Hand::EditFile("/etc/lamina/files/app/app.env".to_owned())),
                Step::Reboot(host()),
                Step::Hand(host(), Hand::RemoveProgram(program("worker"))),
                Step::Round,
                Step::KillAgent(host()),
                Step::Hand(host(), Hand::RepairProgram(program("worker"))),
                Step::Settle,
            ],
        ),
        scenario(
            "what was removed is durably gone before it is forgotten",
            vec![
                Step::Apply("app", Wish { removes: true, ..Wish::app() }),
                Step::Settle,
                Step::Apply("app", {
                    let mut wish = Wish { removes: true, ..Wish::app() };
                    wish.services.remove("api");
                    wish
                }),
                Step::Round,
                Step::Round,
                Step::LosePower(host()),
                Step::Settle,
                Step::Delete("app"),
                Step::Settle,
            ],
        ),
        scenario(
            "a process that started in the middle of a change is not forgotten when that is taken back",
            vec![
                Step::Apply("app", waiting()),
                Step::Settle,
                Step::Accident("write /etc/systemd/system/.app-api.service", Accident::PowerLossBefore),
                Step::Apply("app", Wish { file: 2, ..waiting() }),
                Step::Settle,
                Step::Apply("app", waiting()),
                Step::Settle,
                Step::Apply("app", Wish::app()),
                Step::Settle,
            ],
        ),
    ]
}
