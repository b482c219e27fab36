//! Finds programs for cargo, and builds into the cache, once, what the path does not have.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;

/// Checks licences and who may use what.
pub const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };
/// Makes Debian packages.
pub const CARGO_DEB: CargoTool = CargoTool { name: "cargo-deb", version: "3.8.0" };

/// A program that cargo installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoTool {
    /// Its name, which is that of its package.
    pub name: &'static str,
    /// The version that is built where the path has none.
    pub version: &'static str,
}

impl CargoTool {
    /// The command: the one on the path, else one built once into the cache.
    pub fn program(self) -> Result<String> {
        let Self { name, version } = self;
        let on_path = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        if on_path {
            return Ok(name.to_owned());
        }
        let root = Cache::open()?.root().join("tools").join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        if !program.exists() {
            self.build(&root)?;
        }
        Ok(program.display().to_string())
    }

    fn build(self, root: &Path) -> Result<()> {
        let Self { name, version } = self;
        println!("building {name} {version} once");
        let install = ["install", "--quiet", "--locked", name, "--version", version, "--root"];
        let built = Command::new("cargo").args(install).arg(root).status();
        if !built.with_context(|| format!("building {name}"))?.success() {
            bail!("{name} {version} could not be built");
        }
        Ok(())
    }
}
