//! Any program builds. What it says is shown when it fails.

use super::process::{Finished, read_text, run};
use super::{BuildError, BuiltBinary};
use crate::error::CommandError;
use crate::project::CommandBuild;
use crate::shutdown::Shutdown;
use std::path::Path;
use std::time::Instant;
use tokio::process::Command;

pub(super) async fn command(root: &Path, build: &CommandBuild, shutdown: &Shutdown) -> Result<Option<BuiltBinary>, BuildError> {
    let started = Instant::now();
    let Some((program, arguments)) = build.run.split_first() else {
        return Err(CommandError::new("the build command is empty").into());
    };
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&folder);
    let Finished { stdout, stderr, status } = run(command, read_text, read_text, shutdown).await?.map_err(|error| {
        let hint = if folder.is_dir() { format!("is {program} on PATH?") } else { format!("{} is not a folder", folder.display()) };
        CommandError::new(format!("could not run {program}")).caused_by(error).with_hint(hint)
    })?;
    if !status.success() {
        let said = format!("{stdout}\n{stderr}").trim().to_owned();
        let rendered = if said.is_empty() { format!("{} failed without a word ({status})", build.run.join(" ")) } else { said };
        return Err(BuildError::Compile { rendered, errors: 1 });
    }
    let Some(output) = &build.output else { return Ok(None) };
    let path = root.join(output);
    if !path.is_file() {
        let error = CommandError::new(format!("{} made no {}", build.run.join(" "), output.display()));
        return Err(error.with_hint("name what it makes in `build.command.output`").into());
    }
    Ok(Some(BuiltBinary { path, fresh: false, duration: started.elapsed(), warnings: String::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(script: &str, output: Option<&str>) -> CommandBuild {
        let run = ["sh", "-c", script].map(str::to_owned).into();
        CommandBuild { run, watch: Vec::new(), folder: None, output: output.map(Into::into) }
    }

    #[tokio::test]
    async fn its_output_is_the_binary_and_its_words_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let (_switch, shutdown) = Shutdown::manual();
        let built = command(folder.path(), &build("echo x > out", Some("out")), &shutdown).await.unwrap();
        assert_eq!(built.unwrap().path, folder.path().join("out"));
        assert_eq!(command(folder.path(), &build("true", None), &shutdown).await.unwrap(), None);
        let BuildError::Compile { rendered, .. } =
            command(folder.path(), &build("echo why >&2; exit 3", None), &shutdown).await.unwrap_err()
        else {
            panic!()
        };
        assert_eq!(rendered, "why");
        assert!(matches!(command(folder.path(), &build("true", Some("none")), &shutdown).await, Err(BuildError::Tool(_))));
    }
}
