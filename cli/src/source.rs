//! Touches files: reads what users name on the command line, and says which file it was when something is wrong.

#![expect(clippy::disallowed_methods, reason = "reads the files that users name")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lamina_crds::Hardware;
use lamina_node_agent::hardware;

use crate::document::{self, Host, Topology};

/// The largest file that is read, in bytes: fifty thousand hosts.
const LARGEST_FILE: u64 = 512 << 20;

/// The hosts that a path tells of: a directory is a tree like that of a running machine, a file holds lstopo's XML or
/// documents, `-` is standard input, nothing is this machine.
///
/// # Errors
/// Fails when the path cannot be read or holds no host.
pub fn hosts(path: Option<&Path>) -> Result<Vec<Host>> {
    let Some(path) = path else { return Ok(vec![tree(Path::new("/"))?]) };
    if path.is_dir() {
        return Ok(vec![tree(path)?]);
    }
    let text = text(path)?;
    let named = || format!("read {}", path.display());
    if text.trim_start().starts_with('<') {
        let hardware = hardware::from_lstopo(&text).with_context(named)?;
        return Ok(vec![Host { name: stem(path), hardware: Some(hardware), ..Host::default() }]);
    }
    let mut hosts = document::hosts(&text).with_context(named)?;
    for host in hosts.iter_mut().filter(|host| host.name.is_empty()) {
        host.name = stem(path);
    }
    Ok(hosts)
}

/// The one host that a path tells of, with what it is.
///
/// # Errors
/// Fails as [`hosts`] does, and when there are several hosts or one whose hardware is not told.
pub fn machines(path: Option<&Path>) -> Result<Vec<(Host, Hardware)>> {
    let shown = path.map_or_else(|| "/".to_owned(), |path| path.display().to_string());
    let with_hardware = |host: Host| {
        let Some(hardware) = host.hardware.clone() else {
            bail!(
                "{shown}: host {} says nothing about its hardware (status.hardware); give a HostState whose agent has \
                 reported, a sysfs tree or lstopo XML",
                host.name
            );
        };
        Ok((host, hardware))
    };
    hosts(path)?.into_iter().map(with_hardware).collect()
}

/// The topologies of these files.
///
/// # Errors
/// Fails when a file cannot be read, or with every rule that a topology in it breaks.
pub fn topologies(paths: &[impl AsRef<Path>]) -> Result<Vec<Topology>> {
    let mut topologies: Vec<Topology> = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let read = document::topologies(&text(path)?).with_context(|| format!("read {}", path.display()))?;
        for topology in read {
            if topologies.iter().any(|other| other.name == topology.name) {
                bail!("read {}: topology {} is given twice; rename or leave out one", path.display(), topology.name);
            }
            topologies.push(topology);
        }
    }
    Ok(topologies)
}

/// The unit files in a directory and the drop-ins in the directories in it, by their paths below it.
///
/// # Errors
/// Names what cannot be read.
pub fn unit_files(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (name, path) in entries(directory)? {
        if path.is_file() {
            files.insert(name, text(&path)?);
        } else if name.ends_with(".d") {
            let inside = entries(&path)?.into_iter().filter(|(_, path)| path.is_file());
            for (drop_in, path) in inside {
                files.insert(format!("{name}/{drop_in}"), text(&path)?);
            }
        }
    }
    Ok(files)
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let named = || format!("read {}", directory.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(named)? {
        let entry = entry.with_context(named)?;
        entries.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(entries)
}

fn tree(root: &Path) -> Result<Host> {
    let hardware = hardware::read(root, "").with_context(|| format!("look at the machine below {}", root.display()))?;
    Ok(Host { name: host_name(root), hardware: Some(hardware), ..Host::default() })
}

/// What the machine below `root` calls itself; a tree that does not say is called as its directory.
pub fn host_name(root: &Path) -> String {
    let own = std::fs::read_to_string(root.join("proc/sys/kernel/hostname"));
    let own = own.or_else(|_| std::fs::read_to_string(root.join("etc/hostname"))).unwrap_or_default();
    let own: String = own.trim().chars().filter(|character| !character.is_control()).take(253).collect();
    if own.is_empty() { stem(root) } else { own }
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// Names the file that cannot be read.
pub fn text(path: &Path) -> Result<String> {
    let named = || format!("read {}", path.display());
    let mut text = String::new();
    let mut reader: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        Some(_) | None => Box::new(std::fs::File::open(path).with_context(named)?),
    };
    let length = reader.by_ref().take(LARGEST_FILE + 1).read_to_string(&mut text).with_context(named)?;
    if length as u64 > LARGEST_FILE {
        bail!("read {}: it holds more than {LARGEST_FILE} bytes; split it", path.display());
    }
    Ok(text)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    stem.filter(|stem| stem != "-").unwrap_or_else(|| "host".to_owned())
}
