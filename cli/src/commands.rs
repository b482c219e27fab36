//! Conducts each verb: reads what is named, lets it be decided, writes the answer.

#![expect(clippy::disallowed_methods, reason = "it tells how long placing takes")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lamina_crds::host_state::SliceEntry;
use lamina_crds::{Hardware, TopologyEntry, TopologyName, UnitName};
use serde::Serialize;

use crate::arguments::{
    Arguments, Format, HardwareArguments, ImportArguments, MapArguments, PlaceArguments, PlanArguments, ThemeChoice,
    Verb,
};
use crate::document::{Host, bare_entry, bare_slice};
use crate::drawing::{self, Colour, DrawnSlice, Subject, Theme};
use crate::formatted::formatted;
use crate::import::{self, Wishes};
use crate::outcome::Outcome;
use crate::plan::{Change, Entries, HostPlan, Plan, current_of, own_name, plan};
use crate::terminal::{Reader, print};
use crate::{completion, import_table, inventory, jsonl, manual, plan_table, source, table, terminal};

/// The widest SVG drawing in pixels, unless somebody says otherwise.
const DRAWING_WIDTH: usize = 1280;

/// Does what the command line says.
///
/// # Errors
/// Names what could not be read or understood.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let Arguments { verb, color } = arguments;
    let colour = terminal::colour(*color);
    match verb {
        Verb::Hardware(arguments) => hardware(arguments),
        Verb::Plan(arguments) => plan_hosts(arguments, colour),
        Verb::Place(arguments) => place(arguments),
        Verb::Map(arguments) => map(arguments, colour),
        Verb::Import(arguments) => import(arguments),
        Verb::Status(arguments) => crate::status::run(arguments, colour),
        Verb::Verify(arguments) => crate::verify::run(arguments, colour),
        Verb::Top(arguments) => crate::top::run(arguments),
        Verb::Completion(arguments) => told(&completion::script(arguments.shell)),
        Verb::Manual(arguments) => told(&manual::page(arguments.verb.as_deref()).map_err(anyhow::Error::msg)?),
        Verb::Complete(arguments) => told(&completion::candidates(&arguments.words)),
        #[cfg(all(feature = "local", target_os = "linux"))]
        Verb::Local(arguments) => crate::local::run(arguments, colour),
    }
}

fn told(text: &str) -> Result<Outcome> {
    print(text).context("write the answer")?;
    Ok(Outcome::Done)
}

fn hardware(HardwareArguments { path, output }: &HardwareArguments) -> Result<Outcome> {
    let machines = source::machines(path.as_deref())?;
    let text = match (output, machines.as_slice()) {
        (Format::Table, machines) => {
            let told: Vec<String> =
                machines.iter().map(|(host, hardware)| inventory::told(&host.name, hardware)).collect();
            told.join("\n")
        }
        (format, [(_, only)]) => formatted(*format, only)?,
        (format, several) => formatted(*format, &several.iter().map(|(_, hardware)| hardware).collect::<Vec<_>>())?,
    };
    print(&text).context("write the answer")?;
    Ok(Outcome::Done)
}

fn plan_hosts(arguments: &PlanArguments, colour: Colour) -> Result<Outcome> {
    let PlanArguments { topologies, hardware, current, output } = arguments;
    let topologies = source::topologies(topologies)?;
    let mut machines = Vec::new();
    for path in hardware {
        machines.extend(source::machines(Some(path))?);
    }
    for (index, (host, _)) in machines.iter().enumerate() {
        if machines.iter().take(index).any(|(other, _)| other.name == host.name) {
            bail!("--hardware: two machines are called {}; name files or trees apart", host.name);
        }
    }
    let current = current.as_deref().map(|path| source::hosts(Some(path))).transpose()?;
    let one = |(host, hardware): &(Host, Hardware)| {
        let current = current_of(host, machines.len(), current.as_deref());
        let present = current.map(|current| current.entries.clone()).unwrap_or_default();
        plan(&host.name, hardware, &topologies, &present)
    };
    let plan = Plan::of(machines.iter().map(one).collect());
    let text = match output {
        Format::Table => plan_table::told(&plan, terminal::width(), colour),
        format => formatted(*format, &plan)?,
    };
    print(&text).context("write the answer")?;
    Ok(concluded(&plan.hosts))
}

