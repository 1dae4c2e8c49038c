//! A layer in the Docker engine's own folder: its files unpacked, and what the
//! tar had around them in a file of its own, from which the very same tar can be
//! put together (<https://github.com/vbatts/tar-split>).
//!
//! An export of the engine's API always has all layers of an image. Where this
//! process may read the engine's folder, one layer is had at the cost of one
//! layer. Whether it came out right shows its digest.

use base64::Engine as _;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One layer, ready to be put together.
#[derive(Debug)]
pub(crate) struct SplitLayer {
    files: OwnedFd,
    parts: Vec<Part>,
    size: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Headers and padding.
    Bytes(Vec<u8>),
    /// The content of a file of the layer.
    File { path: PathBuf, size: u64 },
}

/// A line of `tar-split.json`.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    /// A name that is no UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

impl SplitLayer {
    /// The layer on top of the stack with this chain id, in the image folder of
    /// an engine whose root is `root`.
    ///
    /// # Errors
    /// When the engine keeps it otherwise or out of reach.
    pub(super) fn open(root: &Path, chain_id: &str) -> io::Result<Self> {
        let hex = chain_id.strip_prefix("sha256:").ok_or(io::ErrorKind::InvalidInput)?;
        let folder = root.join("image/overlay2/layerdb/sha256").join(hex);
        let cache_id = std::fs::read_to_string(folder.join("cache-id"))?;
        let cache_id = cache_id.trim();
        if cache_id.is_empty() || cache_id.contains(['/', '.']) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let diff = root.join("overlay2").join(cache_id).join("diff");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let files = nix::fcntl::open(&diff, flags, nix::sys::stat::Mode::empty())?;
        let parts = unzip(&folder.join("tar-split.json.gz"), read_parts)?;
        let size = parts.iter().map(Part::size).sum();
        Ok(Self { files, parts, size })
    }

    /// Of the tar.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Writes the tar.
    pub(super) fn copy_to(&self, out: &mut dyn Write) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.write_all(bytes)?,
                Part::File { path, size } => {
                    // What a layer calls a path must not lead out of it.
                    let how = OpenHow::new()
                        .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
                        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
                    let mut file = File::from(openat2(&self.files, path, how)?).take(*size);
                    if io::copy(&mut file, out)? != *size {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is shorter than it was", path.display())));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Part {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

/// Reads through `gzip`, which is there wherever Docker is, and saves a library.
fn unzip<T>(path: &Path, read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>) -> io::Result<T> {
    let mut child = Command::new("gzip")
        .args(["--decompress", "--stdout"])
        .stdin(File::open(path)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let value = read(&mut BufReader::with_capacity(1 << 18, stdout));
    let status = child.wait()?;
    let value = value?;
    if status.success() { Ok(value) } else { Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()))) }
}

fn read_parts(input: &mut dyn BufRead) -> io::Result<Vec<Part>> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let decode = |text: &str| base64.decode(text).map_err(io::Error::other);
    let mut parts: Vec<Part> = Vec::new();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let entry: Line = serde_json::from_slice(&line)?;
        match entry.kind {
            1 if entry.size > 0 => {
                let name = match (entry.name, entry.name_raw) {
                    (_, Some(raw)) => decode(&raw)?,
                    (Some(name), None) => name.into_bytes(),
                    (None, None) => return Err(io::ErrorKind::InvalidData.into()),
                };
                use std::os::unix::ffi::OsStringExt;
                parts.push(Part::File { path: std::ffi::OsString::from_vec(name).into(), size: entry.size });
            }
            1 => {}
            2 => {
                let bytes = decode(entry.payload.as_deref().unwrap_or_default())?;
                match parts.last_mut() {
                    Some(Part::Bytes(before)) => before.extend(bytes),
                    _ => parts.push(Part::Bytes(bytes)),
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        line.clear();
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_joined_and_empty_files_skipped() {
        let text = "{\"type\":2,\"payload\":\"YWI=\",\"position\":0}\n{\"type\":1,\"name\":\"empty\",\"position\":1}\n\
                    {\"type\":2,\"payload\":\"Yw==\",\"position\":2}\n{\"type\":1,\"name\":\"d/x\",\"size\":3,\"payload\":\"AA==\",\"position\":3}\n";
        let parts = read_parts(&mut text.as_bytes()).unwrap();
        assert_eq!(parts, [Part::Bytes(b"abc".to_vec()), Part::File { path: "d/x".into(), size: 3 }]);
        assert!(read_parts(&mut b"{\"type\":7}".as_slice()).is_err());
        assert!(read_parts(&mut b"{\"type\":2,\"payload\":\"?\"}".as_slice()).is_err());
    }

    #[test]
    fn a_layer_is_put_together_from_its_files_and_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        let chain = format!("sha256:{}", "a".repeat(64));
        let folder = root.path().join("image/overlay2/layerdb/sha256").join("a".repeat(64));
        let diff = root.path().join("overlay2/cache/diff");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(&diff).unwrap();
        std::fs::write(folder.join("cache-id"), "cache").unwrap();
        std::fs::write(diff.join("file"), "xyz").unwrap();
        std::fs::write(root.path().join("secret"), "xyz").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), diff.join("link")).unwrap();
        let split = |name: &str| {
            let text = format!("{{\"type\":2,\"payload\":\"YWI=\"}}\n{{\"type\":1,\"name\":\"{name}\",\"size\":3}}\n");
            std::fs::write(folder.join("tar-split.json"), text).unwrap();
            assert!(Command::new("gzip").arg("--force").arg(folder.join("tar-split.json")).status().unwrap().success());
            let layer = SplitLayer::open(root.path(), &chain).unwrap();
            assert_eq!(layer.size(), 5);
            let mut out = Vec::new();
            layer.copy_to(&mut out).map(|()| out)
        };
        assert_eq!(split("file").unwrap(), b"abxyz");
        for outside in ["link", "../../secret", "missing"] {
            assert!(split(outside).is_err(), "{outside}");
        }
        std::fs::write(folder.join("tar-split.json.gz"), "not gzip").unwrap();
        assert!(SplitLayer::open(root.path(), &chain).is_err());
    }
}
