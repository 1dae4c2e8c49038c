//! What `/proc` says about a process. The parsers are pure; formats are those
//! of proc_pid_stat(5), proc_pid_status(5), proc_pid_cgroup(5) and cgroups(7).

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::elf;
use crate::failure::Failure;
use crate::protocol::{ErrorKind, ProcessId};

/// The name that a program in memory carries after this prefix is the path it
/// would have been installed to, see `swap`.
const MEMORY_PREFIX: &[u8] = b"/memfd:";
const DELETED_SUFFIX: &[u8] = b" (deleted)";

/// A mounted procfs; another directory in tests.
#[derive(Clone, Debug)]
pub(crate) struct Proc {
    root: PathBuf,
}

/// The parts of `/proc/<pid>/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: u32,
    pub(crate) start_time: u64,
    /// Where its stack begins: another program of the same process has it elsewhere. 0
    /// where that may not be known (proc_pid_stat(5)).
    pub(crate) stack: u64,
}

/// The parts of `/proc/<pid>/status` that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The pid in each pid namespace, the innermost last.
    pub(crate) namespace_pids: Vec<u32>,
    /// The process that traces this one, 0 for none.
    pub(crate) tracer: u32,
    /// 0 none, 1 strict, 2 filter.
    pub(crate) seccomp: u32,
    /// The signals that wait for this thread: bit n-1 for signal n.
    pub(crate) pending: u64,
    /// Those that wait for any thread of the process.
    pub(crate) shared_pending: u64,
}

/// Where the program of a process comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    pub(crate) path: Vec<u8>,
    pub(crate) in_memory: bool,
}

impl Proc {
    pub(crate) fn system() -> Self {
        Self::at("/proc")
    }

    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    /// The same for what a thread gives up when it ends: memory, descriptors,
    /// program, root. When the first thread has, another one's are looked at.
    pub(crate) fn live_path(&self, pid: u32, file: &str) -> PathBuf {
        let ended = self.stat(pid).is_ok_and(|stat| stat.state == b'Z');
        let other = if ended { self.live_thread(pid) } else { None };
        match other {
            Some(thread) => self.path(pid, &format!("task/{thread}/{file}")),
            None => self.path(pid, file),
        }
    }

    /// All processes, in no order.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, Failure> {
        let entries = fs::read_dir(&self.root).map_err(Failure::io("list processes"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    /// The child processes, the dead that are not reaped included.
    pub(crate) fn children(&self, pid: u32) -> Result<Vec<u32>, Failure> {
        let Ok(threads) = fs::read_dir(self.path(pid, "task")) else { return Err(Failure::vanished(pid)) };
        let lists: Vec<_> = threads.filter_map(|entry| Some(fs::read_to_string(entry.ok()?.path().join("children")))).collect();
        // A kernel can be built without: then each process is asked for its parent.
        if lists.iter().all(Result::is_err) {
            let is_child = |child: &u32| self.stat(*child).is_ok_and(|stat| stat.parent == pid);
            return Ok(self.pids()?.into_iter().filter(is_child).collect());
        }
        // A thread that ended meanwhile passed its children on.
        Ok(lists
            .into_iter()
            .flatten()
            .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect())
    }

    pub(crate) fn read(&self, pid: u32, file: &str) -> Result<Vec<u8>, Failure> {
        read(pid, &self.path(pid, file))
    }

    /// See [`Proc::live_path`].
    pub(crate) fn read_live(&self, pid: u32, file: &str) -> Result<Vec<u8>, Failure> {
        read(pid, &self.live_path(pid, file))
    }

    pub(crate) fn stat(&self, pid: u32) -> Result<Stat, Failure> {
        parse_stat(&self.read(pid, "stat")?).ok_or_else(|| unreadable(pid, "stat"))
    }

    pub(crate) fn status(&self, pid: u32) -> Result<Status, Failure> {
        self.status_in(pid, "status")
    }

    pub(crate) fn thread_status(&self, pid: u32, thread: u32) -> Result<Status, Failure> {
        self.status_in(pid, &format!("task/{thread}/status"))
    }

    fn status_in(&self, pid: u32, file: &str) -> Result<Status, Failure> {
        let text = self.read(pid, file)?;
        parse_status(&String::from_utf8_lossy(&text)).ok_or_else(|| unreadable(pid, file))
    }

    pub(crate) fn arguments(&self, pid: u32) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(split_strings(&self.read_live(pid, "cmdline")?))
    }

    pub(crate) fn environment(&self, pid: u32) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(split_strings(&self.read_live(pid, "environ")?))
    }

