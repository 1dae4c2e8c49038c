//! Which image the nodes of a new cluster are made from.

use super::config::Config;
use super::program;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions};
use devloop_core::Context;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::error::{ErrorContext, ErrorHint, Result};
use futures::StreamExt;
use std::collections::BTreeSet;

/// Images that `scripts/kind-node-image` makes.
const OWN: &str = "devloop.local/kind-node:";
/// Images that kind publishes.
const PUBLISHED: [&str; 4] = ["kindest/node:", "kindest/node@", "docker.io/kindest/node:", "docker.io/kindest/node@"];

/// An image that the engine has, under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    created: i64,
}

/// What nodes without an image of their own get.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// This one, which the engine has.
    Present(String),
    /// This one, from its registry.
    Pull(String),
    /// Whatever kind takes.
    KindsOwn,
}

/// Gives each node of the configuration an image, and makes sure that the engine
/// has it.
///
/// # Errors
/// When an image is not there and can't be pulled.
pub(super) async fn settle(context: &Context, engine: &Engine, config: &mut Config, kind_version: &str) -> Result<()> {
    let known = known(engine).await?;
    if config.images().iter().any(Option::is_none) {
        match choose(program::default_image(kind_version), &known) {
            Choice::Present(image) => config.set_default_image(&image),
            Choice::Pull(image) => {
                pull(context, engine, &image).await.hint(
                    "make a node image from packages with `scripts/kind-node-image`, or name one that the engine has with --node-image",
                )?;
                config.set_default_image(&image);
            }
            Choice::KindsOwn => {}
        }
    }
    for image in config.images().into_iter().flatten().collect::<BTreeSet<_>>() {
        if !has(&known, &image) && engine.client().inspect_image(&image).await.is_err() {
            pull(context, engine, &image).await.hint("name an image that the engine has with --node-image (`docker image ls`)")?;
        }
    }
    Ok(())
}

/// kind's own image when it is there, since others use it, too; else the newest
/// that was made here; else kind's own from its registry.
fn choose(default: Option<&str>, known: &[Known]) -> Choice {
    let own = known.iter().filter(|image| image.name.starts_with(OWN)).max_by_key(|image| (image.created, &image.name));
    match (default, own) {
        (Some(default), _) if has(known, default) => Choice::Present(default.to_owned()),
        // Another release of kind: which image it takes, only it knows.
        (None, _) if known.iter().any(|image| PUBLISHED.iter().any(|prefix| image.name.starts_with(prefix))) => Choice::KindsOwn,
        (_, Some(own)) => Choice::Present(own.name.clone()),
        (Some(default), None) => Choice::Pull(default.to_owned()),
        (None, None) => Choice::KindsOwn,
    }
}

/// Whether an image is there: by its digest when the name has one, else by tag.
fn has(known: &[Known], image: &str) -> bool {
    let wanted = match image.split_once('@') {
        Some((name, digest)) => format!("{}@{digest}", without_tag(name)),
        None => image.to_owned(),
    };
    known.iter().any(|known| known.name == wanted || known.name.strip_prefix("docker.io/") == Some(&wanted))
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

async fn known(engine: &Engine) -> Result<Vec<Known>> {
    let images = engine.client().list_images(None::<ListImagesOptions>).await.map_err(DockerError::request("list the engine's images"))?;
    let names = images.into_iter().flat_map(|image| {
        let created = image.created;
        image.repo_tags.into_iter().chain(image.repo_digests).map(move |name| Known { name, created })
    });
    Ok(names.collect())
}

async fn pull(context: &Context, engine: &Engine, image: &str) -> Result<()> {
    let step = context.ui.step(format!("Pulling {image}"));
    let options = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
    let mut progress = engine.client().create_image(Some(options), None, None);
    let work = async {
        while let Some(news) = progress.next().await {
            let news = news.map_err(DockerError::request(format!("pull {image}")))?;
            step.detail(format!("{} {}", news.status.unwrap_or_default(), news.id.unwrap_or_default()));
        }
        Ok(())
    };
    context
        .shutdown
        .guard(work)
        .await
        .with_context(|| format!("node image {image} is neither in the Docker engine nor can it be pulled"))?;
    step.done(format!("Pulled {image}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(names: &[&str]) -> Vec<Known> {
        names.iter().enumerate().map(|(index, name)| Known { name: (*name).to_owned(), created: index as i64 }).collect()
    }

    #[test]
    fn kinds_own_image_comes_first_then_the_newest_made_here() {
        let own = "kindest/node:v1.37.0@sha256:aa";
        let default = Some(own);
        let present = |name: &str| Choice::Present(name.to_owned());
        let here = images(&["devloop.local/kind-node:v1.34.4-b", "devloop.local/kind-node:v1.34.4-a"]);
        assert_eq!(choose(default, &here), present("devloop.local/kind-node:v1.34.4-a"));
        let both = images(&["devloop.local/kind-node:v1.34.4-b", "kindest/node@sha256:aa"]);
        assert_eq!(choose(default, &both), present("kindest/node:v1.37.0@sha256:aa"));
        assert_eq!(choose(default, &images(&["kindest/node@sha256:bb"])), Choice::Pull(own.into()));
        assert_eq!(choose(None, &both), Choice::KindsOwn);
        assert_eq!(choose(None, &here), present("devloop.local/kind-node:v1.34.4-a"));
        assert_eq!(choose(None, &[]), Choice::KindsOwn);
    }

    #[test]
    fn an_image_is_known_by_digest_or_tag() {
        let known = images(&["kindest/node@sha256:aa", "localhost:5000/node:v1", "docker.io/kindest/node:v2"]);
        assert!(has(&known, "kindest/node:v1.37.0@sha256:aa") && has(&known, "localhost:5000/node:v1"));
        assert!(has(&known, "kindest/node:v2"));
        assert!(!has(&known, "kindest/node:v1.37.0@sha256:bb") && !has(&known, "kindest/node:v1.37.0"));
        assert_eq!(without_tag("localhost:5000/node"), "localhost:5000/node");
    }
}
