//! What every host must do, the real one and those that stand in for it: facts about the verbs that the agent counts on.
//!
//! Each fact leaves the host as it found it. They speak of units of a topology `contract` and need no CPU set to take
//! effect, so they hold in a container without cgroup controllers, too.

use std::collections::BTreeSet;

use lamina_crds::wishes::MemoryPolicy;
use lamina_crds::{CpuSet, TopologyName, UnitName};

use crate::desired::TextDigests;
use crate::host::{Host, HostError, JobResult};
use crate::host_path::HostPath;
use crate::numa::NumaPolicy;
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit, Scope};
use crate::property::{Properties, Property, Value};

/// A fact that does not hold: which one, and what was seen instead.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// An effect failed that must not.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Something was seen that must not be.
    #[error("{what}: found {found}")]
    Fact {
        /// What should hold.
        what: &'static str,
        /// What was found.
        found: String,
    },
}

/// The name of a fact and whether it holds.
pub type Answer = (&'static str, Result<(), Broken>);

/// Tries each fact on a clean host, and at last whether the host can be left clean.
macro_rules! answers {
    ($host:ident: $($fact:ident),* $(,)?) => {{
        let mut answers: Vec<Answer> = Vec::new();
        $(
            let answer = match clean($host).await {
                Ok(()) => $fact($host).await,
                Err(error) => Err(error),
            };
            answers.push((stringify!($fact), answer));
        )*
        answers.push(("the_host_can_be_left_clean", clean($host).await));
        answers
    }};
}

/// Facts that hold wherever there is a systemd, even where the kernel lends no controllers.
pub async fn on_the_bus(host: &mut impl Host) -> Vec<Answer> {
    answers!(host:
        a_file_is_what_was_written_last,
        a_missing_unit_is_not_found,
        a_loaded_unit_shows_its_text_and_its_properties,
        a_loaded_service_shows_its_memory_policy_with_the_nodes_of_its_list,
        a_started_service_shows_what_it_was_started_from,
        an_edit_is_loaded_by_a_reload_and_reaches_the_process_only_at_a_restart,
        a_process_of_a_foreign_text_shows_what_it_was_started_with,
        a_foreign_text_that_is_replaced_leaves_its_process_alone_and_tells_no_more_of_it,
        a_file_keeps_the_mode_that_it_was_given,
        a_program_that_is_missing_fails_the_start,
        a_set_property_is_seen_and_leaves_one_file,
        a_drop_in_that_sorts_last_outranks_a_set_property_after_a_reload,
        a_stopped_service_has_no_process,
        a_removed_unit_is_gone_after_a_reload,
    )
}

/// Facts about what reaches the kernel; they need CPUs 0 to 2, and the controllers cpuset, memory and pids.
pub async fn in_the_kernel(host: &mut impl Host) -> Vec<Answer> {
    answers!(host:
        settings_present_at_the_start_are_in_the_kernel,
        a_set_property_is_in_the_kernel_and_reaches_every_thread_at_once,
        a_set_property_of_one_value_brings_the_others_that_are_loaded,
        a_cpu_set_can_be_changed_and_changed_back,
    )
}

async fn settings_present_at_the_start_are_in_the_kernel(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    write_drop_in(host, "AllowedCPUs=\nAllowedCPUs=1-2\nMemoryHigh=300000000\nTasksMax=64\n").await?;
    host.reload().await?;
    host.start(&service()).await?;
    let observed = look(host).await?;
    let slice = observed.units.get(&slice()).cloned().unwrap_or_default();
    let cpus: CpuSet = [1, 2].into_iter().collect();
    holds(
        "the CPUs are written",
        slice.kernel.get(&Property::AllowedCpus) == Some(&Value::Cpus(cpus.clone())),
        &slice,
    )?;
    holds("the CPUs are given", slice.effective_cpus.as_ref() == Some(&cpus), &slice)?;
    let high = Property::MemoryHigh.in_kernel(&Value::Number(300_000_000));
    holds("memory is in whole pages", slice.kernel.get(&Property::MemoryHigh) == Some(&high), &slice)?;
    holds("tasks are limited", slice.kernel.get(&Property::TasksMax) == Some(&Value::Number(64)), &slice)?;
    let service = observed.units.get(&service()).cloned().unwrap_or_default();
    holds("every thread is inside", service.threads.count > 0 && service.threads.cpus == cpus, &service)?;
    holds("no process strayed", service.threads.strayed == 0, &service)
}

async fn a_set_property_is_in_the_kernel_and_reaches_every_thread_at_once(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&service()).await?;
    set_cpus(host, 1).await?;
    let unit = unit(host, &service()).await?;
    let expected: CpuSet = [1].into_iter().collect();
    holds("the service is given its slice's CPUs", unit.effective_cpus.as_ref() == Some(&expected), &unit)?;
    holds("every thread is inside", unit.threads.count > 0 && unit.threads.cpus == expected, &unit)
}

