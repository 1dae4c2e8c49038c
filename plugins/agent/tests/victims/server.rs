//! A program to be swapped: `server <port> <mode>` answers every connection to
//! 127.0.0.1:<port> with one line about itself. Built by the tests with plain
//! rustc, with VICTIM_VERSION set; std only, hence the extern declarations.
//!
//! The first thread does what <mode> says, over and over, and counts: `ticks`
//! when it went as it should, `errors` when it did not. A failed swap must not
//! show in either.

use std::ffi::c_void;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, mpsc};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn signal(number: i32, handler: usize) -> usize;
    fn prctl(option: i32, ...) -> i32;
    fn dup(descriptor: i32) -> i32;
}

const SYS_READ: i64 = 0;
const SYS_WRITE: i64 = 1;
const SYS_RT_SIGPROCMASK: i64 = 14;
const SYS_PIPE: i64 = 22;
const SYS_NANOSLEEP: i64 = 35;
const SYS_CLONE: i64 = 56;
const SYS_EXECVE: i64 = 59;
const SYS_EXIT: i64 = 60;
const SYS_GETTID: i64 = 186;
const SYS_TGKILL: i64 = 234;
const SYS_MMAP: i64 = 9;
const SYS_CLOSE_RANGE: i64 = 436;
const SIGUSR1: u64 = 10;
const SIGCHLD: i64 = 17;
const REAL_TIME_SIGNAL: i64 = 40;
const CLONE_VFORK: i64 = 0x4000;
const SIGNALS: u64 = 2000;

static TICKS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);
static HANDLED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mode = arguments[2].clone();
    let listener = TcpListener::bind(("127.0.0.1", arguments[1].parse().unwrap())).unwrap();
    // Without FD_CLOEXEC: whoever inherits it can't bind the port again.
    let leaked = unsafe { dup(listener.as_raw_fd()) };
    assert!(leaked > 2);
    if env!("VICTIM_VERSION") == "v1" {
        let blocked: u64 = 1 << (SIGUSR1 - 1);
        unsafe { syscall(SYS_RT_SIGPROCMASK, 0, &raw const blocked, 0_usize, 8_usize) };
    }
    let line = arguments.join("\x1f");
    if mode == "prefork" {
        prefork(&listener, &line);
    }
    let (ready_tx, ready_rx) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = ready_rx.recv();
        serve(&listener, &line);
    });
    for _ in 0..3 {
        thread::spawn(|| loop {
            sleep(Duration::from_millis(3));
        });
    }
    // After the threads: a filter is the thread's that installs it, and theirs
    // would need what is filtered.
    if let Some(filter) = mode.strip_prefix("seccomp-") {
        seccomp(filter);
    }
    drop(ready_tx);
    match mode.as_str() {
        "sleep" => nap(),
        "read" => read(),
        "futex" => futex(),
        "spin" => loop {
            TICKS.fetch_add(1, SeqCst);
        },
        "signals" => signals(),
        "exit" => unsafe {
            syscall(SYS_EXIT, 0);
        },
        "vfork" => vfork(),
        _ => loop {
            sleep(Duration::from_secs(1));
        },
    }
}

fn serve(listener: &TcpListener, arguments: &str) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = writeln!(
            stream,
            "version={}\tpid={}\targs={arguments}\ttag={}\tticks={}\terrors={}\thandled={}",
            env!("VICTIM_VERSION"),
            std::process::id(),
            std::env::var("VICTIM_TAG").unwrap_or_default(),
            TICKS.load(SeqCst),
            ERRORS.load(SeqCst),
            HANDLED.load(SeqCst),
        );
    }
}

/// Before there are threads: two workers that share the socket, one of which
/// ignores SIGTERM, one that was handed to the first process, and one that ended.
fn prefork(listener: &TcpListener, line: &str) {
    let fork = || unsafe { syscall(SYS_CLONE, SIGCHLD, 0, 0, 0, 0) };
    for number in 0..3 {
        if fork() == 0 {
            if number == 1 {
                unsafe { signal(15, 1) };
            }
            if number == 2 && fork() != 0 {
                unsafe { syscall(SYS_EXIT, 0) };
            }
            serve(listener, line);
        }
    }
}

