//! Against a containerd of our own, where one is installed and may be started;
//! elsewhere those tests say so and pass.

use super::package::{Content, Package};
use super::*;
use crate::image;
use std::process::{Child, Command, Stdio};

/// A containerd with folders of its own, gone when dropped.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
    node: Node,
    way: Way,
}

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Api,
    Ctr,
}

/// Each of these tests, by each way.
macro_rules! both_ways {
    ($($name:ident),+ $(,)?) => {
        mod by_api {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Way::Api).await;
            })+
        }
        mod by_ctr {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Way::Ctr).await;
            })+
        }
    };
}

both_ways!(
    only_what_is_missing_is_sent_and_nothing_twice,
    the_same_image_under_another_name_is_only_named,
    a_partial_archive_that_is_refused_leaves_nothing_and_is_followed_by_the_whole,
    a_name_leads_to_the_old_image_until_the_new_one_can_run,
    a_delivery_that_is_dropped_leaves_no_image,
    a_full_disk_is_told_and_leaves_no_image,
    archives_of_others_are_loaded_when_they_are_whole,
    folders_and_compressed_layers_are_loaded,
    nodes_fail_alone,
    a_foreign_architecture_is_refused_by_both_names,
    a_node_gets_its_own_of_several_platforms,
    what_was_delivered_is_listed_and_taken_away_and_nothing_else,
    of_a_base_that_the_node_has_nothing_is_read_or_sent
);

impl Server {
    async fn start(way: Way) -> Option<Self> {
        Self::start_with(way, None).await
    }

