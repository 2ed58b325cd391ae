//! The scenarios that the book tells.

use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use serde_json::{Value, json};

use super::Scenario;
use crate::story::{self, Setting};
use crate::world::{Story, World};

/// All of them. A new one appears here, and `cargo run -- record NAME` writes its file.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![flow(), lsp_trusts_client(), again(), super::bolt11::scenario()];
    all.extend(super::failures::scenarios());
    all
}

fn story_of(setting: &Setting) -> Story {
    Story::new(setting.payer, setting.trust)
}

fn told(setting: &Setting) -> Vec<(&'static str, Value)> {
    let payer = match setting.payer {
        PayerMode::AlwaysOnline => "online",
        PayerMode::OftenOffline => "offline",
    };
    let trust = match setting.trust {
        TrustModel::ClientTrustsLsp => "the client trusts the LSP",
        TrustModel::LspTrustsClient => "the LSP trusts the client",
    };
    vec![
        ("amount_msat", json!(setting.amount_msat)),
        ("payer", json!(payer)),
        ("trust", json!(trust)),
    ]
}

fn flow() -> Scenario {
    Scenario {
        name: "flow",
        title: "A wallet without a channel is paid while it is offline",
        about: "The recipient buys a lease and goes offline; the payer pays its offer and goes \
                offline too; the recipient wakes up, gets its channel and is paid.",
        story: || story_of(&Setting::default()),
        setting: || told(&Setting::default()),
        play: |world| {
            Box::pin(async {
                story::flow(world, &Setting::default()).await?;
                Ok(())
            })
        },
    }
}

fn trusting_lsp() -> Setting {
    Setting {
        payer: PayerMode::AlwaysOnline,
        trust: TrustModel::LspTrustsClient,
        ..Setting::default()
    }
}

fn lsp_trusts_client() -> Scenario {
    Scenario {
        name: "lsp-trusts-client",
        title: "The LSP trusts the client, and the payer stays online",
        about: "The LSP broadcasts the funding before it has been paid. The payer's HTLC waits at \
                the payer.",
        story: || story_of(&trusting_lsp()),
        setting: || told(&trusting_lsp()),
        play: |world| {
            Box::pin(async {
                story::flow(world, &trusting_lsp()).await?;
                Ok(())
            })
        },
    }
}

fn again() -> Scenario {
    Scenario {
        name: "again",
        title: "The same offer, paid again",
        about: "The channel is there and the fee is paid. A second payment of the same offer comes \
                over the same intercept SCID and is forwarded in full.",
        story: || story_of(&Setting::default()),
        setting: || vec![("first_msat", json!(100_000_000)), ("second_msat", json!(40_000_000))],
        play: |world| Box::pin(pay_again(world)),
    }
}

async fn pay_again(world: &mut World) -> anyhow::Result<()> {
    let setting = Setting { payer: PayerMode::OftenOffline, ..Setting::default() };
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, setting.amount_msat).await?;
    world.rest().await?;
    world.transcript.scene("again", "The same offer, paid again");
    let from = world.transcript.position();
    story::leave(world, "recipient").await?;
    world.pay_while_recipient_is_offline(&offer, 40_000_000).await?;
    story::settle(world, &setting, from).await?;
    Ok(())
}
