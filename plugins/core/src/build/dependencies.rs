//! What a program in Node or Python needs, installed by the language's own tool into
//! a folder of the cache, once for each state of the lock file, and made into a
//! layer of its own: it changes seldom, and lies below what changes often.

use super::BuildError;
use super::process::{Finished, read_text, run};
use crate::environment::find_on_path;
use crate::error::{CommandError, ErrorContext};
use crate::files::{self, FileLock};
use crate::image::{self, Layer, local_architecture};
use crate::project::{NODE_LOCKS, NodeBuild, PythonBuild};
use crate::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::process::Command;

/// What nobody has used for so long is removed, as soon as there is more than
/// [`MOST`].
const OUTDATED: Duration = Duration::from_secs(24 * 60 * 60);
const MOST: usize = 20;
/// The folder in which it is done, and what was made in it.
const DONE: &str = "layer.json";

/// How dependencies are installed.
#[derive(Clone, Debug)]
struct Recipe {
    /// The folder that the files are relative to, absolute.
    folder: PathBuf,
    /// What installing reads.
    files: Vec<PathBuf>,
    program: &'static str,
    arguments: Vec<OsString>,
    /// The folder that it makes.
    makes: &'static str,
    /// Where that goes in the image.
    to: String,
}

/// The layer that was made of a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    digest: String,
    size: u64,
}

