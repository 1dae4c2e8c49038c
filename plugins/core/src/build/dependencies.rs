//! What a program in Node or Python needs, installed by the language's own tool into
//! a folder of the cache, once for each state of the lock file, and made into a
//! layer of its own: it changes seldom, and lies below what changes often.

mod portable;
mod python;

pub use python::python;

use super::BuildError;
use super::process::{Finished, read_text, run};
use crate::environment::find_on_path;
use crate::error::{CommandError, ErrorContext};
use crate::files::{self, FileLock};
use crate::image::{self, Layer, local_architecture};
use crate::project::{NODE_LOCKS, NodeBuild};
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
    /// Of each of its calls, in order.
    calls: Vec<Vec<OsString>>,
    /// What else decides what comes of them.
    tools: &'static [&'static str],
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

/// The layer of the packages that a lock file of npm, pnpm or yarn names, for an
/// architecture as Go names it.
///
/// # Errors
/// When there is no lock file, the tool fails, or what was installed is no use to
/// the architecture.
pub async fn node(cache: &Path, root: &Path, build: &NodeBuild, architecture: &str, shutdown: &Shutdown) -> Result<Layer, BuildError> {
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
    let files = relative(build.folder.as_deref(), &build.inputs());
    let calls = vec![words(arguments)];
    let recipe = Recipe { folder, files, program, calls, tools: &["node"], makes: "node_modules", to: build.to.clone() };
    layer(cache, &recipe, &build.include, architecture, shutdown).await
}

/// The paths as they are from a folder of the root.
fn relative(folder: Option<&Path>, inputs: &[PathBuf]) -> Vec<PathBuf> {
    inputs.iter().map(|path| folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path).to_owned()).collect()
}

fn words(text: &[&str]) -> Vec<OsString> {
    text.iter().map(Into::into).collect()
}

async fn layer(cache: &Path, recipe: &Recipe, required: &[PathBuf], architecture: &str, shutdown: &Shutdown) -> Result<Layer, BuildError> {
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
        portable::check(&made, architecture)?;
        return Ok(image::layer_of_folder(cache, &made, &recipe.to, Some((done.digest, done.size))).map_err(CommandError::from)?);
    }
    install(recipe, &place, shutdown).await?;
    std::fs::create_dir_all(&made).with_context(|| format!("could not make {}", made.display()))?;
    let layer = image::layer_of_folder(cache, &made, &recipe.to, None).map_err(CommandError::from)?;
    let done = Done { digest: layer.digest.clone(), size: layer.size };
    let text = serde_json::to_vec(&done).context("could not write down what was installed")?;
    files::write_atomic(&place.join(DONE), &text, 0o644).context("could not write down what was installed")?;
    remove_outdated(&all, &place);
    portable::check(&made, architecture)?;
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
    for call in &recipe.calls {
        add(&call.len().to_le_bytes());
        call.iter().for_each(|argument| add(argument.as_encoded_bytes()));
    }
    // Another version of a tool may install something else.
    let tools = std::iter::once(&recipe.program).chain(recipe.tools);
    for tool in tools.filter_map(|tool| find_on_path(tool)?.canonicalize().ok()) {
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
    for call in &recipe.calls {
        run_tool(recipe, call, place, shutdown).await?;
    }
    Ok(())
}

async fn run_tool(recipe: &Recipe, call: &[OsString], place: &Path, shutdown: &Shutdown) -> Result<(), BuildError> {
    let mut command = Command::new(recipe.program);
    command.args(call).current_dir(place).env("NODE_ENV", "production").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("UV_COMPILE_BYTECODE", "0").env("UV_PYTHON_DOWNLOADS", "never");
    let Finished { stdout, stderr, status } = run(command, read_text, read_text, shutdown).await?.map_err(|error| {
        CommandError::new(format!("could not run {}", recipe.program))
            .caused_by(error)
            .with_hint(format!("what is to be installed is said in a file of {0}'s; install {0} or put it on PATH", recipe.program))
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
        let made = async || node(cache.path(), folder.path(), &build(), local_architecture(), &shutdown).await.unwrap();
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

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_switch, shutdown) = Shutdown::manual();
        let BuildError::Tool(error) = node(cache.path(), folder.path(), &build(), local_architecture(), &shutdown).await.unwrap_err()
        else {
            panic!()
        };
        assert!(error.to_string().starts_with("there is no lock file of npm, pnpm or yarn in "), "{error}");
    }
}
