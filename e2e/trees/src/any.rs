//! Draws machines by a seed: the same seed gives the same machine.

use crate::machine::{Class, Device, Kernel, KindsTold, Kubelet, Machine, Node, Numbering, Shape};
use crate::random::Random;
use crate::sets::Ids;

/// A machine of any kind, odd in several ways at once. It has at least one CPU that runs and is allowed.
pub fn any_machine(seed: u64) -> Machine {
    let mut random = Random::new(seed);
    let mut machine = shape(&mut random).machine();
    for oddity in [caches, kinds, numbers, memory, nodes, absence, limits, telling, company] {
        oddity(&mut machine, &mut random);
    }
    machine
}

fn shape(random: &mut Random) -> Shape {
    let (packages, nodes) = *random.pick(&[(1, 1), (1, 1), (1, 2), (2, 1), (2, 1), (2, 2), (4, 1), (1, 4)]);
    let (caches, cores) = (random.within(1, 3) as usize, random.within(1, 6));
    let mut shape = Shape::even(packages, nodes, caches, cores, *random.pick(&[1, 1, 2, 2, 2, 3, 4, 8]));
    if random.chance(25) {
        // Caches of unequal size.
        shape.packages.iter_mut().flatten().flatten().for_each(|cores| *cores = random.within(1, 6));
    }
    shape.numbering = *random.pick(&[Numbering::Halves, Numbering::Adjacent, Numbering::Alternating]);
    shape.mebibytes = u64::from(random.within(1, 1 << 16));
    shape
}

/// One cache over all nodes of a package, none at all, or none for some.
fn caches(machine: &mut Machine, random: &mut Random) {
    match random.below(6) {
        0 => machine.cpus.iter_mut().for_each(|cpu| cpu.level_3 = cpu.package),
        1 => machine.cpus.iter_mut().for_each(|cpu| cpu.level_3 = None),
        2 => {
            // Level 2 for each four cores of a node, and no level 3.
            for cpu in &mut machine.cpus {
                cpu.level_2 = cpu.core / 4 + 1000 * cpu.node;
                cpu.level_3 = None;
            }
        }
        _ => {}
    }
}

/// Slow cores: half of them, as a machine of one thread per slow core would have.
fn kinds(machine: &mut Machine, random: &mut Random) {
    if !random.chance(25) {
        return;
    }
    let border = machine.cpus.iter().map(|cpu| cpu.core).max().unwrap_or_default() / 2;
    machine.cpus.iter_mut().filter(|cpu| cpu.core > border).for_each(|cpu| cpu.capacity = 512);
    machine.kinds_told = *random.pick(&[KindsTold::Capacity, KindsTold::EventSources, KindsTold::Frequency]);
}

/// Sparse numbers of CPUs, packages and nodes.
fn numbers(machine: &mut Machine, random: &mut Random) {
    if random.chance(20) {
        let (factor, start) = (random.within(1, 4), random.below(8));
        machine.renumber(|id| id * factor + start);
    }
    if random.chance(15) {
        let factor = random.within(2, 36);
        machine.cpus.iter_mut().for_each(|cpu| cpu.package = cpu.package.map(|package| package * factor));
    }
    if random.chance(20) {
        let factor = random.within(2, 8);
        machine.nodes.iter_mut().for_each(|node| node.id *= factor);
        machine.cpus.iter_mut().for_each(|cpu| cpu.node *= factor);
    }
}

/// Nodes without memory, and nodes of memory alone, whose numbers come last.
fn memory(machine: &mut Machine, random: &mut Random) {
    if machine.nodes.len() > 1 && random.chance(20) {
        let chosen = random.within(1, machine.nodes.len() as u32 - 1) as usize;
        machine.nodes[chosen].kibibytes = 0;
    }
    if random.chance(20) {
        let last = machine.nodes.last().cloned();
        let next = |node: Node| Node { id: node.id + 1, kibibytes: 8 << 20, ..node };
        machine.nodes.extend(last.map(next));
    }
}

/// A node that is offline while its CPUs run, or a kernel without nodes.
fn nodes(machine: &mut Machine, random: &mut Random) {
    let has_other_memory = machine.nodes.iter().skip(1).any(|node| node.kibibytes > 0);
    if has_other_memory && random.chance(15) {
        machine.nodes[0].is_online = false;
    }
    machine.has_distances = !random.chance(10);
    if machine.nodes.len() == 1 && random.chance(20) {
        machine.has_nodes = false;
    }
}

/// CPUs that are off: single ones, whole cores, whole nodes.
fn absence(machine: &mut Machine, random: &mut Random) {
    let off = match random.below(6) {
        0 => random.some(machine.present(), 30),
        1 => {
            let cores = random.some(machine.cpus.iter().map(|cpu| cpu.core).collect::<Ids>(), 30);
            machine.cpus.iter().filter(|cpu| cores.contains(&cpu.core)).map(|cpu| cpu.id).collect()
        }
        2 if machine.nodes.len() > 1 => {
            let node = machine.nodes[0].id;
            machine.cpus.iter().filter(|cpu| cpu.node == node).map(|cpu| cpu.id).collect()
        }
        _ => Ids::new(),
    };
    if off.len() < machine.cpus.len() {
        machine.switch_off(off);
    }
}

/// Isolated CPUs, and a topmost cgroup that does not have everything.
fn limits(machine: &mut Machine, random: &mut Random) {
    if random.chance(20) {
        machine.isolated = random.some(machine.present(), 25);
    }
    if random.chance(20) {
        let mut allowed = random.some(machine.online(), 70);
        allowed.extend(machine.online().first());
        machine.allowed_cpus = Some(allowed);
        let nodes: Ids = machine.online_nodes().filter(|node| node.kibibytes > 0).map(|node| node.id).collect();
        let mut allowed = random.some(nodes.clone(), 60);
        allowed.extend(nodes.first());
        machine.allowed_nodes = Some(allowed).filter(|allowed| !allowed.is_empty());
    }
}

/// Old kernels, and firmware that knows no packages.
fn telling(machine: &mut Machine, random: &mut Random) {
    if random.chance(20) {
        machine.kernel = Kernel::Old;
    }
    if random.chance(10) {
        machine.cpus.iter_mut().for_each(|cpu| cpu.package = None);
    }
}

/// Devices, and a kubelet.
fn company(machine: &mut Machine, random: &mut Random) {
    let nodes: Vec<u32> = machine.online_nodes().map(|node| node.id).collect();
    for index in 0..random.below(5) {
        let class = *random.pick(&[Class::Net, Class::Nvme]);
        let name = match class {
            Class::Net => format!("enp{index}s0"),
            Class::Nvme => format!("nvme{index}n1"),
        };
        let node = if nodes.is_empty() || random.chance(20) { None } else { Some(*random.pick(&nodes)) };
        machine.devices.push(Device { name, pci: format!("0000:{:02x}:00.0", index + 16), node, class });
    }
    if random.chance(20) {
        let reserved = machine.online().into_iter().take(2).collect();
        machine.kubelet = Some(Kubelet { policy: (*random.pick(&["none", "static"])).to_owned(), reserved });
    }
}
