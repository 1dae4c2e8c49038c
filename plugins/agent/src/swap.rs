//! Swapping the program of a running process in place: same pid, same
//! container, nothing needed in its image.
//!
//! The order keeps the old program whole for as long as possible: the new one
//! is received under a temporary name and judged, then renamed into place, then
//! executed; and when that fails, the old file is put back. The children of the
//! process are ended just before its own program is: see `children`.

mod children;
mod debugger;
mod replace;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, MemfdFlags, OFlags};

use crate::elf;
use crate::failure::Failure;
use crate::incoming::{Attributes, Identity, Incoming, ModeRule, Stamp};
use crate::process::Proc;
use crate::protocol::{ByteString, ErrorKind, MAX_CHUNK, Phases, ProcessId, Swapped};
use crate::root::{Container, ContainerPath, ContainerRoot, Owner, Parents, Place};
use crate::undo::{self, Recorder};
use debugger::require_running;
pub(crate) use debugger::{Halt, require_all_running};
use replace::{Program, Source, replace};

/// A swap whose program is still being received.
#[derive(Debug)]
pub(crate) struct Swap {
    proc: Proc,
    process: ProcessId,
    path: ContainerPath,
    /// Without, those that the process has.
    arguments: Option<Vec<Vec<u8>>>,
    root: ContainerRoot,
    recorder: Recorder,
    /// What the process runs on.
    machine: elf::Machine,
    sink: Sink,
    started: Instant,
}

/// The program that a process ran before, held open for a rollback.
#[derive(Debug)]
pub(crate) struct Previous {
    path: ContainerPath,
    arguments: Vec<Vec<u8>>,
    program: File,
}

/// Where the new program goes.
#[derive(Debug)]
enum Sink {
    Disk(Incoming),
    /// On a read-only file system.
    Memory(File),
}

/// What lay at the path before.
enum Replaced {
    /// It is open, so its content is still there.
    File(File),
    Nothing,
}

impl Swap {
    /// Fails, with nothing touched, unless the process can be swapped at all.
    pub(crate) fn begin(
        proc: &Proc,
        process: ProcessId,
        path: ContainerPath,
        arguments: Option<Vec<Vec<u8>>>,
        container: Container,
    ) -> Result<Self, Failure> {
        let started = Instant::now();
        proc.check(process)?;
        require_running(proc, process)?;
        let Container { root, owner, recorder } = container;
        let machine = native_machine(proc, process)?;
        let attributes = Attributes { owner, mode: ModeRule::Executable, modified: None };
        let sink = match Incoming::create(&root, path.clone(), attributes, recorder.clone()) {
            Ok(incoming) => Sink::Disk(incoming),
            Err(failure) if failure.kind == ErrorKind::ReadOnly => Sink::Memory(
                rustix::fs::memfd_create("devloop-incoming", MemfdFlags::CLOEXEC)
                    .map_err(Failure::errno("create a file in memory"))?
                    .into(),
            ),
            Err(failure) => return Err(failure),
        };
        let proc = proc.clone();
        Ok(Self { proc, process, path, arguments, root, recorder, machine, sink, started })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.sink {
            Sink::Disk(incoming) => incoming.write(bytes),
            Sink::Memory(file) => file.write_all(bytes).map_err(Failure::io("hold the program in memory")),
        }
    }