async fn a_set_property_of_one_value_brings_the_others_that_are_loaded(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&service()).await?;
    write_drop_in(host, "MemoryMax=1073741824\n").await?;
    host.reload().await?;
    set_cpus(host, 1).await?;
    let unit = unit(host, &slice()).await?;
    let max = unit.kernel.get(&Property::MemoryMax);
    holds("the loaded limit is in the kernel", max == Some(&Value::Number(1 << 30)), &unit)
}

async fn a_cpu_set_can_be_changed_and_changed_back(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&service()).await?;
    for cpu in [0, 1, 0] {
        set_cpus(host, cpu).await?;
        let unit = unit(host, &service()).await?;
        let expected: CpuSet = [cpu].into_iter().collect();
        holds("every thread follows", unit.threads.count > 0 && unit.threads.cpus == expected, &unit)?;
    }
    Ok(())
}

async fn set_cpus(host: &mut impl Host, cpu: u32) -> Result<(), Broken> {
    let properties = Properties::from([(Property::AllowedCpus, Value::Cpus([cpu].into_iter().collect()))]);
    Ok(host.set_properties(&slice(), &properties).await?)
}

async fn a_file_is_what_was_written_last(host: &mut impl Host) -> Result<(), Broken> {
    let path = HostPath::fragment(&slice());
    write(host, &path, "[Slice]\n").await?;
    write(host, &path, "[Slice]\nMemoryMax=1G\n").await?;
    let read = host.read(&path).await?;
    holds("the last content is read", read.as_deref() == Some(b"[Slice]\nMemoryMax=1G\n"), &read)?;
    let observed = look(host).await?;
    let expected = ObservedFile::Regular { content: b"[Slice]\nMemoryMax=1G\n".to_vec() };
    holds("it is among the files", observed.files.get(&path) == Some(&expected), &observed.files)?;
    host.remove(&path).await?;
    host.remove(&path).await?;
    let read = host.read(&path).await?;
    holds("a removed file is gone", read.is_none(), &read)
}

async fn a_missing_unit_is_not_found(host: &mut impl Host) -> Result<(), Broken> {
    let unit = unit(host, &service()).await?;
    holds("its load state is not-found", unit.load_state == "not-found", &unit)?;
    holds("it is inactive", unit.active_state == "inactive" && unit.main_pid == 0, &unit)
}

async fn a_loaded_unit_shows_its_text_and_its_properties(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    write_drop_in(host, "AllowedCPUs=\nAllowedCPUs=0\nMemoryHigh=1073741824\nMemoryMax=infinity\nIOWeight=500\n")
        .await?;
    host.reload().await?;
    let service = unit(host, &service()).await?;
    holds("the service is loaded", service.load_state == "loaded" && !service.need_reload, &service)?;
    holds("its digests are seen", service.loaded_text == Some(digests("1")), &service)?;
    holds("its slice is seen", service.slice == slice().as_str(), &service)?;
    let fragment = HostPath::fragment(&self::service());
    holds("its fragment is ours", service.fragment_path == fragment.as_str(), &service)?;
    let slice = unit(host, &slice()).await?;
    let expected = [
        (Property::AllowedCpus, Value::Cpus([0].into_iter().collect())),
        (Property::MemoryHigh, Value::Number(1 << 30)),
        (Property::MemoryMax, Value::Infinity),
        (Property::IoWeight, Value::Number(500)),
        (Property::TasksMax, Value::Infinity),
    ];
    for (property, value) in expected {
        holds("the slice's settings are loaded", slice.loaded.get(&property) == Some(&value), &slice)?;
    }
    let drop_in = HostPath::drop_in(&self::slice());
    holds("the drop-in is named", slice.drop_in_paths == [drop_in.as_str()], &slice)
}

