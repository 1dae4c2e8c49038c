//! An image with a shell and the usual small programs, made from Debian's
//! static busybox: what the tests run in pods.

use devloop_core::image;
use std::path::{Path, PathBuf};

/// The image's name in manifests.
pub const IMAGE: &str = "devloop.local/toolbox:test";

const PROGRAMS: [&str; 20] = [
    "sh", "cat", "echo", "env", "false", "grep", "head", "httpd", "id", "ls", "mkdir", "nc", "nslookup", "printf", "rm", "sleep", "tar",
    "test", "true", "wget",
];

/// What even a static program of glibc loads to look a name up.
const RESOLVER: [&str; 5] = [
    "libc.so.6",
    "libresolv.so.2",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    if cfg!(target_arch = "aarch64") { "ld-linux-aarch64.so.1" } else { "ld-linux-x86-64.so.2" },
];

/// Debian's folder of libraries of this architecture.
fn library_folder() -> String {
    format!("/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// Writes the image as an archive into `folder`; answers its path.
///
/// # Panics
/// When busybox isn't installed or the image can't be made.
pub fn archive(folder: &Path) -> PathBuf {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "busybox is missing; `scripts/setup --tests` installs it");
    let spec = devloop_core::project::ImageSpec {
        name: "toolbox".into(),
        base: devloop_core::project::Base::Scratch,
        user: None,
        entrypoint: vec!["/bin/sh".into()],
        cmd: Vec::new(),
        env: [("PATH".to_owned(), "/bin".to_owned())].into(),
        workdir: None,
        binary: "/bin/toolbox".into(),
        files: vec![
            devloop_core::project::FileMapping { from: "bin".into(), to: "/bin".into() },
            devloop_core::project::FileMapping { from: "lib".into(), to: library_folder() },
        ],
        ports: Vec::new(),
    };
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    let lib = folder.join("lib");
    std::fs::create_dir_all(&lib).unwrap();
    for library in RESOLVER {
        std::fs::copy(Path::new(&library_folder()).join(library), lib.join(library)).unwrap();
    }
    for program in PROGRAMS {
        std::os::unix::fs::symlink("busybox", bin.join(program)).unwrap();
    }
    let mut image = image::assemble(&folder.join("cache"), &spec, folder, busybox).unwrap();
    IMAGE.clone_into(&mut image.reference);
    let path = folder.join("toolbox.tar");
    image.write_archive(&vec![true; image.layers.len()], std::fs::File::create(&path).unwrap()).unwrap();
    path
}
