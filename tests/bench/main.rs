//! Benchmarks: each figure next to a public tool's, measured in turn in the
//! same run. `scripts/bench` builds what they need and starts this.

#![allow(clippy::unwrap_used, reason = "a measurement that can't be made must not look like one")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the result is the output")]

mod arrivals;
mod attach;
mod detach;
mod figures;
mod files;
mod kind_up;
mod load;
mod logs;
mod measure;
mod push;
mod rebuild;
mod route;
mod session;
mod stdin;
mod up;

use clap::Parser;
use figures::Figures;
use measure::On;

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
    /// The cluster of the benchmarks of hot-reload and debug-attach
    #[arg(long, value_enum, default_value_t, value_name = "CLUSTER")]
    on: On,
    /// List what can be measured
    #[arg(long)]
    list: bool,
}

/// How a benchmark is run: so often, and where that can be chosen, on what.
#[derive(Clone, Copy)]
enum Measure {
    There(fn(usize) -> Figures),
    Anywhere(fn(usize, On) -> Figures),
}

/// A benchmark's name, what it measures, how often by default, and how.
type Benchmark = (&'static str, &'static str, usize, Measure);

const BENCHMARKS: [Benchmark; 25] = [
    ("up", "`kubectl devenv up`, nothing but the programs cached -> node Ready, DNS answering", 10, Measure::There(up::fresh)),
    ("up-kept", "`kubectl devenv up` of a stopped environment with its state", 10, Measure::There(up::kept)),
    ("kind-up", "`kubectl devenv up --provider kind` with its registry, next to `kind create cluster`", 3, Measure::There(kind_up::fresh)),
    (
        "load",
        "a changed 20 MB layer of a 200 MB image onto a kind node, next to `kind load docker-image`",
        10,
        Measure::There(load::one_node),
    ),
    ("load-three", "the same onto three nodes", 10, Measure::There(load::three_nodes)),
    ("push", "a changed 20 MB layer of a 200 MB image to a registry here, next to `docker push`", 10, Measure::There(push::changed)),
    (
        "rebuild",
        "20 MB changed in an image of 220 MB -> a new pod serves it on kind, next to `docker build`, `kind load` and `kubectl set image`",
        10,
        Measure::There(rebuild::changed),
    ),
    ("rebuild-noop", "`kubectl rebuild` of 20 services when nothing has changed", 10, Measure::Anywhere(rebuild::unchanged)),
    ("rebuild-large", "the memory of `kubectl rebuild` of an image of 2 GiB, imported and pushed", 1, Measure::Anywhere(rebuild::large)),
    ("save-static", "file saved -> served by the pod, next to `kubectl cp` of the same file", 30, Measure::Anywhere(session::save_static)),
    ("save-static-10", "the same, until the last of ten pods serves it", 30, Measure::Anywhere(session::save_static_ten)),
    ("save-static-api", "the same in one pod, through nothing but the API", 30, Measure::Anywhere(session::save_static_api)),
    ("save-many", "1,000 files of 4 KB -> byte-identical in the pod, next to `kubectl cp`", 10, Measure::Anywhere(files::save_many)),
    (
        "save-large",
        "1 KB changed in a file of 20 MB -> byte-identical in the pod, next to `kubectl cp`",
        20,
        Measure::Anywhere(files::save_large),
    ),
    ("swap", "new binary of 20 MB on disk -> serving, next to `kubectl rollout restart`", 10, Measure::Anywhere(session::swap)),
    (
        "tree-250k",
        "a session in a tree of 250,000 files: start, memory, idle CPU, a save next to one in a small tree",
        30,
        Measure::Anywhere(files::large_tree),
    ),
    ("logs-history", "the logs of 5 pods with 60,000 lines each, next to `kubectl logs`", 3, Measure::Anywhere(logs::history)),
    (
        "logs-follow",
        "20,000 lines/s over 10 pods: written by the runtime -> read from us, ordered and not",
        1,
        Measure::Anywhere(logs::follow),
    ),
    ("logs-follow-long", "the same in order for ten minutes: the memory", 1, Measure::Anywhere(logs::follow_long)),
    ("logs-many", "500 containers in 50 pods -> the first line of each, next to `kubectl logs`", 3, Measure::Anywhere(logs::many)),
    (
        "attach",
        "`kubectl debug-attach` -> its port accepts, from the node, next to `kubectl debug` with the same image",
        10,
        Measure::Anywhere(attach::node),
    ),
    ("attach-api", "the same in an ephemeral container", 10, Measure::Anywhere(attach::api)),
    ("detach", "1,000 requests to the Go example after a debugger was there, next to before it came", 10, Measure::Anywhere(detach::go)),
    ("detach-python", "the same with Python", 10, Measure::Anywhere(detach::python)),
    ("logs-stdin", "1 GB of JSON lines through `kubectl logs-tail --stdin`, next to grep and jq", 3, Measure::There(stdin::stdin)),
];

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    if args.list {
        for (name, what, ..) in BENCHMARKS {
            println!("{name:<16}{what}");
        }
        return std::process::ExitCode::SUCCESS;
    }
    let wanted = args.name.unwrap_or_default();
    let Some((name, _, runs, measure)) = BENCHMARKS.iter().find(|(name, ..)| *name == wanted) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(name, ..)| *name).collect();
        eprintln!("Error: no benchmark {wanted:?}\nHint: choose one of {}", known.join(", "));
        return std::process::ExitCode::from(2);
    };
    let runs = if args.n > 0 { args.n } else { *runs };
    let figures = match (measure, args.on) {
        (Measure::There(measure), On::Embedded) => measure(runs),
        (Measure::Anywhere(measure), on) => measure(runs, on),
        (Measure::There(_), On::Kind) => {
            eprintln!("Error: {name} has a cluster of its own\nHint: leave out --on");
            return std::process::ExitCode::from(2);
        }
    };
    println!("{}", if args.json { figures.json(name).to_string() } else { figures.text(name) });
    std::process::ExitCode::SUCCESS
}
