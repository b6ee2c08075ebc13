//! Who acts in the demo, and what they try.

use anyhow::Result;

use super::table::{Line, Table};
use crate::{
    actor::{Actor, Attempt, DatagramStyle},
    http::Response,
    imds::{ROLE, instance_role},
    scene::{Scene, credential_id},
    topology::{IMDS, IMDS_MAPPED, IMDS_OVER_V6},
};

const REFUSED: &str = "400 InvalidIdInRequest";

/// The actors.
#[derive(Debug)]
pub(super) struct Cast {
    web: Actor,
    batch: Actor,
    web_on_host: Actor,
    host: Actor,
    turn: usize,
}

// === impl Cast ===

impl Cast {
    pub(super) fn enter(scene: &Scene) -> Result<Self> {
        Ok(Self {
            web: scene.bridge_container("web")?,
            batch: scene.bridge_container("batch")?,
            web_on_host: scene.host_container("web")?,
            host: scene.host_process()?,
            turn: 0,
        })
    }

    /// Fills the table; `false` if that was interrupted.
    pub(super) fn play(
        &mut self,
        scene: &mut Scene,
        table: &mut Table,
        mut was_interrupted: impl FnMut() -> bool,
    ) -> Result<bool> {
        let (web, batch) = (scene.task("web")?.path(), scene.task("batch")?.path());
        for (who, actor, own, foreign, role) in [
            ("web, bridge", &mut self.web, &web, &batch, "web"),
            ("batch, bridge", &mut self.batch, &batch, &web, "batch"),
            ("web, host mode", &mut self.web_on_host, &web, &batch, "web"),
        ] {
            try_credentials(table, who, actor, [own, foreign], role)?;
            try_metadata(table, who, actor)?;
            if was_interrupted() {
                return Ok(false);
            }
        }
        let packets = scene.imds_hits()?.packets.to_string();
        table.add(&Line {
            who: "fake IMDS",
            tried: "count of packets so far",
            expected: "0",
            got: &packets,
        })?;
        let role = instance_role(&mut self.host, IMDS)?;
        let line = Line {
            who: "host process",
            tried: "IMDSv2 token, then the role",
            expected: ROLE,
            got: &role,
        };
        table.add(&line)?;
        Ok(!was_interrupted())
    }

    /// Does one thing more, each time another one.
    pub(super) fn improvise(&mut self, scene: &Scene) -> Result<()> {
        let (web, batch) = (scene.task("web")?.path(), scene.task("batch")?.path());
        match self.turn % 5 {
            0 => self.web.get(&web).map(drop),
            1 => self.batch.get(&web).map(drop),
            2 => self.web.connect(IMDS).map(drop),
            3 => self.web_on_host.get(&batch).map(drop),
            _ => instance_role(&mut self.host, IMDS).map(drop),
        }?;
        self.turn += 1;
        Ok(())
    }
}

fn try_credentials(table: &mut Table, who: &str, actor: &mut Actor, paths: [&str; 2], role: &str) -> Result<()> {
    let [own, foreign] = paths;
    let expected = format!("200 arn:aws:iam::111122223333:role/{role}");
    let got = describe(&actor.get(own)?);
    table.add(&Line {
        who,
        tried: "own credential ID",
        expected: &expected,
        got: &got,
    })?;

    let refusal = actor.get(foreign)?;
    table.add(&Line {
        who,
        tried: "the other's credential ID",
        expected: REFUSED,
        got: &describe(&refusal),
    })?;

    let unknown = actor.get(&format!("/v2/credentials/{}", credential_id()?))?;
    let is_same = unknown.status == refusal.status && unknown.body == refusal.body;
    let got = describe(&unknown) + if is_same { ", same bytes" } else { ", other bytes" };
    let expected = format!("{REFUSED}, same bytes");
    table.add(&Line {
        who,
        tried: "a credential ID nobody has",
        expected: &expected,
        got: &got,
    })
}

fn try_metadata(table: &mut Table, who: &str, actor: &mut Actor) -> Result<()> {
    for (tried, address) in [
        ("IMDS by TCP", IMDS),
        ("IMDS by TCP, v4-mapped", IMDS_MAPPED),
        ("IMDS by TCP over IPv6", IMDS_OVER_V6),
    ] {
        let got = outcome(actor.connect(address)?);
        table.add(&Line {
            who,
            tried,
            expected: "EPERM",
            got: &got,
        })?;
    }
    for (tried, address) in [("IMDS by UDP", IMDS), ("IMDS by UDP over IPv6", IMDS_OVER_V6)] {
        let got = outcome(actor.datagram(address, DatagramStyle::Unconnected)?);
        table.add(&Line {
            who,
            tried,
            expected: "EPERM",
            got: &got,
        })?;
    }
    Ok(())
}

fn outcome(attempt: Attempt) -> String {
    match attempt {
        Attempt::Done => "done".into(),
        Attempt::Refused(errno) => format!("{errno:?}"),
    }
}

/// Status, and the role or the error code; never the keys.
fn describe(response: &Response) -> String {
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let told = body
        .get("RoleArn")
        .or_else(|| body.get("code"))
        .and_then(serde_json::Value::as_str);
    format!("{} {}", response.status, told.unwrap_or("(neither role nor code)"))
}