    /// With a disk of so many bytes, if given.
    async fn start_with(way: Way, disk: Option<u64>) -> Option<Self> {
        let installed = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !nix::unistd::geteuid().is_root() || !installed("containerd") || !installed("ctr") || !installed("nsenter") {
            eprintln!("skipped: needs root, containerd and nsenter");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        if let Some(bytes) = disk {
            use nix::mount::{MsFlags, mount};
            std::fs::create_dir(folder.path().join("root")).unwrap();
            let options = format!("size={bytes}");
            let mounted = mount(Some("tmpfs"), &folder.path().join("root"), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
            if mounted.is_err() {
                eprintln!("skipped: needs to mount");
                return None;
            }
        }
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
        let server = Self { folder, child, node, way };
        for _ in 0..200 {
            if server.containerd().observe(&[]).await.is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("containerd did not start: {}", std::fs::read_to_string(server.folder.path().join("log")).unwrap());
    }

    fn containerd(&self) -> Containerd<'_> {
        let containerd = Containerd::at(&self.node, self.folder.path().join("socket").display().to_string());
        if self.way == Way::Ctr { containerd.without_api() } else { containerd }
    }

    /// An image of two layers: a folder and a binary.
    fn image(&self, files: &str, payload: &str) -> Image {
        let project = self.folder.path().join("project");
        std::fs::create_dir_all(project.join("static")).unwrap();
        std::fs::write(project.join("static/file"), files).unwrap();
        std::fs::write(project.join("binary"), program(62, payload)).unwrap();
        let binary = project.join("binary");
        let ingredients = image::Ingredients::of(&project).with_binary(&binary);
        image::assemble(&self.folder.path().join("cache"), &spec(), &ingredients).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = nix::mount::umount(&self.folder.path().join("root"));
    }
}

/// The only node's outcome.
async fn outcome(server: &Server, supply: Supply) -> Result<Delivery, DeliverError> {
    let deliveries = spread::deliver(&[server.containerd()], &supply, &Progress::default()).await?;
    deliveries.into_iter().next().unwrap().outcome
}

async fn deliver(server: &Server, image: &Image) -> Result<Delivery, DeliverError> {
    outcome(server, Supply::made(&image.clone().into())).await
}

async fn load_file(server: &Server, path: &Path) -> Result<Delivery, DeliverError> {
    outcome(server, Supply::Archive(open(path).await?)).await
}

/// Names of all images that the server has, ready or not.
async fn names(server: &Server) -> Vec<String> {
    let mut names: Vec<String> = server.containerd().observe(&[]).await.unwrap().names.into_iter().collect();
    names.sort();
    names
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
        binary: Some("/app/shop".into()),
        files: vec![crate::project::FileMapping { from: "static".into(), to: "/srv".into() }],
        ..crate::project::ImageSpec::default()
    }
}

fn only_here() -> bool {
    cfg!(target_arch = "x86_64")
}

async fn only_what_is_missing_is_sent_and_nothing_twice(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let one = server.image("one", "a");
    let first = deliver(&server, &one).await.unwrap();
    assert_eq!((first.sent_layers, first.total_layers, first.already_present), (2, 2, false));
    assert_eq!(names(&server).await, [one.reference.clone(), one.config_digest()]);
    let again = deliver(&server, &server.image("one", "a")).await.unwrap();
    assert_eq!((again.sent_bytes, again.sent_layers, again.already_present), (0, 0, true));
    let changed = deliver(&server, &server.image("one", "b")).await.unwrap();
    assert_eq!((changed.sent_layers, changed.already_present), (1, false));
    assert!(changed.sent_bytes < first.sent_bytes);
    // A change below changes all stacks above it.
    assert_eq!(deliver(&server, &server.image("two", "b")).await.unwrap().sent_layers, 2);
}

async fn the_same_image_under_another_name_is_only_named(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let mut image = server.image("one", "a");
    deliver(&server, &image).await.unwrap();
    image.reference = "docker.io/library/shop:other".into();
    let named = deliver(&server, &image).await.unwrap();
    assert_eq!((named.sent_bytes, named.already_present), (0, false));
    assert!(deliver(&server, &image).await.unwrap().already_present);
}

async fn a_partial_archive_that_is_refused_leaves_nothing_and_is_followed_by_the_whole(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let containerd = server.containerd();
    let image = server.image("one", "a");
    let package = Package::of_image(&image);
    // As if the snapshot went away between question and import.
    let observed = containerd.observe(&[package.identity()]).await.unwrap();
    let sent = spread::send(&containerd, &observed, &package, &[false, true], &Progress::default()).await;
    assert!(matches!(sent, Err(DeliverError::Containerd { .. })), "{sent:?}");
    assert!(names(&server).await.is_empty());
    let delivery = deliver(&server, &image).await.unwrap();
    assert_eq!((delivery.sent_layers, delivery.already_present), (2, false));
}

async fn a_name_leads_to_the_old_image_until_the_new_one_can_run(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let (old, mut new) = (server.image("one", "a"), server.image("two", "b"));
    deliver(&server, &old).await.unwrap();
    new.reference.clone_from(&old.reference);
    std::fs::remove_file(&new.layers[1].path).unwrap();
    assert!(matches!(deliver(&server, &new).await, Err(DeliverError::Io { .. })));
    assert_eq!(names(&server).await, [old.reference.clone(), old.config_digest()]);
    assert!(deliver(&server, &old).await.unwrap().already_present);
}

async fn a_delivery_that_is_dropped_leaves_no_image(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let image = server.image("one", &"payload ".repeat(4 << 20));
    for milliseconds in [1, 40, 80, 120, 160] {
        drop(tokio::time::timeout(Duration::from_millis(milliseconds), deliver(&server, &image)).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let observed = server.containerd().observe(&[Package::of_image(&image).identity()]).await.unwrap();
        assert_eq!(observed.names.len(), observed.images.len(), "after {milliseconds} ms");
    }
    deliver(&server, &image).await.unwrap();
}

async fn a_full_disk_is_told_and_leaves_no_image(way: Way) {
    let Some(server) = Server::start_with(way, Some(24 << 20)).await.filter(|_| only_here()) else { return };
    let small = server.image("one", "a");
    deliver(&server, &small).await.unwrap();
    let large = server.image("one", &"payload ".repeat(2 << 20));
    let full = deliver(&server, &large).await;
    assert!(matches!(full, Err(DeliverError::DiskFull { .. })), "{full:?}");
    assert_eq!(names(&server).await, [small.reference.clone(), small.config_digest()]);
}

async fn archives_of_others_are_loaded_when_they_are_whole(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let image = server.image("one", "a");
    let path = server.folder.path().join("image.tar");
    image.write_archive(&[], std::fs::File::create(&path).unwrap()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 100, whole.len() / 3, whole.len() / 2, whole.len() - 3000] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let cut = load_file(&server, &path).await;
        assert!(matches!(cut, Err(DeliverError::NotAnImage { .. })), "{length}: {cut:?}");
    }
    // One bit of the binary.
    let mut damaged = whole.clone();
    let place = damaged.windows(4).rposition(|window| window == b"\x7fELF").unwrap();
    damaged[place + 60] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = load_file(&server, &path).await.unwrap_err().to_string();
    assert!(error.ends_with("is damaged"), "{error}");
    assert!(names(&server).await.is_empty());
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(load_file(&server, &path).await.unwrap().sent_layers, 2);
    assert!(load_file(&server, &path).await.unwrap().already_present);
    // It is the very image that was made here.
    assert!(deliver(&server, &image).await.unwrap().already_present);
}

async fn folders_and_compressed_layers_are_loaded(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let image = server.image("one", "a");
    let (tar, layout) = (server.folder.path().join("image.tar"), server.folder.path().join("layout"));
    image.write_archive(&[], std::fs::File::create(&tar).unwrap()).unwrap();
    tar::Archive::new(std::fs::File::open(&tar).unwrap()).unpack(&layout).unwrap();
    assert_eq!(load_file(&server, &layout).await.unwrap().sent_layers, 2);
    // The same image as others make it: Docker's layout, layers compressed.
    let mut other = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    let mut layers = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let program = if index == 0 { "gzip" } else { "zstd" };
        let compressed = Command::new(program).arg("-c").arg(&layer.path).output();
        let Ok(compressed) = compressed else { return eprintln!("skipped: needs {program}") };
        layers.push(format!("{index}.tar.x"));
        image::append_file(&mut other, &layers[index], &compressed.stdout).unwrap();
    }
    let config = String::from_utf8(image.config.clone()).unwrap().replace("1970-01-01", "1971-01-01");
    image::append_file(&mut other, "c.json", config.as_bytes()).unwrap();
    let manifest = serde_json::json!([{ "Config": "c.json", "RepoTags": ["shop:zip"], "Layers": layers }]);
    image::append_file(&mut other, "manifest.json", manifest.to_string().as_bytes()).unwrap();
    other.finish().unwrap();
    // Its layers are unpacked already, however they are packed.
    assert_eq!(load_file(&server, &tar).await.unwrap().sent_layers, 0);
    let fresh = Server::start(way).await.unwrap();
    assert_eq!(load_file(&fresh, &tar).await.unwrap().sent_layers, 2);
    assert!(names(&fresh).await.contains(&"docker.io/library/shop:zip".to_owned()));
}

