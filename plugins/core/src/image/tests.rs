use super::*;
use crate::project::FileMapping;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

/// The smallest ELF header that is one (`elf(5)`): 64 bits, little endian.
fn elf(machine: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([2, 0]);
    bytes.extend(machine.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.resize(52, 0);
    bytes.extend([64, 0, 56, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

struct Project {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("shop");
        std::fs::write(&binary, elf(62, b"code")).unwrap();
        std::fs::create_dir(folder.path().join("static")).unwrap();
        Self { folder, binary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("static").join(name)
    }

    fn assemble(&self) -> Result<Image, ImageError> {
        self.assemble_as(&spec())
    }

    fn assemble_as(&self, spec: &ImageSpec) -> Result<Image, ImageError> {
        let ingredients = Ingredients::of(self.folder.path()).with_binary(&self.binary);
        assemble(&self.folder.path().join("cache"), spec, &ingredients)
    }
}

fn spec() -> ImageSpec {
    ImageSpec {
        name: "shop".into(),
        user: Some("65532:65532".into()),
        env: BTreeMap::from([("MODE".into(), "dev".into())]),
        binary: Some("/app/shop".into()),
        files: vec![FileMapping { from: "static".into(), to: "/srv/static".into() }],
        ports: vec![8080],
        ..ImageSpec::default()
    }
}

fn entries(layer: &Layer) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(&layer.path).unwrap());
    let describe = |entry: tar::Entry<std::fs::File>| {
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let link = entry.link_name().unwrap().map(|target| format!(" -> {}", target.display())).unwrap_or_default();
        format!("{:o} {} {}{link}", header.mode().unwrap(), entry.path().unwrap().display(), entry.size())
    };
    archive.entries().unwrap().map(|entry| describe(entry.unwrap())).collect()
}

#[test]
fn an_image_has_what_its_description_says() {
    let project = Project::new();
    std::fs::create_dir(project.path("css")).unwrap();
    std::fs::write(project.path("css/a.css"), "a").unwrap();
    std::fs::write(project.path("run.sh"), "sh").unwrap();
    std::fs::set_permissions(project.path("run.sh"), std::fs::Permissions::from_mode(0o700)).unwrap();
    symlink("css/a.css", project.path("style.css")).unwrap();
    let image = project.assemble().unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(
        entries(&image.layers[0]),
        [
            "755 srv/ 0",
            "755 srv/static/ 0",
            "755 srv/static/css/ 0",
            "644 srv/static/css/a.css 1",
            "755 srv/static/run.sh 2",
            "777 srv/static/style.css 0 -> css/a.css"
        ]
    );
    assert_eq!(entries(&image.layers[1]), ["755 app/ 0", "755 app/shop 68"]);
    assert_eq!(image.reference, format!("devloop.local/shop:{}", &image.manifest_digest[7..23]));
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].take();
    assert_eq!(diff_ids, serde_json::json!(image.layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>()));
    insta::assert_json_snapshot!(config, @r#"
    {
      "architecture": "amd64",
      "config": {
        "Entrypoint": [
          "/app/shop"
        ],
        "Env": [
          "MODE=dev",
          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ],
        "ExposedPorts": {
          "8080/tcp": {}
        },
        "User": "65532:65532"
      },
      "created": "1970-01-01T00:00:00Z",
      "os": "linux",
      "rootfs": {
        "diff_ids": null,
        "type": "layers"
      }
    }
    "#);
}

#[test]
fn an_archive_has_all_blobs_or_those_wanted() {
    let project = Project::new();
    let image = project.assemble().unwrap();
    let names = |include: &[bool]| {
        let mut bytes = Vec::new();
        image.write_archive(include, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(layer::digest(&content), format!("sha256:{hex}"));
            }
            names.push(name);
        }
        names
    };
    assert_eq!(names(&[]).len(), 6);
    assert_eq!(names(&[false, true]).len(), 5);
    assert_eq!(names(&[false, false]).len(), 4);
}

#[test]
fn what_does_not_belong_into_an_image_is_refused() {
    let project = Project::new();
    for (target, fits) in
        [("a", true), ("./a/../b", true), ("/etc/passwd", false), ("../shop", false), ("a/../../b", false), ("../static/a", false)]
    {
        let link = project.path("link");
        symlink(target, &link).unwrap();
        assert_eq!(project.assemble().is_ok(), fits, "{target}");
        std::fs::remove_file(&link).unwrap();
    }
    nix::unistd::mkfifo(&project.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(project.assemble(), Err(ImageError::Refused { .. })));
    std::fs::remove_dir_all(project.path("")).unwrap();
    assert!(matches!(project.assemble(), Err(ImageError::NotFound { .. })));
    symlink("/etc", project.folder.path().join("static")).unwrap();
    assert!(matches!(project.assemble(), Err(ImageError::Refused { .. })));
}

#[test]
fn a_program_must_be_one_for_linux() {
    let project = Project::new();
    std::fs::write(&project.binary, "#!/bin/sh").unwrap();
    assert!(matches!(project.assemble(), Err(ImageError::Binary { .. })));
    std::fs::write(&project.binary, elf(183, b"")).unwrap();
    assert_eq!(project.assemble().unwrap().architecture, "arm64");
    // This test itself is linked dynamically.
    std::fs::copy(std::env::current_exe().unwrap(), &project.binary).unwrap();
    assert!(project.assemble().unwrap_err().to_string().contains("linked dynamically"));
}

#[test]
fn a_damaged_cached_layer_does_no_harm() {
    let project = Project::new();
    let image = project.assemble().unwrap();
    std::fs::write(&image.layers[1].path, "damage").unwrap();
    assert!(image.write_archive(&[], std::io::sink()).is_err());
    assert_eq!(project.assemble().unwrap(), image);
    image.write_archive(&[], std::io::sink()).unwrap();
}

#[test]
fn chain_ids_are_those_of_the_specification() {
    let project = Project::new();
    let image = project.assemble().unwrap();
    let chain = image.chain_ids();
    assert_eq!(chain[0], image.layers[0].digest);
    assert_eq!(chain[1], layer::digest(format!("{} {}", image.layers[0].digest, image.layers[1].digest).as_bytes()));
}

#[test]
fn a_single_binary_keeps_its_reference() {
    let project = Project::new();
    let image = single_binary(&project.folder.path().join("cache"), "devloop.local/pause:3.10", &project.binary, "/pause").unwrap();
    assert_eq!(image.reference, "devloop.local/pause:3.10");
    assert_eq!(entries(&image.layers[0]), ["755 pause 68"]);
}

#[test]
fn files_that_come_and_go_are_told_apart_from_other_trouble() {
    let project = Project::new();
    std::fs::write(project.path("data"), vec![7; 1 << 16]).unwrap();
    let going = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::remove_file(project.path("data"));
                let _ = std::fs::write(project.path("data"), vec![7; 1 << 15]);
            }
        });
        for _ in 0..200 {
            if let Err(error) = project.assemble() {
                assert!(error.is_transient(), "{error}");
            }
        }
        going.store(false, std::sync::atomic::Ordering::Relaxed);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_order_and_time_of_writing_leave_no_trace(
        files in proptest::collection::btree_map("[a-z]{1,3}(/[a-z]{120})?", proptest::collection::vec(any::<u8>(), 0..600), 0..8),
        seed in any::<u64>(),
    ) {
        // A file in the way of a folder of the same name.
        prop_assume!(!files.keys().any(|name| name.split_once('/').is_some_and(|(folder, _)| files.contains_key(folder))));
        let mut order: Vec<_> = files.iter().collect();
        let (one, other) = (Project::new(), Project::new());
        for project in [&one, &other] {
            for (name, content) in &order {
                std::fs::create_dir_all(project.path(name).parent().unwrap()).unwrap();
                std::fs::write(project.path(name), content).unwrap();
            }
            order.reverse();
            let by = usize::try_from(seed % 8).unwrap() % order.len().max(1);
            order.rotate_left(by);
        }
        let (image, again) = (one.assemble().unwrap(), other.assemble().unwrap());
        prop_assert_eq!(&image.manifest_digest, &again.manifest_digest);
        let mut archive = tar::Archive::new(std::fs::File::open(&image.layers[0].path).unwrap());
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let name = entry.path().unwrap().strip_prefix("srv/static").unwrap().display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                found.insert(name, content);
            }
        }
        prop_assert_eq!(found, files);
    }
}

