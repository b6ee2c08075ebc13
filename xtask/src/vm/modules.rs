//! Kernel modules: the wanted ones with all they depend on, in the order to load them.
//!
//! Packages come without `modules.dep` (it is made at installation), so dependencies are read where `depmod` would:
//! from each module's own `.modinfo` strings.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::step;

/// A module, ready to load.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name as the kernel spells it.
    pub(super) name: String,
    /// The uncompressed object.
    pub(super) image: Vec<u8>,
}

/// Collects `wanted` and their dependencies from `directory` (`lib/modules/<release>`). What is built in is left out.
pub(super) fn in_load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let builtin = fs::read_to_string(directory.join("modules.builtin"))
        .with_context(|| format!("cannot read modules.builtin in {}", directory.display()))?;
    let mut index = Index {
        files: BTreeMap::new(),
        builtin: builtin.lines().map(|path| name(Path::new(path))).collect(),
    };
    index.scan(&directory.join("kernel"))?;
    let mut loaded = Vec::new();
    for module in wanted {
        index.add(module, &mut loaded)?;
    }
    Ok(loaded)
}

#[derive(Debug)]
struct Index {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

// === impl Index ===

impl Index {
    fn scan(&mut self, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot list {}", directory.display()))?
                .path();
            if path.is_dir() {
                self.scan(&path)?;
            } else {
                self.files.insert(name(&path), path);
            }
        }
        Ok(())
    }

    /// Adds `module` behind what it depends on; does nothing if it is there already.
    fn add(&self, module: &str, loaded: &mut Vec<Module>) -> Result<()> {
        if self.builtin.iter().any(|builtin| builtin == module) || loaded.iter().any(|known| known.name == module) {
            return Ok(());
        }
        let Some(path) = self.files.get(module) else {
            bail!("this kernel has no module `{module}`");
        };
        let image = read(path)?;
        for dependency in dependencies(&image) {
            self.add(&dependency, loaded)?;
        }
        loaded.push(Module {
            name: module.to_owned(),
            image,
        });
        Ok(())
    }
}

/// `net/sched/act_bpf.ko.xz` is `act_bpf`; files may spell `-` where the kernel spells `_`.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = step::command("xz")
            .args(["--decompress", "--stdout"])
            .arg(path)
            .output();
        let output = output.with_context(|| format!("cannot start xz to decompress {}", path.display()))?;
        if !output.status.success() {
            bail!(
                "cannot decompress {}: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The `depends=` string of a module's `.modinfo`: names separated by commas, often none.
fn dependencies(image: &[u8]) -> Vec<String> {
    image
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(|names| {
            String::from_utf8_lossy(names)
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{dependencies, in_load_order};

    fn kernel(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kernel/net")).unwrap();
        fs::write(root.path().join("modules.builtin"), "kernel/net/ipv6/ipv6.ko\n").unwrap();
        for (file, depends) in modules {
            fs::write(
                root.path().join("kernel/net").join(file),
                format!("ELF\0license=GPL\0depends={depends}\0"),
            )
            .unwrap();
        }
        root
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let root = kernel(&[
            ("bridge.ko", "stp,llc"),
            ("stp.ko", "llc"),
            ("llc.ko", ""),
            ("br-extra.ko", "bridge"),
        ]);
        let modules = in_load_order(root.path(), &["br_extra", "bridge"]).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "bridge", "br_extra"]);
    }

    #[test]
    fn a_builtin_module_needs_no_file() {
        assert!(in_load_order(kernel(&[]).path(), &["ipv6"]).unwrap().is_empty());
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = in_load_order(kernel(&[]).path(), &["veth"]).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no module `veth`");
    }

    #[test]
    fn a_module_without_the_string_depends_on_nothing() {
        assert!(dependencies(b"ELF\0license=GPL\0").is_empty());
    }
}
