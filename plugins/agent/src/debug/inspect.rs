//! The processes of a container, and what each is made by.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::binary::{self, Program};
use super::jdwp::{TOOL_OPTIONS, jdwp, variable};
use super::scripts::scripts;
use super::{Candidate, Inspected, JavaMachine, Powers, Runtime, Sources};
use crate::failure::Failure;
use crate::locate::{View, is_wrapper, members_of};
use crate::process::Proc;
use crate::protocol::{ByteString, ErrorKind, ProcessId};
use crate::root::ContainerRoot;

/// Bit of `CAP_SYS_PTRACE` in a set of capabilities (capabilities(7)).
const CAP_SYS_PTRACE: u32 = 19;
/// So many processes are looked at closely.
const MOST: usize = 64;
/// About so many bytes of paths go into one piece.
const PIECE: usize = 16 * 1024;

pub(crate) fn inspect(proc: &Proc, view: View, container_id: &str) -> Inspected {
    match find(proc, view, container_id) {
        Ok(candidates) => Inspected::Found { candidates, powers: powers(proc) },
        Err(Failure { kind, message }) => Inspected::Failed { kind, message },
    }
}

fn find(proc: &Proc, view: View, container_id: &str) -> Result<Vec<Candidate>, Failure> {
    let found = members_of(proc, view, container_id)?;
    let boot = boot_time();
    let mut candidates: Vec<Candidate> = found
        .all
        .iter()
        .take(MOST)
        // One that ended meanwhile is none any more.
        .filter_map(|process| candidate(proc, *process, *process == found.app, boot).ok())
        .collect();
    candidates.sort_by_key(|candidate| (!candidate.is_app, candidate.process.start_time, candidate.process.pid));
    if candidates.is_empty() {
        return Err(Failure::new(ErrorKind::Vanished, "the processes of the container ended while they were looked at"));
    }
    Ok(candidates)
}

fn candidate(proc: &Proc, process: ProcessId, is_app: bool, boot: u64) -> Result<Candidate, Failure> {
    let pid = process.pid;
    let status = proc.status(pid)?;
    let executable = proc.executable(pid)?.path;
    let file = proc.open_executable(pid)?;
    let Program { go, compiler, build_id, has_symbols } = binary::read(&file);
    let maps = String::from_utf8_lossy(&proc.read_live(pid, "maps").unwrap_or_default()).into_owned();
    let name = String::from_utf8_lossy(executable.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).into_owned();
    let runtime = match go {
        Some(go) => Runtime::Go(go),
        None if is_wrapper(proc, pid) => Runtime::Wrapper,
        None => match interpreter(&name, &maps) {
            Some(Runtime::Jvm(_)) => Runtime::Jvm(java_machine(proc, process)?),
            found => found.unwrap_or(Runtime::Native { compiler }),
        },
    };
    let tracer = (status.tracer != 0).then(|| {
        let name = proc.read(status.tracer, "comm").unwrap_or_default();
        (status.tracer, String::from_utf8_lossy(&name).trim().to_owned())
    });
    Ok(Candidate {
        process,
        container_pid: status.namespace_pids.last().copied().unwrap_or(pid),
        is_app,
        argv: proc.arguments(pid)?.into_iter().map(ByteString).collect(),
        executable: ByteString(executable),
        uid: status.uid,
        machine: proc.machine(pid)?.name(),
        runtime,
        build_id,
        has_symbols,
        tracer,
        seccomp: status.seccomp,
        started: boot + process.start_time / ticks_per_second(),
    })
}

/// What a program interprets or runs upon, by its name and its libraries.
fn interpreter(name: &str, maps: &str) -> Option<Runtime> {
    let version = |text: &str| {
        let version: String = text.chars().take_while(|next| next.is_ascii_digit() || *next == '.').collect();
        Some(version.trim_end_matches('.').to_owned()).filter(|version| version.contains('.'))
    };
    if let Some(rest) = name.strip_prefix("python") {
        return Some(Runtime::Python { version: version(rest) });
    }
    let library = |prefix: &str| maps.lines().filter_map(|line| line.rsplit('/').next()).find_map(|file| file.strip_prefix(prefix));
    if matches!(name, "node" | "nodejs") || library("libnode.so").is_some() {
        return Some(Runtime::Node);
    }
    if library("libjvm.so").is_some() {
        return Some(Runtime::Jvm(JavaMachine::default()));
    }
    if library("libcoreclr.so").is_some() {
        return Some(Runtime::Dotnet);
    }
    library("libpython").map(|rest| Runtime::Python { version: version(rest) })
}

