//! What each way to a cluster's nodes has cost so far, so that the cheapest can
//! be taken without asking anybody.
//!
//! It is a cache: when it is lost or wrong, a way is chosen that was not the best,
//! and whatever is sent is decided by those who get it.

use crate::files;
use crate::image::{ImageSet, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So many deliveries count, the youngest.
const SAMPLES: usize = 16;
/// So many layers and images are remembered for each way, the youngest.
const REMEMBERED: usize = 512;

/// What is expected of a way that was never taken: a fixed cost in milliseconds
/// and bytes per millisecond. Measured on two cores, as were the constants of
/// [`Expectation::IMPORT`] and the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    fixed_ms: f64,
    bytes_per_ms: f64,
    /// What comes later and can't be measured here: the nodes' pull.
    pull_fixed_ms: f64,
    pull_bytes_per_ms: f64,
}

impl Expectation {
    /// Into the nodes' containerd.
    pub const IMPORT: Self = Self { fixed_ms: 80.0, bytes_per_ms: 120_000.0, pull_fixed_ms: 0.0, pull_bytes_per_ms: f64::INFINITY };
    /// To a registry on this machine, and from there to the nodes.
    pub const LOCAL_REGISTRY: Self = Self { fixed_ms: 40.0, bytes_per_ms: 150_000.0, pull_fixed_ms: 200.0, pull_bytes_per_ms: 60_000.0 };
    /// To a registry elsewhere, over some 100 Mbit/s.
    pub const REMOTE_REGISTRY: Self = Self { fixed_ms: 400.0, bytes_per_ms: 12_000.0, pull_fixed_ms: 400.0, pull_bytes_per_ms: 60_000.0 };
}

/// All that is known of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rates {
    ways: BTreeMap<String, Way>,
    /// The way taken last.
    last: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Way {
    samples: Vec<Sample>,
    /// Digests of manifests and layers that went this way.
    digests: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    bytes: u64,
    ms: u64,
}

/// What a way would cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Bytes that are missing there, as far as is known.
    pub bytes: u64,
    /// Until a pod can start: zero where the images are already.
    pub time: Duration,
    /// Whether that comes from deliveries that were measured.
    pub measured: bool,
}

impl Rates {
    /// What is known of the cluster behind a kubeconfig context; nothing, where
    /// the file is absent or damaged.
    pub fn load(cache: &Path, context: &str) -> Self {
        std::fs::read(path(cache, context)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps it. A cache is not worth an error.
    pub fn store(&self, cache: &Path, context: &str) {
        let path = path(cache, context);
        let stored = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let text = serde_json::to_vec(self)?;
            files::write_atomic(&path, &text, 0o600)
        });
        if let Err(error) = stored {
            tracing::debug!(%error, path = %path.display(), "what a delivery cost is not remembered");
        }
    }

    /// What it would cost to bring images by a way to so many places at once.
    pub fn estimate(&self, way: &str, expected: Expectation, images: &[&ImageSet], places: u64) -> Estimate {
        let known = self.ways.get(way);
        let has = |digest: &String| known.is_some_and(|way| way.digests.contains(digest));
        let missing: Vec<&&ImageSet> = images.iter().filter(|set| !has(&set.digest)).collect();
        let measured = known.is_some_and(|way| !way.samples.is_empty());
        if missing.is_empty() {
            return Estimate { bytes: 0, time: Duration::ZERO, measured };
        }
        let layers = missing.iter().flat_map(|set| set.images()).flat_map(|image| &image.layers);
        let bytes: u64 = layers.filter(|layer| !has(&layer.digest)).map(|layer| layer.size).sum();
        let (fixed, per_byte) = fit(expected, known.map_or(&[], |way| &way.samples));
        let sent = bytes.saturating_mul(places) as f64;
        let ms = fixed + sent * per_byte + expected.pull_fixed_ms + bytes as f64 / expected.pull_bytes_per_ms;
        Estimate { bytes, time: Duration::from_secs_f64(ms / 1000.0), measured }
    }

    /// Whether this was the last way taken.
    pub fn is_last(&self, way: &str) -> bool {
        self.last.as_deref() == Some(way)
    }

    /// Learns from a delivery: an image is there now, by so many bytes to all
    /// places together.
    pub fn learn(&mut self, way: &str, set: &ImageSet, bytes: u64, took: Duration) {
        self.last = Some(way.to_owned());
        let way = self.ways.entry(way.to_owned()).or_default();
        if bytes > 0 {
            // What was thought to be there was gone: the cluster is a new one.
            if way.digests.contains(&set.digest) {
                way.digests.clear();
            }
            way.samples.push(Sample { bytes, ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) });
            way.samples.drain(..way.samples.len().saturating_sub(SAMPLES));
        }
        let layers = set.images().iter().flat_map(|image| &image.layers);
        for digest in layers.map(|layer| &layer.digest).chain([&set.digest]) {
            way.digests.retain(|known| known != digest);
            way.digests.push(digest.clone());
        }
        way.digests.drain(..way.digests.len().saturating_sub(REMEMBERED));
    }
}

/// Contexts have any name; their files don't.
fn path(cache: &Path, context: &str) -> PathBuf {
    let name = digest(context.as_bytes());
    cache.join("rates").join(format!("{}.json", name.trim_start_matches("sha256:").get(..16).unwrap_or_default()))
}

