//! Images in files, as bases and as they are.

use super::*;
use crate::image::{Image, Ingredients, Layer, assemble, local_architecture};
use crate::project::{FileMapping, ImageSpec};
use std::process::Command;

/// A folder with a project, a cache, and a place for the base.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["project/static", "runtime", "cache"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("project/static/page"), "page").unwrap();
        std::fs::write(folder.path().join("runtime/lib"), vec![7; 100_000]).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image of files, for this machine.
    fn image(&self, root: &str, cache: &str, architecture: &str, base: Option<&BaseImage>) -> Image {
        let spec = ImageSpec {
            name: root.into(),
            entrypoint: vec![format!("/{root}")],
            labels: [("of".to_owned(), root.to_owned())].into(),
            files: vec![FileMapping { from: ".".into(), to: format!("/{root}") }],
            ..ImageSpec::default()
        };
        let root = self.path(root);
        let ingredients = Ingredients { base, architecture: Some(architecture), ..Ingredients::of(&root) };
        assemble(&self.path(cache), &spec, &ingredients).unwrap()
    }

    /// The runtime's image in a file of the project.
    fn archive(&self, name: &str, architecture: &str) -> Image {
        let image = self.image("runtime", "elsewhere", architecture, None);
        image.write_archive(&[], std::fs::File::create(self.path("project").join(name)).unwrap()).unwrap();
        image
    }

    async fn find(&self, name: &str) -> Result<BaseImage, ImageError> {
        let (cache, root, access) = (self.path("cache"), self.path("project"), Access::default());
        let places = Places { cache: &cache, root: &root, nodes: &[], access: &access };
        find(&places, &Base::File(name.into()), local_architecture()).await.map(Option::unwrap)
    }
}

/// The layer's bytes, as the cache has them.
fn content(layer: &Layer) -> Vec<u8> {
    std::fs::read(&layer.path).unwrap()
}

#[tokio::test]
async fn an_image_upon_a_base_has_its_layers_untouched_and_what_it_hands_down() {
    let place = Place::new();
    let base = place.archive("base.tar", local_architecture());
    let found = place.find("base.tar").await.unwrap();
    assert!(!found.layers[0].path.exists(), "no layer of the base is read for its documents");
    let image = place.image("project", "cache", local_architecture(), Some(&found));
    assert_eq!(image.layers[0].digest, base.layers[0].digest);
    assert_eq!((image.layers.len(), image.chain_ids()[0].clone()), (2, base.chain_ids()[0].clone()));
    assert!(!image.layers[0].path.exists());
    let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/project"]));
    assert_eq!(config["config"]["Labels"], serde_json::json!({"of": "project"}));
    image.obtain(&[]).await.unwrap();
    assert_eq!(content(&image.layers[0]), content(&base.layers[0]));
    // One that is damaged, or of another size, is made again by the next run.
    for damage in [vec![0; usize::try_from(base.layers[0].size).unwrap()], b"cut".to_vec()] {
        std::fs::write(&image.layers[0].path, damage).unwrap();
        place.find("base.tar").await.unwrap().layers[0].obtain().await.unwrap();
        assert_eq!(content(&image.layers[0]), content(&base.layers[0]));
    }
}

#[tokio::test]
async fn two_machines_make_the_same_image() {
    let digests = async || {
        let place = Place::new();
        place.archive("base.tar", local_architecture());
        let found = place.find("base.tar").await.unwrap();
        std::fs::remove_file(place.path("project/base.tar")).unwrap();
        place.image("project", "cache", local_architecture(), Some(&found)).manifest_digest
    };
    assert_eq!(digests().await, digests().await);
}

