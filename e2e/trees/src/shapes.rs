//! Machines of known kinds, true to what is sold.

use crate::machine::{KindsTold, Machine, Numbering, Shape};
use crate::sets::Ids;

/// Four cores of two threads with one cache, as in laptops.
pub fn laptop() -> Machine {
    Shape::even(1, 1, 1, 4, 2).machine()
}

/// The host of twenty cores without threads whose second node is its CPUs 8 to 15.
pub fn twenty() -> Machine {
    let mut machine = Shape::even(1, 1, 1, 20, 1).machine();
    machine.nodes.push(crate::machine::Node { id: 1, ..machine.nodes[0].clone() });
    for cpu in machine.cpus.iter_mut().filter(|cpu| (8..16).contains(&cpu.id)) {
        (cpu.node, cpu.level_3) = (1, Some(1));
    }
    machine
}

/// Two sockets of 28 cores with two threads, numbered in turn.
pub fn two_times_28() -> Machine {
    Shape::even(2, 1, 1, 28, 2).numbered(Numbering::Alternating).machine()
}

/// Two sockets of 36 cores with two threads: 144 CPUs.
pub fn two_times_36() -> Machine {
    Shape::even(2, 1, 1, 36, 2).machine()
}

/// Two sockets of 96 cores with two threads and an L3 per eight cores: 384 CPUs.
pub fn two_times_96() -> Machine {
    Shape::even(2, 1, 12, 8, 2).machine()
}

/// Two sockets of 128 cores with two threads and an L3 per 16 cores: 512 CPUs.
pub fn two_times_128() -> Machine {
    Shape::even(2, 1, 8, 16, 2).machine()
}

/// Eight sockets of 32 cores with two threads: 512 CPUs in eight nodes.
pub fn eight_times_32() -> Machine {
    Shape::even(8, 1, 1, 32, 2).machine()
}

/// A socket with one L3 over four nodes (sub-NUMA clustering), twice.
pub fn sub_numa() -> Machine {
    let mut machine = Shape::even(2, 4, 1, 14, 2).machine();
    machine.cpus.iter_mut().for_each(|cpu| cpu.level_3 = cpu.package);
    machine
}

/// Six fast cores of two threads, eight frugal ones of one thread that share an L2 by four, and two more outside the L3.
pub fn hybrid() -> Machine {
    let fast = Shape::even(1, 1, 1, 6, 2).numbered(Numbering::Adjacent).machine();
    let slow = Shape::even(1, 1, 1, 10, 1).machine();
    let mut cpus = fast.cpus;
    for mut cpu in slow.cpus {
        let place = cpu.id;
        (cpu.id, cpu.core, cpu.level_2, cpu.capacity) = (12 + place, 6 + place, 6 + place / 4, 600);
        cpu.level_3 = (place < 8).then_some(0);
        cpus.push(cpu);
    }
    Machine { kinds_told: KindsTold::EventSources, ..Machine::of(cpus, fast.nodes) }
}

/// Two clusters of four ARM cores, each with an L2 of its own and no L3.
pub fn clusters() -> Machine {
    let mut machine = Shape::even(1, 1, 1, 8, 1).machine();
    for cpu in &mut machine.cpus {
        (cpu.level_3, cpu.level_2) = (None, cpu.id / 4);
        cpu.capacity = if cpu.id < 4 { 446 } else { 1024 };
    }
    Machine { kinds_told: KindsTold::Capacity, ..machine }
}

/// The host of 24 CPUs, even ones on node 0 and odd ones on node 1, on which node 0 and the CPUs 0-3 and 21-23 are off.
pub fn half_offline() -> Machine {
    let mut machine = Shape::even(2, 1, 1, 12, 1).numbered(Numbering::Alternating).machine();
    machine.switch_off((0..4).chain(21..24));
    machine.nodes[0].is_online = false;
    machine
}

/// The host of sixteen CPUs on which 2, 5, 13 and 14 are off: seven cores, two of them with one thread.
pub fn single_threads() -> Machine {
    let mut machine = Shape::even(1, 1, 1, 8, 2).machine();
    machine.switch_off([2, 5, 13, 14]);
    machine
}

/// Four of eight cores, and the memory of one of two nodes, as a container sees a machine.
pub fn limited() -> Machine {
    let mut machine = Shape::even(2, 1, 1, 8, 2).machine();
    machine.allowed_cpus = Some(Ids::from_iter((4..8).chain(20..24)));
    machine.allowed_nodes = Some(Ids::from([0]));
    machine
}

/// All of these machines with their names.
pub fn all() -> Vec<(&'static str, Machine)> {
    vec![
        ("laptop", laptop()),
        ("twenty", twenty()),
        ("two times 28", two_times_28()),
        ("two times 36", two_times_36()),
        ("two times 96", two_times_96()),
        ("two times 128", two_times_128()),
        ("eight times 32", eight_times_32()),
        ("sub-NUMA clusters", sub_numa()),
        ("hybrid", hybrid()),
        ("clusters", clusters()),
        ("half offline", half_offline()),
        ("single threads", single_threads()),
        ("limited", limited()),
    ]
}
