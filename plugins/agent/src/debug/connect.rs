//! One connection to a debugger: what comes in on stdin goes to its socket, what
//! it says to stdout.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// Passes bytes on until either side ends.
pub(crate) fn connect(socket: &Path, mut input: File, mut output: File) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let (mut to, mut from) = (stream.try_clone()?, stream);
    // Not joined: when the debugger ends the connection, this may still wait for
    // stdin, and the end of the process ends it.
    thread::spawn(move || {
        let _ = io::copy(&mut input, &mut to);
        // The client is gone: nobody wants the rest.
        let _ = to.shutdown(Shutdown::Both);
    });
    io::copy(&mut from, &mut output)?;
    Ok(())
}