#[tokio::test]
async fn folders_and_compressed_layers_will_do() {
    let place = Place::new();
    let base = place.archive("base.tar", local_architecture());
    let layout = place.path("project/layout");
    std::fs::create_dir(&layout).unwrap();
    let tar = |arguments: &[&str]| assert!(Command::new("tar").args(arguments).current_dir(&layout).status().unwrap().success());
    tar(&["xf", "../base.tar"]);
    assert_eq!(place.find("layout").await.unwrap().layers[0].digest, base.layers[0].digest);
    // The same with its layer compressed: another blob, the same files.
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let packed = Command::new("gzip").args(["--stdout", "--no-name"]).arg(blob(&base.layers[0].digest)).output().unwrap().stdout;
    let text = String::from_utf8(base.manifest.clone()).unwrap();
    let manifest = text
        .replace(&base.layers[0].digest, &digest(&packed))
        .replace(&format!("\"size\":{}", base.layers[0].size), &format!("\"size\":{}", packed.len()))
        .replace("image.layer.v1.tar", "image.layer.v1.tar+gzip");
    std::fs::write(blob(&digest(&packed)), &packed).unwrap();
    std::fs::write(blob(&digest(manifest.as_bytes())), &manifest).unwrap();
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let index = index
        .replace(&base.manifest_digest, &digest(manifest.as_bytes()))
        .replace(&format!("\"size\":{}", base.manifest.len()), &format!("\"size\":{}", manifest.len()));
    std::fs::write(layout.join("index.json"), index).unwrap();
    let found = place.find("layout").await.unwrap();
    assert_eq!((&found.layers[0].digest, &found.layers[0].diff_id), (&digest(&packed), &base.layers[0].digest));
    let image = place.image("project", "cache", local_architecture(), Some(&found));
    assert_eq!(image.chain_ids()[0], base.chain_ids()[0], "a node that has the files has them");
    image.obtain(&[true, false]).await.unwrap();
    assert_eq!(content(&image.layers[0]), packed);
    // As a whole image, it stays what it is, and the file may go.
    tar(&["cf", "../whole.tar", "."]);
    let whole = import(&place.path("cache"), "web", &place.path("project/whole.tar"), local_architecture()).await.unwrap();
    std::fs::remove_file(place.path("project/whole.tar")).unwrap();
    assert_eq!((&whole.manifest, &whole.config), (&manifest.as_bytes().to_vec(), &base.config));
    assert_eq!(whole.reference, format!("devloop.local/web:{}", &digest(manifest.as_bytes())[7..23]));
    whole.write_archive(&[], std::io::sink()).unwrap();
}

#[tokio::test]
async fn a_tool_that_knows_nothing_of_devloop_reads_it() {
    let place = Place::new();
    place.archive("base.tar", local_architecture());
    let found = place.find("base.tar").await.unwrap();
    let image = place.image("project", "cache", local_architecture(), Some(&found));
    image.obtain(&[]).await.unwrap();
    let archive = place.path("image.tar");
    image.write_archive(&[], std::fs::File::create(&archive).unwrap()).unwrap();
    let Ok(inspected) = Command::new("skopeo").arg("inspect").arg(format!("oci-archive:{}", archive.display())).output() else {
        eprintln!("skipped: needs skopeo");
        return;
    };
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["Digest"], image.manifest_digest);
    assert_eq!(inspected["Layers"], serde_json::json!(image.layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>()));
    assert_eq!((&inspected["Architecture"], &inspected["Labels"]["of"]), (&local_architecture().into(), &"project".into()));
}

#[tokio::test]
async fn what_can_not_be_a_base_is_told() {
    let place = Place::new();
    place.archive("other.tar", "s390x");
    std::fs::write(place.path("project/text"), "no image").unwrap();
    let told = async |name: &str| place.find(name).await.unwrap_err().to_string();
    assert_eq!(told("other.tar").await, format!("oci:other.tar is for s390x, the image is to run on {}", local_architecture()));
    assert!(told("text").await.starts_with("oci:text can't be built upon: "), "{}", told("text").await);
    assert!(told("none.tar").await.starts_with("could not read "), "{}", told("none.tar").await);
    // Its file is gone by the time that a layer is needed.
    place.archive("base.tar", local_architecture());
    let found = place.find("base.tar").await.unwrap();
    std::fs::remove_file(place.path("project/base.tar")).unwrap();
    let gone = found.layers[0].obtain().await.unwrap_err().to_string();
    assert!(gone.starts_with(&format!("could not get layer {} from ", found.layers[0].digest)), "{gone}");
}

#[test]
fn an_index_leads_to_the_platform() {
    let entry = |digest: &str, os: &str, architecture: &str| serde_json::json!({"digest": digest, "platform": {"os": os, "architecture": architecture}});
    let index = serde_json::json!({"manifests": [
        entry("sha256:w", "windows", "amd64"), entry("sha256:x", "unknown", "unknown"), entry("sha256:a", "linux", "arm64"), entry("sha256:b", "linux", "amd64"),
    ]});
    let index = serde_json::to_vec(&index).unwrap();
    assert_eq!(choose("x", &index, "amd64").unwrap().as_deref(), Some("sha256:b"));
    assert_eq!(choose("x", br#"{"config": {"digest": "y"}}"#, "amd64").unwrap(), None);
    assert_eq!(choose("x", &index, "s390x").unwrap_err().to_string(), "x is for amd64, arm64, amd64, the image is to run on s390x");
    assert!(choose("x", b"text", "amd64").is_err());
}
