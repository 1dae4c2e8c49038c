//! The command line: too small for a parser.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::server::{Place, ServeError, serve};

const USAGE: &str = "usage: devloop-agent [serve [--beside] | --version]";
const EXIT_USAGE: u8 = 2;
/// How long an agent in a pod waits for its client: no one else would end it if
/// the client were gone before it came to be attached.
const WAIT_FOR_CLIENT: Duration = Duration::from_secs(120);

/// Runs the agent with the arguments after the program's name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    match words.as_deref() {
        Some([] | ["serve"]) => serve_standard_streams(Place::Node),
        Some(["serve", "--beside"]) => match await_client() {
            Ok(true) => serve_standard_streams(Place::Beside),
            Ok(false) => status(Err(ServeError::Protocol(format!("no client came within {} s", WAIT_FOR_CLIENT.as_secs())))),
            Err(error) => status(Err(error.into())),
        },
        Some(["--version"]) => {
            let version = concat!("devloop-agent ", env!("CARGO_PKG_VERSION"));
            match writeln!(io::stdout(), "{version}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => status(Err(error.into())),
            }
        }
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Whether a client said something, or is gone already, in time.
fn await_client() -> io::Result<bool> {
    let timeout = PollTimeout::try_from(WAIT_FOR_CLIENT).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(io::stdin().as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn serve_standard_streams(place: Place) -> ExitCode {
    // Files, because the standard streams buffer what is a frame already.
    let open = |stream: io::Result<std::os::fd::OwnedFd>| stream.map(File::from);
    let input = open(io::stdin().as_fd().try_clone_to_owned());
    let output = open(io::stdout().as_fd().try_clone_to_owned());
    status(match (input, output) {
        (Ok(input), Ok(output)) => serve(place, input, output),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    })
}

fn status(served: Result<(), ServeError>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "Error: {error}");
            ExitCode::FAILURE
        }
    }
}
