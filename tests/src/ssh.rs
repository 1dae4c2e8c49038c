//! A machine that is reached by ssh: this one, with a server of its own.

use crate::program::{Program, Running};
use crate::{eventually, free_port};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SERVER: &str = "/usr/sbin/sshd";

/// A server; ended when dropped.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    /// The port on 127.0.0.1 where it listens.
    pub port: u16,
    _running: Running,
}

impl Server {
    /// Starts one that keeps what it needs in `folder`, and gives its programs these
    /// variables.
    ///
    /// # Panics
    /// When it doesn't listen.
    pub fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["host", "user", "stranger"] {
            let path = folder.join(name).display().to_string();
            Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).run().ok();
        }
        if nix::unistd::Uid::effective().is_root() {
            // It does not start without, and nobody else has made it where no service did.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let set: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let place = folder.display();
        let configuration = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\nPidFile none\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nSetEnv {}\n",
            set.join(" ")
        );
        let file = folder.join("sshd_config");
        std::fs::write(&file, configuration).unwrap();
        let log = folder.join("sshd.log");
        let running = Program::new(SERVER).args(["-D".as_ref(), "-f".as_ref(), file.as_os_str(), "-E".as_ref(), log.as_os_str()]).start();
        eventually("sshd listens", Duration::from_secs(10), || {
            TcpStream::connect(("127.0.0.1", port))
                .map(drop)
                .map_err(|error| format!("{error}: {}", std::fs::read_to_string(&log).unwrap_or_default()))
        });
        Self { folder: folder.to_owned(), port, _running: running }
    }

    /// A folder for `PATH` in which `ssh` is the real one, of a user who has this key
    /// (`user`, or one that the server does not know) and knows the server.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn client(&self, key: &str) -> PathBuf {
        let bin = self.folder.join(format!("bin-{key}"));
        std::fs::create_dir_all(&bin).unwrap();
        let place = self.folder.display();
        let host = std::fs::read_to_string(self.folder.join("host.pub")).unwrap();
        std::fs::write(self.folder.join("known_hosts"), format!("[127.0.0.1]:{} {host}", self.port)).unwrap();
        let configuration =
            format!("IdentityFile {place}/{key}\nIdentitiesOnly yes\nUserKnownHostsFile {place}/known_hosts\nStrictHostKeyChecking yes\n");
        let file = bin.join("config");
        std::fs::write(&file, configuration).unwrap();
        // It looks for its configuration in the home that the system has for the user,
        // whatever HOME says.
        let real = Program::new("sh").args(["-c", "command -v ssh"]).run().ok();
        let program = bin.join("ssh");
        std::fs::write(&program, format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", real.trim(), file.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }
}
