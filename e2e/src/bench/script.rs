//! Writes down, as a shell script, what the agent did: the same files, one reload, the same starts in the same order.

use std::collections::BTreeSet;

use crate::fleet::example::{SERVICES, TOPOLOGY};
use crate::host::quoted;

/// Something to be written on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: String,
    /// What.
    pub what: What,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file of this text.
    Text(String),
    /// A link to this path.
    Link(String),
}

/// How the script is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As an administrator would: `cat` for each file, and `systemctl start` for each unit, one after another.
    Plain,
    /// With as few programs as can be: the shell writes all files itself, and one `systemctl` starts all units.
    Lean,
}

/// A script that writes all this, reloads systemd once and starts the example's units in their order.
pub fn script(files: &[Written], style: Style) -> String {
    let head = ["#!/bin/bash\nset -e".to_owned(), format!("mkdir -p {}", directories(files))];
    let writes = files.iter().map(|file| write(file, style));
    let units: Vec<String> = units().collect();
    let starts = match style {
        Style::Plain => units.iter().map(|unit| format!("systemctl start {unit}")).collect(),
        Style::Lean => vec![format!("systemctl start {}", units.join(" "))],
    };
    let lines = head.into_iter().chain(writes).chain(["systemctl daemon-reload".to_owned()]).chain(starts);
    lines.map(|line| line + "\n").collect()
}

fn directories(files: &[Written]) -> String {
    let directories = files.iter().filter_map(|file| Some(file.path.rsplit_once('/')?.0));
    let directories: BTreeSet<String> = directories.map(quoted).collect();
    directories.into_iter().collect::<Vec<_>>().join(" ")
}

fn write(Written { path, what }: &Written, style: Style) -> String {
    match (what, style) {
        (What::Link(target), _) => format!("ln -s {} {}", quoted(target), quoted(path)),
        (What::Text(text), Style::Plain) => {
            format!("cat > {} <<'END OF FILE'\n{}\nEND OF FILE", quoted(path), text.trim_end_matches('\n'))
        }
        (What::Text(text), Style::Lean) => format!("printf %s {} > {}", quoted(text), quoted(path)),
    }
}

/// Slices and services of the example in the order in which they start.
pub fn units() -> impl Iterator<Item = String> {
    let slices = ["", "-control", "-runner", "-fanout"].map(|slice| format!("{TOPOLOGY}{slice}.slice"));
    let services = SERVICES.map(|service| format!("{TOPOLOGY}-{service}.service"));
    slices.into_iter().chain(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_writes_then_reloads_then_starts() {
        let text = "[Slice]\nAllowedCPUs=0-7\n".to_owned();
        let files = [
            Written { path: "/etc/systemd/system/a.slice".to_owned(), what: What::Text(text) },
            Written { path: "/etc/systemd/system/b".to_owned(), what: What::Link("../a".to_owned()) },
        ];
        let begin = "#!/bin/bash\nset -e\nmkdir -p '/etc/systemd/system'\n\
            cat > '/etc/systemd/system/a.slice' <<'END OF FILE'\n[Slice]\nAllowedCPUs=0-7\nEND OF FILE\n\
            ln -s '../a' '/etc/systemd/system/b'\nsystemctl daemon-reload\nsystemctl start orchestrator.slice\n";
        let plain = script(&files, Style::Plain);
        assert!(plain.starts_with(begin), "{plain}");
        assert!(plain.ends_with("systemctl start orchestrator-fanout.service\n"), "{plain}");
        let lean = script(&files, Style::Lean);
        assert_eq!(lean.matches("systemctl").count(), 2, "{lean}");
    }
}