fn concluded(hosts: &[HostPlan]) -> Outcome {
    match hosts {
        hosts if hosts.iter().any(HostPlan::is_refused) => Outcome::Incomplete,
        hosts if hosts.iter().any(HostPlan::changes) => Outcome::Changes,
        _ => Outcome::Done,
    }
}

fn place(PlaceArguments { jsonl, path, output }: &PlaceArguments) -> Result<Outcome> {
    let reader: Box<dyn Read> = match path.as_deref() {
        Some(path) if path != Path::new("-") => {
            Box::new(std::fs::File::open(path).with_context(|| format!("read {}", path.display()))?)
        }
        Some(_) | None => Box::new(std::io::stdin()),
    };
    let mut outcome = Outcome::Done;
    let mut answers = Vec::new();
    for (index, line) in BufReader::new(reader).split(b'\n').enumerate() {
        let line = line.context("read a line")?;
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            continue;
        }
        let answer = answered(index + 1, &line);
        if answer.is_err() {
            outcome = Outcome::Incomplete;
        }
        if *jsonl {
            let text = match &answer {
                Ok(answer) => serde_json::to_string(answer),
                Err(bad) => serde_json::to_string(bad),
            };
            if print(&(text.context("write down an answer")? + "\n")).context("write an answer")? == Reader::Left {
                return Ok(outcome);
            }
        } else {
            answers.push((index + 1, answer));
        }
    }
    if !*jsonl {
        print(&together(*output, &answers)?).context("write the answers")?;
    }
    Ok(outcome)
}

fn answered(number: usize, line: &str) -> Result<jsonl::Answer, Box<jsonl::BadLine>> {
    let instance = jsonl::read(number, line)?;
    let start = Instant::now();
    let placed = instance.place();
    let nanoseconds = start.elapsed().as_nanos();
    Ok(instance.answer(placed, nanoseconds as f64 / 1000.0))
}

type Answered = (usize, Result<jsonl::Answer, Box<jsonl::BadLine>>);

fn together(format: Format, answers: &[Answered]) -> Result<String> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Either<'a> {
        Answer(&'a jsonl::Answer),
        Bad(&'a jsonl::BadLine),
    }
    if format == Format::Table {
        return Ok(answers_told(answers));
    }
    let all = answers.iter().map(|(_, answer)| match answer {
        Ok(answer) => Either::Answer(answer),
        Err(bad) => Either::Bad(bad),
    });
    formatted(format, &all.collect::<Vec<_>>())
}

fn answers_told(answers: &[Answered]) -> String {
    let mut rows = vec![table::row(["LINE", "STATUS", "TIME", "SLICE", "CPUS"])];
    for (number, answer) in answers {
        match answer {
            Err(bad) => {
                rows.push(vec![number.to_string(), "Error".into(), "-".into(), "-".into(), bad.error.message.clone()])
            }
            Ok(answer) => {
                let time = format!("{:.1} us", answer.microseconds);
                let head = [number.to_string(), format!("{:?}", answer.status), time];
                let with = |rest: Vec<String>| head.iter().cloned().chain(rest).collect();
                rows.extend(answer.message.iter().map(|message| with(vec!["-".into(), message.clone()])));
                let slices = answer.cpus.iter();
                rows.extend(slices.map(|(name, cpus)| with(vec![name.clone(), cpus.to_string()])));
            }
        }
    }
    table::table(&rows)
}

