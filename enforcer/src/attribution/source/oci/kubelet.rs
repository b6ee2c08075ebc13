//! What the kubelet keeps for a pod: the token of its service account, which it mounts into the pod's containers, and which
//! says whose it is.
//!
//! The kubelet's API would tell the same, to who has a certificate and a permission for it in the cluster; the CRI does not
//! know service accounts. Who makes a pod can have something else mounted in the token's place. So only what names this
//! very pod counts, by the UID that nobody knows before it is made; and which account that is decides nothing.

use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::file::{Directory, Refused, Trust};
use crate::attribution::kubernetes::Pod;

/// How many of a pod's volumes are looked into.
const MOST_VOLUMES: usize = 16;

/// Where a pod's volumes are that the kubelet fills.
const VOLUMES: &str = "volumes/kubernetes.io~projected";

/// The link to what is in a volume now, and the token's file there.
const CONTENT: &str = "..data";
const TOKEN: &str = "token";

/// The kubelet's directory.
#[derive(Clone, Debug)]
pub(super) struct Kubelet {
    pub(super) directory: PathBuf,
    pub(super) trust: Trust,
}

/// What a token says, as far as it matters. What makes it a secret is not kept.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    of: Of,
}

#[derive(Deserialize)]
struct Of {
    namespace: String,
    pod: Object,
    serviceaccount: Object,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    #[serde(default)]
    uid: String,
}

// === impl Kubelet ===

impl Kubelet {
    /// The service account of a pod, if there is a token that tells.
    pub(super) fn service_account(&self, pod: &Pod) -> Result<Option<String>, Refused> {
        let path = self.directory.join("pods").join(pod.uid()).join(VOLUMES);
        let Some(volumes) = self.trust.open(&path)? else {
            return Ok(None);
        };
        let mut names = volumes.names()?;
        names.sort_unstable();
        for name in names.iter().take(MOST_VOLUMES) {
            if let Some(volume) = volumes.directory(name)?
                && let Some(token) = token(&volume)?
                && let Some(account) = account(&token, pod)
            {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }
}

fn token(volume: &Directory) -> Result<Option<Vec<u8>>, Refused> {
    let Some(content) = volume.link(OsStr::new(CONTENT))? else {
        return Ok(None);
    };
    let Some(content) = beside(&content) else {
        return Ok(None);
    };
    let Some(content) = volume.directory(content)? else {
        return Ok(None);
    };
    // The kubelet gives the file to the user whom the containers run as; they see it read-only.
    let token = content.read_of_anyone(OsStr::new(TOKEN))?;
    Ok(token.map(|token| token.bytes))
}

/// The name that a link leads to, if that is beside it.
fn beside(link: &OsString) -> Option<&OsStr> {
    let mut components = Path::new(link).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => Some(name),
        _ => None,
    }
}

/// The service account a token is of, if it is of this pod.
fn account(token: &[u8], pod: &Pod) -> Option<String> {
    let claims = token.split(|byte| *byte == b'.').nth(1)?;
    let Claims { of } = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims).ok()?).ok()?;
    let account = of.serviceaccount.name;
    pod.is(&of.namespace, &of.pod.name, &of.pod.uid, &account)
        .then_some(account)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink},
        path::{Path, PathBuf},
    };

    use data_encoding::BASE64URL_NOPAD;
    use serde_json::json;
    use tempfile::TempDir;

    use super::{Kubelet, Trust};
    use crate::attribution::kubernetes::Pod;

    const UID: &str = "aaaa2b4a-f398-41c0-928b-049e1cc4ec40";

    fn pod() -> Pod {
        let annotation = |key: &str| match key {
            "io.kubernetes.cri.sandbox-name" => Some("web-0"),
            "io.kubernetes.cri.sandbox-namespace" => Some("shop"),
            _ => None,
        };
        let cgroup = format!("/kubepods/pod{UID}/x");
        Pod::of(annotation, Path::new(&cgroup)).unwrap().unwrap()
    }

    fn token(namespace: &str, name: &str, uid: &str, account: &str) -> String {
        let claims = json!({
            "aud": ["https://kubernetes.default.svc"],
            "iss": "https://kubernetes.default.svc",
            "kubernetes.io": {
                "namespace": namespace,
                "pod": { "name": name, "uid": uid },
                "serviceaccount": { "name": account, "uid": "cccc2b4a-f398-41c0-928b-049e1cc4ec40" },
            },
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let encoded = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        format!("eyJhbGciOiJSUzI1NiJ9.{encoded}.c2lnbmF0dXJl")
    }

    struct Host {
        directory: TempDir,
    }

    impl Host {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            Self { directory }
        }

        /// A volume as the kubelet makes it: what is in it now is what a link leads to.
        fn volume(&self, name: &str, token: &str) -> PathBuf {
            let volumes = format!("pods/{UID}/volumes/kubernetes.io~projected/{name}");
            let volume = self.directory.path().join(volumes);
            let content = volume.join("..2026_11_22_10_00_00.123456789");
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&content)
                .unwrap();
            fs::set_permissions(&volume, fs::Permissions::from_mode(0o1777)).unwrap();
            fs::write(content.join("token"), token).unwrap();
            symlink(content.file_name().unwrap(), volume.join("..data")).unwrap();
            symlink("..data/token", volume.join("token")).unwrap();
            volume
        }

        fn told(&self) -> Option<String> {
            let kubelet = Kubelet {
                directory: self.directory.path().to_owned(),
                trust: Trust::own(),
            };
            kubelet.service_account(&pod()).unwrap()
        }
    }

    #[test]
    fn a_pods_token_tells_its_service_account() {
        let host = Host::new();
        assert_eq!(host.told(), None);
        host.volume("config", "no token");
        assert_eq!(host.told(), None);
        host.volume("kube-api-access-abcde", &token("shop", "web-0", UID, "checkout"));
        assert_eq!(host.told().as_deref(), Some("checkout"));
    }

    #[test]
    fn what_is_put_in_a_tokens_place_tells_nothing_of_another() {
        for forged in [
            token("other", "web-0", UID, "admin"),
            token("shop", "web-1", UID, "admin"),
            token("shop", "web-0", "bbbb2b4a-f398-41c0-928b-049e1cc4ec40", "admin"),
            token("shop", "web-0", UID, "Not a name"),
            "a.b.c".to_owned(),
            String::new(),
        ] {
            let host = Host::new();
            host.volume("kube-api-access-abcde", &forged);
            assert_eq!(host.told(), None, "{forged}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_volume() {
        let elsewhere = TempDir::new().unwrap();
        fs::write(elsewhere.path().join("token"), token("shop", "web-0", UID, "checkout")).unwrap();
        for link in [
            elsewhere.path(),
            Path::new(".."),
            Path::new("../other"),
            Path::new("a/b"),
        ] {
            let host = Host::new();
            let volume = host.volume("kube-api-access-abcde", "");
            fs::remove_file(volume.join("..data")).unwrap();
            symlink(link, volume.join("..data")).unwrap();
            assert_eq!(host.told(), None, "{}", link.display());
        }
    }
}
