//! `kubectl logs-tail --stdin` over a large file, next to grep and jq.

use crate::figures::{Figures, percentile};
use crate::measure::ms;
use devloop_tests::programs;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How much is read.
const BYTES: u64 = 1_000_000_000;

/// jq gets less, so that a run has an end; its figure is per byte.
const BYTES_OF_JQ: u64 = 100_000_000;

/// Lines that are wanted, about one in a thousand.
const PATTERN: &str = "timeout after [0-9]+ms";
const CONDITION: &str = "status >= 500 && path ~ \"^/api\"";
const PROGRAM: &str = "select(.status >= 500 and (.path | test(\"^/api\"))) | .status";

/// A regular expression and an expression over a file of JSON lines.
pub(crate) fn stdin(runs: usize) -> Figures {
    let program = programs().join("kubectl-logs_tail");
    let folder = tempfile::tempdir().unwrap();
    let (large, small) = (folder.path().join("large.json"), folder.path().join("small.json"));
    write(&large, BYTES);
    write(&small, BYTES_OF_JQ);
    let ours = |file: &Path, arguments: &[&str]| run(Command::new(&program).args(["--stdin", "-o", "raw"]).args(arguments), file);
    let mut figures = Figures::default();
    let (mut greps, mut conditions, mut jqs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (took, lines) = ours(&large, &["-i", PATTERN]);
        let (grep, expected) = run(Command::new("grep").env("LC_ALL", "C").args(["-E", PATTERN]), &large);
        assert!(lines == expected && lines > 0, "{lines} lines, grep has {expected}");
        figures.samples.push(took);
        greps.push(grep);
        let (took, _) = ours(&large, &["--where", CONDITION]);
        figures.phase("--where", took);
        conditions.push(took);
        let (_, lines) = ours(&small, &["--where", CONDITION]);
        let (took, expected) = run(Command::new("jq").args(["-c", PROGRAM]), &small);
        assert!(lines == expected && lines > 0, "{lines} lines, jq has {expected}");
        jqs.push(took);
    }
    let speed = |bytes: u64, samples: &[f64]| bytes as f64 / 1e3 / percentile(samples, 50.0);
    figures.more.insert("MB/s regex", speed(BYTES, &figures.samples));
    figures.more.insert("MB/s --where", speed(BYTES, &conditions));
    figures.more.insert("MB/s jq", speed(BYTES_OF_JQ, &jqs));
    figures.peer = Some(("grep -E", greps));
    figures
}

/// How long a program took with this as its standard input, on one core, and how
/// many lines it wrote.
fn run(command: &mut Command, input: &Path) -> (f64, usize) {
    let started = Instant::now();
    let output = command.stdin(File::open(input).unwrap()).stderr(Stdio::inherit()).output().unwrap();
    let took = ms(started.elapsed());
    assert!(output.status.success(), "{}", output.status);
    (took, output.stdout.iter().filter(|byte| **byte == b'\n').count())
}

/// JSON lines as services write them, the same in every run.
fn write(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut written, mut number, mut line) = (0, 0_u64, String::new());
    while written < bytes {
        number += 1;
        // A cheap sequence that looks random is enough.
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let status = if random % 1000 == 0 { 503 } else { 200 };
        let path = if random % 3 == 0 { "/static/app.js" } else { "/api/orders" };
        let message = if random % 1000 == 1 { "timeout after 250ms" } else { "request served" };
        line.clear();
        let _ = writeln!(
            line,
            "{{\"time\":\"2026-01-02T03:04:05.{:06}Z\",\"level\":\"info\",\"msg\":\"{message}\",\"request_id\":\"{random:016x}\",\"method\":\"GET\",\"path\":\"{path}/{}\",\"status\":{status},\"duration\":\"{}ms\",\"user\":{{\"id\":{},\"agent\":\"Mozilla/5.0 (X11; Linux x86_64)\"}}}}",
            number % 1_000_000,
            random % 10_000,
            random % 300,
            random % 5000,
        );
        file.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
    }
    file.flush().unwrap();
}
