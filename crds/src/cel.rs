//! Decides which rules the API server itself judges: CEL for the schemas, in the words of [`crate::rules`].
//!
//! What CEL cannot judge within the server's cost (backward ranges, overlaps, circles, sizes in bytes), operator and agent refuse
//! in the same words.

use std::collections::BTreeSet;

use kube::core::{Message, Rule};

use crate::names::{
    DeviceName, FileName, LONGEST_TOPOLOGY, PROTECTED, PROTECTED_PREFIXES, RESERVED_TOPOLOGIES, ServiceName, SliceName,
    TOPOLOGY_PATTERN, UserName,
};
use crate::rules::{self, LARGEST_FILES};
use crate::text::{EnvName, PATH_PATTERN};
use crate::{bytes, id_set, seconds};

/// The name of a topology becomes the first part of unit names.
pub fn topology_name() -> Rule {
    said(
        format!("size(self.metadata.name) <= {LONGEST_TOPOLOGY} && self.metadata.name.matches('{TOPOLOGY_PATTERN}')"),
        "metadata.name is `%s`: use a to z, 0 to 9 and inner dashes, starting with a letter, at most 63 characters; choose another name",
        &["self.metadata.name"],
    )
}

/// Some names would become parts of systemd's own slices, or protected units.
pub fn topology_name_is_free() -> Rule {
    let single = PROTECTED.iter().filter(|name| !name.contains('-'));
    let names: BTreeSet<&str> = RESERVED_TOPOLOGIES.iter().chain(single).chain(&PROTECTED_PREFIXES).copied().collect();
    let names: Vec<&str> = names.into_iter().collect();
    said(
        format!("!(self.metadata.name in ['{}'])", names.join("', '")),
        "metadata.name is `%s`: its units would be reserved or protected ones, which are never managed; choose another name",
        &["self.metadata.name"],
    )
}

/// A selector that names nothing would match every host.
pub fn selector_is_not_empty() -> Rule {
    said(
        "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
        "`{}`: an empty selector would match every host; name at least one label in matchLabels or matchExpressions",
        &[],
    )
}

/// Labels have Kubernetes' keys.
pub fn label_keys() -> Rule {
    let wrong = "format.qualifiedName().validate(key).hasValue()";
    said(
        format!("self.all(key, !{wrong})"),
        "`%s`: this is not a label key; write it like lamina.dev/role",
        &[&format!("self.filter(key, {wrong})[0]")],
    )
}

/// In and NotIn need values, Exists and DoesNotExist take none.
pub fn label_expression() -> Rule {
    said(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "operator `%s` has %d values: In and NotIn need values, Exists and DoesNotExist take none; add or remove values",
        &["self.operator", "has(self.values) ? size(self.values) : 0"],
    )
}

/// Exactly one of two or three fields.
pub fn exactly_one(names: &[&str]) -> Rule {
    let written: Vec<String> = names.iter().map(|name| format!("has(self.{name})")).collect();
    let (several, none) = rules::how_many(names.len());
    // In the cheapest form: the server counts these for every entry of every list.
    let rule = match written.as_slice() {
        [first, second] => format!("{first} != {second}"),
        more => format!("{} == 1", more.iter().map(|one| format!("({one} ? 1 : 0)")).collect::<Vec<_>>().join(" + ")),
    };
    said(
        rule,
        &format!(
            "`%s`: exactly one of {} is needed; write {}",
            rules::listed(names, "and"),
            rules::listed(names, "or")
        ),
        &[&format!("({}) ? '{several}' : '{none}'", written.join(" || "))],
    )
}

/// A field that means something only beside one of others.
pub fn only_with(name: &str, others: &[&str]) -> Rule {
    let beside: Vec<String> = others.iter().map(|other| format!("has(self.{other})")).collect();
    let others = rules::listed(others, "or");
    said(
        format!("!has(self.{name}) || {}", beside.join(" || ")),
        &format!("`%s`: {name} goes with {others} only; remove {name}, or write {others}"),
        &[&format!("self.{name}")],
    )
    .field_path(format!(".{name}"))
}

