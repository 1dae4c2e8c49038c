//! From a container's id to its main process.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::mounts;
use crate::process::{Proc, Stat, in_container, names_container};
use crate::protocol::{ByteString, ErrorKind, Located, ProcessId};
use crate::root::ContainerRoot;

/// Programs that only start and await another: that one is the app.
const WRAPPERS: &[&str] = &["sh", "bash", "dash", "ash", "busybox", "tini", "tini-static", "docker-init", "dumb-init", "catatonit"];

/// The agent's own name, under which it may be a supervisor.
const OWN: &[u8] = b"devloop-agent";

/// tini, then `sh -c`, then a script of its own: deeper is no wrapper any more.
const MAX_WRAPPERS: usize = 4;

/// Whose processes the agent sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All of a node's: only the control group tells which are a container's.
    Node,
    /// Those of one container, which the agent was started beside. Its control
    /// group may not be visible from there.
    Beside {
        /// The agent itself.
        own_pid: u32,
    },
}

#[derive(Clone, Copy)]
struct Member {
    pid: u32,
    stat: Stat,
}

/// All processes of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) all: Vec<ProcessId>,
    /// The one that wrappers were looked through for.
    pub(crate) app: ProcessId,
}

/// The processes of a container, and which of them is the app.
pub(crate) fn members_of(proc: &Proc, view: View, container_id: &str) -> Result<Members, Failure> {
    let (mut members, main) = find(proc, view, container_id)?;
    let app = unwrapped(proc, &members, main);
    if let View::Beside { own_pid } = view {
        // The agent may not be the only process of its own container.
        let mounts = |pid| fs::read_link(proc.path(pid, "ns/mnt")).ok();
        let own = mounts(own_pid);
        members.retain(|member| own.is_none() || mounts(member.pid) != own);
    }
    Ok(Members { all: members.iter().map(|member| member.id()).collect(), app: app.id() })
}

/// The processes of a container, and its first one.
fn find(proc: &Proc, view: View, container_id: &str) -> Result<(Vec<Member>, Member), Failure> {
    let id = bare_id(container_id)?;
    let mut members = members(proc, |cgroup| in_container(cgroup, id))?;
    if members.is_empty()
        && let View::Beside { own_pid } = view
    {
        members = neighbours(proc, own_pid, id)?;
    }
    let main = main_process(&members).ok_or_else(|| {
        let place = if view == View::Node { "on this node" } else { "beside the agent" };
        let message = format!("no process {place} belongs to container {id}");
        Failure::new(ErrorKind::NotFound, message)
    })?;
    Ok((members, main))
}

pub(crate) fn locate(proc: &Proc, view: View, container_id: &str) -> Result<Located, Failure> {
    let (members, main) = find(proc, view, container_id)?;
    let app = unwrapped(proc, &members, main);
    let executable = proc.executable(app.pid)?;
    let status = proc.status(app.pid)?;
    Ok(Located {
        process: app.id(),
        argv: arguments(proc, app.pid)?,
        cwd: ByteString::from(proc.working_directory(app.pid)?.as_path()),
        main: main.id(),
        main_argv: arguments(proc, main.pid)?,
        executable: ByteString(executable.path),
        in_memory: executable.in_memory,
        uid: status.uid,
        gid: status.gid,
        machine: proc.machine(app.pid)?.name(),
        blake3: program_hash(proc, app.pid),
        seccomp: status.seccomp,
        volumes: volumes(proc, app.id()),
        // Who keeps the records knows.
        changed: false,
    })
}

/// Single files that are mounted are left out: these can't be changed.
fn volumes(proc: &Proc, process: ProcessId) -> Vec<ByteString> {
    let mounts = mounts::parse(&proc.read_live(process.pid, "mountinfo").unwrap_or_default());
    let mut points: Vec<&Path> = mounts.iter().filter(|mount| mount.is_volume()).map(|mount| mount.point.as_path()).collect();
    points.sort_unstable();
    points.dedup();
    if points.is_empty() {
        return Vec::new();
    }
    let Ok(root) = ContainerRoot::of(proc, process) else { return Vec::new() };
    let is_folder = |point: &&Path| root.open(point, OFlags::PATH | OFlags::DIRECTORY).is_ok();
    points.into_iter().filter(is_folder).map(ByteString::from).collect()
}

fn arguments(proc: &Proc, pid: u32) -> Result<Vec<ByteString>, Failure> {
    Ok(proc.arguments(pid)?.into_iter().map(ByteString).collect())
}

impl Member {
    fn id(self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.stat.start_time }
    }
}

/// What a process runs, from the file that the kernel holds for it.
fn program_hash(proc: &Proc, pid: u32) -> Option<[u8; 32]> {
    let mut program = proc.open_executable(pid).ok()?;
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut program, &mut hasher).ok()?;
    Some(*hasher.finalize().as_bytes())
}

