//! Stock `docker` and `kind`, and an engine's socket that can be cut.

use crate::program::Program;
use crate::toolbox;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stock `docker`.
pub fn docker<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Program {
    Program::new("docker").args(arguments)
}

/// Stock `kind`: on PATH, or where `kubectl devenv` installs it.
///
/// # Panics
/// When there is neither an XDG cache folder nor a home.
pub fn kind() -> PathBuf {
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("kind").is_file()));
    if on_path {
        return "kind".into();
    }
    devloop_core::environment::Directories::from_env().unwrap().cache.join("bin/kind")
}

/// Gives the engine an image with the toolbox's programs.
///
/// # Panics
/// When that fails.
pub fn import_toolbox(folder: &Path, name: &str) {
    toolbox::archive(folder);
    // The name goes into it, so that each image is one of its own.
    std::fs::write(folder.join("bin/name"), name).unwrap();
    import_programs(folder, name, &[]);
}

/// Gives the engine an image of the folder `bin` below another, with a configuration in
/// the words of a Dockerfile.
pub(crate) fn import_programs(folder: &Path, name: &str, configuration: &[String]) {
    let root = folder.join("rootfs.tar");
    Program::new("tar").args(["--create", "--file"]).args([&root]).args(["--directory"]).args([folder]).args(["bin"]).run().ok();
    let changes = configuration.iter().flat_map(|line| ["--change", line]).map(OsStr::new);
    docker(["import".as_ref()].into_iter().chain(changes).chain([root.as_os_str(), name.as_ref()])).run().ok();
}

/// A socket that passes everything on to the engine, until it is cut.
#[derive(Debug)]
pub struct CutSocket {
    path: PathBuf,
    cut: Arc<AtomicBool>,
}

impl CutSocket {
    /// Listens in a folder.
    ///
    /// # Panics
    /// When the engine isn't at a socket of this machine.
    pub fn start(folder: &Path) -> Self {
        let engine = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let engine = PathBuf::from(engine.strip_prefix("unix://").expect("the engine is at a socket"));
        let path = folder.join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_cut.load(Ordering::Relaxed) {
                    return;
                }
                let server = UnixStream::connect(&engine).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, is_cut) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&is_cut));
                    std::thread::spawn(move || pass_on(&from, &to, &is_cut));
                }
            }
        });
        Self { path, cut }
    }

    /// For `DOCKER_HOST`.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Breaks all connections and takes no more.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        // It may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for CutSocket {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Copies until either side ends or the socket is cut, which is looked at often.
fn pass_on(from: &UnixStream, to: &UnixStream, is_cut: &AtomicBool) {
    use std::io::{Read, Write};
    let mut buffer = vec![0; 64 * 1024];
    from.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let (mut reader, mut writer) = (from, to);
    loop {
        if is_cut.load(Ordering::Relaxed) {
            break;
        }
        match reader.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(std::net::Shutdown::Write);
                return;
            }
            Ok(count) if writer.write_all(&buffer[..count]).is_err() => break,
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Ok(_) | Err(_) => {}
        }
    }
    for stream in [from, to] {
        // The other side may have ended first.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}
