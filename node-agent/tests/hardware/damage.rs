//! Damaged trees give a clear error or a smaller machine: never a panic, never a CPU that is not there.

use lamina_node_agent::hardware;
use lamina_trees::damage::Victim;
use lamina_trees::machine::{Machine, Shape};
use lamina_trees::{Random, any_machine};

use crate::Tree;
use crate::consistency::faults;

/// Small machines: there, one damaged file matters more.
fn machine(seed: u64) -> Machine {
    let machine = any_machine(seed);
    if machine.cpus.len() <= 16 { machine } else { Shape::even(2, 1, 1, 2 + (seed % 3) as u32, 2).machine() }
}

#[test]
fn four_thousand_damaged_trees_never_describe_what_is_not_there() {
    let (mut errors, mut smaller, mut whole) = (0, 0, 0);
    for seed in 0..50 {
        let machine = machine(seed);
        let tree = Tree::new(&machine);
        let before = tree.read();
        let victim = Victim::new(&tree.root()).expect("a tree");
        let mut random = Random::new(seed);
        for _ in 0..80 {
            let count = *random.pick(&[1, 1, 1, 2, 4, 8]);
            let look = || hardware::read(&tree.root(), "252");
            let (damage, read) = victim.damaged(&mut random, count, look).expect("damage");
            match read {
                Ok(hardware) => {
                    let faults = faults(&hardware, &machine.present());
                    assert!(faults.is_empty(), "seed {seed}: {faults:?} after {damage:?}");
                    let is_online = hardware.cpus.online.iter().all(|cpu| machine.online().contains(&cpu));
                    assert!(count > 1 || is_online, "seed {seed}: a CPU that is off after {damage:?}");
                    *(if hardware == before { &mut whole } else { &mut smaller }) += 1;
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(&tree.root().display().to_string()), "seed {seed}: {message}");
                    errors += 1;
                }
            }
        }
        assert_eq!(tree.read(), before, "seed {seed}: the tree was put right");
    }
    assert_eq!(errors + smaller + whole, 4000);
    assert!(
        errors > 40 && smaller > 400,
        "the damage must matter: {errors} errors, {smaller} changed, {whole} unchanged"
    );
}

#[test]
fn damaged_exports_are_errors_or_smaller_machines() {
    let export = crate::hwloc::export(&Tree::new(&any_machine(7)));
    let present = hardware::from_lstopo(&export).expect("an export").present_cpus().iter().collect();
    let mut random = Random::new(7);
    for _ in 0..500 {
        let mut bytes = export.clone().into_bytes();
        for _ in 0..random.within(1, 20) {
            let place = random.below(bytes.len() as u32) as usize;
            match random.below(3) {
                0 => bytes.truncate(place.max(1)),
                1 => bytes[place] = *random.pick(b"0123456789abcdefx,\"<> ="),
                _ => drop(bytes.remove(place)),
            }
            if bytes.len() < 2 {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(hardware) = hardware::from_lstopo(&text) {
            // A changed number may be that of another CPU: what the text says is all there is to know.
            let named = hardware.present_cpus().iter().collect();
            assert_eq!(faults(&hardware, &named), Vec::<String>::new(), "{text}");
        }
    }
    let whole = hardware::from_lstopo(&export).expect("an export");
    assert!(faults(&whole, &present).is_empty());
}
