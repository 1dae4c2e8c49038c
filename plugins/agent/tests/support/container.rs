//! A process as Kubernetes runs one: its own mount and pid namespaces, a root
//! directory with nothing but the program (FROM scratch), uid 1000, pid 1.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use devloop_agent::protocol::ProcessId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, chdir, fork, pivot_root, setgid, setgroups, setuid};
use tempfile::TempDir;

use super::eventually;

pub const EXECUTABLE: &str = "/app/server";
pub const UID: u32 = 1000;
pub const GID: u32 = 1001;

#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// What the server's first thread does, see `victims/server.rs`.
    pub mode: &'static str,
    pub read_only: bool,
    /// In the node's pid namespace, so not pid 1, which no signal kills by default.
    pub host_pid: bool,
    /// A tmpfs of 2 MiB on `/data`, like a volume, and its file `kept` also on
    /// `/app/mounted`, like a subPath.
    pub volume: bool,
    /// Folders of this machine that are mounted at these paths.
    pub shared: &'a [(&'a Path, &'a str)],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { mode: "idle", read_only: false, host_pid: false, volume: false, shared: &[] }
    }
}

pub struct Container {
    root: TempDir,
    outer: Child,
    pub process: ProcessId,
    pub port: u16,
}

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct Answer(HashMap<String, String>);

impl Answer {
    pub fn get(&self, key: &str) -> &str {
        &self.0[key]
    }

    pub fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap()
    }
}

impl Container {
    /// Starts the test server as `v1` and waits until it answers.
    pub fn start(options: Options<'_>) -> Self {
        assert!(Uid::effective().is_root(), "these tests need root, as the agent does");
        let root = tempfile::tempdir().unwrap();
        // For uid 1000 to get in; tempfile makes it 0700.
        fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = root.path().join(EXECUTABLE.trim_start_matches('/'));
        fs::create_dir(program.parent().unwrap()).unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        write_program(&program, &super::program("v1"));
        chown(&program, Some(7), Some(8)).unwrap();

        let port = free_port();
        let mut command = Command::new(EXECUTABLE);
        command.arg(port.to_string()).args([options.mode, ""]).env_clear();
        command.env("VICTIM_TAG", "from the start").env("EMPTY", "");
        let path = root.path().to_path_buf();
        let shared = options.shared.iter().map(|(folder, point)| (folder.to_path_buf(), path.join(point.trim_start_matches('/'))));
        let shared: Vec<(PathBuf, PathBuf)> = shared.collect();
        for (_, point) in &shared {
            fs::create_dir_all(point).unwrap();
        }
        let options = Options { shared: &[], mode: "", ..options };
        // SAFETY: the child of a multi-threaded process; what is called here
        // are system calls, and nothing that takes a lock of another thread.
        unsafe { command.pre_exec(move || enter(&path, options, &shared)) };
        let outer = command.spawn().unwrap();
        let pid = eventually("the start of the server", || {
            try_answer(port)?;
            child_of(outer.id())
        });
        let start_time = start_time(pid);
        let container = Self { root, outer, process: ProcessId { pid, start_time }, port };
        assert_eq!(container.answer().get("version"), "v1");
        container
    }

    /// Where a file of the container lies on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub fn try_answer(&self) -> Option<Answer> {
        try_answer(self.port)
    }

    pub fn answer(&self) -> Answer {
        eventually("an answer of the server", || self.try_answer())
    }

    /// A field of `/proc/<pid>/status`.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(&format!("{field}:")));
        line.unwrap().split_once(':').unwrap().1.trim().to_owned()
    }

    pub fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.process.pid)).unwrap();
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.map(|link| link.to_string_lossy().into_owned()).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.pid.cast_signed()), signal).unwrap();
    }

    /// Its child processes, the dead included.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.process.pid)
    }

    pub fn is_alive(&self) -> bool {
        child_of(self.outer.id()) == Some(self.process.pid)
    }

    /// The names in a directory of the container.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A control group named like a container, for as long as this lives.
pub struct ControlGroup {
    directory: PathBuf,
    pub id: String,
}

impl ControlGroup {
    pub fn with(container: &Container) -> Self {
        Self::of(&[container.process])
    }

    pub fn of(processes: &[ProcessId]) -> Self {
        Self::below(&hierarchy(), "devloop-agent-test-", processes)
    }

