//! How long it takes to read a machine: a tree of 144 CPUs, and one of 512.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use lamina_node_agent::hardware;
use lamina_trees::{Machine, shapes};

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for (name, machine) in [("144 CPUs", shapes::two_times_36()), ("512 CPUs", shapes::two_times_128())] {
        let tree = tree(&machine);
        let root = tree.path().join("machine");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(hardware::read(&root, "252"))));
    }
    group.finish();
}

/// In memory where there is a place for that, as the kernel's own files are.
fn tree(machine: &Machine) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.expect("a directory");
    lamina_trees::write(machine, &directory.path().join("machine")).expect("a tree");
    directory
}

criterion_group!(benches, reading);
criterion_main!(benches);
