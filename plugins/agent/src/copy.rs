//! The agent, copied to where a container can run it: an init container has
//! this program, and nothing else that could copy it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::protocol::ErrorKind;

/// What everybody may do with the copy: run it.
const MODE: u32 = 0o755;

/// Copies this very program to `path`, in one step for whoever looks there.
pub(crate) fn copy_to(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(Failure::new(ErrorKind::InvalidPath, format!("cannot write {}: it is a folder, name a file in it", path.display())));
    }
    let temporary = beside(path)?;
    let copied = write(&temporary).and_then(|()| fs::rename(&temporary, path));
    copied.map_err(|error| {
        // What there is of it helps nobody.
        let _ = fs::remove_file(&temporary);
        Failure::io(format_args!("copy this program to {}", path.display()))(error)
    })
}

/// A name in the same folder, and so in the same file system.
fn beside(path: &Path) -> Result<PathBuf, Failure> {
    let Some(name) = path.file_name() else {
        return Err(Failure::new(ErrorKind::InvalidPath, format!("{:?} does not name a file", path.display().to_string())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn write(path: &Path) -> io::Result<()> {
    // The file that was executed, whatever has its name now.
    let mut program = File::open("/proc/self/exe")?;
    // Left by one that had the same pid: in a container, most have.
    let _ = fs::remove_file(path);
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    io::copy(&mut program, &mut copy)?;
    // Not what the umask made of it.
    copy.set_permissions(Permissions::from_mode(MODE))
}
