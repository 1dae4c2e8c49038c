//! What `kubectl debug-attach` shows of a process without a debugger: on the Go example
//! and on a program of C, with the readers that others use for the same files.

use super::{Extent, GREETING, SOON, Stage, Test};
use crate::clusters::Cluster;
use devloop_tests::example::Pod;
use devloop_tests::program::Program;
use devloop_tests::toolbox::IMAGE;
use devloop_tests::{container, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) fn add(add: &mut impl FnMut(&str, Test), extent: Extent) {
    if extent >= Extent::Nodes {
        add("a_core_file_is_read_by_others", core_file);
        add("a_toolbox_has_the_files_and_processes_of_the_app", shell);
    }
    if extent == Extent::Full {
        add("whatever_ends_a_core_file_none_is_left", cut);
        add("a_profile_is_read_by_pprof", profile);
        add("where_it_is_is_shown", snapshot);
    }
}

impl Stage {
    /// The program of the first container's process, as this machine has it.
    fn binary(pod: &Pod) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", container::process(&pod.container).unwrap()))
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.example.environment.scratch(name)
    }

    /// A pod that uses a processor, with a shell as its program.
    fn busy(&self) -> [String; 7] {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: busy, namespace: {}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", \"while true; do true; done\"]}}]\n",
            self.example.namespace
        );
        self.example.environment.apply_manifest(&manifest);
        self.example.kubectl(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"]).run().ok();
        let own = ["pod/busy", "--context", &self.example.environment.context(), "-n", &self.example.namespace, "--via", self.way];
        own.map(str::to_owned)
    }

    fn of_busy(&self, more: &[&str]) -> Program {
        let own = self.busy();
        self.example.environment.plugin("kubectl-debug_attach", own.iter().map(String::as_str).chain(more.iter().copied()))
    }
}

fn core_file(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let path = stage.scratch("core").join("web.core");
    let option = format!("--core={}", path.display());
    let event: Value = serde_json::from_str(&stage.program(&[&option, "-o", "json"]).run().ok()).unwrap();
    assert_eq!((event["via"].as_str(), event["pid"].as_u64()), (Some(way), Some(1)), "{event}");
    let said = gdb(&Stage::binary(&pod), &path);
    let threads = said.lines().filter(|line| line.contains("LWP ") || line.contains("Thread ")).count();
    assert!(threads as u64 >= event["threads"].as_u64().unwrap(), "{said}\n{event}");
    assert!(said.contains("runtime.") && !said.contains("Cannot access memory"), "{said}");
    stage.runs_on(&pod);
    // What is there is not written over.
    let error = stage.program(&[&option]).run().fails_with(1);
    assert!(error.contains("is there already") && error.contains("--core=FILE"), "{error}");
}

fn gdb(program: &Path, core: &Path) -> String {
    let (program, core) = (program.display().to_string(), core.display().to_string());
    let words = ["-batch", "-nx", "-ex", "info threads", "-ex", "bt", &program, &core];
    Program::new("gdb").args(words).run().ok()
}

fn cut(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let folder = stage.scratch("core-cut");
    let planned = stage.program(&["--core", "--dry-run"]).run().ok();
    assert!(planned.contains("would stop the process while its memory is copied"), "{planned}");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut running = stage.program(&[&format!("--core={}", folder.join("core").display())]).start();
        eventually("the file is begun", SOON, || {
            let begun = std::fs::read_dir(&folder).unwrap().next().is_some();
            let is_over = running.child.try_wait().unwrap().is_some();
            if begun || is_over { Ok(()) } else { Err("not yet".to_owned()) }
        });
        if running.child.try_wait().unwrap().is_none() {
            running.signal(signal);
        }
        running.child.wait().unwrap();
        // It was quicker, or it left nothing.
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty() || left == ["core"], "{left:?}");
        let _ = std::fs::remove_file(folder.join("core"));
        stage.runs_on(&pod);
    }
    let error = stage.program(&["--core=/proc/core"]).run().fails_with(1);
    assert!(error.contains("could not write to /proc"), "{error}");
}

fn profile(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let base = stage.scratch("profile").join("web");
    let name = base.display().to_string();
    // Requests keep it at work meanwhile.
    let (ended, requests) = std::thread::scope(|scope| {
        let command = scope.spawn(|| stage.program(&["--profile", "3s", "--out", &name, "-o", "json"]).run().ok());
        let mut requests = 0;
        while !command.is_finished() {
            assert!(stage.ask(&pod).join().unwrap().unwrap().contains(GREETING));
            requests += 1;
        }
        (command.join().unwrap(), requests)
    });
    let event: Value = serde_json::from_str(&ended).unwrap();
    assert!(requests > 0 && event["samples"].as_u64().is_some(), "{event}");
    let top = pprof(&base.with_extension("pb.gz"));
    assert!(top.contains("Type: cpu"), "{top}");
    stage.runs_on(&pod);
    // One that is always at work, in a program without symbols.
    let text = stage.of_busy(&["--profile", "1s", "--out", &name]).run().ok();
    assert!(text.contains("FUNCTION") && text.contains("busybox"), "{text}");
    assert!(pprof(&base.with_extension("pb.gz")).contains("busybox"));
    assert!(std::fs::read_to_string(base.with_extension("svg")).unwrap().contains("busybox"));
}

fn pprof(path: &Path) -> String {
    Program::new("go").args(["tool", "pprof", "-top", &path.display().to_string()]).run().ok()
}

fn snapshot(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let shown: Value = serde_json::from_str(&stage.program(&["--snapshot", "-o", "json"]).run().ok()).unwrap();
    assert_eq!(shown["of"], "goroutine", "{shown}");
    let has = |name: &str| {
        let groups = shown["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["frames"].as_array().unwrap()).any(|frame| frame["function"] == name)
    };
    assert!(has("main.main") && has("net/http.(*Server).Serve"), "{shown}");
    let text = stage.program(&["--snapshot"]).run().ok();
    assert!(text.contains("main.serve") && text.contains("cmd/web/main.go:"), "{text}");
    stage.runs_on(&pod);
    let shown: Value = serde_json::from_str(&stage.of_busy(&["--snapshot", "-o", "json"]).run().ok()).unwrap();
    assert_eq!((shown["of"].as_str(), shown["count"].as_u64()), (Some("thread"), Some(1)), "{shown}");
}

fn shell(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    // The image has neither a shell nor any other program.
    let run = |command: &[&str]| stage.program(&[&["--shell", "--"], command].concat()).run();
    let said = run(&["sh", "-c", "ls $TARGET/app; cat /proc/1/cmdline; hostname; wget -q -O - http://127.0.0.1:8080/version"]).ok();
    for wanted in ["web", pod.name.as_str(), GREETING] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    run(&["sh", "-c", "exit 7"]).fails_with(7);
    let error = run(&["nowhere"]).fails_with(1);
    assert!(error.contains("could not start a shell") && error.contains("busybox"), "{error}");
    let typed = stage.program(&["--shell"]).input("echo $((40 + 2))\nexit 3\n").run();
    assert!(typed.stdout.contains("42"), "{typed:?}");
    assert_eq!(typed.status.code(), Some(3));
    stage.runs_on(&pod);
}
