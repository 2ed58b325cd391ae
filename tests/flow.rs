//! An offline wallet with no channel gets paid: both trust models, both kinds of payer, and what
//! comes after the first payment.

use crate::on_every_chain;
use guide::money::Books;
use guide::world::{Story, World, channel_is};
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::{HtlcState, What};
use regtest::Chain;

on_every_chain! {
    online_payer_lsp_trusts_client
    online_payer_client_trusts_lsp
    offline_payer_lsp_trusts_client
    offline_payer_client_trusts_lsp
    the_same_offer_is_paid_again_over_the_same_channel
    two_payers_before_the_first_release
}

async fn online_payer_lsp_trusts_client(chain: Chain) {
    paid_exactly(chain, PayerMode::AlwaysOnline, TrustModel::LspTrustsClient).await;
}

async fn online_payer_client_trusts_lsp(chain: Chain) {
    paid_exactly(chain, PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp).await;
}

async fn offline_payer_lsp_trusts_client(chain: Chain) {
    paid_exactly(chain, PayerMode::OftenOffline, TrustModel::LspTrustsClient).await;
}

async fn offline_payer_client_trusts_lsp(chain: Chain) {
    paid_exactly(chain, PayerMode::OftenOffline, TrustModel::ClientTrustsLsp).await;
}

/// An amount at which the proportional fee is above the minimum and has to be rounded up.
const AMOUNT_MSAT: u64 = 300_000_001;
const FEE_MSAT: u64 = 3_000_001;
const ROUTING_MSAT: u64 = 1_000;

async fn paid_exactly(chain: Chain, payer: PayerMode, trust: TrustModel) {
    let mut world = World::new(chain, Story::new(payer, trust)).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    assert_eq!(lease.trust_model, trust, "the wallet knows what the LSP said");
    assert!(world.recipient().balances().channels.is_empty());

    let books = world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    assert_eq!(
        books,
        Books {
            payer_sent_msat: AMOUNT_MSAT + ROUTING_MSAT,
            routing_fee_msat: ROUTING_MSAT,
            opening_fee_msat: FEE_MSAT,
            recipient_received_msat: AMOUNT_MSAT - FEE_MSAT,
        }
    );
    let record = world.recipient().leases().pop().unwrap();
    let LeaseState::Consumed(consumption) = record.state else { panic!("{:?}", record.state) };
    assert_eq!(consumption.skimmed_fee_msat, FEE_MSAT);
    funding_came_at_its_time(&world, trust).await;
    the_channel_confirms(&mut world, AMOUNT_MSAT - FEE_MSAT).await;
    world.stop().await;
}

/// The LSP that is trusted broadcasts when it has been paid; the one that trusts, before.
pub async fn funding_came_at_its_time(world: &World, trust: TrustModel) {
    let broadcast = world
        .see(0, |e| {
            let funding = matches!(&e.what, What::Broadcast { error: None, .. });
            e.node == "lsp" && funding
        })
        .await
        .unwrap();
    let claimed = world.see_htlc(0, "recipient", HtlcState::Claimed).await.unwrap();
    match trust {
        TrustModel::LspTrustsClient => assert!(broadcast.seq < claimed.seq),
        TrustModel::ClientTrustsLsp => {
            let forwarded = world.see(0, |e| {
                let event =
                    matches!(&e.what, What::Event { name, .. } if name == "PaymentForwarded");
                e.node == "lsp" && event
            });
            assert!(broadcast.seq > forwarded.await.unwrap().seq);
        }
    }
    let What::Broadcast { txid, .. } = broadcast.what else { unreachable!() };
    let mempool = world.chain.mempool().await.unwrap();
    assert!(mempool.contains(&txid.parse().unwrap()), "{txid} is not in {mempool:?}");
}

/// The zero-conf channel is a real one: its funding confirms and it still holds the money.
async fn the_channel_confirms(world: &mut World, received_msat: u64) {
    world.mine(6).await.unwrap();
    let balances = world.recipient().balances();
    let [channel] = &balances.channels[..] else { panic!("{balances:?}") };
    let reserve_msat = channel.reserve_sat * 1_000;
    assert_eq!(channel.outbound_msat + reserve_msat, received_msat);
}

async fn the_same_offer_is_paid_again_over_the_same_channel(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let first = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(first.opening_fee_msat, 2_000_000);

    let from = world.transcript.position();
    let second = world.pay_offline_recipient(&offer, 40_000_000).await.unwrap();
    assert_eq!(second.opening_fee_msat, 0, "the fee is for opening, once");
    assert_eq!(second.recipient_received_msat, 40_000_000);
    // The invoice was the old one: it still led over the intercept SCID.
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    let entries = world.transcript.since(from);
    assert!(!entries.iter().any(|e| channel_is(e, "opening", "recipient")), "no second channel");
    assert_eq!(world.recipient().balances().channels.len(), 1);
    world.stop().await;
}

async fn two_payers_before_the_first_release(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let other = world.add_payer("payer-2").await.unwrap();
    world.stop_recipient().await;

    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 40_000_000).await.unwrap();
    let then = world.transcript.position();
    other.pay(&offer, 40_000_000).unwrap();
    world
        .see(then, |e| matches!(&e.what, What::Mailbox { state, .. } if state == "kept"))
        .await
        .unwrap();
    world.start_recipient().await.unwrap();
    for payer in ["payer", "payer-2"] {
        world.see_htlc(from, payer, HtlcState::Paid).await.unwrap();
    }
    let claims = claims(&world, from);
    let skims: Vec<_> = claims.iter().map(|(_, skim)| *skim).collect();
    assert_eq!(claims.iter().map(|(msat, _)| msat).sum::<u64>(), 78_000_000);
    assert_eq!(skims.iter().sum::<u64>(), 2_000_000, "one fee, whoever paid it: {skims:?}");
    assert_eq!(world.recipient().balances().channels.len(), 1);
    other.stop().await;
    world.stop().await;
}

/// What the recipient claimed and what was skimmed from it, in msat.
fn claims(world: &World, from: u64) -> Vec<(u64, u64)> {
    let entries = world.transcript.since(from);
    let claims = entries.iter().filter_map(|e| match e.what {
        What::Htlc { state: HtlcState::Claimed, amount_msat, skimmed_fee_msat, .. } => {
            Some((amount_msat, skimmed_fee_msat))
        }
        _ => None,
    });
    claims.collect()
}