/// Fixed cost in milliseconds and milliseconds per byte: the line that fits the
/// samples best (least squares), where the expectation counts for two samples.
fn fit(expected: Expectation, samples: &[Sample]) -> (f64, f64) {
    const FAR: f64 = 64e6;
    let prior = [(0.0, expected.fixed_ms), (FAR, expected.fixed_ms + FAR / expected.bytes_per_ms)];
    let points: Vec<(f64, f64)> = prior.into_iter().chain(samples.iter().map(|sample| (sample.bytes as f64, sample.ms as f64))).collect();
    let count = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_bytes, mean_ms) = (mean(&|point| point.0), mean(&|point| point.1));
    let covariance = mean(&|point| (point.0 - mean_bytes) * (point.1 - mean_ms));
    let variance = mean(&|point| (point.0 - mean_bytes).powi(2));
    // More bytes never take less time, and nothing is done before it is begun.
    let slope = (covariance / variance).max(0.0);
    match mean_ms - slope * mean_bytes {
        fixed if fixed > 0.0 => (fixed, slope),
        _ => (0.0, mean_ms / mean_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, Layer};
    use proptest::prelude::*;

    fn image(layers: &[(&str, u64)]) -> ImageSet {
        let layer = |(digest, size): &(&str, u64)| Layer::uncompressed((*digest).to_owned(), *size, "x".into());
        let image = Image {
            reference: "devloop.local/x:1".into(),
            manifest_digest: layers.iter().map(|(digest, _)| *digest).collect(),
            architecture: "amd64".into(),
            layers: layers.iter().map(layer).collect(),
            config: vec![],
            manifest: vec![],
        };
        image.into()
    }

    #[test]
    fn what_is_there_costs_nothing_and_what_is_known_is_not_sent() {
        let mut rates = Rates::default();
        let (one, two) = (image(&[("base", 200_000_000), ("a", 20_000_000)]), image(&[("base", 200_000_000), ("b", 20_000_000)]));
        let of = |rates: &Rates, image| rates.estimate("nodes", Expectation::IMPORT, &[image], 1);
        let first = of(&rates, &one);
        assert_eq!((first.bytes, first.measured), (220_000_000, false));
        rates.learn("nodes", &one, 220_000_000, Duration::from_millis(2000));
        assert_eq!((of(&rates, &one).bytes, of(&rates, &one).time), (0, Duration::ZERO));
        let second = of(&rates, &two);
        assert_eq!((second.bytes, second.measured), (20_000_000, true));
        assert!(second.time < first.time / 4, "{second:?}");
        assert!(rates.is_last("nodes") && !rates.is_last("registry"));
        // A way that had to bring it again has lost all else, too.
        rates.learn("nodes", &one, 220_000_000, Duration::from_millis(2000));
        rates.learn("nodes", &two, 20_000_000, Duration::from_millis(200));
        rates.learn("nodes", &two, 220_000_000, Duration::from_millis(2000));
        assert_eq!(of(&rates, &one).bytes, 20_000_000);
        let mut rates = Rates::default();
        rates.learn("nodes", &one, 220_000_000, Duration::from_millis(2000));
        let three = rates.estimate("nodes", Expectation::IMPORT, &[&two], 3);
        assert!(three.bytes == second.bytes && three.time > second.time);
    }

    #[test]
    fn a_slow_way_is_found_out() {
        let mut rates = Rates::default();
        let built = image(&[("a", 20_000_000)]);
        let import = |rates: &Rates| rates.estimate("nodes", Expectation::IMPORT, &[&built], 1).time;
        let registry = |rates: &Rates| rates.estimate("registry", Expectation::LOCAL_REGISTRY, &[&built], 1).time;
        assert!(import(&rates) < registry(&rates));
        for number in 0..4 {
            rates.learn("nodes", &image(&[(&format!("n{number}"), 1)]), 20_000_000, Duration::from_secs(4));
        }
        assert!(import(&rates) > registry(&rates), "{:?}", import(&rates));
    }

    #[test]
    fn it_is_kept_bounded_and_a_damaged_file_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut rates = Rates::default();
        for number in 0..1000 {
            rates.learn("nodes", &image(&[(&format!("n{number}"), 1)]), 1, Duration::from_millis(1));
        }
        rates.store(folder.path(), "a/../b");
        assert_eq!(Rates::load(folder.path(), "a/../b"), rates);
        let path = path(folder.path(), "a/../b");
        assert!(path.metadata().unwrap().len() < 50_000);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Rates::load(folder.path(), "a/../b"), Rates::default());
    }

    proptest! {
        #[test]
        fn any_samples_give_a_line_that_rises(samples in proptest::collection::vec((0..u64::MAX, 0..u64::MAX), 0..20)) {
            let samples: Vec<Sample> = samples.into_iter().map(|(bytes, ms)| Sample { bytes, ms }).collect();
            let (fixed, per_byte) = fit(Expectation::LOCAL_REGISTRY, &samples);
            prop_assert!(fixed >= 0.0 && per_byte >= 0.0 && fixed.is_finite() && per_byte.is_finite());
        }
    }
}
