//! What the agent counts on is true of real systemd and of the kernel beneath it, in emulated machines.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::time::Duration;

use lamina_e2e::{
    cache::Cache,
    host::{Host, HostSpec, QemuHost, scratch::Scratch},
    image::Suite,
};

async fn the_contract_holds(suite: Suite) {
    let cache = Cache::open().unwrap();
    let folder = Scratch::new(&cache, "contract").unwrap();
    let host = QemuHost::restore(&cache, HostSpec::twenty("contract", suite), folder.path()).await.unwrap();
    host.install("lamina-host-contract", "/opt/lamina/lamina-host-contract").await.unwrap();
    // As the agent itself: uid 0 and nothing else.
    let script = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs /opt/lamina/lamina-host-contract kernel";
    let answer = host.exec(script, Duration::from_secs(600)).await.unwrap();
    print!("{}", answer.stdout);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
}

#[tokio::test]
async fn the_contract_holds_on_systemd_252_and_kernel_6_1() {
    the_contract_holds(Suite::Bookworm).await;
}

#[tokio::test]
async fn the_contract_holds_on_systemd_257_and_kernel_6_12() {
    the_contract_holds(Suite::Trixie).await;
}
