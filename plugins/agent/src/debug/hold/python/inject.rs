//! Makes a Python process run a script of ours, as it is: nothing in its image and
//! none of its files changes, for what it needs is put into its memory.
//!
//! The script is asked for by `Py_AddPendingCall`, which may be called at any moment
//! and has the first thread run it as soon as that comes by. One that waits in a
//! system call does not come by: it is stopped there, where it holds neither the
//! interpreter's lock nor any other, and runs the script on the spot.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;

use super::functions::{self, Functions};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::trace::apart;
use crate::trace::memory::Memory;
use crate::trace::tracee::{Outcome, Tracee};

const SCRIPT: &str = include_str!("serve.py");
/// Names of files in memory, as `/proc/<pid>/fd` shows them.
const WHEEL: &[u8] = b"devloop-debugpy\0";
pub(super) const STATUS: &str = "devloop-debugpy-status";

const PAGE: u64 = 4096;
/// For what is put in when more is known.
const SPARE: usize = 256;
/// How long the first thread may take to come by.
const SOON: Duration = Duration::from_millis(100);
/// How long that may take in the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a function may take: one of them waits for the interpreter's lock.
const LIMIT: Duration = Duration::from_secs(10);
/// In these it may hold a lock of the C library.
const NOT_IN: [i64; 6] = [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_brk, libc::SYS_madvise, libc::SYS_mprotect];

/// A script that runs.
pub(super) struct Injected {
    /// What it says, see [`state`].
    pub(super) status: File,
    /// How long the process stood still.
    pub(super) stopped: Duration,
}

/// Puts the wheel and the script there, and waits until the script has begun.
pub(super) fn inject(proc: &Proc, process: ProcessId, wheel: &[u8]) -> Result<Injected, Failure> {
    let functions = functions::find(proc, process)?;
    let memory = Memory::open(proc, process.pid)?;
    let guest = Guest { proc, process, memory, functions };
    let (Placed { code, status }, mut stopped) = apart(|| guest.held(|tracee| guest.place(tracee, wheel)))?;
    let started = Instant::now();
    let mut last = started;
    while state(&status).is_none() {
        if started.elapsed() > PATIENCE {
            return Err(Failure::new(
                ErrorKind::TimedOut,
                format!(
                    "Python did not begin within {} s: its first thread waits for a lock, or runs code that is not Python",
                    PATIENCE.as_secs()
                ),
            ));
        }
        if last.elapsed() > SOON {
            stopped += apart(|| guest.held(|tracee| guest.run_here(tracee, code)))?.1;
            last = Instant::now();
        }
        sleep(Duration::from_millis(1));
    }
    Ok(Injected { status, stopped })
}

/// What the script said last: a word, and what belongs to it. None before it has
/// begun.
pub(super) fn state(status: &File) -> Option<(String, String)> {
    let mut bytes = vec![0; 1000];
    let length = status.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned();
    text.split_once('\n').map(|(word, detail)| (word.to_owned(), detail.to_owned()))
}

/// The script that an earlier session left running, if any.
pub(super) fn running(proc: &Proc, pid: u32) -> Option<File> {
    let link = format!("/memfd:{STATUS} (deleted)");
    let open = std::fs::read_dir(proc.live_path(pid, "fd")).into_iter().flatten().flatten();
    let path = open.map(|entry| entry.path()).find(|path| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == link.as_str()))?;
    File::open(path).ok()
}

/// What the script is called by, once its descriptors are known.
fn code(wheel: u64, status: u64) -> Vec<u8> {
    let script: String = SCRIPT.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Nothing is defined where it runs, which is the program's main module; and a
    // failure there would be the program's.
    format!(
        "try:\n exec(bytes.fromhex('{script}'), {{'__name__': 'devloop', 'WHEEL': {wheel}, 'STATUS': {status}}})\nexcept BaseException: pass\n\0"
    )
    .into_bytes()
}

struct Guest<'a> {
    proc: &'a Proc,
    process: ProcessId,
    memory: Memory,
    functions: Functions,
}

/// Where the code is in the process, and what its script says.
struct Placed {
    code: u64,
    status: File,
}

