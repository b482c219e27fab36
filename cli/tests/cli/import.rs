//! `import` on the unit files of the examples: the topology that they meant, and what they never did.

#![expect(clippy::disallowed_methods, reason = "it compares files")]

use serde_json::{Value, json};

use crate::program::{Folder, Run, golden, repository, run};

fn unit_files() -> String {
    repository("examples/unit-files")
}

fn imported(more: &[&str]) -> Run {
    run(&[&["import", &unit_files()], more].concat())
}

/// What the operator would write for the twenty-CPU host.
fn planned(folder: &Folder, topology: &str) -> Value {
    let machine = folder.machine("twenty");
    let answer = run(&["plan", "-f", topology, "--hardware", &machine, "-o", "json"]);
    let mut plan: Value = serde_json::from_str(&answer.output).unwrap_or_else(|_| panic!("{answer:?}"));
    let slices = plan["hosts"][0]["slices"].take();
    let place = |slice: &Value| json!([slice["unit"], slice["cpus"], slice["memoryNodes"]]);
    let mut places: Vec<Value> = slices.as_array().expect("slices").iter().map(place).collect();
    places.sort_by_key(ToString::to_string);
    places.into()
}

#[test]
fn the_files_of_the_examples_become_a_topology_and_a_list_of_what_they_never_did() {
    let run = imported(&[]);
    assert_eq!(run.code, 0, "{run:?}");
    golden("import.yaml", &run.output);
    golden("import.txt", &run.errors);
}

#[test]
fn what_was_meant_is_what_the_running_example_asks_of_the_host_it_was_drawn_for() {
    let folder = Folder::new();
    let topology = folder.file("imported.yaml", &imported(&[]).output);
    let (meant, example) = (planned(&folder, &topology), planned(&folder, &repository("examples/orchestrator.yaml")));
    assert_eq!(meant, example);
    let spec = |path: &str| -> Value {
        let text = std::fs::read_to_string(path).expect("a file");
        serde_yaml::from_str::<Value>(&text).expect("YAML")["spec"].take()
    };
    let (meant, example) = (spec(&topology), spec(&repository("examples/orchestrator.yaml")));
    let by_name = |list: &Value, keys: &[&str]| -> Vec<Value> {
        let pick = |item: &Value| keys.iter().map(|key| item.get(*key).cloned().unwrap_or_default()).collect();
        let mut picked: Vec<Value> = list.as_array().expect("a list").iter().map(pick).collect();
        picked.sort_by_key(ToString::to_string);
        picked
    };
    let service = ["name", "slice", "command", "memory", "rlimits"];
    assert_eq!(by_name(&meant["services"], &service), by_name(&example["services"], &service));
    let amounts = |slices: &Value| -> Vec<Value> {
        let amount = |slice: &Value, key: &str| slice["memory"].get(key).cloned().unwrap_or_default();
        let told = |slice: &Value| {
            json!([
                slice["name"],
                amount(slice, "min"),
                amount(slice, "high"),
                amount(slice, "max"),
                slice["startAfter"],
                slice["io"],
                slice["tasks"]
            ])
        };
        let mut told: Vec<Value> = slices.as_array().expect("a list").iter().map(told).collect();
        told.sort_by_key(ToString::to_string);
        told
    };
    assert_eq!(amounts(&meant["slices"]), amounts(&example["slices"]));
    for key in ["user", "restart"] {
        assert_eq!(meant["serviceDefaults"][key], example["serviceDefaults"][key]);
    }
}

#[test]
fn scripts_get_topology_and_notes_together() {
    let run = imported(&["-o", "json", "--replace"]);
    let answer: Value = serde_json::from_str(&run.output).expect("JSON");
    assert_eq!(answer["topology"]["spec"]["adoption"], "Replace");
    assert_eq!(answer["faults"], json!([]));
    let affinity = answer["notes"]
        .as_array()
        .expect("notes")
        .iter()
        .filter(|note| note["setting"].as_str().is_some_and(|setting| setting.starts_with("CPUAffinity=")));
    let kinds: Vec<&Value> = affinity.map(|note| &note["kind"]).collect();
    assert_eq!(kinds, ["NeverHadAnEffect"; 3]);
}

#[test]
fn a_directory_without_units_is_an_error_that_names_it() {
    let folder = Folder::new();
    let path = folder.file("empty/readme", "nothing");
    let directory = path.trim_end_matches("/readme");
    let run = run(&["import", directory]);
    assert_eq!(run.code, 1);
    assert!(run.errors.contains(directory) && run.errors.contains("no .slice and no .service file"), "{}", run.errors);
}
