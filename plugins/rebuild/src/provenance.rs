//! Where an image comes from, in the words of the OCI image specification
//! (<https://github.com/opencontainers/image-spec/blob/main/annotations.md>).
//!
//! Only where it is asked for: an image with its commit in it is another one for
//! each commit, and pods would be replaced that run the same program.

use crate::git;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;

const SOURCE: &str = "org.opencontainers.image.source";
const REVISION: &str = "org.opencontainers.image.revision";
const CREATED: &str = "org.opencontainers.image.created";

/// What a repository tells: where it comes from, which commit, and when that was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Repository {
    origin: Option<String>,
    revision: Option<String>,
    committed: Option<i64>,
}

/// The annotations of what is made in this folder now.
pub(crate) async fn annotations(root: &Path) -> BTreeMap<String, String> {
    let said_in = async |arguments: &[&str]| git::ask(root, arguments).await.filter(|text| !text.is_empty());
    let (origin, revision, committed) = tokio::join!(
        git::origin(root),
        said_in(&["rev-parse", "--verify", "HEAD"]),
        said_in(&["show", "--no-patch", "--format=%ct", "HEAD"])
    );
    let repository = Repository { origin, revision, committed: committed.and_then(|text| text.parse().ok()) };
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    said(repository, epoch)
}

/// Pure.
fn said(repository: Repository, epoch: Option<i64>) -> BTreeMap<String, String> {
    let created = epoch.or(repository.committed).and_then(|seconds| Timestamp::from_second(seconds).ok());
    let all = [
        (SOURCE, repository.origin.map(|origin| without_password(&origin))),
        (REVISION, repository.revision),
        (CREATED, created.map(|time| time.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What goes into an image is for everybody to read.
fn without_password(origin: &str) -> String {
    let Some((scheme, rest)) = origin.split_once("://") else { return origin.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_told_without_its_password() {
        let repository = Repository {
            origin: Some("https://me:secret@host.example/a/b.git".into()),
            revision: Some("abc".into()),
            committed: Some(1_700_000_000),
        };
        let of = |epoch| said(repository.clone(), epoch).into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        insta::assert_snapshot!(of(None).join("\n"), @r"
        org.opencontainers.image.created=2023-11-14T22:13:20Z
        org.opencontainers.image.revision=abc
        org.opencontainers.image.source=https://host.example/a/b.git
        ");
        assert_eq!(of(Some(0))[0], "org.opencontainers.image.created=1970-01-01T00:00:00Z");
        assert_eq!(said(Repository::default(), None), BTreeMap::new());
        assert_eq!(without_password("git@host.example:a/b.git"), "git@host.example:a/b.git");
    }
}
