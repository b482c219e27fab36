//! The test hosts themselves: they are what they claim to be, survive what hosts survive, and reach nobody.

#![expect(clippy::disallowed_methods, reason = "times are measured")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lamina_e2e::{
    cache::Cache,
    host::{Host, HostSpec, NspawnHost, QemuHost, process::ProcessId, scratch::Scratch},
    image::Suite,
};

/// A host that goes with its folder.
struct Guest {
    host: QemuHost,
    _folder: Scratch,
}

async fn restore(spec: HostSpec) -> Guest {
    let cache = Cache::open().unwrap();
    let folder = Scratch::new(&cache, &spec.name).unwrap();
    let begin = Instant::now();
    let host = QemuHost::restore(&cache, spec, folder.path()).await.unwrap();
    println!("{} restored after {:.1} s", host.name(), begin.elapsed().as_secs_f64());
    Guest { host, _folder: folder }
}

async fn assert_is_the_twenty_cpu_host(host: &impl Host, suite: Suite) {
    let version = host.run("systemctl --version").await.unwrap();
    assert!(version.starts_with(&format!("systemd {} ", suite.systemd())), "{version}");
    assert_eq!(host.run("cat /sys/devices/system/cpu/online").await.unwrap(), "0-19");
    let nodes = host.run("cat /sys/devices/system/node/node{0,1}/cpulist").await.unwrap();
    assert_eq!(nodes, "0-7,16-19\n8-15");
    let controllers = host.run("cat /sys/fs/cgroup/cgroup.controllers").await.unwrap();
    for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
        assert!(controllers.split(' ').any(|name| name == controller), "{controllers}");
    }
    assert_eq!(host.run("hostname").await.unwrap(), host.name());
    assert_eq!(host.wait_booted().await.unwrap(), "running");
}

async fn assert_its_clock_is_right(host: &impl Host) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let its: f64 = host.run("date +%s.%N").await.unwrap().parse().unwrap();
    assert!((its - now).abs() < 10.0, "the host's clock is {} s off", its - now);
}

async fn comes_back(suite: Suite) {
    let Guest { mut host, _folder } = restore(HostSpec::twenty("returning", suite)).await;
    assert_is_the_twenty_cpu_host(&host, suite).await;
    assert_its_clock_is_right(&host).await;
    host.run("echo kept > /root/synced; sync /root/synced /root").await.unwrap();
    let machine = host.run("cat /etc/machine-id; sync /etc/machine-id").await.unwrap();

    let begin = Instant::now();
    host.reboot().await.unwrap();
    println!("{suite} rebooted after {:.1} s", begin.elapsed().as_secs_f64());
    assert_is_the_twenty_cpu_host(&host, suite).await;
    assert_its_clock_is_right(&host).await;
    assert_eq!(host.run("cat /root/synced").await.unwrap(), "kept");
    assert_eq!(host.run("cat /etc/machine-id").await.unwrap(), machine);
    assert!(host.run("journalctl --no-pager -b -n 1 -o cat").await.is_ok_and(|line| !line.is_empty()));

    host.run("echo lost > /root/unsynced").await.unwrap();
    let begin = Instant::now();
    host.power_cycle().await.unwrap();
    println!("{suite} answered again {:.1} s after a power cut", begin.elapsed().as_secs_f64());
    assert_eq!(host.run("cat /root/synced; cat /etc/machine-id").await.unwrap(), format!("kept\n{machine}"));
    assert_eq!(host.run("cat /root/unsynced 2>/dev/null || true").await.unwrap(), "");
}

#[tokio::test]
async fn a_bookworm_host_comes_back_from_reboot_and_power_cut() {
    comes_back(Suite::Bookworm).await;
}

#[tokio::test]
async fn a_trixie_host_comes_back_from_reboot_and_power_cut() {
    comes_back(Suite::Trixie).await;
}

#[tokio::test]
async fn a_guest_reaches_the_api_server_and_nothing_else() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            client.write_all(b"the api server").unwrap();
        }
    });
    let Guest { host, _folder } = restore(HostSpec::twenty("confined", Suite::Bookworm).with_api_server(port)).await;
    let answer = host.run("exec 3<>/dev/tcp/10.0.2.100/6443; timeout 20 cat <&3").await.unwrap();
    assert_eq!(answer, "the api server");
    for address in [format!("10.0.2.2/{port}"), "10.0.2.3/53".into(), "10.0.0.1/443".into(), "192.0.2.1/80".into()] {
        let attempt = host.run(&format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}'")).await;
        assert!(attempt.is_err(), "a guest has reached {address}");
    }
    // An API server that is down looks like one: the connection ends, and nothing is said on it.
    let Guest { host, _folder } = restore(HostSpec::twenty("alone", Suite::Bookworm).with_api_server(1)).await;
    let answer = host.run("exec 3<>/dev/tcp/10.0.2.100/6443 && timeout 20 cat <&3").await.unwrap_or_default();
    assert_eq!(answer, "");
}

