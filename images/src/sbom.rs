//! Decides what the list of parts of a program says (CycloneDX 1.6): every crate compiled into it, what these depend on,
//! and the libraries that a static program carries along.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::blob;

/// What `cargo metadata` says about a workspace.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Clone, Debug, Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// A library that no crate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its licence, as SPDX has it.
    pub license: &'static str,
}

/// The list of the program that the package `root` makes.
///
/// # Errors
/// Fails when cargo does not know the package.
pub fn sbom(metadata: &Metadata, root: &str, program: &[u8], libraries: &[Library]) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let needs: BTreeMap<&str, Vec<&str>> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), compiled_in(node))).collect();
    let top = metadata.packages.iter().find(|package| package.name == root && package.source.is_none());
    let top = top.with_context(|| format!("cargo metadata knows no package {root}"))?;
    let parts = reachable(&top.id, &needs);
    let reference = |id: &str| packages.get(id).map(|package| package.reference()).unwrap_or_default();
    let references = |ids: &[&str]| ids.iter().map(|id| reference(id)).collect::<BTreeSet<_>>();
    let others = parts.iter().filter(|id| **id != top.id).filter_map(|id| packages.get(id));
    let mut components: BTreeMap<String, Value> =
        others.map(|package| (package.reference(), package.component())).collect();
    components.extend(libraries.iter().map(|library| (library.reference(), library.component())));
    let mut depends: BTreeMap<String, BTreeSet<String>> =
        parts.iter().map(|id| (reference(id), references(needs.get(id).map_or(&[][..], Vec::as_slice)))).collect();
    depends.entry(top.reference()).or_default().extend(libraries.iter().map(Library::reference));
    let depends: Vec<Value> = depends.into_iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(program),
        "version": 1,
        "metadata": { "component": top.program(program) },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": depends,
    }))
}

/// What becomes a part of the program, and not only of its build or its tests.
fn compiled_in(node: &Node) -> Vec<&str> {
    let is_normal = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
    node.deps.iter().filter(is_normal).map(|dependency| dependency.pkg.as_str()).collect()
}

fn reachable<'a>(top: &'a str, needs: &BTreeMap<&str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![top]);
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    found
}

/// A number that follows from the program, in the form of a UUID of version 8, whose bits mean what one likes.
fn serial_number(program: &[u8]) -> String {
    let digest = blob::digest(program);
    let digits = &digest["sha256:".len()..];
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..15],
        &digits[15..18],
        &digits[18..30]
    )
}

impl Package {
    fn reference(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn component(&self) -> Value {
        let mut component = json!({
            "type": "library",
            "bom-ref": self.reference(),
            "purl": self.reference(),
            "name": self.name,
            "version": self.version,
        });
        if let Some(license) = &self.license {
            // Old crates write a slash where SPDX has a word.
            component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
        }
        component
    }

    fn program(&self, content: &[u8]) -> Value {
        let mut component = self.component();
        component["type"] = json!("application");
        let digest = blob::digest(content);
        component["hashes"] = json!([{ "alg": "SHA-256", "content": digest.trim_start_matches("sha256:") }]);
        component
    }
}

impl Library {
    fn reference(&self) -> String {
        format!("pkg:generic/{}@{}", self.name, self.version)
    }

    fn component(&self) -> Value {
        json!({
            "type": "library",
            "bom-ref": self.reference(),
            "purl": self.reference(),
            "name": self.name,
            "version": self.version,
            "licenses": [{ "expression": self.license }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, source: Option<&str>| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source });
        let needs = |name: &str, kind: Option<&str>| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        serde_json::from_value(json!({
            "packages": [
                package("agent", None), package("serde", Some("registry")), package("itoa", Some("registry")),
                package("tester", Some("registry")), package("builder", Some("registry")),
            ],
            "resolve": { "nodes": [
                { "id": "agent", "deps": [needs("serde", None), needs("tester", Some("dev")), needs("builder", Some("build"))] },
                { "id": "serde", "deps": [needs("itoa", None)] },
                { "id": "itoa", "deps": [] }, { "id": "tester", "deps": [] }, { "id": "builder", "deps": [] },
            ] },
        }))
        .expect("metadata")
    }

    #[test]
    fn what_is_compiled_in_is_listed_and_what_only_builds_or_tests_is_not() {
        let glibc = Library { name: "glibc", version: "2.36".to_owned(), license: "LGPL-2.1-or-later" };
        let list = sbom(&metadata(), "agent", b"program", &[glibc]).expect("a list");
        let components = list["components"].as_array().expect("a list");
        let names: Vec<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
        assert_eq!(names, ["itoa", "serde", "glibc"]);
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let top = &list["dependencies"][0];
        assert_eq!(top["ref"], "pkg:cargo/agent@1.0.0");
        assert_eq!(top["dependsOn"], json!(["pkg:cargo/serde@1.0.0", "pkg:generic/glibc@2.36"]));
    }

    #[test]
    fn the_list_follows_from_the_program_alone() {
        let list = |program: &[u8]| sbom(&metadata(), "agent", program, &[]).expect("a list");
        assert_eq!(list(b"one"), list(b"one"));
        assert_ne!(list(b"one")["serialNumber"], list(b"two")["serialNumber"]);
        let serial = list(b"one")["serialNumber"].as_str().expect("text").to_owned();
        assert_eq!((serial.len(), serial.matches('-').count()), ("urn:uuid:".len() + 36, 4), "{serial}");
    }
}
