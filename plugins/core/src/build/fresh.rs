//! Whether a cargo build would do nothing, found out without cargo.
//!
//! After a build it is written down what the binary was made of and how each of
//! these files was: times (also that of the last change of the inode, which no
//! program sets), size, inode. When all are the same, cargo would find nothing to
//! do, and need not be asked. In any doubt it is asked.

use super::Platform;
use super::dep_info::parse_dep_info;
use crate::environment::find_on_path;
use crate::files;
use crate::project::CargoBuild;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Another form of the record is another version.
const VERSION: u32 = 2;
/// Files are stamped by a clock that may lag behind by a tick.
const TICK: Duration = Duration::from_millis(50);
/// A build script may read all of its package; so many files are looked at.
const MOST_FILES: usize = 5_000;
/// Files that cargo and rustup look for in all folders above.
const SETTINGS: [&str; 6] = ["Cargo.toml", "Cargo.lock", "rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"];
/// Variables that change from terminal to terminal and no build depends on.
const VOLATILE: [&str; 14] = [
    "_",
    "COLUMNS",
    "LINES",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "WINDOWID",
    "SSH_CONNECTION",
    "SSH_CLIENT",
    "SSH_TTY",
    "SSH_AUTH_SOCK",
];

/// What a binary was made of.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Of the environment, hashed.
    environment: String,
    binary: PathBuf,
    /// Nothing for a file that was not there, and would count if it were.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

/// How a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Where the record of a build is.
pub(super) fn record_path(keep: &Path, root: &Path, build: &CargoBuild, platform: &Platform) -> PathBuf {
    let name = blake3::hash(format!("{}\0{build:?}\0{platform:?}", root.display()).as_bytes()).to_hex();
    keep.join(format!("cargo-{}.json", &name[..16]))
}

/// The binary of the last build, if the next one would make the same.
pub(super) fn binary(record: &Path) -> Option<PathBuf> {
    let record: Record = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
    let fits = record.version == VERSION && record.environment == environment();
    (fits && record.stamps.iter().all(|(path, stamp)| stamp_of(path) == *stamp)).then_some(record.binary)
}

