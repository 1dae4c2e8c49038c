//! What must survive: killed processes, interrupted commands, damaged state,
//! bad requests.

use crate::Case;
use crate::clusters::load_toolbox;
use devloop_core::environment::Phase;
use devloop_tests::environment::Environment;
use devloop_tests::program::Program;
use devloop_tests::{eventually, host, programs, toolbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("faults::killed_components_come_back", killed_components),
        ("faults::killed_supervisor_comes_back_with_its_objects", killed_supervisor),
        ("faults::stopped_environment_comes_back_with_its_objects", stopped),
        ("faults::interrupted_up_leaves_nothing", interrupted_up),
        ("faults::two_ups_at_once_make_one_environment", two_ups),
        ("faults::failed_up_names_the_component_and_down_cleans", failed_up),
        ("faults::taken_port_is_an_error", taken_port),
        ("faults::half_written_record_can_be_taken_down", half_written),
        ("faults::full_disk_is_an_error", full_disk),
        ("faults::not_root_is_an_error", not_root),
        ("faults::missing_go_is_an_error", missing_go),
    ]
}

fn own() -> Environment {
    Environment::new("own", "own")
}

/// The host's process ids of a component, by its command line.
pub(crate) fn processes(environment: &Environment, component: &str) -> Vec<i32> {
    let init = environment.status().supervisor_pid;
    let namespace = std::fs::read_link(format!("/proc/{init}/ns/pid")).unwrap();
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let in_node = numbers.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == namespace));
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        first == component || (first.ends_with("devloop-node") && second == component)
    };
    in_node.filter(is_it).collect()
}

fn killed_components() {
    let environment = own();
    environment.up();
    load_toolbox(&environment);
    let run = ["run", "steady", "--image", toolbox::IMAGE, "--image-pull-policy=Never", "--", "-c", "sleep 3600"];
    environment.kubectl(run).run().ok();
    environment.kubectl(["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]).run().ok();
    for component in
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns", "containerd"]
    {
        let pids = processes(&environment, component);
        assert_eq!(pids.len(), 1, "{component}: {pids:?}");
        kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
        eventually(&format!("{component} is restarted"), SOON, || {
            let status = environment.status();
            let state = &status.components[component];
            if state.restarts >= 1 && state.pid > 0 { Ok(()) } else { Err(format!("{state:?}")) }
        });
    }
    eventually("the API answers again", SOON, || {
        let said = environment.kubectl(["get", "pod", "steady", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]).run();
        if said.status.success() { Ok(said.stdout) } else { Err(said.stderr) }
    });
    // The container never noticed.
    eventually("exec works again", SOON, || {
        let said = environment.kubectl(["exec", "steady", "--", "echo", "alive"]).run();
        if said.stdout == "alive\n" { Ok(()) } else { Err(said.stderr) }
    });
    let restarts = environment.kubectl(["get", "pod", "steady", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]).run().ok();
    assert_eq!(restarts, "0");
    let said = environment.devenv(["status", "--name", &environment.name]).run().ok();
    assert!(said.contains("killed by SIGKILL"), "{said}");
}

/// Follows the test before it: the environment is up, with a pod.
fn killed_supervisor() {
    let environment = own();
    environment.up();
    environment.kubectl(["create", "configmap", "kept"]).run().ok();
    let pid = environment.status().supervisor_pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("all its processes are gone", SOON, || {
        if host::links().contains("devloop") && devloop_core::node::process_start_time(pid).is_some() {
            Err("still there".to_owned())
        } else {
            Ok(())
        }
    });
    let text = environment.devenv(["status"]).run().ok();
    assert!(text.contains("stopped"), "{text}");
    environment.kubectl(["get", "nodes", "--request-timeout=2s"]).run().fails_with(1);
    environment.up();
    environment.kubectl(["get", "configmap", "kept"]).run().ok();
    environment.kubectl(["wait", "--for=condition=Ready", "pod/steady", "--timeout=90s"]).run().ok();
    eventually("its pod runs again", SOON, || {
        let said = environment.kubectl(["exec", "steady", "--", "echo", "alive"]).run();
        if said.stdout == "alive\n" { Ok(()) } else { Err(said.stderr) }
    });
}

fn stopped() {
    let environment = own();
    environment.up();
    environment.kubectl(["create", "configmap", "slept"]).run().ok();
    environment.devenv(["down", "--keep"]).run().ok();
    let interface = format!("devloop{}", environment.directory().record().unwrap().unwrap().embedded.unwrap().index);
    assert!(!host::links().lines().any(|link| link == interface), "{interface} is left");
    assert!(!std::fs::read_to_string(environment.kubeconfig()).unwrap_or_default().contains(&environment.context()));
    environment.up();
    environment.kubectl(["get", "configmap", "slept"]).run().ok();
    environment.down();
}

fn interrupted_up() {
    let environment = own().sibling("interrupted");
    let before = host::state();
    for after_ms in [30, 300, 1200] {
        let mut up = environment.devenv(environment.up_arguments()).start();
        std::thread::sleep(Duration::from_millis(after_ms));
        up.signal(Signal::SIGINT);
        let status = eventually("up ends on Ctrl-C", Duration::from_secs(15), || {
            up.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned())
        });
        let interrupted = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGINT as i32);
        assert!(interrupted, "{status} after {after_ms} ms");
        assert!(!environment.directory().root().exists(), "a half-made environment is left after {after_ms} ms");
        assert_eq!(before, host::state(), "something is left on the host after {after_ms} ms");
    }
}

