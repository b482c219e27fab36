//! Looks whether users, programs and environment files are there and usable, the way the kernel would judge it when the
//! service's user asks: every directory on the way, every link.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lamina_crds::UserName;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::host::root::Root;
use crate::host::unit_dir;
use crate::host_path::HostPath;

/// A user with the groups it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    id: u32,
    groups: BTreeSet<u32>,
}

/// What somebody wants to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Execute it.
    Execute,
}

/// Links that may lie on one path; the kernel's limit.
const MOST_LINKS: u32 = 40;

/// The users of the host, from its own files. Users of a directory service are not seen.
///
/// # Errors
/// Whatever reading `/etc/passwd` or `/etc/group` says.
pub fn users(root: &Root) -> io::Result<BTreeMap<UserName, User>> {
    let groups = database(root, "/etc/group")?;
    let mut users = BTreeMap::new();
    for fields in database(root, "/etc/passwd")? {
        let [name, _, id, group, ..] = fields.as_slice() else { continue };
        let (Ok(user), Ok(id), Ok(group)) = (UserName::new(name), id.parse(), group.parse()) else { continue };
        let is_member =
            |fields: &&Vec<String>| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
        let others = groups.iter().filter(is_member).filter_map(|fields| fields.get(2)?.parse().ok());
        users.insert(user, User { id, groups: others.chain([group]).collect() });
    }
    Ok(users)
}

fn database(root: &Root, path: &str) -> io::Result<Vec<Vec<String>>> {
    let content = unit_dir::read(root, &HostPath::new(path))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&content).into_owned();
    Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
}

/// Whether the user may use the file at a path so, and if not, why, as the rest of a sentence that begins with the path.
/// Without a user only the file itself is judged.
pub fn usable(root: &Root, path: &str, user: Option<&User>, access: Access) -> Result<(), String> {
    let stat = walk(root, path, user)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("is not a regular file".to_owned());
    }
    let bit = match access {
        Access::Read => 0o4,
        Access::Execute => 0o1,
    };
    match user {
        Some(user) if !may(user, &stat, bit) => Err(format!("is not {} by its user", access.word())),
        None if stat.st_mode & (bit * 0o111) == 0 => Err(format!("is not {} by anybody", access.word())),
        Some(_) | None => Ok(()),
    }
}

impl Access {
    const fn word(self) -> &'static str {
        match self {
            Self::Read => "readable",
            Self::Execute => "executable",
        }
    }
}

/// Follows a path from the host's root, link by link, and gives what stands at its end.
fn walk(root: &Root, path: &str, user: Option<&User>) -> Result<Stat, String> {
    let mut left: Vec<String> = components(path);
    let mut here: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let directory = format!("/{}", here.join("/"));
        let (stat, target) = entry(root, &directory, &name, user)?;
        match target {
            Some(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(format!("has more than {MOST_LINKS} links on the way"));
                }
                if target.starts_with('/') {
                    here.clear();
                }
                left.extend(components(&target));
            }
            None if left.is_empty() => return Ok(stat),
            None => here.push(name),
        }
    }
    Err("is not a regular file".to_owned())
}

/// The components of a path, last one first.
fn components(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// What `name` in `directory` is, and where it points if it is a link.
fn entry(root: &Root, directory: &str, name: &str, user: Option<&User>) -> Result<(Stat, Option<String>), String> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "is missing".to_owned(),
        _ => format!("cannot be looked at: {error}"),
    };
    let opened = root.open(&HostPath::new(directory), OFlags::PATH | OFlags::DIRECTORY).map_err(gone)?;
    let searched = rustix::fs::fstat(&opened).map_err(|error| gone(error.into()))?;
    if user.is_some_and(|user| !may(user, &searched, 0o1)) {
        return Err(format!("is out of reach: its user may not enter {directory}"));
    }
    let stat = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| gone(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok((stat, None));
    }
    let target = rustix::fs::readlinkat(&opened, name, Vec::new()).map_err(|error| gone(error.into()))?;
    Ok((stat, Some(target.to_string_lossy().into_owned())))
}