/// The fewest that a slice accepts is not more than it wants.
pub fn fewest_is_at_most_the_wish() -> Rule {
    let wish = "(has(self.cores) ? self.cores : self.cpus)";
    said(
        "!has(self.min) || ((!has(self.cores) || self.min <= self.cores) && (!has(self.cpus) || self.min <= self.cpus))",
        "`%d`: min is at most the wish, which is %d; write %d or less",
        &["self.min", wish, wish],
    )
    .field_path(".min")
}

/// Idle siblings belong to whole cores.
pub fn idle_siblings_need_cores() -> Rule {
    said(
        "!has(self.siblings) || self.siblings != 'Idle' || has(self.cores)",
        "`%s`: Idle goes with cores only; remove siblings, or write cores",
        &["self.siblings"],
    )
    .field_path(".siblings")
}

/// Memory nodes are listed exactly where nodesFrom says so.
pub fn listed_memory_nodes() -> Rule {
    said(
        "has(self.nodes) == (has(self.nodesFrom) && self.nodesFrom == 'List')",
        "`nodes %s, nodesFrom %s`: nodes and nodesFrom List go together; write both or neither",
        &["has(self.nodes) ? self.nodes : '-'", "has(self.nodesFrom) ? self.nodesFrom : '-'"],
    )
}

/// min <= low <= high <= max, among those that are written.
pub fn memory_order() -> Rule {
    let names = ["min", "low", "high", "max"];
    let pairs = names.iter().enumerate().flat_map(|(index, lower)| {
        names.iter().skip(index + 1).map(move |upper| {
            format!(
                "(!has(self.{lower}) || !has(self.{upper}) || !isQuantity(self.{lower}) || !isQuantity(self.{upper}) || quantity(self.{lower}).compareTo(quantity(self.{upper})) <= 0)"
            )
        })
    });
    let values = names.map(|name| format!("has(self.{name}) ? self.{name} : '-'"));
    said(
        pairs.collect::<Vec<_>>().join(" && "),
        "`min %s, low %s, high %s, max %s`: need min <= low <= high <= max; raise what limits, or lower what protects",
        &values.each_ref().map(String::as_str),
    )
}

/// The least that a memory limit may leave.
pub fn memory_floor() -> Rule {
    said(
        "!isQuantity(self) || quantity(self).compareTo(quantity('16Mi')) >= 0",
        "a limit below 16Mi leaves no program alive; write 16Mi or more",
        &[],
    )
}

/// A service that is always started again needs a pause.
pub fn restart_delay() -> Rule {
    let rule = "!has(self.policy) || self.policy != 'Always' || !has(self.delay) || !self.delay.matches('^0+[smh]$')";
    said(rule, "`%s`: policy Always needs a delay of at least 1s; write 1s or more", &["self.delay"])
        .field_path(".delay")
}

/// What a deposed operator still sends comes too late.
pub fn term_never_falls() -> Rule {
    let term = |of: &str| format!("(has({of}.term) ? {of}.term : 0)");
    let (new, old) = (term("self"), term("oldSelf"));
    said(format!("{new} >= {old}"), &format!("`%d`: {}", rules::term_rule("%d")), &[&new, &old]).field_path(".term")
}

/// root never runs services.
pub fn not_root() -> Rule {
    said("self != 'root'", "root may not run services; name an unprivileged user of the host", &[])
}

/// The program of a command.
pub fn program() -> Rule {
    said(
        format!("self[0].matches(r'{PATH_PATTERN}')"),
        "[0] is `%s`: the program is an absolute path in canonical form, without a prefix such as + or !; write it like /opt/app/bin/server",
        &["self[0]"],
    )
}

/// The program of a command where the server cannot afford more: many entries, written by the operator only.
pub fn absolute_program() -> Rule {
    said(
        "self[0].startsWith('/')",
        "[0] is `%s`: the program is an absolute path; write it like /opt/app/bin/server",
        &["self[0]"],
    )
}

/// A list that pins must name something.
pub fn list_is_not_empty() -> Rule {
    said("self != ''", "an empty list would leave the slice unpinned; list at least one number", &[])
}

/// A list that chooses must name something.
pub fn choice_is_not_empty() -> Rule {
    said("self != ''", "an empty list names nothing; list at least one number, or remove the field", &[])
}

