//! What the repository tells of a project, where there is one.

use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// What git says in a folder, without the white space around it; `None` where it
/// fails, as without a repository.
pub(crate) async fn ask(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where the repository comes from, as it was cloned.
pub(crate) async fn origin(folder: &Path) -> Option<String> {
    ask(folder, &["config", "--get", "remote.origin.url"]).await.filter(|origin| !origin.is_empty())
}
