//! The verbs as scripts meet them: answers, exit codes and words for what is wrong.

use std::io::Read;
use std::process::Stdio;

use crate::program::{Folder, MACHINES, golden, program, repository, run, run_on};
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("this is not JSON ({error}): {text}"))
}

/// A tree of two nodes of two cores each; CPU 3 is switched off.
fn tree(folder: &Folder) -> String {
    let file = |path: &str, text: &str| {
        folder.file(&format!("machine/{path}"), &format!("{text}\n"));
    };
    file("sys/devices/system/cpu/online", "0-2");
    file("sys/devices/system/cpu/present", "0-3");
    file("sys/devices/system/cpu/cpu3/online", "0");
    file("sys/devices/system/node/online", "0-1");
    file("proc/sys/kernel/hostname", "small");
    for (node, cpus) in [(0, "0-1"), (1, "2-3")] {
        file(&format!("sys/devices/system/node/node{node}/cpulist"), cpus);
        file(&format!("sys/devices/system/node/node{node}/meminfo"), &format!("Node {node} MemTotal: 4194304 kB"));
        file(&format!("sys/devices/system/node/node{node}/distance"), if node == 0 { "10 20" } else { "20 10" });
    }
    for cpu in 0..3 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        file(&format!("{topology}/physical_package_id"), if cpu < 2 { "0" } else { "1" });
        file(&format!("{topology}/core_cpus_list"), &cpu.to_string());
    }
    folder.path("machine")
}

#[test]
fn a_tree_is_told_in_kernel_lists() {
    let folder = Folder::new();
    let tree = tree(&folder);
    let told = run(&["hardware", &tree, "-o", "json"]);
    assert_eq!((told.code, told.errors.as_str()), (0, ""));
    let hardware = json_of(&told.output);
    assert_eq!(hardware["cpus"], json!({ "online": "0-2", "offline": "3", "isolated": "" }));
    assert_eq!(hardware["numaNodes"][1]["cpus"], "2");
    assert_eq!(hardware["packages"], json!([{ "id": 0, "cpus": "0-1" }, { "id": 1, "cpus": "2" }]));
    let told = run(&["hardware", &tree]);
    assert!(told.output.starts_with("small\n2 packages · 2 NUMA nodes"), "{}", told.output);
}

#[test]
fn what_hardware_prints_is_read_again() {
    let folder = Folder::new();
    for name in MACHINES {
        let machine = folder.machine(name);
        for format in ["json", "yaml"] {
            let first = run(&["hardware", &machine, "-o", format]).output;
            let again = folder.file(&format!("again.{format}"), &first);
            assert_eq!(run(&["hardware", &again, "-o", format]).output, first, "{name} as {format}");
        }
        let piped = run_on(&run(&["hardware", &machine, "-o", "json"]).output, &["hardware", "-", "-o", "json"]);
        assert_eq!(piped.code, 0, "{}", piped.errors);
    }
}

#[test]
fn hardware_is_told_as_committed() {
    let folder = Folder::new();
    for name in ["subnuma", "odd", "hybrid"] {
        golden(&format!("{name}-hardware.txt"), &run(&["hardware", &folder.machine(name)]).output);
    }
}

#[test]
fn an_lstopo_export_is_a_machine() {
    let hardware = json_of(&run(&["hardware", "tests/inputs/two-nodes.xml", "-o", "json"]).output);
    assert_eq!(hardware["cores"], json!(["0-1", "2-3"]));
    assert_eq!(hardware["l3"], json!(["0-1", "2-3"]));
    assert_eq!(hardware["numaNodes"][1]["memory"], "4Gi");
}

#[test]
fn the_running_example_lies_as_it_was_drawn_and_then_nothing_changes() {
    let folder = Folder::new();
    let (machine, topology) = (folder.machine("twenty"), repository("examples/orchestrator.yaml"));
    let words = ["plan", "-f", &topology, "--hardware", &machine, "-o", "json"];
    let first = run(&words);
    assert_eq!((first.code, first.errors.as_str()), (2, ""));
    let plan = json_of(&first.output);
    let cpus: Vec<&Value> =
        plan["hosts"][0]["slices"].as_array().expect("slices").iter().map(|slice| &slice["cpus"]).collect();
    assert_eq!(cpus, ["0-7", "8-15", "16-19"]);
    assert_eq!(plan["hosts"][0]["status"], "Optimal");
    let current = folder.file("plan.json", &first.output);
    let again = run(&[&words[..], &["--current", &current]].concat());
    assert_eq!(again.code, 0, "{}", again.output);
    let changes: Vec<Value> = json_of(&again.output)["hosts"][0]["slices"]
        .as_array()
        .expect("slices")
        .iter()
        .map(|slice| slice["change"].clone())
        .collect();
    assert_eq!(changes, ["Same", "Same", "Same"]);
}

