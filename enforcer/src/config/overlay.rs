//! What the environment says, laid over what the file says. A variable nobody knows is an error, as an unknown key is.

use std::{collections::BTreeMap, ffi::OsString, str::FromStr};

use super::{
    load::{ConfigError, nearest},
    raw::Raw,
};

/// Values of environment variables by name.
pub type Variables = BTreeMap<String, OsString>;

/// Variables, while they are taken one by one; what is left in the end is unknown.
struct Overlay {
    left: Variables,
    known: Vec<&'static str>,
}

/// Overlays every variable there is.
pub(super) fn overlay(raw: &mut Raw, variables: Variables) -> Result<(), ConfigError> {
    // Groups, exceptions, consumers, roles and tasks are tables, which variables cannot say.
    let Raw {
        mode,
        cgroups,
        endpoint,
        protect: _,
        sockets,
        bpf,
        audit,
        control,
        sources,
        roles: _,
        consumers: _,
        tasks: _,
    } = raw;
    let mut overlay = Overlay {
        left: variables,
        known: Vec::new(),
    };
    overlay.scalar(mode, "ENFORCER_MODE")?;
    overlay.list(&mut cgroups.guarded, "ENFORCER_CGROUPS_GUARDED")?;
    overlay.list(&mut cgroups.host, "ENFORCER_CGROUPS_HOST")?;
    overlay.list(&mut cgroups.observe, "ENFORCER_CGROUPS_OBSERVE")?;
    overlay.scalar(&mut cgroups.root, "ENFORCER_CGROUPS_ROOT")?;
    overlay.scalar(&mut endpoint.address, "ENFORCER_ENDPOINT_ADDRESS")?;
    overlay.scalar(&mut endpoint.port, "ENFORCER_ENDPOINT_PORT")?;
    overlay.scalar(&mut endpoint.steer_port, "ENFORCER_ENDPOINT_STEER_PORT")?;
    overlay.scalar(&mut endpoint.packet_steer_port, "ENFORCER_ENDPOINT_PACKET_STEER_PORT")?;
    overlay.scalar(&mut endpoint.upstream, "ENFORCER_ENDPOINT_UPSTREAM")?;
    overlay.scalar(&mut endpoint.agent, "ENFORCER_ENDPOINT_AGENT")?;
    overlay.scalar(&mut endpoint.introspection, "ENFORCER_ENDPOINT_INTROSPECTION")?;
    overlay.scalar(&mut endpoint.drain_seconds, "ENFORCER_ENDPOINT_DRAIN_SECONDS")?;
    overlay.list(&mut sockets.deny, "ENFORCER_SOCKETS_DENY")?;
    overlay.scalar(&mut bpf.pin_dir, "ENFORCER_BPF_PIN_DIR")?;
    overlay.scalar(&mut audit.output, "ENFORCER_AUDIT_OUTPUT")?;
    overlay.scalar(&mut audit.key_file, "ENFORCER_AUDIT_KEY_FILE")?;
    overlay.scalar(&mut control.socket, "ENFORCER_CONTROL_SOCKET")?;
    overlay.scalar(&mut control.registrations, "ENFORCER_CONTROL_REGISTRATIONS")?;
    overlay.scalar(&mut sources.wait_milliseconds, "ENFORCER_SOURCES_WAIT_MILLISECONDS")?;
    overlay.scalar(&mut sources.docker.enabled, "ENFORCER_SOURCES_DOCKER_ENABLED")?;
    overlay.scalar(&mut sources.docker.socket, "ENFORCER_SOURCES_DOCKER_SOCKET")?;
    overlay.scalar(
        &mut sources.docker.cgroup_parent,
        "ENFORCER_SOURCES_DOCKER_CGROUP_PARENT",
    )?;
    overlay.scalar(&mut sources.docker.labels, "ENFORCER_SOURCES_DOCKER_LABELS")?;
    overlay.scalar(&mut sources.oci.enabled, "ENFORCER_SOURCES_OCI_ENABLED")?;
    overlay.list(&mut sources.oci.roots, "ENFORCER_SOURCES_OCI_ROOTS")?;
    overlay.scalar(&mut sources.oci.pod_annotations, "ENFORCER_SOURCES_OCI_POD_ANNOTATIONS")?;
    overlay.scalar(
        &mut sources.oci.podman_annotations,
        "ENFORCER_SOURCES_OCI_PODMAN_ANNOTATIONS",
    )?;
    overlay.scalar(&mut sources.oci.kubelet, "ENFORCER_SOURCES_OCI_KUBELET")?;
    overlay.finish()
}

// === impl Overlay ===

impl Overlay {
    fn scalar<T>(&mut self, value: &mut Option<T>, variable: &'static str) -> Result<(), ConfigError>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        if let Some(text) = self.take(variable)? {
            *value = Some(parse(variable, &text)?);
        }
        Ok(())
    }

    /// A list replaces the file's. Its items are separated by commas; it cannot be empty.
    fn list<T>(&mut self, value: &mut Option<Vec<T>>, variable: &'static str) -> Result<(), ConfigError>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        if let Some(text) = self.take(variable)? {
            let items = text.split(',').map(|item| parse(variable, item.trim()));
            *value = Some(items.collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    fn take(&mut self, variable: &'static str) -> Result<Option<String>, ConfigError> {
        self.known.push(variable);
        let text = self.left.remove(variable).map(OsString::into_string).transpose();
        text.map_err(|_text| ConfigError::Environment {
            variable,
            problem: "not valid UTF-8".to_owned(),
        })
    }

    /// Names the first variable that is unknown.
    fn finish(mut self) -> Result<(), ConfigError> {
        match self.left.pop_first() {
            None => Ok(()),
            Some((variable, _)) => Err(ConfigError::UnknownVariable {
                nearest: nearest(&variable, self.known).unwrap_or_default(),
                variable,
            }),
        }
    }
}

fn parse<T>(variable: &'static str, text: &str) -> Result<T, ConfigError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| ConfigError::Environment {
        variable,
        problem: format!("{text:?}: {error}"),
    })
}
