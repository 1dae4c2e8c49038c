//! Against a containerd of our own, where one is installed and may be started;
//! elsewhere those tests say so and pass.

use super::*;
use crate::image;
use std::process::{Child, Command, Stdio};

/// A containerd with folders of its own, gone when dropped.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
    node: Node,
}

impl Server {
    async fn start() -> Option<Self> {
        let installed = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !nix::unistd::geteuid().is_root() || !installed("containerd") || !installed("ctr") || !installed("nsenter") {
            eprintln!("skipped: needs root, containerd and nsenter");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let config = format!(
            "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{path}/socket\"\n"
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("containerd").arg("--config").arg(folder.path().join("config.toml")).stderr(log).spawn().unwrap();
        // This process stands for the node: its namespaces are ours.
        let init_pid = i32::try_from(std::process::id()).unwrap();
        let node = Node::embedded("test", init_pid);
        let server = Self { folder, child, node };
        for _ in 0..200 {
            if server.containerd().snapshots().await.is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("containerd did not start: {}", std::fs::read_to_string(server.folder.path().join("log")).unwrap());
    }

    fn containerd(&self) -> Containerd<'_> {
        Containerd::at(&self.node, self.folder.path().join("socket").display().to_string())
    }

    /// An image of two layers: a folder and a binary.
    fn image(&self, files: &str, payload: &str) -> Image {
        let project = self.folder.path().join("project");
        std::fs::create_dir_all(project.join("static")).unwrap();
        std::fs::write(project.join("static/file"), files).unwrap();
        std::fs::write(project.join("binary"), program(62, payload)).unwrap();
        image::assemble(&self.folder.path().join("cache"), &spec(), &project, &project.join("binary")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Looks like a program (`elf(5)`), which is all that is needed here.
fn program(machine: u8, payload: &str) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(64, 0);
    (bytes[16], bytes[18], bytes[20], bytes[52], bytes[54], bytes[58]) = (2, machine, 1, 64, 56, 64);
    bytes.extend(payload.as_bytes());
    bytes
}

fn spec() -> crate::project::ImageSpec {
    crate::project::ImageSpec {
        name: "shop".into(),
        base: crate::project::Base::Scratch,
        user: None,
        entrypoint: vec![],
        cmd: vec![],
        env: Default::default(),
        workdir: None,
        binary: "/app/shop".into(),
        files: vec![crate::project::FileMapping { from: "static".into(), to: "/srv".into() }],
        ports: vec![],
    }
}

fn only_here() -> bool {
    cfg!(target_arch = "x86_64")
}

#[tokio::test]
async fn only_what_is_missing_is_sent_and_nothing_twice() {
    let Some(server) = Server::start().await.filter(|_| only_here()) else { return };
    let containerd = server.containerd();
    let first = deliver(&containerd, &server.image("one", "a")).await.unwrap();
    assert_eq!((first.sent_layers, first.total_layers, first.already_present), (2, 2, false));
    let again = deliver(&containerd, &server.image("one", "a")).await.unwrap();
    assert_eq!((again.sent_bytes, again.already_present), (0, true));
    let changed = deliver(&containerd, &server.image("one", "b")).await.unwrap();
    assert_eq!((changed.sent_layers, changed.already_present), (1, false));
    assert!(changed.sent_bytes < first.sent_bytes);
    // A change below changes all stacks above it.
    assert_eq!(deliver(&containerd, &server.image("two", "b")).await.unwrap().sent_layers, 2);
}

#[tokio::test]
async fn a_partial_archive_that_is_refused_is_followed_by_the_whole() {
    let Some(server) = Server::start().await.filter(|_| only_here()) else { return };
    let containerd = server.containerd();
    let image = server.image("one", "a");
    // As if the snapshot went away between question and import.
    assert!(matches!(send(&containerd, &image, &[false, true]).await, Err(DeliverError::Containerd { .. })));
    // containerd names the image all the same; that must not be taken for success.
    assert_eq!(containerd.image_digest(&image.reference).await.unwrap().as_ref(), Some(&image.manifest_digest));
    let delivery = deliver(&containerd, &image).await.unwrap();
    assert_eq!((delivery.sent_layers, delivery.already_present), (2, false));
}

#[tokio::test]
async fn a_delivery_that_fails_leaves_no_image() {
    let Some(server) = Server::start().await.filter(|_| only_here()) else { return };
    let containerd = server.containerd();
    let image = server.image("one", "a");
    std::fs::remove_file(&image.layers[1].path).unwrap();
    assert!(matches!(deliver(&containerd, &image).await, Err(DeliverError::Io { .. })));
    assert_eq!(containerd.image_digest(&image.reference).await.unwrap(), None);
    let other = server.image("one", "a");
    drop(tokio::time::timeout(Duration::from_millis(1), deliver(&containerd, &other)).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!observe(&containerd, &other).await.unwrap().is_ready(&other));
}

#[tokio::test]
async fn archives_of_others_are_loaded_when_they_are_whole() {
    let Some(server) = Server::start().await.filter(|_| only_here()) else { return };
    let containerd = server.containerd();
    let image = server.image("one", "a");
    let path = server.folder.path().join("image.tar");
    image.write_archive(&[], std::fs::File::create(&path).unwrap()).unwrap();
    assert_eq!(load(&containerd, &path).await.unwrap().concat(), image.reference);
    containerd.remove(&image.reference).await;
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 100, whole.len() / 3, whole.len() / 2, whole.len() - 3000] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(load(&containerd, &path).await, Err(DeliverError::NotAnImage { .. })), "{length}");
    }
    assert_eq!(containerd.image_digest(&image.reference).await.unwrap(), None);
}

#[tokio::test]
async fn a_node_that_is_gone_is_told_from_a_failing_one() {
    let mut child = Command::new("true").spawn().unwrap();
    let init_pid = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    let node = Node::embedded("dev", init_pid);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binary"), program(62, "")).unwrap();
    let image = image::single_binary(folder.path(), "devloop.local/pause:1", &folder.path().join("binary"), "/pause").unwrap();
    if only_here() {
        assert_eq!(to_node(&node, &image).await.unwrap_err().to_string(), "the embedded node of \"dev\" is not running");
    }
}

#[tokio::test]
async fn a_foreign_architecture_is_refused_before_anything_is_asked() {
    let node = Node::embedded("dev", 0);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binary"), program(243, "")).unwrap();
    let image = image::single_binary(folder.path(), "devloop.local/pause:1", &folder.path().join("binary"), "/pause").unwrap();
    let error = to_node(&node, &image).await.unwrap_err();
    assert!(error.to_string().starts_with("devloop.local/pause:1 is for riscv64, the node is"), "{error}");
}

#[test]
fn a_docker_archive_is_understood() {
    let write = |layers: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.tar");
        let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
        let mut add = |name: &str, content: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        };
        add("c.json", r#"{"architecture":"amd64","os":"linux"}"#);
        add("manifest.json", r#"[{"Config":"c.json","RepoTags":["shop:1"],"Layers":["a/layer.tar"]}]"#);
        layers.iter().for_each(|layer| add(layer, "layer"));
        builder.finish().unwrap();
        (folder, path)
    };
    let (_folder, path) = write(&["a/layer.tar"]);
    let summary = archive::inspect(&path).unwrap();
    assert_eq!((summary.images[0].name.as_str(), summary.images[0].architectures[0].as_str()), ("shop:1", "amd64"));
    assert!(!summary.needs_base_name());
    let (_folder, path) = write(&[]);
    assert!(archive::inspect(&path).unwrap_err().to_string().ends_with("layer a/layer.tar is missing"));
}
