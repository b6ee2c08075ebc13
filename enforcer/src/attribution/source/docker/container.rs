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

/// Those variables that lead to credentials; others are not even kept.
#[derive(Default)]
pub(super) struct Environment(Vec<String>);

/// A variable, if it leads to credentials.
struct Variable(Option<String>);

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
