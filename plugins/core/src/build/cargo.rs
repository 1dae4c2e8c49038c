//! Cargo builds with the C library linked in statically. Symbols stay in the
//! binary: who ships it takes them out (`ship`). Cargo's messages are read as JSON,
//! so that each is shown once, when the build is over, and not at all when it goes
//! well.

use super::flags::{FlagsEnvironment, build_flags_from_config, cargo_home, config_files, mentions, with_ours};
use super::process::{Finished, run};
use super::{BuildError, BuiltBinary, Platform};
use crate::error::CommandError;
use crate::project::CargoBuild;
use crate::shutdown::Shutdown;
use cargo_metadata::Message;
use cargo_metadata::diagnostic::DiagnosticLevel;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};

/// Builds a binary with cargo, in `root`. Cargo and all it started end when the
/// returned future is dropped.
///
/// # Errors
/// [`BuildError::Compile`] for mistakes in the sources; [`BuildError::Tool`] when
/// cargo is missing, refuses the request, or `shutdown` was asked for.
pub(super) async fn cargo(root: &Path, build: &CargoBuild, platform: &Platform, shutdown: &Shutdown) -> Result<BuiltBinary, BuildError> {
    let started = Instant::now();
    let triple = platform.triple();
    if !platform.is_local() {
        has_target(root, &triple).await?;
    }
    let environment = FlagsEnvironment::from_env();
    let configured = match environment {
        FlagsEnvironment::Unset => build_flags_from_config(root, &triple).await,
        FlagsEnvironment::Encoded(_) | FlagsEnvironment::Plain(_) => Vec::new(),
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments(build, &triple, &configured, console::colors_enabled_stderr()));
    if let Some(flags) = environment.with_ours() {
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    }
    command.current_dir(root);
    let Finished { stdout: messages, stderr: tail, status } =
        run(command, read_messages, read_tail, shutdown).await?.map_err(|error| could_not_start(error, root))?;
    messages.conclude(build, status, &tail, started.elapsed())
}

/// Refuses a target that the compiler has no standard library for: cargo would tell
/// it once for each crate.
async fn has_target(root: &Path, triple: &str) -> Result<(), CommandError> {
    // Then cargo makes one.
    if config_files(root).iter().any(|path| mentions(path, "build-std")) {
        return Ok(());
    }
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--print", "target-libdir", "--target", triple]).current_dir(root).stdin(Stdio::null()).kill_on_drop(true);
    // Where it can't be asked, cargo says why.
    let Some(output) = command.output().await.ok().filter(|output| output.status.success()) else { return Ok(()) };
    if Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        return Ok(());
    }
    Err(CommandError::usage(format!("Rust's target {triple} is not installed")).with_hint(format!(
        "`rustup target add {triple}`; linking takes a linker for it, too (`target.{triple}.linker` in .cargo/config.toml)"
    )))
}

fn could_not_start(error: std::io::Error, root: &Path) -> CommandError {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound if !root.is_dir() => format!("{} is not a folder", root.display()),
        std::io::ErrorKind::NotFound => "install Rust from https://rustup.rs, or put cargo on PATH".to_owned(),
        _ => "check that `cargo --version` works".to_owned(),
    };
    CommandError::new("could not run cargo").caused_by(error).with_hint(hint)
}

fn arguments(build: &CargoBuild, triple: &str, configured: &[String], color: bool) -> Vec<OsString> {
    let format = if color { "json-diagnostic-rendered-ansi" } else { "json" };
    let mut arguments: Vec<OsString> = ["build", "--color", "never", "--message-format", format, "--package"].map(Into::into).into();
    arguments.push((&build.package).into());
    arguments.extend(["--bin".into(), (&build.binary).into()]);
    if let Some(profile) = &build.profile {
        arguments.extend(["--profile".into(), profile.into()]);
    }
    if let Some(manifest) = &build.manifest {
        arguments.extend(["--manifest-path".into(), manifest.into()]);
    }
    // An explicit target keeps the flags away from build scripts and macros.
    arguments.extend(["--target".into(), triple.into()]);
    // Joined with what the user's configuration has for this target, not
    // instead of it (https://doc.rust-lang.org/cargo/reference/config.html).
    let flags = serde_json::Value::from(with_ours(configured.iter().map(String::as_str), cargo_home()));
    arguments.extend(["--config".into(), format!("target.{triple}.rustflags={flags}").into()]);
    arguments
}

