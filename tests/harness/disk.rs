//! Small disks of their own, so that one can be full while everything else has room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the name of each of our disks begins with; the process id of its test follows.
const MARK: &str = "unibus-test-";
/// The file that takes up the room.
const FILLER: &str = "filler";

/// A small disk in memory, over a folder. It goes with this; of a test that was killed, with the next one that is made.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts one over a folder, whose own content is hidden meanwhile. None, and a word of it, where this user may not
    /// mount anything.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn over(folder: &Path, mebibytes: u32) -> Option<Self> {
        remove_leftovers();
        fs::create_dir_all(folder).unwrap();
        let name = format!("{MARK}{}", std::process::id());
        let size = format!("size={mebibytes}m,mode=0700");
        let run = Command::new("mount").args(["-t", "tmpfs", "-o", &size, &name]).arg(folder).output();
        let why = match run {
            Ok(run) if run.status.success() => return Some(Self { folder: folder.to_path_buf() }),
            Ok(run) => String::from_utf8_lossy(&run.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: no disk of its own can be mounted here ({why})");
        None
    }

    /// Takes up all the room that is left.
    ///
    /// # Panics
    /// When the disk does not get full.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.folder.join(FILLER)).unwrap();
        // Ever smaller pieces, to the last byte.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0xAA; size];
            let mut written = 0_u64;
            let error = loop {
                match file.write(&piece) {
                    Ok(count) => written += count as u64,
                    Err(error) => break error,
                }
                assert!(written < 1 << 32, "the disk does not get full");
            };
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        }
    }

    /// Gives the room back.
    ///
    /// # Panics
    /// When it was not taken.
    pub fn free(&self) {
        fs::remove_file(self.folder.join(FILLER)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Takes a disk away, also while somebody still writes to it.
fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(folder).output();
}

/// Takes the disks of tests away that were killed.
fn remove_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(folder)) = (words.next(), words.next()) else { continue };
        let is_dead = |pid: &str| !Path::new("/proc").join(pid).exists();
        if name.strip_prefix(MARK).is_some_and(is_dead) {
            unmount(Path::new(folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_disk_is_full_has_room_again_and_is_gone_with_its_test() {
        let scratch = Scratch::new();
        let Some(disk) = SmallDisk::over(&scratch.join("disk"), 1) else { return };
        let write = || fs::write(scratch.join("disk/a"), vec![1; 8192]);
        write().unwrap();
        fs::remove_file(scratch.join("disk/a")).unwrap();
        disk.fill();
        assert_eq!(write().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        disk.free();
        write().unwrap();
        drop(disk);
        assert_eq!(fs::read_dir(scratch.join("disk")).unwrap().count(), 0);
        // One that a killed test has left: the highest process id there is, and none uses.
        let left = scratch.join("left");
        fs::create_dir(&left).unwrap();
        let name = format!("{MARK}4194305");
        assert!(Command::new("mount").args(["-t", "tmpfs", &name]).arg(&left).status().unwrap().success());
        fs::write(left.join("b"), "b").unwrap();
        remove_leftovers();
        assert!(!left.join("b").exists());
    }
}