fn two_ups() {
    let environment = own().sibling("twice");
    let [mut first, mut second] =
        [environment.devenv(environment.up_arguments()).start(), environment.devenv(environment.up_arguments()).start()];
    assert!(first.child.wait().unwrap().success());
    assert!(second.child.wait().unwrap().success());
    assert_eq!(environment.status().phase, Phase::Ready);
    assert_eq!(processes(&environment, "etcd").len(), 1);
    // A third that meets a starting one that nobody waits for: its `up` was killed.
    environment.devenv(["down", "--keep"]).run().ok();
    let killed = environment.devenv(environment.up_arguments()).start();
    eventually("the supervisor is started", SOON, || {
        let status = environment.directory().status().ok().flatten().ok_or("no status")?;
        if status.phase == Phase::Starting { Ok(()) } else { Err(format!("{:?}", status.phase)) }
    });
    drop(killed);
    environment.up();
    environment.kubectl(["get", "nodes"]).run().ok();
    environment.down();
}

fn failed_up() {
    let environment = own().sibling("broken");
    environment.up();
    environment.devenv(["down", "--keep"]).run().ok();
    // A log that is not etcd's.
    let wal = environment.directory().root().join("node/var/lib/etcd/member/wal");
    for entry in std::fs::read_dir(&wal).unwrap().flatten() {
        std::fs::write(entry.path(), "rubbish").unwrap();
    }
    let before = host::state();
    let error = environment.devenv(environment.up_arguments()).run().fails_with(1);
    assert!(error.contains("etcd ended") && error.contains("last lines of etcd") && error.contains("kubectl devenv down"), "{error}");
    assert_eq!(before, host::state(), "something is left on the host");
    let text = environment.devenv(["status"]).run().ok();
    assert!(text.contains("failed"), "{text}");
    environment.down();
    assert!(!environment.directory().root().exists());
}

fn taken_port() {
    let environment = own().sibling("port");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = environment.devenv(["up", "--api-port", &port.to_string()]).run().fails_with(1);
    assert!(error.contains(&format!("could not listen on 127.0.0.1:{port}")) && error.contains("--api-port"), "{error}");
    environment.down();
    for (arguments, expected) in [
        (vec!["up", "--api-port", "0"], "--api-port 0 is not a port"),
        (vec!["up", "--name", "Not_A_Name"], "can't be the name of an environment"),
        (vec!["up", "--provider", "kind", "--port", "x:80"], "--port \"x:80\" is not"),
        (vec!["up", "--no-registry", "--registry-port", "5001"], "cannot be used with"),
    ] {
        let error = environment.devenv(&arguments).run().fails_with(2);
        assert!(error.contains(expected) && error.to_lowercase().contains("error:"), "{arguments:?}: {error}");
    }
}

fn half_written() {
    let environment = own().sibling("half");
    std::fs::create_dir_all(environment.directory().root()).unwrap();
    std::fs::write(environment.directory().record_path(), "{\"name\": \"ha").unwrap();
    let error = environment.devenv(environment.up_arguments()).run().fails_with(1);
    assert!(error.contains("environment.json is damaged") && error.contains("kubectl devenv down --name half"), "{error}");
    environment.down();
    assert!(!environment.directory().root().exists());
    // A folder without a record: an `up` was killed before it wrote one.
    std::fs::create_dir_all(environment.directory().root().join("node")).unwrap();
    environment.up();
    environment.down();
}

fn full_disk() {
    let environment = own();
    let folder = environment.scratch("small");
    let script = format!(
        "mount -t tmpfs -o size=64m small {0} && XDG_STATE_HOME={0}/state exec {1} up --name small",
        folder.display(),
        programs().join("kubectl-devenv").display()
    );
    let error = environment.apply(Program::new("unshare").args(["--mount", "sh", "-c", &script])).run().fails_with(1);
    assert!(error.contains("of free disk space") && error.contains("XDG_STATE_HOME"), "{error}");
}

/// A copy of the program that anybody may run: the repository may be root's.
fn public_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let copy = folder.path().join("kubectl-devenv");
    std::fs::copy(programs().join("kubectl-devenv"), &copy).unwrap();
    (folder, copy)
}

fn not_root() {
    let (folder, copy) = public_copy();
    let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", copy.to_str().unwrap(), "up"];
    let error = Program::new("setpriv").args(arguments).env("HOME", folder.path()).env_remove("XDG_STATE_HOME").run().fails_with(1);
    assert!(error.contains("needs to be root") && error.contains("sudo"), "{error}");
}

fn missing_go() {
    let environment = own().sibling("nogo");
    let cache = environment.scratch("empty-cache");
    let error = environment
        .devenv(environment.up_arguments())
        .env("XDG_CACHE_HOME", &cache)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .run()
        .fails_with(1);
    assert!(error.contains("Go is missing") && error.contains("Hint: install Go"), "{error}");
    assert!(!environment.directory().root().exists());
}
