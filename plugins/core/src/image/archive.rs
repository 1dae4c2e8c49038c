//! An image as one tar in OCI image layout.

use super::Image;
use super::config::MANIFEST_TYPE;
use super::layer::digest;
use std::fs::File;
use std::io::{self, Read, Write};

/// What containerd names the image by.
pub(crate) const IMAGE_NAME_ANNOTATION: &str = "io.containerd.image.name";
/// What the image specification has for it: a tag or a whole reference.
pub(crate) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Writes the archive; see [`Image::write_archive`].
pub(super) fn write(image: &Image, include: &[bool], out: impl Write) -> io::Result<()> {
    let index = index(&image.manifest, &image.architecture, std::slice::from_ref(&image.reference));
    let mut builder = tar::Builder::new(out);
    append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut builder, "index.json", &index)?;
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

/// The `index.json` that names one manifest.
pub(crate) fn index(manifest: &[u8], architecture: &str, names: &[String]) -> Vec<u8> {
    let media_type =
        serde_json::from_slice::<serde_json::Value>(manifest).ok().and_then(|json| Some(json["mediaType"].as_str()?.to_owned()));
    let media_type = media_type.unwrap_or_else(|| MANIFEST_TYPE.to_owned());
    let descriptors = names.iter().map(|name| {
        serde_json::json!({
            "mediaType": media_type,
            "digest": digest(manifest),
            "size": manifest.len(),
            "platform": { "architecture": architecture, "os": "linux" },
            "annotations": { (IMAGE_NAME_ANNOTATION): name, (REF_NAME_ANNOTATION): name },
        })
    });
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": descriptors.collect::<Vec<_>>(),
    });
    index.to_string().into_bytes()
}

pub(crate) fn append(builder: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> io::Result<()> {
    builder.append_data(&mut header(content.len() as u64), path, content)
}

pub(crate) fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
