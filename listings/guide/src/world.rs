//! Four parties on one chain: payer, payer's LSP, recipient's LSP, recipient.
//!
//! ```text
//! payer --private channel-- payer-lsp --announced channel-- lsp -- (nothing yet) -- recipient
//! ```

use crate::money::Books;
use anyhow::{Context, Result, bail};
use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, WPubkeyHash};
use lightning::offers::offer::Offer;
use lightning::util::config::UserConfig;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::negotiate::NegotiationPolicy;
use lsps2_async::payer::{PayerMode, configure_payers_lsp};
use node::faults::Faults;
use node::lsp::{Lsp, LspPolicy};
use node::payer::Payer;
use node::payer_lsp::PayerLsp;
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{DIRECTOR, Entry, HtlcState, NotSeen, Transcript, What};
use node::{NodeConfig, wallet_script};
use regtest::Chain;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take before a run is given up, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The capacity of the payer's channel, in sat.
pub const PAYER_CHANNEL_SAT: u64 = 12_000_000;
/// The capacity of the announced channel between the LSPs, in sat. By LDK's default a single HTLC
/// takes at most a quarter of it.
pub const LSP_CHANNEL_SAT: u64 = 16_000_000;

/// How many blocks make the coins mature. 100 would do; with these, every height is beyond 255, so
/// that the expiry of an HTLC takes two bytes in every onion.
const MATURITY: u32 = 250;

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Story {
    /// Whether the payer may go offline.
    pub payer: PayerMode,
    /// The capacities of the payer's channels, in sat.
    pub payer_channels_sat: &'static [u64],
    /// How the recipient's LSP sells.
    pub lsp: LspPolicy,
    /// How the recipient behaves.
    pub recipient: RecipientPolicy,
    /// Flags of LDK that the recipient has otherwise than it should.
    pub recipient_flags: fn(&mut UserConfig),
    /// How many coins the recipient's LSP has.
    pub lsp_coins: u32,
    /// Whether the payer's LSP is the recipient's too. The node that is the payer's LSP otherwise is
    /// then no more than a peer of it.
    pub one_lsp: bool,
    /// Whether the payer's channels are announced. It never announces itself.
    pub payer_announced: bool,
    /// Whether the channel between the LSPs is announced.
    pub lsps_announced: bool,
}

impl Story {
    /// The usual story with this payer and this trust model.
    pub fn new(payer: PayerMode, trust: TrustModel) -> Self {
        Self {
            payer,
            payer_channels_sat: &[PAYER_CHANNEL_SAT],
            lsp: LspPolicy::new(trust),
            recipient: RecipientPolicy::default(),
            recipient_flags: |_| {},
            // Several: those of a funding it withholds are not free for the next.
            lsp_coins: 3,
            one_lsp: false,
            payer_announced: false,
            lsps_announced: true,
        }
    }

    fn flags_of(&self, name: &str) -> fn(&mut UserConfig) {
        match name {
            "lsp" if self.one_lsp => configure_payers_lsp,
            // One that announces takes no channel that is not, by LDK's default.
            "lsp" if !self.lsps_announced => {
                |config| config.channel_handshake_config.announce_for_forwarding = false
            }
            _ => |_| {},
        }
    }
}

/// The four parties. The recipient and the payer come and go; the LSPs only restart.
pub struct World {
    /// What happened so far.
    pub transcript: Transcript,
    /// The chain.
    pub chain: Chain,
    /// The payer, while it is online.
    pub payer: Option<Payer>,
    /// The payer's LSP.
    pub payer_lsp: PayerLsp,
    /// The recipient's LSP; `None` only while it restarts.
    pub lsp: Option<Lsp>,
    /// The recipient, while it is online.
    pub recipient: Option<Recipient>,
    /// Payers beside the usual one.
    others: Vec<Payer>,
    story: Story,
    lsp_address: SocketAddr,
    /// By how much everybody's clock has been set forward.
    ahead: Duration,
    /// By the names of the nodes.
    faults: Mutex<HashMap<String, Faults>>,
    folder: TempDir,
}

