//! How long a payment can be held, in blocks.

use guide::lab;
use guide::world::{Story, World};
use lightning::offers::offer::Offer;
use lsps2_async::hold::{Hold, MOST_SHADOW_BLOCKS};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{HtlcState, What};
use regtest::Chain;

const AMOUNT_MSAT: u64 = 100_000_000;

/// Sends a payment to the recipient that is away. What the payer's router added by chance is read from
/// the payer's HTLC; the rest is what the crate says.
async fn locked(world: &World, offer: &Offer, extra_final_cltv_delta: u16) -> (u64, Hold) {
    let (from, height) = (world.transcript.position(), world.chain.height().await.unwrap());
    world.pay_while_recipient_is_offline(offer, AMOUNT_MSAT).await.unwrap();
    let channels = world.payer().channel_manager().list_channels();
    let [htlc] = &channels[0].pending_outbound_htlcs[..] else { panic!("{channels:?}") };
    let certain = Hold { extra_final_cltv_delta, ..Hold::locked_at(height) };
    let at_recipient =
        htlc.cltv_expiry - u32::from(certain.payer_lsp_delta) - u32::from(certain.lease_delta);
    let shadow_offset = at_recipient.checked_sub(certain.expiry_at_recipient());
    let shadow_offset = shadow_offset.expect("the path adds what it says it adds");
    assert!(shadow_offset <= MOST_SHADOW_BLOCKS, "{shadow_offset}");
    (from, Hold { shadow_offset, ..certain })
}

async fn mine_to(world: &World, height: u32) {
    let now = world.chain.height().await.unwrap();
    world.mine(height - now).await.unwrap();
}

/// One block too late, then at the last block: between the two lies the window's end.
async fn is_measured(extra_final_cltv_delta: u16) {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    story.recipient.paths.extra_final_cltv_delta = extra_final_cltv_delta;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    lab::begin(&world, "hold", "Held to the last block").await.unwrap();

    let (from, hold) = locked(&world, &offer, extra_final_cltv_delta).await;
    let certain = 3 + u32::from(extra_final_cltv_delta);
    assert_eq!(hold.window_blocks() - hold.shadow_offset, certain);
    mine_to(&world, hold.last_to_open() + 1).await;
    world.start_recipient().await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "41 blocks are left, and 42 are needed to open a channel");
    assert!(world.recipient().balances().channels.is_empty(), "a channel was opened for nothing");
    world.stop_recipient().await;

    let (from, hold) = locked(&world, &offer, extra_final_cltv_delta).await;
    mine_to(&world, hold.last_to_open()).await;
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.recipient_received_msat, 98_000_000);
    assert_eq!(books.opening_fee_msat, 2_000_000);

    lab::end(&world).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_more_final_blocks_three_and_the_offset_are_the_window() {
    is_measured(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_block_of_the_final_delta_is_one_of_the_window() {
    is_measured(144).await;
}
