//! From the processes of a container to the one that is debugged, and what keeps
//! it from being debugged. Pure.

use crate::runtime::Debugger;
use devloop_core::agent::ByteString;
use devloop_core::agent::debug::{Candidate, HoldFailure, Powers, Runtime};
use devloop_core::{CommandError, Result, output};
use serde::Serialize;

/// A process, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    /// In the container.
    pub(crate) pid: u32,
    /// What is attached to without `--pid`.
    pub(crate) chosen: bool,
    pub(crate) runtime: String,
    pub(crate) symbols: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
    pub(crate) uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traced_by: Option<String>,
    pub(crate) supported: bool,
    /// Whether it has to be started anew for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) needs_restart: bool,
    pub(crate) command: String,
}

impl Listed {
    pub(crate) fn all(candidates: &[Candidate]) -> Vec<Self> {
        let chosen = choose(candidates, None).ok().map(|candidate| candidate.process);
        let one = |candidate: &Candidate| Self {
            pid: candidate.container_pid,
            chosen: Some(candidate.process) == chosen,
            runtime: describe(&candidate.runtime),
            symbols: candidate.has_symbols,
            build_id: candidate.build_id.clone(),
            uid: candidate.uid,
            traced_by: candidate.tracer.as_ref().map(|(pid, name)| format!("{name} ({pid})")),
            supported: is_supported(&candidate.runtime),
            needs_restart: needs_restart(candidate),
            command: command(candidate),
        };
        candidates.iter().map(one).collect()
    }

    pub(crate) fn text_of(all: &[Self]) -> String {
        let row = |listed: &Self| {
            let symbols = if listed.symbols { "yes" } else { "no" };
            let state = match (&listed.traced_by, listed.supported) {
                (Some(tracer), _) => format!("traced by {tracer}"),
                (None, true) if listed.needs_restart => "takes a debugger with --restart".to_owned(),
                (None, true) if listed.chosen => "is attached to by default".to_owned(),
                (None, true) => "can be attached to with --pid".to_owned(),
                (None, false) => "not supported yet".to_owned(),
            };
            vec![listed.pid.to_string(), listed.runtime.clone(), symbols.to_owned(), listed.uid.to_string(), state, listed.command.clone()]
        };
        output::table(&["PID", "RUNTIME", "SYMBOLS", "UID", "STATE", "COMMAND"], &all.iter().map(row).collect::<Vec<_>>())
    }
}

/// The runtime, and its version where that is known.
pub(crate) fn describe(runtime: &Runtime) -> String {
    match runtime {
        Runtime::Go(program) => program.version.replacen("go", "Go ", 1),
        Runtime::Native { compiler: Some(compiler) } if compiler.starts_with("rustc") => {
            format!("Rust {}", compiler.split_whitespace().nth(2).unwrap_or_default())
        }
        Runtime::Native { compiler: Some(compiler) } if compiler.contains("GCC") => {
            format!("C/C++, GCC {}", compiler.rsplit(' ').next().unwrap_or_default())
        }
        Runtime::Native { compiler: Some(compiler) } => format!("native, {compiler}"),
        Runtime::Native { compiler: None } => "native".to_owned(),
        Runtime::Python { version } => format!("Python {}", version.as_deref().unwrap_or_default()),
        Runtime::Node => "Node".to_owned(),
        Runtime::Jvm(machine) => format!("JVM {}", machine.version.as_deref().unwrap_or_default()),
        Runtime::Dotnet => ".NET".to_owned(),
        Runtime::Wrapper => "wrapper".to_owned(),
    }
    .trim_end()
    .to_owned()
}

/// Its arguments, as far as they fit a line.
pub(crate) fn command(candidate: &Candidate) -> String {
    /// Longer ones are cut.
    const MOST: usize = 60;
    let text = candidate.argv.iter().map(text).collect::<Vec<_>>().join(" ");
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if text.chars().count() > MOST { format!("{}...", text.chars().take(MOST).collect::<String>()) } else { text }
}