impl World {
    /// Starts the payer and both LSPs, with coins, channels and gossip. The recipient is not there.
    pub async fn new(chain: Chain, story: Story) -> Result<Self> {
        Self::with(chain, story, Transcript::new()).await
    }

    /// The same, with a transcript that keeps the bytes of the messages the book explains.
    pub async fn recorded(chain: Chain, story: Story) -> Result<Self> {
        Self::with(chain, story, Transcript::keeping_bytes()).await
    }

    async fn with(chain: Chain, story: Story, transcript: Transcript) -> Result<Self> {
        Self::within(&std::env::temp_dir(), chain, story, transcript).await
    }

    /// The same, with its folders in this one and a transcript that others may follow already.
    pub async fn within(
        parent: &Path,
        chain: Chain,
        story: Story,
        transcript: Transcript,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lsps2-async-").tempdir_in(parent)?;
        let payers_coins = u32::try_from(story.payer_channels_sat.len())?;
        let coins = [("payer", payers_coins), ("payer-lsp", 1), ("lsp", story.lsp_coins)];
        fund(&chain, &folder, &coins).await?;
        let faults = Mutex::default();
        let config = |name: &str| NodeConfig {
            faults: faults_of(&faults, name),
            flags: story.flags_of(name),
            ..node_config(&folder, &chain, &transcript, name, any_port())
        };
        let (lsp, payer_lsp, payer) = tokio::try_join!(
            Lsp::start(config("lsp"), story.lsp.clone()),
            PayerLsp::start(config("payer-lsp")),
            Payer::start(config("payer"), story.payer),
        )?;
        let world = Self {
            lsp_address: lsp.address(),
            transcript,
            chain,
            payer: Some(payer),
            payer_lsp,
            lsp: Some(lsp),
            recipient: None,
            others: Vec::new(),
            ahead: Duration::ZERO,
            story,
            faults,
            folder,
        };
        world.open_channels().await.context("setting up the channels")?;
        Ok(world)
    }

    async fn open_channels(&self) -> Result<()> {
        let (payer, payer_lsp, lsp) = (self.payer(), &self.payer_lsp, self.lsp());
        let story = &self.story;
        let (holder, holds) = (self.payers_lsp_name(), self.payers_lsp());
        payer.connect(holds.id(), holds.address()).await?;
        payer_lsp.connect(lsp.id(), lsp.address()).await?;
        let from = self.transcript.position();
        for capacity_sat in story.payer_channels_sat {
            payer.open_channel(holds.id(), *capacity_sat, story.payer_announced)?;
        }
        payer_lsp.open_channel(lsp.id(), LSP_CHANNEL_SAT, story.lsps_announced)?;
        let payers = story.payer_channels_sat.len();
        for (node, channels) in [("payer", payers), ("payer-lsp", 1)] {
            self.see_times(channels, from, |e| e.node == node && broadcast_ok(e)).await?;
        }
        self.mine(6).await?;
        let ends = [("payer", holder, payers), ("payer-lsp", "lsp", 1), ("lsp", "payer-lsp", 1)];
        for (node, peer, channels) in ends {
            let is_ready = |e: &Entry| e.node == node && channel_is(e, "ready", peer);
            self.see_times(channels, from, is_ready).await?;
        }
        // Only then does the payer name itself in its reply paths.
        let is_public = || !story.payer_announced || payer.knows_of(&payer.id());
        self.see(from, |e| matches!(e.what, What::Wire { .. }) && is_public()).await?;
        if !story.lsps_announced {
            return Ok(());
        }
        self.complete_gossip(from).await?;
        // The payer's route needs the announced channel, and its messages the LSP's address. The
        // LSP builds no offer paths before it is announced itself.
        let gossiped = || {
            self.lsps_know_their_channel()
                && payer.can_route(&payer_lsp.id(), &lsp.id())
                && payer.knows_node(&lsp.id())
                && lsp.knows_node(&lsp.id())
        };
        self.see(from, |e| matches!(e.what, What::Wire { .. }) && gossiped()).await?;
        Ok(())
    }