/// An empty or short id would match what is no container.
pub(crate) fn bare_id(container_id: &str) -> Result<&str, Failure> {
    let id = container_id.rsplit("://").next().unwrap_or(container_id);
    if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    let message = format!("{container_id:?} is not a container id of 64 hexadecimal digits");
    Err(Failure::new(ErrorKind::NotFound, message))
}

/// The processes beside the agent, in the pid namespace of its target, where
/// pid 1 is the target's first process: for a node that shows a container only
/// the part of a control group's path that is below the container's own.
fn neighbours(proc: &Proc, own_pid: u32, id: &str) -> Result<Vec<Member>, Failure> {
    const FIRST: u32 = 1;
    if own_pid == FIRST {
        let message = "the container runtime did not give the agent the processes of its target";
        return Err(Failure::new(ErrorKind::Unsupported, message));
    }
    let first = proc.read(FIRST, "cgroup")?;
    // The pid namespace of a whole pod, or of a container that came after.
    if names_container(&String::from_utf8_lossy(&first)) {
        let message = format!("container {id} is not the one that the agent runs beside");
        return Err(Failure::new(ErrorKind::NotFound, message));
    }
    let mut members = members(proc, |cgroup| !names_container(cgroup))?;
    members.retain(|member| member.pid != own_pid);
    Ok(members)
}

fn members(proc: &Proc, belongs: impl Fn(&str) -> bool) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    for pid in proc.pids()? {
        // Processes come and go during the scan: one that can't be read is gone.
        let Ok(cgroup) = proc.read(pid, "cgroup") else { continue };
        if !belongs(&String::from_utf8_lossy(&cgroup)) {
            continue;
        }
        let Ok(stat) = proc.stat(pid) else { continue };
        if !proc.is_dead(pid, stat) {
            members.push(Member { pid, stat });
        }
    }
    Ok(members)
}

/// The member whose parent is outside. So are those of `kubectl exec` and, in a
/// shared pid namespace, orphans; but the first process is older than these.
fn main_process(members: &[Member]) -> Option<Member> {
    members
        .iter()
        .filter(|member| members.iter().all(|other| other.pid != member.stat.parent))
        .min_by_key(|member| (member.stat.start_time, member.pid))
        .copied()
}

fn unwrapped(proc: &Proc, members: &[Member], main: Member) -> Member {
    let mut app = main;
    for _ in 0..MAX_WRAPPERS {
        let mut children = members.iter().filter(|member| member.stat.parent == app.pid);
        match (children.next(), children.next()) {
            (Some(child), None) if is_wrapper(proc, app.pid) => app = *child,
            _ => break,
        }
    }
    app
}

pub(crate) fn is_wrapper(proc: &Proc, pid: u32) -> bool {
    let executable = proc.executable(pid).map(|executable| executable.path).unwrap_or_default();
    let name = executable.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    WRAPPERS.iter().any(|wrapper| wrapper.as_bytes() == name) || name == OWN && is_supervisor(proc, pid)
}

