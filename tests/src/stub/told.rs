//! What a Docker engine tells of a container, in size and form as 20.10 does.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What an engine told of a container it had just made, with nothing in it but what every container has.
pub(super) fn captured() -> Result<Value> {
    serde_json::from_str(include_str!("../../data/docker/inspect.json")).context("the capture is damaged")
}

/// A container of the stub, as an ECS agent or somebody else has made it.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) credential_id: String,
    /// The ARN of its ECS task; none if no agent made it.
    pub(super) task: Option<String>,
    pub(super) parent: String,
}

// === impl Container ===

impl Container {
    /// Container `index` of ECS task `task`.
    pub(super) fn of_task(task: u32, index: u32) -> Self {
        let task_id = format!("{task:032x}");
        Self {
            id: format!("{index:032x}{task_id}"),
            name: format!("ecs-bench-1-app{index}-{task:020x}"),
            credential_id: format!("00000000-0000-4000-8000-{task:012x}"),
            parent: format!("/ecs/{task_id}"),
            task: Some(format!("arn:aws:ecs:us-west-2:111122223333:task/bench/{task_id}")),
        }
    }

    /// One that comes and goes; credential IDs come back long after the container that had them is gone.
    pub(super) fn passing(number: u32) -> Self {
        let credential = number % 1_000;
        Self {
            id: format!("{number:08x}{:056x}", 0xc),
            name: format!("passing-{number}"),
            credential_id: format!("00000000-0000-4000-9000-{credential:012x}"),
            task: None,
            parent: String::new(),
        }
    }

    /// `GET /containers/<id>/json`, by what an engine told of another container.
    pub(super) fn inspected(&self, captured: &Value) -> Result<Value> {
        let directory = format!("/var/lib/docker/containers/{}", self.id);
        let overlay = |name: &str| format!("/var/lib/docker/overlay2/{}/{name}", self.id);
        let lower: Vec<_> = (0..8).map(|_| overlay("diff")).collect();
        let mut told = captured.clone();
        let mut set = |pointer: &str, value: Value| {
            *told
                .pointer_mut(pointer)
                .with_context(|| format!("the capture has no {pointer}"))? = value;
            anyhow::Ok(())
        };
        set("/Id", json!(self.id))?;
        set("/Name", json!(format!("/{}", self.name)))?;
        set("/State/Status", json!("running"))?;
        set("/State/Running", json!(true))?;
        set("/State/Pid", json!(4242))?;
        for (pointer, file) in [
            ("/ResolvConfPath", "resolv.conf"),
            ("/HostnamePath", "hostname"),
            ("/HostsPath", "hosts"),
            ("/LogPath", "json.log"),
        ] {
            set(pointer, json!(format!("{directory}/{file}")))?;
        }
        set(
            "/GraphDriver",
            json!({"Name": "overlay2", "Data": {
                "LowerDir": lower.join(":"), "MergedDir": overlay("merged"),
                "UpperDir": overlay("diff"), "WorkDir": overlay("work"),
            }}),
        )?;
        set("/HostConfig/CgroupParent", json!(self.parent))?;
        set("/HostConfig/NetworkMode", json!("bridge"))?;
        set("/Config/Env", json!(self.environment()))?;
        set("/Config/Labels", self.labels())?;
        set("/NetworkSettings/Networks", json!({"bridge": self.network()}))?;
        Ok(told)
    }

    /// An element of `GET /containers/json`
    pub(super) fn listed(&self) -> Value {
        json!({
            "Id": self.id, "Names": [format!("/{}", self.name)],
            "Image": "111122223333.dkr.ecr.us-west-2.amazonaws.com/bench/app:2026-11-22",
            "ImageID": format!("sha256:{:064x}", 1), "Command": "/usr/local/bin/app --serve --port 8080", "Created": 1_795_332_602,
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 49153, "Type": "tcp"}],
            "Labels": self.labels(), "State": "running", "Status": "Up 2 hours",
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {"Networks": {"bridge": self.network()}},
            "Mounts": [],
        })
    }

    /// One of `GET /events`
    pub(super) fn event(&self, action: &str) -> Value {
        json!({
            "status": action, "id": self.id, "from": "bench/app:2026-11-22", "Type": "container", "Action": action,
            "Actor": {"ID": self.id, "Attributes": {"image": "bench/app:2026-11-22", "name": self.name}},
            "scope": "local", "time": 1_795_332_602, "timeNano": 1_795_332_602_056_245_816_u64,
        })
    }

    fn environment(&self) -> Vec<String> {
        let uri = format!(
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/{}",
            self.credential_id
        );
        let metadata = format!(
            "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/{}",
            self.credential_id
        );
        let own = (0..12).map(|number| format!("BENCH_SETTING_{number}=a value of usual length, number {number}"));
        own.chain(["AWS_EXECUTION_ENV=AWS_ECS_EC2".to_owned(), uri, metadata])
            .collect()
    }

    fn labels(&self) -> Value {
        let Some(task) = &self.task else {
            return json!({});
        };
        json!({
            "com.amazonaws.ecs.cluster": "bench", "com.amazonaws.ecs.container-name": self.name,
            "com.amazonaws.ecs.task-arn": task, "com.amazonaws.ecs.task-definition-family": "bench",
            "com.amazonaws.ecs.task-definition-version": "1",
        })
    }

    fn network(&self) -> Value {
        json!({
            "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": self.id, "EndpointID": self.id,
            "Gateway": "172.17.0.1", "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:02", "DriverOpts": null,
        })
    }
}