/// A slice does not start after itself.
pub fn not_after_itself() -> Rule {
    said(
        "!has(self.startAfter) || !(self.name in self.startAfter)",
        "`%s > %s`: the order runs in a circle; remove this reference to the slice itself",
        &["self.name", "self.name"],
    )
    .field_path(".startAfter")
}

/// A slice is no neighbour of itself.
pub fn not_own_neighbour(list: &str) -> Rule {
    said(
        format!("!has(self.numa) || !has(self.numa.{list}) || self.numa.{list}.all(other, other.slice != self.name)"),
        "`%s`: a slice is no neighbour of itself; name another slice",
        &["self.name"],
    )
    .field_path(format!(".numa.{list}"))
}

/// A slice does not run inside itself.
pub fn not_shared_with_itself() -> Rule {
    said(
        "!has(self.cpu.shareWith) || self.cpu.shareWith != self.name",
        "`%s > %s`: sharing runs in a circle; remove this reference to the slice itself",
        &["self.name", "self.name"],
    )
    .field_path(".cpu.shareWith")
}

/// shareWith names slices of the same topology.
pub fn sharers_name_slices() -> Rule {
    let known = "self.slices.exists(x, x.name == s.cpu.shareWith)";
    let wrong = format!("self.slices.filter(s, has(s.cpu.shareWith) && !{known})[0]");
    said(
        format!("self.slices.all(s, !has(s.cpu.shareWith) || {known})"),
        "cpu.shareWith of slice `%s` is `%s`: there is no such slice in this topology; name one of spec.slices, or add it",
        &[&format!("{wrong}.name"), &format!("{wrong}.cpu.shareWith")],
    )
    .field_path(".slices")
}

/// Services run in slices of the same topology.
pub fn services_name_slices() -> Rule {
    let wrong = "self.services.filter(s, !self.slices.exists(x, x.name == s.slice))[0]";
    said(
        "!has(self.services) || self.services.all(s, self.slices.exists(x, x.name == s.slice))",
        "service `%s` has slice `%s`: there is no such slice in this topology; name one of spec.slices, or add it",
        &[&format!("{wrong}.name"), &format!("{wrong}.slice")],
    )
    .field_path(".services")
}

/// startAfter names slices of the same topology.
pub fn order_names_slices() -> Rule {
    let known = "self.slices.exists(x, x.name == a)";
    let wrong = format!("self.slices.filter(s, has(s.startAfter) && s.startAfter.exists(a, !{known}))[0]");
    said(
        format!("self.slices.all(s, !has(s.startAfter) || s.startAfter.all(a, {known}))"),
        "startAfter of slice `%s` is `%s`: one of them is no slice in this topology; name slices of spec.slices, or add them",
        &[&format!("{wrong}.name"), &format!("{wrong}.startAfter")],
    )
    .field_path(".slices")
}

/// near and apart name slices of the same topology.
pub fn neighbours_are_slices(list: &str) -> Rule {
    let known = "self.slices.exists(x, x.name == n.slice)";
    let there = format!("has(s.numa) && has(s.numa.{list})");
    let wrong = format!("self.slices.filter(s, {there} && s.numa.{list}.exists(n, !{known}))[0]");
    said(
        format!("self.slices.all(s, !({there}) || s.numa.{list}.all(n, {known}))"),
        &format!(
            "numa.{list} of slice `%s` is `%s`: one of them is no slice in this topology; name slices of spec.slices, or add them"
        ),
        &[&format!("{wrong}.name"), &format!("{wrong}.numa.{list}")],
    )
    .field_path(".slices")
}

/// Every service has a user.
pub fn services_have_users() -> Rule {
    let by_default = "has(self.serviceDefaults) && has(self.serviceDefaults.user)";
    said(
        format!("({by_default}) || !has(self.services) || self.services.all(s, has(s.user))"),
        "service `%s` has no user: a service needs a user; write user there or in spec.serviceDefaults",
        &["self.services.filter(s, !has(s.user))[0].name"],
    )
    .field_path(".services")
}

/// envFiles of services name delivered files.
pub fn env_files_are_delivered() -> Rule {
    let missing = format!("has(e.file) && !{DELIVERED}");
    let wrong = format!("self.services.filter(s, has(s.envFiles) && s.envFiles.exists(e, {missing}))[0]");
    said(
        format!("!has(self.services) || self.services.all(s, !has(s.envFiles) || !s.envFiles.exists(e, {missing}))"),
        "envFiles of service `%s` are `%s`: one of them is not in spec.files; add it or correct the name",
        &[&format!("{wrong}.name"), &format!("{wrong}.envFiles")],
    )
    .field_path(".services")
}