/// Whether it is [`crate::supervise`], and not what else the agent does.
fn is_supervisor(proc: &Proc, pid: u32) -> bool {
    proc.arguments(pid).is_ok_and(|arguments| arguments.get(1).is_some_and(|word| word == b"supervise"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A procfs of our own making.
    struct Node(TempDir);

    impl Node {
        fn new() -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            node.process(1, 0, 1, "/sbin/init", "/");
            node.process(100, 1, 50, "/usr/bin/containerd-shim-runc-v2", "/system.slice");
            node
        }

        fn process(&self, pid: u32, parent: u32, start: u64, exe: &str, cgroup: &str) {
            let directory = self.0.path().join(pid.to_string());
            fs::create_dir(&directory).unwrap();
            let stat = format!("{pid} (x y) S {parent} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {start} 0\n");
            fs::write(directory.join("stat"), stat).unwrap();
            fs::write(directory.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            fs::write(directory.join("cmdline"), "prog\0--flag\0").unwrap();
            fs::write(directory.join("status"), "Uid:\t0\t1000\t0\t0\nGid:\t0\t1001\t0\t0\n").unwrap();
            // The link's target must be readable as an ELF file, under any name.
            let program = self.0.path().join(format!("root{exe}"));
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::copy("/proc/self/exe", &program).unwrap();
            symlink(&program, directory.join("exe")).unwrap();
            symlink("/srv", directory.join("cwd")).unwrap();
        }

        /// The processes of one container, and the agent as pid 40.
        fn beside(first: &str, cgroup: &str) -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            node.process(1, 0, 50, first, cgroup);
            node.process(40, 0, 90, "/devloop-agent", "/");
            node
        }

        fn locate(&self, id: &str) -> Result<Located, Failure> {
            locate(&Proc::at(self.0.path()), View::Node, id)
        }

        fn locate_beside(&self, own_pid: u32) -> Result<Located, Failure> {
            locate(&Proc::at(self.0.path()), View::Beside { own_pid }, ID)
        }
    }

    fn pids(located: Result<Located, Failure>) -> (u32, u32) {
        let located = located.unwrap();
        (located.process.pid, located.main.pid)
    }

    #[test]
    fn a_container_of_one_process() {
        let node = Node::new();
        let cgroup = format!("/kubepods/pod1/{ID}");
        node.process(200, 100, 60, "/app/server", &cgroup);
        node.process(201, 200, 61, "/app/worker", &cgroup);
        let located = node.locate(&format!("containerd://{ID}")).unwrap();
        assert_eq!(located.process, ProcessId { pid: 200, start_time: 60 });
        assert_eq!(located.main, located.process);
        assert_eq!((located.cwd.as_path(), &located.main_argv), (std::path::Path::new("/srv"), &located.argv));
        assert_eq!(located.argv, [ByteString::from("prog"), ByteString::from("--flag")]);
        assert_eq!((located.uid, located.gid), (1000, 1001));
        assert_eq!(located.machine, std::env::consts::ARCH);
        assert!(located.executable.as_path().ends_with("app/server"));
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(located.blake3, Some(*blake3::hash(&own).as_bytes()));
    }

    #[test]
    fn beside_its_target_the_agent_takes_the_first_process_where_control_groups_are_hidden() {
        let node = Node::beside("/app/server", "/");
        assert_eq!(pids(node.locate_beside(40)), (1, 1));
        let wrapped = Node::beside("/sbin/tini", "/");
        wrapped.process(7, 1, 60, "/app/server", "/");
        assert_eq!(pids(wrapped.locate_beside(40)), (7, 1));
        // On a node pid 1 is the node's own.
        assert_eq!(wrapped.locate(ID).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn beside_its_target_the_agent_believes_a_control_group_first() {
        let visible = Node::beside("/pause", &format!("/../{}", ID.replace('0', "f")));
        visible.process(7, 0, 60, "/app/server", &format!("/../{ID}"));
        assert_eq!(pids(visible.locate_beside(40)), (7, 7));
        // Of another container: pid 1 is not what was asked for.
        let other = Node::beside("/pause", &format!("/../{}", ID.replace('0', "f")));
        assert_eq!(other.locate_beside(40).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn an_agent_alone_in_its_pid_namespace_has_no_target() {
        let node = Node(tempfile::tempdir().unwrap());
        node.process(1, 0, 50, "/devloop-agent", "/");
        assert_eq!(node.locate_beside(1).unwrap_err().kind, ErrorKind::Unsupported);
    }

    #[test]
    fn a_supervisor_is_a_wrapper_and_the_agent_is_not() {
        let node = Node::new();
        let cgroup = format!("/kubepods/pod1/{ID}");
        node.process(200, 100, 60, "/devloop/devloop-agent", &cgroup);
        node.process(201, 200, 61, "/bin/sh", &cgroup);
        node.process(202, 201, 62, "/app/server", &cgroup);
        assert_eq!(pids(node.locate(ID)), (200, 200));
        fs::write(node.0.path().join("200/cmdline"), "/devloop/devloop-agent\0supervise\0--\0sh\0").unwrap();
        assert_eq!(pids(node.locate(ID)), (202, 200));
    }

    #[test]
    fn an_exec_session_is_not_the_main_process() {
        let node = Node::new();
        let cgroup = format!("/kubepods/pod1/{ID}");
        // A lower pid, after the pids wrapped around.
        node.process(150, 100, 900, "/bin/cat", &cgroup);
        node.process(200, 100, 60, "/app/server", &cgroup);
        assert_eq!(pids(node.locate(ID)), (200, 200));
    }

    #[test]
    fn wrappers_give_way_to_their_only_child() {
        let node = Node::new();
        let cgroup = format!("/kubepods/pod1/{ID}");
        node.process(200, 100, 60, "/sbin/tini", &cgroup);
        node.process(201, 200, 61, "/bin/sh", &cgroup);
        node.process(202, 201, 62, "/app/server", &cgroup);
        node.process(203, 202, 63, "/app/worker", &cgroup);
        assert_eq!(pids(node.locate(ID)), (202, 200));
    }

    #[test]
    fn a_wrapper_with_two_children_stays() {
        let node = Node::new();
        let cgroup = format!("/kubepods/pod1/{ID}");
        node.process(200, 100, 60, "/bin/sh", &cgroup);
        node.process(201, 200, 61, "/app/server", &cgroup);
        node.process(202, 200, 62, "/app/other", &cgroup);
        assert_eq!(pids(node.locate(ID)), (200, 200));
    }

    #[test]
    fn what_is_no_container_is_not_found() {
        let node = Node::new();
        for id in [ID, "", "containerd://", "abc", &ID[1..]] {
            assert_eq!(node.locate(id).unwrap_err().kind, ErrorKind::NotFound, "{id}");
        }
    }
}
