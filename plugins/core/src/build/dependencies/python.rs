//! Packages of Python: by uv where its lock file or a `pyproject.toml` names them, by
//! pip where a file of requirements does.

use super::{BuildError, Recipe, layer, relative, words};
use crate::error::CommandError;
use crate::image::Layer;
use crate::project::{PYPROJECT, PYTHON_LOCKS, PythonBuild, UV_LOCK};
use crate::shutdown::Shutdown;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where packages are put before they become a layer.
const PACKAGES: &str = "site-packages";
/// What uv's lock file says, as requirements with their hashes.
const LOCKED: &str = "locked.txt";

/// The layer of the packages that uv's lock file or a file of requirements names.
///
/// # Errors
/// When there is no such file, uv or pip fails, or what was installed is no use to
/// `architecture`.
pub async fn python(cache: &Path, root: &Path, build: &PythonBuild, architecture: &str, shutdown: &Shutdown) -> Result<Layer, BuildError> {
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let found = || PYTHON_LOCKS.iter().find(|name| folder.join(name).is_file()).map(PathBuf::from);
    let Some(file) = build.requirements.clone().or_else(found) else {
        let error = CommandError::usage(format!("there is none of {} in {}", PYTHON_LOCKS.join(", "), folder.display()));
        return Err(error.with_hint("`uv lock` writes a lock file; or name a file of requirements in `build.python.requirements`").into());
    };
    let (program, calls) = if file.ends_with(UV_LOCK) {
        ("uv", vec![uv_export(&file), uv_install(Path::new(LOCKED))])
    } else if file.ends_with(PYPROJECT) {
        ("uv", vec![uv_install(&file)])
    } else {
        ("python3", vec![pip_install(&file)])
    };
    let required: Vec<PathBuf> = std::iter::once(&file).chain(&build.include).cloned().collect();
    let inputs = PythonBuild { requirements: Some(file), ..build.clone() }.inputs();
    let files = relative(build.folder.as_deref(), &inputs);
    let recipe = Recipe { folder, files, program, calls, tools: &["python3"], makes: PACKAGES, to: build.to.clone() };
    layer(cache, &recipe, &required, architecture, shutdown).await
}

fn pip_install(requirements: &Path) -> Vec<OsString> {
    // Without compiled files, which have times in them.
    let mut call =
        words(&["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--no-warn-script-location"]);
    call.extend(words(&["--quiet", "--target", PACKAGES, "--requirement"]));
    call.push(requirements.into());
    call
}

fn uv_export(lock: &Path) -> Vec<OsString> {
    let mut call = words(&["export", "--frozen", "--no-dev", "--no-emit-project", "--no-editable", "--quiet"]);
    call.extend(words(&["--format", "requirements-txt", "--output-file", LOCKED]));
    if let Some(project) = lock.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        call.extend(["--project".into(), project.into()]);
    }
    call
}

fn uv_install(requirements: &Path) -> Vec<OsString> {
    let mut call =
        words(&["pip", "install", "--python", "python3", "--link-mode", "copy", "--quiet", "--target", PACKAGES, "--requirement"]);
    call.push(requirements.into());
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::find_on_path;
    use crate::image::local_architecture;

    /// A package as pip takes it from a file, so that no registry is asked.
    const WHEEL: &str = r#"
import zipfile
with zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "x = 1\n")
    wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("tiny-1.0.dist-info/RECORD", "")
"#;

    #[tokio::test]
    async fn packages_of_python_go_where_the_image_looks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("python3").args(arguments).current_dir(folder.path()).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !run(&["-m", "pip", "--version"]) {
            eprintln!("skipped: needs pip");
            return;
        }
        assert!(run(&["-c", WHEEL]));
        let wheel = "tiny-1.0-py3-none-any.whl";
        std::fs::write(folder.path().join("requirements.txt"), format!("./{wheel}\n")).unwrap();
        let build = PythonBuild { folder: None, requirements: None, to: "/lib/py".into(), include: vec![wheel.into()] };
        let cache = tempfile::tempdir().unwrap();
        let (_switch, shutdown) = Shutdown::manual();
        let layer = python(cache.path(), folder.path(), &build, local_architecture(), &shutdown).await.unwrap();
        let names = names(&layer);
        assert!(names.contains(&"lib/py/tiny.py".into()), "{names:?}");
        assert!(!names.iter().any(|name| name.extension().is_some_and(|extension| extension == "pyc")), "{names:?}");
    }

    fn names(layer: &Layer) -> Vec<PathBuf> {
        let mut tar = tar::Archive::new(std::fs::File::open(&layer.path).unwrap());
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect()
    }

    /// A project whose only package is a file of it, locked by uv.
    #[tokio::test]
    async fn a_lock_file_of_uv_counts_before_all_else() {
        let Some(uv) = find_on_path("uv") else {
            eprintln!("skipped: needs uv");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let run = |program: &Path, arguments: &[&str]| {
            let output = std::process::Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(Path::new("python3"), &["-c", WHEEL]);
        let wheel = "tiny-1.0-py3-none-any.whl";
        let project = format!(
            "[project]\nname = \"web\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"tiny\"]\n\n\
             [tool.uv.sources]\ntiny = {{ path = \"{wheel}\" }}\n"
        );
        std::fs::write(folder.path().join(PYPROJECT), project).unwrap();
        run(&uv, &["lock", "--offline", "--quiet"]);
        std::fs::write(folder.path().join("requirements.txt"), "nothing-like-this==1\n").unwrap();
        let build = PythonBuild { folder: None, requirements: None, to: "/lib/py".into(), include: vec![wheel.into()] };
        let cache = tempfile::tempdir().unwrap();
        let (_switch, shutdown) = Shutdown::manual();
        let made = async |build: &PythonBuild| python(cache.path(), folder.path(), build, local_architecture(), &shutdown).await.unwrap();
        let locked = made(&build).await;
        assert!(names(&locked).contains(&"lib/py/tiny.py".into()), "{:?}", names(&locked));
        let described = made(&PythonBuild { requirements: Some(PYPROJECT.into()), ..build.clone() }).await;
        assert!(names(&described).contains(&"lib/py/tiny.py".into()), "{:?}", names(&described));
    }

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let failed = async |requirements: Option<&str>| {
            let build = PythonBuild { folder: None, requirements: requirements.map(Into::into), to: "/x".into(), include: Vec::new() };
            match python(cache.path(), folder.path(), &build, local_architecture(), &shutdown).await.unwrap_err() {
                BuildError::Tool(error) => error.to_string(),
                error @ BuildError::Compile { .. } => panic!("{error}"),
            }
        };
        assert!(failed(Some("all.txt")).await.ends_with("all.txt does not exist"));
        assert!(failed(None).await.starts_with("there is none of uv.lock, requirements.txt, pyproject.toml in "));
    }
}
