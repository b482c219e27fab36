//! Watches directories with inotify: where unit files and drop-ins stand, delivered files, and the cgroups of slices and
//! services. Directories come and go; whoever asks has them looked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use futures::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use lamina_crds::TopologyName;

use super::Wake;
use crate::host::root::Root;
use crate::host::search_path::{Concern, UNIT_DIRECTORIES, WANTS, concern};
use crate::host::{cgroups, unit_dir};
use crate::host_path::{FILES, HostPath};
use crate::property::Property;

/// What lies in a watched directory; decides which of its events count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Units and directories of drop-ins: names of our topologies count.
    Units(String),
    /// Drop-ins or delivered files: everything counts.
    Files(String),
    /// Parents of directories that may yet come: only those count.
    Parent(String),
    /// A cgroup: managed settings count, and cgroups that come and go.
    Cgroup(String),
}

/// The watched directories.
pub struct Directories {
    root: Root,
    events: EventStream<Vec<u8>>,
    places: BTreeMap<i32, (WatchDescriptor, Place)>,
    topologies: BTreeSet<TopologyName>,
}

impl Directories {
    /// No directory yet.
    ///
    /// # Errors
    /// Whatever the kernel says to a new inotify instance.
    pub fn new(root: Root) -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream(vec![0; 16 * 1024])?;
        Ok(Self { root, events, places: BTreeMap::new(), topologies: BTreeSet::new() })
    }

    /// Watches everything there is for these topologies; says whether a directory is new.
    pub fn arm(&mut self, topologies: &BTreeSet<TopologyName>) -> io::Result<bool> {
        self.topologies.clone_from(topologies);
        let mut found = BTreeMap::new();
        for place in wanted(&self.root, topologies)? {
            if let Some(descriptor) = self.add(&place)? {
                found.insert(descriptor.get_watch_descriptor_id(), (descriptor, place));
            }
        }
        let is_new = found.keys().any(|id| !self.places.contains_key(id));
        for (id, (descriptor, _)) in std::mem::replace(&mut self.places, found) {
            if !self.places.contains_key(&id) {
                // The kernel has dropped the watch already if the directory is gone.
                let _ = self.events.watches().remove(descriptor);
            }
        }
        Ok(is_new)
    }

    fn add(&mut self, place: &Place) -> io::Result<Option<WatchDescriptor>> {
        let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ONLYDIR;
        let (path, mask) = match place {
            Place::Units(path) | Place::Files(path) => (
                self.root.path().join(path.trim_start_matches('/')),
                names | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB,
            ),
            Place::Parent(path) => (self.root.path().join(path.trim_start_matches('/')), names),
            Place::Cgroup(path) => (self.root.kernel(path), names | WatchMask::MODIFY),
        };
        match self.events.watches().add(&path, mask) {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("watch {}: {error}", path.display()))),
        }
    }

    /// Waits for an event that counts.
    pub async fn next(&mut self) -> Wake {
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    if let Some(wake) = self.counts(&event) {
                        return wake;
                    }
                }
                // Neither ends in practice; the re-check goes on without.
                Some(Err(_)) | None => std::future::pending().await,
            }
        }
    }

    fn counts(&self, event: &Event<std::ffi::OsString>) -> Option<Wake> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Some(Wake::File("too much at once; something".to_owned()));
        }
        let (_, place) = self.places.get(&event.wd.get_watch_descriptor_id())?;
        let name = event.name.as_ref().and_then(|name| name.to_str()).unwrap_or_default();
        if event.mask.contains(EventMask::IGNORED) || name.ends_with(".lamina-new") {
            return None;
        }
        place.counts(name, event.mask.contains(EventMask::ISDIR), &self.topologies)
    }
}

impl Place {
    fn counts(&self, name: &str, is_directory: bool, topologies: &BTreeSet<TopologyName>) -> Option<Wake> {
        let is_ours = || topologies.iter().any(|topology| concern(name, topology) != Concern::None);
        match self {
            Self::Units(path) if is_ours() => Some(Wake::File(format!("{path}/{name}"))),
            Self::Files(path) => Some(Wake::File(format!("{path}/{name}"))),
            Self::Parent(path) if is_directory => {
                let child = format!("{path}/{name}");
                let is_awaited =
                    UNIT_DIRECTORIES.contains(&child.as_str()) || child == WANTS || child.starts_with(FILES);
                is_awaited.then_some(Wake::File(child))
            }
            Self::Cgroup(path) if is_directory || is_setting(name) => Some(Wake::Cgroup(format!("{path}/{name}"))),
            Self::Units(_) | Self::Parent(_) | Self::Cgroup(_) => None,
        }
    }
}

fn is_setting(file: &str) -> bool {
    Property::ALL.into_iter().any(|property| property.cgroup_file() == file)
}

