//! A container, as the engine tells of it: the little of it that matters, all of it fixed when the container was made
//! (but its name, and whether it has been started).
//!
//! The environment and the labels may hold secrets, so nothing here can be printed.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::super::super::cgroup_path::ContainerId;

/// What variables that lead to credentials begin with.
const CREDENTIALS: &str = "AWS_CONTAINER_CREDENTIALS_";

/// `GET /containers/<id>/json`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container<'a> {
    #[serde(deserialize_with = "id")]
    pub(super) id: ContainerId,
    #[serde(deserialize_with = "timestamp")]
    pub(super) created: Timestamp,
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// The ID of the image it was made of.
    #[serde(borrow, default)]
    pub(super) image: Cow<'a, str>,
    #[serde(borrow)]
    state: State<'a>,
    #[serde(borrow)]
    pub(super) config: Config<'a>,
    #[serde(borrow)]
    pub(super) host_config: HostConfig<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config<'a> {
    #[serde(rename = "Env", default)]
    environment: Environment,
    #[serde(borrow, default)]
    pub(super) labels: Option<Labels<'a>>,
}

/// Labels that mean something here.
#[derive(Default, Deserialize)]
pub(super) struct Labels<'a> {
    #[serde(rename = "enforcer.role-arn", borrow, default)]
    pub(super) role_arn: Option<Cow<'a, str>>,
    #[serde(rename = "enforcer.task", borrow, default)]
    pub(super) task: Option<Cow<'a, str>>,
    #[serde(rename = "com.amazonaws.ecs.task-arn", borrow, default)]
    pub(super) ecs_task: Option<Cow<'a, str>>,
    #[serde(rename = "io.kubernetes.pod.namespace", borrow, default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(rename = "io.kubernetes.pod.name", borrow, default)]
    pod: Option<Cow<'a, str>>,
    #[serde(rename = "io.kubernetes.pod.uid", borrow, default)]
    pod_uid: Option<Cow<'a, str>>,
    #[serde(rename = "io.kubernetes.container.name", borrow, default)]
    container: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig<'a> {
    #[serde(borrow, default)]
    pub(super) cgroup_parent: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) network_mode: Cow<'a, str>,
    #[serde(borrow, default)]
    log_config: LogConfig<'a>,
    #[serde(borrow, default)]
    mounts: Option<Vec<Mount<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig<'a> {
    #[serde(borrow, default)]
    config: Option<LogOptions<'a>>,
}

#[derive(Deserialize)]
struct LogOptions<'a> {
    #[serde(rename = "awslogs-credentials-endpoint", borrow, default)]
    awslogs: Option<Cow<'a, str>>,
}

/// `GET /images/<ID>/json`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image<'a> {
    #[serde(borrow, default)]
    config: Option<ImageConfig<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfig<'a> {
    #[serde(borrow, default)]
    labels: Option<Labels<'a>>,
}

/// What the engine was told to mount.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount<'a> {
    #[serde(borrow, default)]
    volume_options: Option<VolumeOptions<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeOptions<'a> {
    #[serde(borrow, default)]
    driver_config: Option<DriverConfig<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DriverConfig<'a> {
    #[serde(borrow, default)]
    options: Option<DriverOptions<'a>>,
}

#[derive(Deserialize)]
struct DriverOptions<'a> {
    #[serde(rename = "o", borrow, default)]
    mount: Option<Cow<'a, str>>,
}

/// Those variables that lead to credentials; others are not even kept.
#[derive(Default)]
pub(super) struct Environment(Vec<String>);

/// A variable, if it leads to credentials.
struct Variable(Option<String>);

// === impl Labels ===

impl Labels<'_> {
    /// A label that tells of a pod: one of those cri-dockerd writes, over whatever a pod's author does.
    pub(super) fn of_pod(&self, key: &str) -> Option<&str> {
        let label = match key {
            "io.kubernetes.pod.namespace" => &self.namespace,
            "io.kubernetes.pod.name" => &self.pod,
            "io.kubernetes.pod.uid" => &self.pod_uid,
            "io.kubernetes.container.name" => &self.container,
            _ => return None,
        };
        label.as_deref()
    }
}

// === impl Image ===

impl<'a> Image<'a> {
    /// The labels that containers made of it have unless they are given others.
    pub(super) fn labels(self) -> Labels<'a> {
        self.config.unwrap_or_default().labels.unwrap_or_default()
    }
}

// === impl Container ===

impl Container<'_> {
    /// The name.
    pub(super) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// Whether no process has run in it yet.
    pub(super) fn is_new(&self) -> bool {
        self.state.status == "created"
    }

    /// The variables that lead to credentials, each as often as it is set.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.config.environment.0.iter();
        variables.filter_map(|variable| variable.split_once('='))
    }

    /// The options that volumes made for it are mounted with.
    pub(super) fn mount_options(&self) -> impl Iterator<Item = &str> {
        let mounts = self.host_config.mounts.iter().flatten();
        mounts.filter_map(|mount| {
            let driver = mount.volume_options.as_ref()?.driver_config.as_ref()?;
            driver.options.as_ref()?.mount.as_deref()
        })
    }

    /// Where the engine's log driver gets its credentials.
    pub(super) fn log_credentials(&self) -> Option<&str> {
        self.host_config.log_config.config.as_ref()?.awslogs.as_deref()
    }
}

fn id<'de, D: Deserializer<'de>>(input: D) -> Result<ContainerId, D::Error> {
    ContainerId::parse(&Cow::<str>::deserialize(input)?).map_err(serde::de::Error::custom)
}

fn timestamp<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    Cow::<str>::deserialize(input)?
        .parse()
        .map_err(serde::de::Error::custom)
}

// === impl Environment ===

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Variables;

        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of variables")
            }

            fn visit_unit<E>(self) -> Result<Environment, E> {
                Ok(Environment::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Environment, A::Error> {
                let mut environment = Environment::default();
                while let Some(Variable(variable)) = input.next_element()? {
                    environment.0.extend(variable);
                }
                Ok(environment)
            }
        }

        input.deserialize_any(Variables)
    }
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Variable;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a variable")
            }

            fn visit_str<E>(self, text: &str) -> Result<Variable, E> {
                Ok(Variable(text.starts_with(CREDENTIALS).then(|| text.to_owned())))
            }
        }

        input.deserialize_str(Text)
    }
}