    /// The two ends of a new channel tell each other of it once. An end that has not seen its own
    /// announcement yet drops the other's `channel_update`, and LDK's router then leaves the channel
    /// alone. Connecting again brings it: the peers synchronise their graphs.
    async fn complete_gossip(&self, from: u64) -> Result<()> {
        let (payer_lsp, lsp) = (&self.payer_lsp, self.lsp());
        let announced = || payer_lsp.knows_node(&payer_lsp.id()) && lsp.knows_node(&lsp.id());
        self.see(from, |e| matches!(e.what, What::Wire { .. }) && announced()).await?;
        if self.lsps_know_their_channel() {
            return Ok(());
        }
        let from = self.transcript.position();
        payer_lsp.disconnect(&lsp.id())?;
        let gone =
            |e: &Entry| matches!(&e.what, What::Disconnected { peer } if peer == "payer-lsp");
        self.see(from, |e| e.node == "lsp" && gone(e)).await?;
        payer_lsp.connect(lsp.id(), lsp.address()).await?;
        // A channel without a payment so far says once more that it is ready.
        for node in ["payer-lsp", "lsp"] {
            for message in ["channel_reestablish", "channel_ready"] {
                self.see(from, |e| e.node == node && is_wire(e, message)).await?;
            }
        }
        Ok(())
    }

    /// Both ends know both directions of the announced channel. The payer's route needs one; with the
    /// other, the server's offer paths name the channel, and without it a node.
    fn lsps_know_their_channel(&self) -> bool {
        let (payer_lsp, lsp) = (&self.payer_lsp, self.lsp());
        let knows = |node: &node::Node| {
            node.can_route(&payer_lsp.id(), &lsp.id()) && node.can_route(&lsp.id(), &payer_lsp.id())
        };
        knows(payer_lsp) && knows(lsp)
    }

    /// Starts the recipient, new or from its folder. A new one is connected to its LSP.
    pub async fn start_recipient(&mut self) -> Result<&Recipient> {
        let config = self.config("recipient", any_port());
        let from = self.transcript.position();
        let recipient = Recipient::start(config, self.story.recipient.clone()).await?;
        set_flags(&recipient, self.story.recipient_flags);
        recipient.connect_lsp(self.lsp().id(), self.lsp_address).await?;
        let is_there =
            |e: &Entry| matches!(&e.what, What::Connected { peer } if peer == "recipient");
        self.see(from, |e| e.node == "lsp" && is_there(e)).await?;
        Ok(self.recipient.insert(recipient))
    }

    /// Another payer with a channel to the payer's LSP.
    pub async fn add_payer(&self, name: &str) -> Result<Payer> {
        fund(&self.chain, &self.folder, &[(name, 1)]).await?;
        let payer = Payer::start(self.config(name, any_port()), self.story.payer).await?;
        payer.connect(self.payer_lsp.id(), self.payer_lsp.address()).await?;
        let from = self.transcript.position();
        payer.open_channel(self.payer_lsp.id(), PAYER_CHANNEL_SAT, false)?;
        self.see(from, |e| e.node == name && broadcast_ok(e)).await?;
        self.mine(6).await?;
        self.see(from, |e| e.node == name && channel_is(e, "ready", "payer-lsp")).await?;
        let (there, lsp) = (self.payer_lsp.id(), self.lsp().id());
        let knows = || payer.can_route(&there, &lsp) && payer.knows_node(&lsp);
        self.see(from, |e| matches!(e.what, What::Wire { .. }) && knows()).await?;
        Ok(payer)
    }

    /// Takes over another payer, which stops with the rest.
    pub fn keep(&mut self, payer: Payer) {
        self.others.push(payer);
    }

    /// Stops the recipient: it is offline, and its LSP knows. Otherwise the LSP would forward to it
    /// what it drops for somebody who is away.
    pub async fn stop_recipient(&mut self) {
        if let Some(recipient) = self.recipient.take() {
            recipient.stop().await;
            if self.lsp.is_some() {
                let gone = |_: &Entry| !self.is_connected("lsp", "recipient");
                self.see(0, gone).await.expect("the LSP sees that its client is gone");
            }
        }
    }

