//! What systemd makes of a unit's files: fragment first, drop-ins by file name across all directories. The rules of
//! precedence are systemd.unit(5)'s, and each is a fact seen on real systemd.

use std::collections::BTreeMap;
use std::rc::Rc;

use lamina_crds::wishes::MemoryPolicy;
use lamina_crds::{CpuSet, NodeSet, UnitKind, UnitName};
use lamina_node_agent::desired::TextDigests;
use lamina_node_agent::numa::NumaPolicy;
use lamina_node_agent::property::{Properties, Property, Value};

use super::disk::{Disk, Entry};
use super::unit_file::{Assignment, command, words};

/// Where unit files are looked for, the first one wins.
pub const SEARCH: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// A unit as systemd has it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// `LoadState`.
    pub state: LoadState,
    /// The disk's count of changes when this was read.
    pub revision: u64,
    /// `FragmentPath`.
    pub fragment: Option<String>,
    /// `DropInPaths`.
    pub drop_ins: Vec<String>,
    /// When fragment and drop-ins were last written, as of loading.
    pub stamps: Vec<u64>,
    /// Resource settings that a file or a push set.
    pub properties: Properties,
    /// `NUMAPolicy=` and `NUMAMask=`.
    pub numa: Option<NumaPolicy>,
    /// What a start runs.
    pub program: Rc<Program>,
    /// `Slice=`; `None` is `system.slice`.
    pub slice: Option<UnitName>,
    /// `LogExtraFields=`, which add up.
    log_fields: BTreeMap<String, String>,
    /// The digests among them.
    pub digests: Option<TextDigests>,
    /// `After=`, as far as such units may be managed.
    pub after: Vec<UnitName>,
    /// Whether a failure starts it again.
    pub restarts: bool,
}

/// `LoadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// Files were found and read.
    Loaded,
    /// There is no file.
    NotFound,
    /// The file is empty or a link to /dev/null.
    Masked,
    /// The file cannot be read as a unit file.
    Error,
    /// A service without a program.
    BadSetting,
}

/// What a start runs, after quotes and escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `User=`.
    pub user: String,
    /// `WorkingDirectory=`.
    pub working_directory: String,
    /// `Environment=`, the last value of a name wins.
    pub environment: BTreeMap<String, String>,
    /// `EnvironmentFile=`.
    pub env_files: Vec<String>,
    /// `Limit*=`, by key.
    pub limits: BTreeMap<String, String>,
}

impl LoadState {
    /// The word on D-Bus.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::NotFound => "not-found",
            Self::Masked => "masked",
            Self::Error => "error",
            Self::BadSetting => "bad-setting",
        }
    }
}

/// Reads a unit from disk.
pub fn load(disk: &Disk, unit: &UnitName) -> Loaded {
    let (fragment, state) = fragment(disk, unit);
    let drop_ins = drop_ins(disk, unit);
    let mut loaded = Loaded { state, ..Loaded::empty() };
    loaded.stamps = fragment.iter().chain(&drop_ins).map(|path| disk.changed(path)).collect();
    if state == LoadState::Loaded {
        let mut program = Program::default();
        for path in fragment.iter().chain(&drop_ins) {
            let Some(read) = disk.assignments(path) else { continue };
            match &*read {
                Ok(found) => found.iter().for_each(|each| loaded.assign(unit.kind(), each, &mut program)),
                Err(_) if Some(path) == fragment.as_ref() => loaded.state = LoadState::Error,
                Err(_) => {}
            }
        }
        if unit.kind() == UnitKind::Service && program.command.is_empty() && loaded.state == LoadState::Loaded {
            loaded.state = LoadState::BadSetting;
        }
        loaded.program = Rc::new(program);
    }
    Loaded { fragment, drop_ins, revision: disk.revision, ..loaded }
}

/// Whether files differ from what was loaded, as `NeedDaemonReload` sees it: by paths and times of writing.
pub fn needs_reload(disk: &Disk, unit: &UnitName, loaded: &Loaded, version: u32) -> bool {
    let on_disk = disk.unit(unit);
    let mut present: Vec<&String> = on_disk.drop_ins.iter().collect();
    if version < 253 {
        // The first drop-in in a new directory goes unnoticed there.
        let known =
            |path: &String| loaded.drop_ins.iter().any(|old| super::disk::parent(old) == super::disk::parent(path));
        present.retain(|path| known(path));
    }
    let newer = |(path, stamp): (&String, &u64)| disk.changed(path) > *stamp;
    on_disk.fragment != loaded.fragment
        || !present.into_iter().eq(&loaded.drop_ins)
        || loaded.fragment.iter().chain(&loaded.drop_ins).zip(&loaded.stamps).any(newer)
}

