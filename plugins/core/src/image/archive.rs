//! An image as one tar in OCI image layout.

use super::Image;
use super::config::MANIFEST_TYPE;
use std::fs::File;
use std::io::{self, Read, Write};

/// What containerd names the image by.
pub(crate) const IMAGE_NAME_ANNOTATION: &str = "io.containerd.image.name";
/// What the image specification has for it: a tag or a whole reference.
pub(crate) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Writes the archive; see [`Image::write_archive`].
pub(super) fn write(image: &Image, include: &[bool], out: impl Write) -> io::Result<()> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": MANIFEST_TYPE,
            "digest": image.manifest_digest,
            "size": image.manifest.len(),
            "platform": { "architecture": image.architecture, "os": "linux" },
            "annotations": {
                (IMAGE_NAME_ANNOTATION): image.reference,
                (REF_NAME_ANNOTATION): image.reference,
            },
        }],
    });
    let mut builder = tar::Builder::new(out);
    append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut builder, "index.json", index.to_string().as_bytes())?;
    append(&mut builder, &blob_path(&image.manifest_digest), &image.manifest)?;
    append(&mut builder, &blob_path(&image.config_digest()), &image.config)?;
    let mut written: Vec<&str> = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        if include.get(index) == Some(&false) || written.contains(&layer.digest.as_str()) {
            continue;
        }
        let file = File::open(&layer.path)?;
        if file.metadata()?.len() != layer.size {
            return Err(io::Error::other(format!("{} is damaged", layer.path.display())));
        }
        builder.append_data(&mut header(layer.size), blob_path(&layer.digest), file.take(layer.size))?;
        written.push(&layer.digest);
    }
    builder.into_inner()?.flush()
}

fn append(builder: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> io::Result<()> {
    builder.append_data(&mut header(content.len() as u64), path, content)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
