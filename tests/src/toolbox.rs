//! An image with a shell and the usual small programs, made from Debian's
//! static busybox, and `get`, which looks names up: what the tests run in pods.

use crate::program::Program;
use crate::{images, repository};
use std::path::{Path, PathBuf};

/// The image's name in manifests.
pub const IMAGE: &str = "devloop.local/toolbox:test";

/// Debian's, which is static.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

const PROGRAMS: [&str; 20] = [
    "sh", "cat", "echo", "env", "false", "grep", "head", "httpd", "id", "ls", "mkdir", "mv", "nc", "nslookup", "printf", "rm", "sleep",
    "tar", "test", "true",
];

/// Fills a folder with the programs' names, all of them links to busybox.
pub(crate) fn busybox_links(bin: &Path) {
    assert!(Path::new(BUSYBOX).exists(), "busybox is missing; `scripts/setup --tests` installs it");
    devloop_core::files::remove_all(bin).unwrap();
    std::fs::create_dir_all(bin).unwrap();
    std::fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for program in PROGRAMS {
        std::os::unix::fs::symlink("busybox", bin.join(program)).unwrap();
    }
}

/// Writes the image as an archive into `folder`; answers its path.
///
/// # Panics
/// When busybox isn't installed or the image can't be made.
pub fn archive(folder: &Path) -> PathBuf {
    let spec = devloop_core::project::ImageSpec {
        name: "toolbox".into(),
        entrypoint: vec!["/bin/sh".into()],
        env: [("PATH".to_owned(), "/bin".to_owned())].into(),
        binary: Some("/bin/toolbox".into()),
        files: vec![devloop_core::project::FileMapping { from: "bin".into(), to: "/bin".into() }],
        ..devloop_core::project::ImageSpec::default()
    };
    let bin = folder.join("bin");
    busybox_links(&bin);
    let get = bin.join("get");
    let build = Program::new("go").args(["build", "-trimpath", "-o"]).args([&get]).args(["."]);
    build.current_dir(repository().join("tests/toolbox")).env("CGO_ENABLED", "0").run().ok();
    images::write(folder, &spec, Path::new(BUSYBOX), IMAGE.to_owned())
}
