//! The first layer of a host: files as everybody sees them, and the part of them that survives a loss of power.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use lamina_crds::UnitName;

use super::loaded::{Loaded, SEARCH, load};
use super::unit_file::{Assignment, Unreadable, assignments};
use lamina_trees::Random;

/// A disk with everything on it. Paths are absolute, without `.` or `..`; links are never followed.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What every process sees.
    names: BTreeMap<Rc<str>, Entry>,
    /// What the journal has made durable.
    durable: BTreeMap<Rc<str>, Entry>,
    /// Changes of names since, in their order.
    pending: Vec<Change>,
    files: Vec<File>,
    clock: u64,
    /// Counts the changes where systemd looks for units, so that what was read there need not be read again.
    pub revision: u64,
    /// Units as read since the last such change.
    read_units: RefCell<ReadUnits>,
    /// Whether writes fail for lack of space.
    pub is_full: bool,
}

/// Units as they were read at a revision of the disk.
type ReadUnits = (u64, BTreeMap<UnitName, Rc<Loaded>>);

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A regular file, by its place in the table of files.
    File(usize),
    /// A symbolic link and where it points.
    Link(Rc<str>),
}

/// A change of one or two names of a directory, which the file system makes durable as one.
#[derive(Clone, Debug)]
enum Change {
    Set(Rc<str>, Entry),
    Clear(Rc<str>),
    Move { from: Rc<str>, to: Rc<str>, entry: Entry },
}

#[derive(Clone, Debug)]
struct File {
    content: Rc<[u8]>,
    /// `None` until the first sync.
    durable: Option<Rc<[u8]>>,
    changed: u64,
    /// The content read as a unit file, once somebody did.
    assignments: OnceCell<Rc<Reading>>,
}

/// What a file says as a unit file.
pub type Reading = Result<Vec<Assignment>, Unreadable>;

/// Below which nothing survives a reboot.
const VOLATILE: &str = "/run/";

impl Disk {
    /// The unit as it is read from its files: once for each state of the disk.
    pub fn unit(&self, unit: &UnitName) -> Rc<Loaded> {
        let mut units = self.read_units.borrow_mut();
        if units.0 != self.revision {
            *units = (self.revision, BTreeMap::new());
        }
        Rc::clone(units.1.entry(unit.clone()).or_insert_with(|| Rc::new(load(self, unit))))
    }

