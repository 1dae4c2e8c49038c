//! Go builds a binary without C, so that it runs in an image built upon nothing.
//! Its symbols stay in it: a debugger has no other place to look for them.

use super::process::{Finished, read_text, run};
use super::{BuildError, BuiltBinary, Platform};
use crate::error::CommandError;
use crate::project::GoBuild;
use crate::shutdown::Shutdown;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;
use tokio::process::Command;

pub(super) async fn go(
    root: &Path,
    build: &GoBuild,
    keep: &Path,
    platform: &Platform,
    shutdown: &Shutdown,
) -> Result<BuiltBinary, BuildError> {
    let started = Instant::now();
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    // One name for each package: the go command leaves alone what is up to date.
    let name = blake3::hash(format!("{}\0{}\0{}", folder.display(), build.package, platform.architecture()).as_bytes()).to_hex();
    let path = keep.join(format!("go-{}", &name[..16]));
    let before = path.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut command = Command::new("go");
    command.args(arguments(build, &path)).current_dir(&folder);
    if !platform.is_local() {
        command.env("GOOS", "linux").env("GOARCH", platform.architecture());
    }
    if std::env::var_os("CGO_ENABLED").is_none() {
        command.env("CGO_ENABLED", "0");
    }
    let Finished { stdout, stderr, status } = run(command, read_text, read_text, shutdown).await?.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound if !folder.is_dir() => format!("{} is not a folder", folder.display()),
            std::io::ErrorKind::NotFound => "install Go from https://go.dev/dl, or put go on PATH".to_owned(),
            _ => "check that `go version` works".to_owned(),
        };
        CommandError::new("could not run go").caused_by(error).with_hint(hint)
    })?;
    if status.success() {
        let fresh = before.is_some() && path.metadata().and_then(|metadata| metadata.modified()).ok() == before;
        return Ok(BuiltBinary { path, fresh, duration: started.elapsed(), warnings: String::new() });
    }
    let said = format!("{stdout}\n{stderr}").trim().to_owned();
    match said.lines().filter(|line| is_position(line)).count() {
        0 => Err(CommandError::new(format!("go failed ({status})")).caused_by(said).into()),
        errors => Err(BuildError::Compile { rendered: said, errors }),
    }
}

fn arguments(build: &GoBuild, path: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["build".into(), "-o".into(), path.into()];
    arguments.extend(build.flags.iter().map(Into::into));
    arguments.push((&build.package).into());
    arguments
}

/// Whether a line begins as the compiler's messages do: `./main.go:3:5: `.
fn is_position(line: &str) -> bool {
    let Some((file, rest)) = line.split_once(".go:") else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    !file.is_empty() && digits > 0 && rest.as_bytes().get(digits) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(main: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("go.mod"), "module example.com/tiny\n\ngo 1.21\n").unwrap();
        std::fs::write(folder.path().join("main.go"), main).unwrap();
        folder
    }

    fn build() -> GoBuild {
        GoBuild { package: ".".to_owned(), folder: None, flags: Vec::new() }
    }

    #[tokio::test]
    async fn a_binary_is_static() {
        let (folder, keep) = (module("package main\n\nfunc main() {}\n"), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let first = go(folder.path(), &build(), keep.path(), &Platform::local(), &shutdown).await.unwrap();
        crate::image::single_binary(keep.path(), "tiny:1", &first.path, "/tiny").expect("it is linked statically");
    }

    /// Two folders, two caches: with `-trimpath`, nothing of them is in the program.
    #[tokio::test]
    async fn the_image_of_a_program_is_the_same_wherever_it_is_built() {
        let mut digests = Vec::new();
        for _ in 0..2 {
            let (folder, keep) = (module("package main\n\nfunc main() { println(1) }\n"), tempfile::tempdir().unwrap());
            let (_switch, shutdown) = Shutdown::manual();
            let build = GoBuild { flags: vec!["-trimpath".to_owned()], ..build() };
            let built = go(folder.path(), &build, keep.path(), &Platform::local(), &shutdown).await.unwrap();
            digests.push(crate::image::single_binary(keep.path(), "tiny:1", &built.path, "/tiny").unwrap().manifest_digest);
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[tokio::test]
    async fn another_platform_is_built_for() {
        let (folder, keep) = (module("package main\n\nfunc main() {}\n"), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let platform = Platform::parse("linux/riscv64").unwrap();
        let built = go(folder.path(), &build(), keep.path(), &platform, &shutdown).await.unwrap();
        assert_eq!(crate::image::single_binary(keep.path(), "tiny:1", &built.path, "/tiny").unwrap().architecture, "riscv64");
    }

    #[tokio::test]
    async fn compile_errors_are_counted_and_what_go_refuses_is_told() {
        let (folder, keep) = (module("package main\n\nfunc main() { x := 1; y() }\n"), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let BuildError::Compile { rendered, errors } =
            go(folder.path(), &build(), keep.path(), &Platform::local(), &shutdown).await.unwrap_err()
        else {
            panic!()
        };
        assert_eq!(errors, 2, "{rendered}");
        assert!(rendered.contains("main.go:3:"), "{rendered}");
        let other = GoBuild { package: "./nothing".to_owned(), ..build() };
        let BuildError::Tool(error) = go(folder.path(), &other, keep.path(), &Platform::local(), &shutdown).await.unwrap_err() else {
            panic!()
        };
        assert!(error.chain()[1].contains("nothing"), "{:?}", error.chain());
    }
}
