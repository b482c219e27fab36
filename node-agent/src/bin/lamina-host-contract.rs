//! Tries on the machine it runs on, as root, whether systemd and the kernel do what the agent counts on. One line per
//! fact; exits with 1 if one does not hold. For test hosts: it creates and removes units of a topology `contract`.
//! With the argument `kernel` it also tries what reaches the kernel, which a container without controllers cannot show.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::Duration;

use lamina_crds::TopologyName;
use lamina_node_agent::host::contract::{self, Answer, Broken};
use lamina_node_agent::host::real::RealHost;
use lamina_node_agent::host::{Host, HostError};
use lamina_node_agent::observed::Scope;
use lamina_node_agent::watch::{Wake, Watch};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut host = RealHost::new("/", None);
    let mut answers = contract::on_the_bus(&mut host).await;
    if std::env::args().any(|argument| argument == "kernel") {
        answers.extend(contract::in_the_kernel(&mut host).await);
    }
    answers.extend(of_events(&mut host).await);
    let mut all_hold = true;
    for (fact, answer) in answers {
        match answer {
            Ok(()) => println!("holds   {fact}"),
            Err(broken) => {
                all_hold = false;
                println!("BROKEN  {fact}: {broken}");
            }
        }
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Facts about what wakes the agent; only a real host has events.
async fn of_events(host: &mut RealHost) -> Vec<Answer> {
    let unit = "/etc/systemd/system/contract-nap.service";
    let is_of_file = |wake: &Wake| matches!(wake, Wake::File(path) if path.starts_with(unit));
    let is_of_job = |wake: &Wake| matches!(wake, Wake::Systemd(_));
    // Generators write files during a reload; of a burst only the first event is told.
    let is_of_reload = |wake: &Wake| matches!(wake, Wake::Systemd(_) | Wake::File(_));
    let mut watch = match listening(host).await {
        Ok(watch) => watch,
        Err(broken) => return vec![("events_can_be_listened_for", Err(broken))],
    };
    let write = format!("printf '[Service]\\nExecStart=/bin/sleep 100\\n' > {unit}");
    vec![
        ("a_written_unit_file_wakes", wakes(&mut watch, &write, is_of_file).await),
        ("a_reload_wakes", wakes(&mut watch, "systemctl daemon-reload", is_of_reload).await),
        ("a_start_wakes", wakes(&mut watch, "systemctl start contract-nap.service", is_of_job).await),
        ("a_killed_process_wakes", wakes(&mut watch, "systemctl kill -s KILL contract-nap.service", is_of_job).await),
        ("a_removed_unit_file_wakes", wakes(&mut watch, &format!("rm {unit}"), is_of_file).await),
        ("a_strangers_file_does_not_wake", is_quiet(&mut watch, "touch /etc/systemd/system/strange.conf").await),
        ("a_restarted_bus_wakes", wakes(&mut watch, "systemctl restart dbus", is_of_job).await),
        ("a_restarted_bus_is_found_again", is_found_again(host).await),
        (
            "no_trace_is_left",
            run("rm /etc/systemd/system/strange.conf; systemctl daemon-reload; systemctl reset-failed"),
        ),
    ]
}

async fn listening(host: &RealHost) -> Result<Watch, Broken> {
    let failed = |error: std::io::Error| Broken::Fact { what: "listening", found: error.to_string() };
    let topology = TopologyName::new("contract").expect("a legal name");
    let mut watch = Watch::new(host.root(), host.bus_address().to_owned()).map_err(failed)?;
    watch.arm(&BTreeSet::from([topology])).map_err(failed)?;
    // The first signal of all is that systemd can be heard.
    heard(&mut watch, |wake| matches!(wake, Wake::Systemd(_))).await?;
    Ok(watch)
}

async fn wakes(watch: &mut Watch, script: &str, counts: impl Fn(&Wake) -> bool) -> Result<(), Broken> {
    run(script)?;
    heard(watch, counts).await?;
    // What else the same change causes must not answer for the next one.
    while tokio::time::timeout(Duration::from_millis(500), watch.next()).await.is_ok() {}
    Ok(())
}

async fn heard(watch: &mut Watch, counts: impl Fn(&Wake) -> bool) -> Result<(), Broken> {
    let waiting = async { while !counts(&watch.next().await) {} };
    let silence = |_| Broken::Fact { what: "something is heard within 10 s", found: "silence".to_owned() };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.map_err(silence)
}

async fn is_quiet(watch: &mut Watch, script: &str) -> Result<(), Broken> {
    run(script)?;
    match tokio::time::timeout(Duration::from_millis(500), watch.next()).await {
        Ok(wake) => Err(Broken::Fact { what: "nothing is heard", found: wake.to_string() }),
        Err(_) => Ok(()),
    }
}

/// The first call may tell that the old connection is gone; a later one must find the new bus.
async fn is_found_again(host: &mut RealHost) -> Result<(), Broken> {
    let mut last = HostError::Gone("not tried".to_owned());
    for _ in 0..20 {
        match host.observe(&Scope::default()).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(Broken::Host(last))
}

fn run(script: &str) -> Result<(), Broken> {
    let status = Command::new("sh").args(["-c", script]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Broken::Fact { what: "the script succeeds", found: format!("{status}: {script}") }),
        Err(error) => Err(Broken::Fact { what: "the shell starts", found: error.to_string() }),
    }
}