/// The kernel's rule: the first class that fits decides. Access control lists are not looked at.
fn may(user: &User, stat: &Stat, bit: u32) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode).bits();
    let shift = if user.id == stat.st_uid {
        6
    } else if user.groups.contains(&stat.st_gid) {
        3
    } else {
        0
    };
    user.id == 0 || mode >> shift & bit != 0
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make files of their own")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const PROGRAM: &str = "/opt/orchestrator/bin/router";

    fn host() -> (tempfile::TempDir, Root) {
        let host = tempfile::tempdir().expect("a directory");
        let below = |path: &str| host.path().join(path);
        fs::create_dir_all(below("etc")).expect("directories");
        fs::create_dir_all(below("opt/orchestrator/bin")).expect("directories");
        fs::write(below("etc/passwd"), "root:x:0:0::/:/bin/sh\norchestrator:x:990:980::/:/bin/false\n")
            .expect("a file");
        fs::write(below("etc/group"), "root:x:0:\nsecrets:x:55:someone,orchestrator\n").expect("a file");
        fs::write(below("opt/orchestrator/bin/router"), "#!/bin/true\n").expect("a file");
        set_mode(host.path(), "", 0o755);
        set_mode(host.path(), "opt/orchestrator/bin/router", 0o755);
        let root = Root::new(host.path());
        (host, root)
    }

    fn set_mode(host: &std::path::Path, path: &str, mode: u32) {
        fs::set_permissions(host.join(path), fs::Permissions::from_mode(mode)).expect("permissions");
    }

    fn orchestrator(root: &Root) -> User {
        users(root).expect("users").remove(&UserName::new("orchestrator").expect("legal")).expect("the user")
    }

    #[test]
    fn users_and_their_groups_come_from_the_hosts_own_files() {
        let (_host, root) = host();
        assert_eq!(orchestrator(&root), User { id: 990, groups: BTreeSet::from([55, 980]) });
        assert_eq!(users(&root).expect("users").len(), 1, "root is no user that may run services");
    }

    #[test]
    fn a_program_must_be_there_and_executable() {
        let (host, root) = host();
        assert_eq!(usable(&root, PROGRAM, None, Access::Execute), Ok(()));
        set_mode(host.path(), "opt/orchestrator/bin/router", 0o644);
        let error = usable(&root, PROGRAM, None, Access::Execute).expect_err("not executable");
        assert_eq!(error, "is not executable by anybody");
        let error = usable(&root, "/opt/orchestrator/bin/none", None, Access::Execute).expect_err("missing");
        assert_eq!(error, "is missing");
        assert!(usable(&root, "/opt/orchestrator/bin", None, Access::Execute).is_err());
    }

    #[test]
    fn links_are_followed_inside_the_host_and_not_for_ever() {
        let (host, root) = host();
        symlink("/opt/orchestrator", host.path().join("srv")).expect("a link");
        symlink("../bin/router", host.path().join("opt/orchestrator/bin/r")).expect("a link");
        assert_eq!(usable(&root, "/srv/bin/r", None, Access::Execute), Ok(()));
        symlink("loop", host.path().join("loop")).expect("a link");
        assert!(usable(&root, "/loop", None, Access::Execute).is_err());
    }

    #[test]
    fn the_users_own_rights_decide_on_every_directory_and_the_file() {
        let (host, root) = host();
        let user = orchestrator(&root);
        let readable = || usable(&root, "/opt/orchestrator/site.env", Some(&user), Access::Read);
        fs::write(host.path().join("opt/orchestrator/site.env"), "A=1\n").expect("a file");
        set_mode(host.path(), "opt/orchestrator/site.env", 0o640);
        assert!(readable().is_err(), "root's group only");
        chown(host.path().join("opt/orchestrator/site.env"), None, Some(55)).expect("another group");
        assert_eq!(readable(), Ok(()));
        set_mode(host.path(), "opt/orchestrator", 0o700);
        assert!(readable().expect_err("closed").contains("may not enter /opt/orchestrator"));
        chown(host.path().join("opt/orchestrator"), Some(990), None).expect("another owner");
        assert_eq!(readable(), Ok(()));
    }
}
