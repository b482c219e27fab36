//! Damages a tree as a failing disk, a careless copy or a hostile hand would, and puts it right again.

#![expect(clippy::disallowed_methods, reason = "damages trees of files")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::random::Random;

/// A tree of files, and the places in it that can be damaged.
pub struct Victim {
    root: PathBuf,
    places: Vec<PathBuf>,
}

/// What was done to one place.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The place, as a path of the tree.
    pub place: PathBuf,
    /// What stands there now.
    pub what: &'static str,
    kept: PathBuf,
}

type Harm = fn(&Path, &Path, &mut Random) -> io::Result<()>;

/// Every harm: the place is free, and what stood there is at the second path.
const HARMS: [(&str, Harm); 16] = [
    ("nothing", |_, _, _| Ok(())),
    ("an empty file", |place, _, _| fs::write(place, "")),
    ("half of its text", truncated),
    ("bytes that are no text", |place, _, random| {
        fs::write(place, (0..64).map(|_| random.below(256) as u8).collect::<Vec<u8>>())
    }),
    ("a huge file", |place, _, _| File::create(place)?.set_len(1 << 40)),
    ("a long file of digits", |place, _, _| fs::write(place, "1,".repeat(100_000))),
    ("a pipe nobody writes to", |place, _, _| Ok(mknodat(CWD, place, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)),
    ("a link to itself", |place, _, _| symlink(place, place)),
    ("a link to the directory above", |place, _, _| symlink("..", place)),
    ("a link to nowhere", |place, _, _| symlink("/nonexistent", place)),
    ("an empty directory", |place, _, _| fs::create_dir(place)),
    ("another list", |place, _, random| fs::write(place, any_list(random))),
    ("another number", |place, _, random| fs::write(place, any_number(random))),
    ("another bitmap", |place, _, random| {
        fs::write(place, format!("{:08x},{:08x}", random.bits() as u32, random.bits() as u32))
    }),
    ("everything", |place, _, _| fs::write(place, "0-8191")),
    ("itself twice", |place, kept, _| {
        let text = fs::read_to_string(kept).unwrap_or_default();
        fs::write(place, format!("{text}{text}"))
    }),
];

impl Victim {
    /// The tree below a root.
    ///
    /// # Errors
    /// Whatever the kernel says to listing it.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut places = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                places.push(entry.path());
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                }
            }
        }
        places.sort();
        Ok(Self { root: root.to_owned(), places })
    }

    /// Damages so many places, calls `look`, and puts everything right again. Says what was done.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn damaged<T>(
        &self,
        random: &mut Random,
        count: u32,
        look: impl FnOnce() -> T,
    ) -> io::Result<(Vec<Damage>, T)> {
        let mut done = Vec::new();
        for number in 0..count {
            let place = random.pick(&self.places).clone();
            // What lies below a place that was damaged before is gone.
            if place.symlink_metadata().is_ok() {
                done.push(self.harm(&place, number, random)?);
            }
        }
        let seen = look();
        for damage in done.iter().rev() {
            put_right(damage, &self.root)?;
        }
        Ok((done, seen))
    }

    fn harm(&self, place: &Path, number: u32, random: &mut Random) -> io::Result<Damage> {
        let kept = self.root.with_extension(format!("kept{number}"));
        fs::rename(place, &kept)?;
        let (what, harm) = *random.pick(&HARMS);
        harm(place, &kept, random)?;
        let place = place.strip_prefix(&self.root).map(Path::to_owned).unwrap_or_default();
        Ok(Damage { place, what, kept })
    }
}

fn put_right(damage: &Damage, root: &Path) -> io::Result<()> {
    let place = root.join(&damage.place);
    match place.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&place)?,
        Ok(_) => fs::remove_file(&place)?,
        Err(_) => {}
    }
    fs::rename(&damage.kept, place)
}

fn truncated(place: &Path, kept: &Path, _: &mut Random) -> io::Result<()> {
    let text = fs::read(kept).unwrap_or_default();
    fs::write(place, &text[..text.len() / 2])
}

fn any_list(random: &mut Random) -> String {
    let part = |random: &mut Random| {
        let (first, length) = (random.below(40), random.below(12));
        if random.chance(50) { first.to_string() } else { format!("{first}-{}", first + length) }
    };
    (0..random.within(1, 4)).map(|_| part(random)).collect::<Vec<_>>().join(",")
}

fn any_number(random: &mut Random) -> String {
    let words =
        ["-1", "0", "1", "2", "3", "255", "4096", "65536", "4294967295", "18446744073709551616", "0x1", "9-1", "1e9"];
    (*random.pick(&words)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_damaged_is_whole_again() {
        let root = std::env::temp_dir().join(format!("lamina-trees-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).expect("a directory");
        fs::write(root.join("a/b/c"), "text").expect("a file");
        let victim = Victim::new(&root).expect("a tree");
        let mut random = Random::new(1);
        for _ in 0..200 {
            let count = random.within(1, 3);
            victim.damaged(&mut random, count, || ()).expect("damage and repair");
            assert_eq!(fs::read_to_string(root.join("a/b/c")).expect("the file"), "text");
        }
        fs::remove_dir_all(root).expect("to tidy up");
    }
}
