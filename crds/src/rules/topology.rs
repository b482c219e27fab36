//! Decides whether a `SliceTopology` keeps the rules that span its fields.

use std::collections::BTreeSet;

use super::order::{Order, cycles};
use super::request::{joint_faults, request_faults};
use super::{
    Fault, LARGEST_FILES, MOST_FILES, MOST_SERVICES, MOST_SLICES, at_most, command_faults, duplicates, exactly_one,
    io_faults, memory_faults, restart_fault, rlimit_faults, task_faults, unknown_name,
};
use crate::names::{NameError, TopologyName, UnitName};
use crate::slice_topology::{
    DeliveredFile, EnvFile, EnvVariable, HostSelector, LabelExpression, LabelOperator, LabelValue, Restart, Service,
    ServiceDefaults, Slice, SliceTopologySpec,
};

/// Every rule that the topology breaks; empty exactly when it may be placed.
pub fn topology_faults(name: &str, spec: &SliceTopologySpec) -> Vec<Fault> {
    let SliceTopologySpec {
        host_selector,
        deletion_policy: _,
        paused: _,
        adoption: _,
        housekeeping,
        files,
        service_defaults,
        slices,
        services,
    } = spec;
    let known = Known {
        slices: slices.iter().map(|slice| slice.name.as_str()).collect(),
        files: files.iter().map(|file| file.name.as_str()).collect(),
        default_user: service_defaults.as_ref().is_some_and(|defaults| defaults.user.is_some()),
    };
    let mut faults = name_faults(name, slices, services);
    faults.extend(selector_faults(host_selector));
    faults.extend(file_faults("spec.files", files));
    faults.extend(service_defaults.iter().flat_map(|defaults| default_faults(defaults, &known)));
    faults.extend(slice_faults(slices, &known));
    faults.extend(joint_faults(slices, housekeeping.as_ref()));
    faults.extend(service_faults(services, &known));
    faults
}

/// What references may name.
struct Known<'a> {
    slices: BTreeSet<&'a str>,
    files: BTreeSet<&'a str>,
    default_user: bool,
}

fn name_faults(name: &str, slices: &[Slice], services: &[Service]) -> Vec<Fault> {
    let topology = match TopologyName::new(name) {
        Ok(topology) => topology,
        Err(error) => return vec![name_fault("metadata.name", name, &error)],
    };
    if let Err(error) = UnitName::of_topology(&topology) {
        return vec![name_fault("metadata.name", name, &error)];
    }
    let slices = slices.iter().enumerate().filter_map(|(index, Slice { name, .. })| {
        let error = UnitName::of_slice(&topology, name).err()?;
        Some(name_fault(&format!("spec.slices[{index}].name"), name.as_str(), &error))
    });
    let services = services.iter().enumerate().filter_map(|(index, Service { name, .. })| {
        let error = UnitName::of_service(&topology, name).err()?;
        Some(name_fault(&format!("spec.services[{index}].name"), name.as_str(), &error))
    });
    slices.chain(services).collect()
}

fn name_fault(path: &str, name: &str, error: &NameError) -> Fault {
    let told = error.to_string();
    let (rule, remedy) = told.rsplit_once("; ").unwrap_or((&told, "choose another name"));
    Fault::new(path, name, rule, remedy)
}

fn selector_faults(selector: &HostSelector) -> Vec<Fault> {
    let HostSelector { match_labels, match_expressions } = selector;
    if match_labels.is_empty() && match_expressions.is_empty() {
        return vec![Fault::new(
            "spec.hostSelector",
            "{}",
            "an empty selector would match every host",
            "name at least one label in matchLabels or matchExpressions",
        )];
    }
    let keys = match_labels.iter().filter(|(key, _)| !is_label_key(key)).map(|(key, _)| {
        Fault::new("spec.hostSelector.matchLabels", key, "this is not a label key", "write it like lamina.dev/role")
    });
    let values = match_labels.iter().filter(|(_, LabelValue(value))| !is_label_value(value)).map(|(key, value)| {
        let path = format!("spec.hostSelector.matchLabels[{key}]");
        Fault::new(&path, &value.0, "this is not a label value", "use letters, digits and inner - _ . only")
    });
    let expressions = match_expressions.iter().enumerate().filter_map(|(index, expression)| {
        expression_fault(&format!("spec.hostSelector.matchExpressions[{index}]"), expression)
    });
    keys.chain(values).chain(expressions).collect()
}

