//! Where a process spends its processor time, by samples.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::arch::Point;
use super::core_file::micros;
use super::freeze::{Frozen, threads};
use super::output::Output;
use super::perf::Sampler;
use super::snapshot::{Seen, tell};
use super::target_memory::TargetMemory;
use super::unwind::{Walked, Walker, Words, word};
use super::{CodeFile, Stack, StackAnswer, Way, modules, registers};
use crate::failure::Failure;
use crate::process::{Proc, parse_stat};
use crate::protocol::ProcessId;

/// How often samples are fetched, and new threads are looked for.
const FETCH: Duration = Duration::from_millis(20);
/// Stopping threads costs them more than perf events do.
const MOST_STOPS: u64 = 50;
const SECOND: u64 = 1_000_000_000;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(super) process: ProcessId,
    pub(super) duration: Duration,
    /// Samples in a second of processor time.
    pub(super) frequency: u64,
}

pub(super) fn profile(proc: &Proc, order: Order, input: File, output: File) -> io::Result<()> {
    let mut output = Output::new(output)?;
    match Profile::start(proc, order, input) {
        Ok(profile) => profile.run(&mut output),
        Err(failure) => output.tell(&StackAnswer::Failed(failure.into())),
    }
}

/// One that is being made.
struct Profile<'a> {
    proc: &'a Proc,
    order: Order,
    input: File,
    files: Vec<CodeFile>,
    memory: TargetMemory,
    walker: Walker,
    counts: HashMap<(i32, Walked), u32>,
    seen: BTreeMap<i32, Seen>,
    started: Instant,
    stopped: Duration,
}

impl<'a> Profile<'a> {
    fn start(proc: &'a Proc, order: Order, input: File) -> Result<Self, Failure> {
        let modules = modules::of(proc, order.process)?;
        let files = modules.iter().map(|module| module.file.clone()).collect();
        Ok(Self {
            proc,
            order,
            input,
            files,
            memory: TargetMemory::open(proc, order.process.pid)?,
            walker: Walker::new(modules),
            counts: HashMap::new(),
            seen: BTreeMap::new(),
            started: Instant::now(),
            stopped: Duration::ZERO,
        })
    }

    fn run(mut self, output: &mut Output) -> io::Result<()> {
        let period = SECOND / self.order.frequency;
        let lost = match Sampler::open(self.proc, self.order.process.pid, period) {
            Ok(mut sampler) => {
                output.tell(&StackAnswer::Began { way: Way::PerfEvents { period, with_kernel: sampler.has_kernel() } })?;
                self.by_events(&mut sampler)?;
                sampler.lost
            }
            Err(error) => {
                let period = period.max(SECOND / MOST_STOPS);
                let reason = format!("the kernel allows no perf events: {error}");
                output.tell(&StackAnswer::Began { way: Way::Stopping { period, reason } })?;
                if let Err(failure) = self.by_stopping(Duration::from_nanos(period)) {
                    return output.tell(&StackAnswer::Failed(failure.into()));
                }
                0
            }
        };
        let duration = self.started.elapsed();
        let stacks = self.counts.into_iter().filter_map(|((thread, walked), count)| {
            let seen = self.seen.get(&thread)?.clone();
            Some(Stack { count, ..seen.stack(walked) })
        });
        tell(output, stacks.collect(), &self.files)?;
        output.tell(&StackAnswer::Ended { stopped_micros: micros(self.stopped), duration_micros: micros(duration), lost })
    }

    fn by_events(&mut self, sampler: &mut Sampler) -> io::Result<()> {
        while self.goes_on(FETCH) {
            self.fetch(sampler);
            // A thread that can't be looked at is missed; the others are not.
            let _ = sampler.follow(self.proc);
        }
        self.fetch(sampler);
        Ok(())
    }

    fn fetch(&mut self, sampler: &mut Sampler) {
        let Self { proc, order, walker, memory, counts, seen, .. } = self;
        sampler.drain(|thread, sample| {
            let mut words = Words::of(memory);
            let start = sample.point.stack;
            // What lies further out changes rarely: it is read as it is now.
            let walked = walker.walk(sample.point, |address| word(sample.stack, start, address).or_else(|| words.at(address)));
            *counts.entry((thread, walked)).or_default() += 1;
            seen.entry(thread).or_insert_with(|| Seen::of(proc, order.process.pid, thread));
        });
    }

