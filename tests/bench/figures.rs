//! Percentiles, and the form in which figures are printed.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one benchmark measured, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) samples: Vec<f64>,
    pub(crate) phases: BTreeMap<String, Vec<f64>>,
    /// The public tool and its samples; `None` where there is none to compare.
    pub(crate) peer: Option<(&'static str, Vec<f64>)>,
    /// Figures that are no durations, such as the cost at rest.
    pub(crate) more: BTreeMap<&'static str, f64>,
}

/// The smallest sample that at least `percent` % of all are not above (the
/// nearest-rank method).
pub(crate) fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Figures {
    pub(crate) fn phase(&mut self, name: &str, value: f64) {
        self.phases.entry(name.to_owned()).or_default().push(value);
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        let pair = |samples: &[f64]| json!({ "p50": round(percentile(samples, 50.0)), "p99": round(percentile(samples, 99.0)) });
        let p50 = percentile(&self.samples, 50.0);
        let phases: BTreeMap<&str, Value> = self.phases.iter().map(|(name, samples)| (name.as_str(), pair(samples))).collect();
        let peer = self.peer.as_ref().map(|(name, samples)| {
            let mut value = pair(samples);
            value["name"] = json!(name);
            value
        });
        let ratio = self.peer.as_ref().map(|(_, samples)| (p50 / percentile(samples, 50.0) * 10_000.0).round() / 10_000.0);
        let mut object = json!({ "name": name, "unit": "ms", "n": self.samples.len(), "phases": phases, "peer": peer, "ratio": ratio });
        object["p50"] = json!(round(p50));
        object["p99"] = json!(round(percentile(&self.samples, 99.0)));
        for (name, value) in &self.more {
            object[*name] = json!(round(*value));
        }
        object
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let mut lines = vec![line(name, &self.samples)];
        lines.extend(self.phases.iter().map(|(name, samples)| line(&format!("  {name}"), samples)));
        if let Some((peer, samples)) = &self.peer {
            lines.push(line(peer, samples));
            lines.push(format!("ratio of p50: {:.3}", percentile(&self.samples, 50.0) / percentile(samples, 50.0)));
        }
        lines.extend(self.more.iter().map(|(name, value)| format!("{name}: {value:.1}")));
        lines.join("\n")
    }
}

fn line(name: &str, samples: &[f64]) -> String {
    format!("{name:<28} p50 {:>9.1} ms   p99 {:>9.1} ms   n {}", percentile(samples, 50.0), percentile(samples, 99.0), samples.len())
}