#[test]
fn a_plan_says_who_moves_who_shrinks_and_who_cannot_follow() {
    let folder = Folder::new();
    let topology = "tests/inputs/three.yaml";
    let (twenty, laptop) = (folder.machine("twenty"), folder.machine("laptop"));
    golden("plan.txt", &run(&["plan", "-f", topology, "--hardware", &twenty, &laptop]).output);
    let host = r#"{ kind: HostState, metadata: { name: twenty }, spec: { topologies: [{ name: orchestrator,
        state: Present, revision: "000000000000", generation: 1, files: [{ name: site.env, content: "" }], slices: [
            { unit: orchestrator-control.slice, cpus: "8-15", memoryNodes: "1", memory: { max: 8Gi } },
            { unit: orchestrator-old.slice, cpus: "0" }] }] } }"#;
    let current = folder.file("current.yaml", host);
    let moved = run(&["plan", "-f", topology, "--hardware", &twenty, "--current", &current]);
    assert_eq!(moved.code, 2, "{}", moved.output);
    golden("plan-moved.txt", &moved.output);
    let strict = run(&["plan", "-f", "tests/inputs/strict.yaml", "--hardware", &laptop]);
    assert_eq!(strict.code, 1, "{}", strict.output);
    golden("plan-strict.txt", &strict.output);
}

#[test]
fn a_host_state_is_machine_and_current_placement_in_one() {
    let folder = Folder::new();
    let hardware = run(&["hardware", &folder.machine("twenty"), "-o", "json"]).output;
    let host = json!({ "kind": "HostState", "metadata": { "name": "host-7" },
        "spec": { "topologies": [{ "name": "strict", "state": "Present", "revision": "000000000000", "generation": 1,
            "slices": [{ "unit": "strict-control.slice", "cpus": "8-15", "memoryNodes": "1" }] }] },
        "status": { "hardware": json_of(&hardware) } });
    let list = json!({ "kind": "List", "items": [host] });
    let file = folder.file("hosts.json", &list.to_string());
    let plan = run(&["plan", "-f", "tests/inputs/strict.yaml", "--hardware", &file]);
    assert_eq!((plan.code, plan.errors.as_str()), (0, ""), "{}", plan.output);
    assert!(plan.output.contains("host-7") && plan.output.contains("8-15"), "{}", plan.output);
    let drawn = run(&["map", &file]).output;
    assert!(drawn.contains(" C   control   8 cores   8 CPUs  node 1  8-15"), "{drawn}");
}

#[test]
fn every_broken_rule_is_told_with_file_field_value_and_remedy() {
    let folder = Folder::new();
    let bad = run(&["plan", "-f", "tests/inputs/bad.yaml", "--hardware", &folder.machine("laptop")]);
    assert_eq!((bad.code, bad.output.as_str()), (1, ""));
    golden("bad.txt", &bad.errors);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::new();
    let told = |words: &[&str]| {
        let run = run(words);
        assert_eq!((run.code, run.output.as_str()), (1, ""), "{words:?}");
        run.errors
    };
    assert!(told(&["hardware", "/no/such/machine"]).contains("/no/such/machine"));
    let empty = folder.file("empty.json", "");
    assert!(told(&["hardware", &empty]).contains("a host is needed"));
    let broken = folder.file("broken.json", "{\"cpus\": {\"online\": \"7-3\"}}");
    let message = told(&["map", &broken]);
    assert!(message.contains(&broken) && message.contains("cpus.online is `7-3`"), "{message}");
    let xml = folder.file("broken.xml", "<topology");
    assert!(told(&["hardware", &xml]).contains("broken.xml"));
    assert!(told(&["hardware", "--no-such-flag"]).contains("--no-such-flag"));
    let silent = folder.file("silent.yaml", "{ kind: HostState, metadata: { name: h } }");
    assert!(told(&["hardware", &silent]).contains("status.hardware"));
}

#[test]
fn a_machine_that_cannot_be_is_named_and_not_guessed_at() {
    let folder = Folder::new();
    let mut machine = json_of(&run(&["hardware", &folder.machine("twenty"), "-o", "json"]).output);
    machine["numaNodes"][1]["cpus"] = json!("7-15");
    let file = folder.file("wrong.json", &machine.to_string());
    let told = run(&["map", &file]);
    assert_eq!((told.code, told.output.as_str()), (1, ""));
    assert!(told.errors.contains("numaNodes[1].cpus is `7-15`"), "{}", told.errors);
    let line = json!({ "machine": machine, "requests": [{ "name": "a", "cpu": { "cores": 1 } }] });
    let answer = json_of(&run_on(&line.to_string(), &["place", "--jsonl"]).output);
    assert_eq!(answer["error"]["field"], "machine.numaNodes[1].cpus");
}