    fn by_stopping(&mut self, period: Duration) -> Result<(), Failure> {
        let pid = self.order.process.pid;
        while self.goes_on(period) {
            for thread in threads(self.proc, pid)? {
                if !runs(self.proc, pid, thread) {
                    continue;
                }
                self.seen.entry(thread).or_insert_with(|| Seen::of(self.proc, pid, thread));
                let Some(frozen) = Frozen::stop_thread(self.proc, pid, thread)? else { continue };
                if let Ok(point) = registers::point(thread) {
                    let walked = self.walk(point);
                    *self.counts.entry((thread, walked)).or_default() += 1;
                }
                self.stopped += frozen.release();
            }
        }
        Ok(())
    }

    fn walk(&mut self, point: Point) -> Walked {
        let mut words = Words::of(&self.memory);
        self.walker.walk(point, |address| words.at(address))
    }

    /// Waits for a while; `false` once it is over, or the client or the process is gone.
    fn goes_on(&mut self, pause: Duration) -> bool {
        let left = self.order.duration.saturating_sub(self.started.elapsed());
        let timeout = PollTimeout::try_from(left.min(pause)).unwrap_or(PollTimeout::ZERO);
        let is_told = poll(&mut [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0);
        // The client says nothing but that it goes.
        let is_gone = is_told && !matches!(self.input.read(&mut [0; 64]), Ok(1..));
        !is_gone && self.started.elapsed() < self.order.duration && self.proc.is_running(self.order.process)
    }
}

/// Whether a thread uses a processor, or waits for one.
fn runs(proc: &Proc, pid: u32, thread: i32) -> bool {
    let stat = proc.read(pid, &format!("task/{thread}/stat")).ok().and_then(|text| parse_stat(&text));
    stat.is_some_and(|stat| stat.state == b'R')
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::protocol::Decoder;

    /// Uses a processor.
    fn busy() -> Child {
        Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
    }

    fn process_of(child: &Child) -> ProcessId {
        ProcessId { pid: child.id(), start_time: Proc::system().stat(child.id()).unwrap().start_time }
    }

    fn answers(bytes: &[u8]) -> Vec<StackAnswer> {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.pop().unwrap()).collect()
    }

    #[test]
    fn a_busy_process_is_seen_to_be_busy_in_both_ways() {
        let proc = Proc::system();
        let mut child = busy();
        let (_open, input) = io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        let order = Order { process: process_of(&child), duration: Duration::from_millis(400), frequency: 99 };
        let mut profile = Profile::start(&proc, order, File::from(std::os::fd::OwnedFd::from(input))).unwrap();
        profile.by_stopping(Duration::from_millis(20)).unwrap();
        let sampled: u32 = profile.counts.values().sum();
        assert!(sampled > 0 && profile.stopped > Duration::ZERO);
        if let Ok(mut sampler) = Sampler::open(&proc, order.process.pid, SECOND / 99) {
            profile.counts.clear();
            profile.started = Instant::now();
            profile.by_events(&mut sampler).unwrap();
            assert!(profile.counts.values().sum::<u32>() > 0);
            assert!(profile.counts.keys().all(|(_, walked)| !walked.addresses.is_empty()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn it_ends_with_its_client_and_with_its_process() {
        let proc = Proc::system();
        let mut child = busy();
        let order = Order { process: process_of(&child), duration: Duration::from_secs(3600), frequency: 99 };
        let run = |input: io::PipeReader| {
            let (mut reader, writer) = io::pipe().unwrap();
            profile(&proc, order, File::from(std::os::fd::OwnedFd::from(input)), File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            answers(&bytes)
        };
        let (input, writer) = io::pipe().unwrap();
        drop(writer);
        assert!(matches!(run(input).last(), Some(StackAnswer::Ended { .. })));
        let (input, _writer) = io::pipe().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(run(input).last(), Some(StackAnswer::Failed(_))));
    }
}
