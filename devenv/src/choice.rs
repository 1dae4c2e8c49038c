//! Which engine is meant: the user's choice, or the best one that is there.

mod decide;
mod gather;

use crate::provider::Providers;
use crate::request::UpRequest;
use decide::Decision;
use devloop_core::environment::Directories;
use devloop_core::{Context, Result};

/// Turns `--provider auto` into an engine, and a missing name into one; says
/// why, unless that goes without saying.
pub(crate) async fn settle(context: &Context, providers: &Providers, request: UpRequest) -> Result<UpRequest> {
    let directories = Directories::from_env()?;
    let variable = std::env::var("KIND_NODE_IMAGE").ok();
    let wanted = decide::wanted(&request, variable.as_deref())?;
    // Each question is asked only when the answers so far leave it open: an
    // engine that doesn't answer must not hold up a cluster without it.
    let records = gather::records(&directories)?;
    let decision = match decide::by_record(&request, wanted, &records)? {
        Some(decision) => decision,
        None => {
            let running = context.shutdown.guard(gather::running(providers, &records)).await?;
            match decide::by_running(&request, &running) {
                Some(decision) => decision,
                None => {
                    let step = context.ui.step("Looking for an engine");
                    let machine = context.shutdown.guard(gather::machine(&directories, variable)).await?;
                    step.clear();
                    decide::best(&request, &records, &machine)?
                }
            }
        }
    };
    let Decision { provider, name, said } = decision;
    if let Some(said) = said {
        context.ui.say(said);
    }
    Ok(UpRequest { provider, name, ..request })
}