/// envFiles of the defaults name delivered files.
pub fn default_env_files_are_delivered() -> Rule {
    let files = "self.serviceDefaults.envFiles";
    let missing = format!("has(e.file) && !{DELIVERED}");
    said(
        format!("!has(self.serviceDefaults) || !has({files}) || !{files}.exists(e, {missing})"),
        "`%s`: there is no such file in spec.files; add it or correct the name",
        &[&format!("{files}.filter(e, {missing})[0].file")],
    )
    .field_path(".serviceDefaults.envFiles")
}

/// Whether the file `e` names is delivered.
const DELIVERED: &str = "(has(self.files) && self.files.exists(f, f.name == e.file))";

/// All files together are small enough for every HostState that carries them.
pub fn files_are_small() -> Rule {
    let total = "self.files.map(f, size(f.content)).sum()";
    said(
        format!("!has(self.files) || {total} <= {LARGEST_FILES}"),
        &format!(
            "`%d bytes`: all files together hold at most {LARGEST_FILES} bytes; shorten them or keep large files on the host"
        ),
        &[total],
    )
    .field_path(".files")
}

/// No argument holds a line break; the pattern of arguments refuses more, and says less. The server drops messages that
/// hold a line break themselves, so this one does not repeat the value.
pub fn arguments_are_one_line() -> Rule {
    said(r"!self.exists(a, a.contains('\n'))", "a line break is not allowed in an argument; remove it", &[])
}

/// What a pattern of the schema means, in words: the schema alone would only show the pattern.
pub fn words_of(pattern: &str) -> Option<Rule> {
    let name = |pattern: &str| format!("self.matches(r'{pattern}')");
    let (rule, words) = match pattern {
        SliceName::PATTERN => (
            name(pattern),
            "use a to z and 0 to 9 only, starting with a letter (a dash would nest slices); choose another name",
        ),
        ServiceName::PATTERN => (
            name(pattern),
            "use a to z, 0 to 9 and inner dashes, starting with a letter, without a suffix; choose another name",
        ),
        UserName::PATTERN => {
            (name(pattern), "use a to z, 0 to 9, underscore and dash, starting with a letter; name a user of the host")
        }
        FileName::PATTERN => {
            (name(pattern), "use letters, digits and inner dots, dashes and underscores; choose another name")
        }
        // The same as the type's own pattern, in the fewest characters: the server counts them.
        EnvName::PATTERN => (
            name(r"^[A-Za-z_]\w*$"),
            "use letters, digits and underscores, not starting with a digit; choose another name",
        ),
        // The pattern is more than the server affords for so many paths; these are the usual mistakes.
        PATH_PATTERN => (
            "self.startsWith('/') && !self.contains('//') && !self.contains('/../') && !self.contains('*')".to_owned(),
            "an absolute path in canonical form is needed; write it like /opt/app/etc/site.env",
        ),
        DeviceName::PATTERN => (
            name(pattern),
            "write a PCI address or the name of a network or block device, such as 0000:3b:00.0, eth0 or nvme0n1; choose another name",
        ),
        id_set::PATTERN => (name(pattern), "this is not a list of numbers and ranges; write it like 0-7,16"),
        bytes::PATTERN => {
            (name(pattern), "this is not a memory quantity; write a number with one of Ki, Mi, Gi, Ti, such as 4Gi")
        }
        seconds::PATTERN => {
            (name(pattern), "this is not a span of time; write a whole number with s, m or h, such as 5s")
        }
        _ => return None,
    };
    Some(said(rule, words, &[]))
}

/// A rule whose message is filled with values. The server cannot bound the length of joined texts and refuses `+`
/// with them; `format` it accepts.
fn said(rule: impl Into<String>, template: &str, values: &[&str]) -> Rule {
    let message = match values {
        [] => Message::Message(template.to_owned()),
        values => Message::Expression(format!("'{template}'.format([{}])", values.join(", "))),
    };
    Rule::new(rule).message(message)
}