/// What cargo said on stdout.
#[derive(Debug, Default)]
struct Messages {
    binaries: Vec<(String, PathBuf, bool)>,
    rendered: Vec<String>,
    seen: HashSet<String>,
    errors: usize,
}

impl Messages {
    fn take(&mut self, line: &str) {
        // What a build script or macro prints to stdout is not for us.
        let Ok(message) = serde_json::from_str::<Message>(line) else { return };
        match message {
            Message::CompilerArtifact(artifact) => {
                if let Some(executable) = artifact.executable {
                    self.binaries.push((artifact.target.name, executable.into_std_path_buf(), artifact.fresh));
                }
            }
            Message::CompilerMessage(compiler) => {
                let diagnostic = compiler.message;
                // The compiler's own summary of what was said before.
                if diagnostic.level == DiagnosticLevel::FailureNote || diagnostic.message.starts_with("aborting due to") {
                    return;
                }
                let text = diagnostic.rendered.unwrap_or(diagnostic.message);
                if self.seen.insert(text.clone()) {
                    self.errors += usize::from(matches!(diagnostic.level, DiagnosticLevel::Error | DiagnosticLevel::Ice));
                    self.rendered.push(text.trim_end().to_owned());
                }
            }
            _ => {}
        }
    }

    fn conclude(self, build: &CargoBuild, status: ExitStatus, tail: &[String], duration: Duration) -> Result<BuiltBinary, BuildError> {
        let rendered = self.rendered.join("\n\n");
        if !status.success() {
            if self.errors > 0 {
                return Err(BuildError::Compile { rendered, errors: self.errors });
            }
            return Err(refused(status, tail).into());
        }
        let found = self.binaries.into_iter().rev().find(|(name, ..)| *name == build.binary);
        let (_, path, fresh) = found.ok_or_else(|| {
            CommandError::new(format!("cargo built no binary {:?} of package {:?}", build.binary, build.package))
                .with_hint("name a binary target of the package in `build.cargo.binary`")
        })?;
        Ok(BuiltBinary { path, fresh, duration, warnings: rendered })
    }
}

/// Cargo failed before or beside compiling; its own words say why.
fn refused(status: ExitStatus, tail: &[String]) -> CommandError {
    let noise = |line: &&String| {
        let line = line.trim_start();
        ["Compiling ", "Finished ", "Updating ", "Downloading ", "Downloaded ", "Locking ", "Blocking ", "Fresh "]
            .iter()
            .any(|prefix| line.starts_with(prefix))
    };
    let words: Vec<&str> = tail.iter().filter(|line| !noise(line)).map(|line| line.trim_end()).collect();
    let words = words.join("\n");
    let words = words.trim();
    let words = words.strip_prefix("error: ").unwrap_or(words);
    let error = CommandError::new(format!("cargo failed ({status})"));
    if words.is_empty() { error } else { error.caused_by(words.to_owned()) }
}

async fn read_messages(stdout: Option<ChildStdout>) -> Messages {
    let mut messages = Messages::default();
    let Some(stdout) = stdout else { return messages };
    let mut lines = BufReader::new(stdout).lines();
    // A line that is not text is not a message either; the exit status decides.
    while let Ok(Some(line)) = lines.next_line().await {
        messages.take(&line);
    }
    messages
}

