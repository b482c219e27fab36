//! The histories of what users do.

use super::{HOST, Scenario, scenario, service, slice};
use crate::history::Step;
use crate::wish::{CpuWish, SliceWish, Wish};

/// What users do.
pub(super) fn users() -> Vec<Scenario> {
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

fn trade() -> Vec<Step> {
    let sets = |control: &'static str, runner: &'static str| {
        let mut wish = Wish::app();
        slice(&mut wish, "control").cpu = CpuWish::Set(control);
        slice(&mut wish, "runner").cpu = CpuWish::Set(runner);
        Step::Apply("app", wish)
    };
    vec![sets("0-3", "4-7"), Step::Settle, sets("4-7", "0-3"), Step::Settle]
}
