//! A scene's tasks and the enforcer's configuration for them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::View;
use crate::http::Response;

/// A task: its cgroup, its credentials, and the secret that stands for them.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name.
    pub name: String,
    /// The cgroup, relative to the scene's own.
    pub cgroup: PathBuf,
    /// The credential ID.
    pub credential_id: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The secret access key.
    pub secret_key: String,
    /// The session token.
    pub session_token: String,
    /// A further line of its section in the configuration.
    line: &'static str,
}

const ACCESS_KEY_ID: &str = "ASIALABLABLABLABLAB0";
const EXPIRATION: &str = "2099-01-02T03:04:05Z";

// === impl Task ===

impl Task {
    pub(super) fn generate(name: &str, cgroup: PathBuf, line: &'static str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            cgroup,
            credential_id: credential_id()?,
            role_arn: format!("arn:aws:iam::111122223333:role/{name}"),
            secret_key: format!("lab-secret-{}", random_hex::<16>()?),
            session_token: format!("lab-token-{}", random_hex::<32>()?),
            line,
        })
    }

    /// The path that fetches the credentials, as the container's environment has it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/v2/credentials/{}", self.credential_id)
    }

    /// The same by the first version of the protocol.
    #[must_use]
    pub fn path_v1(&self) -> String {
        format!("/v1/credentials?id={}", self.credential_id)
    }

    /// The body that the endpoint answers with, byte for byte.
    #[must_use]
    pub fn body(&self) -> String {
        format!(
            r#"{{"RoleArn":"{}","AccessKeyId":"{ACCESS_KEY_ID}","SecretAccessKey":"{}","Token":"{}","Expiration":"{EXPIRATION}"}}"#,
            self.role_arn, self.secret_key, self.session_token
        )
    }

    /// Whether a response is exactly this task's credentials.
    #[must_use]
    pub fn is_served_by(&self, response: &Response) -> bool {
        response.status == 200 && response.body == self.body().as_bytes()
    }

    /// What no log and no audit record may contain.
    #[must_use]
    pub fn secrets(&self) -> [&str; 3] {
        [&self.credential_id, &self.secret_key, &self.session_token]
    }

    /// Where the credentials file is, as the enforcer sees it.
    pub(super) fn credentials_file(&self) -> String {
        format!("/etc/enforcer/{}.json", self.name)
    }

    /// The credentials file: the `credential_process` format.
    pub(super) fn credentials(&self) -> String {
        format!(
            r#"{{"Version":1,"AccessKeyId":"{ACCESS_KEY_ID}","SecretAccessKey":"{}","SessionToken":"{}","Expiration":"{EXPIRATION}"}}"#,
            self.secret_key, self.session_token
        )
    }

    /// What gives the credentials to every task with the role.
    fn role_section(&self) -> String {
        format!(
            r#"
[[role]]
arn = "{}"
credentials-file = "{}"
"#,
            self.role_arn,
            self.credentials_file(),
        )
    }

    fn section(&self, view: &View) -> String {
        format!(
            r#"
[[task]]
name = "{}"
cgroups = ["{}"]
credential-ids = ["{}"]
role-arn = "{}"
credentials-file = "{}"
{}
"#,
            self.name,
            view.name(&self.cgroup).display(),
            self.credential_id,
            self.role_arn,
            self.credentials_file(),
            self.line,
        )
    }
}

/// The enforcer's configuration file. `root` is the cgroup it attaches to.
pub(super) fn configuration(
    root: &Path,
    view: &View,
    [tasks, roles]: [&[Task]; 2],
    [audit, upstream]: [&str; 2],
) -> String {
    let mut text = format!(
        r#"[cgroups]
root = "{}"
host = ["{}", "{}", "{}"]
guarded = []

[audit]
output = "{audit}"

[endpoint]
upstream = "{upstream}"

[sources.docker]
cgroup-parent = "{}"
"#,
        root.display(),
        view.name(super::HOST).display(),
        view.name(super::SERVICE).display(),
        view.name(super::LAB).display(),
        view.name(super::ENGINE).display(),
    );
    text.extend(roles.iter().map(Task::role_section));
    text.extend(tasks.iter().map(|task| task.section(view)));
    text
}

/// A credential ID that nobody owns, of the form real ones have.
pub fn credential_id() -> Result<String> {
    let hex = random_hex::<16>()?;
    let cuts = [0, 8, 12, 16, 20, 32];
    let parts: Vec<_> = cuts
        .windows(2)
        .filter_map(|cut| hex.get(*cut.first()?..*cut.last()?))
        .collect();
    Ok(parts.join("-"))
}

fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}
