//! Reads what a process was started with: from systemd's properties, from the process itself, and from the files that it
//! was given. Only of processes that were not started from a text of Lamina's.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use lamina_crds::UnitName;
use zbus::Variant;

use crate::host::bus::PropertyMap;
use crate::host::root::{Root, is_gone};
use crate::host::unit_dir;
use crate::host::unit_properties::{bytes, number, text, texts};
use crate::host_path::HostPath;
use crate::observed::ObservedUnit;
use crate::start_settings::{LIMIT_KEYS, Limits, StartSettings};

/// Settings that no topology can ask for and that change where a process runs or what it is given, with what they are
/// where nobody sets them.
const FURTHER: [&str; 6] =
    ["CPUAffinity", "PassEnvironment", "RootDirectory", "RootImage", "SupplementaryGroups", "UnsetEnvironment"];

/// What systemd has loaded of a service; `None` for other units.
pub fn read(properties: &PropertyMap<'_>) -> Option<StartSettings> {
    let commands = structures(properties.get("ExecStart")?);
    let files = properties.get("EnvironmentFiles").map(structures).unwrap_or_default();
    let mut settings = StartSettings {
        command: if let [command] = commands.as_slice() { argv(command) } else { Vec::new() },
        user: text(properties, "User"),
        group: text(properties, "Group"),
        working_directory: text(properties, "WorkingDirectory"),
        environment: texts(properties, "Environment"),
        limits: limits(properties, ""),
        further: FURTHER.into_iter().filter(|key| properties.get(*key).is_some_and(is_set)).collect(),
        started_at: number(properties, "ExecMainStartTimestamp").unwrap_or_default(),
        ..StartSettings::default()
    };
    for file in files {
        let [Variant::Str(path), Variant::Bool(is_optional)] = file else { continue };
        settings.environment_files.push(path.as_str().to_owned());
        if *is_optional {
            settings.contents.insert(path.as_str().to_owned(), String::new());
        }
    }
    Some(settings)
}

/// The limits among properties whose keys begin so.
pub fn limits(properties: &PropertyMap<'_>, beginning: &str) -> Limits {
    let limit = |key: &'static str| {
        let hard = number(properties, &format!("{beginning}{key}"))?;
        let soft = number(properties, &format!("{beginning}{key}Soft"))?;
        Some((key, (soft, hard)))
    };
    LIMIT_KEYS.into_iter().filter_map(limit).collect()
}

fn structures<'a, 'v>(value: &'a Variant<'v>) -> Vec<&'a [Variant<'v>]> {
    let Variant::Array(array) = value else { return Vec::new() };
    let fields = |item: &'a Variant<'v>| match item {
        Variant::Structure(structure) => Some(structure.fields()),
        _ => None,
    };
    array.inner().iter().filter_map(fields).collect()
}