fn java_machine(proc: &Proc, process: ProcessId) -> Result<JavaMachine, Failure> {
    let (arguments, variables) = (proc.arguments(process.pid)?, proc.environment(process.pid)?);
    Ok(JavaMachine {
        version: java_version(proc, process),
        takes_debugger: jdwp(&arguments, &variables).is_some(),
        tool_options: variable(&variables, TOOL_OPTIONS),
    })
}

/// From the file `release` beside the folder of its program (JEP 223).
fn java_version(proc: &Proc, process: ProcessId) -> Option<String> {
    let program = ByteString(proc.executable(process.pid).ok()?.path);
    let release = program.as_path().parent()?.parent()?.join("release");
    let file = ContainerRoot::of(proc, process).ok()?.open(&release, OFlags::RDONLY).ok()?;
    let text = std::io::read_to_string(std::fs::File::from(file)).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    Some(value.trim_matches('"').to_owned())
}

fn powers(proc: &Proc) -> Powers {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    let status = String::from_utf8_lossy(&proc.read(std::process::id(), "status").unwrap_or_default()).into_owned();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    Powers {
        yama: yama.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        may_trace: capabilities & (1 << CAP_SYS_PTRACE) != 0,
        uid: geteuid().as_raw(),
    }
}

/// The source files of a process's program, in pieces: those that its table names,
/// else the scripts around the one that it runs.
pub(crate) fn sources(proc: &Proc, process: ProcessId) -> Vec<Sources> {
    let files = proc.open_executable(process.pid).and_then(|file| {
        proc.check(process)?;
        match binary::go_files(&file) {
            Some(files) => Ok(files),
            None => scripts(proc, process),
        }
    });
    let files = match files {
        Ok(files) if !files.is_empty() => files,
        Ok(_) => return vec![Sources::Failed("the program has no table of its source files that is known".to_owned())],
        Err(failure) => return vec![Sources::Failed(failure.message)],
    };
    let mut pieces = Vec::new();
    let (mut piece, mut length) = (Vec::new(), 0);
    for file in files {
        length += file.len();
        piece.push(file);
        if length > PIECE {
            pieces.push(Sources::Files(std::mem::take(&mut piece)));
            length = 0;
        }
    }
    pieces.push(Sources::Files(piece));
    pieces
}

/// Seconds from 1970 to the start of the kernel (proc_stat(5)).
fn boot_time() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let told = text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| seconds.trim().parse().ok());
    told.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()))
}

/// The unit of start times in `/proc` (times(2)).
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_by_names_and_libraries() {
        let maps = |library: &str| format!("7f00-7f01 r-xp 0 08:01 1 /usr/lib/{library}\n");
        assert_eq!(interpreter("python3.11", ""), Some(Runtime::Python { version: Some("3.11".to_owned()) }));
        assert_eq!(interpreter("python3", ""), Some(Runtime::Python { version: None }));
        assert_eq!(interpreter("uwsgi", &maps("libpython3.12.so.1.0")), Some(Runtime::Python { version: Some("3.12".to_owned()) }));
        assert_eq!(interpreter("node", ""), Some(Runtime::Node));
        assert_eq!(interpreter("java", &maps("server/libjvm.so")), Some(Runtime::Jvm(JavaMachine::default())));
        assert_eq!(interpreter("app", &maps("libcoreclr.so")), Some(Runtime::Dotnet));
        assert_eq!(interpreter("app", &maps("libc.so.6")), None);
    }

    #[test]
    fn this_process_is_a_candidate_of_its_own() {
        let proc = Proc::system();
        let pid = std::process::id();
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        let own = candidate(&proc, process, true, boot_time()).unwrap();
        assert!(matches!(&own.runtime, Runtime::Native { compiler: Some(compiler) } if compiler.starts_with("rustc")), "{own:?}");
        assert_eq!((own.uid, own.tracer.clone()), (geteuid().as_raw(), None));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(own.started <= now + 1 && own.started + 3600 > now, "{} {now}", own.started);
    }
}
