//! Trouble after a restart.

use anyhow::Result;

use super::{
    Scenario, failure, held, parked, reestablished, scene, scene_of, see_event, see_from, usual,
};
use crate::story::{self, Setting};
use crate::world::World;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![failure(
        "fail-payer-lsp-restarts",
        "The payer's LSP restarts while it holds",
        "LDK raises HTLCIntercepted for what it holds. The payer's LSP leaves it alone, and the \
         payment is made.",
        usual,
        |world| Box::pin(payer_lsp_restarts(world)),
    )]
}

async fn payer_lsp_restarts(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    parked(world).await?;
    scene_of(world, &sent, "restart", "The payer's LSP restarts").await?;
    let from = world.transcript.position();
    world.restart_payer_lsp().await?;
    see_event(world, from, "payer-lsp", "HTLCIntercepted").await?;
    reestablished(world, from).await?;
    see_from(world, from, "payer", "payer-lsp", "channel_reestablish").await?;
    see_from(world, from, "payer-lsp", "payer", "channel_reestablish").await?;
    scene(world, "released", "The recipient comes online").await?;
    story::settle(world, &Setting::default(), sent.from).await?;
    Ok(())
}
