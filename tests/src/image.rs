//! The image of containers: what a registry would give, as an archive that engines load from a file. It has only links into
//! `/usr`, which is this machine's.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{docker::run, rootfs::link_into_usr, scene::Scene};

/// What engines call it.
pub(crate) const NAME: &str = "localhost/lab:latest";

/// Where it is made, in a scene, and the archive it ends up as.
const DIRECTORY: &str = "/run/image";
const ARCHIVE: &str = "/run/image.tar";

/// Makes the archive, and returns its path in the scene.
pub(crate) fn make(scene: &Scene) -> Result<&'static str> {
    let directory = scene.path(DIRECTORY);
    let tree = directory.join("tree");
    fs::create_dir_all(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
    link_into_usr(&tree)?;
    tar(&tree, &directory.join("layer.tar"), &["."])?;
    let layer = run(Command::new("sha256sum").arg(directory.join("layer.tar")))?;
    let digest = layer.split(' ').next().unwrap_or_default();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    write(
        &directory.join("config.json"),
        &json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        }),
    )?;
    write(
        &directory.join("manifest.json"),
        &json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]),
    )?;
    tar(
        &directory,
        &scene.path(ARCHIVE),
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(ARCHIVE)
}

fn tar(directory: &Path, archive: &Path, files: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("--create").arg("--file").arg(archive);
    run(command.arg("--directory").arg(directory).args(files)).map(drop)
}

fn write(path: &Path, content: &Value) -> Result<()> {
    fs::write(path, content.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