    /// Whether the last that a node said of this peer is that it is connected.
    fn is_connected(&self, node: &str, to: &str) -> bool {
        let said = self.transcript.last(|e| match &e.what {
            _ if e.node != node => None,
            What::Connected { peer } if peer == to => Some(true),
            What::Disconnected { peer } if peer == to => Some(false),
            What::Started { .. } | What::Stopped => Some(false),
            _ => None,
        });
        said.unwrap_or(false)
    }

    /// Starts the payer from its folder.
    pub async fn start_payer(&mut self) -> Result<&Payer> {
        let payer = Payer::start(self.config("payer", any_port()), self.story.payer).await?;
        Ok(self.payer.insert(payer))
    }

    /// Stops the payer: it is offline.
    pub async fn stop_payer(&mut self) {
        if let Some(payer) = self.payer.take() {
            payer.stop().await;
        }
    }

    /// Stops the LSP. It is found at its address again after `start_lsp`.
    pub async fn stop_lsp(&mut self) {
        if let Some(lsp) = self.lsp.take() {
            lsp.stop().await;
        }
    }

    /// The LSP crashes: it writes nothing more. It is found at its address again after `start_lsp`.
    pub async fn crash_lsp(&mut self) {
        if let Some(lsp) = self.lsp.take() {
            lsp.crash().await;
        }
    }

    /// The recipient crashes: it writes nothing more.
    pub async fn crash_recipient(&mut self) {
        if let Some(recipient) = self.recipient.take() {
            recipient.crash().await;
        }
    }

    /// The payer crashes: it writes nothing more.
    pub async fn crash_payer(&mut self) {
        if let Some(payer) = self.payer.take() {
            payer.crash().await;
        }
    }

    /// Starts the LSP from its folder, and waits for its channel to the payer's LSP.
    pub async fn start_lsp(&mut self) -> Result<&Lsp> {
        let from = self.transcript.position();
        let config = self.config("lsp", self.lsp_address);
        let lsp = Lsp::start(config, self.story.lsp.clone()).await?;
        self.lsp = Some(lsp);
        self.see(from, |e| e.node == "payer-lsp" && is_wire(e, "channel_reestablish")).await?;
        Ok(self.lsp())
    }

    /// Stops the payer's LSP and starts it from its folder, at its address; waits for its channel to
    /// the recipient's LSP.
    pub async fn restart_payer_lsp(&mut self) -> Result<()> {
        self.payer_lsp.stop().await;
        self.start_payer_lsp().await
    }

    /// The payer's LSP crashes, without a last write, and starts from its folder, at its address;
    /// waits for its channel to the recipient's LSP.
    pub async fn crash_and_restart_payer_lsp(&mut self) -> Result<()> {
        self.payer_lsp.crash().await;
        self.start_payer_lsp().await
    }

    async fn start_payer_lsp(&mut self) -> Result<()> {
        let config = self.config("payer-lsp", self.payer_lsp.address());
        let from = self.transcript.position();
        self.payer_lsp = PayerLsp::start(config).await?;
        self.see(from, |e| e.node == "lsp" && is_wire(e, "channel_reestablish")).await?;
        Ok(())
    }

    /// The wallet's terms for a lease in this world.
    pub fn buying_policy(&self) -> NegotiationPolicy {
        wallets_terms()
    }

    /// Steps 1 to 3: a lease, the server's paths, and the offer that comes of them.
    pub async fn prepare_recipient(&mut self) -> Result<(Lease, Offer)> {
        let policy = self.buying_policy();
        self.start_recipient().await?;
        let lsp = self.lsp().id();
        let lease = self.recipient().buy_lease(lsp, policy).await?;
        let paths = self.lsp().paths_for(b"alice").await?;
        self.recipient().use_paths(paths)?;
        let offer = self.recipient().wait_for_offer(PATIENCE).await?;
        Ok((lease, offer))
    }