fn expression_fault(path: &str, LabelExpression { key, operator, values }: &LabelExpression) -> Option<Fault> {
    if !is_label_key(key) {
        let remedy = "write it like lamina.dev/role";
        return Some(Fault::new(&format!("{path}.key"), key, "this is not a label key", remedy));
    }
    let wants_values = match operator {
        LabelOperator::In | LabelOperator::NotIn => true,
        LabelOperator::Exists | LabelOperator::DoesNotExist => false,
    };
    match (wants_values, values.is_empty()) {
        (true, true) => Some(Fault::new(path, "no values", "In and NotIn need values", "list at least one value")),
        (false, false) => {
            let rule = "Exists and DoesNotExist take no values";
            Some(Fault::new(path, &values.len().to_string(), rule, "remove the values"))
        }
        (true, false) | (false, true) => None,
    }
}

/// Kubernetes' rule for label keys: a name of at most 63 characters behind an optional DNS subdomain.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let legal_prefix = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(label));
    legal_prefix && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63
        && ends(value.bytes().next())
        && ends(value.bytes().last())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Rules about delivered files; entries of a host keep the same.
pub(super) fn file_faults(path: &str, files: &[DeliveredFile]) -> Vec<Fault> {
    let names = files.iter().enumerate().map(|(index, file)| (format!("{path}[{index}]"), file.name.as_str()));
    let total: usize = files.iter().map(|DeliveredFile { name: _, content }| content.len()).sum();
    let large = (total > LARGEST_FILES).then(|| {
        let rule = format!("all files together hold at most {LARGEST_FILES} bytes");
        Fault::new(path, &format!("{total} bytes"), &rule, "shorten them or keep large files on the host")
    });
    let many = at_most(path, files.len(), MOST_FILES, "files");
    duplicates(names).into_iter().chain(large).chain(many).collect()
}

fn default_faults(defaults: &ServiceDefaults, known: &Known<'_>) -> Vec<Fault> {
    let ServiceDefaults { user: _, env_files, env, restart, rlimits } = defaults;
    let path = "spec.serviceDefaults";
    let mut faults = env_file_faults(path, env_files.as_deref().unwrap_or_default(), known);
    faults.extend(env_faults(path, env));
    faults.extend(user_restart_fault(path, restart.as_ref()));
    faults.extend(rlimit_faults(&format!("{path}.rlimits"), rlimits.as_ref()));
    faults
}

fn env_file_faults(path: &str, files: &[EnvFile], known: &Known<'_>) -> Vec<Fault> {
    let one = |(index, EnvFile { file, path: host_path }): (usize, &EnvFile)| {
        let path = format!("{path}.envFiles[{index}]");
        exactly_one(&path, &[("file", file.is_some()), ("path", host_path.is_some())]).or_else(|| {
            let name = file.as_ref()?;
            unknown_name(&format!("{path}.file"), name.as_str(), "file in spec.files", &known.files)
        })
    };
    let many = at_most(&format!("{path}.envFiles"), files.len(), 16, "environment files");
    files.iter().enumerate().filter_map(one).chain(many).collect()
}

fn env_faults(path: &str, env: &[EnvVariable]) -> Vec<Fault> {
    let names =
        env.iter().enumerate().map(|(index, variable)| (format!("{path}.env[{index}]"), variable.name.as_str()));
    let one = |(index, EnvVariable { name: _, value, value_from }): (usize, &EnvVariable)| {
        let path = format!("{path}.env[{index}]");
        exactly_one(&path, &[("value", value.is_some()), ("valueFrom", value_from.is_some())])
    };
    let many = at_most(&format!("{path}.env"), env.len(), 64, "environment variables");
    duplicates(names).into_iter().chain(env.iter().enumerate().filter_map(one)).chain(many).collect()
}

fn user_restart_fault(path: &str, restart: Option<&Restart>) -> Option<Fault> {
    let Restart { policy, delay } = restart?;
    restart_fault(&format!("{path}.restart"), (*policy)?, (*delay)?.get())
}

fn slice_faults(slices: &[Slice], known: &Known<'_>) -> Vec<Fault> {
    let path = |index: usize| format!("spec.slices[{index}]");
    let names = slices.iter().enumerate().map(|(index, slice)| (path(index), slice.name.as_str()));
    let mut faults = duplicates(names);
    if slices.is_empty() {
        faults.push(Fault::new("spec.slices", "[]", "at least one slice is needed", "add a slice"));
    }
    faults.extend(at_most("spec.slices", slices.len(), MOST_SLICES, "slices"));
    for (index, slice) in slices.iter().enumerate() {
        faults.extend(one_slice_faults(&path(index), slice, known));
    }
    faults.extend(order_faults(slices));
    faults
}

