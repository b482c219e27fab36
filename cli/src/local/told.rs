//! Decides how an answer about this host is told to people: what was done or would be, the slices, one line at the end.

use super::answer::{Answer, SliceRow, StepClass, StepRow, TopologyRow, Verdict};
use crate::drawing::Colour;
use crate::plan::Plan;
use crate::plan_table;
use crate::table::{row, table};

/// The answer in words.
pub fn told(answer: &Answer, width: usize, colour: Colour) -> String {
    let is_ahead = matches!(answer.verdict, Verdict::WouldStay | Verdict::WouldChange | Verdict::WouldNotFollow);
    let parts = [
        not_selected(answer),
        if is_ahead { planned(answer, width, colour) } else { shortages(answer) },
        if is_ahead { steps(&answer.steps) } else { done(answer) },
        if is_ahead { String::new() } else { slices(&answer.slices) },
        topologies(&answer.topologies),
        format!("{}: {}\n", answer.host, answer.message),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n")
}

fn not_selected(answer: &Answer) -> String {
    let told = answer.not_selected.iter().map(|name| format!("{name}: its hostSelector does not mean these labels\n"));
    told.collect()
}

fn planned(answer: &Answer, width: usize, colour: Colour) -> String {
    let plan = answer.plan.clone().map(|plan| Plan::of(vec![plan]));
    plan.map(|plan| plan_table::told(&plan, width, colour)).unwrap_or_default()
}

/// What the placement gives less than was asked.
fn shortages(answer: &Answer) -> String {
    let fates = answer.plan.iter().flat_map(|plan| &plan.topologies);
    let told = fates.flat_map(|fate| {
        let name = &fate.topology;
        fate.degraded.iter().map(move |refusal| format!("{name}: {}: {}\n", refusal.reason.word(), refusal.message))
    });
    told.collect()
}

fn steps(steps: &[StepRow]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["CLASS", "OBJECT", "WOULD"])];
    let word = |class| match class {
        StepClass::Live => "live",
        StepClass::Reload => "reload",
        StepClass::Restart => "restart",
        StepClass::Recreate => "recreate",
    };
    rows.extend(steps.iter().map(|step| vec![word(step.class).to_owned(), step.object.clone(), step.deeds.join(", ")]));
    table(&rows)
}

fn done(answer: &Answer) -> String {
    if answer.done.is_empty() {
        return "nothing had to be done\n".to_owned();
    }
    let mut rows = vec![row(["OBJECT", "DONE"])];
    rows.extend(answer.done.iter().map(|(object, deeds)| vec![object.clone(), deeds.join(", ")]));
    table(&rows)
}

fn slices(slices: &[SliceRow]) -> String {
    if slices.is_empty() {
        return String::new();
    }
    let several = slices.iter().any(|slice| slice.topology != slices[0].topology);
    let mut rows = vec![row(["SLICE", "ASKED", "PROPERTY", "KERNEL", "THREADS"])];
    rows.extend(slices.iter().map(|slice| slice_row(slice, several)));
    table(&rows)
}

fn slice_row(slice: &SliceRow, several: bool) -> Vec<String> {
    let SliceRow { topology: _, slice: name, unit, asked, property, kernel, threads, outside } = slice;
    let name = if several { unit.stem() } else { name };
    let shown = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let threads = match outside.is_empty() {
        true => format!("{threads} in"),
        false => format!("{threads}, some may run on {outside}"),
    };
    vec![name.to_owned(), asked.clone(), shown(property.clone()), shown(kernel.to_string()), threads]
}

fn topologies(topologies: &[TopologyRow]) -> String {
    let unready = topologies.iter().filter(|topology| !topology.ready);
    unready.map(|topology| format!("{}: {}: {}\n", topology.name, topology.reason, topology.message)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lamina_crds::{TopologyName, UnitName};

    use super::*;

    fn answer() -> Answer {
        let slice = |name: &str, cpus: &str, outside: &str| SliceRow {
            topology: TopologyName::new("web").expect("legal"),
            slice: name.to_owned(),
            unit: UnitName::new(format!("web-{name}.slice")).expect("legal"),
            asked: "4 cores".to_owned(),
            property: cpus.to_owned(),
            kernel: cpus.parse().expect("a list"),
            threads: 12,
            outside: outside.parse().expect("a list"),
        };
        Answer {
            api_version: "lamina.dev/v1alpha1",
            kind: "LocalRun",
            host: "host-7".to_owned(),
            verdict: Verdict::NotAsAsked,
            message: "1 of 2 topologies is as asked".to_owned(),
            not_selected: Vec::new(),
            plan: None,
            steps: Vec::new(),
            done: BTreeMap::from([("web-front.slice".to_owned(), vec!["written".to_owned(), "started".to_owned()])]),
            slices: vec![slice("front", "0-3", ""), slice("back", "4-7", "9")],
            topologies: vec![TopologyRow {
                name: "web".to_owned(),
                ready: false,
                reason: "NotVerified".to_owned(),
                message: "a thread strays".to_owned(),
            }],
        }
    }

    #[test]
    fn a_run_is_told_by_what_was_done_and_what_is_measured() {
        let expected = "OBJECT           DONE\n\
                        web-front.slice  written, started\n\
                        \n\
                        SLICE  ASKED    PROPERTY  KERNEL  THREADS\n\
                        front  4 cores  0-3       0-3     12 in\n\
                        back   4 cores  4-7       4-7     12, some may run on 9\n\
                        \n\
                        web: NotVerified: a thread strays\n\
                        \n\
                        host-7: 1 of 2 topologies is as asked\n";
        assert_eq!(told(&answer(), 80, Colour::None), expected);
    }

    #[test]
    fn a_run_with_nothing_to_do_says_so() {
        let idle = Answer { done: BTreeMap::new(), slices: Vec::new(), topologies: Vec::new(), ..answer() };
        assert!(told(&idle, 80, Colour::None).starts_with("nothing had to be done\n"));
    }

    #[test]
    fn a_look_ahead_tells_classes() {
        let row = |object: &str, class, deed: &str| StepRow {
            object: object.to_owned(),
            class,
            deeds: vec![deed.to_owned()],
        };
        let steps =
            vec![row("web-a.service", StepClass::Restart, "restart"), row("systemd", StepClass::Reload, "reload")];
        let ahead = Answer { verdict: Verdict::WouldChange, steps, topologies: Vec::new(), ..answer() };
        let text = told(&ahead, 80, Colour::None);
        assert!(text.starts_with("CLASS    OBJECT         WOULD\nrestart  web-a.service  restart\n"), "{text}");
        assert!(!text.contains("DONE"), "{text}");
    }
}
