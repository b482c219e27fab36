//! Writes the chart's values.yaml and the table in its README out of values.schema.json.

#![expect(clippy::disallowed_methods, reason = "it reads and writes the chart's files")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lamina_e2e::chart;

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/lamina");
    let entries = chart::entries(&read(&folder.join("values.schema.json"))?)?;
    let readme = folder.join("README.md");
    let renewed = chart::readme(&read(&readme)?, &entries)?;
    for (path, text) in [(folder.join("values.yaml"), chart::values(&entries)), (readme, renewed)] {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn read(path: &PathBuf) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