fn fragment(disk: &Disk, unit: &UnitName) -> (Option<String>, LoadState) {
    for directory in SEARCH {
        let path = format!("{directory}/{unit}");
        match disk.entry(&path) {
            None => {}
            Some(Entry::Directory) => return (None, LoadState::NotFound),
            Some(Entry::Link(target)) if &**target == "/dev/null" => return (Some(path), LoadState::Masked),
            Some(Entry::Link(_)) => return (None, LoadState::NotFound),
            Some(Entry::File(_)) => {
                let is_empty = disk.read(&path).is_none_or(|content| content.is_empty());
                return (Some(path), if is_empty { LoadState::Masked } else { LoadState::Loaded });
            }
        }
    }
    (None, LoadState::NotFound)
}

/// Paths of all drop-ins in the order in which they are read.
fn drop_ins(disk: &Disk, unit: &UnitName) -> Vec<String> {
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    for name in drop_in_names(unit) {
        for search in SEARCH {
            let directory = format!("{search}/{name}");
            if disk.entry(&directory).is_none() {
                continue;
            }
            for (path, entry) in disk.list(&directory) {
                let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
                if name.ends_with(".conf") && !matches!(entry, Entry::Directory) {
                    by_name.entry(name).or_insert(path);
                }
            }
        }
    }
    by_name.into_values().map(str::to_owned).collect()
}

/// Names of directories of drop-ins, the most specific first: the unit's own, those of its prefixes, that of its type.
pub fn drop_in_names(unit: &UnitName) -> Vec<String> {
    let suffix = match unit.kind() {
        UnitKind::Slice => "slice",
        UnitKind::Service => "service",
    };
    let stem = unit.stem();
    let prefixes = stem.rmatch_indices('-').map(|(at, _)| format!("{}.{suffix}.d", &stem[..=at]));
    std::iter::once(format!("{unit}.d")).chain(prefixes).chain([format!("{suffix}.d")]).collect()
}

impl Loaded {
    /// A unit of which nothing is known.
    pub fn empty() -> Self {
        Self {
            state: LoadState::NotFound,
            revision: 0,
            fragment: None,
            drop_ins: Vec::new(),
            stamps: Vec::new(),
            properties: Properties::new(),
            numa: None,
            program: Rc::default(),
            slice: None,
            log_fields: BTreeMap::new(),
            digests: None,
            after: Vec::new(),
            restarts: false,
        }
    }

    fn assign(&mut self, kind: UnitKind, assignment: &Assignment, program: &mut Program) {
        let Assignment { section, key, value } = assignment;
        match (section.as_str(), kind) {
            ("Unit", _) if key == "After" => self.after.extend(value.split_whitespace().filter_map(unit_name)),
            ("Slice", UnitKind::Slice) => self.set_property(key, value),
            ("Service", UnitKind::Service) => {
                self.set_property(key, value);
                self.set_service(key, value, program);
            }
            _ => {}
        }
    }

    fn set_property(&mut self, key: &str, text: &str) {
        let Some(property) = Property::ALL.into_iter().find(|property| property.key() == key) else { return };
        if text.is_empty() {
            self.properties.remove(&property);
        } else if let Some(value) = parse(property, text) {
            let merged = match (self.properties.get(&property), value) {
                (Some(Value::Cpus(old)), Value::Cpus(new)) => Value::Cpus(old.union(&new)),
                (Some(Value::Nodes(old)), Value::Nodes(new)) => Value::Nodes(old.union(&new)),
                (_, value) => value,
            };
            self.properties.insert(property, merged);
        }
    }

    fn set_service(&mut self, key: &str, value: &str, program: &mut Program) {
        match key {
            "ExecStart" if value.is_empty() => program.command.clear(),
            "ExecStart" => program.command = command(value).unwrap_or_default(),
            "User" => value.clone_into(&mut program.user),
            "WorkingDirectory" => program.working_directory = words(value).unwrap_or_default().join(" "),
            "Environment" => program.environment.extend(pairs(value)),
            "EnvironmentFile" => program.env_files.extend(words(value).unwrap_or_default()),
            "Slice" => self.slice = unit_name(value).filter(|unit| unit.kind() == UnitKind::Slice),
            "NUMAPolicy" => {
                let policy = POLICIES.into_iter().find(|(word, _)| *word == value);
                self.numa = policy.map(|(_, policy)| NumaPolicy { policy, nodes: NodeSet::new() });
            }
            "NUMAMask" => {
                if let Some(numa) = &mut self.numa {
                    numa.nodes = value.parse().unwrap_or_default();
                }
            }
            "Restart" => self.restarts = matches!(value, "always" | "on-failure"),
            "LogExtraFields" if value.is_empty() => self.log_fields.clear(),
            "LogExtraFields" => {
                self.log_fields.extend(pairs(value));
                self.digests = digests(&self.log_fields);
            }
            limit if limit.starts_with("Limit") => {
                program.limits.insert(limit.to_owned(), value.to_owned());
            }
            _ => {}
        }
    }
}