async fn a_loaded_service_shows_its_memory_policy_with_the_nodes_of_its_list(
    host: &mut impl Host,
) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    let without = unit(host, &service()).await?;
    holds("no policy is seen where none is written", without.numa.is_none(), &without)?;
    let path = HostPath::drop_in(&service());
    host.make_directory(&path.directory()).await?;
    write(host, &path, "[Service]\nNUMAPolicy=bind\nNUMAMask=\nNUMAMask=1,9\n").await?;
    host.reload().await?;
    let seen = unit(host, &service()).await?;
    let asked = NumaPolicy { policy: MemoryPolicy::Bind, nodes: [1, 9].into_iter().collect() };
    holds("the policy is seen, with nodes 1 and 9", seen.numa == Some(asked), &seen)
}

async fn a_started_service_shows_what_it_was_started_from(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    let result = host.start(&service()).await?;
    holds("the start job is done", result == JobResult::Done, &result)?;
    let unit = unit(host, &service()).await?;
    holds("it runs", unit.active_state == "active" && unit.sub_state == "running" && unit.main_pid != 0, &unit)?;
    holds("it has an invocation", unit.invocation.len() == 32, &unit)?;
    holds("its process is from the loaded text", unit.started_from == Some(digests("1")), &unit)?;
    let group = format!("/{}/{}/{}", top(), slice(), service());
    holds("its cgroup is in its slice", unit.control_group == group, &unit)?;
    let again = host.start(&service()).await?;
    let after = self::unit(host, &service()).await?;
    holds("a second start changes nothing", again == JobResult::Done && after.invocation == unit.invocation, &after)
}

async fn an_edit_is_loaded_by_a_reload_and_reaches_the_process_only_at_a_restart(
    host: &mut impl Host,
) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&service()).await?;
    let before = unit(host, &service()).await?;
    install(host, "2").await?;
    host.reload().await?;
    let edited = unit(host, &service()).await?;
    holds("the new text is loaded", edited.loaded_text == Some(digests("2")), &edited)?;
    holds("the process is the old one", edited.started_from == Some(digests("1")), &edited)?;
    holds(
        "nothing was started",
        edited.invocation == before.invocation && edited.main_pid == before.main_pid,
        &edited,
    )?;
    let result = host.restart(&service()).await?;
    holds("the restart job is done", result == JobResult::Done, &result)?;
    let restarted = unit(host, &service()).await?;
    holds("the process is a new one", restarted.invocation != before.invocation, &restarted)?;
    holds("it is from the new text", restarted.started_from == Some(digests("2")), &restarted)
}

/// A service as somebody writes it who knows nothing of Lamina.
async fn install_foreign(host: &mut impl Host) -> Result<(), Broken> {
    let text = format!(
        "[Service]\nType=simple\nSlice={}\nUser=root\nExecStart=/bin/sleep \"1000\"\nEnvironment=A=1 \"B=x y\"\nLimitNOFILE=4096\n",
        slice()
    );
    write(host, &HostPath::fragment(&slice()), "[Unit]\nDescription=by hand\n").await?;
    write(host, &HostPath::fragment(&service()), &text).await?;
    host.reload().await?;
    host.start(&service()).await?;
    Ok(())
}

async fn a_process_of_a_foreign_text_shows_what_it_was_started_with(host: &mut impl Host) -> Result<(), Broken> {
    install_foreign(host).await?;
    let seen = unit(host, &service()).await?;
    holds("it has no digests", seen.loaded_text.is_none() && seen.started_from.is_none(), &seen)?;
    let past = seen.past.clone().unwrap_or_default();
    let command = ["/bin/sleep", "1000"];
    holds("its command is seen, as loaded and as it runs", past.command == command && past.process == command, &past)?;
    holds("its user is seen", past.user == "root" && past.group.is_empty(), &past)?;
    let environment: BTreeSet<&str> = past.environment.iter().map(String::as_str).collect();
    holds("its variables are seen", environment == BTreeSet::from(["A=1", "B=x y"]), &past)?;
    holds("its limits are seen", past.limits.get("LimitNOFILE") == Some(&(4096, 4096)), &past)?;
    holds("nothing else is set", past.further.is_empty(), &past)?;
    holds("no file was changed since its start", past.changed.is_empty(), &past)?;
    let path = HostPath::fragment(&service());
    let text = host.read(&path).await?.unwrap_or_default();
    write(host, &path, &String::from_utf8_lossy(&text)).await?;
    host.reload().await?;
    let changed = unit(host, &service()).await?.past.unwrap_or_default().changed;
    holds("a file that was written since is seen as changed", changed == BTreeSet::from([path.to_string()]), &changed)
}