    pub(crate) fn executable(&self, pid: u32) -> Result<Executable, Failure> {
        let link =
            fs::read_link(self.live_path(pid, "exe")).map_err(ended_or(pid, format_args!("read the program's path of process {pid}")))?;
        Ok(parse_executable(link.as_os_str().as_bytes()))
    }

    pub(crate) fn working_directory(&self, pid: u32) -> Result<PathBuf, Failure> {
        fs::read_link(self.live_path(pid, "cwd")).map_err(ended_or(pid, format_args!("read the working directory of process {pid}")))
    }

    /// The parent, named for good.
    pub(crate) fn parent(&self, process: ProcessId) -> Option<ProcessId> {
        let pid = self.stat(process.pid).ok()?.parent;
        let start_time = self.stat(pid).ok()?.start_time;
        Some(ProcessId { pid, start_time })
    }

    /// The program that a process runs, even where its file was deleted.
    pub(crate) fn open_executable(&self, pid: u32) -> Result<File, Failure> {
        File::open(self.live_path(pid, "exe")).map_err(ended_or(pid, format_args!("open the program of process {pid}")))
    }

    pub(crate) fn machine(&self, pid: u32) -> Result<elf::Machine, Failure> {
        elf::machine(&self.open_executable(pid)?)
    }

    /// Fails unless `process` is still the process that has its pid.
    pub(crate) fn check(&self, process: ProcessId) -> Result<(), Failure> {
        if self.is_running(process) { Ok(()) } else { Err(Failure::vanished(process.pid)) }
    }

    pub(crate) fn is_running(&self, process: ProcessId) -> bool {
        self.stat(process.pid).is_ok_and(|stat| stat.start_time == process.start_time && !self.is_dead(process.pid, stat))
    }

    /// Whether a process that still looks alive has given up its memory, which
    /// is what it does first.
    pub(crate) fn is_ending(&self, pid: u32) -> bool {
        self.executable(pid).is_err_and(|failure| failure.kind == ErrorKind::Vanished)
    }

    /// A process whose first thread ended looks like a zombie while its other
    /// threads live on; it is dead when none are left.
    pub(crate) fn is_dead(&self, pid: u32, stat: Stat) -> bool {
        match stat.state {
            b'X' => true,
            b'Z' => self.live_thread(pid).is_none(),
            _ => false,
        }
    }

    /// A thread that can be worked with: the first one, or another when that
    /// one ended before the process did.
    pub(crate) fn live_thread(&self, pid: u32) -> Option<u32> {
        let mut threads: Vec<u32> =
            fs::read_dir(self.path(pid, "task")).ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        threads.sort_by_key(|thread| (*thread != pid, *thread));
        threads.into_iter().find(|thread| {
            let stat = self.read(pid, &format!("task/{thread}/stat"));
            let state = stat.ok().and_then(|stat| parse_stat(&stat)).map(|stat| stat.state);
            state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
        })
    }
}

fn read(pid: u32, path: &Path) -> Result<Vec<u8>, Failure> {
    read_at_once(path).map_err(ended_or(pid, format_args!("read {}", path.display())))
}

/// Without asking for the size first, which a file of `/proc` doesn't tell.
fn read_at_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut piece = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// For a file of `/proc/<pid>` that every process has until it ends.
pub(crate) fn ended_or(pid: u32, what: impl Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| match error.raw_os_error() {
        // ENOENT: no such process; ESRCH: it ended while it was read.
        Some(nix::libc::ENOENT | nix::libc::ESRCH) => Failure::vanished(pid),
        _ => Failure::io(what)(error),
    }
}

fn unreadable(pid: u32, file: &str) -> Failure {
    Failure::new(ErrorKind::Io, format!("/proc/{pid}/{file} has an unknown format"))
}

pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name of the program comes second, in parentheses; it may itself hold
    // spaces and parentheses, so the last one ends it.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22; the two taken were 3 and 4.
    let start_time = fields.nth(17)?.parse().ok()?;
    let stack = fields.nth(5).and_then(|field| field.parse().ok()).unwrap_or(0);
    Some(Stat { state, parent, start_time, stack })
}

