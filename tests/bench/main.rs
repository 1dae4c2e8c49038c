//! Benchmarks: each figure next to a public tool's, measured in turn in the
//! same run. `scripts/bench` builds what they need and starts this.

#![allow(clippy::unwrap_used, reason = "a measurement that can't be made must not look like one")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the result is the output")]

mod figures;
mod kind_up;
mod load;
mod measure;
mod session;
mod up;

use clap::Parser;
use figures::Figures;

/// Measure devloop next to a public tool.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
struct Args {
    /// What to measure; see --list
    name: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Runs
    #[arg(short, default_value_t = 0, value_name = "RUNS", hide_default_value = true)]
    n: usize,
    /// List what can be measured
    #[arg(long)]
    list: bool,
}

/// A benchmark's name, what it measures, how often by default, and how.
type Benchmark = (&'static str, &'static str, usize, fn(usize) -> Figures);

const BENCHMARKS: [Benchmark; 7] = [
    ("up", "`kubectl devenv up`, nothing but the programs cached -> node Ready, DNS answering", 10, up::fresh),
    ("up-kept", "`kubectl devenv up` of a stopped environment with its state", 10, up::kept),
    ("kind-up", "`kubectl devenv up --provider kind` with its registry, next to `kind create cluster`", 3, kind_up::fresh),
    ("load", "a changed 20 MB layer of a 200 MB image onto a kind node, next to `kind load docker-image`", 10, load::one_node),
    ("load-three", "the same onto three nodes", 10, load::three_nodes),
    ("save-static", "file saved -> served by the pod, next to `kubectl cp` of the same file", 30, session::save_static),
    ("swap", "new binary on disk -> serving, next to `kubectl rollout restart`", 10, session::swap),
];

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    if args.list {
        for (name, what, ..) in BENCHMARKS {
            println!("{name:<14}{what}");
        }
        return std::process::ExitCode::SUCCESS;
    }
    let wanted = args.name.unwrap_or_default();
    let Some((name, _, runs, measure)) = BENCHMARKS.iter().find(|(name, ..)| *name == wanted) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(name, ..)| *name).collect();
        eprintln!("Error: no benchmark {wanted:?}\nHint: choose one of {}", known.join(", "));
        return std::process::ExitCode::from(2);
    };
    let figures = measure(if args.n > 0 { args.n } else { *runs });
    println!("{}", if args.json { figures.json(name).to_string() } else { figures.text(name) });
    std::process::ExitCode::SUCCESS
}
