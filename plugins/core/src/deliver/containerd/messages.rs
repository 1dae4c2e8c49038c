//! containerd's messages, as far as they are used here: the numbers of their fields are
//! those of `api/services/*/v1/*.proto` and `api/types/*.proto` in containerd's
//! repository (<https://github.com/containerd/containerd/tree/main/api>), the same in
//! versions 1 and 2. Fields that are left out are skipped by either side.

use std::collections::HashMap;

/// An answer that says nothing, or whose content is not looked at.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

/// Which fields of a message are meant (`google.protobuf.FieldMask`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Mask {
    #[prost(string, repeated, tag = "1")]
    pub(super) paths: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Descriptor>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ListImages {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Images {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct CreateImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct UpdateImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub(super) update_mask: Option<Mask>,
}

/// What is known of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Blob {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct BlobInfo {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateBlob {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Blob>,
    #[prost(message, optional, tag = "2")]
    pub(super) update_mask: Option<Mask>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum WriteAction {
    Stat = 0,
    Write = 1,
    Commit = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WriteBlob {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub(super) action: i32,
    /// Names what is written until it is whole.
    #[prost(string, tag = "2")]
    pub(super) reference: String,
    #[prost(int64, tag = "3")]
    pub(super) total: i64,
    #[prost(string, tag = "4")]
    pub(super) expected: String,
    #[prost(int64, tag = "5")]
    pub(super) offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) data: bytes::Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Written {
    #[prost(int64, tag = "4")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PrepareSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) source: String,
    #[prost(string, tag = "3")]
    pub(super) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) options: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct CommitSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
}

/// Which snapshot is asked about, or taken away.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Snapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Apply {
    #[prost(message, optional, tag = "1")]
    pub(super) diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Applied {
    /// Of the uncompressed tar.
    #[prost(message, optional, tag = "1")]
    pub(super) applied: Option<Descriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateLease {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(map = "string, string", tag = "3")]
    pub(super) labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct DeleteLease {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// Gives up what was begun to be written.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Abort {
    #[prost(string, tag = "1")]
    pub(super) reference: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct DeleteImage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}
