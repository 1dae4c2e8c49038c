//! Whether anything that a build reads has changed since the last one: a digest of
//! the Dockerfile, its settings and the context. A file whose metadata is what it
//! was is not read again.

use super::DockerfileError;
use super::context::{self, ContextError, Entry, Kind};
use super::plan::Plan;
use crate::project::DockerfileBuild;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Raised when the same inputs would give another image, or another record.
const FORMAT: u32 = 1;
/// A file that was written to within this time may be so again without any trace in
/// its metadata: clocks of file systems are coarse.
const UNSETTLED: i64 = 2_000_000_000;

/// What is known about the files of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known(BTreeMap<String, Seen>);

/// A file's content, and the metadata that it had then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    size: u64,
    modified: i64,
    changed: i64,
    inode: u64,
    hash: [u8; 32],
}

impl Seen {
    fn is(&self, entry: &Entry) -> bool {
        (self.size, self.modified, self.changed, self.inode) == (entry.size, entry.modified, entry.changed, entry.inode)
    }
}

/// The inputs of a build as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    /// The same for the same inputs.
    pub(super) digest: String,
    /// For the next time.
    pub(super) known: Known,
}

/// Works the digest out. `known` is from the last time.
///
/// Times and owners of files take no part, as they take none in the cache of a
/// Docker build; secrets don't either.
///
/// # Errors
/// When the context can't be read, or holds what can't be sent.
pub(super) fn inputs(plan: &Plan, build: &DockerfileBuild, known: &Known) -> Result<Inputs, DockerfileError> {
    let entries = context::entries(&plan.context, &plan.selection())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(&FORMAT.to_le_bytes());
    add(settings(plan, build).as_bytes());
    let mut seen = BTreeMap::new();
    for entry in entries {
        add(entry.path.as_bytes());
        add(&entry.mode.to_le_bytes());
        match &entry.kind {
            Kind::Folder => add(b"folder"),
            Kind::Link(target) => add(format!("link {target}").as_bytes()),
            Kind::File => {
                let hash = match known.0.get(&entry.path).filter(|known| known.is(&entry)) {
                    Some(known) => known.hash,
                    None => hash(&plan.context.join(&entry.path))?,
                };
                add(&hash);
                if entry.modified.max(entry.changed) < now - UNSETTLED {
                    let Entry { size, modified, changed, inode, .. } = entry;
                    seen.insert(entry.path, Seen { size, modified, changed, inode, hash });
                }
            }
        }
    }
    Ok(Inputs { digest: hasher.finalize().to_hex().to_string(), known: Known(seen) })
}

/// All that isn't the context, in a form that tells two of them apart.
fn settings(plan: &Plan, build: &DockerfileBuild) -> String {
    let secrets: Vec<&str> = build.secrets.iter().map(|secret| secret.id.as_str()).collect();
    let DockerfileBuild { target, args, ssh, platform, builder, .. } = build;
    format!("{:?}", (&plan.text, target, args, secrets, ssh, platform, builder.as_ref().map(ToString::to_string)))
}

fn hash(path: &Path) -> Result<[u8; 32], ContextError> {
    let failed = |source: io::Error| ContextError::Read { path: path.to_owned(), source };
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).map_err(failed)?;
    io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Project {
        folder: tempfile::TempDir,
        build: DockerfileBuild,
    }

    impl Project {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let project = Self { folder, build: DockerfileBuild::of(".".into(), "Dockerfile".into()) };
            for (path, text) in [("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a", "1"), ("notes.md", "1"), (".dockerignore", "*.md\n")] {
                project.write(path, text);
            }
            project
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.folder.path().join(path), text).unwrap();
        }

        fn inputs(&self, known: &Known) -> Inputs {
            inputs(&Plan::read(self.folder.path(), &self.build).unwrap(), &self.build, known).unwrap()
        }

        fn digest(&self) -> String {
            self.inputs(&Known::default()).digest
        }

        fn age(&self, path: &str) {
            let file = File::options().write(true).open(self.folder.path().join(path)).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
        }
    }

    #[test]
    fn what_the_build_reads_counts_and_nothing_else() {
        let mut project = Project::new();
        let first = project.digest();
        project.write("notes.md", "2");
        assert_eq!(project.digest(), first, "it is ignored");
        project.age("a");
        assert_eq!(project.digest(), first, "a time is no content");
        let differs = |project: &Project, what: &str| assert_ne!(project.digest(), first, "{what}");
        project.write("a", "2");
        differs(&project, "content");
        project.write("a", "1");
        fs::set_permissions(project.folder.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        differs(&project, "mode");
        fs::set_permissions(project.folder.path().join("a"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(project.digest(), first);
        project.build.args.insert("A".into(), crate::project::Value("b".into()));
        differs(&project, "argument");
        project.build.args.clear();
        project.build.target = Some("x".into());
        differs(&project, "target");
        project.build.target = None;
        project.write("Dockerfile", "FROM scratch\nCOPY a /\n");
        differs(&project, "Dockerfile");
    }

    #[test]
    fn a_file_that_was_just_written_is_read_again() {
        let project = Project::new();
        let inputs = project.inputs(&Known::default());
        assert!(inputs.known.0.is_empty(), "nothing has settled yet: {:?}", inputs.known);
    }

    #[test]
    fn a_file_is_not_read_again_while_its_metadata_is_the_same() {
        let project = Project::new();
        let plan = Plan::read(project.folder.path(), &project.build).unwrap();
        let entries = context::entries(&plan.context, &plan.selection()).unwrap();
        let entry = entries.iter().find(|entry| entry.path == "a").unwrap().clone();
        let Entry { size, modified, changed, inode, .. } = entry;
        // A content that isn't there shows that the file wasn't read.
        let seen = Seen { size, modified, changed, inode, hash: [7; 32] };
        let known = Known([("a".to_owned(), seen.clone())].into());
        assert_ne!(project.inputs(&known).digest, project.digest());
        let other = Known([("a".to_owned(), Seen { changed: changed - 1, ..seen })].into());
        assert_eq!(project.inputs(&other).digest, project.digest());
    }
}
