//! Whom an encrypted connection trusts, and how this side shows who it is: the
//! system's authorities, and a registry's own files as Docker has them
//! (<https://docs.docker.com/engine/security/certificates/>).

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folders that may hold files of one registry: `*.crt` are authorities,
/// `NAME.cert` and `NAME.key` a certificate of this side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) folders: Vec<PathBuf>,
}

/// # Errors
/// When a file is none of what its name says.
pub(super) fn config(trust: &Trust) -> Result<ClientConfig, io::Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    let mut own = None;
    for path in trust.folders.iter().flat_map(|folder| files(folder)) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                for certificate in certificates(&path)? {
                    roots.add(certificate).map_err(|error| damaged(&path, error))?;
                }
            }
            Some("cert") if own.is_none() => {
                let key = path.with_extension("key");
                own = Some((certificates(&path)?, PrivateKeyDer::from_pem_file(&key).map_err(|error| damaged(&key, error))?));
            }
            _ => {}
        }
    }
    if roots.is_empty() {
        let reason = native.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(io::Error::other(format!("this machine's certificate authorities can't be read: {reason}")));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = builder.with_root_certificates(roots);
    match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(io::Error::other),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// For a server with an authority of its own, and what it knows this side by, a
/// certificate and its key: the files of a Docker engine or a builder that is far away.
///
/// # Errors
/// When a file is none of what its name says.
pub(crate) fn client_config(authority: &Path, own: Option<(&Path, &Path)>) -> Result<ClientConfig, io::Error> {
    let mut roots = RootCertStore::empty();
    for known in certificates(authority)? {
        roots.add(known).map_err(|error| damaged(authority, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = builder.with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(builder.with_no_client_auth()) };
    let own = PrivateKeyDer::from_pem_file(key).map_err(|error| damaged(key, error))?;
    builder.with_client_auth_cert(certificates(certificate)?, own).map_err(io::Error::other)
}

/// In order of their names; an absent folder has none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| damaged(path, error))?;
    if found.is_empty() { Err(damaged(path, "there is no certificate in it")) } else { Ok(found) }
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} can't be used: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Trust { folders: vec![folder.path().join("absent"), folder.path().to_owned()] };
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        std::fs::write(folder.path().join("ca.crt"), "x").unwrap();
        let error = config(&trust).unwrap_err().to_string();
        assert!(error.ends_with("ca.crt can't be used: there is no certificate in it"), "{error}");
    }
}
