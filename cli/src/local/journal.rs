//! Notes every effect on the host as it happens, for those who watch and for the table at the end.

use std::collections::BTreeMap;

use lamina_crds::{Hardware, UnitName};
use lamina_node_agent::host::{Host, HostError, JobResult};
use lamina_node_agent::host_path::{FILES, HostPath, UNIT_DIRECTORY};
use lamina_node_agent::observed::{ObservedHost, Scope};
use lamina_node_agent::property::Properties;

/// A host that tells what is done to it.
pub struct Journal<H> {
    /// The host.
    pub host: H,
    deeds: BTreeMap<String, Vec<String>>,
    listener: fn(&str, &str),
}

impl<H> Journal<H> {
    /// Notes what is done to this host, and tells it at once to the listener: the object and the deed.
    pub fn new(host: H, listener: fn(&str, &str)) -> Self {
        Self { host, deeds: BTreeMap::new(), listener }
    }

    /// What was done, by unit, file or "systemd", each deed once and in order.
    pub fn deeds(&self) -> &BTreeMap<String, Vec<String>> {
        &self.deeds
    }

    fn note<T>(&mut self, object: String, deed: String, outcome: &Result<T, HostError>) {
        let deed = if outcome.is_ok() { deed } else { format!("{deed}: failed") };
        (self.listener)(&object, &deed);
        let deeds = self.deeds.entry(object).or_default();
        if !deeds.contains(&deed) {
            deeds.push(deed);
        }
    }

    fn note_file(&mut self, path: &HostPath, deed: &str, outcome: &Result<(), HostError>) {
        if let Some(object) = object_of(path) {
            self.note(object, deed.to_owned(), outcome);
        }
    }
}

/// What people call the owner of a file: its unit, or the delivered file itself; nothing for the agent's own files.
fn object_of(path: &HostPath) -> Option<String> {
    let is_below = |directory: &str| path.as_str().starts_with(&format!("{directory}/"));
    match path.unit() {
        _ if path.is_staging() => None,
        Some(unit) if is_below(UNIT_DIRECTORY) => Some(unit.to_string()),
        Some(_) | None if is_below(FILES) => Some(path.to_string()),
        Some(_) | None => None,
    }
}

fn job(verb: &str, outcome: &Result<JobResult, HostError>) -> String {
    match outcome {
        Ok(JobResult::Other(result)) => format!("{verb}: {result}"),
        Ok(JobResult::Done) | Err(_) => verb.to_owned(),
    }
}

impl<H: Host> Host for Journal<H> {
    async fn hardware(&mut self) -> Result<Hardware, HostError> {
        self.host.hardware().await
    }

    async fn observe(&mut self, scope: &Scope) -> Result<ObservedHost, HostError> {
        self.host.observe(scope).await
    }

    async fn read(&mut self, path: &HostPath) -> Result<Option<Vec<u8>>, HostError> {
        self.host.read(path).await
    }

    async fn make_directory(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.host.make_directory(path).await
    }

    async fn write(&mut self, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
        self.host.write(path, content).await
    }

    async fn mode(&mut self, path: &HostPath) -> Result<u32, HostError> {
        self.host.mode(path).await
    }

    async fn set_mode(&mut self, path: &HostPath, mode: u32) -> Result<(), HostError> {
        self.host.set_mode(path, mode).await
    }

    async fn sync(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.host.sync(path).await
    }

    async fn rename(&mut self, from: &HostPath, to: &HostPath) -> Result<(), HostError> {
        let outcome = self.host.rename(from, to).await;
        self.note_file(to, "written", &outcome);
        outcome
    }

    async fn link(&mut self, path: &HostPath, target: &str) -> Result<(), HostError> {
        let outcome = self.host.link(path, target).await;
        self.note_file(path, "enabled", &outcome);
        outcome
    }

    async fn remove(&mut self, path: &HostPath) -> Result<(), HostError> {
        let outcome = self.host.remove(path).await;
        self.note_file(path, "removed", &outcome);
        outcome
    }

    async fn reload(&mut self) -> Result<(), HostError> {
        let outcome = self.host.reload().await;
        self.note("systemd".to_owned(), "reloaded".to_owned(), &outcome);
        outcome
    }

    async fn start(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        let outcome = self.host.start(unit).await;
        self.note(unit.to_string(), job("started", &outcome), &outcome);
        outcome
    }

    async fn stop(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        let outcome = self.host.stop(unit).await;
        self.note(unit.to_string(), job("stopped", &outcome), &outcome);
        outcome
    }

    async fn restart(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        let outcome = self.host.restart(unit).await;
        self.note(unit.to_string(), job("restarted", &outcome), &outcome);
        outcome
    }

    async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError> {
        self.host.reset_failed(unit).await
    }

    async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError> {
        let outcome = self.host.set_properties(unit, properties).await;
        let values = properties.iter().map(|(property, value)| format!("{}={value}", property.key()));
        let deed = format!("set {}", values.collect::<Vec<String>>().join(" "));
        self.note(unit.to_string(), deed, &outcome);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_its_unit_and_the_agents_own_files_to_nobody() {
        let object = |path: &str| object_of(&HostPath::new(path));
        assert_eq!(object("/etc/systemd/system/web-a.service").as_deref(), Some("web-a.service"));
        assert_eq!(object("/etc/systemd/system/web-a.slice.d/zzzz-lamina.conf").as_deref(), Some("web-a.slice"));
        assert_eq!(object("/etc/lamina/files/web/a.env").as_deref(), Some("/etc/lamina/files/web/a.env"));
        assert_eq!(object("/run/systemd/system.control/web-a.slice.d/50-MemoryMax.conf"), None);
        assert_eq!(object("/var/lib/lamina/accepted.0"), None);
        assert_eq!(object("/etc/systemd/system/.web-a.service.lamina-new"), None);
    }
}