    /// Step 4, as far as it goes without the recipient: the payment waits, and if the payer may go
    /// offline, its HTLC is locked at its own LSP.
    pub async fn pay_while_recipient_is_offline(
        &self,
        offer: &Offer,
        amount_msat: u64,
    ) -> Result<()> {
        let from = self.transcript.position();
        self.payer().pay(offer, amount_msat)?;
        // `held_htlc_available` waits for the recipient in its LSP's mailbox.
        let kept = |e: &Entry| match &e.what {
            What::Mailbox { state, .. } => state == "kept",
            What::Htlc { state: HtlcState::Failed, .. } => true,
            _ => false,
        };
        let seen = self.transcript.wait_for(from, PATIENCE, |e| kept(e).then(|| e.clone())).await?;
        if let What::Htlc { reason, .. } = seen.what {
            bail!("the payment failed: {}", reason.unwrap_or_default());
        }
        self.see(from, |_| self.copies_are_answered(from)).await?;
        if self.story.payer == PayerMode::OftenOffline {
            // Before that, the HTLC would wait for the payer too.
            let payer = self.payer().id();
            let locked = || self.payers_lsp().locked_htlcs_from(&payer) > 0;
            self.see(from, |e| matches!(e.what, What::Wire { .. }) && locked()).await?;
        }
        Ok(())
    }

    /// LDK asks for an invoice over several paths. Whether each copy of the request was answered, and
    /// what the server forwarded of it to the recipient, which is away, has been dropped.
    pub fn copies_are_answered(&self, from: u64) -> bool {
        let entries = self.transcript.since(from);
        let count = |is_it: fn(&Entry) -> bool| entries.iter().filter(|e| is_it(e)).count();
        let asked = count(|e| {
            let request =
                matches!(&e.what, What::OnionSent { message, .. } if message == "invoice_request");
            request && e.node != "lsp"
        });
        let answered = count(|e| is_onion(e, "static_invoice"));
        let dropped =
            count(|e| matches!(&e.what, What::Mailbox { state, .. } if state == "dropped"));
        // Answers to an earlier payment may come late, too.
        answered >= asked && dropped >= asked
    }

    /// Step 5: the recipient wakes up and claims, and a payer that went offline comes back. Returns
    /// the books of what was paid since position `from`.
    pub async fn wake_recipient_and_settle(&mut self, from: u64) -> Result<Books> {
        self.start_recipient().await?;
        if let Err(reason) = self.see_judgement(from).await? {
            bail!("the recipient refused the payment: {reason}");
        }
        if self.payer.is_none() {
            self.start_payer().await?;
        }
        self.settled(from).await
    }

    /// Waits until the one payment made since position `from` has gone all the way, and returns its
    /// books.
    pub async fn settled(&self, from: u64) -> Result<Books> {
        self.see_htlc(from, "payer", HtlcState::Paid).await?;
        self.see_htlc(from, "lsp", HtlcState::Forwarded).await?;
        self.see_htlc(from, self.payers_lsp_name(), HtlcState::Forwarded).await?;
        Books::of_one_payment(&self.transcript.since(from))
    }

    /// Waits until the recipient has claimed or refused a payment that it had not judged before
    /// position `from`: LDK repeats the last claim after a restart.
    pub async fn see_judgement(&self, from: u64) -> Result<Result<(), String>> {
        let before = self.transcript.since(0);
        let old: HashSet<_> = before.iter().filter(|e| e.seq < from).filter_map(judged).collect();
        let new = self.see(from, |e| judged(e).is_some_and(|hash| !old.contains(hash))).await?;
        Ok(match new.what {
            What::Htlc { state: HtlcState::Refused, reason, .. } => Err(reason.unwrap_or_default()),
            _ => Ok(()),
        })
    }

    /// One payment from beginning to end, the recipient offline in the middle, and the payer too if
    /// it may be. The recipient is online in the end.
    pub async fn pay_offline_recipient(
        &mut self,
        offer: &Offer,
        amount_msat: u64,
    ) -> Result<Books> {
        self.stop_recipient().await;
        let from = self.transcript.position();
        self.pay_while_recipient_is_offline(offer, amount_msat).await?;
        if self.story.payer == PayerMode::OftenOffline {
            self.stop_payer().await;
        }
        self.wake_recipient_and_settle(from).await
    }