fn one_slice_faults(path: &str, slice: &Slice, known: &Known<'_>) -> Vec<Fault> {
    let Slice { name: _, priority: _, start_after, cpu: _, numa: _, memory: _, io, tasks, isolation: _ } = slice;
    let mut faults = request_faults(path, slice, &known.slices);
    let after = start_after.iter().enumerate().filter_map(|(index, after)| {
        unknown_name(&format!("{path}.startAfter[{index}]"), after.as_str(), "slice in this topology", &known.slices)
    });
    faults.extend(after);
    faults.extend(io_faults(&format!("{path}.io"), io.as_ref()));
    faults.extend(task_faults(&format!("{path}.tasks"), tasks.as_ref()));
    faults
}

fn order_faults(slices: &[Slice]) -> Vec<Fault> {
    let order: Order<'_> = slices
        .iter()
        .enumerate()
        .map(|(index, slice)| {
            let after = slice.start_after.iter().map(|name| name.as_str()).collect();
            (slice.name.as_str(), (format!("spec.slices[{index}].startAfter"), after))
        })
        .collect();
    cycles(&order, "the order runs in a circle")
}

fn service_faults(services: &[Service], known: &Known<'_>) -> Vec<Fault> {
    let path = |index: usize| format!("spec.services[{index}]");
    let names = services.iter().enumerate().map(|(index, service)| (path(index), service.name.as_str()));
    let mut faults = duplicates(names);
    faults.extend(at_most("spec.services", services.len(), MOST_SERVICES, "services"));
    for (index, service) in services.iter().enumerate() {
        faults.extend(one_service_faults(&path(index), service, known));
    }
    faults
}

