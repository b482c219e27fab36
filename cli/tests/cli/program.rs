//! Runs the built program, and makes the machines that it is run on.

#![expect(clippy::disallowed_methods, reason = "runs a program on files")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lamina_cli::shape::{Numbering, Shape};
use lamina_crds::hardware::{CoreGroup, CoreKind, NumaNode};
use lamina_crds::{Bytes, CpuSet, Hardware};

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// The program, in the folder of the tests and with nothing of the caller's environment that changes what it says.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lamina"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command
}

/// One run with this on standard input.
pub fn run_on(input: &str, words: &[&str]) -> Run {
    let mut command = program();
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input may have ended.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    Run { code: output.status.code().expect("an exit code"), output: text(output.stdout), errors: text(output.stderr) }
}

/// One run.
pub fn run(words: &[&str]) -> Run {
    run_on("", words)
}

/// A folder with machines as files.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// The path of a file in it, as a word for the command line.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("temporary folders have plain names").to_owned()
    }

    /// Writes a file below it and tells its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, text).expect("a file");
        self.path(name)
    }

    /// Writes a machine as `hardware -o json` prints it and tells its path.
    pub fn machine(&self, name: &str) -> String {
        let json = serde_json::to_string(&machine(name)).expect("plain data");
        self.file(&format!("{name}.json"), &json)
    }
}

/// The machines of the drawings, by name.
pub const MACHINES: [&str; 7] = ["laptop", "twenty", "two-sockets", "epyc", "subnuma", "odd", "hybrid"];

/// One of [`MACHINES`].
pub fn machine(name: &str) -> Hardware {
    let shape = Shape { threads_per_core: 2, ..Shape::default() };
    let gibi = |amount: u64| Bytes::mebi(amount << 10);
    let list = |text: &str| -> CpuSet { text.parse().expect("a list") };
    match name {
        "laptop" => Shape { cores_per_l3: 4, memory_per_node: gibi(16), ..shape }.hardware(),
        "twenty" => twenty(),
        "two-sockets" => Shape {
            packages: 2,
            cores_per_l3: 28,
            numbering: Numbering::Alternating,
            memory_per_node: gibi(128),
            ..shape
        }
        .hardware(),
        "epyc" => {
            Shape { packages: 2, l3_per_node: 12, cores_per_l3: 8, memory_per_node: gibi(384), ..shape }.hardware()
        }
        "subnuma" => {
            let shape = Shape { packages: 2, nodes_per_package: 4, l3_per_node: 2, cores_per_l3: 8, ..shape };
            Shape { memory_per_node: gibi(96), ..shape }.hardware()
        }
        "odd" => {
            let shape = Shape { cores_per_l3: 8, offline: list("2,5,13-14"), isolated: list("7"), ..shape };
            let mut odd = shape.hardware();
            odd.numa_nodes[0].distances.push(20);
            let memory = NumaNode { id: 3, cpus: CpuSet::new(), memory: gibi(256), distances: vec![20, 10] };
            odd.numa_nodes.push(memory);
            odd
        }
        "hybrid" => {
            let mut hybrid = Shape { cores_per_l3: 16, threads_per_core: 1, ..shape }.hardware();
            hybrid.cores = ["0-1", "2-3", "4-5", "6-7"].map(list).to_vec();
            let group = |core_type, cpus| CoreGroup { core_type, cpus: list(cpus) };
            hybrid.core_types = vec![group(CoreKind::Performance, "0-7"), group(CoreKind::Efficiency, "8-15")];
            hybrid
        }
        other => panic!("there is no machine {other}"),
    }
}

/// Twenty cores without SMT on two nodes, one of them in two ranges.
fn twenty() -> Hardware {
    let mut hardware = Shape { cores_per_l3: 20, ..Shape::default() }.hardware();
    hardware.l3 = ["0-7,16-19", "8-15"].map(|cpus| cpus.parse().expect("a list")).to_vec();
    let node = |id: u32, distances: [u32; 2]| NumaNode {
        id,
        cpus: hardware.l3[id as usize].clone(),
        memory: Bytes::mebi(64 << 10),
        distances: distances.to_vec(),
    };
    hardware.numa_nodes = vec![node(0, [10, 21]), node(1, [21, 10])];
    hardware
}

/// Compares with a committed answer. `GOLDEN=write` in the environment writes it instead, for changes that are meant.
pub fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var("GOLDEN").is_ok_and(|word| word == "write") {
        std::fs::write(&path, found).expect("the answer is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == found,
        "{name} differs; if that is meant, run the tests with GOLDEN=write and look at the difference. Found:\n{found}"
    );
}

/// A file of the repository.
pub fn repository(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    path.to_str().expect("a plain path").to_owned()
}
