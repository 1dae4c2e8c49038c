//! debugpy, for Python: its wheel is fetched once and kept in devloop's cache. The
//! agent puts it into the process, where it serves one client after another.

mod editor;
mod program;
#[cfg(test)]
mod real_tests;

use super::Link;
use crate::choose::Way;
use crate::dap;
use crate::forward;
use crate::kit::{Kit, KitFile};
use crate::place::Place;
use crate::process;
use crate::sources::Rule;
use devloop_core::agent::debug::{Candidate, Runtime};
use devloop_core::{CommandError, Context, ErrorContext, Result};
pub(super) use editor::{entry, text};
pub(super) use program::describe;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite};

/// Its file where the process is.
const FILE: &str = "debugpy.whl";
/// The oldest Python that this version of debugpy is for.
const OLDEST: (u32, u32) = (3, 8);

/// Makes it ready; answers what the agent is told.
pub(super) async fn prepare(context: &Context, place: &Place, candidate: &Candidate) -> Result<Vec<String>> {
    if let Runtime::Python { version: Some(version) } = &candidate.runtime
        && is_too_old(version)
    {
        let runtime = process::describe(&candidate.runtime);
        return Err(CommandError::new(format!("process {} is {runtime}, and debugpy is for 3.8 and newer", candidate.container_pid)));
    }
    let path = match place.way {
        Way::Node => place.bring(Some(&kit(program::obtain(context).await?).await?), FILE).await?,
        Way::Pod if place.surely_has(FILE) => place.bring(None, FILE).await?,
        Way::Pod => send(place, &kit(program::obtain(context).await?).await?).await?,
    };
    Ok(vec!["debugpy".to_owned(), path])
}

/// debugpy as it is brought along, where it was fetched before: for all that is known
/// the process may be no Python.
///
/// # Errors
/// When it was not.
pub(super) async fn fetched_kit() -> Result<Kit> {
    let source = program::cached()?;
    if source.is_file() { kit(source).await } else { Err(CommandError::new("debugpy was not fetched yet")) }
}

async fn kit(source: PathBuf) -> Result<Kit> {
    Kit::of("debugpy", vec![KitFile { source, path: FILE.to_owned(), is_alone: false }]).await
}

/// Brings it into an ephemeral container that came without.
async fn send(place: &Place, kit: &Kit) -> Result<String> {
    let path = place.file(&format!("{}-{FILE}", kit.hash));
    for file in &kit.files {
        let content = tokio::fs::read(&file.source).await.with_context(|| format!("could not read {}", file.source.display()))?;
        let sent = place.runner.write_file(&path, &content).await;
        sent.map_err(|error| CommandError::new("could not bring debugpy to the pod").caused_by(CommandError::from(error)))?;
    }
    Ok(path)
}

/// Passes on what a client says and hears.
pub(super) async fn serve<R, W>(link: Link<'_>, reader: R, writer: W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    forward::serve(&link, reader, writer, |content| rewritten(content, link.rules), str::to_owned).await
}

/// Says where the sources are, unless the editor does.
fn rewritten(content: Vec<u8>, rules: &[Rule]) -> Vec<u8> {
    dap::rewritten(content, |arguments| {
        let is_told = arguments["pathMappings"].as_array().is_some_and(|mappings| !mappings.is_empty());
        if !is_told && !rules.is_empty() {
            arguments["pathMappings"] = mappings(rules);
        }
    })
}

/// The rules as debugpy's option `pathMappings` has them.
fn mappings(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| json!({"localRoot": rule.local, "remoteRoot": rule.remote})).collect()
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_need_not_know_where_the_sources_are() {
        let rules = [Rule { local: "/home/dev/web".to_owned(), remote: "/app".to_owned() }];
        let rewrite = |message: Value| -> Value { serde_json::from_slice(&rewritten(message.to_string().into_bytes(), &rules)).unwrap() };
        let told = rewrite(json!({"command": "attach", "arguments": {"justMyCode": false}}));
        let wanted = json!({"justMyCode": false, "pathMappings": [{"localRoot": "/home/dev/web", "remoteRoot": "/app"}]});
        assert_eq!(told["arguments"], wanted);
        let own = json!({"command": "attach", "arguments": {"pathMappings": [{"localRoot": "a", "remoteRoot": "b"}]}});
        assert_eq!(rewrite(own.clone()), own);
    }

    #[test]
    fn old_versions_are_known() {
        assert!(is_too_old("2.7") && is_too_old("3.7.16"));
        assert!(!is_too_old("3.8") && !is_too_old("3.14") && !is_too_old("4.0"));
    }
}