async fn a_foreign_text_that_is_replaced_leaves_its_process_alone_and_tells_no_more_of_it(
    host: &mut impl Host,
) -> Result<(), Broken> {
    install_foreign(host).await?;
    let before = unit(host, &service()).await?;
    install(host, "1").await?;
    host.reload().await?;
    let after = unit(host, &service()).await?;
    let is_same = after.invocation == before.invocation && after.main_pid == before.main_pid;
    holds("the process is the same", is_same && after.active_state == "active", &after)?;
    holds("the new text is loaded", after.loaded_text == Some(digests("1")), &after)?;
    holds("nobody tells what it was started from", after.started_from.is_none() && after.past.is_none(), &after)
}

async fn a_file_keeps_the_mode_that_it_was_given(host: &mut impl Host) -> Result<(), Broken> {
    let path = HostPath::fragment(&slice());
    write(host, &path, "[Slice]\n").await?;
    let plain = host.mode(&path).await?;
    holds("a new file has mode 0644", plain == 0o644, &plain)?;
    host.set_mode(&path, 0o600).await?;
    let set = host.mode(&path).await?;
    holds("the mode that was set is read", set == 0o600, &set)
}

async fn a_program_that_is_missing_fails_the_start(host: &mut impl Host) -> Result<(), Broken> {
    let text = "[Service]\nType=exec\nExecStart=/nonexistent/program\n";
    write(host, &HostPath::fragment(&service()), text).await?;
    host.reload().await?;
    let result = host.start(&service()).await?;
    holds("the start job fails", result == JobResult::Other("failed".to_owned()), &result)?;
    let failed = unit(host, &service()).await?;
    holds("the unit has failed", failed.active_state == "failed" && failed.exit_status == 203, &failed)?;
    host.reset_failed(&service()).await?;
    let unit = unit(host, &service()).await?;
    holds("a reset clears it", unit.active_state == "inactive", &unit)
}

async fn a_set_property_is_seen_and_leaves_one_file(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&slice()).await?;
    set_memory_high(host, 1 << 20).await?;
    let observed = look(host).await?;
    let slice_seen = observed.units.get(&slice()).cloned().unwrap_or_default();
    let high = slice_seen.loaded.get(&Property::MemoryHigh);
    holds("the value is loaded", high == Some(&Value::Number(1 << 20)), &slice_seen)?;
    let push = HostPath::runtime_push(&slice(), Property::MemoryHigh);
    holds("its file is seen", observed.files.contains_key(&push), &observed.files)?;
    host.remove(&push).await?;
    let observed = look(host).await?;
    holds("it can be removed", !observed.files.contains_key(&push), &observed.files)
}

async fn a_drop_in_that_sorts_last_outranks_a_set_property_after_a_reload(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    write_drop_in(host, "MemoryHigh=1073741824\n").await?;
    host.reload().await?;
    host.start(&slice()).await?;
    set_memory_high(host, 1 << 20).await?;
    host.reload().await?;
    let unit = unit(host, &slice()).await?;
    let high = unit.loaded.get(&Property::MemoryHigh);
    holds("the drop-in's value is loaded", high == Some(&Value::Number(1 << 30)), &unit)
}

async fn a_stopped_service_has_no_process(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    host.reload().await?;
    host.start(&service()).await?;
    let result = host.stop(&service()).await?;
    holds("the stop job is done", result == JobResult::Done, &result)?;
    let stopped = unit(host, &service()).await?;
    holds("it is inactive without a process", stopped.active_state == "inactive" && stopped.main_pid == 0, &stopped)?;
    holds("it runs no text", stopped.started_from.is_none(), &stopped)?;
    let slice = unit(host, &slice()).await?;
    holds("its slice stays active", slice.active_state == "active", &slice)
}