#[test]
fn every_line_has_its_answer_and_a_bad_one_an_error_in_its_place() {
    let lines = [
        r#"{"id":"good","machine":{"coresPerL3":4,"threadsPerCore":2},"requests":[{"name":"a","cpu":{"cores":2}},{"name":"b","cpu":{"cores":1},"isolation":"Exclusive"}]}"#,
        "nonsense",
        r#"{"id":7,"machine":{"coresPerL3":4},"requests":[{"name":"a","cpu":{"cores":2,"min":3}}]}"#,
        r#"{"machine":{"coresPerL3":4},"requests":[{"name":"a","cpu":{"cores":5}}]}"#,
        r#"{"machine":{"coresPerL3":4,"shape":1},"requests":[]}"#,
        r#"{"machine":{"coresPerL3":4},"requests":[{"name":"a","cpu":{"cores":2}}],"running":{"a":"2-3"}}"#,
        r#"{"machine":{"coresPerL3":4},"requests":[{"name":"a","cpu":{"cores":4}}],"housekeeping":{"cores":1}}"#,
    ];
    let answered = run_on(&lines.join("\n"), &["place", "--jsonl"]);
    assert_eq!((answered.code, answered.errors.as_str()), (1, ""));
    let answers: Vec<Value> = answered.output.lines().map(json_of).collect();
    assert_eq!(answers.len(), lines.len());
    assert_eq!((&answers[0]["id"], &answers[0]["status"]), (&json!("good"), &json!("Optimal")));
    assert_eq!(answers[0]["cpus"], json!({ "a": "0-1,4-5", "b": "2,6" }));
    assert!(answers[0]["microseconds"].as_f64().is_some_and(|time| time > 0.0));
    assert_eq!(answers[1]["line"], 2);
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["field"]), (&json!(7), &json!("requests[0].cpu.min")));
    assert_eq!(answers[3]["status"], "Infeasible");
    assert!(answers[3]["message"].as_str().is_some_and(|message| message.contains("5 whole cores")), "{}", answers[3]);
    assert_eq!(answers[4]["error"]["field"], "machine.shape");
    assert_eq!(answers[5]["cpus"], json!({ "a": "2-3" }));
    assert_eq!(answers[6]["status"], "Infeasible");
}

#[test]
fn the_same_lines_have_the_same_answers() {
    let line = |seed: u64| {
        let request =
            |index: u64| json!({ "name": format!("s{index}"), "cpu": { "cores": 1 + (seed * 7 + index * 5) % 9 } });
        let machine = json!({ "packages": 2, "l3PerNode": 4, "coresPerL3": 8, "threadsPerCore": 2 });
        json!({ "machine": machine, "requests": (0..1 + seed % 6).map(request).collect::<Vec<_>>() }).to_string()
    };
    let lines: Vec<String> = (0..200).map(line).collect();
    let answers = || {
        let text = run_on(&lines.join("\n"), &["place", "--jsonl"]).output;
        let without_time = |line: &str| {
            let mut answer = json_of(line);
            answer.as_object_mut().expect("an object").remove("microseconds");
            answer
        };
        text.lines().map(without_time).collect::<Vec<Value>>()
    };
    let first = answers();
    assert_eq!(first.len(), lines.len());
    assert_eq!(first, answers());
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let folder = Folder::new();
    let line = r#"{"machine":{"packages":2,"coresPerL3":32},"requests":[{"name":"a","cpu":{"cores":2}}]}"#;
    let lines = folder.file("lines.jsonl", &format!("{line}\n").repeat(5000));
    let mut command = program();
    command.args(["place", "--jsonl", &lines]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut first = [0; 64];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("the first answer");
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let folder = Folder::new();
    let machine = folder.machine("laptop");
    let drawn = |words: &[&str]| run(&[&["map", &machine], words].concat()).output;
    assert!(!drawn(&[]).contains('\x1b'), "a pipe is no terminal");
    assert!(!drawn(&["--color", "never"]).contains('\x1b'));
    assert!(drawn(&["--color", "always"]).contains('\x1b'));
}

#[test]
fn help_tells_the_exit_codes() {
    for words in [&["--help"][..], &["plan", "--help"], &["place", "--help"]] {
        let help = run(words);
        assert_eq!(help.code, 0);
        assert!(help.output.contains("Exit codes: 0"), "{}", help.output);
    }
}
