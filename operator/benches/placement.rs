//! Measures placement: how long it takes and how often the answer is proven, on four shapes of machine by load, on a host
//! of twenty cores, and over a thousand hosts. Prints a table of medians, 99th percentiles and proofs, then lets criterion
//! measure single cases.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use lamina_crds::Hardware;
use lamina_operator::placement::shapes::{SHAPES, machine, regular, slices};
use lamina_operator::placement::{Demand, Gap, Placed, Placement, Site, Verdict, place};
use rustix::time::{ClockId, clock_gettime};

/// How many instances the table has for each shape and load.
const INSTANCES: u64 = 300;

criterion_group!(benches, table, single, thousand);
criterion_main!(benches);

fn answer(hardware: &Hardware, demands: &[Demand]) -> Placed {
    place(demands, &Site { hardware, housekeeping: Vec::new() }, &Placement::default())
}

/// Loads of hosts that have room left, in hundredths.
const UP_TO_90: [u32; 5] = [50, 60, 70, 80, 90];

/// One row for each shape and load, then one for each machine of the thousand.
fn table(_: &mut Criterion) {
    println!(
        "{:24} {:>12} {:>12} {:>12} {:>8} {:>16}  gap (most, by level)",
        "machine, slices, load", "median us", "99th us", "mean us", "proven", "crossings (most)"
    );
    for shape in SHAPES {
        let hardware = machine(shape);
        let hardware = &hardware;
        let of = |load: u32| (0..INSTANCES).map(move |seed| slices(hardware, 32, load, seed));
        row(&format!("{shape:?}, 32, up to 90 %"), hardware, UP_TO_90.into_iter().flat_map(of));
        for load in UP_TO_90.into_iter().chain([95, 100]) {
            row(&format!("{shape:?}, 32, {load} %"), hardware, of(load));
        }
    }
    for (index, hardware) in mixed_machines().iter().enumerate() {
        let of_thousand = (index as u64..1000).step_by(8).map(|seed| mixed(hardware, seed));
        row(&format!("mixed host {index}, 12, 70 %"), hardware, of_thousand);
    }
}

fn row(name: &str, hardware: &Hardware, instances: impl Iterator<Item = Vec<Demand>>) {
    let mut times = Vec::new();
    let (mut proven, mut most, mut gaps) = (0, 0, BTreeMap::new());
    for demands in instances {
        let (time, placed) = fastest(hardware, &demands);
        times.push(time);
        match placed.verdict {
            Verdict::Optimal => proven += 1,
            Verdict::Feasible { gap: Gap { level, amount } } => {
                let known = gaps.entry(level).or_insert(amount);
                *known = amount.max(*known);
            }
        }
        let crossings = placed.slices.values().flat_map(|slice| &slice.spread).map(|spread| spread.used - spread.least);
        most = most.max(crossings.sum::<u32>());
    }
    times.sort_unstable();
    let at = |hundredth: usize| times[times.len() * hundredth / 100].as_micros();
    let mean = times.iter().sum::<Duration>().as_micros() / times.len() as u128;
    let told: Vec<String> = gaps.iter().map(|(level, amount)| format!("{level:?} {amount}")).collect();
    let percent = 100.0 * f64::from(proven) / times.len() as f64;
    println!("{name:24} {:12} {:12} {mean:12} {percent:7.1}% {most:16}  {}", at(50), at(99), told.join(", "));
}

/// The fastest of three, in processor time: what else the machine does is none of placement's doing.
fn fastest(hardware: &Hardware, demands: &[Demand]) -> (Duration, Placed) {
    let mut best = Duration::MAX;
    let mut placed = Placed::default();
    for _ in 0..3 {
        let start = processor_time();
        placed = black_box(answer(hardware, demands));
        best = best.min(processor_time() - start);
    }
    (best, placed)
}

/// What this thread has had of its processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn single(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    for shape in SHAPES {
        let hardware = machine(shape);
        let demands = slices(&hardware, 32, 90, 1);
        group.bench_function(format!("{shape:?} 32 slices 90 %"), |bencher| {
            bencher.iter(|| answer(&hardware, black_box(&demands)));
        });
    }
    let hardware = regular(1, 2, 1, 10, 1);
    let demands = slices(&hardware, 3, 100, 1);
    group.bench_function("20 cores 3 slices", |bencher| bencher.iter(|| answer(&hardware, black_box(&demands))));
    group.finish();
}

/// Machines of all shapes and sizes.
fn mixed_machines() -> Vec<Hardware> {
    let mut machines: Vec<Hardware> = SHAPES.into_iter().map(machine).collect();
    machines.extend([regular(1, 1, 1, 4, 2), regular(1, 2, 1, 10, 1), regular(2, 1, 1, 28, 2), regular(2, 4, 2, 8, 2)]);
    machines
}

fn mixed(hardware: &Hardware, seed: u64) -> Vec<Demand> {
    slices(hardware, 12, 70, seed)
}

/// A what-if over a thousand hosts of all shapes.
fn thousand(criterion: &mut Criterion) {
    let machines = mixed_machines();
    let host = |index: usize| (index % 8, mixed(&machines[index % 8], index as u64));
    let hosts: Vec<(usize, Vec<Demand>)> = (0..1000).map(host).collect();
    let mut group = criterion.benchmark_group("placement");
    group.sample_size(10);
    group.bench_function("1000 mixed hosts", |bencher| {
        bencher.iter(|| {
            hosts.iter().filter(|(host, demands)| answer(&machines[*host], demands).refusals.is_empty()).count()
        });
    });
    group.finish();
}
