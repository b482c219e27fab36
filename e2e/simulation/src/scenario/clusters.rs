//! The histories of what befalls clusters and their leaders.

use lamina_node_agent::property::{Property, Value};

use super::{HOST, Scenario, scenario, service, slice, unit};
use crate::accident::Accident;
use crate::api::Kind as ObjectKind;
use crate::api::admission::OPERATORS_LEASE;
use crate::hand::Hand;
use crate::history::Step;
use crate::wish::Wish;

/// What befalls the cluster and its machines.
pub(super) fn worlds() -> Vec<Scenario> {
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
pub(super) fn leaders() -> Vec<Scenario> {
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
