//! Every scenario settles as it is and under some accidents, some seeds settle, a seed repeats itself; and what the
//! simulation judges by does see what is wrong.

use lamina_node_agent::property::{Property, Value};
use lamina_simulation::chance::draw;
use lamina_simulation::crashes::Crashes;
use lamina_simulation::hand::Hand;
use lamina_simulation::history::{Step, happen};
use lamina_simulation::scenario::{HOST, Scenario, all, unit};
use lamina_simulation::search::{Tally, VERSIONS, undisturbed};
use lamina_simulation::wish::{Wish, program};
use lamina_trees::Random;

fn nothing_failed(tally: &Tally) {
    let failures: Vec<String> =
        tally.failures.iter().map(|failed| format!("{}: {}", failed.name, failed.failure)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_scenario_settles_on_every_systemd() {
    let mut tally = Tally::default();
    for scenario in all() {
        VERSIONS.into_iter().for_each(|version| tally.plain(&scenario, version));
    }
    nothing_failed(&tally);
}

#[test]
fn every_scenario_settles_after_one_or_two_accidents() {
    let mut tally = Tally::default();
    let mut random = Random::new(1);
    for scenario in all() {
        VERSIONS.into_iter().for_each(|version| Crashes::of(&scenario, version).sample(&mut tally, 3, &mut random));
    }
    nothing_failed(&tally);
}

#[test]
fn random_histories_settle() {
    let mut tally = Tally::default();
    (0..60).for_each(|seed| tally.seed(seed));
    nothing_failed(&tally);
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let told = |seed| {
        let mut draw = draw(seed);
        draw.setting.is_told = true;
        happen(&draw.setting, &draw.steps).story
    };
    let lines = |seed| told(seed).into_iter().filter(|line| !line.contains("put back in")).collect::<Vec<_>>();
    assert!(lines(5).len() > 20);
    assert_eq!(lines(5), lines(5));
    assert_ne!(lines(5), lines(6));
}

#[test]
fn what_nobody_can_heal_is_seen() {
    let steps = vec![
        Step::Hand(HOST.to_owned(), Hand::BreakProgram(program("api"))),
        Step::Apply("app", Wish::app()),
        Step::Settle,
    ];
    let draw = undisturbed(&Scenario { name: "", steps }, 252);
    let failures = happen(&draw.setting, &draw.steps).failures;
    assert!(
        failures.iter().any(|failure| failure.contains("it does not settle: host-0: app-api.service")),
        "{failures:?}"
    );
}

#[test]
fn a_host_that_nobody_heals_is_not_as_asked() {
    use lamina_simulation::asked::entries_of;
    use lamina_simulation::story::Story;
    use lamina_simulation::truth::disagreements;
    use lamina_simulation::world::World;

    let hands = [
        Hand::EditDropIn(unit("app-control.slice")),
        Hand::RemoveFragment(unit("app-api.service")),
        Hand::Disable(unit("app-router.service")),
        Hand::SetRuntime(unit("app-runner.slice"), Property::MemoryMax, Value::Number(1 << 28)),
        Hand::WriteCgroup(unit("app-runner.slice"), Property::AllowedCpus, Value::Cpus((0..8).collect())),
        Hand::Stop(unit("app-worker.service")),
        Hand::Stray(unit("app-worker.service")),
        Hand::Stick(unit("app-api.service"), (0..8).collect()),
        Hand::EditFile("/etc/lamina/files/app/app.env".to_owned()),
    ];
    for hand in hands {
        let kinds = [lamina_simulation::scenario::kind(257)];
        let mut world = World::new(&kinds, 1, Story::default());
        world.apply("app", &Wish::app());
        for _ in 0..8 {
            world.wait(std::time::Duration::from_secs(5));
            world.revive();
            world.round();
        }
        let entries = world.api.with(|store| entries_of(store, HOST, i64::MAX));
        assert_eq!(disagreements(&world.hosts[HOST].host, &entries[0]), Vec::<String>::new());
        world.disturb(HOST, &hand);
        assert_ne!(disagreements(&world.hosts[HOST].host, &entries[0]), Vec::<String>::new(), "{hand:?}");
    }
}
