//! Drawings as they are seen: committed answers, and facts that hold of every one.

use crate::program::{Folder, MACHINES, golden, machine, run};

/// The running example, or where it says nothing new, one with kept cores and idle siblings.
fn topology(machine: &str) -> String {
    match machine {
        "hybrid" | "odd" => "tests/inputs/wishes.yaml".to_owned(),
        _ => "tests/inputs/three.yaml".to_owned(),
    }
}

fn drawing(folder: &Folder, name: &str, words: &[&str]) -> String {
    let (machine, topology) = (folder.machine(name), topology(name));
    let run = run(&[&["map", &machine, "-f", &topology], words].concat());
    assert_eq!((run.code, run.errors.as_str()), (0, ""), "{name}");
    run.output
}

#[test]
fn every_machine_is_drawn_on_eighty_columns_as_committed() {
    let folder = Folder::new();
    for name in MACHINES {
        golden(&format!("{name}.txt"), &drawing(&folder, name, &["--width", "80"]));
    }
}

#[test]
fn wide_terminals_and_colours_are_used_as_committed() {
    let folder = Folder::new();
    for name in ["two-sockets", "epyc", "subnuma"] {
        golden(&format!("{name}-wide.txt"), &drawing(&folder, name, &["--width", "170"]));
    }
    for name in ["laptop", "twenty", "odd"] {
        golden(&format!("{name}-colour.txt"), &drawing(&folder, name, &["--width", "80", "--color", "always"]));
    }
}

#[test]
fn svg_is_drawn_as_committed() {
    let folder = Folder::new();
    for name in ["laptop", "twenty", "odd"] {
        for theme in ["light", "dark"] {
            golden(&format!("{name}-{theme}.svg"), &drawing(&folder, name, &["--svg", "--theme", theme]));
        }
    }
}

#[test]
fn no_line_is_longer_than_the_width() {
    let folder = Folder::new();
    for name in MACHINES {
        for width in ["40", "60", "80", "100", "120", "170", "250"] {
            let drawn = drawing(&folder, name, &["--width", width]);
            let longest = drawn.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            assert!(longest <= width.parse().expect("a number"), "{name} on {width}: {longest}\n{drawn}");
        }
    }
}

#[test]
fn colours_change_nothing_but_colours() {
    let folder = Folder::new();
    for name in MACHINES {
        let coloured = drawing(&folder, name, &["--width", "100", "--color", "always"]);
        let mut plain = String::new();
        for line in coloured.lines() {
            let mut parts = line.split("\x1b[");
            let mut text = parts.next().unwrap_or_default().to_owned();
            text.extend(parts.map(|part| part.split_once('m').map_or("", |(_, text)| text)));
            plain.push_str(text.trim_end());
            plain.push('\n');
        }
        assert_eq!(plain, drawing(&folder, name, &["--width", "100"]), "{name}");
    }
}

#[test]
fn every_online_cpu_stands_once_in_an_svg_drawing_and_inside_it() {
    let folder = Folder::new();
    for name in MACHINES {
        let drawn = drawing(&folder, name, &["--svg"]);
        let document = roxmltree::Document::parse(&drawn).expect("the drawing is XML");
        let number = |node: roxmltree::Node, name: &str| node.attribute(name).and_then(|text| text.parse::<f64>().ok());
        let root = document.root_element();
        let (width, height) = (number(root, "width").expect("a width"), number(root, "height").expect("a height"));
        let mut cpus: Vec<u32> = Vec::new();
        for node in document.descendants().filter(|node| node.is_element()) {
            let right = number(node, "x").unwrap_or_default() + number(node, "width").unwrap_or_default();
            let bottom = number(node, "y").unwrap_or_default() + number(node, "height").unwrap_or_default();
            let inside = node.tag_name().name() == "svg" || (right <= width && bottom <= height);
            assert!(inside, "{name}: {:?} ends at {right}, {bottom} of {width} x {height}", node.tag_name());
            if node.attribute("class") == Some("cpu") {
                cpus.push(node.text().and_then(|text| text.parse().ok()).expect("a CPU number"));
            }
        }
        cpus.sort_unstable();
        assert_eq!(cpus, machine(name).present_cpus().iter().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_uses_of_a_drawing_are_disjoint_and_complete_as_json() {
    let folder = Folder::new();
    let uses: serde_json::Value =
        serde_json::from_str(&drawing(&folder, "odd", &["-o", "json"])).expect("the answer is JSON");
    let names: Vec<&str> =
        uses.as_array().expect("a list").iter().map(|entry| entry["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["trading", "reports", "idle sibling", "housekeeping", "isolated", "free", "offline"]);
}

#[test]
fn a_plan_can_be_drawn_later() {
    let folder = Folder::new();
    let machine = folder.machine("twenty");
    let topology = topology("twenty");
    let plan = run(&["plan", "-f", &topology, "--hardware", &machine, "-o", "json"]);
    let plan = folder.file("plan.json", &plan.output);
    let later = run(&["map", &machine, "--placement", &plan, "--width", "80"]);
    assert_eq!(later.output, drawing(&folder, "twenty", &["--width", "80"]));
}
