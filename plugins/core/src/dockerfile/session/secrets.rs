//! Secrets of a build, read when a step asks for one.

use crate::project::{Secret, SecretSource};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use std::io::Read;
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// BuildKit refuses more (`moby/buildkit`, `session/secrets/secretsprovider`).
const LARGEST: u64 = 500 * 1024;

#[derive(Clone)]
pub(in crate::dockerfile) struct Secrets {
    /// What relative paths start from.
    pub(in crate::dockerfile) root: PathBuf,
    pub(in crate::dockerfile) secrets: Vec<Secret>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.secrets.iter().map(|secret| &secret.id)).finish()
    }
}

impl Secrets {
    /// A secret's content; the inner `None` for one that nobody named.
    pub(in crate::dockerfile) fn read(&self, id: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(secret) = self.secrets.iter().find(|secret| secret.id == id) else { return Ok(None) };
        match &secret.source {
            SecretSource::Variable(name) => {
                let value = std::env::var_os(name)
                    .ok_or_else(|| format!("the secret {id:?} is to come from the variable {name}, which is not set"))?;
                Ok(Some(value.into_encoded_bytes()))
            }
            SecretSource::File(path) => {
                let path = self.root.join(path);
                let failed = |error: std::io::Error| format!("the secret {id:?} can't be read from {}: {error}", path.display());
                let file = std::fs::File::open(&path).map_err(failed)?;
                let mut content = Vec::new();
                file.take(LARGEST + 1).read_to_end(&mut content).map_err(failed)?;
                if content.len() as u64 > LARGEST {
                    return Err(format!("the secret {id:?} is larger than 500 KiB, which is all that BuildKit takes"));
                }
                Ok(Some(content))
            }
        }
    }
}

#[tonic::async_trait]
impl secrets_server::Secrets for Secrets {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.read(&id) {
            Ok(Some(data)) => Ok(Response::new(GetSecretResponse { data })),
            Ok(None) => Err(Status::not_found(format!("secret {id} is not among the build's `secrets`"))),
            Err(why) => Err(Status::failed_precondition(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "s3cret").unwrap();
        let secret = |id: &str, source| Secret { id: id.into(), source };
        let secrets = vec![
            secret("file", SecretSource::File("token".into())),
            secret("gone", SecretSource::File("none".into())),
            secret("path", SecretSource::Variable("PATH".into())),
            secret("unset", SecretSource::Variable("DEVLOOP_NO_SUCH_VARIABLE".into())),
        ];
        let secrets = Secrets { root: folder.path().to_owned(), secrets };
        assert_eq!(secrets.read("file").unwrap().unwrap(), b"s3cret");
        assert!(secrets.read("path").unwrap().is_some());
        assert_eq!(secrets.read("other").unwrap(), None);
        assert!(secrets.read("gone").unwrap_err().contains("none"));
        assert!(secrets.read("unset").unwrap_err().contains("which is not set"));
        std::fs::write(folder.path().join("token"), vec![0; 600 * 1024]).unwrap();
        assert!(secrets.read("file").unwrap_err().contains("500 KiB"));
        assert!(!format!("{secrets:?}").contains("token"));
    }
}