fn one_service_faults(path: &str, service: &Service, known: &Known<'_>) -> Vec<Fault> {
    let Service {
        name: _,
        slice,
        command,
        user,
        working_directory: _,
        env_files,
        env,
        restart,
        memory,
        tasks,
        rlimits,
        on_change: _,
    } = service;
    let mut faults = command_faults(&format!("{path}.command"), command);
    faults.extend(unknown_name(&format!("{path}.slice"), slice.as_str(), "slice in this topology", &known.slices));
    if user.is_none() && !known.default_user {
        let rule = "a service needs a user";
        faults.push(Fault::new(&format!("{path}.user"), "", rule, "write user here or in spec.serviceDefaults"));
    }
    faults.extend(env_file_faults(path, env_files.as_deref().unwrap_or_default(), known));
    faults.extend(env_faults(path, env));
    faults.extend(user_restart_fault(path, restart.as_ref()));
    faults.extend(memory_faults(&format!("{path}.memory"), memory.as_ref()));
    faults.extend(task_faults(&format!("{path}.tasks"), tasks.as_ref()));
    faults.extend(rlimit_faults(&format!("{path}.rlimits"), rlimits.as_ref()));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, text: &str) -> Vec<String> {
        let spec: SliceTopologySpec = serde_yaml::from_str(text).expect("decodes");
        topology_faults(name, &spec).iter().map(Fault::to_string).collect()
    }

    /// A spec with these slices and services, one line each.
    fn with(slices: &[&str], services: &[&str]) -> String {
        format!(
            "{{ hostSelector: {{ matchLabels: {{ a: b }} }}, serviceDefaults: {{ user: app }}, slices: [{}], services: [{}] }}",
            slices.join(", "),
            services.join(", ")
        )
    }

    #[test]
    fn the_smallest_topology_is_without_fault() {
        assert_eq!(told("a", &with(&["{ name: a, cpu: { cores: 1 } }"], &[])), [""; 0]);
    }

    #[test]
    fn every_rule_tells_path_value_and_remedy() {
        let one = "{ name: a, cpu: { cores: 1 } }";
        let cases: [(&str, String, &str); 15] = [
            (
                "system",
                with(&[one], &[]),
                "metadata.name is `system`: `system` is a reserved slice and never managed; choose another name",
            ),
            (
                "a",
                with(&["{ name: a, cpu: {} }"], &[]),
                "spec.slices[0].cpu is `none`: exactly one of set, cores and cpus is needed; write set, cores or cpus",
            ),
            (
                "a",
                with(&["{ name: a, cpu: { set: '' } }"], &[]),
                "spec.slices[0].cpu.set is `\"\"`: an empty list would leave the slice unpinned; list at least one CPU, or write cores instead",
            ),
            (
                "a",
                with(&["{ name: a, cpu: { set: 0-3 } }", "{ name: b, cpu: { set: '2,9' } }"], &[]),
                "spec.slices[1].cpu.set is `2,9`: CPUs 2 are also named by spec.slices[0] (a), and exclusive; name other CPUs, or write isolation: Shared on both slices",
            ),
            (
                "a",
                with(
                    &[
                        "{ name: a, cpu: { cores: 1 }, startAfter: [b] }",
                        "{ name: b, cpu: { cores: 1 }, startAfter: [a] }",
                    ],
                    &[],
                ),
                "spec.slices[0].startAfter is `a > b > a`: the order runs in a circle; remove one of these references",
            ),
            (
                "a",
                with(&["{ name: a, cpu: { cores: 1 }, startAfter: [z] }"], &[]),
                "spec.slices[0].startAfter[0] is `z`: there is no such slice in this topology; name one of a, or add it",
            ),
            (
                "a",
                with(&["{ name: a, cpu: { cores: 1 }, numa: { near: [{ slice: a }] } }"], &[]),
                "spec.slices[0].numa.near[0].slice is `a`: a slice is no neighbour of itself; name another slice",
            ),
            (
                "a",
                with(&[one, one], &[]),
                "spec.slices[1] is `a`: the name is taken: spec.slices[0] bears it; choose another name or remove one of them",
            ),
            (
                "a",
                with(&["{ name: a, cpu: { cores: 1 }, memory: { max: 4Ki } }"], &[]),
                "spec.slices[0].memory.max is `4Ki`: a limit below 16Mi leaves no program alive; write 16Mi or more",
            ),
            (
                "a",
                with(&[one], &["{ name: s, slice: b, command: [/x] }"]),
                "spec.services[0].slice is `b`: there is no such slice in this topology; name one of a, or add it",
            ),
            (
                "a",
                with(&[one], &["{ name: s, slice: a, command: ['+/x'] }"]),
                "spec.services[0].command[0] is `+/x`: the program is an absolute path in canonical form, without a prefix such as + or !; write it like /opt/app/bin/server",
            ),
            (
                "a",
                with(&[one], &["{ name: s, slice: a, command: [/x], env: [{ name: A }] }"]),
                "spec.services[0].env[0] is `neither`: exactly one of value and valueFrom is needed; write value or valueFrom",
            ),
            (
                "a",
                with(&[one], &["{ name: s, slice: a, command: [/x], envFiles: [{ file: f }] }"]),
                "spec.services[0].envFiles[0].file is `f`: there is no such file in spec.files; add a file in spec.files of that name",
            ),
            (
                "a",
                with(&[one], &["{ name: s, slice: a, command: [/x], restart: { policy: Always, delay: 0s } }"]),
                "spec.services[0].restart.delay is `0s`: policy Always needs a delay of at least 1s; write 1s or more",
            ),
            (
                "ssh",
                with(&[one], &[]),
                "metadata.name is `ssh`: ssh.slice is a protected unit and never managed; choose another name",
            ),
        ];
        for (name, spec, sentence) in cases {
            assert_eq!(told(name, &spec), [sentence]);
        }
    }

    #[test]
    fn an_empty_selector_is_refused() {
        let text = "{ hostSelector: {}, slices: [{ name: a, cpu: { cores: 1 } }] }";
        assert!(told("a", text)[0].starts_with("spec.hostSelector is `{}`: an empty selector would match every host"));
    }

    #[test]
    fn shared_slices_may_name_the_same_cpus() {
        let shared = |name: &str| format!("{{ name: {name}, cpu: {{ set: 0-3 }}, isolation: Shared }}");
        assert_eq!(told("a", &with(&[&shared("a"), &shared("b")], &[])), [""; 0]);
    }

    #[test]
    fn a_service_without_a_user_is_refused() {
        let text = "{ hostSelector: { matchLabels: { a: b } }, slices: [{ name: a, cpu: { cores: 1 } }], services: [{ name: s, slice: a, command: [/x] }] }";
        assert_eq!(
            told("a", text),
            ["spec.services[0].user: a service needs a user; write user here or in spec.serviceDefaults"]
        );
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        for right in ["role", "lamina.dev/role", "A_b.c-d"] {
            assert!(is_label_key(right), "{right}");
        }
        for wrong in ["", "/role", "a/", "-a", "a b", "Upper.Case/x", "a/b/c"] {
            assert!(!is_label_key(wrong), "{wrong}");
        }
    }
}
