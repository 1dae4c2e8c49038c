//! One image, or several, to all nodes at once.

use super::containerd::{Containerd, Observed};
use super::package::{Identity, Package};
use super::progress::Progress;
use super::supply::Supply;
use super::{DeliverError, Delivery, NodeDelivery};
use crate::image::ImageSet;
use futures::future::{join_all, try_join_all};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a node lacks of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is there and can run.
    Nothing,
    /// Only the names.
    Names,
    /// These layers, and the documents.
    Layers(Vec<bool>),
}

/// What a node said, and what follows from it for each image.
pub(super) struct Assessment {
    observed: Observed,
    images: Vec<(Identity, Need)>,
}

/// A package for each architecture and image that some node lacks.
type Packages = HashMap<(String, usize), Arc<Package>>;

/// Delivers to all; one that fails doesn't keep the others from it.
pub(super) async fn deliver(nodes: &[Containerd<'_>], supply: &Supply, progress: &Progress) -> Result<Vec<NodeDelivery>, DeliverError> {
    let started = Instant::now();
    let assessed = join_all(nodes.iter().map(|containerd| assess(containerd, supply))).await;
    let packages = fetch(supply, assessed.iter().flatten()).await?;
    for assessment in assessed.iter().flatten() {
        progress.expect(assessment.bytes(&packages));
    }
    let deliveries = nodes.iter().zip(assessed).map(|(containerd, assessment)| {
        let packages = &packages;
        async move {
            let outcome = async {
                let delivery = complete(containerd, supply, assessment?, packages, progress).await?;
                Ok(Delivery { duration: started.elapsed(), ..delivery })
            };
            NodeDelivery { node: containerd.node().name().to_owned(), outcome: outcome.await }
        }
    });
    Ok(join_all(deliveries).await)
}

/// Asks a node, and decides.
pub(super) async fn assess(containerd: &Containerd<'_>, supply: &Supply) -> Result<Assessment, DeliverError> {
    // A node on this machine has its processor, so that its answer is known
    // before; it is asked again if not.
    let guess = supply.identities(Some(crate::image::local_architecture()));
    let wanted = match guess {
        Ok(wanted) => wanted,
        Err(_) => supply.identities(None)?,
    };
    let observed = containerd.observe(&wanted).await?;
    let identities = supply.identities(Some(&observed.architecture))?;
    let observed = if identities == wanted { observed } else { containerd.observe(&identities).await? };
    let images = identities.into_iter().map(|identity| (need(&observed, &identity), identity)).map(|(need, identity)| (identity, need));
    Ok(Assessment { images: images.collect(), observed })
}

/// Pure.
pub(super) fn need(observed: &Observed, identity: &Identity) -> Need {
    let by_id = observed.images.get(&identity.id);
    let same = |digest: &String| Some(digest) == identity.manifest.as_ref() || Some(digest) == by_id;
    if identity.names.iter().all(|name| observed.images.get(name).is_some_and(same)) {
        return Need::Nothing;
    }
    if by_id.is_some() {
        return Need::Names;
    }
    Need::Layers(identity.chain_ids.iter().map(|id| !observed.snapshots.contains(id)).collect())
}

impl Assessment {
    /// The bytes that the node lacks of an image made here; `None` when it has it.
    pub(super) fn missing(&self, set: &ImageSet) -> Option<u64> {
        let image = set.for_architecture(&self.observed.architecture)?;
        let lacks = self.images.iter().filter_map(|(_, need)| match need {
            Need::Nothing => None,
            Need::Names => Some(0),
            Need::Layers(include) => Some(Package::of_image(image).size_of(include)),
        });
        lacks.reduce(|sum, bytes| sum + bytes)
    }

    fn bytes(&self, packages: &Packages) -> u64 {
        let of = |(index, (_, need)): (usize, &(Identity, Need))| match need {
            Need::Layers(include) => {
                packages.get(&(self.observed.architecture.clone(), index)).map_or(0, |package| package.size_of(include))
            }
            _ => 0,
        };
        self.images.iter().enumerate().map(of).sum()
    }
}

/// Gets each layer that some node lacks, once.
async fn fetch(supply: &Supply, assessed: impl Iterator<Item = &Assessment>) -> Result<Packages, DeliverError> {
    let mut wanted: HashMap<(String, usize), Vec<bool>> = HashMap::new();
    for assessment in assessed {
        for (index, (_, need)) in assessment.images.iter().enumerate() {
            let Need::Layers(include) = need else { continue };
            let union = wanted.entry((assessment.observed.architecture.clone(), index)).or_insert_with(|| vec![false; include.len()]);
            union.iter_mut().zip(include).for_each(|(union, include)| *union |= *include);
        }
    }
    let fetched = wanted.into_iter().map(|((architecture, index), include)| async move {
        let package = supply.fetch(&architecture, index, &include).await?;
        Ok::<_, DeliverError>(((architecture, index), Arc::new(package)))
    });
    Ok(try_join_all(fetched).await?.into_iter().collect())
}

async fn complete(
    containerd: &Containerd<'_>,
    supply: &Supply,
    assessment: Assessment,
    packages: &Packages,
    progress: &Progress,
) -> Result<Delivery, DeliverError> {
    let mut delivery = Delivery { sent_bytes: 0, sent_layers: 0, total_layers: 0, already_present: true, duration: Duration::ZERO };
    let Assessment { observed, images } = assessment;
    for (index, (identity, need)) in images.into_iter().enumerate() {
        delivery.total_layers += identity.chain_ids.len();
        match need {
            Need::Nothing => continue,
            Need::Names => containerd.tag(&identity.id, &identity.names).await?,
            Need::Layers(mut include) => {
                let key = (observed.architecture.clone(), index);
                let Some(package) = packages.get(&key) else { continue };
                let mut sent = send(containerd, &observed, package, &include, progress).await;
                // A full disk is not the partial archive's fault; what is may
                // be gone that containerd had a moment ago.
                if matches!(sent, Err(DeliverError::Containerd { .. })) && include.contains(&false) {
                    tracing::info!(error = ?sent.as_ref().err(), names = ?identity.names, "partial archive refused, sending the whole");
                    include.fill(true);
                    let whole = supply.fetch(&key.0, index, &include).await?;
                    progress.expect(whole.size_of(&include));
                    sent = send(containerd, &observed, &whole, &include, progress).await;
                }
                delivery.sent_bytes += sent?;
                delivery.sent_layers += include.iter().filter(|include| **include).count();
            }
        }
        delivery.already_present = false;
    }
    Ok(delivery)
}

/// Sends an archive with these layers; it is ready to run then.
pub(super) async fn send(
    containerd: &Containerd<'_>,
    observed: &Observed,
    package: &Package,
    include: &[bool],
    progress: &Progress,
) -> Result<u64, DeliverError> {
    containerd.import(observed, package, include, progress).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(layers: usize) -> Identity {
        Identity {
            names: vec!["a:1".into(), "a:2".into()],
            id: "sha256:c".into(),
            manifest: Some("sha256:m".into()),
            chain_ids: (0..layers).map(|layer| format!("sha256:{layer}")).collect(),
        }
    }

    fn observed(images: &[(&str, &str)], snapshots: &[&str]) -> Observed {
        let images: HashMap<String, String> = images.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect();
        Observed { images, snapshots: snapshots.iter().map(|id| (*id).to_owned()).collect(), ..Observed::default() }
    }

    #[test]
    fn an_image_is_there_by_its_manifest_or_by_its_id_with_all_names() {
        let of = |images: &[(&str, &str)]| need(&observed(images, &["sha256:0"]), &identity(2));
        assert_eq!(of(&[("a:1", "sha256:m"), ("a:2", "sha256:m")]), Need::Nothing);
        assert_eq!(of(&[("a:1", "sha256:x"), ("a:2", "sha256:x"), ("sha256:c", "sha256:x")]), Need::Nothing);
        assert_eq!(of(&[("a:1", "sha256:x"), ("sha256:c", "sha256:x")]), Need::Names);
        assert_eq!(of(&[("a:1", "sha256:m"), ("a:2", "sha256:old")]), Need::Layers(vec![false, true]));
        assert_eq!(of(&[]), Need::Layers(vec![false, true]));
    }

    proptest! {
        #[test]
        fn what_is_sent_and_what_is_there_make_up_the_image(present in proptest::collection::vec(any::<bool>(), 0..20)) {
            let names: Vec<String> = (0..present.len()).filter(|layer| present[*layer]).map(|layer| format!("sha256:{layer}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let Need::Layers(include) = need(&observed(&[], &names), &identity(present.len())) else { panic!() };
            prop_assert!(include.iter().zip(&present).all(|(include, present)| include != present));
        }
    }
}
