//! The command line: too small for a parser.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use crate::server::{ServeError, serve};

const USAGE: &str = "usage: devloop-agent [serve | --version]";
const EXIT_USAGE: u8 = 2;

/// Runs the agent with the arguments after the program's name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    match words.as_deref() {
        Some([] | ["serve"]) => serve_standard_streams(),
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

fn serve_standard_streams() -> ExitCode {
    // Files, because the standard streams buffer what is a frame already.
    let open = |stream: io::Result<std::os::fd::OwnedFd>| stream.map(File::from);
    let input = open(io::stdin().as_fd().try_clone_to_owned());
    let output = open(io::stdout().as_fd().try_clone_to_owned());
    status(match (input, output) {
        (Ok(input), Ok(output)) => serve(input, output),
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
