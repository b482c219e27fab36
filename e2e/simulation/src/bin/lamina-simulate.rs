//! Runs named and random histories and says how many there were and how fast; tells one as a story.

#![expect(clippy::disallowed_methods, reason = "it tells how long the histories took")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lamina_simulation::chance::draw;
use lamina_simulation::history::happen;
use lamina_simulation::random::Random;
use lamina_simulation::scenario::{Scenario, all};
use lamina_simulation::search::{Tally, shortened};

/// The whole of Lamina under every accident, in simulated time.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Tell the history of this seed as a story.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random histories to run.
    #[arg(long, env = "BUDGET", default_value_t = 2000)]
    budget: u64,
    /// The first seed of the random histories.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only scenarios whose name contains this.
    #[arg(long)]
    scenario: Option<String>,
    /// Accidents at every pair of effects of each scenario.
    #[arg(long)]
    pairs: bool,
    /// So many pairs of effects of each scenario, by chance.
    #[arg(long, default_value_t = 100)]
    pairs_budget: u64,
    /// Only random histories.
    #[arg(long)]
    random: bool,
    /// List the scenarios and stop.
    #[arg(long)]
    list: bool,
    /// Tell the scenario as it is, on the systemd of this version, as a story.
    #[arg(long)]
    tell: Option<u32>,
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
        return tell(lamina_simulation::search::undisturbed(scenario, version));
    }
    let mut tally = Tally::default();
    let began = Instant::now();
    for scenario in scenarios.iter().filter(|_| !arguments.random) {
        search(&mut tally, scenario, &arguments);
    }
    if arguments.scenario.is_none() {
        random(&mut tally, &arguments);
    }
    conclude(&tally, began)
}

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

fn search(tally: &mut Tally, scenario: &Scenario, arguments: &Arguments) {
    let (before, began) = (tally.histories, Instant::now());
    tally.plain(scenario);
    if tally.failures.is_empty() {
        tally.singles(scenario);
        let budget = (!arguments.pairs).then_some(arguments.pairs_budget);
        tally.pairs(scenario, budget, &mut Random::new(arguments.from));
    }
    let (histories, took) = (tally.histories - before, began.elapsed());
    println!("{histories:7} histories  {:7.1} s  {}", took.as_secs_f64(), scenario.name);
}

fn random(tally: &mut Tally, arguments: &Arguments) {
    let began = Instant::now();
    for seed in arguments.from..arguments.from + arguments.budget {
        tally.seed(seed);
    }
    let rate = arguments.budget as f64 / began.elapsed().as_secs_f64();
    println!("{:7} histories  {:7.1} s  by seed, {rate:.0}/s", arguments.budget, began.elapsed().as_secs_f64());
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
