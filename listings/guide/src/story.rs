//! The flow, told in scenes: what the demo prints, the recorder writes down and a live run shows.

use anyhow::{Result, bail};
use lightning::offers::offer::Offer;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::{DIRECTOR, Entry, HtlcState, What};

use crate::money::Books;
use crate::world::{PATIENCE, World, is_onion};

/// The five steps, and what comes after.
pub const STEPS: [(&str, &str); 6] = [
    ("step-1", "Negotiate ahead of time"),
    ("step-2", "Encode in the payment metadata"),
    ("step-3", "Decode, and inject the intercept SCID"),
    ("step-4", "Pay over an imaginary SCID"),
    ("step-5", "Detect, open, forward"),
    ("return", "The payer comes back"),
];

/// The choices of one telling.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Whether the payer goes offline too.
    pub payer: PayerMode,
    /// Which side trusts.
    pub trust: TrustModel,
    /// What is paid, in msat.
    pub amount_msat: u64,
    /// Whether the recipient stays online while it is paid.
    pub recipient_stays: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            payer: PayerMode::OftenOffline,
            trust: TrustModel::ClientTrustsLsp,
            amount_msat: 100_000_000,
            recipient_stays: false,
        }
    }
}

/// All of it, from a world in which the recipient has never been, to a payer that holds the
/// preimage.
///
/// # Errors
/// If a step fails, or takes longer than a slow machine needs.
pub async fn flow(world: &mut World, setting: &Setting) -> Result<Books> {
    let (_, offer) = prepare(world).await?;
    let from = world.transcript.position();
    pay(world, setting, &offer).await?;
    settle(world, setting, from).await
}

/// Steps 1 to 3: the recipient buys a lease, and its offer leads over the intercept SCID.
pub async fn prepare(world: &mut World) -> Result<(Lease, Offer)> {
    begin(world, 0);
    world.start_recipient().await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let lease = world.recipient().buy_lease(lsp, policy).await?;
    begin(world, 1);
    // The router writes the metadata and reads it back in one call: the third step begins with what
    // comes of it.
    cue(world, 2, |entry| makes(entry, "recipient", "serve_static_invoice"));
    let paths = world.lsp().paths_for(b"alice").await?;
    world.recipient().use_paths(paths)?;
    let offer = world.recipient().wait_for_offer(PATIENCE).await?;
    Ok((lease, offer))
}

/// Step 4, up to the HTLC that waits for the recipient.
pub async fn pay(world: &mut World, setting: &Setting, offer: &Offer) -> Result<()> {
    begin(world, 3);
    cue(world, 4, |entry| {
        matches!(&entry.what, What::Event { name, .. } if name == "HTLCIntercepted")
            && entry.node == "lsp"
    });
    if setting.recipient_stays {
        let from = world.transcript.position();
        world.payer().pay(offer, setting.amount_msat)?;
        if setting.payer == PayerMode::OftenOffline {
            see_out_of_payers_hands(world, from).await?;
            leave(world, "payer").await?;
        }
        return Ok(());
    }
    leave(world, "recipient").await?;
    world.pay_while_recipient_is_offline(offer, setting.amount_msat).await?;
    if setting.payer == PayerMode::OftenOffline {
        leave(world, "payer").await?;
    }
    Ok(())
}

/// Waits until the payer's HTLC is locked at its LSP. A recipient that is online may be faster than
/// the payer's leave: then it has been paid already.
async fn see_out_of_payers_hands(world: &World, from: u64) -> Result<()> {
    let payer = world.payer().id();
    let is_there = |e: &Entry| match &e.what {
        What::Htlc { state, .. } => e.node == "payer" && *state == HtlcState::Paid,
        _ => world.payer_lsp.locked_htlcs_from(&payer) > 0,
    };
    world.see(from, is_there).await?;
    Ok(())
}

/// The rest of step 4, step 5, and a payer that comes back. Returns the books of what was paid
/// since position `from`.
pub async fn settle(world: &mut World, setting: &Setting, from: u64) -> Result<Books> {
    if world.recipient.is_none() {
        world.start_recipient().await?;
    }
    if let Err(reason) = world.see_judgement(from).await? {
        bail!("the recipient refused the payment: {reason}");
    }
    for node in ["lsp", "payer-lsp"] {
        world.see_htlc(from, node, HtlcState::Forwarded).await?;
    }
    if setting.trust == TrustModel::ClientTrustsLsp {
        // Until its fee is paid, the LSP withholds the funding.
        world.see(from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await?;
    }
    if world.payer.is_none() {
        world.rest().await?;
        begin(world, 5);
        world.start_payer().await?;
    }
    let books = world.settled(from).await?;
    world.rest().await?;
    Ok(books)
}

/// A party goes offline, and its peers know.
pub async fn leave(world: &mut World, name: &str) -> Result<()> {
    let from = world.transcript.position();
    let peers: Vec<String> = world
        .transcript
        .since(0)
        .iter()
        .rev()
        .filter(|e| e.node == name)
        .map_while(|e| match &e.what {
            What::Started { .. } => None,
            What::Connected { peer } => Some(Some(peer.clone())),
            _ => Some(None),
        })
        .flatten()
        .collect();
    match name {
        "recipient" => world.stop_recipient().await,
        "payer" => world.stop_payer().await,
        other => bail!("{other} does not leave here"),
    }
    for peer in peers {
        let gone =
            |e: &Entry| matches!(&e.what, What::Disconnected { peer: other } if other == name);
        world.see(from, |e| e.node == peer && gone(e)).await?;
    }
    Ok(())
}

fn begin(world: &World, step: usize) {
    let (id, title) = STEPS[step];
    world.transcript.scene(id, title);
}

fn cue(world: &World, step: usize, is_it: impl Fn(&Entry) -> bool + Send + 'static) {
    let (id, title) = STEPS[step];
    world.transcript.cue(id, title, move |entry| entry.node != DIRECTOR && is_it(entry));
}

/// Whether a party makes this onion message, or, at the latest, whether it arrives.
fn makes(entry: &Entry, maker: &str, name: &str) -> bool {
    match &entry.what {
        What::OnionSent { message, .. } => entry.node == maker && message == name,
        _ => is_onion(entry, name),
    }
}