async fn nodes_fail_alone(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let mut child = Command::new("true").spawn().unwrap();
    let init_pid = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    let gone = Node::embedded("gone", init_pid);
    let supply = Supply::made(&server.image("one", "a").into());
    let progress = Progress::default();
    let deliveries = spread::deliver(&[Containerd::of(&gone), server.containerd()], &supply, &progress).await.unwrap();
    assert!(matches!(deliveries[0].outcome, Err(DeliverError::NodeGone { .. })));
    assert_eq!(deliveries[1].outcome.as_ref().unwrap().sent_layers, 2);
    assert!(progress.sent() >= progress.total() && progress.total() > 0);
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

async fn a_foreign_architecture_is_refused_by_both_names(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binary"), program(243, "")).unwrap();
    let image = image::single_binary(folder.path(), "devloop.local/pause:1", &folder.path().join("binary"), "/pause").unwrap();
    let error = deliver(&server, &image).await.unwrap_err();
    assert_eq!(error.to_string(), "devloop.local/pause:1 is for riscv64, the node is amd64");
    let path = folder.path().join("image.tar");
    image.write_archive(&[], std::fs::File::create(&path).unwrap()).unwrap();
    let error = load_file(&server, &path).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} is for riscv64, the node is amd64", path.display()));
    assert!(names(&server).await.is_empty());
}