pub(crate) fn text(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

fn is_supported(runtime: &Runtime) -> bool {
    Debugger::of(runtime).is_some()
}

/// The process that was asked for; else the app, when it can be debugged; else the
/// only one that can.
///
/// # Errors
/// When there is none, or several.
pub(crate) fn choose(candidates: &[Candidate], pid: Option<u32>) -> Result<&Candidate> {
    let list = || {
        let words = candidates.iter().map(|candidate| format!("{} ({})", candidate.container_pid, describe(&candidate.runtime)));
        words.collect::<Vec<_>>().join(", ")
    };
    if let Some(pid) = pid {
        let found = candidates.iter().find(|candidate| candidate.container_pid == pid);
        return found.ok_or_else(|| {
            CommandError::new(format!("the container has no process {pid}")).with_hint(format!("its processes: {}", list()))
        });
    }
    let app = candidates.iter().find(|candidate| candidate.is_app);
    if let Some(app) = app.filter(|app| is_supported(&app.runtime)) {
        return Ok(app);
    }
    // A program of the system without debug information is hardly meant.
    let is_native = |candidate: &Candidate| Debugger::of(&candidate.runtime) == Some(Debugger::Lldb);
    let is_able = |candidate: &&Candidate| is_supported(&candidate.runtime) && (candidate.has_symbols || !is_native(candidate));
    let able: Vec<&Candidate> = candidates.iter().filter(is_able).collect();
    match able.as_slice() {
        [only] => Ok(only),
        // What is wrong with it is said later.
        [] => app.or(candidates.first()).ok_or_else(|| CommandError::new("the container has no process")),
        _ => Err(CommandError::new(format!("several processes could be meant: {}", list())).with_hint("name one with --pid")),
    }
}

/// Whether a process has to be started anew to take a debugger.
pub(crate) fn needs_restart(candidate: &Candidate) -> bool {
    matches!(&candidate.runtime, Runtime::Jvm(machine) if !machine.takes_debugger)
}

/// The process that was asked for, else the app, whatever it is made by.
///
/// # Errors
/// When there is none.
pub(crate) fn choose_any(candidates: &[Candidate], pid: Option<u32>) -> Result<&Candidate> {
    match (pid, candidates.iter().find(|candidate| candidate.is_app).or(candidates.first())) {
        (None, Some(app)) => Ok(app),
        _ => choose(candidates, pid),
    }
}

/// Whether a process may be looked at as things are.
///
/// # Errors
/// When not, with the fix.
pub(crate) fn check_any(candidate: &Candidate, powers: Powers) -> Result<()> {
    obstacle(candidate, powers).map_or(Ok(()), Err)
}

/// The debugger for it, if one may be attached as things are.
///
/// # Errors
/// When not, with the fix.
pub(crate) fn check(candidate: &Candidate, powers: Powers, has_symbols_file: bool) -> Result<Debugger> {
    let pid = candidate.container_pid;
    let Some(debugger) = Debugger::of(&candidate.runtime) else {
        let runtime = describe(&candidate.runtime);
        let error = CommandError::new(format!("process {pid} ({}) is {runtime}, which can't be attached to yet", command(candidate)));
        return Err(
            error.with_hint("Go, Rust, C, C++, Python, Node and Java can; see all processes with --list, and choose with --pid or -c")
        );
    };
    if needs_restart(candidate) {
        return Err(CommandError::new(format!("process {pid} can't be debugged as it is"))
            .caused_by("a Java virtual machine takes a debugger only if it was started with its debug agent (-agentlib:jdwp)")
            .with_hint("let its pods be started again with that by --restart; at the end they are as before"));
    }
    if candidate.machine != std::env::consts::ARCH {
        let error = CommandError::new(format!(
            "process {pid} is for {}, and the debugger that is made here is for {}",
            candidate.machine,
            std::env::consts::ARCH
        ));
        return Err(error.with_hint("run the command on a machine of that architecture"));
    }
    if let Some((tracer, name)) = candidate.tracer.as_ref().filter(|_| debugger.traces()) {
        return Err(traced(format!("process {tracer} ({name}) is attached to process {pid} already")));
    }
    if debugger.needs_symbols_there() && !candidate.has_symbols && !has_symbols_file {
        return Err(no_symbols(debugger, format!("the program of process {pid} has no debug information")));
    }
    obstacle(candidate, powers).filter(|_| debugger.traces()).map_or(Ok(debugger), Err)
}

/// What would keep the kernel from allowing it (ptrace(2)).
fn obstacle(candidate: &Candidate, powers: Powers) -> Option<CommandError> {
    let failed = |why: String, fix: &str| Some(CommandError::new("the kernel would not allow a debugger").caused_by(why).with_hint(fix));
    if powers.yama == 3 {
        return failed(
            "kernel.yama.ptrace_scope is 3 on the node: nobody may, until it is started again".to_owned(),
            "set it to 1 or less in the node's sysctl.conf, and restart the node",
        );
    }
    if powers.may_trace {
        return None;
    }
    if powers.yama > 0 {
        let why = format!("kernel.yama.ptrace_scope is {} on the node, and the debugger has no CAP_SYS_PTRACE", powers.yama);
        return failed(why, "set it to 0 on the node (`sysctl kernel.yama.ptrace_scope=0`), or allow SYS_PTRACE in the namespace");
    }
    if powers.uid != candidate.uid {
        let why = format!("the debugger runs as user {}, the process as user {}, and it has no CAP_SYS_PTRACE", powers.uid, candidate.uid);
        return failed(why, &format!("name the user with --user {}, or allow SYS_PTRACE in the namespace", candidate.uid));
    }
    None
}

/// Why a debugger that was started did not attach.
pub(crate) fn explain(debugger: Debugger, reason: HoldFailure, message: String, candidate: &Candidate, powers: Powers) -> CommandError {
    match reason {
        HoldFailure::Traced => traced(message),
        HoldFailure::NoSymbols => no_symbols(debugger, message),
        HoldFailure::Vanished => CommandError::new("the process ended while the debugger was being attached")
            .caused_by(message)
            .with_hint("see its log with `kubectl logs-tail`, then run the command again"),
        HoldFailure::NotAllowed => obstacle(candidate, powers).unwrap_or_else(|| {
            CommandError::new("the kernel does not allow the debugger").caused_by(message).with_hint(if candidate.seccomp == 0 {
                "see the node's security modules (AppArmor, SELinux)"
            } else {
                "see the seccomp profiles of the pod and the node's security modules (AppArmor, SELinux): ptrace must be allowed"
            })
        }),
        HoldFailure::Debugger => CommandError::new("the debugger could not be started").caused_by(message),
        HoldFailure::Other => CommandError::new("the debugger could not be attached").caused_by(message),
    }
}

fn traced(why: String) -> CommandError {
    CommandError::new("another debugger is attached").caused_by(why).with_hint("end that one: a process can have one debugger")
}

pub(crate) fn no_symbols(debugger: Debugger, why: String) -> CommandError {
    CommandError::new(why).with_hint(debugger.symbols_hint())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use devloop_core::agent::ProcessId;
    use devloop_core::agent::debug::{GoProgram, JavaMachine};
    use devloop_core::ui::render_error;

    pub(crate) fn candidate(pid: u32, is_app: bool, runtime: Runtime) -> Candidate {
        Candidate {
            process: ProcessId { pid: pid + 1000, start_time: 5 },
            container_pid: pid,
            is_app,
            argv: vec!["/app/web".into(), "--port".into(), "80".into()],
            executable: "/app/web".into(),
            uid: 1000,
            machine: std::env::consts::ARCH.to_owned(),
            runtime,
            build_id: Some("ab01".to_owned()),
            has_symbols: true,
            tracer: None,
            seccomp: 2,
            started: 0,
        }
    }

    fn go() -> Runtime {
        Runtime::Go(GoProgram { version: "go1.26.8".to_owned(), ..GoProgram::default() })
    }

    const ROOT: Powers = Powers { yama: 1, may_trace: true, uid: 0 };

    #[test]
    fn the_app_is_chosen_else_the_only_one_that_can_be() {
        let shell = candidate(1, true, Runtime::Wrapper);
        let all = [shell.clone(), candidate(7, false, go()), candidate(8, false, Runtime::Dotnet)];
        assert_eq!(choose(&all, None).unwrap().container_pid, 7);
        assert_eq!(choose(&all, Some(8)).unwrap().container_pid, 8);
        assert_eq!(choose(&[candidate(1, true, go()), candidate(2, false, go())], None).unwrap().container_pid, 1);
        let several = choose(&[shell.clone(), candidate(7, false, go()), candidate(9, false, go())], None).map(drop).unwrap_err();
        let none = choose(&all, Some(5)).map(drop).unwrap_err();
        insta::assert_snapshot!([several, none].map(|error| render_error(&error)).join("\n\n"));
        assert_eq!(choose(&[shell], None).unwrap().container_pid, 1);
    }

    #[test]
    fn processes_are_listed_for_people_and_tools() {
        let native = |compiler: &str| Runtime::Native { compiler: Some(compiler.to_owned()) };
        let mut traced = candidate(9, false, go());
        traced.tracer = Some((77, "dlv".to_owned()));
        let mut stripped = candidate(10, false, native("GCC: (Debian 12.2.0-14) 12.2.0"));
        (stripped.has_symbols, stripped.build_id) = (false, None);
        stripped.argv = vec!["x".repeat(100).as_str().into()];
        let all = [
            candidate(1, true, Runtime::Wrapper),
            candidate(7, false, native("rustc version 1.90.0 (1159e78c4 2025-09-14)")),
            candidate(8, false, Runtime::Python { version: Some("3.11".to_owned()) }),
            traced,
            stripped,
        ];
        let listed = Listed::all(&all);
        insta::assert_snapshot!(Listed::text_of(&listed));
        insta::assert_json_snapshot!(listed[3..]);
    }

    #[test]
    fn what_blocks_is_named_with_its_fix() {
        let app = || candidate(1, true, go());
        let confined = |yama, uid| Powers { yama, may_trace: false, uid };
        assert!(check(&app(), ROOT, false).is_ok() && check(&app(), confined(0, 1000), false).is_ok());
        let changed = |change: fn(&mut Candidate)| {
            let mut candidate = app();
            change(&mut candidate);
            check(&candidate, ROOT, false).unwrap_err()
        };
        assert!(check(&Candidate { has_symbols: false, ..app() }, ROOT, true).is_ok());
        let fail = |reason, powers| explain(Debugger::Delve, reason, "its words".to_owned(), &app(), powers);
        let errors = [
            changed(|candidate| candidate.runtime = Runtime::Dotnet),
            changed(|candidate| candidate.runtime = Runtime::Jvm(JavaMachine::default())),
            changed(|candidate| candidate.machine = "riscv64".to_owned()),
            changed(|candidate| candidate.tracer = Some((77, "gdb".to_owned()))),
            changed(|candidate| candidate.has_symbols = false),
            check(&app(), confined(3, 0), false).unwrap_err(),
            check(&app(), confined(1, 1000), false).unwrap_err(),
            check(&app(), confined(0, 0), false).unwrap_err(),
            fail(HoldFailure::NotAllowed, ROOT),
            fail(HoldFailure::Vanished, ROOT),
            fail(HoldFailure::Debugger, ROOT),
            fail(HoldFailure::Other, ROOT),
        ];
        let text = errors.map(|error| render_error(&error)).join("\n\n");
        insta::assert_snapshot!(text.replace(std::env::consts::ARCH, "ARCH"));
    }
}
