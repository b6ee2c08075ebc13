//! Credential requests per second and their latency, beside a bare hyper server that answers as many bytes.

use anyhow::Result;

use super::{
    Spread,
    gauge::{Gauge, Load},
    reference::Reference,
    say,
};
use crate::{scene::Scene, topology::ENDPOINT};

const CONNECTIONS: u32 = 32;

pub(super) fn measure(scene: &Scene, rounds: u32, seconds: u32) -> Result<()> {
    let mut client = scene.in_host_container("web", Gauge::start)?;
    let body = scene.task("web")?.body();
    let reference = scene.on_host(|lab, place, _| Reference::start(lab, place, &body))?;
    let target = scene.task("web")?.path();
    let (mut enforcer, mut bare) = (Vec::new(), Vec::new());
    client.load(ENDPOINT, &target, CONNECTIONS, 1)?;
    client.load(reference.address(), &target, CONNECTIONS, 1)?;
    for _ in 0..rounds {
        enforcer.push(client.load(ENDPOINT, &target, CONNECTIONS, seconds)?);
        bare.push(client.load(reference.address(), &target, CONNECTIONS, seconds)?);
    }
    say(&format!(
        "\nGET of a task's own credentials, {CONNECTIONS} keep-alive connections, audit to a file, in pairs"
    ))?;
    say(&format!(
        "  {:<12} {:<28} {:>8} {:>8}",
        "", "requests/s", "p50 us", "p99 us"
    ))?;
    for (who, loads) in [("enforcer", &enforcer), ("bare hyper", &bare)] {
        let median = |figure: fn(&Load) -> f64| Spread::of(loads.iter().map(figure).collect());
        say(&format!(
            "  {who:<12} {:<28} {:>8.0} {:>8.0}",
            median(|load| load.requests_per_second).text(0),
            median(|load| as_figure(load.p50)).median,
            median(|load| as_figure(load.p99)).median,
        ))?;
    }
    let ratios = |figure: fn(&Load) -> f64| {
        Spread::of(
            enforcer
                .iter()
                .zip(&bare)
                .map(|(one, other)| figure(one) / figure(other))
                .collect(),
        )
        .text(2)
    };
    say(&format!(
        "  throughput ratio {}, target >= 0.70",
        ratios(|load| load.requests_per_second)
    ))?;
    say(&format!("  p99 ratio        {}", ratios(|load| as_figure(load.p99))))
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a few seconds")]
fn as_figure(microseconds: u64) -> f64 {
    microseconds as f64
}
