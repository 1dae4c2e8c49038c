//! containerd through its own client `ctr`, on the node: the way to any node on which
//! programs can be run.
//!
//! Each program that starts on a node costs time, and `docker exec` costs more:
//! all questions go in one command, and so do an import and what follows it.

use super::{CHUNK, Containerd, Observed, PATIENCE, UNPACKING, filter, filters, pieces};
use crate::deliver::DeliverError;
use crate::deliver::package::Identity;
use crate::deliver::progress::Progress;
use crate::node::NodeProcess;
use std::io::{self, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What all scripts begin with: `$1` is the socket, if it is not the usual one.
/// Kubernetes keeps its images in the namespace `k8s.io`, unpacked as the
/// configuration says.
pub(in crate::deliver) const PRELUDE: &str = r#"
address=$1
export CONTAINERD_NAMESPACE=k8s.io
[ -z "$address" ] || export CONTAINERD_ADDRESS="$address"
snapshotter=$(sed -n 's/^ *snapshotter *= *["'\'']\([a-z0-9.-]*\)["'\''].*/\1/p' /etc/containerd/config.toml 2>/dev/null)
snapshotter=${snapshotter%%
*}
[ -z "$snapshotter" ] || export CONTAINERD_SNAPSHOTTER="$snapshotter"
"#;

/// Asks for everything: `$2` has a line for each name that is wanted, with the
/// image id and the manifest's digest; the rest are filters. Unpacked layers are
/// listed only when an image is missing.
const ASK: &str = r#"
wanted=$2
shift 2
uname -m
table=$(ctr images check "$@") || [ -n "$table" ] || exit 1
printf '%s\n' "$table"
digest_of() {
    while read -r name type digest rest; do
        case "$name $rest" in "$1 "*true*) printf %s "$digest"; return ;; esac
    done <<END
$table
END
}
missing=
while read -r name id manifest; do
    found=$(digest_of "$name")
    { [ -n "$found" ] && { [ "$found" = "$manifest" ] || [ "$found" = "$(digest_of "$id")" ]; }; } || missing=1
done <<END
$wanted
END
[ -n "$missing" ] || exit 0
echo ---
# Beside the other one, for each start of ctr costs time.
(ctr images import --help | grep -q -e ' --local ') >/dev/null &
ctr snapshots ls || exit 1
wait $! && echo --- local
exit 0
"#;

/// Imports an archive from its input. The image comes in under its id `$4`, the
/// name by which the kubelet's part of containerd knows it anyway, and gets the
/// other names only once it is unpacked: a name never leads to an image that
/// can't run. `$2` are flags, `$3` is empty if the id was there before.
const IMPORT: &str = r#"
flags=$2 new=$3 id=$4
shift 4
fail() {
    [ -z "$new" ] || ctr images rm "$id" >/dev/null 2>&1
    exit 1
}
trap fail HUP INT TERM
ctr images import $flags - >/dev/null || fail
unpacked "$id" || { echo "it took the archive, but the image is not unpacked" >&2; fail; }
ctr images tag --force "$id" "$@" >/dev/null || fail
"#;

/// Lists one image.
const FIND: &str = r#"
ctr images ls "$2"
"#;

/// Gives a blob.
const CONTENT: &str = r#"
exec ctr content get "$2"
"#;

/// Gives more names to an image that is there.
const TAG: &str = r#"
id=$2
shift 2
ctr images tag --force "$id" "$@" >/dev/null
"#;

/// Whether an image is unpacked, by its name.
const UNPACKED: &str = r#"
unpacked() {
    case $(ctr images check "name==\"$1\"") in *true*) return 0 ;; esac
    return 1
}
"#;

