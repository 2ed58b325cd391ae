//! No offer: what goes wrong before there is one.

use anyhow::{Context, Result, bail, ensure};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, What};
use serde_json::Value;

use super::{Scenario, failure, scene, see_event, usual};
use crate::world::{PATIENCE, Story, World};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-no-lease",
            "Offer paths, and no lease",
            "The recipient's router has neither a lease nor a channel to build a path from, so no \
             static invoice reaches the server. With a lease the offer is ready at once.",
            usual,
            |world| Box::pin(no_lease(world)),
        ),
        failure(
            "fail-too-many-leases",
            "The eleventh lease",
            "Ten leases that nobody has paid for yet: LDK's LSP refuses the client's next request \
             by itself.",
            usual,
            |world| Box::pin(too_many_leases(world)),
        ),
        failure(
            "fail-purchase",
            "A purchase that is refused",
            "A token that the LSP does not know; a menu that does not suit the wallet; terms that the \
             LSP did not promise; payments below and above what it serves.",
            online_payer,
            |world| Box::pin(purchase(world)),
        ),
        failure(
            "fail-server-refuses",
            "The server does not confirm",
            "The static invoice server has no slot for what the recipient sends, and does not \
             confirm it. The recipient has no offer.",
            no_slots,
            |world| Box::pin(server_refuses(world)),
        ),
    ]
}

fn online_payer() -> Story {
    Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp)
}

fn no_slots() -> Story {
    let mut story = usual();
    story.lsp.server.slots = 0;
    story
}

async fn no_lease(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    let paths = world.lsp().paths_for(b"alice").await?;
    scene(world, "no-lease", "Offer paths, and no lease").await?;
    let from = world.transcript.position();
    world.recipient().use_paths(paths)?;
    let refused = |e: &Entry| matches!(&e.what, What::Paths { paths, .. } if paths == "refused");
    world.see(from, |e| e.node == "recipient" && refused(e)).await?;
    ensure!(world.recipient().offer().is_none(), "an offer without a lease");
    world.say("get_async_receive_offer gives Err");
    scene(world, "lease", "With a lease").await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    world.recipient().wait_for_offer(PATIENCE).await?;
    Ok(())
}

async fn too_many_leases(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    for _ in 0..10 {
        world.recipient().buy_lease(lsp, policy.clone()).await?;
    }
    scene(world, "eleventh", "The eleventh lease").await?;
    refuses(world, policy).await
}

/// Buys under this policy, and says why it was not possible.
async fn refuses(world: &World, policy: lsps2_async::negotiate::NegotiationPolicy) -> Result<()> {
    match world.recipient().buy_lease(world.lsp().id(), policy).await {
        Ok(lease) => bail!("bought {:?}", lease.id),
        Err(error) => world.say(format!("The wallet: {error:#}")),
    }
    Ok(())
}

async fn purchase(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    let policy = world.buying_policy();

    scene(world, "token", "An unknown token").await?;
    let mut with_token = policy.clone();
    with_token.token = Some("summer".to_owned());
    refuses(world, with_token).await?;

    scene(world, "menu", "No entry suits").await?;
    let mut thrifty = policy;
    thrifty.max_fee_msat = 1_999_999;
    refuses(world, thrifty).await?;

    scene(world, "terms", "Terms that were altered").await?;
    let offered = menu(world).await?;
    let mut cheaper = offered.clone();
    cheaper["min_fee_msat"] = "1".into();
    world.say("A wallet that does not keep to the menu writes a min_fee_msat of 1 into its entry");
    is_refused(world, None, cheaper, 201).await?;

    scene(world, "too-small", "A payment below the minimum").await?;
    let (least, most) = (bound(&offered, "min")?, bound(&offered, "max")?);
    world.say("A wallet that does not look before it buys asks for 1 msat too little");
    is_refused(world, Some(least - 1), offered.clone(), 202).await?;

    scene(world, "too-large", "A payment above the maximum").await?;
    world.say("The same for 1 msat too much");
    is_refused(world, Some(most + 1), offered, 203).await
}

fn bound(entry: &Value, which: &str) -> Result<u64> {
    let bound = entry[format!("{which}_payment_size_msat")].as_str();
    Ok(bound.context("a menu entry has bounds")?.parse()?)
}

/// The only entry of the LSP's menu, as it comes.
async fn menu(world: &World) -> Result<Value> {
    let from = world.transcript.position();
    let client = world.recipient().liquidity().lsps2_client_handler().context("it buys")?;
    client.request_opening_params(world.lsp().id(), None);
    let entry = |e: &Entry| match &e.what {
        What::Lsps { json, .. } if e.node == "recipient" => {
            json["result"]["opening_fee_params_menu"].get(0).cloned()
        }
        _ => None,
    };
    let entry = world.transcript.wait_for(from, PATIENCE, entry).await?;
    see_event(world, from, "recipient", "OpeningParametersReady").await?;
    Ok(entry)
}

/// Waits until the LSP has refused these terms.
async fn is_refused(world: &World, size: Option<u64>, terms: Value, wanted: i64) -> Result<()> {
    let from = world.transcript.position();
    let client = world.recipient().liquidity().lsps2_client_handler().context("it buys")?;
    client
        .select_opening_params(world.lsp().id(), size, serde_json::from_value(terms)?)
        .map_err(|error| anyhow::anyhow!("not sent: {error:?}"))?;
    let answer = |e: &Entry| match &e.what {
        What::Lsps { json, .. } if e.node == "recipient" => Some(json.clone()),
        _ => None,
    };
    let answer = world.transcript.wait_for(from, PATIENCE, answer).await?;
    ensure!(answer["error"]["code"] == wanted, "{answer}");
    see_event(world, from, "recipient", "BuyRequestFailed").await
}

async fn server_refuses(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    let paths = world.lsp().paths_for(b"alice").await?;
    scene(world, "refused", "The server does not confirm").await?;
    let from = world.transcript.position();
    world.recipient().use_paths(paths)?;
    let refused = |e: &Entry| matches!(&e.what, What::Offer { state, .. } if state == "refused");
    world.see(from, |e| e.node == "lsp" && refused(e)).await?;
    ensure!(world.recipient().offer().is_none(), "an offer that nobody serves");
    Ok(())
}
