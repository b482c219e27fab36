//! Runs named and random histories and says how many there were and how fast; tells one as a story.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lamina_simulation::accident::Accident;
use lamina_simulation::chance::draw;
use lamina_simulation::crashes::Crashes;
use lamina_simulation::history::happen;
use lamina_simulation::scenario::{Scenario, all};
use lamina_simulation::search::{ACCIDENTS, Tally, VERSIONS, shortened, undisturbed, with};
use lamina_trees::Random;
use rustix::time::{ClockId, clock_gettime};

/// Histories are made of small pieces that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole of Lamina under every accident, in simulated time.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Tell the history of this seed as a story.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// About so many histories in all, half by seed, half by scenario with accidents drawn by chance. Without it: every
    /// scenario with an accident at every effect, pairs by chance, and some thousand seeds.
    #[arg(long, env = "BUDGET")]
    budget: Option<u64>,
    /// The first seed of the random histories.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only scenarios whose name contains this.
    #[arg(long)]
    scenario: Option<String>,
    /// A crash at every effect of each scenario, and at every pair of effects: a death or a loss of power, before or after.
    #[arg(long)]
    pairs: bool,
    /// Only on the systemd of this version.
    #[arg(long)]
    systemd: Option<u32>,
    /// Only random histories.
    #[arg(long)]
    random: bool,
    /// List the scenarios with the number of their effects on each systemd and stop.
    #[arg(long)]
    list: bool,
    /// Tell the scenario as it is, on the systemd of this version, as a story.
    #[arg(long)]
    tell: Option<u32>,
    /// With --tell: an accident at the effect of this number, such as `204=PowerLossAfter`. May be given twice.
    #[arg(long, value_name = "EFFECT=KIND", value_parser = accident)]
    accident: Vec<(u64, Accident)>,
}

/// Reads an accident as the name of a failed history gives it.
fn accident(text: &str) -> Result<(u64, Accident), String> {
    let (at, kind) = text.split_once('=').ok_or("give the number of an effect, `=` and an accident")?;
    let mut all = ACCIDENTS.iter().chain([&Accident::PowerLossBefore]);
    let known = all.find(|known| format!("{known:?}") == kind);
    let at = at.parse().map_err(|error| format!("{at}: {error}"))?;
    Ok((at, known.ok_or_else(|| format!("{kind}: give one of {ACCIDENTS:?}"))?.clone()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |scenario: &Scenario| arguments.scenario.as_ref().is_none_or(|part| scenario.name.contains(part));
    let scenarios: Vec<Scenario> = all().into_iter().filter(chosen).collect();
    if arguments.list {
        scenarios.iter().for_each(list);
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = arguments.seed {
        return tell(draw(seed));
    }
    if let (Some(version), Some(scenario)) = (arguments.tell, scenarios.first()) {
        return tell(with(&undisturbed(scenario, version), &arguments.accident));
    }
    let mut tally = Tally::default();
    for scenario in scenarios.iter().filter(|_| !arguments.random) {
        search(&mut tally, scenario, scenarios.len() as u64, &arguments);
    }
    if arguments.scenario.is_none() && !arguments.pairs {
        random(&mut tally, &arguments);
    }
    conclude(&tally)
}

fn list(scenario: &Scenario) {
    let effects = VERSIONS.map(|version| format!("{:4}", Crashes::of(scenario, version).effects()));
    println!("{}  {}", effects.join(" "), scenario.name);
}

/// Random histories where nobody says how many.
const SEEDS: u64 = 3000;
/// Pairs of effects by chance for each scenario where nobody says how many.
const PAIRS: u64 = 300;

/// One history, told from its start to its end.
fn tell(mut draw: lamina_simulation::chance::Draw) -> ExitCode {
    draw.setting.is_told = true;
    let outcome = happen(&draw.setting, &draw.steps);
    outcome.story.iter().for_each(|line| println!("{line}"));
    for failure in &outcome.failures {
        println!("FAILURE: {failure}");
    }
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn search(tally: &mut Tally, scenario: &Scenario, scenarios: u64, arguments: &Arguments) {
    let chosen = |version: &u32| arguments.systemd.is_none_or(|only| only == *version);
    for version in VERSIONS.into_iter().filter(chosen) {
        let (before, began) = (tally.clone(), processor_time());
        let mut random = Random::new(arguments.from ^ u64::from(version));
        let crashes = Crashes::of(scenario, version);
        tally.plain(scenario, version);
        let share = |all: u64| all / VERSIONS.len() as u64;
        match (arguments.budget, arguments.pairs) {
            (Some(budget), false) => crashes.sample(tally, share(budget / 2 / scenarios), &mut random),
            (_, true) => pairs(tally, &crashes),
            (None, false) => {
                crashes.singles(tally);
                crashes.sample(tally, share(PAIRS), &mut random);
            }
        }
        tell_part(tally, &before, processor_time() - began, &format!("{}, systemd {version}", scenario.name));
    }
}

/// Every pair of crashes, with a word now and then of how far it is.
fn pairs(tally: &mut Tally, crashes: &Crashes<'_>) {
    let (mut told, effects) = (processor_time(), crashes.effects());
    for first in 0..effects {
        crashes.pairs(first, tally);
        if processor_time() - told > Duration::from_secs(60) {
            told = processor_time();
            println!(
                "        effect {first} of {effects}: {} histories, {} failed",
                tally.histories,
                tally.failures.len()
            );
        }
    }
}

fn random(tally: &mut Tally, arguments: &Arguments) {
    let (before, began) = (tally.clone(), processor_time());
    let seeds = arguments.budget.map_or(SEEDS, |budget| if arguments.random { budget } else { budget / 2 });
    for seed in arguments.from..arguments.from + seeds {
        tally.seed(seed);
    }
    tell_part(tally, &before, processor_time() - began, "by seed: one operator and three hosts");
}

/// How long this process has computed: histories wait for nothing, and others may use the same processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn tell_part(tally: &Tally, before: &Tally, took: Duration, what: &str) {
    let (histories, effects) = (tally.histories - before.histories, tally.effects - before.effects);
    let (seconds, failed) = (took.as_secs_f64(), tally.failures.len() - before.failures.len());
    let rate = histories as f64 / seconds;
    let mean = effects.checked_div(histories).unwrap_or(0);
    println!("{histories:7} histories of {mean:4} effects  {seconds:7.1} s {rate:6.0}/s  {failed:2} failed  {what}");
}

fn conclude(tally: &Tally) -> ExitCode {
    let Tally { histories, accidents, effects, failures } = tally;
    let seconds = processor_time().as_secs_f64();
    println!(
        "{histories} histories, {accidents} accidents, {effects} effects in {seconds:.1} s of one core: {:.0} histories/s; {} failed",
        *histories as f64 / seconds,
        failures.len()
    );
    for failed in failures.iter().take(20) {
        println!("FAILED {}: {}", failed.name, failed.failure);
    }
    let Some(first) = failures.first() else { return ExitCode::SUCCESS };
    let (_, outcome) = shortened(&first.draw);
    println!("The shortest form of {}:", first.name);
    outcome.story.iter().for_each(|line| println!("{line}"));
    outcome.failures.iter().for_each(|failure| println!("FAILURE: {failure}"));
    ExitCode::FAILURE
}
