//! What a file looked like when it was last reported, in eight bytes.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// Two writes closer than this may leave the same modification time.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

/// A fingerprint of all that a change of content, permissions, kind or target
/// leaves different. Its lowest bit tells whether it is racy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature(u64);

impl Signature {
    /// What `metadata`, read at `now`, tells.
    pub(super) fn new(metadata: &Metadata, now: SystemTime) -> Self {
        let mut hasher = DefaultHasher::new();
        (metadata.mtime(), metadata.mtime_nsec(), metadata.size()).hash(&mut hasher);
        (metadata.mode(), metadata.dev(), metadata.ino()).hash(&mut hasher);
        // In doubt (a file from before 1970, or from the future) it is racy.
        let is_racy = metadata.modified().map_or(true, |modified| modified + CLOCK_GRAIN >= now);
        Self(hasher.finish() & !1 | u64::from(is_racy))
    }

    /// Whether the file looks the same.
    pub(super) fn same(self, other: Self) -> bool {
        self.0 | 1 == other.0 | 1
    }

    /// Whether the file could have been written again, unseen, with the same
    /// modification time (git calls such an entry racy).
    pub(super) fn is_racy(self) -> bool {
        self.0 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn content_mode_kind_and_target_make_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        let of = |path| Signature::new(&fs::symlink_metadata(path).unwrap(), SystemTime::now());
        fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let (file_before, link_before) = (of(&file), of(&link));
        assert!(file_before.same(of(&file)) && !file_before.same(link_before));
        fs::write(&file, "22").unwrap();
        assert!(!file_before.same(of(&file)) && link_before.same(of(&link)));
        let written = of(&file);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!written.same(of(&file)));
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(!link_before.same(of(&link)));
    }

    #[test]
    fn a_file_just_written_is_racy_and_an_old_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = folder.path().metadata().unwrap();
        let modified = metadata.modified().unwrap();
        let (early, late) = (Signature::new(&metadata, modified), Signature::new(&metadata, modified + Duration::from_secs(1)));
        assert!(early.is_racy() && !late.is_racy() && early.same(late));
    }
}