/// Writes down what a binary was made of, by a build that began at `began`. Writes
/// nothing when that can't be told, or something changed since.
pub(super) fn note(path: &Path, root: &Path, build: &CargoBuild, binary: &Path, began: SystemTime) {
    let noted = inputs(root, build, binary).and_then(|inputs| {
        let made: [&Path; 2] = [binary, &dep_info_path(binary)];
        let began = began.checked_sub(TICK)?.duration_since(UNIX_EPOCH).ok()?;
        let began = (i64::try_from(began.as_secs()).ok()?, i64::from(began.subsec_nanos()));
        let stamps: BTreeMap<PathBuf, Option<Stamp>> = inputs.into_iter().map(|input| (input.clone(), stamp_of(&input))).collect();
        let settled = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            made.contains(&path.as_path()) || stamp.is_none_or(|stamp| stamp.modified < began && stamp.changed < began)
        };
        stamps.iter().all(settled).then(|| Record { version: VERSION, environment: environment(), binary: binary.to_owned(), stamps })
    });
    // A record that is not there costs time, no more.
    let written = match noted.and_then(|record| serde_json::to_vec(&record).ok()) {
        Some(text) => files::write_atomic(path, &text, 0o644),
        None => files::remove_all(path),
    };
    if let Err(error) = written {
        tracing::info!(path = %path.display(), %error, "what a binary was made of could not be written down");
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        mode: metadata.mode(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn environment() -> String {
    let mut hasher = blake3::Hasher::new();
    let mut variables: Vec<_> =
        std::env::vars_os().filter(|(name, _)| VOLATILE.iter().all(|volatile| name != OsStr::new(volatile))).collect();
    variables.sort();
    for (name, value) in variables {
        hasher.update(name.as_encoded_bytes()).update(b"=").update(value.as_encoded_bytes()).update(b"\0");
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// All files that decide what the next build makes. None when they can't be told.
fn inputs(root: &Path, build: &CargoBuild, binary: &Path) -> Option<BTreeSet<PathBuf>> {
    let dep_info = dep_info_path(binary);
    let read = parse_dep_info(&std::fs::read_to_string(&dep_info).ok()?);
    // One that is relative is relative to something that we don't know.
    if read.is_empty() || read.iter().any(|path| !path.is_absolute()) {
        return None;
    }
    let mut inputs: BTreeSet<PathBuf> = [binary.to_owned(), dep_info].into();
    let mut folders: BTreeSet<PathBuf> = [root.to_owned()].into();
    folders.extend(build.manifest.as_ref().and_then(|manifest| root.join(manifest).parent().map(Path::to_owned)));
    for path in read {
        if let Some(package) = path.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").is_file()) {
            folders.insert(package.to_owned());
        }
        if path.is_dir() {
            add_all(&path, &mut inputs)?;
        }
        inputs.insert(path);
    }
    for folder in folders.clone() {
        inputs.insert(folder.join("build.rs"));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        let has_script = folder.join("build.rs").exists() || manifest.lines().any(|line| line.trim_start().starts_with("build"));
        if has_script {
            add_all(&folder, &mut inputs)?;
        }
    }
    for folder in folders.iter().flat_map(|folder| folder.ancestors()) {
        inputs.extend(SETTINGS.iter().map(|name| folder.join(name)));
    }
    add_tools(&mut inputs)?;
    Some(inputs)
}

/// Cargo's and rustup's own settings, and the compiler itself.
fn add_tools(inputs: &mut BTreeSet<PathBuf>) -> Option<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let folder = |variable: &str, name: &str| std::env::var_os(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(name)));
    let (cargo, rustup) = (folder("CARGO_HOME", ".cargo")?, folder("RUSTUP_HOME", ".rustup")?);
    inputs.extend(["config", "config.toml"].map(|name| cargo.join(name)));
    inputs.insert(rustup.join("settings.toml"));
    let hashes = rustup.join("update-hashes");
    if let Ok(entries) = std::fs::read_dir(&hashes) {
        inputs.extend(entries.flatten().map(|entry| entry.path()));
    }
    inputs.insert(hashes);
    for program in ["cargo", "rustc"] {
        let named = std::env::var_os(program.to_uppercase()).map(PathBuf::from).filter(|path| path.is_absolute());
        inputs.insert(named.or_else(|| find_on_path(program))?);
    }
    Some(())
}

/// All files and folders below a folder, but for what is built there.
fn add_all(folder: &Path, inputs: &mut BTreeSet<PathBuf>) -> Option<()> {
    // A folder's own times tell of what is new in it.
    inputs.insert(folder.to_owned());
    let mut next = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = next.pop() {
        for entry in std::fs::read_dir(&folder).ok()? {
            let entry = entry.ok()?;
            let (path, kind) = (entry.path(), entry.file_type().ok()?);
            seen += 1;
            if seen > MOST_FILES {
                return None;
            }
            if !kind.is_dir() {
                inputs.insert(path);
            } else if entry.file_name() != ".git" && !path.join("CACHEDIR.TAG").is_file() {
                next.push(path.clone());
                inputs.insert(path);
            }
        }
    }
    Some(())
}

fn dep_info_path(binary: &Path) -> PathBuf {
    let mut name = binary.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Project {
        folder: tempfile::TempDir,
        build: CargoBuild,
    }

    impl Project {
        /// Sources and a binary, as if cargo had been there.
        fn made() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            for (path, text) in [("Cargo.toml", "[package]\n"), ("src/main.rs", ""), ("src/a b.txt", ""), ("out/web", "x")] {
                std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                std::fs::write(root.join(path), text).unwrap();
            }
            let here = root.display();
            std::fs::write(root.join("out/web.d"), format!("{here}/out/web: {here}/src/main.rs {here}/src/a\\ b.txt\n")).unwrap();
            let build = CargoBuild { package: "web".into(), binary: "web".into(), profile: None, manifest: None };
            Self { folder, build }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn note(&self, began: SystemTime) {
            note(&self.path("record"), self.folder.path(), &self.build, &self.path("out/web"), began);
        }

        fn is_fresh(&self) -> bool {
            binary(&self.path("record")) == Some(self.path("out/web"))
        }
    }

    #[test]
    fn whatever_counts_is_noticed() {
        let later = || SystemTime::now() + Duration::from_secs(1);
        let changes: [fn(&Project); 9] = [
            |project| std::fs::write(project.path("src/main.rs"), "").unwrap(),
            |project| std::fs::write(project.path("src/a b.txt"), "x").unwrap(),
            |project| std::fs::remove_file(project.path("src/main.rs")).unwrap(),
            |project| std::fs::write(project.path("build.rs"), "").unwrap(),
            |project| std::fs::write(project.path("Cargo.lock"), "").unwrap(),
            |project| std::fs::write(project.path("rust-toolchain.toml"), "").unwrap(),
            |project| std::fs::write(project.path("out/web"), "y").unwrap(),
            // The same content and time of change in another file.
            |project| {
                let modified = project.path("src/main.rs").metadata().unwrap().modified().unwrap();
                std::fs::write(project.path("other"), "").unwrap();
                std::fs::rename(project.path("other"), project.path("src/main.rs")).unwrap();
                std::fs::File::options().write(true).open(project.path("src/main.rs")).unwrap().set_modified(modified).unwrap();
            },
            |project| {
                std::fs::create_dir(project.path(".cargo")).and_then(|()| std::fs::write(project.path(".cargo/config.toml"), "")).unwrap()
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let project = Project::made();
            project.note(later());
            assert!(project.is_fresh(), "{index}");
            std::thread::sleep(Duration::from_millis(20));
            change(&project);
            assert!(!project.is_fresh(), "{index}");
        }
    }

    #[test]
    fn what_is_saved_during_a_build_is_not_taken_for_built() {
        let project = Project::made();
        project.note(SystemTime::now() - Duration::from_secs(1));
        assert!(!project.is_fresh());
        project.note(SystemTime::now() + Duration::from_secs(1));
        std::fs::write(project.path("out/web.d"), "web: src/main.rs\n").unwrap();
        project.note(SystemTime::now() + Duration::from_secs(1));
        assert!(!project.is_fresh(), "a relative path says nothing");
    }

    #[test]
    fn a_build_script_may_read_all_of_its_package() {
        let project = Project::made();
        std::fs::write(project.path("build.rs"), "").unwrap();
        std::fs::write(project.path("data"), "").unwrap();
        project.note(SystemTime::now() + Duration::from_secs(1));
        // The record itself is in the folder: it is new.
        assert!(!project.is_fresh());
        let record = tempfile::tempdir().unwrap();
        let path = record.path().join("record");
        note(&path, project.folder.path(), &project.build, &project.path("out/web"), SystemTime::now() + Duration::from_secs(1));
        assert!(binary(&path).is_some());
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(project.path("data"), "x").unwrap();
        assert!(binary(&path).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_record_and_dep_info_is_read_or_refused(text in "[ -~\n]{0,80}") {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("record"), &text).unwrap();
            proptest::prop_assert_eq!(binary(&folder.path().join("record")), None);
            let _ = parse_dep_info(&text);
        }
    }
}