async fn a_removed_unit_is_gone_after_a_reload(host: &mut impl Host) -> Result<(), Broken> {
    install(host, "1").await?;
    let link = HostPath::enablement(&service());
    host.make_directory(&link.directory()).await?;
    host.link(&link, &format!("../{}", service())).await?;
    host.reload().await?;
    let enabled = look(host).await?;
    holds("the link is seen", enabled.files.contains_key(&link), &enabled.files)?;
    clean(host).await?;
    let observed = look(host).await?;
    let is_named = |path: &&HostPath| path.as_str().contains("contract");
    let left: Vec<&HostPath> = observed.files.keys().filter(is_named).collect();
    holds("no file is left", left.is_empty(), &left)?;
    let unit = observed.units.get(&service()).cloned().unwrap_or_default();
    holds("the unit is not found", unit.load_state == "not-found", &unit)
}

fn topology() -> TopologyName {
    TopologyName::new("contract").expect("a legal name")
}

fn top() -> UnitName {
    UnitName::new("contract.slice").expect("a legal name")
}

fn slice() -> UnitName {
    UnitName::new("contract-a.slice").expect("a legal name")
}

fn service() -> UnitName {
    UnitName::new("contract-nap.service").expect("a legal name")
}

fn digests(version: &str) -> TextDigests {
    let digest = |part: &str| format!("{part}{version}");
    TextDigests { text: digest("text"), start: digest("start"), derived: digest("derived") }
}

/// Writes slice and service; a version differs from another in its digests and its command.
async fn install(host: &mut impl Host, version: &str) -> Result<(), Broken> {
    let TextDigests { text, start, derived } = digests(version);
    let fragment = format!(
        "[Service]\nType=exec\nSlice={}\nExecStart=/bin/sleep 100{version}\nLogExtraFields=LAMINA_TEXT={text} LAMINA_START={start} LAMINA_DERIVED={derived}\n",
        slice()
    );
    write(host, &HostPath::fragment(&slice()), "[Unit]\nDescription=contract\n").await?;
    write(host, &HostPath::fragment(&service()), &fragment).await
}

async fn write_drop_in(host: &mut impl Host, settings: &str) -> Result<(), Broken> {
    let path = HostPath::drop_in(&slice());
    host.make_directory(&path.directory()).await?;
    write(host, &path, &format!("[Slice]\n{settings}")).await
}

async fn write(host: &mut impl Host, path: &HostPath, content: &str) -> Result<(), Broken> {
    let staging = path.staging();
    host.write(&staging, content.as_bytes()).await?;
    host.sync(&staging).await?;
    host.rename(&staging, path).await?;
    host.sync(&path.directory()).await?;
    Ok(())
}

async fn set_memory_high(host: &mut impl Host, bytes: u64) -> Result<(), Broken> {
    let properties = Properties::from([(Property::MemoryHigh, Value::Number(bytes))]);
    Ok(host.set_properties(&slice(), &properties).await?)
}

async fn look(host: &mut impl Host) -> Result<ObservedHost, Broken> {
    let scope = Scope {
        topologies: BTreeSet::from([topology()]),
        units: BTreeSet::from([top(), slice(), service()]),
        ..Scope::default()
    };
    Ok(host.observe(&scope).await?)
}

async fn unit(host: &mut impl Host, unit: &UnitName) -> Result<ObservedUnit, Broken> {
    Ok(look(host).await?.units.remove(unit).unwrap_or_default())
}

/// Stops and removes everything of the topology.
async fn clean(host: &mut impl Host) -> Result<(), Broken> {
    let units = look(host).await?.units;
    for unit in [service(), slice(), top()] {
        if units.get(&unit).is_some_and(|unit| unit.active_state != "inactive") {
            host.reset_failed(&unit).await?;
            host.stop(&unit).await?;
        }
    }
    let directories = |path: &HostPath| path.as_str().ends_with(".d");
    let (directories, files): (Vec<_>, Vec<_>) = look(host).await?.files.into_keys().partition(directories);
    for path in files.iter().chain(&directories).filter(|path| path.as_str().contains("contract")) {
        host.remove(path).await?;
    }
    Ok(host.reload().await?)
}

fn holds(what: &'static str, is_so: bool, found: &impl std::fmt::Debug) -> Result<(), Broken> {
    if is_so { Ok(()) } else { Err(Broken::Fact { what, found: format!("{found:?}") }) }
}
