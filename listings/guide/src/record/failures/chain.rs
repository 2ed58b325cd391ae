//! Force-closes, double-spends, reorganisations, and channels that do not open.

use anyhow::{Result, ensure};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};

use super::{Scenario, failure, held, payers_money, scene, scene_of, usual};
use crate::world::{Story, World, channel_is};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-funding-refused",
            "The chain refuses the funding",
            "Another program has spent the LSP's coins. The LSP asks the chain before it forwards, and \
             fails the payment.",
            usual,
            |world| Box::pin(funding_refused(world)),
        ),
        failure(
            "fail-funding-refused-lsp-trusts",
            "The chain refuses the funding, and the LSP trusts the client",
            "The funding is broadcast before the payment is forwarded, and refused. The LSP fails the \
             payment.",
            || Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient),
            |world| Box::pin(funding_refused(world)),
        ),
        failure(
            "fail-funding-reorg",
            "The funding confirms, is undone, and confirms again",
            "Two blocks are replaced by three. The funding is in neither for a moment, and a zero-conf \
             channel stays open.",
            usual,
            |world| Box::pin(funding_reorg(world)),
        ),
    ]
}

async fn funding_refused(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "refused", "The funding is refused").await?;
    let elsewhere = world.lsp().spend_elsewhere(None)?;
    world.chain.broadcast(std::slice::from_ref(&elsewhere)).await?;
    world.say("Another program with the LSP's keys has spent all of its coins");
    // The wallet knows that its channel is ready before the LSP gives it up: who is first would be left
    // to chance.
    world.lsp().hold_forwards(true);
    world.start_recipient().await?;
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(sent.from, |e| e.node == node && channel_is(e, "ready", peer)).await?;
    }
    world.lsp().hold_forwards(false);
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(sent.from, |e| e.node == node && channel_is(e, "closed", peer)).await?;
    }
    // The recipient's LDK hands its last state to the chain, which knows no such funding; so does that
    // of an LSP that has broadcast the funding.
    let closers: &[&str] = match world.lsp_policy().trust_model {
        TrustModel::ClientTrustsLsp => &["recipient"],
        TrustModel::LspTrustsClient => &["recipient", "lsp"],
    };
    for closer in closers {
        let refused = |e: &Entry| match &e.what {
            What::Broadcast { purpose, error, .. } => purpose != "Funding" && error.is_some(),
            _ => false,
        };
        world.see(sent.from, |e| e.node == *closer && refused(e)).await?;
    }
    sent.comes_back(world).await?;
    ensure!(
        world.chain.mempool().await? == [elsewhere.compute_txid()],
        "something was broadcast for it"
    );
    let forwarded = |e: &Entry| matches!(&e.what, What::Htlc { state: HtlcState::Claimable, .. });
    ensure!(!world.transcript.since(sent.from).iter().any(forwarded), "it was forwarded");
    Ok(())
}

async fn funding_reorg(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    world.stop_payer().await;
    world.wake_recipient_and_settle(sent.from).await?;
    world.rest().await?;
    world.mine(2).await?;
    scene(world, "undone", "Two blocks are replaced").await?;
    world.chain.invalidate_tip(2).await?;
    world.mine(3).await?;
    world.say("Two blocks with the funding were dropped, and three others mined");
    scene(world, "again", "Another payment").await?;
    let offer = sent.offer;
    let before = payers_money(world)?;
    let from = world.transcript.position();
    world.payer().pay(&offer, 40_000_000)?;
    let books = world.settled(from).await?;
    ensure!(before - payers_money(world)? == books.payer_sent_msat);
    world.rest().await
}