/// The argument vector of one `ExecStart`: its second field.
fn argv(command: &[Variant<'_>]) -> Vec<String> {
    let Some(Variant::Array(array)) = command.get(1) else { return Vec::new() };
    let word = |item: &Variant<'_>| match item {
        Variant::Str(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    array.inner().iter().filter_map(word).collect()
}

fn is_set(value: &Variant<'_>) -> bool {
    match value {
        Variant::Str(text) => !text.as_str().is_empty(),
        Variant::Array(array) => match bytes(value) {
            Some(mask) => mask.iter().any(|byte| *byte != 0),
            None => !array.inner().is_empty(),
        },
        _ => false,
    }
}

/// Adds what the process and the files show.
///
/// # Errors
/// Whatever reading says, but for what is gone or closed to the agent.
pub fn complete(
    root: &Root,
    unit: &UnitName,
    seen: &ObservedUnit,
    asked_files: &[&str],
    settings: &mut StartSettings,
) -> io::Result<()> {
    settings.process = command_line(root, seen.main_pid)?;
    let paths: Vec<String> =
        settings.environment_files.iter().cloned().chain(asked_files.iter().map(ToString::to_string)).collect();
    for path in paths {
        let content = unit_dir::read(root, &HostPath::new(path.clone())).ok().flatten();
        if let Some(content) = content.and_then(|content| String::from_utf8(content).ok()) {
            settings.contents.insert(path, content);
        }
    }
    let own = HostPath::drop_in(unit).directory();
    let drop_ins = seen.drop_in_paths.iter().filter(|path| HostPath::new(path.as_str()).directory() == own);
    let files = settings.environment_files.iter().chain([&seen.fragment_path]).chain(drop_ins).cloned();
    for path in files.filter(|path| !path.is_empty()).collect::<Vec<_>>() {
        let changed = unit_dir::changed_at(root, &HostPath::new(path.clone()))?;
        if changed.is_some_and(|at| at > settings.started_at) {
            settings.changed.insert(path);
        }
    }
    Ok(())
}

/// How often, and how far apart, a process is looked at that systemd has made and that is not the program yet.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// The words of a process, once it is the program that it was made for.
fn command_line(root: &Root, process: u32) -> io::Result<Vec<String>> {
    let mut words = words(root, process)?;
    for _ in 1..LOOKS {
        if !is_before_exec(&words) {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        words = self::words(root, process)?;
    }
    Ok(words)
}

/// Until it becomes the program, a process of systemd's bears the program's name in parentheses, and nothing else (seen
/// on 257, where another program stands in between).
fn is_before_exec(words: &[String]) -> bool {
    let named = words.first().is_some_and(|name| name.starts_with('(') && name.ends_with(')'));
    named && words[1..].iter().all(String::is_empty)
}

fn words(root: &Root, process: u32) -> io::Result<Vec<String>> {
    match root.read_kernel(&format!("/proc/{process}/cmdline")) {
        Ok(text) => {
            let text = text.unwrap_or_default();
            Ok(text.strip_suffix('\0').unwrap_or(&text).split('\0').map(str::to_owned).collect())
        }
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::InvalidData => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Adds what the processes and files show to every unit that has a past.
///
/// # Errors
/// As [`complete`].
pub fn complete_all(
    root: &Root,
    units: &mut BTreeMap<UnitName, ObservedUnit>,
    asked_files: &[&str],
    default_limits: &Limits,
) -> io::Result<()> {
    for (name, unit) in units {
        let is_foreign = unit.main_pid != 0 && unit.started_from.is_none();
        let Some(mut settings) = unit.past.take().filter(|_| is_foreign) else { continue };
        settings.default_limits.clone_from(default_limits);
        complete(root, name, unit, asked_files, &mut settings)?;
        unit.past = Some(settings);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_the_program_yet_is_known() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(is_before_exec(&words(&["(sleep)", "", ""])));
        assert!(!is_before_exec(&words(&["/bin/sleep", "1000"])));
        assert!(!is_before_exec(&words(&["(odd)", "-v"])));
        assert!(!is_before_exec(&[]));
    }

    #[test]
    fn a_services_properties_become_what_it_was_started_with() {
        let properties = PropertyMap::from([
            ("ExecStart", Variant::from(vec![("/bin/x", vec!["/bin/x", "-v"], false)])),
            ("User", Variant::from("app")),
            ("Environment", Variant::from(vec!["A=1"])),
            ("EnvironmentFiles", Variant::from(vec![("/etc/x.env", true), ("/etc/y.env", false)])),
            ("LimitNOFILE", Variant::from(4096_u64)),
            ("LimitNOFILESoft", Variant::from(1024_u64)),
            ("CPUAffinity", Variant::from(vec![0x00_u8, 0x01])),
            ("SupplementaryGroups", Variant::from(Vec::<&str>::new())),
            ("ExecMainStartTimestamp", Variant::from(7_u64)),
        ]);
        let settings = read(&properties).expect("a service");
        assert_eq!(settings.command, ["/bin/x", "-v"]);
        assert_eq!((settings.user.as_str(), settings.started_at), ("app", 7));
        assert_eq!(settings.environment, ["A=1"]);
        assert_eq!(settings.environment_files, ["/etc/x.env", "/etc/y.env"]);
        assert_eq!(settings.contents.keys().collect::<Vec<_>>(), ["/etc/x.env"], "one that may be missing is empty");
        assert_eq!(settings.limits, Limits::from([("LimitNOFILE", (1024, 4096))]));
        assert_eq!(settings.further.iter().copied().collect::<Vec<_>>(), ["CPUAffinity"]);
        assert!(read(&PropertyMap::from([("User", Variant::from("app"))])).is_none(), "a slice has no command");
    }

    #[test]
    fn several_commands_are_none_that_could_be_asked_for() {
        let commands = vec![("/bin/x", vec!["/bin/x"], false), ("/bin/y", vec!["/bin/y"], false)];
        let properties = PropertyMap::from([("ExecStart", Variant::from(commands))]);
        assert_eq!(read(&properties).map(|settings| settings.command), Some(Vec::new()));
    }
}