/// The layer of the packages that a lock file of npm, pnpm or yarn names.
///
/// # Errors
/// When there is no lock file, or the tool fails.
pub async fn node(cache: &Path, root: &Path, build: &NodeBuild, shutdown: &Shutdown) -> Result<Layer, BuildError> {
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let Some(lock) = NODE_LOCKS.iter().find(|lock| folder.join(lock).is_file()) else {
        let error = CommandError::usage(format!("there is no lock file of npm, pnpm or yarn in {}", folder.display()));
        return Err(error.with_hint("`npm install` writes one; it belongs into the repository").into());
    };
    let newer_yarn = folder.join(".yarnrc.yml").is_file();
    let (program, arguments): (_, &[&str]) = match *lock {
        "pnpm-lock.yaml" => ("pnpm", &["install", "--frozen-lockfile", "--prod"]),
        "yarn.lock" if newer_yarn => ("yarn", &["install", "--immutable"]),
        "yarn.lock" => ("yarn", &["install", "--frozen-lockfile", "--production", "--non-interactive"]),
        _ => ("npm", &["ci", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier"]),
    };
    let arguments = arguments.iter().map(Into::into).collect();
    let inputs = build.inputs();
    let relative =
        inputs.iter().map(|path| build.folder.as_ref().map_or(path.as_path(), |folder| path.strip_prefix(folder).unwrap_or(path)));
    let recipe =
        Recipe { files: relative.map(Path::to_owned).collect(), folder, program, arguments, makes: "node_modules", to: build.to.clone() };
    layer(cache, &recipe, &build.include, shutdown).await
}

/// The layer of the packages that a file of requirements names.
///
/// # Errors
/// When there is no such file, or pip fails.
pub async fn python(cache: &Path, root: &Path, build: &PythonBuild, shutdown: &Shutdown) -> Result<Layer, BuildError> {
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let makes = "site-packages";
    // Without compiled files, which have times in them.
    let arguments =
        ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--no-warn-script-location", "--quiet"];
    let mut arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    arguments.extend(["--target".into(), makes.into(), "--requirement".into(), build.requirements.clone().into()]);
    let files: Vec<PathBuf> = std::iter::once(&build.requirements).chain(&build.include).cloned().collect();
    let required: Vec<PathBuf> = files.clone();
    let recipe = Recipe { folder, files, program: "python3", arguments, makes, to: build.to.clone() };
    layer(cache, &recipe, &required, shutdown).await
}

async fn layer(cache: &Path, recipe: &Recipe, required: &[PathBuf], shutdown: &Shutdown) -> Result<Layer, BuildError> {
    if let Some(missing) = required.iter().find(|path| !recipe.folder.join(path).exists()) {
        return Err(CommandError::usage(format!("{} does not exist", recipe.folder.join(missing).display())).into());
    }
    let all = cache.join("dependencies");
    let key = key(recipe).with_context(|| format!("could not read what {} goes by in {}", recipe.program, recipe.folder.display()))?;
    let place = all.join(&key);
    // Two runs want the same: one of them makes it.
    let _lock = FileLock::wait(&all.join(format!("{key}.lock")), shutdown).await?;
    let made = place.join(recipe.makes);
    if let Some(done) = read_done(&place).filter(|_| made.is_dir()) {
        touch(&place);
        return Ok(image::layer_of_folder(cache, &made, &recipe.to, Some((done.digest, done.size))).map_err(CommandError::from)?);
    }
    install(recipe, &place, shutdown).await?;
    std::fs::create_dir_all(&made).with_context(|| format!("could not make {}", made.display()))?;
    let layer = image::layer_of_folder(cache, &made, &recipe.to, None).map_err(CommandError::from)?;
    let done = Done { digest: layer.digest.clone(), size: layer.size };
    let text = serde_json::to_vec(&done).context("could not write down what was installed")?;
    files::write_atomic(&place.join(DONE), &text, 0o644).context("could not write down what was installed")?;
    remove_outdated(&all, &place);
    Ok(layer)
}

fn read_done(place: &Path) -> Option<Done> {
    serde_json::from_slice(&std::fs::read(place.join(DONE)).ok()?).ok()
}

/// What decides what is installed: the content of the files, the tool, the
/// processor, and where it goes.
fn key(recipe: &Recipe) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    for part in [recipe.program, recipe.makes, &recipe.to, local_architecture()] {
        add(part.as_bytes());
    }
    recipe.arguments.iter().for_each(|argument| add(argument.as_encoded_bytes()));
    // Another version of the tool may install something else.
    if let Some(tool) = find_on_path(recipe.program).and_then(|path| path.canonicalize().ok()) {
        add(tool.as_os_str().as_encoded_bytes());
        add(format!("{:?}", tool.metadata()?.modified()?).as_bytes());
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for file in &recipe.files {
        list(&recipe.folder, file, &mut files)?;
    }
    for file in files {
        add(file.as_os_str().as_encoded_bytes());
        add(&std::fs::read(recipe.folder.join(&file))?);
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// The files of a path, sorted; none where there is nothing.
fn list(folder: &Path, path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let whole = folder.join(path);
    if whole.is_file() {
        files.push(path.to_owned());
    } else if whole.is_dir() {
        let mut names = std::fs::read_dir(&whole)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            list(folder, &path.join(name), files)?;
        }
    }
    Ok(())
}

/// Copies what the tool reads, and runs it there: it can't touch the project.
async fn install(recipe: &Recipe, place: &Path, shutdown: &Shutdown) -> Result<(), BuildError> {
    let prepared = files::remove_all(place).and_then(|()| {
        let mut names = Vec::new();
        recipe.files.iter().try_for_each(|file| list(&recipe.folder, file, &mut names))?;
        std::fs::create_dir_all(place)?;
        for name in names {
            let to = place.join(&name);
            std::fs::create_dir_all(to.parent().unwrap_or(place))?;
            std::fs::copy(recipe.folder.join(&name), to)?;
        }
        Ok(())
    });
    prepared.with_context(|| format!("could not prepare {}", place.display()))?;
    let mut command = Command::new(recipe.program);
    command.args(&recipe.arguments).current_dir(place).env("NODE_ENV", "production").env("PYTHONDONTWRITEBYTECODE", "1");
    let Finished { stdout, stderr, status } = run(command, read_text, read_text, shutdown).await?.map_err(|error| {
        CommandError::new(format!("could not run {}", recipe.program))
            .caused_by(error)
            .with_hint(format!("the lock file is one of {0}'s; install {0} or put it on PATH", recipe.program))
    })?;
    if status.success() {
        return Ok(());
    }
    let said = format!("{stdout}\n{stderr}").trim().to_owned();
    let said = if said.is_empty() { format!("{} failed without a word ({status})", recipe.program) } else { said };
    Err(CommandError::new(format!("{} could not install the dependencies of {}", recipe.program, recipe.folder.display()))
        .caused_by(said)
        .into())
}

fn touch(place: &Path) {
    let touched = std::fs::File::open(place.join(DONE)).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::info!(%error, "the use of dependencies is not noted");
    }
}

/// Removes what was made for lock files of long ago. A lock that is held says that
/// somebody is at it.
fn remove_outdated(all: &Path, kept: &Path) {
    let entries = std::fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut places: Vec<(SystemTime, PathBuf)> =
        entries.map(|path| (path.join(DONE).metadata().and_then(|done| done.modified()).unwrap_or(SystemTime::UNIX_EPOCH), path)).collect();
    places.sort();
    let surplus = places.len().saturating_sub(MOST);
    for (used, place) in places.into_iter().take(surplus).filter(|(_, place)| place != kept) {
        let old = used.elapsed().is_ok_and(|age| age > OUTDATED);
        let lock = PathBuf::from(format!("{}.lock", place.display()));
        if old && matches!(FileLock::try_acquire(&lock), Ok(Some(_))) {
            // It would only take space.
            let _ = files::remove_all(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Ingredients, assemble};
    use crate::project::ImageSpec;

    /// A project whose only package is a folder of it, so that no registry is asked.
    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("package.json"), r#"{"name": "web", "version": "1.0.0"}"#).unwrap();
        let lock = r#"{"name": "web", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {"": {"name": "web", "version": "1.0.0"}}}"#;
        std::fs::write(folder.path().join("package-lock.json"), lock).unwrap();
        folder
    }

    fn build() -> NodeBuild {
        NodeBuild { folder: None, to: "/app/node_modules".into(), include: Vec::new() }
    }

    #[tokio::test]
    async fn packages_are_installed_once_for_each_lock_file() {
        if find_on_path("npm").is_none() {
            eprintln!("skipped: needs npm");
            return;
        }
        let (folder, cache) = (project(), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let made = async || node(cache.path(), folder.path(), &build(), &shutdown).await.unwrap();
        let first = made().await;
        let places =
            || std::fs::read_dir(cache.path().join("dependencies")).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert_eq!(places(), 1);
        assert!(!folder.path().join("node_modules").exists(), "the project is left as it is");
        // A layer that is damaged or gone is made again from what was installed.
        std::fs::write(&first.path, "damage").unwrap();
        let again = made().await;
        assert_eq!(again, first);
        again.obtain().await.unwrap();
        assert_eq!(std::fs::metadata(&again.path).unwrap().len(), again.size);
        // A changed source is not a changed lock file.
        std::fs::write(folder.path().join("server.js"), "x").unwrap();
        made().await;
        assert_eq!(places(), 1);
        std::fs::write(folder.path().join(".npmrc"), "fund=false\n").unwrap();
        made().await;
        assert_eq!(places(), 2);
        let spec = ImageSpec { name: "web".into(), ..ImageSpec::default() };
        let dependencies = [again.clone()];
        let ingredients = Ingredients { dependencies: &dependencies, ..Ingredients::of(folder.path()) };
        assert_eq!(assemble(cache.path(), &spec, &ingredients).unwrap().layers, dependencies);
    }

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
        let python = |arguments: &[&str]| {
            let output = std::process::Command::new("python3").args(arguments).current_dir(folder.path()).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !python(&["-m", "pip", "--version"]) {
            eprintln!("skipped: needs pip");
            return;
        }
        assert!(python(&["-c", WHEEL]));
        let wheel = "tiny-1.0-py3-none-any.whl";
        std::fs::write(folder.path().join("requirements.txt"), format!("./{wheel}\n")).unwrap();
        let build =
            PythonBuild { folder: None, requirements: "requirements.txt".into(), to: "/lib/py".into(), include: vec![wheel.into()] };
        let cache = tempfile::tempdir().unwrap();
        let (_switch, shutdown) = Shutdown::manual();
        let layer = super::python(cache.path(), folder.path(), &build, &shutdown).await.unwrap();
        let mut tar = tar::Archive::new(std::fs::File::open(&layer.path).unwrap());
        let names: Vec<PathBuf> = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert!(names.contains(&"lib/py/tiny.py".into()), "{names:?}");
        assert!(!names.iter().any(|name| name.extension().is_some_and(|extension| extension == "pyc")), "{names:?}");
    }

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let BuildError::Tool(error) = node(cache.path(), folder.path(), &build(), &shutdown).await.unwrap_err() else { panic!() };
        assert!(error.to_string().starts_with("there is no lock file of npm, pnpm or yarn in "), "{error}");
        let python = PythonBuild { folder: None, requirements: "requirements.txt".into(), to: "/x".into(), include: Vec::new() };
        let BuildError::Tool(error) = super::python(cache.path(), folder.path(), &python, &shutdown).await.unwrap_err() else { panic!() };
        assert!(error.to_string().ends_with("requirements.txt does not exist"), "{error}");
    }
}
