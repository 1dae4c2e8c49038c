//! A transfer that is open: bytes that come once and go to one program, or to a
//! file in each of several containers.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bases::Bases;
use crate::failure::Failure;
use crate::fan_out;
use crate::incoming::Incoming;
use crate::process::Proc;
use crate::protocol::{ErrorKind, Failed, MAX_CHUNK, ProcessId, Response};
use crate::root::ContainerPath;
use crate::spare::Spares;
use crate::swap::{Previous, Swap};

#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) id: u32,
    remaining: u64,
    /// Boxed for its two kilobytes.
    hasher: Box<blake3::Hasher>,
    /// What a Copy copies from.
    base: Option<File>,
    path: ContainerPath,
    sink: Sink,
}

#[derive(Debug)]
pub(crate) enum Sink {
    Files {
        targets: Vec<(ProcessId, Incoming)>,
        /// The others.
        failed: Vec<Failed>,
    },
    Swap(ProcessId, Box<Swap>),
}

/// How a transfer ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) response: Response,
    pub(crate) previous: Option<(ProcessId, Previous)>,
}

/// What breaks the rules.
pub(crate) type Broken = String;

impl Transfer {
    pub(crate) fn new(id: u32, size: u64, path: ContainerPath, base: Option<File>, sink: Sink) -> Self {
        Self { id, remaining: size, hasher: Box::default(), base, path, sink }
    }

    /// Whether nothing more is wanted.
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == 0 || matches!(&self.sink, Sink::Files { targets, .. } if targets.is_empty())
    }

    /// Takes the next bytes.
    pub(crate) fn data(&mut self, proc: &Proc, bytes: &[u8]) -> Result<Result<(), Failure>, Broken> {
        if bytes.len() > MAX_CHUNK {
            return Err(format!("{} bytes of data in one message", bytes.len()));
        }
        self.announced(bytes.len() as u64)?;
        Ok(self.write(proc, bytes))
    }

    /// Takes the next bytes from the base.
    pub(crate) fn copy(&mut self, proc: &Proc, offset: u64, length: u64) -> Result<Result<(), Failure>, Broken> {
        if self.base.is_none() {
            return Err("a copy in a transfer without a base".into());
        }
        if offset.checked_add(length).is_none() {
            return Err("a copy from beyond any file".into());
        }
        self.announced(length)?;
        Ok(self.copy_range(proc, offset, length))
    }

    fn announced(&mut self, length: u64) -> Result<(), Broken> {
        self.remaining = self.remaining.checked_sub(length).ok_or("more data than was announced")?;
        Ok(())
    }

    fn copy_range(&mut self, proc: &Proc, offset: u64, length: u64) -> Result<(), Failure> {
        let Some(base) = self.base.take() else { return Ok(()) };
        let mut chunk = vec![0; MAX_CHUNK];
        let mut at = offset;
        while at < offset + length {
            let wanted = usize::try_from(offset + length - at).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
            let chunk = &mut chunk[..wanted];
            base.read_exact_at(chunk, at).map_err(|error| Failure {
                kind: ErrorKind::BaseChanged,
                message: format!("cannot read the present version of {}: {error}", self.path),
            })?;
            self.write(proc, chunk)?;
            at += wanted as u64;
        }
        self.base = Some(base);
        Ok(())
    }

    fn write(&mut self, proc: &Proc, bytes: &[u8]) -> Result<(), Failure> {
        self.hasher.update(bytes);
        match &mut self.sink {
            Sink::Swap(_, swap) => swap.write(bytes),
            Sink::Files { targets, failed } => {
                targets.retain_mut(|(process, incoming)| match incoming.write(bytes) {
                    Ok(()) => true,
                    Err(failure) => {
                        failed.push(explained(proc, *process, failure));
                        false
                    }
                });
                Ok(())
            }
        }
    }

    /// Puts in place what was received.
    pub(crate) fn finish(self, proc: &Proc, bases: &mut Bases, spares: &Spares) -> Result<Ended, Failure> {
        let hash = *self.hasher.finalize().as_bytes();
        match self.sink {
            Sink::Swap(process, swap) => {
                let (swapped, previous, stamp) = swap.finish()?;
                bases.remember(process, &self.path, hash, stamp);
                Ok(Ended { response: Response::Swapped(swapped), previous: Some((process, previous)) })
            }
            Sink::Files { targets, mut failed } => {
                let mut written = None;
                let known = &*bases;
                let install = |(process, incoming): (ProcessId, Incoming)| {
                    let ours = known.stamp(process, &self.path);
                    (process, incoming.install_over(ours, spares))
                };
                for (process, installed) in fan_out::map(targets, install) {
                    match installed {
                        Ok(installed) => {
                            bases.remember(process, &self.path, hash, installed.stamp);
                            written = Some(hash);
                        }
                        Err(failure) => failed.push(explained(proc, process, failure)),
                    }
                }
                Ok(Ended { response: Response::Written { blake3: written, failed }, previous: None })
            }
        }
    }

    /// For what failed altogether: the process of a swap.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        match &self.sink {
            Sink::Swap(process, _) => Some(*process),
            Sink::Files { .. } => None,
        }
    }
}

/// A process that ends takes its container's root with it, and any step may be
/// the first to notice: what matters to the client is that it is gone.
pub(crate) fn vanished_or(proc: &Proc, process: ProcessId, failure: Failure) -> Failure {
    let symptom = matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Permission | ErrorKind::Io);
    if symptom && (!proc.is_running(process) || proc.is_ending(process.pid)) {
        return Failure::vanished(process.pid).and(failure);
    }
    failure
}

/// The same, for one of several.
pub(crate) fn explained(proc: &Proc, process: ProcessId, failure: Failure) -> Failed {
    let Failure { kind, message } = vanished_or(proc, process, failure);
    Failed { process, kind, message }
}
