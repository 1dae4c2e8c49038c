//! Static files: from the path of a URL to bytes, and never a step outside the directory.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(crate) struct StaticFile {
    pub(crate) content_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// The file under `root` that `url_path` names, as it is now; `None` if there is nothing to serve.
pub(crate) fn read(root: &Path, url_path: &str) -> io::Result<Option<StaticFile>> {
    let Some(relative) = relative_path(url_path) else {
        return Ok(None);
    };
    match read_inside(root, &relative) {
        Ok(Some(bytes)) => Ok(Some(StaticFile { content_type: content_type(&relative), bytes })),
        Ok(None) => Ok(None),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Symbolic links may point anywhere below `root` (a mounted ConfigMap is made of them), not beyond.
fn read_inside(root: &Path, relative: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = root.join(relative).canonicalize()?;
    // Only regular files: reading a pipe would block the worker.
    if !path.starts_with(root.canonicalize()?) || !path.metadata()?.is_file() {
        return Ok(None);
    }
    // As a whole, so that the announced length is right even if the file is being replaced.
    fs::read(path).map(Some)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

/// Decodes the path of a URL; `None` for one that is malformed or that climbs.
///
/// Decoding comes first, and once: `%2e%2e` and `%2f` are looked at as what they stand for.
fn relative_path(url_path: &str) -> Option<PathBuf> {
    let decoded = percent_decode(url_path.strip_prefix('/')?)?;
    if decoded.is_empty() {
        return Some(PathBuf::from("index.html"));
    }
    let segments: Vec<&str> = decoded.split('/').collect();
    let is_plain = |segment: &&str| !matches!(*segment, "" | "." | "..") && !segment.contains(['\0', '\\']);
    segments.iter().all(is_plain).then(|| segments.iter().collect())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? * 16 + hex_digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn text(root: &Path, url_path: &str) -> Option<String> {
        read(root, url_path).unwrap().map(|file| String::from_utf8(file.bytes).unwrap())
    }

    #[test]
    fn paths_that_climb_or_are_malformed_name_nothing() {
        for path in [
            "/../secret",
            "/a/../../secret",
            "/..",
            "/a/..",
            "/./index.html",
            "/%2e%2e/secret",
            "/%2E%2e%2Fsecret",
            "/..%2fsecret",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/a//b",
            "/a/",
            "/..\\secret",
            "/index.html%00.png",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
            "index.html",
            "",
            "*",
        ] {
            assert_eq!(relative_path(path), None, "{path}");
        }
    }

    #[test]
    fn ordinary_paths_name_what_they_say() {
        for (path, expected) in [
            ("/", "index.html"),
            ("/style.css", "style.css"),
            ("/img/a%20b.png", "img/a b.png"),
            ("/caf%C3%A9.txt", "café.txt"),
            ("/..hidden", "..hidden"),
            // Decoded once: what is left is a name, not a climb.
            ("/%252e%252e", "%2e%2e"),
        ] {
            assert_eq!(relative_path(path), Some(PathBuf::from(expected)), "{path}");
        }
    }

    #[test]
    fn links_are_followed_inside_the_directory_only() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("static");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        fs::write(root.join("page.html"), "page").unwrap();
        symlink("page.html", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(text(&root, "/inside").as_deref(), Some("page"));
        assert_eq!(text(&root, "/outside"), None);
        assert!(read(&root, "/loop").is_err());
    }

    #[test]
    fn what_is_no_file_is_not_served() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(text(root.path(), "/folder"), None);
        assert_eq!(text(root.path(), "/file/below"), None);
        assert_eq!(text(root.path(), &format!("/{}", "x".repeat(300))), None);
    }

    #[test]
    fn the_extension_decides_the_content_type() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("STYLE.CSS", "text/css; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("archive", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), expected);
        }
    }
}