pub(crate) fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    // Real, effective, saved, file system.
    let effective = |name| field(name)?.split_ascii_whitespace().nth(1)?.parse().ok();
    let number = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let set = |name| field(name).and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(0);
    Some(Status {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        namespace_pids: field("NSpid").unwrap_or_default().split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        tracer: number("TracerPid"),
        seccomp: number("Seccomp"),
        pending: set("SigPnd"),
        shared_pending: set("ShdPnd"),
    })
}

/// Whether `/proc/<pid>/cgroup` puts a process into the container `id`: the id
/// is a component of a path (cgroupfs driver), or of the name of a systemd
/// scope such as `cri-containerd-<id>.scope`; under v1, in any hierarchy.
pub(crate) fn in_container(cgroup: &str, id: &str) -> bool {
    container_names(cgroup).any(|name| name == id)
}

/// Whether it puts a process into any container that can be told by it.
pub(crate) fn names_container(cgroup: &str) -> bool {
    container_ids(cgroup).next().is_some()
}

/// The id of the container that it puts a process into: the innermost, where a
/// node is itself a container.
pub(crate) fn container_id(cgroup: &str) -> Option<&str> {
    let deepest = cgroup.lines().max_by_key(|line| container_ids(line).count())?;
    container_ids(deepest).last()
}

/// The ids of all containers that it puts a process into.
pub(crate) fn container_ids(cgroup: &str) -> impl Iterator<Item = &str> {
    container_names(cgroup).filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The uid of the pod that it puts a process into: `pod<uid>` is a component of
/// a path (cgroupfs driver), or ends the name of a systemd slice, where dashes of
/// the uid are underscores. Of a node that is a pod itself, the innermost.
pub(crate) fn pod_uid(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let deepest = paths.map(pods_of).max_by_key(Vec::len)?;
    deepest.into_iter().next_back()
}

fn pods_of(path: &str) -> Vec<String> {
    path.split(['/', ':']).filter_map(pod_of).collect()
}

fn pod_of(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").map_or(component, |slice| slice.rsplit('-').next().unwrap_or(slice));
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    let is_uid = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

fn container_names(cgroup: &str) -> impl Iterator<Item = &str> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).flat_map(|component| {
        let scope = component.strip_suffix(".scope").and_then(|name| name.rsplit(['-', ':']).next());
        [component, scope.unwrap_or_default()]
    })
}

