//! A profile of the processor time: files for pprof and for a browser, and the functions
//! that take most of it.

use super::stacks::{Taken, take};
use super::symbolize::{Names, names};
use super::{Subject, flame, pprof};
use crate::journal;
use crate::report::milliseconds;
use devloop_core::agent::tools::{Stack, Way};
use devloop_core::output::{self, Format};
use devloop_core::ui::human_duration;
use devloop_core::{ErrorContext, Result};
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FAILED: &str = "could not make a profile";
/// Samples in a second; not in step with what happens a hundred times a second.
const FREQUENCY: &str = "99";
/// So many functions are shown.
const SHOWN: usize = 20;

pub(super) async fn run(subject: &Subject<'_>, duration: Duration, out: Option<&Path>) -> Result<()> {
    let base = out.map_or_else(|| PathBuf::from(subject.file_name("profile")), without_extension);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let taken = sample(subject, duration).await?;
    let names = names(subject, &taken.files, taken.addresses().into_iter()).await?;
    let period = Duration::from_nanos(match taken.way {
        Way::PerfEvents { period, .. } | Way::Stopping { period, .. } => period,
        Way::Frozen => 0,
    });
    let measured = pprof::Measured {
        stacks: &taken.stacks,
        files: &taken.files,
        names: &names,
        period,
        duration: taken.duration,
        started: i64::try_from(started.as_nanos()).unwrap_or(i64::MAX),
    };
    let title = format!("{}: processor time, {}", subject.describe(), human_duration(taken.duration));
    let (profile, graph) = (with_extension(&base, "pb.gz"), with_extension(&base, "svg"));
    let write = |path: &Path, content: &[u8]| {
        devloop_core::files::write_atomic(path, content, 0o644).with_context(|| format!("could not write {}", path.display()))
    };
    write(&profile, &pprof::encode(&measured).context("could not encode the profile")?)?;
    write(&graph, flame::svg(&title, &taken.stacks, &names).as_bytes())?;
    report(subject, &taken, &names, period, [profile.as_path(), graph.as_path()])
}

async fn sample(subject: &Subject<'_>, duration: Duration) -> Result<Taken> {
    let [pid, start] = subject.words();
    let milliseconds = duration.as_millis().to_string();
    let step = subject.context.ui.step(format!("profiling {} for {}", subject.describe(), human_duration(duration)));
    let began = |way: &Way| match way {
        Way::Stopping { reason, .. } => {
            step.say(format!("{reason}; threads that run are stopped for moments instead, which is less exact"));
        }
        Way::PerfEvents { with_kernel: false, .. } => step.say("time in the kernel is not counted: that is not allowed there"),
        _ => {}
    };
    let taken = take(subject, FAILED, &["profile", &pid, &start, &milliseconds, FREQUENCY], duration, began).await?;
    step.clear();
    Ok(taken)
}

/// A function, with the samples in it, and in it and what it called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Share {
    function: String,
    own: u64,
    all: u64,
}

/// Those with most samples of their own first.
fn shares(stacks: &[Stack], names: &Names) -> Vec<Share> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for stack in stacks {
        let count = u64::from(stack.count);
        let functions = stack.addresses.iter().flat_map(|address| names.at(*address)).map(|frame| frame.function);
        // One that calls itself is counted once.
        let mut seen = BTreeSet::new();
        for (depth, function) in functions.enumerate() {
            let (own, all) = counts.entry(function.clone()).or_default();
            *own += if depth == 0 { count } else { 0 };
            *all += if seen.insert(function) { count } else { 0 };
        }
    }
    let mut shares: Vec<Share> = counts.into_iter().map(|(function, (own, all))| Share { function, own, all }).collect();
    shares.sort_by(|one, other| (other.own, other.all).cmp(&(one.own, one.all)).then_with(|| one.function.cmp(&other.function)));
    shares
}

fn table(shares: &[Share], samples: u64) -> String {
    let percent = |count: u64| format!("{}.{} %", count * 100 / samples.max(1), count * 1000 / samples.max(1) % 10);
    let row = |share: &Share| vec![percent(share.own), percent(share.all), share.function.clone()];
    output::table(&["OWN", "WITH CALLS", "FUNCTION"], &shares.iter().take(SHOWN).map(row).collect::<Vec<_>>())
}

fn report(subject: &Subject<'_>, taken: &Taken, names: &Names, period: Duration, [profile, graph]: [&Path; 2]) -> Result<()> {
    let samples: u64 = taken.stacks.iter().map(|stack| u64::from(stack.count)).sum();
    let cut: u64 = taken.stacks.iter().filter(|stack| !stack.is_whole).map(|stack| u64::from(stack.count)).sum();
    let used = period * u32::try_from(samples).unwrap_or(u32::MAX);
    let shares = shares(&taken.stacks, names);
    let chosen = &subject.found.chosen;
    let event = json!({
        "event": "profile",
        "pod": chosen.pod,
        "container": chosen.container,
        "pid": subject.candidate.container_pid,
        "via": subject.place.way.name(),
        "by": if matches!(taken.way, Way::Stopping { .. }) { "stopping" } else { "perf-events" },
        "profile": profile,
        "flameGraph": graph,
        "samples": samples,
        "samplesCut": cut,
        "samplesLost": taken.lost,
        "processorMs": milliseconds(used),
        "durationMs": milliseconds(taken.duration),
        "stoppedMs": milliseconds(taken.stopped),
        "functions": shares.iter().take(SHOWN).collect::<Vec<_>>(),
    });
    if subject.request.output == Format::Json {
        output::line(&event.to_string())?;
    } else {
        output::line(&table(&shares, samples))?;
        let stopped =
            if taken.stopped.is_zero() { String::new() } else { format!("; it stood still for {}", human_duration(taken.stopped)) };
        subject.context.ui.say(format!(
            "{} used {} of a processor in {}: {samples} samples, {cut} of them cut off, {} lost{stopped}\n{}: `go tool pprof -http=: {}`\n{}: a flame graph, for any browser",
            subject.describe(),
            human_duration(used),
            human_duration(taken.duration),
            taken.lost,
            profile.display(),
            profile.display(),
            graph.display(),
        ));
    }
    let event = json!({"files": [profile, graph], "pod": chosen.pod, "container": chosen.container, "via": subject.place.way.name()});
    journal::note(
        json!({"did": "profile", "context": subject.found.cluster.context, "namespace": subject.found.cluster.namespace, "what": event}),
    )
}

/// `web.svg` and `web.pb.gz` are meant as `web`.
fn without_extension(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
    let base = [".pb.gz", ".svg", ".pb"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    path.with_file_name(base)
}

fn with_extension(base: &Path, extension: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::flame::tests::{names, stacks};

    #[test]
    fn functions_are_ranked() {
        let shares = shares(&stacks(), &names());
        insta::assert_snapshot!(table(&shares, 10), @r"
        OWN      WITH CALLS   FUNCTION
        70.0 %   70.0 %       read
        30.0 %   30.0 %       parse
        0.0 %    100.0 %      main
        0.0 %    30.0 %       handle
        ");
    }

    #[test]
    fn both_files_are_named_after_one() {
        for name in ["/a/web", "/a/web.svg", "/a/web.pb.gz"] {
            let base = without_extension(Path::new(name));
            assert_eq!(
                (with_extension(&base, "svg"), with_extension(&base, "pb.gz")),
                ("/a/web.svg".into(), "/a/web.pb.gz".into()),
                "{name}"
            );
        }
        assert_eq!(with_extension(&without_extension(Path::new("v1.2")), "svg"), Path::new("v1.2.svg"));
    }
}
