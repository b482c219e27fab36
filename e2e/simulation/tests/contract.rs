//! The simulated host keeps the same contract as real systemd and the kernel do in the bus and host lanes.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lamina_node_agent::host::contract::{self, Answer};
use lamina_simulation::accident::Fuse;
use lamina_simulation::host::{Kind, SimulatedHost};
use lamina_simulation::story::Story;

fn host(systemd: u32) -> SimulatedHost {
    let nodes = ["0-3", "4-7"].into_iter().map(|cpus| cpus.parse().expect("a list")).collect();
    let mut host = SimulatedHost::new("host-1", &Kind { systemd, nodes }, Fuse::default(), Story::default());
    // The contract's services run as root: its texts name no user.
    host.installed.users.extend(["root".to_owned(), String::new()]);
    host.installed.missing.insert("/nonexistent/program".to_owned());
    host
}

/// Nothing in a simulated host waits, so one poll is the whole run.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a simulated host waits for nothing"),
    }
}

fn assert_all_hold(systemd: u32, answers: Vec<Answer>) {
    let broken: Vec<String> = answers
        .into_iter()
        .filter_map(|(fact, answer)| answer.err().map(|broken| format!("systemd {systemd}, {fact}: {broken}")))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_contract_holds_on_the_bus_of_every_version() {
    for systemd in [252, 257, 262] {
        assert_all_hold(systemd, now(contract::on_the_bus(&mut host(systemd))));
    }
}

#[test]
fn the_contract_holds_in_the_kernel_of_every_version() {
    for systemd in [252, 257, 262] {
        assert_all_hold(systemd, now(contract::in_the_kernel(&mut host(systemd))));
    }
}