#[tokio::test]
async fn two_hosts_of_one_snapshot_are_two_machines() {
    let first = restore(HostSpec::twenty("first", Suite::Bookworm)).await;
    let second = restore(HostSpec::twenty("second", Suite::Bookworm)).await;
    for question in ["cat /proc/sys/kernel/random/uuid", "cat /etc/machine-id", "hostname"] {
        assert_ne!(first.host.run(question).await.unwrap(), second.host.run(question).await.unwrap(), "{question}");
    }
}

#[tokio::test]
async fn the_workload_tells_where_it_runs() {
    let Guest { host, _folder } = restore(HostSpec::twenty("working", Suite::Trixie)).await;
    host.run(
        "systemd-run -q -p AllowedCPUs=8-15 -p AllowedMemoryNodes=1 -p User=orchestrator -p Environment=GOMAXPROCS=3 \
         -u router /opt/orchestrator/bin/router; while ! /opt/orchestrator/bin/router ask env GOMAXPROCS; do sleep 0.2; done",
    )
    .await
    .unwrap();
    let answer = host.run("/opt/orchestrator/bin/router ask affinity").await.unwrap();
    let affinity: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let threads = affinity["threads"].as_array().unwrap();
    assert!(threads.len() > 4, "{affinity}");
    assert!(threads.iter().all(|thread| thread["cpus"] == "8-15" && thread["nodes"] == "1"), "{affinity}");
    host.run("/opt/orchestrator/bin/router ask allocate 64").await.unwrap();
    let answer = host.run("/opt/orchestrator/bin/router ask memory").await.unwrap();
    let memory: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(memory["pages"]["1"].as_u64().is_some_and(|pages| pages > 64 * 256), "{memory}");
    host.run("systemctl stop router").await.unwrap();
    assert_eq!(host.run("systemctl is-failed router || true").await.unwrap(), "inactive");
}

#[tokio::test]
async fn commands_tell_how_they_ended() {
    let Guest { host, _folder } = restore(HostSpec::twenty("obeying", Suite::Bookworm)).await;
    assert_commands_tell_how_they_ended(&host).await;
    // A slow command is in nobody's way.
    let slow = host.exec("sleep 3; echo slow", Duration::from_secs(60));
    let quick = async {
        let begin = Instant::now();
        host.run("echo quick").await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3), "a quick command waits for a slow one");
    };
    let (slow, ()) = tokio::join!(slow, quick);
    assert_eq!(slow.unwrap().stdout, "slow\n");
}

async fn assert_commands_tell_how_they_ended(host: &impl Host) {
    let minute = Duration::from_secs(60);
    let ended = host.exec("echo out; echo err >&2; exit 7", minute).await.unwrap();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str(), ended.code), ("out\n", "err\n", 7));
    let begin = Instant::now();
    assert_eq!(host.exec("sleep 60", Duration::from_secs(1)).await.unwrap().code, 124);
    assert_eq!(host.exec("sleep 600 & echo started", minute).await.unwrap().stdout, "started\n");
    assert!(begin.elapsed() < Duration::from_secs(30), "a command left running is waited for");
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    host.put("/opt/lab/folder/file", 0o750, content.clone()).await.unwrap();
    assert_eq!(host.run("stat -c %a /opt/lab/folder/file").await.unwrap(), "750");
    assert!(host.get("/opt/lab/folder/file").await.unwrap() == content, "the file came back changed");
    assert!(host.get("/opt/lab/nothing").await.is_err());
}

async fn boots_natively(suite: Suite) {
    let cache = Cache::open().unwrap();
    // The root is made once; the time is that of the container.
    lamina_e2e::image::root::root(&cache, suite, lamina_e2e::image::Purpose::Plain).await.unwrap();
    let begin = Instant::now();
    let host = NspawnHost::boot(&cache, "contained", suite).await.unwrap();
    println!("a container of {suite} booted after {:.1} s", begin.elapsed().as_secs_f64());
    let version = host.run("systemctl --version").await.unwrap();
    assert!(version.starts_with(&format!("systemd {} ", suite.systemd())), "{version}");
    assert_eq!(host.run("hostname; stat -fc %T /sys/fs/cgroup").await.unwrap(), "contained\ncgroup2fs");
    host.run("systemd-run -q --wait /opt/orchestrator/bin/router ask nothing || true").await.unwrap();
    assert!(host.run("ip -o link | grep -v ' lo:'").await.is_err(), "a container has a network");
    assert_commands_tell_how_they_ended(&host).await;
    let leader = ProcessId::of(host.leader()).unwrap();
    drop(host);
    assert!(!leader.is_alive(), "a dropped container lives on");
}

#[tokio::test]
async fn a_bookworm_container_boots_and_obeys() {
    boots_natively(Suite::Bookworm).await;
}

#[tokio::test]
async fn a_trixie_container_boots_and_obeys() {
    boots_natively(Suite::Trixie).await;
}
