//! What the agent counts on is true of real systemd in containers, at native speed and without cgroup controllers.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::time::Duration;

use lamina_e2e::{
    cache::Cache,
    host::{Host, NspawnHost},
    image::Suite,
};

async fn the_contract_holds(suite: Suite) {
    let host = NspawnHost::boot(&Cache::open().unwrap(), "contract", suite).await.unwrap();
    host.install("lamina-host-contract", "/opt/lamina/lamina-host-contract").await.unwrap();
    // As the agent itself: uid 0 and nothing else.
    let script = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs /opt/lamina/lamina-host-contract";
    let answer = host.exec(script, Duration::from_secs(120)).await.unwrap();
    print!("{}", answer.stdout);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
}

#[tokio::test]
async fn the_contract_holds_on_systemd_252() {
    the_contract_holds(Suite::Bookworm).await;
}

#[tokio::test]
async fn the_contract_holds_on_systemd_257() {
    the_contract_holds(Suite::Trixie).await;
}
