//! Reads and writes small files of the host: unit files, drop-ins, links, delivered files, the agent's own state.
//!
//! No link is ever followed at the last component, nothing is written in place of anything but a file, and every write
//! is a new file: whoever had the old one open keeps the old one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::host::root::Root;
use crate::host_path::HostPath;
use crate::observed::ObservedFile;

/// Files above this size are none of ours and are not read.
const LARGEST: u64 = 1 << 20;

/// The content of a file of our own; `None` if there is none.
///
/// # Errors
/// Fails on anything that is no regular file, and on what the file system says.
pub fn read(root: &Root, path: &HostPath) -> io::Result<Option<Vec<u8>>> {
    match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => content(file).map(Some),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn content(file: OwnedFd) -> io::Result<Vec<u8>> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other(format!("it is {}", kind_in_words(&stat))));
    }
    let mut content = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(content)
}

/// What stands at a path; `None` if nothing does.
///
/// # Errors
/// Whatever the file system says, but for something that is not there.
pub fn look(root: &Root, path: &HostPath) -> io::Result<Option<ObservedFile>> {
    let directory = match root.open_directory(&path.directory()) {
        Ok(directory) => directory,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match look_at(&directory, name_of(path)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything in a directory whose name is wanted; nothing if there is no such directory.
///
/// # Errors
/// Whatever the file system says, but for something that is not there.
pub fn list(
    root: &Root,
    directory: &HostPath,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<BTreeMap<HostPath, ObservedFile>> {
    let mut files = BTreeMap::new();
    for name in names(root, directory)?.iter().filter(|name| wanted(name)) {
        let path = HostPath::new(format!("{}/{name}", directory.as_str()));
        if let Some(file) = look(root, &path)? {
            files.insert(path, file);
        }
    }
    Ok(files)
}

/// The names in a directory, sorted; none if it is not there or is no directory.
///
/// # Errors
/// Whatever the file system says otherwise.
pub fn names(root: &Root, directory: &HostPath) -> io::Result<Vec<String>> {
    let opened = match root.open_directory(directory) {
        Ok(opened) => opened,
        Err(error) if is_absent(&error) || is_no_directory(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(opened)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn look_at(directory: &OwnedFd, name: &str) -> io::Result<ObservedFile> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let file = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            ObservedFile::Link { target: target.to_string_lossy().into_owned() }
        }
        FileType::RegularFile if is_plain(&stat) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            ObservedFile::Regular { content: content(file)? }
        }
        FileType::RegularFile
        | FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => ObservedFile::Other { what: kind_in_words(&stat) },
    };
    Ok(file)
}

/// One name, owned by root, of a size that a unit file may have.
fn is_plain(stat: &Stat) -> bool {
    stat.st_nlink == 1 && stat.st_uid == 0 && u64::try_from(stat.st_size).is_ok_and(|size| size <= LARGEST)
}

fn kind_in_words(stat: &Stat) -> String {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "a directory".to_owned(),
        FileType::Symlink => "a symbolic link".to_owned(),
        FileType::Fifo => "a FIFO".to_owned(),
        FileType::Socket => "a socket".to_owned(),
        FileType::CharacterDevice | FileType::BlockDevice => "a device".to_owned(),
        FileType::RegularFile if stat.st_nlink > 1 => format!("a file with {} names", stat.st_nlink),
        FileType::RegularFile if stat.st_uid != 0 => format!("a file of user {}", stat.st_uid),
        FileType::RegularFile => format!("a file of {} bytes", stat.st_size),
        FileType::Unknown => "something unknown".to_owned(),
    }
}

/// Creates a directory and those above it; a new one's name is durable when this returns.
///
/// # Errors
/// Whatever the file system says; `ENOTDIR` when something else stands there.
pub fn make_directory(root: &Root, path: &HostPath) -> io::Result<()> {
    match root.open_directory(path) {
        Ok(_) => return Ok(()),
        Err(error) if is_absent(&error) && path.as_str() != "/" => {}
        Err(error) => return Err(error),
    }
    make_directory(root, &path.directory())?;
    let parent = root.open_directory(&path.directory())?;
    match rustix::fs::mkdirat(&parent, name_of(path), Mode::from_raw_mode(0o755)) {
        Ok(()) => rustix::fs::fsync(&parent)?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    root.open_directory(path).map(drop)
}

/// Writes a new file of mode 0644 at a path, after removing a file or link of that name.
///
/// # Errors
/// Whatever the file system says; a directory of that name is never removed.
pub fn write(root: &Root, path: &HostPath, content: &[u8]) -> io::Result<()> {
    let directory = root.open_directory(&path.directory())?;
    match rustix::fs::unlinkat(&directory, name_of(path), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mode = Mode::from_raw_mode(0o644);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, name_of(path), flags, mode)?;
    rustix::fs::fchmod(&file, mode)?;
    File::from(file).write_all(content)
}

/// The permission bits of a regular file.
///
/// # Errors
/// Whatever the file system says.
pub fn mode(root: &Root, path: &HostPath) -> io::Result<u32> {
    let stat = rustix::fs::fstat(root.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?)?;
    Ok(Mode::from_raw_mode(stat.st_mode).bits() & 0o7777)
}

/// Sets the permission bits of a regular file.
///
/// # Errors
/// Whatever the file system says.
pub fn set_mode(root: &Root, path: &HostPath, mode: u32) -> io::Result<()> {
    let file = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// When a file was last changed in any way, in microseconds since 1970; `None` if it is not there.
///
/// # Errors
/// Whatever the file system says otherwise.
pub fn changed_at(root: &Root, path: &HostPath) -> io::Result<Option<u64>> {
    let file = match root.open(path, OFlags::PATH) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = rustix::fs::fstat(file)?;
    let microseconds = i128::from(stat.st_ctime) * 1_000_000 + i128::from(stat.st_ctime_nsec) / 1000;
    Ok(u64::try_from(microseconds).ok())
}

/// Makes a file's content or a directory's names durable.
///
/// # Errors
/// Whatever the file system says.
pub fn sync(root: &Root, path: &HostPath) -> io::Result<()> {
    let file = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    Ok(rustix::fs::fsync(file)?)
}

/// Renames a file over another in the same directory.
///
/// # Errors
/// Whatever the file system says; fails when the directories differ.
pub fn rename(root: &Root, from: &HostPath, to: &HostPath) -> io::Result<()> {
    if from.directory() != to.directory() {
        return Err(io::Error::other(format!("{to} is in another directory")));
    }
    let directory = root.open_directory(&from.directory())?;
    Ok(rustix::fs::renameat(&directory, name_of(from), &directory, name_of(to))?)
}

/// Makes a symbolic link; one with that target may be there already.
///
/// # Errors
/// Whatever the file system says; `EEXIST` when something else stands there.
pub fn link(root: &Root, path: &HostPath, target: &str) -> io::Result<()> {
    let directory = root.open_directory(&path.directory())?;
    match rustix::fs::symlinkat(target, &directory, name_of(path)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match look_at(&directory, name_of(path))? {
            ObservedFile::Link { target: found } if found == target => Ok(()),
            ObservedFile::Link { .. } | ObservedFile::Regular { .. } | ObservedFile::Other { .. } => {
                Err(Errno::EXIST.into())
            }
        },
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, a link or an empty directory; one that is not there is fine.
///
/// # Errors
/// Whatever the file system says; `ENOTEMPTY` for a directory that holds something.
pub fn remove(root: &Root, path: &HostPath) -> io::Result<()> {
    let directory = match root.open_directory(&path.directory()) {
        Ok(directory) => directory,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let removed = match rustix::fs::unlinkat(&directory, name_of(path), AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(&directory, name_of(path), AtFlags::REMOVEDIR),
        other => other,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn name_of(path: &HostPath) -> &str {
    path.as_str().rsplit_once('/').map_or(path.as_str(), |(_, name)| name)
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make files of their own")]
mod tests {
    use super::*;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> (Self, Root) {
            let disk = Self(tempfile::tempdir().expect("a directory"));
            let root = Root::new(disk.0.path());
            make_directory(&root, &at("/etc/systemd/system")).expect("directories");
            (disk, root)
        }

        fn real(&self, path: &str) -> std::path::PathBuf {
            self.0.path().join(path.trim_start_matches('/'))
        }
    }

    fn at(path: &str) -> HostPath {
        HostPath::new(path)
    }

    const UNIT: &str = "/etc/systemd/system/orchestrator.slice";

    #[test]
    fn what_is_written_is_read_back_and_a_missing_file_is_none() {
        let (_disk, root) = Disk::new();
        assert_eq!(read(&root, &at(UNIT)).expect("no error"), None);
        write(&root, &at(UNIT), b"[Slice]\n").expect("written");
        sync(&root, &at(UNIT)).expect("durable");
        sync(&root, &at(UNIT).directory()).expect("durable");
        assert_eq!(read(&root, &at(UNIT)).expect("no error").as_deref(), Some(b"[Slice]\n".as_slice()));
        assert_eq!(read(&root, &at("/nowhere/x")).expect("no error"), None);
    }

    #[test]
    fn a_link_is_seen_as_a_link_and_its_target_is_never_written() {
        let (disk, root) = Disk::new();
        let precious = disk.real("/precious");
        std::fs::write(&precious, "keep").expect("a file");
        std::os::unix::fs::symlink(&precious, disk.real(UNIT)).expect("a link");
        assert!(matches!(look(&root, &at(UNIT)).expect("no error"), Some(ObservedFile::Link { .. })));
        assert!(read(&root, &at(UNIT)).is_err());
        write(&root, &at(UNIT), b"ours").expect("written");
        assert_eq!(std::fs::read_to_string(&precious).expect("a file"), "keep");
        assert!(matches!(look(&root, &at(UNIT)).expect("no error"), Some(ObservedFile::Regular { .. })));
    }

    #[test]
    fn a_file_with_two_names_or_another_owner_is_no_plain_file() {
        let (disk, root) = Disk::new();
        write(&root, &at(UNIT), b"x").expect("written");
        std::fs::hard_link(disk.real(UNIT), disk.real("/etc/other")).expect("a second name");
        let what = |file: Option<ObservedFile>| match file {
            Some(ObservedFile::Other { what }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(look(&root, &at(UNIT)).expect("no error")), "a file with 2 names");
        std::fs::remove_file(disk.real("/etc/other")).expect("removed");
        std::os::unix::fs::chown(disk.real(UNIT), Some(1000), None).expect("another owner");
        assert_eq!(what(look(&root, &at(UNIT)).expect("no error")), "a file of user 1000");
        std::fs::remove_file(disk.real(UNIT)).expect("removed");
        std::fs::create_dir(disk.real(UNIT)).expect("a directory");
        assert_eq!(what(look(&root, &at(UNIT)).expect("no error")), "a directory");
        assert!(write(&root, &at(UNIT), b"x").is_err());
    }

    #[test]
    fn links_on_the_way_do_not_lead_out_of_the_root() {
        let (disk, root) = Disk::new();
        std::os::unix::fs::symlink("/etc", disk.real("/config")).expect("a link");
        write(&root, &at(UNIT), b"x").expect("written");
        assert!(read(&root, &at("/config/systemd/system/orchestrator.slice")).expect("no error").is_some());
    }

    #[test]
    fn a_rename_replaces_and_only_within_a_directory() {
        let (_disk, root) = Disk::new();
        let (old, new) = (at(UNIT), at(UNIT).staging());
        write(&root, &old, b"old").expect("written");
        write(&root, &new, b"new").expect("written");
        rename(&root, &new, &old).expect("renamed");
        assert_eq!(read(&root, &old).expect("no error").as_deref(), Some(b"new".as_slice()));
        assert!(rename(&root, &old, &at("/etc/x")).is_err());
    }

    #[test]
    fn a_link_may_be_made_twice_but_not_over_another() {
        let (_disk, root) = Disk::new();
        let path = at("/etc/systemd/system/a.service");
        link(&root, &path, "../a.service").expect("made");
        link(&root, &path, "../a.service").expect("there already");
        assert!(link(&root, &path, "../b.service").is_err());
    }

    #[test]
    fn removing_takes_files_links_and_empty_directories_and_never_a_full_one() {
        let (_disk, root) = Disk::new();
        let directory = at("/etc/systemd/system/a.slice.d");
        let file = at("/etc/systemd/system/a.slice.d/x.conf");
        make_directory(&root, &directory).expect("made");
        write(&root, &file, b"").expect("written");
        assert!(remove(&root, &directory).is_err());
        remove(&root, &file).expect("removed");
        remove(&root, &file).expect("gone already");
        remove(&root, &directory).expect("removed");
        remove(&root, &file).expect("its directory is gone, too");
    }
}
