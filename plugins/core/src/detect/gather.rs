//! Looks at a project's folder: lists what is not ignored, reads the files that
//! describe it, asks cargo for its binaries. The work is bounded.

use super::dockerfile::{self, Action, Origin};
use super::gomod;
use super::local::{CargoBinary, Local, inside};
use crate::error::{CommandError, ErrorContext, Result};
use cargo_metadata::{Metadata, MetadataCommand, TargetKind};
use ignore::{DirEntry, WalkBuilder};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Bounds: what lies beyond is not seen, and it is said.
const MOST_FILES: usize = 20_000;
const MOST_TEXTS: usize = 200;
const MOST_TEXT_BYTES: u64 = 256 * 1024;
const MOST_MANIFESTS: usize = 8;
const CARGO_MAY_TAKE: Duration = Duration::from_secs(10);

/// Folders that tools fill; there is nothing in them to run.
const TOOLS: [&str; 7] = [".git", "target", "node_modules", ".venv", "venv", "__pycache__", ".tox"];
/// Files that make a folder a project.
const MARKERS: [&str; 9] = [
    "Dockerfile",
    "Containerfile",
    "Cargo.toml",
    "go.mod",
    "package.json",
    "pyproject.toml",
    "requirements.txt",
    "Gemfile",
    "composer.json",
];

/// Looks at the project that the folder `start` belongs to.
///
/// # Errors
/// When the folder can't be read. What else can't be looked at is listed in
/// [`Local::unseen`].
pub async fn look(start: &Path) -> Result<Local> {
    let start = start.canonicalize().with_context(|| format!("could not look at {}", start.display()))?;
    let root = project_root(&start);
    let listed = tokio::task::spawn_blocking(move || list(&root, &start)).await.context("could not look at the project")?;
    let mut local = listed?;
    cargo_binaries(&mut local).await;
    Ok(local)
}

/// The nearest folder with a Dockerfile, else the nearest with another sign of a
/// project, else `start`; not above the repository, or the home folder.
fn project_root(start: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let repository = start.ancestors().find(|folder| folder.join(".git").exists());
    let stop = |folder: &&Path| match repository {
        Some(repository) => folder.starts_with(repository),
        None => Some(*folder) != home.as_deref() && folder.parent().is_some(),
    };
    let candidates: Vec<&Path> = start.ancestors().take_while(stop).collect();
    let has = |folder: &&&Path, markers: &[&str]| markers.iter().any(|marker| folder.join(marker).is_file());
    let found =
        candidates.iter().find(|folder| has(folder, &MARKERS[..2])).or_else(|| candidates.iter().find(|folder| has(folder, &MARKERS)));
    found.map_or(start, |folder| folder).to_owned()
}

fn list(root: &Path, start: &Path) -> Result<Local> {
    std::fs::read_dir(root).with_context(|| format!("could not list {}", root.display()))?;
    let start = start.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    let mut local = Local { root: root.to_owned(), start, ..Local::default() };
    let walk = WalkBuilder::new(root)
        .hidden(false)
        .require_git(false)
        .git_global(false)
        .git_exclude(false)
        .ignore(false)
        .add_custom_ignore_filename(".devloopignore")
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.depth() == 0 || !entry.file_name().to_str().is_some_and(|name| TOOLS.contains(&name)))
        .build();
    for entry in walk {
        let Ok(entry) = entry.inspect_err(|error| local.unseen.push(error.to_string())) else { continue };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        // Rules are written as text: other names can't be in them.
        if relative.to_str().is_none() || !is_file(&entry) {
            continue;
        }
        if local.files.len() == MOST_FILES {
            local.unseen.push(format!("there are more than {MOST_FILES} files; the rest was not looked at"));
            break;
        }
        local.files.insert(relative.to_owned());
    }
    read_texts(&mut local);
    add_copied(&mut local);
    local.go = gomod::find(&local, |path| read_text(&local.root.join(path)).ok());
    Ok(local)
}

/// A file, also behind a link; no folder, pipe or device.
fn is_file(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Some(kind) if kind.is_symlink() => std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()),
        kind => kind.is_some_and(|kind| kind.is_file()),
    }
}

fn read_texts(local: &mut Local) {
    let mut telling: Vec<PathBuf> = local.files.iter().filter(|path| tells(path)).cloned().collect();
    // What says most comes first.
    telling.sort_by_key(|path| (!super::choose::is_dockerfile(path), path.components().count()));
    if telling.len() > MOST_TEXTS {
        local.unseen.push(format!("of {} files that describe the project, {MOST_TEXTS} were read", telling.len()));
        telling.truncate(MOST_TEXTS);
    }
    for path in telling {
        match read_text(&local.root.join(&path)) {
            Ok(text) => drop(local.texts.insert(path, text)),
            Err(error) => local.unseen.push(format!("{}: {error}", path.display())),
        }
    }
}

/// Whether a file says how the project is built, run or served.
fn tells(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    super::choose::is_dockerfile(path)
        || name == "package.json"
        || name == "go.mod"
        || name.ends_with(".dockerignore")
        || name.ends_with(".conf")
}

