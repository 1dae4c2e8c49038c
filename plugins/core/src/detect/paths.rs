//! Paths in a container, as text: absolute, without a slash at the end.

/// `path` as seen from the folder `base`: without `.`, `..` and double slashes.
pub(super) fn join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The last part.
pub(super) fn name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// The folder that it is in.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty()).unwrap_or("/")
}

/// What follows the folder: empty for the folder itself.
pub(super) fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        assert_eq!(join("/app", "../x/./y/"), "/x/y");
        assert_eq!(join("/app", "/x//y"), "/x/y");
        assert_eq!((name("/a/b"), name("b"), parent("/a/b"), parent("/a")), ("b", "b", "/a", "/"));
        assert_eq!((below("/a/b", "/a"), below("/a", "/a"), below("/ab", "/a"), below("/a", "/")), (Some("b"), Some(""), None, Some("a")));
    }

    proptest! {
        #[test]
        fn a_joined_path_is_plain(base in "/[a-z/.]{0,12}", path in "[a-z/.]{0,12}") {
            let joined = join(&base, &path);
            prop_assert!(joined.starts_with('/') && !joined.contains("//") && !joined.split('/').any(|part| part == ".." || part == "."));
            prop_assert_eq!(join("/", &joined), joined);
        }
    }
}