    /// Mines blocks to nobody, and waits until every node has seen them.
    pub async fn mine(&self, blocks: u32) -> Result<()> {
        self.chain.mine(blocks, &nobody()).await?;
        let height = self.chain.height().await?;
        for name in self.online() {
            self.transcript
                .wait_for(0, PATIENCE, |e| match e.what {
                    What::Block { height: h } if h >= height && e.node == name => Some(()),
                    _ => None,
                })
                .await?;
        }
        Ok(())
    }

    fn online(&self) -> Vec<&'static str> {
        let mut names = vec!["payer-lsp"];
        names.extend(self.payer.as_ref().map(|_| "payer"));
        names.extend(self.lsp.as_ref().map(|_| "lsp"));
        names.extend(self.recipient.as_ref().map(|_| "recipient"));
        names
    }

    /// Sets everybody's clock forward, also for those who start later. LDK's own, by which its LSPS2
    /// service prunes leases, is the machine's.
    pub fn pass(&mut self, time: Duration) {
        self.ahead += time;
        let clocks = [
            self.payer.as_ref().map(|payer| payer.clock()),
            Some(self.payer_lsp.clock()),
            self.lsp.as_ref().map(|lsp| lsp.clock()),
            self.recipient.as_ref().map(|recipient| recipient.clock()),
        ];
        for clock in clocks.into_iter().flatten() {
            clock.advance(time);
        }
    }

    /// Waits until no HTLC is on its way between those who are online.
    pub async fn rest(&self) -> Result<()> {
        let rests = |node: Option<&node::Node>| node.is_none_or(node::Node::htlcs_rest);
        let all = || {
            rests(self.payer.as_deref())
                && rests(Some(&*self.payer_lsp))
                && rests(self.lsp.as_deref())
                && rests(self.recipient.as_deref())
        };
        self.see(0, |_| all()).await?;
        Ok(())
    }

    /// Waits for an entry at `from` or later.
    pub async fn see(&self, from: u64, is_it: impl Fn(&Entry) -> bool) -> Result<Entry, NotSeen> {
        self.transcript.wait_for(from, PATIENCE, |e| is_it(e).then(|| e.clone())).await
    }

    /// Waits for so many entries at `from` or later.
    pub async fn see_times(
        &self,
        times: usize,
        from: u64,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Result<(), NotSeen> {
        let count = || self.transcript.since(from).iter().filter(|e| is_it(e)).count();
        self.see(from, |_| count() >= times).await?;
        Ok(())
    }

    /// Waits until the HTLC of a payment, or the payment itself, is in this state on that node.
    pub async fn see_htlc(
        &self,
        from: u64,
        node: &str,
        wanted: HtlcState,
    ) -> Result<Entry, NotSeen> {
        self.see(from, |e| {
            e.node == node && matches!(e.what, What::Htlc { state, .. } if state == wanted)
        })
        .await
    }

    fn payers_lsp_name(&self) -> &'static str {
        if self.story.one_lsp { "lsp" } else { "payer-lsp" }
    }

    /// The node that holds for the payer.
    fn payers_lsp(&self) -> &node::Node {
        if self.story.one_lsp { self.lsp() } else { &self.payer_lsp }
    }

    /// The payer; panics while it is offline.
    pub fn payer(&self) -> &Payer {
        self.payer.as_ref().expect("the payer is online")
    }

    /// The recipient's LSP; panics while it restarts.
    pub fn lsp(&self) -> &Lsp {
        self.lsp.as_ref().expect("the LSP is online")
    }

    /// The recipient; panics while it is offline.
    pub fn recipient(&self) -> &Recipient {
        self.recipient.as_ref().expect("the recipient is online")
    }

    /// How the recipient's LSP behaves from its next start on.
    pub fn lsp_policy(&mut self) -> &mut LspPolicy {
        &mut self.story.lsp
    }

    /// What another node of this world is started with.
    pub fn node_config(&self, name: &str) -> NodeConfig {
        self.config(name, any_port())
    }

    fn config(&self, name: &str, listen: SocketAddr) -> NodeConfig {
        let config = node_config(&self.folder, &self.chain, &self.transcript, name, listen);
        let flags = self.story.flags_of(name);
        NodeConfig { ahead: self.ahead, faults: self.faults(name), flags, ..config }
    }

    /// The faults of the node with this name, there or not. They stay when it starts again.
    pub fn faults(&self, name: &str) -> Faults {
        faults_of(&self.faults, name)
    }

    /// The director says something: a fault that is made here, or what no message tells.
    pub fn say(&self, text: impl Into<String>) {
        self.transcript.record(DIRECTOR, What::Note { text: text.into() });
    }

    /// Stops everybody.
    pub async fn stop(mut self) {
        self.stop_payer().await;
        for other in self.others.drain(..) {
            other.stop().await;
        }
        self.stop_recipient().await;
        self.stop_lsp().await;
        self.payer_lsp.stop().await;
    }
}

