//! Patterns of paths, in the syntax of `.gitignore`: without a slash they fit a
//! name in any folder.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;

/// Some patterns, of which the last that fits decides: `!` takes back.
#[derive(Clone, Debug)]
pub struct Patterns {
    matcher: Gitignore,
}

impl Patterns {
    /// For paths below `root`.
    ///
    /// # Errors
    /// When one can't be read; the message names it.
    pub fn new<'a>(root: &Path, patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut builder = GitignoreBuilder::new(root);
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(|error| format!("pattern {pattern:?} can't be read: {error}"))?;
        }
        builder.build().map(|matcher| Self { matcher }).map_err(|error| error.to_string())
    }

    /// Whether they fit a file, or a folder that it is in.
    pub fn fit(&self, path: &Path) -> bool {
        path.starts_with(self.matcher.path()) && self.matcher.matched_path_or_any_parents(path, false).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_anywhere_and_paths_where_they_say() {
        let patterns = Patterns::new(Path::new("/w"), ["*.py", "conf/*.toml", "/web/", "!web/keep.py"]).unwrap();
        for path in ["/w/a.py", "/w/deep/er/a.py", "/w/conf/x.toml", "/w/web/a.css"] {
            assert!(patterns.fit(Path::new(path)), "{path}");
        }
        for path in ["/w/a.pyc", "/w/sub/conf/x.toml", "/elsewhere/a.py", "/w/sub/web/a.css"] {
            assert!(!patterns.fit(Path::new(path)), "{path}");
        }
        assert!(Patterns::new(Path::new("/w"), ["a[", "b{"]).is_err());
    }
}