/// systemd.exec(5), `NUMAPolicy=`.
const POLICIES: [(&str, MemoryPolicy); 5] = [
    ("default", MemoryPolicy::Default),
    ("local", MemoryPolicy::Local),
    ("preferred", MemoryPolicy::Preferred),
    ("bind", MemoryPolicy::Bind),
    ("interleave", MemoryPolicy::Interleave),
];

fn unit_name(text: &str) -> Option<UnitName> {
    UnitName::new(text).ok()
}

fn pairs(value: &str) -> impl Iterator<Item = (String, String)> {
    let words = words(value).unwrap_or_default();
    words.into_iter().filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn digests(fields: &BTreeMap<String, String>) -> Option<TextDigests> {
    let field = |name: &str| fields.get(name).cloned();
    Some(TextDigests { text: field("LAMINA_TEXT")?, start: field("LAMINA_START")?, derived: field("LAMINA_DERIVED")? })
}

/// The value behind a key, as systemd would take it; `None` where it warns and ignores it.
fn parse(property: Property, text: &str) -> Option<Value> {
    let list = || text.split_whitespace().collect::<Vec<_>>().join(",");
    match property {
        Property::AllowedCpus => list().parse::<CpuSet>().ok().map(Value::Cpus),
        Property::AllowedMemoryNodes => list().parse::<NodeSet>().ok().map(Value::Nodes),
        Property::IoWeight => text.parse().ok().filter(|weight| (1..=10_000).contains(weight)).map(Value::Number),
        Property::TasksMax if text == "infinity" => Some(Value::Infinity),
        Property::TasksMax => text.parse().ok().filter(|most| *most > 0).map(Value::Number),
        Property::MemoryMin
        | Property::MemoryLow
        | Property::MemoryHigh
        | Property::MemoryMax
        | Property::MemorySwapMax => bytes(text),
    }
}

fn bytes(text: &str) -> Option<Value> {
    if text == "infinity" {
        return Some(Value::Infinity);
    }
    let shift = match text.as_bytes().last()? {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok().map(|number| Value::Number(number << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice() -> UnitName {
        UnitName::new("lam-a.slice").expect("legal")
    }

    #[test]
    fn drop_ins_are_ordered_by_name_and_lists_add_up_until_they_are_reset() {
        let mut disk = Disk::default();
        disk.put("/etc/systemd/system/lam-a.slice", b"[Slice]\nAllowedCPUs=0-3\nMemoryMax=1G\n");
        disk.put("/etc/systemd/system/lam-.slice.d/60-x.conf", b"[Slice]\nAllowedCPUs=7\n");
        let cpus = |disk: &Disk| load(disk, &slice()).properties[&Property::AllowedCpus].to_string();
        assert_eq!(cpus(&disk), "0-3,7");
        disk.put("/etc/systemd/system/lam-a.slice.d/zz.conf", b"[Slice]\nAllowedCPUs=\nAllowedCPUs=4\n");
        assert_eq!(cpus(&disk), "4");
        disk.put(
            "/run/systemd/system.control/lam-a.slice.d/50-AllowedCPUs.conf",
            b"[Slice]\nAllowedCPUs=\nAllowedCPUs=9\n",
        );
        assert_eq!(cpus(&disk), "4", "zz sorts after 50-");
    }

    #[test]
    fn an_empty_file_masks_and_a_broken_one_is_an_error() {
        let mut disk = Disk::default();
        disk.put("/etc/systemd/system/lam-a.slice", b"");
        assert_eq!(load(&disk, &slice()).state, LoadState::Masked);
        disk.put("/etc/systemd/system/lam-a.slice", b"[Slice\n");
        assert_eq!(load(&disk, &slice()).state, LoadState::Error);
    }

    #[test]
    fn the_first_drop_in_of_a_new_directory_is_noticed_from_253_on() {
        let mut disk = Disk::default();
        disk.put("/etc/systemd/system/lam-a.slice", b"[Slice]\n");
        let loaded = load(&disk, &slice());
        disk.put("/etc/systemd/system/lam-a.slice.d/a.conf", b"[Slice]\n");
        assert!(!needs_reload(&disk, &slice(), &loaded, 252));
        assert!(needs_reload(&disk, &slice(), &loaded, 257));
    }
}
