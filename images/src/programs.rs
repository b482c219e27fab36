//! Asks cargo, the compiler and git: builds the static programs, and finds out what they are made of.

#![expect(clippy::disallowed_methods, reason = "it runs cargo and reads what it made")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::recipe::{Component, Source};
use crate::sbom::{Library, Metadata};

/// The folders of the crates that the components' programs are made of.
const SOURCES: [&str; 4] = ["crds", "endpoint", "node-agent", "operator"];

/// The file that says how they are compiled.
const HOW: &str = "images/src/programs.rs";

/// How programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// As released: small and fast.
    Release,
    /// As lanes need it: built soon, without symbols.
    Trial,
}

/// A checkout of Lamina, and where its programs are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The workspace's folder.
    pub folder: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

impl Checkout {
    /// The checkout this program was built from.
    pub fn own() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
        Self { folder, target }
    }

    /// The files that make the components' programs what they are, sorted, as seen from the checkout's folder. What only
    /// the tests of their crates are made of is among them.
    ///
    /// # Errors
    /// Fails when a folder cannot be read.
    pub fn sources(&self) -> Result<Vec<PathBuf>> {
        let mut sources: Vec<PathBuf> = ["Cargo.toml", "Cargo.lock", HOW].map(PathBuf::from).into();
        let mut folders: Vec<PathBuf> = SOURCES.map(PathBuf::from).into();
        while let Some(folder) = folders.pop() {
            let path = self.folder.join(&folder);
            for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
                let entry = entry?;
                let inner = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() { folders.push(inner) } else { sources.push(inner) }
            }
        }
        sources.sort();
        Ok(sources)
    }

    /// Builds every component's program and tells what each holds.
    ///
    /// # Errors
    /// Fails when cargo does.
    pub fn programs(&self, profile: Profile) -> Result<Vec<(Component, Vec<u8>)>> {
        let triple = triple()?;
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--locked", "--profile", profile.name(), "--target", &triple]);
        for component in Component::ALL {
            cargo.args(["--package", component.name(), "--bin", component.name()]);
        }
        // Said here and not in the workspace's own file, so that an older checkout can be built as well.
        cargo.args(
            ["inherits=\"dev\"", "debug=false", "strip=true"].map(|part| format!("--config=profile.trial.{part}")),
        );
        // Where sources lie would otherwise stand in every message about a panic.
        let flags = [
            "-Ctarget-feature=+crt-static".to_owned(),
            format!("--remap-path-prefix={}=/lamina", self.folder.display()),
            format!("--remap-path-prefix={}=/cargo", cargo_home()?.display()),
        ];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env("CARGO_TARGET_DIR", &self.target);
        self.run(&mut cargo)?;
        let folder = self.target.join(triple).join(profile.name());
        let read = |component: Component| {
            let path = folder.join(component.name());
            fs::read(&path).map(|program| (component, program)).with_context(|| format!("reading {}", path.display()))
        };
        Component::ALL.into_iter().map(read).collect()
    }

    /// What an image of this checkout says about its origin.
    ///
    /// # Errors
    /// Fails without the licence, or when `SOURCE_DATE_EPOCH` is no time.
    pub fn source(&self, version: Option<&str>) -> Result<Source> {
        let license = self.folder.join("LICENSE");
        Ok(Source {
            version: version.unwrap_or(env!("CARGO_PKG_VERSION")).to_owned(),
            revision: self.git(&["rev-parse", "HEAD"]),
            created: self.created()?,
            architecture: architecture()?.to_owned(),
            license: fs::read(&license).with_context(|| format!("reading {}", license.display()))?,
        })
    }

    /// What cargo knows about every crate.
    ///
    /// # Errors
    /// Fails when cargo does, or says something unheard of.
    pub fn metadata(&self) -> Result<Metadata> {
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &triple()?]);
        serde_json::from_str(&self.run(&mut cargo)?).context("understanding cargo metadata")
    }

    /// The libraries that every static program carries along.
    ///
    /// # Errors
    /// Fails when they do not tell their versions.
    pub fn libraries(&self) -> Result<Vec<Library>> {
        let libc = self.run(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        let rust = self.run(Command::new("rustc").arg("--version"))?;
        let second = |text: &str| text.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        Ok(vec![
            Library { name: "glibc", version: second(&libc), license: "LGPL-2.1-or-later" },
            Library { name: "rust-std", version: second(&rust), license: "MIT OR Apache-2.0" },
        ])
    }

    /// The time that counts as that of the build: `SOURCE_DATE_EPOCH`, else the commit's, else the beginning of time.
    fn created(&self) -> Result<Timestamp> {
        let seconds = env::var("SOURCE_DATE_EPOCH").ok().or_else(|| self.git(&["log", "-1", "--format=%ct"]));
        let Some(seconds) = seconds else { return Ok(Timestamp::UNIX_EPOCH) };
        let number =
            seconds.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {seconds}"))?;
        Timestamp::from_second(number).with_context(|| format!("there is no time {number}"))
    }

    /// What git says; nothing where the source is no repository.
    fn git(&self, arguments: &[&str]) -> Option<String> {
        let said = self.run(Command::new("git").args(arguments)).ok()?;
        Some(said.trim().to_owned()).filter(|said| !said.is_empty())
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let described = format!("{command:?}");
        command.current_dir(&self.folder).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("running {described}"))?;
        if !output.status.success() {
            bail!("{described} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Trial => "trial",
        }
    }
}

/// The target is named even where it is the machine's own: otherwise what only builds would be static as well, which
/// procedural macros cannot be.
fn triple() -> Result<String> {
    architecture()?;
    Ok(format!("{}-unknown-linux-gnu", env::consts::ARCH))
}

fn architecture() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("there are no images for {other}; build on x86_64 or aarch64"),
    }
}

fn cargo_home() -> Result<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    given.or_else(home).context("finding cargo's folder: neither CARGO_HOME nor HOME is set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_of_every_crate_of_ours_that_a_program_is_made_of() {
        let checkout = Checkout::own();
        let sources = checkout.sources().unwrap();
        assert!(sources.is_sorted() && sources.contains(&PathBuf::from("crds/src/lib.rs")), "{sources:?}");
        for folder in SOURCES {
            let manifest = fs::read_to_string(checkout.folder.join(folder).join("Cargo.toml")).unwrap();
            let built_of = manifest.split("[dev-dependencies]").next().unwrap_or_default();
            let ours = built_of.lines().filter_map(|line| line.strip_prefix("lamina-")?.split(['.', ' ']).next());
            for crate_name in ours {
                assert!(SOURCES.contains(&crate_name), "{folder} needs {crate_name}");
            }
        }
    }
}