/// Every directory that matters to these topologies, whether or not it is there.
fn wanted(root: &Root, topologies: &BTreeSet<TopologyName>) -> io::Result<Vec<Place>> {
    if topologies.is_empty() {
        return Ok(Vec::new());
    }
    let mut places = vec![
        Place::Parent("/etc/systemd".to_owned()),
        Place::Parent("/run/systemd".to_owned()),
        Place::Parent("/etc/lamina".to_owned()),
        Place::Parent(FILES.to_owned()),
        Place::Units(WANTS.to_owned()),
    ];
    for directory in UNIT_DIRECTORIES {
        places.push(Place::Units(directory.to_owned()));
        let is_drop_ins =
            |name: &&String| topologies.iter().any(|topology| concern(name, topology) == Concern::DropIns);
        let names = unit_dir::names(root, &HostPath::new(directory))?;
        places.extend(names.iter().filter(is_drop_ins).map(|name| Place::Files(format!("{directory}/{name}"))));
    }
    places.extend(topologies.iter().map(|topology| Place::Files(format!("{FILES}/{topology}"))));
    if let Some(mount) = cgroups::mount(root)? {
        for topology in topologies {
            places.extend(groups(root, format!("{mount}/{}.slice", topology.as_str().replace('-', "_")))?);
        }
    }
    Ok(places)
}

/// A cgroup and everything below it.
fn groups(root: &Root, group: String) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for child in cgroups::children(root, "", &group)? {
        places.extend(groups(root, format!("{group}/{child}"))?);
    }
    places.push(Place::Cgroup(group));
    Ok(places)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make files of their own")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    struct Host(tempfile::TempDir, Directories);

    fn host() -> Host {
        let directory = tempfile::tempdir().expect("a directory");
        for path in ["etc/systemd/system", "run/systemd", "sys/fs/cgroup/app.slice/app-a.slice", "sys/devices"] {
            fs::create_dir_all(directory.path().join(path)).expect("directories");
        }
        fs::write(directory.path().join("sys/fs/cgroup/cgroup.controllers"), "cpuset\n").expect("a file");
        let directories = Directories::new(Root::new(directory.path())).expect("inotify");
        let mut host = Host(directory, directories);
        assert!(host.arm(), "every directory is new at first");
        assert!(!host.arm(), "and known afterwards");
        host
    }

    impl Host {
        fn arm(&mut self) -> bool {
            let topology = TopologyName::new("app").expect("legal");
            self.1.arm(&BTreeSet::from([topology])).expect("armed")
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.0.path().join(path), text).expect("written");
        }

        async fn wake(&mut self) -> Option<Wake> {
            tokio::time::timeout(Duration::from_millis(300), self.1.next()).await.ok()
        }
    }

    #[tokio::test]
    async fn an_edit_of_a_unit_wakes_and_one_of_a_stranger_does_not() {
        let mut host = host();
        host.write("etc/systemd/system/other.service", "[Service]");
        host.write("etc/systemd/system/.app-a.slice.lamina-new", "[Slice]");
        assert_eq!(host.wake().await, None);
        host.write("etc/systemd/system/app-a.slice", "[Slice]");
        assert_eq!(host.wake().await, Some(Wake::File("/etc/systemd/system/app-a.slice".to_owned())));
    }

    #[tokio::test]
    async fn a_new_directory_of_drop_ins_wakes_and_is_watched_once_armed() {
        let mut host = host();
        fs::create_dir(host.0.path().join("etc/systemd/system/app-a.slice.d")).expect("a directory");
        assert!(host.wake().await.is_some());
        assert!(host.arm());
        host.write("etc/systemd/system/app-a.slice.d/override.conf", "[Slice]");
        assert!(host.wake().await.is_some());
    }

    #[tokio::test]
    async fn a_directory_of_pushes_that_comes_later_wakes() {
        let mut host = host();
        fs::create_dir_all(host.0.path().join("run/systemd/system.control/app.slice.d")).expect("directories");
        assert_eq!(host.wake().await, Some(Wake::File("/run/systemd/system.control".to_owned())));
        assert!(host.arm());
    }

    #[tokio::test]
    async fn a_write_to_a_managed_setting_of_a_cgroup_wakes_and_one_to_another_file_does_not() {
        let mut host = host();
        host.write("sys/fs/cgroup/app.slice/app-a.slice/memory.events", "x");
        assert_eq!(host.wake().await, None);
        host.write("sys/fs/cgroup/app.slice/app-a.slice/cpuset.cpus", "0-3");
        let expected = "/sys/fs/cgroup/app.slice/app-a.slice/cpuset.cpus".to_owned();
        assert_eq!(host.wake().await, Some(Wake::Cgroup(expected)));
    }
}
