//! Credentials for the registries of base images: those of `docker login`, looked
//! up when they are asked for.

use crate::registry::{self, Login};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest, GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// Where BuildKit finds Docker Hub, under another name than the one of the login.
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";

#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct Credentials {
    /// Docker's `config.json`.
    pub(in crate::dockerfile) docker_config: Option<PathBuf>,
}

#[tonic::async_trait]
impl Auth for Credentials {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let host = if host == DOCKER_HUB_REGISTRY { "docker.io" } else { &host };
        let login = registry::login(self.docker_config.as_deref(), host).await;
        let login = login.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(match login {
            Some(Login { username, secret }) => CredentialsResponse { username, secret },
            None => CredentialsResponse::default(),
        }))
    }

    // BuildKit gets its tokens itself where its client can't.
    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are not fetched here"))
    }

    async fn get_token_authority(&self, _: Request<GetTokenAuthorityRequest>) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("tokens are not fetched here"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("tokens are not fetched here"))
    }
}
