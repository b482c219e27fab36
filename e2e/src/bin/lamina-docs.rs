//! Writes the pages of `docs/reference` that are made of types: fields, conditions, the command line, exit codes.

#![expect(clippy::disallowed_methods, reason = "it writes the pages")]

use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, page) in [
        ("conditions.md", lamina_crds::reference::conditions()),
        ("exit-codes.md", lamina_cli::reference::exit_codes()),
        ("fields.md", lamina_crds::reference::fields()),
        ("kubectl-lamina.md", lamina_cli::reference::verbs()),
        ("programs.md", lamina_cli::reference::programs()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
