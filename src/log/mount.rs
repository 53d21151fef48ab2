//! Identifies the mount of the file system that a directory is on. Pages that are not synced live
//! only as long as their file system stays mounted. If it was shut down, or if its device was
//! detached, they are gone after the next mount, although the machine has not restarted.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// Local file systems by their magic numbers. A network file system can lose pages while it stays
/// mounted.
const LOCAL: [u32; 9] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
];

/// Kernel directories with an entry for each mounted file system, named after its device.
const MOUNTED: [&str; 3] = ["/sys/fs/ext4", "/sys/fs/xfs", "/sys/fs/f2fs"];

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): an id that no other mount has before the machine restarts.
const MNT_ID_UNIQUE: u32 = 0x4000;

/// A name for the mount that `dir` is on, which no other mount has before the machine restarts.
/// `None` if the kernel does not provide one, or if the file system can lose pages while it stays
/// mounted.
pub(super) fn identity(dir: &Path) -> Option<String> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    if !LOCAL.contains(&(kind as u32)) {
        return None;
    }
    let flags = StatxFlags::from_bits_retain(MNT_ID_UNIQUE) | StatxFlags::INO;
    let found = rustix::fs::statx(CWD, dir, AtFlags::empty(), flags).ok()?;
    let device = (found.stx_dev_major, found.stx_dev_minor);
    superblock(device).or_else(|| {
        let has_id = found.stx_mask & MNT_ID_UNIQUE != 0;
        has_id.then(|| format!("mount-{}-{}-{}", device.0, device.1, found.stx_mnt_id))
    })
}

/// A name for the mounted file system of a block device, from its entry in the kernel's
/// directories. The inode number of the entry is not used twice. Unlike the id of a mount, it is
/// the same in all containers.
fn superblock((major, minor): (u32, u32)) -> Option<String> {
    let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = device.file_name()?;
    let entry = MOUNTED.iter().find_map(|dir| fs::metadata(Path::new(dir).join(name)).ok())?;
    Some(format!("device-{major}-{minor}-{}", entry.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(program: &str, args: &[&str]) -> bool {
        let status = Command::new(program).args(args).status();
        status.is_ok_and(|status| status.success())
    }

    fn each_mounting_has_its_own_identity(mount: impl Fn(&str) -> bool) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().to_str().expect("is UTF-8");
        let before = identity(dir.path());
        let mut seen = vec![before.clone()];
        for _ in 0..2 {
            assert!(mount(path), "cannot be mounted");
            let first = identity(dir.path());
            let again = identity(dir.path());
            assert!(run("umount", &[path]));
            assert!(first.is_some(), "a local file system");
            assert_eq!(again, first, "it stays mounted");
            assert!(!seen.contains(&first), "{first:?} is in {seen:?}");
            seen.push(first);
        }
        assert_eq!(identity(dir.path()), before);
    }

    #[test]
    #[ignore = "mounts a file system: scripts/test runs it"]
    fn tmpfs() {
        each_mounting_has_its_own_identity(|dir| run("mount", &["-t", "tmpfs", "tmpfs", dir]));
    }

    #[test]
    #[ignore = "mounts a file system: scripts/test runs it"]
    fn ext4_on_a_loop_device() {
        let image = tempfile::NamedTempFile::new().expect("temporary file");
        image.as_file().set_len(16 << 20).expect("grows");
        let image = image.path().to_str().expect("is UTF-8").to_owned();
        assert!(run("mkfs.ext4", &["-q", "-F", &image]));
        each_mounting_has_its_own_identity(|dir| run("mount", &["-o", "loop", &image, dir]));
    }

    #[test]
    fn other_file_systems_have_none() {
        assert_eq!(identity(Path::new("/proc/self")), None);
        assert_eq!(identity(Path::new("/nowhere")), None);
    }
}