/// Drains stderr; keeps the last lines of it.
async fn read_tail(stderr: Option<ChildStderr>) -> Vec<String> {
    const KEPT: usize = 60;
    let mut tail = VecDeque::with_capacity(KEPT);
    let Some(stderr) = stderr else { return Vec::new() };
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        if tail.len() == KEPT {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    tail.into()
}

#[cfg(test)]
mod tests {
    use super::super::ship::ship;
    use super::*;
    use crate::symbols::Symbols;

    /// A package named after its folder, for all of them may share a target
    /// folder (`CARGO_TARGET_DIR`).
    fn project(main: &str) -> (tempfile::TempDir, CargoBuild) {
        let folder = tempfile::Builder::new().prefix("tiny").tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(
            folder.path().join("Cargo.toml"),
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
        )
        .unwrap();
        std::fs::write(folder.path().join("src/main.rs"), main).unwrap();
        (folder, CargoBuild { package: name.clone(), binary: name, profile: None, manifest: None })
    }

    #[tokio::test]
    async fn a_binary_is_static_and_fresh_the_second_time() {
        let (folder, build) = project("fn main() { println!(\"hello\"); }");
        let (_switch, shutdown) = Shutdown::manual();
        let first = cargo(folder.path(), &build, &Platform::local(), &shutdown).await.unwrap();
        assert!(!first.fresh && first.warnings.is_empty());
        crate::image::single_binary(folder.path(), "tiny:1", &first.path, "/tiny").expect("it is linked statically");
        let second = cargo(folder.path(), &build, &Platform::local(), &shutdown).await.unwrap();
        assert!(second.fresh && second.path == first.path);
    }

    /// Two folders; a build for debugging names its own, for the debugger.
    #[tokio::test]
    async fn a_release_is_the_same_wherever_it_is_built() {
        let (one, build) = project("mod other; fn main() { println!(\"{}\", other::third(&[1, 2])); }");
        std::fs::write(one.path().join("src/other.rs"), "pub fn third(all: &[u8]) -> u8 { all[std::env::args().count() + 1] }").unwrap();
        let two = tempfile::Builder::new().prefix("elsewhere").tempdir().unwrap();
        std::fs::create_dir(two.path().join("src")).unwrap();
        for file in ["Cargo.toml", "src/main.rs", "src/other.rs"] {
            std::fs::copy(one.path().join(file), two.path().join(file)).unwrap();
        }
        let build = CargoBuild { profile: Some("release".to_owned()), ..build };
        let mut digests = Vec::new();
        for folder in [one.path(), two.path()] {
            let (_switch, shutdown) = Shutdown::manual();
            let built = cargo(folder, &build, &Platform::local(), &shutdown).await.unwrap();
            let shipped = ship(folder, &built.path, &Symbols::at(folder)).unwrap();
            digests.push(crate::image::digest(&std::fs::read(&shipped.path).unwrap()));
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[tokio::test]
    async fn a_target_that_is_not_installed_is_named() {
        let (folder, build) = project("fn main() {}");
        let (_switch, shutdown) = Shutdown::manual();
        // Nobody installs it where this is tested.
        let platform = Platform::parse("linux/loong64").unwrap();
        let BuildError::Tool(error) = cargo(folder.path(), &build, &platform, &shutdown).await.unwrap_err() else { panic!() };
        assert_eq!(error.to_string(), "Rust's target loongarch64-unknown-linux-gnu is not installed");
    }

    #[tokio::test]
    async fn the_users_flags_for_all_targets_stay_in_force() {
        let (folder, build) = project("fn main() { #[cfg(not(mine))] compile_error!(\"flag lost\"); }");
        std::fs::create_dir(folder.path().join(".cargo")).unwrap();
        std::fs::write(folder.path().join(".cargo/config.toml"), "[build]\nrustflags = [\"--cfg\", \"mine\"]\n").unwrap();
        let (_switch, shutdown) = Shutdown::manual();
        cargo(folder.path(), &build, &Platform::local(), &shutdown).await.unwrap();
    }

    #[tokio::test]
    async fn compile_errors_are_told_once() {
        let (folder, build) = project("fn main() { let x: u8 = \"\"; }");
        let (_switch, shutdown) = Shutdown::manual();
        let error = cargo(folder.path(), &build, &Platform::local(), &shutdown).await.unwrap_err();
        let BuildError::Compile { rendered, errors } = error else { panic!("{error}") };
        assert_eq!(errors, 1);
        assert_eq!(rendered.matches("mismatched types").count(), 1, "{rendered}");
        assert!(rendered.contains("src/main.rs:1:25") && !rendered.contains("aborting"), "{rendered}");
    }

    #[tokio::test]
    async fn what_cargo_refuses_is_told_in_its_words() {
        let (folder, build) = project("fn main() {}");
        let (_switch, shutdown) = Shutdown::manual();
        let wrong = CargoBuild { binary: "other".into(), ..build };
        let BuildError::Tool(error) = cargo(folder.path(), &wrong, &Platform::local(), &shutdown).await.unwrap_err() else { panic!() };
        assert!(error.chain()[1].starts_with("no bin target named `other`"), "{:?}", error.chain());
    }

    #[tokio::test]
    async fn shutdown_ends_cargo_and_all_it_started() {
        let (folder, build) = project("fn main() {}");
        std::fs::write(folder.path().join("build.rs"), "fn main() { std::thread::sleep(std::time::Duration::from_secs(300)); }").unwrap();
        let (switch, shutdown) = Shutdown::manual();
        let platform = Platform::local();
        let work = cargo(folder.path(), &build, &platform, &shutdown);
        let stop = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            switch.send(true).unwrap();
        };
        let (outcome, ()) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(work, stop) }).await.unwrap();
        let BuildError::Tool(error) = outcome.unwrap_err() else { panic!() };
        assert_eq!(error.status().code(), 130);
    }
}
