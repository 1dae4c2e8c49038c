//! One connection to a debugger: what comes in on stdin goes to its socket, what
//! it says to stdout.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// Passes bytes on until either side ends.
pub(crate) fn connect(socket: &Path, input: File, output: File) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let (to, from) = (stream.try_clone()?, stream);
    // Not joined: when the debugger ends the connection, this may still wait for
    // stdin, and the end of the process ends it.
    thread::spawn(move || {
        let _ = pass(&input, &to);
        // The client is gone: nobody wants the rest.
        let _ = to.shutdown(Shutdown::Both);
    });
    pass(&from, &output)
}

/// Passes on what there is as soon as it is there. `io::copy` would let the kernel
/// do it (splice(2)), which keeps the end of what a socket said until more comes.
fn pass(from: impl Read, mut to: impl Write) -> io::Result<()> {
    pass_pieces(from, |piece| to.write_all(piece))
}

/// The same, to whatever takes pieces.
pub(crate) fn pass_pieces(mut from: impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn each_answer_arrives_before_the_next_question() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (input, mut asks) = io::pipe().unwrap();
        let (mut hears, output) = io::pipe().unwrap();
        let file = |fd: OwnedFd| File::from(fd);
        let connected = thread::spawn(move || connect(&path, file(input.into()), file(output.into())));
        let (mut debugger, _) = listener.accept().unwrap();
        for round in 0..50_u8 {
            asks.write_all(&[round]).unwrap();
            let mut heard = [0];
            debugger.read_exact(&mut heard).unwrap();
            // In two pieces, as Delve writes a header and a content.
            debugger.write_all(&[round]).unwrap();
            debugger.write_all(&[round + 1]).unwrap();
            let mut answer = [0; 2];
            hears.read_exact(&mut answer).unwrap();
            assert_eq!((heard[0], answer), (round, [round, round + 1]));
        }
        drop(debugger);
        connected.join().unwrap().unwrap();
    }
}