#[test]
fn what_changes_most_often_is_the_uppermost_unless_layers_overlap() {
    let project = Project::new();
    let folder = |name: &str, size: usize| {
        std::fs::create_dir(project.folder.path().join(name)).unwrap();
        std::fs::write(project.folder.path().join(name).join("file"), vec![b'x'; size]).unwrap();
        FileMapping { from: name.into(), to: format!("/{name}") }
    };
    let spec = ImageSpec { files: vec![folder("page", 10), folder("large", 1 << 21)], ..spec() };
    std::fs::write(&project.binary, elf(62, &[b'x'; 1 << 20])).unwrap();
    let before = project.assemble_as(&spec).unwrap();
    assert!(before.layers[0].size > 1 << 21 && before.layers[1].size < 1 << 12 && before.layers[2].size > 1 << 20);
    // A changed binary leaves the stack below it as it is.
    std::fs::write(&project.binary, elf(62, b"other")).unwrap();
    let after = project.assemble_as(&spec).unwrap();
    assert_eq!(before.chain_ids()[..2], after.chain_ids()[..2]);
    assert_ne!(before.chain_ids()[2], after.chain_ids()[2]);
    // A mapping that has the binary's path must stay below it, and all in their order.
    let first = FileMapping { from: "page/file".into(), to: "/app/shop".into() };
    let spec = ImageSpec { files: vec![first, FileMapping { from: "large".into(), to: "/large".into() }], ..spec };
    let image = project.assemble_as(&spec).unwrap();
    assert!(image.layers[0].size < image.layers[1].size);
}