    /// What stands at the path.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.names.get(path)
    }

    /// The content of the regular file at the path.
    pub fn read(&self, path: &str) -> Option<Rc<[u8]>> {
        match self.names.get(path)? {
            Entry::File(file) => Some(Rc::clone(&self.files[*file].content)),
            Entry::Directory | Entry::Link(_) => None,
        }
    }

    /// The time on the disk's own clock.
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// The regular file at the path, read as a unit file.
    pub fn assignments(&self, path: &str) -> Option<Rc<Reading>> {
        match self.names.get(path)? {
            Entry::File(file) => {
                let File { content, assignments: read, .. } = &self.files[*file];
                Some(Rc::clone(read.get_or_init(|| Rc::new(assignments(content)))))
            }
            Entry::Directory | Entry::Link(_) => None,
        }
    }

    /// When the file at the path was last written, in ticks of the disk's own clock; 0 for anything else.
    pub fn changed(&self, path: &str) -> u64 {
        match self.names.get(path) {
            Some(Entry::File(file)) => self.files[*file].changed,
            Some(Entry::Directory | Entry::Link(_)) | None => 0,
        }
    }

    /// Everything directly inside a directory, by full path, in order of name.
    pub fn list<'a>(&'a self, directory: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> + use<'a> {
        let prefix: Rc<str> = format!("{directory}/").into();
        self.names
            .range(Rc::clone(&prefix)..)
            .take_while({
                let prefix = Rc::clone(&prefix);
                move |(path, _)| path.starts_with(&*prefix)
            })
            .filter(move |(path, _)| !path[prefix.len()..].contains('/'))
            .map(|(path, entry)| (&**path, entry))
    }

    /// Everything inside a directory, at any depth, by full path.
    pub fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let inside = move |path: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        let from: Rc<str> = format!("{directory}/").into();
        let found = self.names.range(from..).take_while(move |(path, _)| inside(path));
        found.map(|(path, entry)| (&**path, entry))
    }

    /// Everything on the disk, by path.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.names.iter().map(|(path, entry)| (&**path, entry))
    }

    /// Makes a directory and its parents. Says whether one was missing.
    pub fn make_directory(&mut self, path: &str) -> std::io::Result<bool> {
        let mut made = false;
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        for end in ends {
            match self.names.get(&path[..end]) {
                Some(Entry::Directory) => {}
                Some(Entry::File(_) | Entry::Link(_)) => return Err(std::io::ErrorKind::NotADirectory.into()),
                None => {
                    self.set(&path[..end], Entry::Directory);
                    made = true;
                }
            }
        }
        Ok(made)
    }

    /// Writes a new file of this name. A full disk leaves it empty, as open(2) succeeds and write(2) does not.
    pub fn write(&mut self, path: &str, content: &[u8]) -> std::io::Result<()> {
        self.parent_exists(path)?;
        if matches!(self.names.get(path), Some(Entry::Directory)) {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        self.clock += 1;
        let kept: Rc<[u8]> = if self.is_full { Rc::default() } else { content.into() };
        self.files.push(File { content: kept, durable: None, changed: self.clock, assignments: OnceCell::new() });
        let file = Entry::File(self.files.len() - 1);
        self.set(path, file);
        if self.is_full { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Writes a file as a foreign hand does that takes care of its durability.
    pub fn put(&mut self, path: &str, content: &[u8]) {
        let directory = parent(path).to_owned();
        // A hand of the scenario finds room and directories; what it cannot do it leaves.
        if self.make_directory(&directory).is_ok() && self.write(path, content).is_ok() {
            self.sync(path);
            self.sync(&directory);
        }
    }

    /// Makes a link.
    pub fn link(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        self.parent_exists(path)?;
        match self.names.get(path) {
            None => {
                self.set(path, Entry::Link(target.into()));
                Ok(())
            }
            Some(Entry::Link(present)) if **present == *target => Ok(()),
            Some(Entry::Link(_) | Entry::File(_) | Entry::Directory) => Err(std::io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Makes a file's content, or the names in a directory, durable. The journal holds the making of a directory before
    /// anything inside it, so its ancestors' names are durable with it.
    pub fn sync(&mut self, path: &str) {
        match self.names.get(path) {
            Some(Entry::File(file)) => {
                let file = &mut self.files[*file];
                file.durable = Some(Rc::clone(&file.content));
            }
            Some(Entry::Directory) => {
                let (settled, pending) = self.settled_by(path);
                self.pending = pending;
                for change in settled {
                    change.carry_out(&mut self.durable);
                }
            }
            Some(Entry::Link(_)) | None => {}
        }
    }

    /// Splits the pending changes: those in the directory itself, and in each directory above everything up to the making
    /// of the next one below.
    fn settled_by(&mut self, path: &str) -> (Vec<Change>, Vec<Change>) {
        let pending = std::mem::take(&mut self.pending);
        let makes = |change: &Change| matches!(change, Change::Set(name, Entry::Directory) if path == &**name || path.starts_with(&format!("{name}/")));
        let last: BTreeMap<String, usize> = pending
            .iter()
            .enumerate()
            .filter(|(_, change)| makes(change))
            .map(|(at, change)| (change.directory().to_owned(), at))
            .collect();
        let (mut settled, mut kept) = (Vec::new(), Vec::new());
        for (at, change) in pending.into_iter().enumerate() {
            let directory = change.directory();
            let is_settled = directory == path || last.get(directory).is_some_and(|last| at <= *last);
            if is_settled { settled.push(change) } else { kept.push(change) }
        }
        (settled, kept)
    }

    /// Renames a file over another one of the same directory.
    pub fn rename(&mut self, from: &str, to: &str) -> std::io::Result<()> {
        let entry = self.names.get(from).cloned().ok_or(std::io::ErrorKind::NotFound)?;
        if matches!(self.names.get(to), Some(Entry::Directory)) {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        self.change(Change::Move { from: from.into(), to: to.into(), entry });
        Ok(())
    }

    /// Removes a file, a link or an empty directory. Says whether there was one.
    pub fn remove(&mut self, path: &str) -> std::io::Result<bool> {
        match self.names.get(path) {
            None => Ok(false),
            Some(Entry::Directory) if self.list(path).next().is_some() => {
                Err(std::io::ErrorKind::DirectoryNotEmpty.into())
            }
            Some(Entry::Directory | Entry::File(_) | Entry::Link(_)) => {
                self.change(Change::Clear(path.into()));
                Ok(true)
            }
        }
    }

    /// Removes a directory with everything inside, durably: a foreign hand.
    pub fn remove_tree(&mut self, path: &str) {
        self.revision += 1;
        let inside = format!("{path}/");
        for names in [&mut self.names, &mut self.durable] {
            names.retain(|name, _| &**name != path && !name.starts_with(&inside));
        }
        self.pending.retain(|change| !change.touches(path, &inside));
    }

    /// The power goes. Each directory keeps some first part of its pending changes; a file that was not synced keeps its
    /// old content, its new one, a part of it, or nothing. What is volatile is gone.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.revision += 1;
        let mut torn: BTreeMap<String, bool> = BTreeMap::new();
        for change in std::mem::take(&mut self.pending) {
            let is_lost = torn.entry(change.directory().to_owned()).or_insert(false);
            *is_lost |= random.chance(40);
            if !*is_lost {
                change.carry_out(&mut self.durable);
            }
        }
        self.forget_orphans();
        self.durable.retain(|path, _| !path.starts_with(VOLATILE));
        self.names = self.durable.clone();
        let kept: Vec<usize> = self.names.values().filter_map(Entry::file).collect();
        for file in kept {
            self.files[file].survive(random);
        }
    }

    /// Everything is written out, as the kernel does after a while (ext4 commits every 5 s, dirty pages after 30 s).
    pub fn write_back(&mut self) {
        for file in &mut self.files {
            if file.durable.is_none() {
                file.durable = Some(Rc::clone(&file.content));
            }
        }
        for change in std::mem::take(&mut self.pending) {
            change.carry_out(&mut self.durable);
        }
    }

    /// A clean shutdown: everything is written out, what is volatile is gone.
    pub fn shut_down(&mut self) {
        self.revision += 1;
        self.write_back();
        self.names.retain(|path, _| !path.starts_with(VOLATILE));
        self.durable = self.names.clone();
    }

    /// A directory whose making was lost takes with it what was made inside.
    fn forget_orphans(&mut self) {
        let paths: Vec<Rc<str>> = self.durable.keys().cloned().collect();
        for path in paths {
            let above = parent(&path);
            if !above.is_empty() && !matches!(self.durable.get(above), Some(Entry::Directory)) {
                self.durable.remove(&path);
            }
        }
    }

    fn parent_exists(&self, path: &str) -> std::io::Result<()> {
        match self.names.get(parent(path)) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_) | Entry::Link(_)) => Err(std::io::ErrorKind::NotADirectory.into()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn set(&mut self, path: &str, entry: Entry) {
        self.change(Change::Set(path.into(), entry));
    }

    fn change(&mut self, change: Change) {
        self.revision += u64::from(change.is_seen_by_systemd());
        change.clone().carry_out(&mut self.names);
        self.pending.push(change);
    }
}

impl Entry {
    fn file(&self) -> Option<usize> {
        match self {
            Self::File(file) => Some(*file),
            Self::Directory | Self::Link(_) => None,
        }
    }
}

impl Change {
    fn directory(&self) -> &str {
        match self {
            Self::Set(path, _) | Self::Clear(path) | Self::Move { from: _, to: path, entry: _ } => parent(path),
        }
    }

    fn is_seen_by_systemd(&self) -> bool {
        let is_seen = |path: &str| SEARCH.iter().any(|directory| path.starts_with(directory));
        match self {
            Self::Set(path, _) | Self::Clear(path) => is_seen(path),
            Self::Move { from, to, entry: _ } => is_seen(from) || is_seen(to),
        }
    }

    fn touches(&self, path: &str, inside: &str) -> bool {
        let within = |name: &str| name == path || name.starts_with(inside);
        match self {
            Self::Set(name, _) | Self::Clear(name) => within(name),
            Self::Move { from, to, entry: _ } => within(from) || within(to),
        }
    }

    fn carry_out(self, names: &mut BTreeMap<Rc<str>, Entry>) {
        match self {
            Self::Set(path, entry) => {
                names.insert(path, entry);
            }
            Self::Clear(path) => {
                names.remove(&path);
            }
            Self::Move { from, to, entry } => {
                names.remove(&from);
                names.insert(to, entry);
            }
        }
    }
}

impl File {
    fn survive(&mut self, random: &mut Random) {
        if self.durable.as_ref().is_none_or(|durable| durable != &self.content) {
            self.content = match random.below(4) {
                0 => Rc::default(),
                1 => self.content[..self.content.len() / 2].into(),
                2 => self.durable.clone().unwrap_or_default(),
                _ => Rc::clone(&self.content),
            };
            self.assignments = OnceCell::new();
        }
        self.durable = Some(Rc::clone(&self.content));
    }
}

/// The directory that holds a path; empty for what stands in the root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &str, content: &[u8]) -> Disk {
        let mut disk = Disk::default();
        disk.put(path, content);
        disk
    }

    fn replaced(sync_file: bool, sync_directory: bool, seed: u64) -> Option<Vec<u8>> {
        let mut disk = written("/etc/a", b"old");
        disk.write("/etc/.a", b"new").expect("room");
        if sync_file {
            disk.sync("/etc/.a");
        }
        disk.rename("/etc/.a", "/etc/a").expect("it is there");
        if sync_directory {
            disk.sync("/etc");
        }
        disk.lose_power(&mut Random::new(seed));
        disk.read("/etc/a").map(|content| content.to_vec())
    }

    #[test]
    fn a_full_ritual_survives_every_loss_of_power() {
        assert!((0..64).all(|seed| replaced(true, true, seed).as_deref() == Some(b"new")));
    }

    #[test]
    fn without_a_sync_of_the_file_its_content_may_be_gone() {
        assert!((0..64).any(|seed| replaced(false, true, seed).as_deref() == Some(b"")));
    }

    #[test]
    fn without_a_sync_of_the_directory_the_old_file_or_the_new_one_stands() {
        let seen: Vec<Vec<u8>> = (0..64).filter_map(|seed| replaced(true, false, seed)).collect();
        assert_eq!(seen.len(), 64);
        assert!(seen.iter().any(|content| content == b"old") && seen.iter().any(|content| content == b"new"));
    }

    #[test]
    fn nothing_below_run_survives() {
        let mut disk = written("/run/systemd/x", b"1");
        disk.shut_down();
        assert_eq!(disk.entry("/run/systemd/x"), None);
    }
}
