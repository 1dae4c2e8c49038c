//! temporary
use crate::project::ReloadAction;
/// temporary
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// a
    Native,
    /// a
    Python,
    /// a
    Node,
    /// a
    Shell,
    /// a
    Nginx,
    /// a
    Other,
}
/// temporary
pub fn runtime_of(executable: &str, argv: &[String]) -> Runtime {
    let name = executable.rsplit('/').next().unwrap_or_default();
    if name.starts_with("python") {
        Runtime::Python
    } else if name == "node" || name == "nodejs" {
        Runtime::Node
    } else if name == "nginx" {
        Runtime::Nginx
    } else if ["sh", "bash", "dash", "busybox"].contains(&name) && argv.len() > 1 {
        Runtime::Shell
    } else {
        Runtime::Native
    }
}
/// temporary
pub fn guess_action(runtime: Runtime, path: &str) -> ReloadAction {
    match runtime {
        Runtime::Python if path.ends_with(".py") => ReloadAction::Restart,
        Runtime::Node if path.ends_with(".js") => ReloadAction::Restart,
        Runtime::Shell if path.ends_with(".sh") => ReloadAction::Restart,
        Runtime::Nginx if path.ends_with(".conf") => ReloadAction::Signal("HUP".into()),
        _ => ReloadAction::None,
    }
}
