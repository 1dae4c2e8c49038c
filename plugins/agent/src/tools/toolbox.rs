//! Tools beside a process: a shell and what goes with it, in the namespaces of the
//! process, with its files below `target`.
//!
//! On a node the toolbox is a file system of its own, which only its programs see and
//! which goes with them. In a pod it is a folder of the ephemeral container, which
//! shares all namespaces with the process but that of mounts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, pivot_root};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};

/// Where the toolbox is from within: on a node.
const ROOT: &str = "/";
/// What of the process's own `/etc` is the toolbox's, too.
const SHARED: &[&str] = &["resolv.conf", "hosts", "passwd", "group", "nsswitch.conf", "ssl"];

/// What is brought along, and where to.
#[derive(Clone, Debug)]
pub(super) struct Toolbox {
    /// `busybox`, static.
    pub(super) busybox: PathBuf,
    /// A folder for it.
    pub(super) folder: PathBuf,
    /// Whether the agent is in a container of the pod.
    pub(super) is_beside: bool,
}

/// One that is ready to be entered.
#[derive(Debug)]
pub(super) struct Prepared {
    toolbox: Toolbox,
    /// What it can do.
    applets: Vec<OsString>,
    /// The namespaces to join, but that of processes, which is joined already.
    namespaces: Vec<File>,
    /// The process's number in the namespace of processes.
    number: u32,
    /// In the toolbox.
    home: PathBuf,
}

impl Toolbox {
    /// Finds out what it takes.
    pub(super) fn prepare(&self, proc: &Proc, process: ProcessId) -> Result<Prepared, Failure> {
        proc.check(process)?;
        let number = proc.status(process.pid)?.namespace_pids.last().copied().unwrap_or(process.pid);
        let applets = applets(&self.busybox)?;
        if self.is_beside {
            let home = self.folder.join("toolbox");
            fs::create_dir_all(home.join("bin")).map_err(Failure::io(format_args!("make {}", home.display())))?;
            return Ok(Prepared { toolbox: self.clone(), applets, namespaces: Vec::new(), number, home });
        }
        let open = |name: &str| {
            let path = proc.path(process.pid, &format!("ns/{name}"));
            File::open(&path).map_err(Failure::io(format_args!("open {}", path.display())))
        };
        let namespaces = ["net", "uts", "ipc", "cgroup"].map(open).into_iter().collect::<Result<Vec<File>, Failure>>()?;
        let processes = open("pid")?;
        proc.check(process)?;
        fs::create_dir_all(&self.folder).map_err(Failure::io(format_args!("make {}", self.folder.display())))?;
        // From here on what this agent starts is among the processes of the container.
        setns(processes, CloneFlags::CLONE_NEWPID)
            .map_err(|errno| Failure::new(ErrorKind::Permission, format!("cannot join the processes of the container: {errno}")))?;
        Ok(Prepared { toolbox: self.clone(), applets, namespaces, number, home: PathBuf::from(ROOT) })
    }
}

impl Prepared {
    /// The variables of its programs.
    pub(super) fn environment(&self) -> [(&'static str, OsString); 5] {
        let bin = self.home.join("bin");
        let target = self.home.join("target");
        [
            ("PATH", bin.clone().into_os_string()),
            ("SHELL", bin.join("sh").into_os_string()),
            ("HOME", self.home.clone().into_os_string()),
            ("TARGET", target.into_os_string()),
            ("PS1", "toolbox:\\w\\$ ".into()),
        ]
    }

    /// Moves this process into the toolbox.
    pub(super) fn enter(&self) -> io::Result<()> {
        if self.toolbox.is_beside {
            self.furnish(&self.home, &self.toolbox.busybox)?;
            return Ok(chdir(&self.home)?);
        }
        for namespace in &self.namespaces {
            setns(namespace, CloneFlags::empty())?;
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        // What is mounted from here on is nobody else's.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let root = &self.toolbox.folder;
        mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir(root.join(folder))?;
        }
        fs::copy(&self.toolbox.busybox, root.join("bin/busybox"))?;
        mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), none)?;
        mount(Some("/dev"), &root.join("dev"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        // Without it only a few tools know less.
        let _ = mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), MsFlags::MS_RDONLY, none);
        self.furnish(root, Path::new("/bin/busybox"))?;
        for name in SHARED {
            symlink(format!("/target/etc/{name}"), root.join("etc").join(name))?;
        }
        chdir(root)?;
        // The former root lies upon the new one then, and is taken away (pivot_root(2)).
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        Ok(chdir(ROOT)?)
    }

    /// Puts names of the tools, and the way to the process's files, into a folder; what
    /// is there stays.
    fn furnish(&self, folder: &Path, busybox: &Path) -> io::Result<()> {
        let link = |to: &Path, name: PathBuf| match symlink(to, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        for applet in &self.applets {
            link(busybox, folder.join("bin").join(applet))?;
        }
        let target = folder.join("target");
        // It may be another process this time.
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        link(&PathBuf::from(format!("/proc/{}/root", self.number)), target)
    }
}

/// What a `busybox` can do, by its own words.
fn applets(busybox: &Path) -> Result<Vec<OsString>, Failure> {
    let output = Command::new(busybox).arg("--list").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(Failure::io(format_args!("run {}", busybox.display())))?;
    let names: Vec<OsString> =
        String::from_utf8_lossy(&output.stdout).lines().filter(|name| !name.contains('/')).map(OsString::from).collect();
    if names.iter().any(|name| name == "sh") {
        return Ok(names);
    }
    Err(Failure::new(ErrorKind::Unsupported, format!("{} has no shell", busybox.display())))
}