/// What the wallet accepts when it buys a lease, whoever sells.
pub fn wallets_terms() -> NegotiationPolicy {
    NegotiationPolicy {
        payment_size_msat: 100_000_000,
        fixed_size: false,
        max_fee_msat: 10_000_000,
        min_validity: Duration::from_secs(3600),
        our_to_self_delay: 144,
        trust_model: TrustModel::ClientTrustsLsp,
        timeout: Duration::from_secs(30),
        token: None,
    }
}

/// Coins for each of these nodes, mature ones, before they start.
async fn fund(chain: &Chain, folder: &TempDir, coins: &[(&str, u32)]) -> Result<()> {
    for (name, blocks) in coins {
        chain.mine(*blocks, &wallet_script(&data_dir(folder, name))?).await?;
    }
    chain.mine(MATURITY, &nobody()).await?;
    Ok(())
}

/// Changes LDK's flags of a running node.
pub fn set_flags(node: &node::Node, change: impl FnOnce(&mut UserConfig)) {
    let mut config = node.channel_manager().get_current_config();
    change(&mut config);
    node.channel_manager().set_current_config(config);
}

/// A script that nobody can spend from, to mine to.
pub fn nobody() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros())
}

fn data_dir(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

fn node_config(
    folder: &TempDir,
    chain: &Chain,
    transcript: &Transcript,
    name: &str,
    listen: SocketAddr,
) -> NodeConfig {
    NodeConfig {
        name: name.to_owned(),
        data_dir: data_dir(folder, name),
        listen,
        chain: chain.clone(),
        transcript: transcript.clone(),
        faults: Faults::default(),
        ahead: Duration::ZERO,
        flags: |_| {},
    }
}

fn faults_of(all: &Mutex<HashMap<String, Faults>>, name: &str) -> Faults {
    all.lock().unwrap().entry(name.to_owned()).or_default().clone()
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Whether an entry is this message arriving.
pub fn is_wire(entry: &Entry, name: &str) -> bool {
    matches!(&entry.what, What::Wire { message, .. } if message == name)
}

/// Whether an entry is this onion message arriving.
pub fn is_onion(entry: &Entry, name: &str) -> bool {
    matches!(&entry.what, What::Onion { message, .. } if message == name)
}

/// Whether an entry is a channel with this peer reaching this state.
pub fn channel_is(entry: &Entry, wanted: &str, with: &str) -> bool {
    matches!(&entry.what, What::Channel { state, peer, .. } if state == wanted && peer == with)
}

/// The hash of the payment of which this entry says what the recipient made of it.
fn judged(entry: &Entry) -> Option<&str> {
    match &entry.what {
        What::Htlc { state: HtlcState::Claimed | HtlcState::Refused, payment_hash, .. }
            if entry.node == "recipient" =>
        {
            payment_hash.as_deref()
        }
        _ => None,
    }
}

fn broadcast_ok(entry: &Entry) -> bool {
    matches!(&entry.what, What::Broadcast { error: None, .. })
}
