//! Running a program as a user does, and looking at all it says.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A program to be run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    input: Vec<u8>,
}

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Program {
    /// A program without arguments yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, input: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Gives it this on stdin.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self.command.stdin(Stdio::piped());
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn run(mut self) -> Said {
        let line = self.line();
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("could not start {line}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            // A program that doesn't want its input says so in its own way.
            let _ = stdin.write_all(&self.input);
        }
        let output = child.wait_with_output().unwrap();
        Said {
            line,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it and leaves it running, its output piped.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut self) -> Running {
        let line = self.line();
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: child.unwrap_or_else(|error| panic!("could not start {line}: {error}")) }
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }
}

impl Said {
    /// Answers stdout.
    ///
    /// # Panics
    /// When the program failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{} failed ({})\nstdout: {}\nstderr: {}", self.line, self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Answers stderr.
    ///
    /// # Panics
    /// When the program did not end with this exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{}\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self.stderr
    }
}

/// A program that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
}

impl Running {
    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
