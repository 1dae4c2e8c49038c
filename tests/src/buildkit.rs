//! BuildKit's daemon: built from its module once, run on this machine, or in an image
//! of its own.

use crate::docker::import_programs;
use crate::program::{Program, Running};
use crate::{eventually, free_port, images, repository, toolbox};
use devloop_core::project::{FileMapping, ImageSpec};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The image's name in manifests.
pub const IMAGE: &str = "devloop.local/buildkit:test";
const MODULE: &str = "github.com/moby/buildkit";
const VERSION: &str = "v0.30.0";
const PROGRAMS: [&str; 2] = ["buildkitd", "buildctl"];
/// What a container needs of it: no step of the tests' Dockerfiles is a program that it
/// would have to run, so any snapshotter will do.
const OPTIONS: [&str; 2] = ["--oci-worker-snapshotter", "native"];
/// The image has no other folder.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", "/bin"), ("TMPDIR", "/bin")];

/// A daemon; ended when dropped.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    /// Where it listens.
    pub socket: PathBuf,
    /// The port on 127.0.0.1 where it listens, too.
    pub port: u16,
}

/// The folder of its programs.
///
/// # Panics
/// When they can't be built.
pub fn programs() -> PathBuf {
    // Who comes second takes what the first has built.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = repository().join("target/images/buildkit").join(VERSION);
    if PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return folder;
    }
    std::fs::create_dir_all(&folder).unwrap();
    // Beside whatever else is tested. `go install` refuses it, for what its go.mod excludes.
    let go = |words: &[&str]| {
        Program::new("nice").args(["-n", "19", "go"]).args(words).env("GOWORK", "off").env("CGO_ENABLED", "0").current_dir(&folder)
    };
    let said = go(&["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).run().ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let sources = said["Dir"].as_str().unwrap_or_else(|| panic!("{said}"));
    for program in PROGRAMS {
        let (part, from) = (folder.join("part").display().to_string(), format!("./cmd/{program}"));
        go(&["build", "-C", sources, "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", &part, &from]).run().ok();
        std::fs::rename(part, folder.join(program)).unwrap();
    }
    folder
}

impl Daemon {
    /// Starts one that keeps everything below `folder`.
    ///
    /// # Panics
    /// When it can't be built, or doesn't listen.
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("buildkitd.sock");
        let port = free_port();
        let (unix, tcp) = (format!("unix://{}", socket.display()), format!("tcp://127.0.0.1:{port}"));
        let root = folder.join("root").display().to_string();
        let program = Program::new(programs().join("buildkitd")).args(["--addr", &unix, "--addr", &tcp, "--root", &root]).args(OPTIONS);
        let daemon = Self { running: program.start(), socket, port };
        eventually("BuildKit listens", Duration::from_secs(60), || {
            std::os::unix::net::UnixStream::connect(&daemon.socket).map(drop).map_err(|error| error.to_string())
        });
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.running.signal(Signal::SIGTERM);
        let _ = self.running.child.wait();
    }
}

/// Gives the Docker engine the image.
///
/// # Panics
/// When that fails.
pub fn import(folder: &Path) {
    gather(folder);
    let environment = ENVIRONMENT.map(|(name, value)| format!("ENV {name}={value}"));
    let program = ["ENTRYPOINT [\"/bin/buildkitd\"]".to_owned(), format!("CMD {OPTIONS:?}")];
    import_programs(folder, IMAGE, &[environment, program].concat());
}

/// Fills the folder `bin`.
fn gather(folder: &Path) {
    let bin = folder.join("bin");
    toolbox::busybox_links(&bin);
    for program in PROGRAMS {
        std::fs::copy(programs().join(program), bin.join(program)).unwrap();
    }
    // It looks for one at its start.
    std::os::unix::fs::symlink("busybox", bin.join("runc")).unwrap();
}

/// Writes the image as an archive into `folder`; answers its path.
///
/// # Panics
/// When it can't be made.
pub fn archive(folder: &Path) -> PathBuf {
    gather(folder);
    let spec = ImageSpec {
        name: "buildkit".into(),
        entrypoint: vec!["/bin/buildkitd".into()],
        cmd: OPTIONS.map(str::to_owned).into(),
        env: ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        binary: Some("/bin/toolbox".into()),
        files: vec![FileMapping { from: "bin".into(), to: "/bin".into() }],
        ..ImageSpec::default()
    };
    images::write(folder, &spec, Path::new(toolbox::BUSYBOX), IMAGE.to_owned())
}
