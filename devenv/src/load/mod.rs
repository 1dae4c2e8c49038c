//! `kubectl devenv load`: an image from Docker, an archive or an OCI layout onto
//! every node.

mod absent;
mod report;

use crate::provider::Providers;
use crate::request::{ImageSource, LoadRequest};
use devloop_core::deliver::{self, DeliverError, NodeDelivery, Origin, Progress};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::node::Node;
use devloop_core::output::{self, Format};
use devloop_core::ui::{Step, human_bytes};
use devloop_core::{Context, ExitStatus};
use report::LoadReport;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

/// Loads the image and says what that took.
pub(crate) async fn run(context: &Context, providers: &Providers, request: &LoadRequest) -> Result<ExitStatus> {
    let origin = origin(&request.image, request.source)?;
    let step = context.ui.step(format!("Loading {}", request.image));
    let progress = Progress::default();
    let loading = async {
        let found = async { deliver::find(origin).await.map_err(CommandError::from) };
        let (nodes, source) = tokio::try_join!(nodes(providers, request), found)?;
        // While the bytes travel, so that it costs no time.
        let loading = async { tokio::join!(deliver::load(&nodes, &source, &progress), absent::names(&nodes)) };
        tokio::select! {
            (outcomes, absent) = loading => {
                let mut outcomes = outcomes?;
                outcomes.extend(absent?.into_iter().map(not_running));
                Ok(LoadReport::new(source.images(), outcomes))
            }
            never = show(&step, &progress) => match never {},
        }
    };
    let report = context.shutdown.guard(loading).await.with_context(|| format!("could not load {}", request.image))?;
    match report.summary() {
        Some(summary) => step.done(summary),
        None => step.clear(),
    }
    if request.output != Format::Text {
        output::print(request.output, &report, String::new)?;
    }
    match report.into_error() {
        Some(error) => Err(error),
        None => Ok(ExitStatus::Success),
    }
}

fn not_running(node: String) -> NodeDelivery {
    let error = DeliverError::NodeGone { node: format!("kind node {node:?}") };
    NodeDelivery { node, outcome: Err(error) }
}

/// Shows the bytes sent, until dropped.
async fn show(step: &Step, progress: &Progress) -> Infallible {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if progress.total() > 0 {
            step.detail(format!("{} of {}", human_bytes(progress.sent().min(progress.total())), human_bytes(progress.total())));
        }
    }
}

async fn nodes(providers: &Providers, request: &LoadRequest) -> Result<Vec<Node>> {
    let nodes = providers.of(&request.name).nodes(&request.name).await?;
    if nodes.is_empty() {
        return Err(CommandError::new(format!("no node of environment {:?} can be reached from here", request.name.as_str())))
            .hint("push the image to a registry that the cluster pulls from, or see `kubectl devenv status`");
    }
    Ok(nodes)
}

/// What the user means. A folder or file that is there comes before an image of
/// Docker; `--from` says otherwise.
fn origin(image: &str, source: ImageSource) -> Result<Origin<'_>> {
    let path = Path::new(image);
    let is_layout = path.join("index.json").is_file() || path.join("oci-layout").is_file();
    // No image is named like this.
    let is_path = image.starts_with(['/', '.']) || image.ends_with(".tar");
    let missing = |what: &str| CommandError::usage(format!("{image} is not {what}"));
    match source {
        ImageSource::Docker => Ok(Origin::Docker(image)),
        ImageSource::Archive if path.is_file() => Ok(Origin::File(path)),
        ImageSource::Archive => Err(missing("a file")),
        ImageSource::Layout if is_layout => Ok(Origin::File(path)),
        ImageSource::Layout => Err(missing("a folder in OCI layout")),
        ImageSource::Auto if path.is_file() || is_layout => Ok(Origin::File(path)),
        ImageSource::Auto if path.is_dir() && is_path => {
            Err(missing("an image: the folder has no index.json")).hint("name an archive, a folder in OCI layout, or an image of Docker")
        }
        ImageSource::Auto if is_path => Err(CommandError::usage(format!("{image} does not exist"))),
        ImageSource::Auto => Ok(Origin::Docker(image)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_images_unless_said_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (tar, layout, empty) = (text("image.tar"), text("layout"), text("empty"));
        std::fs::write(&tar, "").unwrap();
        std::fs::create_dir_all(&empty).unwrap();
        std::fs::create_dir_all(&layout).unwrap();
        std::fs::write(folder.path().join("layout/index.json"), "{}").unwrap();
        let is_file = |image: &str, source| matches!(origin(image, source), Ok(Origin::File(_)));
        assert!(is_file(&tar, ImageSource::Auto) && is_file(&layout, ImageSource::Auto));
        assert!(is_file(&tar, ImageSource::Archive) && is_file(&layout, ImageSource::Layout));
        assert!(matches!(origin("shop:dev", ImageSource::Auto), Ok(Origin::Docker("shop:dev"))));
        assert!(matches!(origin(&tar, ImageSource::Docker), Ok(Origin::Docker(_))));
        for (image, source) in [
            (text("missing.tar"), ImageSource::Auto),
            (empty.clone(), ImageSource::Auto),
            (empty, ImageSource::Layout),
            (layout, ImageSource::Archive),
            ("./missing".into(), ImageSource::Auto),
        ] {
            assert_eq!(origin(&image, source).unwrap_err().status().code(), 2, "{image}");
        }
    }
}