/// `cmdline` and `environ`: strings that each end with NUL, empty ones included.
fn split_strings(text: &[u8]) -> Vec<Vec<u8>> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn parse_executable(link: &[u8]) -> Executable {
    match link.strip_prefix(MEMORY_PREFIX) {
        Some(name) => Executable { path: name.strip_suffix(DELETED_SUFFIX).unwrap_or(name).to_vec(), in_memory: true },
        None => Executable { path: link.strip_suffix(DELETED_SUFFIX).unwrap_or(link).to_vec(), in_memory: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3da10c4ce85e4e9b0ced6cccafbe4ae83da10c4ce85e4e9b0ced6cccafbe4ae8";

    #[test]
    fn stat_with_spaces_and_parentheses_in_the_name() {
        let text = b"42 (a) R 1 (b c)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3 4 5 140733\n";
        assert_eq!(parse_stat(text), Some(Stat { state: b'S', parent: 7, start_time: 98765, stack: 140_733 }));
    }

    #[test]
    fn a_cut_stat_is_none() {
        assert_eq!(parse_stat(b"42 (a) S 7 42"), None);
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"42 (a)"), None);
    }

    #[test]
    fn status_takes_the_effective_ids_and_all_pids() {
        let text = "Name:\tx\nTracerPid:\t9\nUid:\t1\t1000\t3\t4\nGid:\t5\t2000\t7\t8\nNSpid:\t812\t33\t1\nSigPnd:\t0000000040000000\nShdPnd:\t0000000000000010\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(
            parse_status(text),
            Some(Status {
                uid: 1000,
                gid: 2000,
                namespace_pids: vec![812, 33, 1],
                tracer: 9,
                seccomp: 2,
                pending: 0x4000_0000,
                shared_pending: 0x10
            })
        );
        assert_eq!(parse_status("Name:\tx\n"), None);
    }

    #[test]
    fn cgroups_of_both_versions_and_both_drivers() {
        let v1 = format!("9:pids:/kubepods/burstable/pod1/{ID}\n0::/\n");
        let v2 = format!("0::/kubelet/kubepods/pod1/{ID}\n");
        let systemd = format!("0::/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{ID}.scope\n");
        let systemd_slice = format!("0::/kubepods.slice:cri-containerd:{ID}\n1:name=systemd:/{ID}/init.scope\n");
        let outside = format!("0::/../../pod1/{ID}\n");
        for text in [v1, v2, systemd, systemd_slice, outside] {
            assert!(in_container(&text, ID) && names_container(&text), "{text}");
        }
    }

    #[test]
    fn on_a_node_that_is_a_container_the_innermost_one_counts() {
        let node = ID.replace('3', "f");
        let inside = format!("9:pids:/docker/{node}/kubelet/kubepods/pod1/{ID}\n1:name=systemd:/docker/{node}/init.scope\n0::/\n");
        assert_eq!(container_id(&inside), Some(ID));
        assert_eq!(container_ids(&inside).count(), 3);
        assert_eq!(container_id(&format!("0::/docker/{node}\n")), Some(node.as_str()));
        assert_eq!(container_id("0::/\n"), None);
    }

    #[test]
    fn pods_of_both_drivers() {
        let uid = "0a1b2c3d-1111-2222-3333-444455556666";
        let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
        let plain = format!("9:pids:/kubelet/kubepods/burstable/pod{uid}/{ID}\n0::/\n");
        let systemd = format!("0::/kubelet.slice/kubepods.slice/kubepods-besteffort.slice/{slice}/cri-containerd-{ID}.scope\n");
        let colons = format!("0::/system.slice/containerd.service/{slice}:cri-containerd:{ID}\n");
        for text in [plain, systemd, colons] {
            assert_eq!(pod_uid(&text).as_deref(), Some(uid), "{text}");
        }
        let nested = format!("9:pids:/kubepods/podaaaa/{ID}/kubelet/kubepods/pod{uid}/{ID}\n1:name=systemd:/kubepods/podaaaa/init.scope\n");
        assert_eq!(pod_uid(&nested).as_deref(), Some(uid));
        // Of a static pod it is a hash.
        assert_eq!(pod_uid(&format!("0::/kubepods/pod5f3759df/{ID}")).as_deref(), Some("5f3759df"));
        for text in [format!("0::/docker/{ID}\n"), "0::/kubepods/podman\n".into(), "0::/machine.slice/pod.slice\n".into(), String::new()] {
            assert_eq!(pod_uid(&text), None, "{text}");
        }
    }

    #[test]
    fn cgroups_of_others() {
        let longer = format!("0::/kubepods/{ID}0\n");
        let hybrid = "9:pids:/\n0::/user.slice/session-1.scope\n".to_owned();
        let mount = format!("0::/kubepods/x{ID}.scope\n");
        for text in [longer, hybrid, mount, String::new(), "nonsense".into()] {
            assert!(!in_container(&text, ID), "{text}");
            assert!(!names_container(&text), "{text}");
        }
    }

    #[test]
    fn empty_arguments_are_arguments() {
        assert_eq!(split_strings(b"a\0\0b\0"), [&b"a"[..], b"", b"b"]);
        assert_eq!(split_strings(b"a\0b\0\0"), [&b"a"[..], b"b", b""]);
        // A process that overwrote its arguments need not end them.
        assert_eq!(split_strings(b"title"), [b"title"]);
        assert!(split_strings(b"").is_empty());
    }

    #[test]
    fn paths_of_programs() {
        let of = |link: &[u8]| parse_executable(link);
        assert_eq!(of(b"/app (deleted)"), Executable { path: b"/app".into(), in_memory: false });
        assert_eq!(of(b"/a b"), Executable { path: b"/a b".into(), in_memory: false });
        assert_eq!(of(b"/memfd:/app/server (deleted)"), Executable { path: b"/app/server".into(), in_memory: true });
    }

    #[test]
    fn a_child_is_a_child_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let children = || Proc::system().children(std::process::id()).unwrap();
        assert!(children().contains(&child.id()));
        child.wait().unwrap();
        assert!(!children().contains(&child.id()));
        assert!(Proc::system().children(u32::MAX).is_err());
    }

    #[test]
    fn this_process_is_running_and_its_successor_is_not() {
        let proc = Proc::system();
        let pid = std::process::id();
        let start_time = proc.stat(pid).unwrap().start_time;
        assert!(proc.is_running(ProcessId { pid, start_time }));
        assert!(!proc.is_running(ProcessId { pid, start_time: start_time + 1 }));
    }
}
