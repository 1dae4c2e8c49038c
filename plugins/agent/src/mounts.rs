//! What is mounted where in a container, see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};

use crate::failure::Failure;

/// Of the kernel's own: no files are kept there.
const KERNEL: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "mqueue",
    "devtmpfs",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "nsfs",
];
/// A container runtime makes these anew for each container.
const RUNTIME: &[&str] = &["/dev", "/proc", "/sys"];

/// One mount, as the processes of a container see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    /// Major and minor number, as `8:1`.
    pub(crate) device: String,
    /// The folder of the file system that is mounted.
    pub(crate) root: PathBuf,
    /// Where in the container.
    pub(crate) point: PathBuf,
    pub(crate) writable: bool,
    kind: String,
}

impl Mount {
    /// The path in the file system of a path in the container.
    pub(crate) fn inner(&self, path: &Path) -> Option<PathBuf> {
        Some(join(&self.root, path.strip_prefix(&self.point).ok()?))
    }

    /// The path in the container of a path in the file system; none for what
    /// this mount doesn't show.
    pub(crate) fn outer(&self, inner: &Path) -> Option<PathBuf> {
        Some(join(&self.point, inner.strip_prefix(&self.root).ok()?))
    }

    /// Whether files may be kept there that outlive the container.
    pub(crate) fn is_volume(&self) -> bool {
        let of_runtime = RUNTIME.iter().any(|folder| self.point.starts_with(folder));
        self.point.parent().is_some() && self.writable && !of_runtime && !KERNEL.contains(&self.kind.as_str())
    }
}

/// The mounts that a process sees; those that are not understood are left out.
pub(crate) fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// The mount that an open file or folder was reached by; none from a kernel
/// before 5.8, where no mount is told from another.
pub(crate) fn id_of(opened: impl AsFd) -> Result<Option<u64>, Failure> {
    let stat = rustix::fs::statx(opened, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(Failure::errno("look at a folder"))?;
    Ok((stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id))
}

/// Tells two file systems apart that had the same device number one after the
/// other.
pub(crate) fn file_system_of(opened: impl AsFd) -> Result<u64, Failure> {
    Ok(rustix::fs::fstatvfs(opened).map_err(Failure::errno("look at a file system"))?.f_fsid)
}

/// Without a slash at the end where there is nothing to add.
fn join(folder: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { folder.to_owned() } else { folder.join(rest) }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.nth(1)?)?.to_owned();
    let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    let of_mount = fields.next()?;
    // Any number of optional fields end with a dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = text(fields.next()?)?.to_owned();
    let of_file_system = fields.nth(1)?;
    let writable = ![of_mount, of_file_system].iter().any(|options| options.split(|byte| *byte == b',').any(|option| option == b"ro"));
    Some(Mount { id, device, root, point, writable, kind })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).filter(|_| *first == b'\\').and_then(text).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(digits.unwrap_or(*first));
        rest = if digits.is_some() { &others[3..] } else { others };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
701 650 0:55 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
702 701 0:57 / /proc rw,nosuid - proc proc rw
703 701 0:58 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
704 701 254:1 /kubelet/pods/1/volumes/kubernetes.io~empty-dir/a\\040b /srv/a\\040b rw,relatime master:1 shared:2 - ext4 /dev/vda1 rw
705 701 0:60 / /var/run/secrets ro,relatime - tmpfs tmpfs rw
706 701 0:61 /sub /nfs rw - nfs4 server:/x ro
nonsense
707 701";

    #[test]
    fn mounts_are_read_and_volumes_told_from_the_rest() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.iter().map(|mount| mount.id).collect::<Vec<_>>(), [701, 702, 703, 704, 705, 706]);
        let volumes: Vec<&Mount> = mounts.iter().filter(|mount| mount.is_volume()).collect();
        assert_eq!(volumes.iter().map(|mount| mount.point.as_path()).collect::<Vec<_>>(), [Path::new("/srv/a b")]);
        assert_eq!(volumes[0].device, "254:1");
    }

    #[test]
    fn a_path_leads_through_a_mount_and_back() {
        let mounts = parse(TEXT);
        let inner = mounts[3].inner(Path::new("/srv/a b/c")).unwrap();
        assert_eq!(inner, Path::new("/kubelet/pods/1/volumes/kubernetes.io~empty-dir/a b/c"));
        assert_eq!(mounts[3].outer(&inner).unwrap(), Path::new("/srv/a b/c"));
        assert_eq!(mounts[3].outer(&mounts[3].root).unwrap(), Path::new("/srv/a b"));
        assert_eq!(mounts[3].outer(Path::new("/kubelet")), None);
        assert_eq!(mounts[3].inner(Path::new("/srv")), None);
        assert_eq!(mounts[0].inner(Path::new("/x/y")).unwrap(), Path::new("/x/y"));
    }

    #[test]
    fn this_process_sees_the_mount_that_its_folder_is_on() {
        let mounts = parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        let folder = std::fs::File::open("/proc").unwrap();
        let id = id_of(&folder).unwrap().unwrap();
        let mount = mounts.iter().find(|mount| mount.id == id).unwrap();
        assert_eq!((mount.point.as_path(), mount.is_volume()), (Path::new("/proc"), false));
    }
}