impl Guest<'_> {
    /// Does something with the first thread, which stands still for it; answers for how
    /// long, too.
    fn held<T>(&self, work: impl FnOnce(&mut Tracee) -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
        let started = Instant::now();
        let mut tracee = Tracee::stop(self.proc, self.process, &self.memory)?;
        let done = work(&mut tracee);
        let released = tracee.release(self.proc);
        let done = done?;
        released?;
        Ok((done, started.elapsed()))
    }

    /// Puts all there, and asks for the script.
    fn place(&self, tracee: &mut Tracee, wheel: &[u8]) -> Result<Placed, Failure> {
        let length = (code(0, 0).len() + SPARE) as u64;
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let block = self.call(tracee, "map memory", libc::SYS_mmap, [0, length.next_multiple_of(PAGE), protection, flags, u64::MAX, 0])?;
        let files = self.files(tracee, block, wheel);
        let asked = files.and_then(|(wheel, status, file)| {
            self.memory.write(block, &code(wheel, status))?;
            self.function(tracee, self.functions.add_pending_call, [self.functions.run_simple_string, block], block).map(|_| file)
        });
        match asked {
            // The page stays: when the script is read from it is for Python to say.
            Ok(status) => Ok(Placed { code: block, status }),
            Err(failure) => {
                let _ = self.call(tracee, "give memory back", libc::SYS_munmap, [block, length, 0, 0, 0, 0]);
                Err(failure)
            }
        }
    }

    /// Makes files in memory: with the wheel, and for what the script says.
    fn files(&self, tracee: &mut Tracee, block: u64, wheel: &[u8]) -> Result<(u64, u64, File), Failure> {
        let close = u64::from(libc::MFD_CLOEXEC);
        let mut create = |name: &[u8]| {
            self.memory.write(block, name)?;
            self.call(tracee, "create a file in memory", libc::SYS_memfd_create, [block, close, 0, 0, 0, 0])
        };
        let archive = create(WHEEL)?;
        let status = create(format!("{STATUS}\0").as_bytes());
        let filled = status.and_then(|status| {
            let open = |descriptor: u64, write: bool| {
                File::options().read(true).write(write).open(self.proc.live_path(self.process.pid, &format!("fd/{descriptor}")))
            };
            let fill = || -> io::Result<File> {
                open(archive, true)?.write_all(wheel)?;
                open(status, false)
            };
            fill().map(|file| (status, file)).map_err(Failure::io("put debugpy into the memory of the process"))
        });
        match filled {
            Ok((status, file)) => Ok((archive, status, file)),
            Err(failure) => {
                let _ = self.call(tracee, "close a file", libc::SYS_close, [archive, 0, 0, 0, 0, 0]);
                Err(failure)
            }
        }
    }

    /// Runs the script in the thread's place, if that waits where it may.
    fn run_here(&self, tracee: &mut Tracee, code: u64) -> Result<(), Failure> {
        let Some((number, fourth)) = tracee.interrupted_call() else { return Ok(()) };
        let is = |other: i64| number.cast_signed() == other;
        // One that waits for the interpreter's lock does so for milliseconds at a time.
        if NOT_IN.into_iter().any(is) || is(libc::SYS_futex) && fourth != 0 {
            return Ok(());
        }
        let lock = self.function(tracee, self.functions.ensure, [0, 0], code)?;
        self.function(tracee, self.functions.run_simple_string, [code, 0], code)?;
        self.function(tracee, self.functions.release, [u64::from(lock.cast_unsigned()), 0], code)?;
        Ok(())
    }

    /// Calls a function that answers an `int`. What is at `back` can't be executed.
    fn function(&self, tracee: &mut Tracee, function: u64, arguments: [u64; 2], back: u64) -> Result<i32, Failure> {
        tracee.call_function(self.proc, &self.memory, function, arguments, back, LIMIT).map(|result| result as i32)
    }

    fn call(&self, tracee: &mut Tracee, what: &str, number: i64, arguments: [u64; 6]) -> Result<u64, Failure> {
        match tracee.call(self.proc, number, arguments)? {
            Outcome::Returned(value) => Ok(value),
            Outcome::Failed(errno) => Err(Failure::errno(format_args!("{what} in process {}", self.process.pid))(errno)),
            Outcome::Executed => Err(Failure::vanished(self.process.pid)),
        }
    }
}
