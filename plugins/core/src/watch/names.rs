//! Names that tell what a file or folder is for: caches that tools make, ignore
//! files, editors' temporary files.

use std::ffi::OsStr;
use std::path::Path;

/// What version control keeps: nothing in it is part of a program.
const REPOSITORY: &str = ".git";

/// Folders that a tool makes from what is beside them, and can make again; each
/// is either huge or rewritten on every run.
const MADE_BY_TOOLS: [&str; 10] =
    ["target", "node_modules", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".gradle", ".terraform"];

/// Folders that may be Python environments: one is when it holds [`PYTHON_MARK`].
const PYTHON_ENVIRONMENTS: [&str; 3] = ["venv", ".venv", "env"];
const PYTHON_MARK: &str = "pyvenv.cfg";

/// Files that say which paths count.
pub(super) const GIT_IGNORE: &str = ".gitignore";
pub(super) const DOCKER_IGNORE: &str = ".dockerignore";
pub(super) const DEVLOOP_IGNORE: &str = ".devloopignore";

/// Whether a path is where a repository keeps its own files.
pub(super) fn is_repository(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(REPOSITORY))
}

/// Whether a folder holds what a tool made: not entered unless it is asked for.
pub(super) fn is_made_by_tools(folder: &Path) -> bool {
    let Some(name) = folder.file_name().and_then(OsStr::to_str) else { return false };
    MADE_BY_TOOLS.contains(&name)
        || (PYTHON_ENVIRONMENTS.contains(&name) && folder.join(PYTHON_MARK).exists())
        // Beside the cache `.next` holds the site that was built.
        || (name == "cache" && folder.parent().and_then(Path::file_name) == Some(OsStr::new(".next")))
}

/// Whether other paths may be ignored from now on because this one changed.
pub(super) fn decides_about_others(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| [GIT_IGNORE, DOCKER_IGNORE, DEVLOOP_IGNORE, PYTHON_MARK].contains(&name))
}

/// Whether editors use such a name for a file that lives for one save.
pub(super) fn is_editor_temporary(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_swap = || {
        let extension = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')).map(|(_, extension)| extension.as_bytes());
        // vim: .file.swp, then .swo, .swn, ... when taken; .swx to probe.
        extension.is_some_and(|extension| matches!(extension, [b's', b'w', b'a'..=b'z']))
    };
    name == "4913"
        || name.ends_with('~')
        || name.starts_with(".#")
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
        || name.ends_with("___jb_tmp___")
        || name.ends_with("___jb_old___")
        || name.starts_with(".goutputstream-")
        || is_swap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_editors_are_told_from_real_ones() {
        for name in [".index.html.swp", ".x.swx", "index.html~", "4913", ".#main.rs", "#main.rs#", "a.css___jb_tmp___"] {
            assert!(is_editor_temporary(OsStr::new(name)), "{name}");
        }
        for name in ["index.html", ".env", ".eslintrc.js", "swp", "4914", "a.swp.html", "#", ".icon.svg"] {
            assert!(!is_editor_temporary(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn what_tools_make_is_told_from_what_has_such_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path().join("venv");
        std::fs::create_dir(&environment).unwrap();
        assert!(!is_made_by_tools(&environment), "a folder that is called so");
        std::fs::write(environment.join("pyvenv.cfg"), "").unwrap();
        assert!(is_made_by_tools(&environment));
        for path in ["/p/target", "/p/a/node_modules", "/p/__pycache__", "/p/.next/cache"] {
            assert!(is_made_by_tools(Path::new(path)), "{path}");
        }
        for path in ["/p/targets", "/p/cache", "/p/.next", "/p/.next/server", "/p/.git"] {
            assert!(!is_made_by_tools(Path::new(path)), "{path}");
        }
    }
}
