//! An image of this machine's own `docker-registry` program and the libraries
//! that it needs, for machines that no image can be pulled to.

use super::container::DATA;
use super::convention::INNER_PORT;
use devloop_core::error::{CommandError, ErrorContext, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The image's name, without its tag.
pub(crate) const NAME: &str = "devloop.local/registry";
const PROGRAM: &str = "docker-registry";
/// Where a configuration is in images of Debian's version of the program.
const CONFIG: &str = "/etc/docker/registry/config.yml";

/// The program, on PATH or where packages put it.
pub(super) fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/bin".into()]).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())
}

/// The image's reference, by the program's version.
pub(super) async fn name(program: &Path) -> Result<String> {
    let said = run(Command::new(program).arg("--version")).await?;
    let version = said.split_whitespace().last().unwrap_or("unknown");
    let tag: String = version.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' }).collect();
    Ok(format!("{NAME}:{tag}"))
}

/// The image as an archive that `docker load` takes.
pub(super) async fn archive(program: &Path, name: &str) -> Result<Vec<u8>> {
    let libraries = parse_ldd(&run(Command::new("ldd").arg(program)).await?);
    let (program, name) = (program.to_owned(), name.to_owned());
    let making = tokio::task::spawn_blocking(move || write(&program, &libraries, &name).context("could not make the registry's image"));
    making.await.context("could not make the registry's image")?
}

async fn run(command: &mut Command) -> Result<String> {
    let what = format!("{:?}", command.as_std().get_program());
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("could not run {what}"))?;
    if !output.status.success() {
        return Err(CommandError::new(format!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The files in `ldd`'s list, the dynamic linker included.
fn parse_ldd(text: &str) -> BTreeSet<PathBuf> {
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn write(program: &Path, libraries: &BTreeSet<PathBuf>, name: &str) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let configuration = format!(
        "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {DATA}}}\n  \
         cache: {{blobdescriptor: inmemory}}\nhttp: {{addr: ':{INNER_PORT}', secret: devloop}}\n"
    );
    append(&mut layer, Path::new("/usr/bin").join(PROGRAM).as_path(), &std::fs::read(program)?, 0o755)?;
    for library in libraries {
        append(&mut layer, library, &std::fs::read(library)?, 0o755)?;
    }
    append(&mut layer, Path::new(CONFIG), configuration.as_bytes(), 0o644)?;
    let layer = layer.into_inner()?;
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/usr/bin/{PROGRAM}")],
            "Cmd": ["serve", CONFIG],
            "Env": ["PATH=/usr/bin"],
            "ExposedPorts": {(format!("{INNER_PORT}/tcp")): {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(&layer))]},
    })
    .to_string();
    let config_name = format!("{:x}.json", Sha256::digest(&config));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, Path::new("layer.tar"), &layer, 0o644)?;
    append(&mut archive, Path::new(&config_name), config.as_bytes(), 0o644)?;
    append(&mut archive, Path::new("manifest.json"), manifest.as_bytes(), 0o644)?;
    archive.into_inner()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path.strip_prefix("/").unwrap_or(path), content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f61872a3000)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f61870b0000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f61872a5000)\n";
        let paths: Vec<PathBuf> = parse_ldd(text).into_iter().collect();
        assert_eq!(paths, [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), "/lib64/ld-linux-x86-64.so.2".into()]);
        assert!(parse_ldd("\tnot a dynamic executable\n").is_empty());
    }
}
