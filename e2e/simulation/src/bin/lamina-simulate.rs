//! Runs named and random histories and says how many there were and how fast; tells one as a story.

#![expect(clippy::disallowed_methods, reason = "it tells how long the histories took")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lamina_simulation::accident::Accident;
use lamina_simulation::chance::draw;
use lamina_simulation::history::happen;
use lamina_simulation::random::Random;
use lamina_simulation::scenario::{Scenario, all};
use lamina_simulation::search::{ACCIDENTS, Tally, shortened, undisturbed, with};

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
    /// Accidents at every pair of effects of each scenario.
    #[arg(long)]
    pairs: bool,
    /// Only random histories.
    #[arg(long)]
    random: bool,
    /// List the scenarios and stop.
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
    let known = ACCIDENTS.iter().find(|known| format!("{known:?}") == kind);
    let at = at.parse().map_err(|error| format!("{at}: {error}"))?;
    Ok((at, known.ok_or_else(|| format!("{kind}: give one of {ACCIDENTS:?}"))?.clone()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |scenario: &Scenario| arguments.scenario.as_ref().is_none_or(|part| scenario.name.contains(part));
    let scenarios: Vec<Scenario> = all().into_iter().filter(chosen).collect();
    if arguments.list {
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = arguments.seed {
        return tell(draw(seed));
    }
    if let (Some(version), Some(scenario)) = (arguments.tell, scenarios.first()) {
        return tell(with(&undisturbed(scenario, version), &arguments.accident));
    }
    let mut tally = Tally::default();
    let began = Instant::now();
    for scenario in scenarios.iter().filter(|_| !arguments.random) {
        search(&mut tally, scenario, scenarios.len() as u64, &arguments);
    }
    if arguments.scenario.is_none() {
        random(&mut tally, &arguments);
    }
    conclude(&tally, began)
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
    let (before, began) = (tally.histories, Instant::now());
    let mut random = Random::new(arguments.from);
    tally.plain(scenario);
    match (arguments.budget, arguments.pairs) {
        (Some(budget), false) => tally.sample(scenario, budget / 2 / scenarios, &mut random),
        (_, true) => tally.pairs(scenario, &mut random),
        (None, false) => {
            tally.singles(scenario);
            tally.sample(scenario, PAIRS, &mut random);
        }
    }
    let (histories, took) = (tally.histories - before, began.elapsed());
    println!("{histories:7} histories  {:7.1} s  {}", took.as_secs_f64(), scenario.name);
}

fn random(tally: &mut Tally, arguments: &Arguments) {
    let began = Instant::now();
    let seeds = arguments.budget.map_or(SEEDS, |budget| if arguments.random { budget } else { budget / 2 });
    for seed in arguments.from..arguments.from + seeds {
        tally.seed(seed);
    }
    let took = began.elapsed().as_secs_f64();
    println!("{seeds:7} histories  {took:7.1} s  by seed, {:.0}/s", seeds as f64 / took);
}

fn conclude(tally: &Tally, began: Instant) -> ExitCode {
    let Tally { histories, accidents, effects, failures } = tally;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{histories} histories, {accidents} accidents, {effects} effects in {seconds:.1} s: {:.0} histories/s; {} failed",
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
