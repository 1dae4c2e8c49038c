//! The record of an environment, for the engine that asks: another's is an error.
//! And the folder that it is in.

use crate::request::EnvironmentName;
use devloop_core::environment::{Directories, EnvironmentDirectory, EnvironmentRecord};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use std::os::unix::fs::DirBuilderExt;

/// The record of an environment of `engine`; `None` when there is no such
/// environment.
pub(crate) fn of_engine(directories: &Directories, name: &EnvironmentName, engine: &str) -> Result<Option<EnvironmentRecord>> {
    let record = directories.environment(name.as_str()).record();
    let Some(record) = record.hint(format!("remove the environment with `kubectl devenv down --name {name}`"))? else { return Ok(None) };
    if record.provider != engine {
        return Err(CommandError::new(format!("environment {:?} is one of {}", record.name, record.provider)))
            .hint("choose another name with --name");
    }
    Ok(Some(record))
}

/// The same where there must be one.
pub(crate) fn known(directories: &Directories, name: &EnvironmentName, engine: &str) -> Result<EnvironmentRecord> {
    of_engine(directories, name, engine)?
        .ok_or_else(|| CommandError::new(format!("there is no environment {:?}", name.as_str())))
        .hint(format!("bring it up with `kubectl devenv up --name {name} --provider {engine}`"))
}

/// Makes an environment's folder, which is for its owner only.
pub(crate) fn make_folder(environment: &EnvironmentDirectory) -> Result<()> {
    let folder = environment.root();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| format!("could not make {}", folder.display()))
}
