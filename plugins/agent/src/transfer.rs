//! A transfer that is open: bytes that come once and go to one program, or to a
//! file in each of several containers.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::bases::Bases;
use crate::failure::Failure;
use crate::fan_out;
use crate::incoming::{Attributes, Incoming, Installed, ModeRule};
use crate::process::Proc;
use crate::protocol::{ErrorKind, Failed, MAX_CHUNK, ProcessId, Response};
use crate::root::{ContainerPath, ContainerRoot, Owner};
use crate::spare::Spares;
use crate::swap::{Previous, Swap};
use crate::undo::Recorder;

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
    /// Held until it is whole: a small file is made and put in place in one go.
    Small {
        files: NewFiles,
        bytes: Vec<u8>,
    },
    Files {
        targets: Vec<(ProcessId, Incoming)>,
        /// The others.
        failed: Vec<Failed>,
    },
    Swap(ProcessId, Box<Swap>),
}

/// A file that each of several containers is to have.
#[derive(Debug)]
pub(crate) struct NewFiles {
    pub(crate) path: ContainerPath,
    pub(crate) mode: ModeRule,
    pub(crate) modified: Option<(i64, u32)>,
    pub(crate) targets: Vec<Target>,
}

/// A container that a file goes to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) process: ProcessId,
    pub(crate) recorder: Result<Recorder, Failure>,
    /// Looked up anew where it is not known.
    pub(crate) reached: Option<Reached>,
}

/// A container that files are written to, and who owns what is new in it.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    root: Arc<ContainerRoot>,
    owner: Owner,
}

/// What is remembered of files and containers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) bases: Bases,
    pub(crate) spares: Spares,
    /// What a burst of files goes to, until it is over: a root that is held keeps its
    /// container's file system busy.
    pub(crate) reached: HashMap<ProcessId, Reached>,
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
            Sink::Small { bytes: held, .. } => {
                held.extend_from_slice(bytes);
                Ok(())
            }
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
    pub(crate) fn finish(self, proc: &Proc, memory: &mut Memory) -> Result<Ended, Failure> {
        let hash = *self.hasher.finalize().as_bytes();
        let (done, mut failed) = match self.sink {
            Sink::Swap(process, swap) => {
                let (swapped, previous, stamp) = swap.finish()?;
                memory.bases.remember(process, &self.path, hash, stamp);
                return Ok(Ended { response: Response::Swapped(swapped), previous: Some((process, previous)) });
            }
            Sink::Small { files, bytes } => (files.put(proc, &bytes, memory), Vec::new()),
            Sink::Files { targets, failed } => {
                let known = &*memory;
                let install = |(process, incoming)| (process, known.install(process, &self.path, incoming));
                (fan_out::map(targets, install), failed)
            }
        };
        let mut written = None;
        for (process, installed) in done {
            match installed {
                Ok(installed) => {
                    memory.bases.remember(process, &self.path, hash, installed.stamp);
                    written = Some(hash);
                }
                Err(failure) => failed.push(explained(proc, process, failure)),
            }
        }
        Ok(Ended { response: Response::Written { blake3: written, failed }, previous: None })
    }

    /// What was received so far for a container is not put in place any more, as what
    /// the session made there was taken away.
    pub(crate) fn undone(&mut self, process: ProcessId) {
        // The others have their part in the container already, and lose it there.
        let Sink::Small { files, .. } = &mut self.sink else { return };
        for target in files.targets.iter_mut().filter(|target| target.process == process) {
            let message = format!("{} was undone while it was received", files.path);
            target.recorder = Err(Failure::new(ErrorKind::NotFound, message));
        }
    }

    /// For what failed altogether: the process of a swap.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        match &self.sink {
            Sink::Swap(process, _) => Some(*process),
            Sink::Small { .. } | Sink::Files { .. } => None,
        }
    }
}

impl NewFiles {
    /// Begins all of them.
    pub(crate) fn begin(self, proc: &Proc, memory: &mut Memory) -> Sink {
        let spares = &memory.spares;
        let begun = fan_out::map(self.targets, |target| {
            let begun = target.begin(proc, &self.path, (self.mode, self.modified), spares);
            (target.process, begun.map_err(|failure| explained(proc, target.process, failure)))
        });
        let (mut targets, mut failed) = (Vec::new(), Vec::new());
        for (process, begun) in begun {
            match begun {
                Ok((incoming, reached)) => {
                    memory.reached.insert(process, reached);
                    targets.push((process, incoming));
                }
                Err(failure) => failed.push(failure),
            }
        }
        Sink::Files { targets, failed }
    }

    /// Makes all of them.
    fn put(self, proc: &Proc, bytes: &[u8], memory: &mut Memory) -> Vec<(ProcessId, Result<Installed, Failure>)> {
        let known = &*memory;
        let put = fan_out::map(self.targets, |target| {
            let put = target.begin(proc, &self.path, (self.mode, self.modified), &known.spares).and_then(|(mut incoming, reached)| {
                incoming.write(bytes)?;
                Ok((known.install(target.process, &self.path, incoming)?, reached))
            });
            (target.process, put)
        });
        let mut remember = |(process, put): (ProcessId, Result<(Installed, Reached), Failure>)| {
            let installed = put.map(|(installed, reached)| {
                memory.reached.insert(process, reached);
                installed
            });
            (process, installed)
        };
        put.into_iter().map(&mut remember).collect()
    }
}

impl Target {
    fn begin(
        &self,
        proc: &Proc,
        path: &ContainerPath,
        (mode, modified): (ModeRule, Option<(i64, u32)>),
        spares: &Spares,
    ) -> Result<(Incoming, Reached), Failure> {
        let recorder = self.recorder.clone()?;
        let reached = self.reached.clone().map_or_else(|| Reached::of(proc, self.process), Ok)?;
        let attributes = Attributes { owner: reached.owner, mode, modified };
        let incoming = Incoming::create_from(spares, &reached.root, path.clone(), attributes, recorder)?;
        Ok((incoming, reached))
    }
}

impl Reached {
    fn of(proc: &Proc, process: ProcessId) -> Result<Self, Failure> {
        let root = Arc::new(ContainerRoot::of(proc, process)?);
        Ok(Self { root, owner: Owner::of(proc, process.pid)? })
    }
}

impl Memory {
    fn install(&self, process: ProcessId, path: &ContainerPath, incoming: Incoming) -> Result<Installed, Failure> {
        incoming.install_over(self.bases.stamp(process, path), &self.spares)
    }

    /// Ends what is kept for the sake of a burst.
    pub(crate) fn rest(&mut self) {
        self.spares.clear();
        self.reached.clear();
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
