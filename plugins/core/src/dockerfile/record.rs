//! What is remembered of a build, beside the layers in the cache.

use super::Request;
use super::state::Known;
use crate::image::source::Remembered;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The last build that came to a good end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of its inputs.
    pub(super) digest: String,
    /// Of the context's files.
    pub(super) known: Known,
    /// What came of it.
    pub(super) image: Remembered,
    /// The id that a Docker engine has for it.
    pub(super) engine_image: Option<String>,
}

/// Where records are.
pub(super) fn folder(request: &Request<'_>) -> PathBuf {
    request.cache.join("builds")
}

/// The record of this build.
pub(super) fn path(request: &Request<'_>) -> PathBuf {
    let build = request.build;
    let of = format!("{:?}", (request.root, &build.context, build.file(), request.name, &build.target, &build.platform));
    folder(request).join(format!("dockerfile-{}.json", &blake3::hash(of.as_bytes()).to_hex()[..16]))
}

impl Record {
    /// One that is damaged is as good as none.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// The next run may do without: this never fails.
    pub(super) fn write(&self, path: &Path) {
        let written =
            serde_json::to_vec(self).map_err(std::io::Error::other).and_then(|text| crate::files::write_atomic(path, &text, 0o644));
        if let Err(error) = written {
            tracing::info!(path = %path.display(), %error, "the build is not remembered");
        }
    }
}