    /// Judges, installs and executes what was received.
    pub(crate) fn finish(self) -> Result<(Swapped, Previous, Stamp), Failure> {
        let received = self.started.elapsed();
        let file = match &self.sink {
            Sink::Disk(incoming) => incoming.file(),
            Sink::Memory(file) => file,
        };
        let loader = elf::inspect(file, self.machine)?;
        self.require_loader(loader.as_deref())?;

        let pid = self.process.pid;
        let running = self.proc.executable(pid)?;
        let current = self.proc.arguments(pid)?;
        let previous = Previous {
            // A program in memory has no path of its own to go back to.
            path: if running.in_memory { self.path.clone() } else { ContainerPath::parse(&running.path.into())? },
            arguments: current.clone(),
            program: self.proc.open_executable(pid)?,
        };
        let mut arguments = self.arguments.unwrap_or(current);
        if arguments.is_empty() {
            arguments.push(self.path.bytes().to_vec());
        }
        let request = Again {
            proc: &self.proc,
            process: self.process,
            root: &self.root,
            path: &self.path,
            arguments: &arguments,
            recorder: &self.recorder,
            halt: Halt::Stays,
        };
        let (in_memory, written, times, stamp) = match self.sink {
            Sink::Disk(incoming) => {
                let replaced = content(incoming.place())?;
                let installed = incoming.install()?;
                let written = self.started.elapsed();
                let times =
                    request.execute(Source::Installed(installed.identity)).map_err(|failure| request.put_back(replaced, failure))?;
                (false, written, times, installed.stamp)
            }
            Sink::Memory(file) => {
                let written = self.started.elapsed();
                let times = request.execute(Source::Memory(&file))?;
                (true, written, times, Stamp::of_file(&self.proc.open_executable(pid)?)?)
            }
        };
        let phases = Phases {
            received_us: micros(received),
            written_us: micros(written),
            stopped_us: micros(times.stopped - self.started),
            executed_us: micros(times.executed - self.started),
        };
        let swapped = Swapped { process: self.process, phases, in_memory, previous_kept: true };
        Ok((swapped, previous, stamp))
    }

    /// Without its loader a program can't start, and execve's "No such file or
    /// directory" would not say which file.
    fn require_loader(&self, loader: Option<&[u8]>) -> Result<(), Failure> {
        let Some(loader) = loader else { return Ok(()) };
        let path = ContainerPath::parse(&loader.to_vec().into())?;
        match self.root.open(path.as_path(), OFlags::PATH) {
            Ok(_) => Ok(()),
            Err(errno) => {
                let message = format!(
                    "the program needs the loader {path}, which is not in the container \
                     ({}); link it statically or against the C library of the image",
                    std::io::Error::from(errno)
                );
                Err(Failure::new(ErrorKind::NotExecutable, message))
            }
        }
    }
}

impl Previous {
    /// Brings the program back, the same way as any other one.
    pub(crate) fn restore(&self, proc: &Proc, process: ProcessId, container: Container) -> Result<(Swapped, Self), Failure> {
        let mut program = &self.program;
        // On a read-only file system the file is still there, under its name.
        if is_at(&container.root, &self.path, program)? {
            return self.execute_again(proc, process, &container);
        }
        let arguments = Some(self.arguments.clone());
        let mut swap = Swap::begin(proc, process, self.path.clone(), arguments, container)?;
        let read = Failure::io("read the previous program");
        let mut chunk = vec![0; MAX_CHUNK];
        if let Err(error) = program.seek(SeekFrom::Start(0)) {
            return Err(read(error));
        }
        loop {
            match program.read(&mut chunk) {
                Ok(0) => return swap.finish().map(|(swapped, previous, _)| (swapped, previous)),
                Ok(length) => swap.write(&chunk[..length])?,
                Err(error) => return Err(read(error)),
            }
        }
    }

    fn execute_again(&self, proc: &Proc, process: ProcessId, container: &Container) -> Result<(Swapped, Self), Failure> {
        let previous =
            Self { path: self.path.clone(), arguments: proc.arguments(process.pid)?, program: proc.open_executable(process.pid)? };
        let Container { root, recorder, .. } = container;
        let again = Again { proc, process, root, path: &self.path, arguments: &self.arguments, recorder, halt: Halt::Ends };
        let swapped = again.run(Source::Installed(Identity::of_file(&self.program)?))?;
        Ok((Swapped { previous_kept: true, ..swapped }, previous))
    }
}

/// What a process is to execute, and where the file of that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again<'a> {
    pub(crate) proc: &'a Proc,
    pub(crate) process: ProcessId,
    pub(crate) root: &'a ContainerRoot,
    pub(crate) path: &'a ContainerPath,
    pub(crate) arguments: &'a [Vec<u8>],
    pub(crate) recorder: &'a Recorder,
    pub(crate) halt: Halt,
}