    fn below(folder: &Path, prefix: &str, processes: &[ProcessId]) -> Self {
        let id = format!("{:064x}", u64::from(processes[0].pid) << 32 | processes[0].start_time);
        let directory = folder.join(format!("{prefix}{id}.scope"));
        fs::create_dir(&directory).unwrap();
        let group = Self { directory, id };
        for process in processes {
            fs::write(group.directory.join("cgroup.procs"), process.pid.to_string()).unwrap();
        }
        group
    }
}

/// A control group named like a pod, for those of its containers.
pub struct Pod(PathBuf);

impl Pod {
    pub fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let uid = format!("{:08x}-{:04x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = hierarchy().join(format!("pod{uid}"));
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    pub fn group(&self, container: &Container) -> ControlGroup {
        ControlGroup::below(&self.0, "cri-containerd-", &[container.process])
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        eventually("the end of a pod's control group", || fs::remove_dir(&self.0).ok());
    }
}

/// One hierarchy of version 1, or the only one of version 2.
fn hierarchy() -> PathBuf {
    let root = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find(|root| Path::new(root).is_dir());
    PathBuf::from(root.unwrap())
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Its processes first: only an empty one can be removed.
        for pid in fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
        }
        eventually("the end of a control group", || fs::remove_dir(&self.directory).ok());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.is_alive() {
            // Its control group may have ended it meanwhile.
            let _ = kill(Pid::from_raw(self.process.pid.cast_signed()), Signal::SIGKILL);
        }
        // Ends when its child, the container, has.
        let _ = self.outer.wait();
    }
}

pub fn try_answer(port: u16) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.strip_suffix('\n')?;
    let pairs = line.split('\t').map(|pair| pair.split_once('=').unwrap());
    Some(Answer(pairs.map(|(key, value)| (key.into(), value.into())).collect()))
}

/// Written by another process: a program that a sibling test's fork happens to
/// inherit while it is open for writing can't be executed (ETXTBSY).
fn write_program(path: &Path, bytes: &[u8]) {
    let temporary = tempfile::NamedTempFile::new().unwrap();
    fs::write(temporary.path(), bytes).unwrap();
    let status = Command::new("cp").arg(temporary.path()).arg(path).status().unwrap();
    assert!(status.success());
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn enter(root: &Path, options: Options<'_>, shared: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    let pid_namespace = if options.host_pid { CloneFlags::empty() } else { CloneFlags::CLONE_NEWPID };
    unshare(CloneFlags::CLONE_NEWNS | pid_namespace)?;
    // SAFETY: see `start`.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        // The pid namespace holds only children. The standard library waits for
        // the descriptors of this process to close.
        // SAFETY: nothing here uses a descriptor again.
        unsafe { nix::libc::close_range(3, u32::MAX, 0) };
        let _ = waitpid(child, None);
        // SAFETY: ends this process without the test's exit handlers.
        unsafe { nix::libc::_exit(0) };
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some(root), root, none, MsFlags::MS_BIND, none)?;
    for (folder, point) in shared {
        mount(Some(folder), point, none, MsFlags::MS_BIND, none)?;
    }
    if options.volume {
        mount(none, &root.join("data"), Some("tmpfs"), MsFlags::empty(), Some("size=2m"))?;
        fs::write(root.join("data/kept"), "kept")?;
        fs::write(root.join("app/mounted"), "underneath")?;
        let (from, to) = (root.join("data/kept"), root.join("app/mounted"));
        mount(Some(&from), &to, none, MsFlags::MS_BIND, none)?;
    }
    if options.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, root, none, flags, none)?;
    }
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    setgroups(&[])?;
    setgid(Gid::from_raw(GID))?;
    setuid(Uid::from_raw(UID))?;
    Ok(())
}

pub fn child_of(parent: u32) -> Option<u32> {
    children_of(parent).first().copied()
}

pub fn children_of(parent: u32) -> Vec<u32> {
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        (stat_field(pid, 1)? == u64::from(parent)).then_some(pid)
    });
    children.collect()
}

pub fn start_time(pid: u32) -> u64 {
    stat_field(pid, 19).unwrap()
}

fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// Below the range that outgoing connections take theirs from: such a one must
/// not sit on the port while the server is being swapped.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = std::process::id() as u16 % 100 * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + offset % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
