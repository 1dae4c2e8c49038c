//! The node's own root: the host's programs read-only, everything else its own.
//!
//! Standard paths (`/var/lib/kubelet`, `/run/containerd`, `/var/log/pods`) mean
//! the environment's files inside and don't exist outside, so two environments
//! share nothing, and every mount goes away with the node's last process.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Where things come from, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Sources<'a> {
    /// The environment's folder; `/devloop` on the node.
    pub(crate) environment: &'a Path,
    /// The folder of the node's programs; `/opt/devloop/bin` on the node.
    pub(crate) binaries: &'a Path,
}

/// Puts the root together and makes it this process's, which must be alone in
/// a mount and a pid namespace of its own.
///
/// # Errors
/// When a folder or a mount can't be made.
pub(crate) fn enter(sources: &Sources<'_>) -> io::Result<()> {
    // Nothing that is mounted from here on may reach the host.
    mount_flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let root = sources.environment.join("root");
    fs::create_dir_all(&root)?;
    tmpfs(&root, "mode=0755")?;
    share_host(&root)?;
    let node = sources.environment.join("node");
    for (source, target) in [(node.join("etc"), "etc"), (node.join("var"), "var"), (sources.environment.to_owned(), "devloop")] {
        fs::create_dir_all(&source)?;
        bind(&source, &root.join(target), false)?;
    }
    bind(sources.binaries, &root.join("opt/devloop/bin"), true)?;
    share_etc(&root)?;
    for (folder, options) in [("run", "mode=0755"), ("tmp", "mode=1777")] {
        fs::create_dir_all(root.join(folder))?;
        tmpfs(&root.join(folder), options)?;
    }
    // As on every Linux system; runc and kubelet go by these names.
    make_link("/run", &root.join("var/run"))?;
    proc(&root)?;
    switch(&root)?;
    // What the kubelet mounts for a container must reach that container's
    // namespace, and the other way round for bidirectional mounts.
    mount_flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// The host's programs and libraries, devices and kernel interfaces.
fn share_host(root: &Path) -> io::Result<()> {
    bind(Path::new("/usr"), &root.join("usr"), true)?;
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(metadata) if metadata.is_symlink() => make_link(&fs::read_link(&host)?.to_string_lossy(), &root.join(name))?,
            Ok(_) => bind(&host, &root.join(name), true)?,
            Err(_) => {}
        }
    }
    for name in ["dev", "sys"] {
        let target = root.join(name);
        fs::create_dir_all(&target)?;
        mount(Some(&Path::new("/").join(name)), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    }
    fs::create_dir_all(root.join("root"))
}

/// The few files of the host's `/etc` that its programs can't work without.
fn share_etc(root: &Path) -> io::Result<()> {
    for name in ["alternatives", "ssl", "iproute2"] {
        let host = Path::new("/etc").join(name);
        if host.is_dir() {
            bind(&host, &root.join("etc").join(name), true)?;
        }
    }
    for name in ["ld.so.cache", "ld.so.conf", "protocols", "services", "ethertypes"] {
        if let Ok(content) = fs::read(Path::new("/etc").join(name)) {
            fs::write(root.join("etc").join(name), content)?;
        }
    }
    Ok(())
}

/// Kernel settings that the kubelet insists on, with the values it wants to see.
const EXPECTED_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The node's own process list. The kernel's settings that are the whole
/// machine's are read-only, and the ones that the kubelet would change look to
/// it as if they were changed.
fn proc(root: &Path) -> io::Result<()> {
    let target = root.join("proc");
    fs::create_dir_all(&target)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &target, Some("proc"), flags, None::<&str>)?;
    for name in ["sys/kernel", "sys/vm", "sysrq-trigger"] {
        let path = target.join(name);
        if path.exists() {
            mount(Some(&path), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            mount_flags(&path, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags)?;
        }
    }
    let shown = root.join("run/devloop/settings");
    for (name, value) in EXPECTED_SETTINGS {
        let (path, setting) = (shown.join(name), target.join("sys").join(name));
        if setting.exists() {
            fs::create_dir_all(path.parent().unwrap_or(&shown))?;
            fs::write(&path, format!("{value}\n"))?;
            mount(Some(&path), &setting, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
    }
    Ok(())
}

/// Makes `root` the root and lets go of the old one.
fn switch(root: &Path) -> io::Result<()> {
    let old = root.join(".old");
    fs::create_dir_all(&old)?;
    pivot_root(root, &old)?;
    chdir("/")?;
    umount2("/.old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/.old")
}

fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))?;
    Ok(())
}

fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    fs::create_dir_all(target)?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    if read_only {
        mount_flags(target, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

fn mount_flags(target: &Path, flags: MsFlags) -> io::Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

fn make_link(target: &str, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes a folder that only root can look into.
///
/// # Errors
/// When it can't be made.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}