impl Again<'_> {
    /// Whether there is anything at the path.
    pub(crate) fn is_installed(&self) -> bool {
        self.root.open(self.path.as_path(), OFlags::PATH).is_ok()
    }

    /// Executes what lies at the path.
    pub(crate) fn executed(&self) -> Result<Swapped, Failure> {
        let file =
            self.root.open(self.path.as_path(), OFlags::PATH).map_err(Failure::errno(format_args!("find the program {}", self.path)))?;
        self.run(Source::Installed(Identity::of_file(&File::from(file))?))
    }

    /// Executes a copy of this file.
    pub(crate) fn copied(&self, file: &File) -> Result<Swapped, Failure> {
        self.run(Source::Memory(file))
    }

    fn run(&self, source: Source<'_>) -> Result<Swapped, Failure> {
        let started = Instant::now();
        native_machine(self.proc, self.process)?;
        let times = self.execute(source)?;
        let phases =
            Phases { stopped_us: micros(times.stopped - started), executed_us: micros(times.executed - started), ..Phases::default() };
        let in_memory = matches!(source, Source::Memory(_));
        Ok(Swapped { process: self.process, phases, in_memory, previous_kept: false })
    }

    fn execute(&self, source: Source<'_>) -> Result<replace::Times, Failure> {
        let program = Program { path: self.path.bytes(), arguments: self.arguments, source };
        let first = self.recorder.before_program(undo::Program {
            process: self.process,
            path: ByteString(self.proc.executable(self.process.pid)?.path),
            arguments: self.proc.arguments(self.process.pid)?.into_iter().map(ByteString).collect(),
        })?;
        replace(self.proc, self.process, &program, self.halt).map_err(|failure| {
            let cancelled = if first { self.recorder.not_replaced(self.process) } else { Ok(()) };
            match cancelled {
                Ok(()) => failure,
                Err(second) => failure.and(second),
            }
        })
    }

    /// After a failure that the process survived: the file on disk is again
    /// what runs, so that a restart of the container does not bring a surprise.
    fn put_back(&self, replaced: Replaced, failure: Failure) -> Failure {
        let put = match replaced {
            Replaced::Nothing => self.root.place(self.path, Parents::MustExist).and_then(|place| {
                rustix::fs::unlinkat(&place.parent, &place.name, AtFlags::empty())
                    .map_err(Failure::errno(format_args!("remove {}", self.path)))
            }),
            Replaced::File(file) => self.copy_back(file),
        };
        match put {
            Ok(()) => failure,
            Err(second) => failure.and(format_args!("the new program stays at its path: {second}")),
        }
    }

    fn copy_back(&self, mut file: File) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(&file).map_err(Failure::errno("look at the old program"))?;
        let attributes = Attributes {
            owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
            mode: ModeRule::Original(stat.st_mode),
            modified: Some((stat.st_mtime, stat.st_mtime_nsec as u32)),
        };
        let mut incoming = Incoming::create(self.root, self.path.clone(), attributes, self.recorder.clone())?;
        let mut chunk = vec![0; MAX_CHUNK];
        loop {
            let length = file.read(&mut chunk).map_err(Failure::io("read the old program"))?;
            if length == 0 {
                return incoming.install().map(|_| ());
            }
            incoming.write(&chunk[..length])?;
        }
    }
}

/// What a process runs on, if its program can be replaced at all.
fn native_machine(proc: &Proc, process: ProcessId) -> Result<elf::Machine, Failure> {
    let machine = proc.machine(process.pid)?;
    if machine.is_native() {
        return Ok(machine);
    }
    let message =
        format!("process {} runs on {}, this agent can only swap 64-bit {} programs", process.pid, machine.name(), std::env::consts::ARCH);
    Err(Failure::new(ErrorKind::Unsupported, message))
}

fn content(place: &Place) -> Result<Replaced, Failure> {
    let look = "look at the old program";
    match place.stat().map_err(Failure::errno(look))? {
        None => Ok(Replaced::Nothing),
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            place.open().map(Replaced::File).map_err(Failure::errno(look))
        }
        Some(_) => {
            let message = "the path to install the program to is no regular file";
            Err(Failure::new(ErrorKind::InvalidPath, message))
        }
    }
}

/// Whether `path` names this very file.
fn is_at(root: &ContainerRoot, path: &ContainerPath, file: &File) -> Result<bool, Failure> {
    match root.open(path.as_path(), OFlags::PATH) {
        Ok(found) => Ok(Identity::of_file(&File::from(found))? == Identity::of_file(file)?),
        Err(_) => Ok(false),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
