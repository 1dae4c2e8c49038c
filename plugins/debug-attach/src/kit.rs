//! What is brought to where the process is: a debugger, with the files that it needs.

use devloop_core::{ErrorContext, Result};
use std::path::PathBuf;

/// The files of a debugger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kit {
    /// Of the debugger, for messages.
    pub(crate) name: &'static str,
    /// The one that is started comes first.
    pub(crate) files: Vec<KitFile>,
    /// Tells its content from that of others.
    pub(crate) hash: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KitFile {
    /// On this machine.
    pub(crate) source: PathBuf,
    /// In the folder of debuggers, such as `dlv` or `gdbserver/libc.so.6`.
    pub(crate) path: String,
    /// Whether it is a program that has to run without any other file.
    pub(crate) is_alone: bool,
}

impl Kit {
    /// Of these files.
    ///
    /// # Errors
    /// When one can't be read.
    pub(crate) async fn of(name: &'static str, files: Vec<KitFile>) -> Result<Self> {
        let hashed = tokio::task::spawn_blocking(move || {
            let mut hasher = blake3::Hasher::new();
            for file in &files {
                let content = std::fs::read(&file.source).with_context(|| format!("could not read {}", file.source.display()))?;
                hasher.update(file.path.as_bytes()).update(&(content.len() as u64).to_le_bytes()).update(&content);
            }
            Ok(Self { name, files, hash: hasher.finalize().to_hex()[..16].to_owned() })
        });
        hashed.await.with_context(|| format!("could not read {name}"))?
    }
}
