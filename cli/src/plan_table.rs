//! Decides how a plan is told to people: a line for each slice, what it lacks, and one line for all.

use lamina_operator::view::Refusal;

use crate::drawing::{Colour, Ink, counted, inked};
use crate::plan::{Change, Counted, Fate, HostPlan, Plan, SlicePlan, Status};
use crate::settings::{Effect, Setting, shown};
use crate::table::{paragraph, row, table};

/// The plan in words.
pub fn told(plan: &Plan, width: usize, colour: Colour) -> String {
    let mut rows = vec![row(["HOST", "STATUS", "SLICE", "GETS", "MEMORY", "CHANGE", "CPUS"])];
    let topologies: std::collections::BTreeSet<_> =
        plan.hosts.iter().flat_map(|host| &host.slices).map(|slice| &slice.topology).collect();
    for host in &plan.hosts {
        for slice in &host.slices {
            rows.push(slice_row(host, slice, topologies.len() > 1));
        }
    }
    let notes: String = plan.hosts.iter().map(|host| notes(host, width, colour)).collect();
    let rows = if rows.len() > 1 { table(&rows) } else { String::new() };
    let parts = [rows, notes, format!("{}\n", conclusion(plan))];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n")
}

fn slice_row(host: &HostPlan, slice: &SlicePlan, several: bool) -> Vec<String> {
    let name = if several { slice.unit.stem() } else { &slice.slice };
    let memory = slice.memory_nodes.as_ref().map_or_else(|| "-".to_owned(), |nodes| format!("node {nodes}"));
    let cpus = if slice.change == Change::Removed { "-".to_owned() } else { slice.cpus.to_string() };
    vec![host.host.clone(), word(host.status), name.to_owned(), gets(slice), memory, change(slice), cpus]
}

fn word(status: Status) -> String {
    match status {
        Status::Optimal => "Optimal",
        Status::Feasible => "Feasible",
        Status::Infeasible => "Infeasible",
    }
    .to_owned()
}

fn gets(slice: &SlicePlan) -> String {
    let (one, several) = match slice.counted {
        Counted::Cores => ("core", "cores"),
        Counted::Cpus => ("CPU", "CPUs"),
    };
    match (slice.change, slice.got == slice.asked) {
        (Change::Removed, _) => "-".to_owned(),
        (_, true) => counted(slice.got as usize, one, several),
        (_, false) => format!("{} of {}", slice.got, counted(slice.asked as usize, one, several)),
    }
}

fn change(slice: &SlicePlan) -> String {
    match slice.change {
        Change::New => "new".to_owned(),
        Change::Same => "none".to_owned(),
        Change::Removed => format!("removed, frees {}", slice.lost),
        Change::Moved => {
            let parts = [("gains", &slice.gained), ("leaves", &slice.lost)];
            let parts = parts.into_iter().filter(|(_, cpus)| !cpus.is_empty());
            let words: Vec<String> = parts.map(|(verb, cpus)| format!("{verb} {cpus}")).collect();
            if words.is_empty() { "memory moves".to_owned() } else { words.join(", ") }
        }
    }
}

/// What else changes on a host, what its slices lack, and what it refuses.
fn notes(host: &HostPlan, width: usize, colour: Colour) -> String {
    let mut lines = String::new();
    for told in settings_told(&host.settings) {
        lines.push_str(&paragraph(&format!("{}  {told}", host.host), width));
    }
    for Fate { topology, refused, degraded } in &host.topologies {
        for Refusal { reason, message } in degraded {
            lines.push_str(&paragraph(&format!("{}  {topology}: {}: {message}", host.host, reason.word()), width));
        }
        if let Some(Refusal { reason, message }) = refused {
            // The operator's message begins with the host, as here.
            let message = message.strip_prefix(&format!("{}: ", host.host)).unwrap_or(message);
            let text = paragraph(&format!("{}  {topology}: {}: {message}", host.host, reason.word()), width);
            lines.push_str(&inked(colour, Ink::Bold, text.trim_end()));
            lines.push('\n');
        }
    }
    if let Some(gap) = &host.gap {
        lines.push_str(&paragraph(&format!("{}  not proven to be the best: at most {gap} from it", host.host), width));
    }
    lines
}

/// One line for each setting, one for all starts and one for all stops.
fn settings_told(settings: &[Setting]) -> Vec<String> {
    let mut told: Vec<String> = settings.iter().filter_map(setting_told).collect();
    for (effect, words) in [(Effect::Start, "starts"), (Effect::Stop, "stops and removes")] {
        let such = settings.iter().filter(|setting| setting.effect == effect);
        let objects: Vec<&str> = such.map(|setting| setting.object.as_str()).collect();
        if !objects.is_empty() {
            told.push(format!("{words} {}", objects.join(", ")));
        }
    }
    told
}

fn setting_told(setting: &Setting) -> Option<String> {
    let Setting { object, field, from, to, effect } = setting;
    let effect = match effect {
        Effect::Live => "live, no restart",
        Effect::Restart => "restarts what reads it",
        Effect::Pending => "waits for a restart",
        Effect::NextStart => "from the next start on",
        Effect::Start | Effect::Stop => return None,
    };
    let value = |text: &str| if text.is_empty() { "nothing".to_owned() } else { shown(text) };
    let field = if field.is_empty() { String::new() } else { format!(" {field}") };
    Some(format!("{object}:{field} {} -> {} ({effect})", value(from), value(to)))
}

fn conclusion(plan: &Plan) -> String {
    let count = |such: fn(&HostPlan) -> bool| plan.hosts.iter().filter(|host| such(host)).count();
    let refused = count(HostPlan::is_refused);
    let changed = count(|host| !host.is_refused() && host.changes());
    let same = count(|host| !host.is_refused() && !host.changes());
    let degraded = count(|host| host.topologies.iter().any(|topology| !topology.degraded.is_empty()));
    let parts = [
        (changed, "host changes", "hosts change"),
        (same, "host stays as it is", "hosts stay as they are"),
        (refused, "host cannot follow", "hosts cannot follow"),
        (degraded, "host is degraded", "hosts are degraded"),
    ];
    let parts = parts.into_iter().filter(|(count, _, _)| *count > 0);
    parts.map(|(count, one, several)| counted(count, one, several)).collect::<Vec<_>>().join(", ")
}