fn count(good: bool) {
    if good { &TICKS } else { &ERRORS }.fetch_add(1, SeqCst);
}

/// ERESTART_RESTARTBLOCK: a stop must neither cut the sleep short nor fail it.
fn nap() {
    loop {
        let wanted = Duration::from_millis(20);
        let time: [i64; 2] = [0, wanted.as_nanos() as i64];
        let start = Instant::now();
        let result = unsafe { syscall(SYS_NANOSLEEP, &raw const time, 0_usize) };
        count(result == 0 && start.elapsed() >= wanted);
    }
}

/// ERESTARTSYS: the read goes on, and yields the byte that is written later.
fn read() {
    let mut pipe = [0_i32; 2];
    unsafe { syscall(SYS_PIPE, &raw mut pipe) };
    thread::spawn(move || loop {
        sleep(Duration::from_millis(20));
        unsafe { syscall(SYS_WRITE, pipe[1], c"x".as_ptr(), 1_usize) };
    });
    loop {
        let mut byte = 0_u8;
        let result = unsafe { syscall(SYS_READ, pipe[0], &raw mut byte, 1_usize) };
        count(result == 1 && byte == b'x');
    }
}

fn futex() {
    static TURN: Mutex<u64> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    thread::spawn(|| loop {
        sleep(Duration::from_millis(20));
        *TURN.lock().unwrap() += 1;
        CHANGED.notify_all();
    });
    let mut seen = 0;
    let mut turn = TURN.lock().unwrap();
    loop {
        turn = CHANGED.wait_while(turn, |turn| *turn == seen).unwrap();
        count(*turn > seen);
        seen = *turn;
    }
}

extern "C" fn handle(_signal: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Real-time signals are queued: each one that is sent must be handled.
fn signals() {
    unsafe { signal(REAL_TIME_SIGNAL as i32, handle as extern "C" fn(i32) as *const c_void as usize) };
    let process = std::process::id();
    let thread = unsafe { syscall(SYS_GETTID) };
    thread::spawn(move || {
        for _ in 0..SIGNALS {
            unsafe { syscall(SYS_TGKILL, u64::from(process), thread, REAL_TIME_SIGNAL) };
            sleep(Duration::from_micros(200));
        }
    });
    loop {
        TICKS.fetch_add(1, SeqCst);
    }
}

/// A thread that waits for its vforked child can't be stopped.
fn vfork() {
    let child = unsafe { syscall(SYS_CLONE, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let time: [i64; 2] = [11, 0];
        unsafe {
            syscall(SYS_NANOSLEEP, &raw const time, 0_usize);
            syscall(SYS_EXIT, 0);
        }
    }
    nap();
}

/// `deny-<call>` fails it with EPERM, `kill-<call>` kills the process,
/// `trap-<call>` sends it SIGSYS.
fn seccomp(filter: &str) {
    #[repr(C)]
    struct Instruction(u16, u8, u8, u32);
    #[repr(C)]
    struct Program(u16, *const Instruction);
    let (action, call) = filter.split_once('-').unwrap();
    let action = match action {
        "kill" => 0x8000_0000,
        "trap" => 0x0003_0000,
        _ => 0x0005_0001,
    };
    let call = match call {
        "execve" => SYS_EXECVE,
        "mmap" => SYS_MMAP,
        _ => SYS_CLOSE_RANGE,
    };
    let code = [
        Instruction(0x20, 0, 0, 0),
        Instruction(0x15, 0, 1, call as u32),
        Instruction(0x06, 0, 0, action),
        Instruction(0x06, 0, 0, 0x7fff_0000),
    ];
    let program = Program(code.len() as u16, code.as_ptr());
    unsafe {
        assert_eq!(prctl(38, 1_usize, 0_usize, 0_usize, 0_usize), 0);
        assert_eq!(prctl(22, 2_usize, &raw const program), 0);
    }
}