fn map(arguments: &MapArguments, colour: Colour) -> Result<Outcome> {
    let MapArguments { path, topologies, placement, svg, theme, width, output } = arguments;
    let machines = source::machines(path.as_deref())?;
    let topologies = if topologies.is_empty() { None } else { Some(source::topologies(topologies)?) };
    let placement = placement.as_deref().map(|path| source::hosts(Some(path))).transpose()?;
    if *svg && machines.len() > 1 {
        bail!("--svg: {} machines are given, and a drawing holds one; give one of them", machines.len());
    }
    let mut outcome = Outcome::Done;
    let mut texts = Vec::new();
    for (host, hardware) in &machines {
        let current = current_of(host, machines.len(), placement.as_deref()).cloned().unwrap_or_default();
        let (slices, housekeeping) = match &topologies {
            None => (drawn(&current.entries), current.housekeeping),
            Some(topologies) => {
                let plan = plan(&host.name, hardware, topologies, &current.entries);
                if plan.is_refused() {
                    outcome = Outcome::Incomplete;
                }
                for fate in &plan.topologies {
                    fate.refused.iter().for_each(|refusal| eprintln!("{}: {}", fate.topology, refusal.message));
                }
                (drawn(&planned(&plan, current.entries)), plan.housekeeping)
            }
        };
        let subject = Subject { name: host.name.clone(), hardware, slices, housekeeping };
        texts.push(match (output, svg) {
            (Format::Table, false) => drawing::text(&subject, width.unwrap_or_else(terminal::width), colour),
            (Format::Table, true) => drawing::svg(&subject, width.unwrap_or(DRAWING_WIDTH), theme_of(*theme)),
            (format, _) => formatted(*format, &drawing::uses(&subject))?,
        });
    }
    print(&texts.join("\n")).context("write the drawing")?;
    Ok(outcome)
}

/// Where slices are once the plan is carried out: those it places, in its order, and those it leaves alone.
fn planned(plan: &HostPlan, mut entries: Entries) -> Entries {
    let placed: BTreeSet<&TopologyName> = plan.slices.iter().map(|slice| &slice.topology).collect();
    entries.retain(|name, _| !placed.contains(name));
    for slice in plan.slices.iter().filter(|slice| slice.change != Change::Removed) {
        let name = slice.topology.clone();
        let entry = entries.entry(name.clone()).or_insert_with(|| bare_entry(name));
        entry.slices.push(bare_slice(slice.unit.clone(), slice.cpus.clone(), slice.memory_nodes.clone()));
    }
    entries
}

/// The slices of a drawing; those of one topology by their own names.
fn drawn(entries: &Entries) -> Vec<DrawnSlice> {
    let name = |entry: &TopologyEntry, unit: &UnitName| {
        if entries.len() > 1 { unit.stem().to_owned() } else { own_name(unit, &entry.name) }
    };
    let drawn = |(entry, slice): (&TopologyEntry, &SliceEntry)| DrawnSlice {
        name: name(entry, &slice.unit),
        cpus: slice.cpus.clone(),
        memory_nodes: slice.memory_nodes.clone(),
    };
    entries.values().flat_map(|entry| entry.slices.iter().map(move |slice| (entry, slice))).map(drawn).collect()
}

fn import(arguments: &ImportArguments) -> Result<Outcome> {
    let ImportArguments { directory, name, cpus, replace, output } = arguments;
    let files = source::unit_files(directory)?;
    let wishes = Wishes { name: name.clone(), cpus: cpus.iter().cloned().collect(), replace: *replace };
    let made = import::import(&files, &wishes).map_err(anyhow::Error::msg);
    let made = made.with_context(|| format!("import {}", directory.display()))?;
    let text = match output {
        Format::Table => formatted(Format::Yaml, &made.topology)?,
        format => formatted(*format, &made)?,
    };
    if *output == Format::Table {
        eprint!("{}", import_table::told(&made));
    }
    print(&text).context("write the topology")?;
    Ok(if made.faults.is_empty() { Outcome::Done } else { Outcome::Incomplete })
}

fn theme_of(theme: ThemeChoice) -> Theme {
    match theme {
        ThemeChoice::Light => Theme::Light,
        ThemeChoice::Dark => Theme::Dark,
    }
}