fn read_text(path: &Path) -> std::io::Result<String> {
    // What has become a pipe by now is not waited for.
    let file = std::fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(MOST_TEXT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_TEXT_BYTES { Err(std::io::Error::other("it is too large")) } else { Ok(text) }
}

/// What Dockerfiles copy may be ignored, such as what a bundler made.
fn add_copied(local: &mut Local) {
    let mut wanted = BTreeSet::new();
    for (path, text) in local.texts.iter().filter(|(path, _)| super::choose::is_dockerfile(path)) {
        let folder = path.parent().unwrap_or(Path::new(""));
        let stages = dockerfile::parse(text).unwrap_or_default();
        for step in stages.iter().flat_map(|stage| &stage.steps) {
            let Action::Copy(copy) = &step.action else { continue };
            if copy.from == Origin::Context {
                let paths = copy.sources.iter().flat_map(|source| [inside(folder, source), inside(Path::new(""), source)]);
                wanted.extend(paths.flatten());
            }
        }
    }
    for path in wanted {
        match std::fs::metadata(local.root.join(&path)) {
            Ok(metadata) if metadata.is_dir() => drop(local.folders.insert(path)),
            Ok(_) => drop(local.files.insert(path)),
            Err(_) => {}
        }
    }
}

/// Asks cargo, which needs no network for it, about each workspace.
async fn cargo_binaries(local: &mut Local) {
    let mut manifests: Vec<PathBuf> = local.named("Cargo.toml").cloned().collect();
    manifests.sort_by_key(|path| path.components().count());
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let mut asked = 0;
    for manifest in manifests {
        let absolute = local.root.join(&manifest);
        if known.contains(&absolute) {
            continue;
        }
        if asked == MOST_MANIFESTS {
            local.unseen.push(format!("there are more than {MOST_MANIFESTS} cargo workspaces; {} was not looked at", manifest.display()));
            break;
        }
        asked += 1;
        match cargo_metadata(&absolute).await {
            Ok(metadata) => {
                known.extend(metadata.packages.iter().map(|package| package.manifest_path.clone().into_std_path_buf()));
                let manifest = (manifest != Path::new("Cargo.toml")).then_some(manifest);
                local.cargo.extend(binaries(&metadata, manifest.as_deref()));
            }
            Err(error) => local.unseen.push(format!("{}: {}", manifest.display(), error.chain().join(": "))),
        }
    }
}

fn binaries(metadata: &Metadata, manifest: Option<&Path>) -> Vec<CargoBinary> {
    let members = metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id));
    let of_package = |package: &cargo_metadata::Package| {
        let targets = package.targets.iter().filter(|target| target.kind.contains(&TargetKind::Bin));
        targets.map(|target| (package.name.to_string(), target.name.clone())).collect::<Vec<_>>()
    };
    let all = members.flat_map(of_package);
    all.map(|(package, binary)| CargoBinary { package, binary, manifest: manifest.map(Path::to_owned) }).collect()
}

async fn cargo_metadata(manifest: &Path) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).no_deps();
    if let Some(folder) = manifest.parent() {
        command.current_dir(folder);
    }
    let mut command = tokio::process::Command::from(command.cargo_command());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CARGO_MAY_TAKE, command.output()).await;
    let output = output.map_err(|_| CommandError::new(format!("cargo took more than {} s", CARGO_MAY_TAKE.as_secs())))?;
    let output = output.context("could not run cargo")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(CommandError::new(words.trim().trim_start_matches("error: ").to_owned()));
    }
    MetadataCommand::parse(String::from_utf8_lossy(&output.stdout)).context("could not read what cargo said")
}

#[cfg(test)]
mod tests {
    use super::super::local::Entry;
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[tokio::test]
    async fn a_project_is_looked_at_without_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                (".git/HEAD", ""),
                (".gitignore", "dist\n*.log\n"),
                ("Dockerfile", "FROM node\nCOPY dist /srv/\nCOPY a.log none /x/\n"),
                ("dist/bundle.js", ""),
                ("a.log", ""),
                ("b.log", ""),
                ("node_modules/x/package.json", "{}"),
                ("src/deep/app.js", ""),
                ("package.json", "{}"),
                ("crates/web/Cargo.toml", "[package]\nname = \"web\"\nversion = \"0.1.0\"\n[workspace]\n"),
                ("crates/web/src/main.rs", "fn main() {}"),
                ("crates/bad/Cargo.toml", "[package"),
                ("tool/go.mod", "module example.com/tool\n"),
                ("tool/main.go", "package main\n"),
            ],
        );
        let local = look(&folder.path().join("src/deep")).await.unwrap();
        assert_eq!(local.root, folder.path().canonicalize().unwrap());
        assert_eq!(local.start, Path::new("src/deep"));
        let seen = |path: &str| local.entry(Path::new(path));
        assert_eq!(seen("dist"), Some(Entry::Folder), "a Dockerfile copies it");
        assert_eq!(seen("a.log"), Some(Entry::File), "a Dockerfile copies it");
        assert_eq!(seen("src/deep/app.js"), Some(Entry::File));
        for path in ["b.log", "node_modules/x/package.json", ".git/HEAD", "none"] {
            assert_eq!(seen(path), None, "{path}");
        }
        assert_eq!(
            local.cargo,
            [CargoBinary { package: "web".into(), binary: "web".into(), manifest: Some("crates/web/Cargo.toml".into()) }]
        );
        assert_eq!(local.go.iter().map(|main| (main.name(), main.folder.to_str().unwrap())).collect::<Vec<_>>(), [("tool", "tool")]);
        assert_eq!(local.unseen.len(), 1, "{:?}", local.unseen);
        assert!(local.unseen[0].starts_with("crates/bad/Cargo.toml: "), "{:?}", local.unseen);
        assert!(look(&folder.path().join("nothing")).await.is_err());
        assert!(!folder.path().join("crates/web/Cargo.lock").exists(), "no local file is written");
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dockerfile");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opening it would wait for a writer.
        let local = list(folder.path(), folder.path()).unwrap();
        assert!(local.files.is_empty(), "{:?}", local.files);
    }
}