async fn a_node_gets_its_own_of_several_platforms(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let own = server.image("one", "a");
    let foreign = Image { architecture: "riscv64".into(), manifest_digest: "sha256:foreign".into(), ..server.image("two", "b") };
    let set = ImageSet::of("shop", vec![foreign.clone(), own.clone()]).unwrap();
    let delivered = outcome(&server, Supply::made(&set)).await.unwrap();
    assert_eq!((delivered.sent_layers, delivered.total_layers), (2, 2));
    let there = server.containerd().target(&set.reference).await.unwrap();
    assert_eq!(there.as_deref(), Some(own.manifest_digest.as_str()));
    assert!(outcome(&server, Supply::made(&set)).await.unwrap().already_present);
    let others = ImageSet::of("shop", vec![Image { architecture: "arm64".into(), ..foreign.clone() }, foreign]).unwrap();
    let error = outcome(&server, Supply::made(&others)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} is for arm64, riscv64, the node is amd64", others.reference));
}

/// An archive as `docker save` of Docker 20.10 writes it.
fn docker_archive(layers: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut add = |name: &str, content: &str| image::append_file(&mut builder, name, content.as_bytes()).unwrap();
    let diff_id = image::digest(b"layer");
    add("c.json", &format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#));
    add("manifest.json", r#"[{"Config":"c.json","RepoTags":["shop:1"],"Layers":["a/layer.tar"]}]"#);
    layers.iter().for_each(|layer| add(layer, "layer"));
    builder.finish().unwrap();
    (folder, path)
}

#[test]
fn a_docker_archive_is_understood_and_keeps_its_image_id() {
    let (_folder, path) = docker_archive(&["a/layer.tar"]);
    let package = Archive::open(&path, archive::Naming::Required).unwrap().for_architecture("amd64").unwrap().remove(0);
    assert_eq!(package.names, ["docker.io/library/shop:1"]);
    assert!(matches!(package.layers[0].content, Some(Content::Part { .. })));
    package.verify(&[true]).unwrap();
    // The same bytes, the same manifest: nobody's clock is in it.
    assert_eq!(
        package.identity(),
        Archive::open(&path, archive::Naming::Required).unwrap().for_architecture("amd64").unwrap()[0].identity()
    );
    let (_folder, path) = docker_archive(&[]);
    assert!(Archive::open(&path, archive::Naming::Required).unwrap_err().to_string().ends_with("layer a/layer.tar is missing"));
}

#[test]
fn an_archive_that_was_cut_short_never_ends_well() {
    let (_folder, path) = docker_archive(&["a/layer.tar"]);
    let package = Archive::open(&path, archive::Naming::Required).unwrap().for_architecture("amd64").unwrap().remove(0);
    let mut whole = Vec::new();
    package.write(&[true], &mut whole).unwrap();
    let index = whole.windows(10).position(|window| window == b"index.json").unwrap();
    let last = whole[..index].windows(5).filter(|window| window == b"ustar").count();
    let all = whole.windows(5).filter(|window| window == b"ustar").count();
    assert_eq!(last + 1, all, "the index is the last entry");
}

async fn what_was_delivered_is_listed_and_taken_away_and_nothing_else(way: Way) {
    let Some(server) = Server::start(way).await else { return };
    let (one, two) = (server.image("static", "one"), server.image("static", "two"));
    deliver(&server, &one).await.unwrap();
    deliver(&server, &two).await.unwrap();
    // Somebody else's name for the first, and an image that is nobody's of ours.
    let foreign = Image { reference: "docker.io/library/other:1".into(), ..one.clone() };
    deliver(&server, &foreign).await.unwrap();
    let stored = inventory::list_on(&server.containerd(), &[]).await.unwrap();
    let mut expected: Vec<(String, String, String, u64)> = [&one, &two]
        .map(|image| {
            let bytes = image.layers.iter().map(|layer| layer.size).sum();
            (image.reference.clone(), image.manifest_digest.clone(), image.config_digest(), bytes)
        })
        .into();
    expected.sort();
    let found: Vec<_> = stored.iter().map(|image| (image.name.clone(), image.digest.clone(), image.id.clone(), image.bytes)).collect();
    assert_eq!(found, expected);
    let with_pushed = inventory::list_on(&server.containerd(), std::slice::from_ref(&one.manifest_digest)).await.unwrap();
    assert_eq!(with_pushed.len(), 3);
    inventory::remove_from(&server.containerd(), &[one.reference.clone(), two.reference.clone(), "devloop.local/gone:1".into()])
        .await
        .unwrap();
    // The first still has another name, and so its id.
    let mut left = vec![foreign.reference.clone(), one.config_digest()];
    left.sort();
    assert_eq!(names(&server).await, left);
    assert!(deliver(&server, &foreign).await.unwrap().already_present, "it is whole");
    // It is sent again as a whole: nothing is thought to be there that isn't.
    assert_eq!(deliver(&server, &two).await.unwrap().sent_layers, 1);
    assert!(deliver(&server, &one).await.unwrap().sent_bytes == 0);
}

/// Where nothing can be had.
#[derive(Debug)]
struct Nothing;

impl image::Supplier for Nothing {
    fn supply<'a>(
        &'a self,
        _: &'a image::Layer,
        _: &'a mut image::Receiving,
    ) -> futures::future::BoxFuture<'a, Result<(), image::Unobtainable>> {
        Box::pin(async { Err("there is nothing".into()) })
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
}

async fn of_a_base_that_the_node_has_nothing_is_read_or_sent(way: Way) {
    let Some(server) = Server::start(way).await.filter(|_| only_here()) else { return };
    let below = server.image("one", "a");
    deliver(&server, &below).await.unwrap();
    let cache = server.folder.path().join("another cache");
    let store = image::Store::open(&cache).unwrap();
    let supplier: std::sync::Arc<dyn image::Supplier> = std::sync::Arc::new(Nothing);
    let look = async |name: &str| image::source::on_node(&store, "cluster:x", name, &server.containerd(), "amd64", &supplier).await;
    assert!(look("devloop.local/none:1").await.unwrap().is_none());
    let found = look(&below.reference).await.unwrap().unwrap();
    let project = server.folder.path().join("project");
    std::fs::write(project.join("static/file"), "not what the base has").unwrap();
    let spec = crate::project::ImageSpec { binary: None, ..spec() };
    let upon = image::assemble(&cache, &spec, &image::Ingredients { base: Some(&found), ..image::Ingredients::of(&project) }).unwrap();
    assert!(upon.layers[..2].iter().map(|layer| &layer.digest).eq(below.layers.iter().map(|layer| &layer.digest)));
    let delivered = deliver(&server, &upon).await.unwrap();
    assert_eq!((delivered.sent_layers, delivered.total_layers), (1, 3));
    assert!(upon.layers[..2].iter().all(|layer| !layer.path.exists()));
    // The node's content is what it should be, where it keeps it.
    let mut content = Vec::new();
    server.containerd().content(&below.layers[1].digest, &mut content).await.unwrap();
    assert!(content == std::fs::read(&below.layers[1].path).unwrap());
    let missing = server.containerd().content(&image::digest(b"none"), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(missing, DeliverError::Containerd { .. }), "{missing}");
    // Another node lacks the base, and there is nowhere to have it from.
    let Some(other) = Server::start(way).await else { return };
    let error = crate::ui::render_error(&deliver(&other, &upon).await.unwrap_err().into());
    assert!(error.contains("lacks layers of its base") && error.contains("there is nothing"), "{error}");
    assert!(names(&other).await.is_empty());
}