impl Containerd<'_> {
    /// Asks what is there of these images.
    pub(super) async fn observe_by_ctr(&self, wanted: &[Identity]) -> Result<Observed, DeliverError> {
        let line = |identity: &Identity| {
            let about = format!("{} {}", identity.id, identity.manifest.as_deref().unwrap_or("-"));
            identity.names.iter().map(move |name| format!("{name} {about}")).collect::<Vec<_>>()
        };
        let lines: Vec<String> = wanted.iter().flat_map(line).collect();
        let arguments: Vec<String> = [lines.join("\n")].into_iter().chain(filters(wanted)).collect();
        let answer = self.run("list images", &[PRELUDE, ASK].concat(), &arguments).await?;
        Ok(read_answer(&answer))
    }

    /// The digest of the manifest or index that a name stands for.
    pub(crate) async fn target(&self, name: &str) -> Result<Option<String>, DeliverError> {
        let answer = self.run("list images", &[PRELUDE, FIND].concat(), &[filter(name)]).await?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.and_then(|rest| rest.split_whitespace().nth(1)).map(str::to_owned))
    }

    /// Writes a blob of the content store. Nothing is written where there is no
    /// such.
    pub(crate) async fn content(&self, digest: &str, out: &mut (dyn Write + Send)) -> Result<(), DeliverError> {
        let script = [PRELUDE, CONTENT].concat();
        let process = self.in_time(PATIENCE, self.script(&script, &[digest.to_owned()])).await?;
        let NodeProcess { stdin, mut stdout, mut stderr, ended } = process;
        drop(stdin);
        let mut complained = Vec::new();
        let copied = async {
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = self.in_time(PATIENCE, stdout.read(&mut buffer)).await?;
                if count == 0 {
                    return Ok::<(), DeliverError>(());
                }
                let written = out.write_all(&buffer[..count]);
                written.map_err(|source| DeliverError::Local { doing: "keep content of a node".into(), source })?;
            }
        };
        let (copied, _) = tokio::join!(copied, stderr.read_to_end(&mut complained));
        copied?;
        match self.in_time(PATIENCE, ended.code()).await? {
            0 => Ok(()),
            _ => Err(self.failed("give content", &String::from_utf8_lossy(&complained))),
        }
    }

    /// Gives an image that is there these names.
    pub(super) async fn tag_by_ctr(&self, id: &str, names: &[String]) -> Result<(), DeliverError> {
        let mut arguments = vec![id.to_owned()];
        arguments.extend(names.iter().cloned());
        self.run("name the image", &[PRELUDE, TAG].concat(), &arguments).await.map(|_| ())
    }

    /// Imports the archive that `write` writes, with an image that is called by
    /// its id, and gives it its names. Answers the archive's size in bytes. When
    /// the returned future is dropped, the archive ends early, and containerd
    /// refuses it.
    pub(super) async fn import_by_ctr(
        &self,
        observed: &Observed,
        identity: &Identity,
        progress: &Progress,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<u64, DeliverError> {
        const DOING: &str = "import the image";
        let flags = if observed.can_import_locally { "--local" } else { "" };
        let new = if observed.names.contains(&identity.id) { "" } else { "new" };
        let mut arguments = vec![flags.to_owned(), new.to_owned(), identity.id.clone()];
        arguments.extend(identity.names.iter().cloned());
        let script = [PRELUDE, UNPACKED, IMPORT].concat();
        let process = self.script(&script, &arguments);
        let NodeProcess { mut stdin, mut stdout, mut stderr, ended } = self.in_time(PATIENCE, process).await?;
        let (mut chunk_rx, writer) = pieces(write);
        let send = async move {
            let mut sent = 0;
            while let Some(chunk) = chunk_rx.recv().await {
                tokio::time::timeout(PATIENCE, stdin.write_all(&chunk)).await??;
                sent += chunk.len() as u64;
                progress.add(chunk.len() as u64);
            }
            stdin.shutdown().await?;
            Ok::<u64, io::Error>(sent)
        };
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let (written, sent) = {
            let heard = async { tokio::join!(stdout.read_to_end(&mut said), stderr.read_to_end(&mut complained)).1 };
            let sending = async { tokio::join!(writer, send) };
            tokio::pin!(heard, sending);
            let mut silent = false;
            let sent = loop {
                tokio::select! {
                    outcome = &mut sending => break outcome,
                    _ = &mut heard, if !silent => silent = true,
                }
            };
            if !silent {
                self.in_time(UNPACKING, heard).await?;
            }
            sent
        };
        let code = self.in_time(PATIENCE, ended.code()).await?;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        if code != 0 {
            // A broken pipe is only how its failure looks from here, but trouble
            // with a file of ours is the cause of a cut archive.
            return match written {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.io("send the image to", error)),
                _ => match sent {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(self.silent()),
                    _ => Err(self.failed(DOING, &String::from_utf8_lossy(&complained))),
                },
            };
        }
        written.map_err(|error| self.io("send the image to", error))?;
        sent.map_err(|error| self.io("send the image to", error))
    }

    pub(in crate::deliver) async fn run(&self, doing: &'static str, script: &str, arguments: &[String]) -> Result<String, DeliverError> {
        let output = async { self.script(script, arguments).await?.output().await };
        let output = self.in_time(PATIENCE, output).await?;
        if output.code != 0 {
            return Err(self.failed(doing, &output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn script(&self, script: &str, arguments: &[String]) -> io::Result<NodeProcess> {
        let address = self.address.as_deref().unwrap_or_default();
        let fixed = ["-c", script, "sh", address];
        let all: Vec<&str> = fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        self.node.start("sh", &all).await
    }
}

/// Reads what [`ASK`] prints.
fn read_answer(answer: &str) -> Observed {
    let mut observed = Observed::default();
    let mut sections = answer.split("\n---");
    let mut lines = sections.next().unwrap_or_default().lines();
    observed.architecture = architecture(lines.next().unwrap_or_default().trim()).to_owned();
    for line in lines.skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, _, digest, .., unpacked] = words[..] else { continue };
        observed.names.insert(name.to_owned());
        if unpacked == "true" {
            observed.images.insert(name.to_owned(), digest.to_owned());
        }
    }
    let keys = sections.next().unwrap_or_default().lines().skip(2).filter_map(|line| line.split_whitespace().next());
    observed.snapshots = keys.map(str::to_owned).collect();
    observed.can_import_locally = sections.next().is_some();
    observed
}

/// Go's name for what the kernel calls a machine.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "armv6l" | "armv7l" | "armv8l" => "arm",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_sections() {
        let answer = "x86_64\nREF TYPE DIGEST STATUS SIZE UNPACKED \n\
                      docker.io/library/shop:dev application/vnd.x sha256:d1 incomplete (2/5) 1.2 KiB/4.0 MiB true\n\
                      sha256:c1 application/vnd.x sha256:d1 complete (4/4) 20.9 KiB/20.9 KiB false\n\
                      ---\nKEY      PARENT   KIND      \nsha256:a          Committed \nsha256:b sha256:a Committed \n--- local\n";
        let observed = read_answer(answer);
        assert_eq!(observed.architecture, "amd64");
        assert_eq!(observed.images, [("docker.io/library/shop:dev".to_owned(), "sha256:d1".to_owned())].into());
        assert!(observed.names.contains("sha256:c1"));
        assert_eq!(observed.snapshots, ["sha256:a".to_owned(), "sha256:b".to_owned()].into());
        assert!(observed.can_import_locally);
        let nothing = read_answer("aarch64\n\n---\nKEY PARENT KIND\n");
        assert_eq!(nothing, Observed { architecture: "arm64".into(), ..Observed::default() });
        assert_eq!(read_answer(""), Observed::default());
    }
}
