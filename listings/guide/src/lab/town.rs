//! The world of a random run: several payers and recipients around the two LSPs. Everybody comes,
//! goes and crashes.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{PaymentId, RecentPaymentDetails};
use lightning::offers::offer::Offer;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::payer::{PayerMode, PaymentStage};
use node::faults::Faults;
use node::lsp::{Conduct, Lsp};
use node::payer::Payer;
use node::payer_lsp::PayerLsp;
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{Transcript, What};
use node::{Node, NodeConfig};
use regtest::Chain;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::audit::Audit;
use super::steps::{PAYERS, RECIPIENTS, Step, Who};
use crate::world::{PATIENCE, Story, World, nobody, wallets_terms};

/// How long a step waits for what it began, before the next one goes on all the same.
const WAIT: Duration = Duration::from_secs(4);
/// How long a block takes by everybody's clock.
const BLOCK: Duration = Duration::from_secs(600);
/// Longer than any lease of the lab is valid.
const BEYOND_VALIDITY: Duration = Duration::from_secs(29 * 24 * 60 * 60);
/// An HTLC whose other end is away is not brought nearer to its expiry than this, in blocks: what
/// happens on the chain then is another test's.
const CLEAR_OF_EXPIRY: u32 = 24;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps.
    pub steps: usize,
    /// Payments that were asked for.
    pub asked: usize,
    /// Payments that were completed.
    pub paid: usize,
    /// Crashes.
    pub crashes: usize,
    /// Polite restarts, comings and goings.
    pub restarts: usize,
    /// Blocks.
    pub blocks: u32,
    /// Leases.
    pub leases: usize,
}

impl Counts {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            asked: self.asked + other.asked,
            paid: self.paid + other.paid,
            crashes: self.crashes + other.crashes,
            restarts: self.restarts + other.restarts,
            blocks: self.blocks + other.blocks,
            leases: self.leases + other.leases,
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, asked, paid, crashes, restarts, blocks, leases } = self;
        write!(
            f,
            "{steps} steps, {paid} payments of {asked} that were tried, {leases} leases, {crashes} \
             crashes, {restarts} restarts, {blocks} blocks"
        )
    }
}

/// A payment that was asked for.
struct Sent {
    payer: usize,
    recipient: usize,
    id: PaymentId,
    over: bool,
}

/// What can open a channel in the lab.
const OPENS_MSAT: u64 = 20_000_000;

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Polite,
    Crash,
}

/// All parties.
pub struct Town {
    /// The chain, the LSPs, the transcript and the folders; its payer and its recipient are unused.
    world: World,
    payers: [Option<Payer>; PAYERS],
    recipients: [Option<Recipient>; RECIPIENTS],
    /// The offers of each recipient, the oldest first.
    offers: [Vec<Offer>; RECIPIENTS],
    lsp_address: SocketAddr,
    ahead: Duration,
    /// When the first HTLC expires of those who are away.
    left_with: BTreeMap<Who, u32>,
    conduct: Conduct,
    audit: Audit,
    sent: Vec<Sent>,
    /// What was done so far.
    pub counts: Counts,
}

impl Town {
    /// Everybody is online; each recipient has a lease and an offer.
    ///
    /// # Errors
    /// If a step of that fails.
    pub async fn new(folder: &Path, trust: TrustModel) -> Result<Self> {
        let mut story = Story::new(PayerMode::OftenOffline, trust);
        // Each channel withholds coins while its fee is unpaid.
        story.lsp_coins = 12;
        let mut world = World::within(folder, Chain::embedded(), story, Transcript::new()).await?;
        let second = world.add_payer(Who::Payer(1).name()).await?;
        second.stop().await;
        let transcript = world.transcript.clone();
        let mut town = Self {
            payers: [world.payer.take(), None],
            recipients: [const { None }; RECIPIENTS],
            offers: [const { Vec::new() }; RECIPIENTS],
            lsp_address: world.lsp().address(),
            ahead: Duration::ZERO,
            left_with: BTreeMap::new(),
            conduct: Conduct::Honest,
            audit: Audit::new(&transcript),
            sent: Vec::new(),
            counts: Counts::default(),
            world,
        };
        town.start(Who::Payer(1)).await?;
        for recipient in 0..RECIPIENTS {
            town.start(Who::Recipient(recipient)).await?;
            town.renew(recipient).await?;
            let (who, node) = (Who::Recipient(recipient), town.recipient(recipient)?);
            let paths = town.world.lsp().paths_for(who.name().as_bytes()).await?;
            node.use_paths(paths)?;
            let offer = node.wait_for_offer(PATIENCE).await?;
            town.offers[recipient].push(offer);
        }
        town.linked().await?;
        town.world.rest().await?;
        town.audit = Audit::new(&transcript);
        transcript.scene("lab", "Whatever may happen");
        Ok(town)
    }

    /// Takes a step, then proves that everybody owns what they should.
    ///
    /// # Errors
    /// If an invariant is broken.
    pub async fn step(&mut self, step: &Step) -> Result<()> {
        self.counts.steps += 1;
        self.take(step).await?;
        self.bury().await?;
        self.hear_of_offers();
        self.balanced().await
    }

    async fn take(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Pay { payer, recipient, msat, old, wait } => {
                self.pay(payer, recipient, msat, old, wait).await;
            }
            Step::Away(who) => self.away(who).await,
            Step::Back { who, wait } => self.back(who, wait).await?,
            Step::Drop(who) => self.drop_link(who).await?,
            Step::Restart(who) => self.restart(who, End::Polite).await?,
            Step::Crash(who) => self.restart(who, End::Crash).await?,
            Step::Fault { who, ref fault } => {
                if let Some(node) = self.node(who) {
                    node.faults().arm(fault.clone());
                }
            }
            Step::Mine(blocks) => self.mine(blocks).await?,
            Step::Reorg(blocks) => self.reorg(blocks).await?,
            Step::Tick => self.tick(),
            Step::Expire => self.pass(BEYOND_VALIDITY),
            Step::Renew(recipient) => {
                // Refused if ten of its leases are unpaid, or if the LSP crashes meanwhile.
                let _ = tokio::time::timeout(WAIT, self.renew(recipient)).await;
            }
            Step::Conduct(conduct) => {
                self.conduct = conduct;
                self.restart(Who::Lsp, End::Polite).await?;
            }
        }
        Ok(())
    }

    /// The end: everybody comes online and behaves, and within a bound nothing is under way any
    /// more. All books agree, and everybody can be paid once more.
    ///
    /// # Errors
    /// If an invariant is broken.
    pub async fn end(&mut self) -> Result<()> {
        self.conduct = Conduct::Honest;
        for who in Who::all() {
            if let Some(node) = self.node(who) {
                node.faults().disarm();
            }
        }
        self.bury().await?;
        self.restart(Who::Lsp, End::Polite).await?;
        for who in Who::all() {
            self.start(who).await?;
        }
        self.linked().await?;
        self.drained().await?;
        for recipient in 0..RECIPIENTS {
            self.paid_again(recipient).await.with_context(|| {
                format!("{} cannot be paid any more", Who::Recipient(recipient).name())
            })?;
        }
        self.drained().await?;
        self.funded()?;
        self.counts.paid = self.audit.paid();
        Ok(())
    }

    /// Stops everybody.
    pub async fn stop(mut self) {
        for who in Who::all() {
            self.ends(who, End::Polite).await;
        }
    }

    /// Writes to the transcript what is done next.
    pub fn say(&self, text: String) {
        self.world.say(text);
    }

    /// Keeps the transcript and the nodes' logs, for whoever looks for the cause.
    pub fn keep(&self, folder: Option<&Path>) {
        let Some(folder) = folder else { return };
        let entries = self.world.transcript.since(0);
        let lines: Vec<_> =
            entries.iter().filter_map(|entry| serde_json::to_string(entry).ok()).collect();
        // What cannot be kept is no reason to say less of what broke.
        let _ = std::fs::create_dir_all(folder);
        let _ = std::fs::write(folder.join("transcript.jsonl"), lines.join("\n"));
        for who in Who::all() {
            let log = self.config(who).data_dir.join("node.log");
            let _ = std::fs::copy(log, folder.join(format!("{}.log", who.name())));
        }
    }

    fn node(&self, who: Who) -> Option<&Node> {
        match who {
            Who::Payer(at) => self.payers[at].as_deref(),
            Who::PayerLsp => Some(&self.world.payer_lsp),
            Who::Lsp => self.world.lsp.as_deref(),
            Who::Recipient(at) => self.recipients[at].as_deref(),
        }
    }

    fn online(&self) -> impl Iterator<Item = &Node> {
        Who::all().filter_map(|who| self.node(who))
    }

    fn recipient(&self, at: usize) -> Result<&Recipient> {
        self.recipients[at].as_ref().context("the recipient is away")
    }

    fn config(&self, who: Who) -> NodeConfig {
        let config = self.world.node_config(who.name());
        let listen = match who {
            Who::PayerLsp => self.world.payer_lsp.address(),
            Who::Lsp => self.lsp_address,
            Who::Payer(_) | Who::Recipient(_) => config.listen,
        };
        // A fault happens once: a node that starts again has none.
        NodeConfig { listen, ahead: self.ahead, faults: Faults::default(), ..config }
    }

    /// Starts a party that is away.
    async fn start(&mut self, who: Who) -> Result<()> {
        if self.node(who).is_some() && who != Who::PayerLsp {
            return Ok(());
        }
        let config = self.config(who);
        self.left_with.remove(&who);
        match who {
            Who::Payer(at) => {
                let mode = if at == 0 { PayerMode::OftenOffline } else { PayerMode::AlwaysOnline };
                self.payers[at] = Some(Payer::start(config, mode).await?);
            }
            // It is only away while it restarts.
            Who::PayerLsp => {}
            Who::Lsp => {
                self.world.lsp_policy().conduct = self.conduct;
                let policy = self.world.lsp_policy().clone();
                self.world.lsp = Some(Lsp::start(config, policy).await?);
            }
            Who::Recipient(at) => {
                let recipient = Recipient::start(config, RecipientPolicy::default()).await?;
                let lsp = self.world.lsp().id();
                // The LSP may be dying of a fault; the recipient tries again by itself.
                let _ = recipient.connect_lsp(lsp, self.lsp_address).await;
                self.recipients[at] = Some(recipient);
            }
        }
        Ok(())
    }

    async fn ends(&mut self, who: Who, end: End) {
        let before = self.node(who).and_then(|node| next_expiry(node, |_| true));
        let node = match who {
            Who::Payer(at) => self.payers[at].take().map(Party::Payer),
            Who::PayerLsp => None,
            Who::Lsp => self.world.lsp.take().map(Party::Lsp),
            Who::Recipient(at) => self.recipients[at].take().map(Party::Recipient),
        };
        let node = match (&node, who) {
            (Some(Party::Payer(payer)), _) => &**payer,
            (Some(Party::Lsp(lsp)), _) => &**lsp,
            (Some(Party::Recipient(recipient)), _) => &**recipient,
            (None, Who::PayerLsp) => &self.world.payer_lsp,
            (None, _) => return,
        };
        match end {
            // A node whose fault fires at its last write never stops.
            End::Polite => tokio::select! {
                () = node.stop() => {}
                () = fired(node) => node.crash().await,
            },
            End::Crash => node.crash().await,
        }
        let listed = next_expiry(node, |_| true);
        let expiry = listed.into_iter().chain(before).chain(self.just_received(who)).min();
        self.left_with.extend(expiry.map(|expiry| (who, expiry)));
    }

    /// When the first HTLC expires that this party has just received. LDK lists it no more once the
    /// claim is its peer's business, but has it until the peer has taken it out of both commitments.
    fn just_received(&self, who: Who) -> Option<u32> {
        /// About a second, in entries of the transcript.
        const JUST: u64 = 400;
        /// A claim is due so many blocks before the HTLC expires (`HTLC_FAIL_BACK_BUFFER`).
        const DUE: u64 = 39;
        let just = self.world.transcript.position().saturating_sub(JUST);
        let mut deadlines = HashMap::new();
        let mut first = None;
        for entry in self.world.transcript.since(0).iter().filter(|entry| entry.node == who.name())
        {
            let What::Event { name, detail } = &entry.what else { continue };
            let hash = detail["payment_hash"].to_string();
            if name == "PaymentClaimable" {
                deadlines.insert(hash.clone(), detail["claim_deadline"].as_u64());
            } else if name != "PaymentClaimed" {
                continue;
            }
            let deadline = deadlines.get(&hash).copied().flatten();
            if let Some(deadline) = deadline.filter(|_| entry.seq >= just) {
                first = Some(first.unwrap_or(u64::MAX).min(deadline + DUE));
            }
        }
        first.and_then(|expiry| expiry.try_into().ok())
    }

    async fn restart(&mut self, who: Who, end: End) -> Result<()> {
        match end {
            End::Polite => self.counts.restarts += 1,
            End::Crash => self.counts.crashes += 1,
        }
        self.ends(who, end).await;
        if who == Who::PayerLsp {
            self.world.payer_lsp = PayerLsp::start(self.config(who)).await?;
        } else {
            self.start(who).await?;
        }
        self.linked().await
    }

    /// Whoever has died of a fault is crashed for good, and starts again.
    async fn bury(&mut self) -> Result<()> {
        for who in Who::all() {
            let dead = self.node(who).is_some_and(|node| node.has_died());
            if dead {
                self.restart(who, End::Crash).await?;
            }
        }
        Ok(())
    }

    /// Waits until all who are online have the links they should have.
    async fn linked(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut missing = None;
            for (one, other) in links() {
                let (Some(a), Some(b)) = (self.node(one), self.node(other)) else { continue };
                // One that has died of a fault is restarted in its turn.
                let dead = a.has_died() || b.has_died();
                if dead || a.is_connected(&b.id()) && b.is_connected(&a.id()) {
                    continue;
                }
                missing = Some((one, other));
                let _ = a.connect(b.id(), b.address()).await;
            }
            let Some((one, other)) = missing else { return Ok(()) };
            ensure!(
                began.elapsed() < PATIENCE,
                "{} and {} do not connect again",
                one.name(),
                other.name()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn pay(&mut self, payer: usize, recipient: usize, msat: u64, old: bool, wait: bool) {
        let offers = &self.offers[recipient];
        let offer = if old { offers.first() } else { offers.last() };
        let (Some(node), Some(offer)) = (&self.payers[payer], offer) else { return };
        let from = self.world.transcript.position();
        let Ok(id) = node.pay(offer, msat) else { return };
        self.counts.asked += 1;
        self.sent.push(Sent { payer, recipient, id, over: false });
        if wait {
            let away = self.recipients[recipient].is_none();
            self.wait(|town| {
                town.sent.last().is_some_and(|sent| sent.over) || away && town.has_mail(from)
            })
            .await;
        }
    }

    fn has_mail(&self, from: u64) -> bool {
        let entries = self.world.transcript.since(from);
        entries.iter().any(|e| matches!(&e.what, What::Mailbox { state, .. } if state == "kept"))
    }

    /// Waits for this, but not for ever.
    async fn wait(&mut self, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while began.elapsed() < WAIT {
            self.look_after_payments();
            if done(self) || self.online().any(|node| node.has_died()) {
                return;
            }
            let position = self.world.transcript.position();
            let next = self.world.transcript.next(position);
            let _ = tokio::time::timeout(Duration::from_millis(50), next).await;
        }
    }

    /// Waits for this for as long as something goes on.
    async fn quiet(&mut self, done: impl Fn(&Self) -> bool) {
        const STILL: Duration = Duration::from_secs(6);
        let began = Instant::now();
        let mut still = Instant::now();
        let mut from = self.world.transcript.position();
        while still.elapsed() < STILL && began.elapsed() < PATIENCE && !done(self) {
            let next = self.world.transcript.next(from);
            let news = tokio::time::timeout(Duration::from_millis(50), next).await;
            for entry in news.unwrap_or_default() {
                from = entry.seq + 1;
                if goes_on(&entry.what) {
                    still = Instant::now();
                }
            }
        }
    }

    fn look_after_payments(&mut self) {
        for sent in self.sent.iter_mut().filter(|sent| !sent.over) {
            let Some(payer) = &self.payers[sent.payer] else { continue };
            let stage = payer.stage(sent.id);
            sent.over = matches!(stage, None | Some(PaymentStage::Paid | PaymentStage::Abandoned));
        }
    }

    async fn away(&mut self, who: Who) {
        self.counts.restarts += 1;
        self.ends(who, End::Polite).await;
    }

    async fn back(&mut self, who: Who, wait: bool) -> Result<()> {
        if self.node(who).is_some() {
            return Ok(());
        }
        self.start(who).await?;
        self.linked().await?;
        if wait {
            self.wait(|town| {
                let concerns = |sent: &&Sent| {
                    who == Who::Payer(sent.payer) || who == Who::Recipient(sent.recipient)
                };
                let possible = |sent: &&Sent| {
                    town.payers[sent.payer].is_some() && town.recipients[sent.recipient].is_some()
                };
                let mut open = town.sent.iter().filter(|sent| !sent.over);
                !open.any(|sent| concerns(&sent) && possible(&sent))
            })
            .await;
        }
        Ok(())
    }

    async fn drop_link(&mut self, who: Who) -> Result<()> {
        let (one, other) = match who {
            Who::Payer(_) => (who, Who::PayerLsp),
            Who::PayerLsp | Who::Lsp => (Who::PayerLsp, Who::Lsp),
            Who::Recipient(_) => (who, Who::Lsp),
        };
        if let (Some(a), Some(b)) = (self.node(one), self.node(other)) {
            a.disconnect(&b.id())?;
        }
        self.linked().await
    }

    /// Mines as many blocks as asked for, or fewer: see `CLEAR_OF_EXPIRY`.
    async fn mine(&mut self, blocks: u32) -> Result<()> {
        let height = self.world.chain.height().await?;
        let clear = self.next_expiry().map_or(u32::MAX, |expiry| {
            expiry.saturating_sub(height).saturating_sub(CLEAR_OF_EXPIRY)
        });
        self.mine_all(blocks.min(clear)).await
    }

    /// The next expiry of an HTLC in a channel of which one end is away. Who was away may have left
    /// while an HTLC was being removed: it still has it, and its peer not.
    fn next_expiry(&self) -> Option<u32> {
        let unusable = |node| next_expiry(node, |channel| !channel.is_usable);
        let here = self.online().filter_map(unusable);
        here.chain(self.left_with.values().copied()).min()
    }

    /// Mines an hour's blocks at a time. In an hour all that is under way goes its way, and what LDK
    /// puts off for a moment is done.
    async fn mine_all(&mut self, blocks: u32) -> Result<()> {
        const HOUR: u32 = 6;
        let mut left = blocks;
        while left > 0 {
            let now = left.min(HOUR);
            left -= now;
            self.counts.blocks += now;
            self.settled().await;
            // Who is dead for hours in the middle of a claim comes back after the HTLC has expired.
            self.bury().await?;
            self.world.chain.mine(now, &nobody()).await?;
            self.pass(BLOCK * now);
            self.synced().await?;
        }
        Ok(())
    }

    /// Waits until no node that is alive puts an HTLC off, and nothing was said for a moment.
    async fn settled(&self) {
        const MOMENT: Duration = Duration::from_millis(100);
        let began = Instant::now();
        let mut silent = Instant::now();
        let mut from = self.world.transcript.position();
        let puts_off = |node: &Node| {
            let alive = !node.has_died();
            alive && node.channel_manager().needs_pending_htlc_processing()
        };
        while began.elapsed() < PATIENCE && silent.elapsed() < MOMENT {
            let next = self.world.transcript.next(from);
            let news = tokio::time::timeout(Duration::from_millis(20), next).await;
            for entry in news.unwrap_or_default() {
                from = entry.seq + 1;
                if goes_on(&entry.what) {
                    silent = Instant::now();
                }
            }
            if self.online().any(puts_off) {
                silent = Instant::now();
            }
        }
    }

    async fn reorg(&mut self, blocks: u32) -> Result<()> {
        self.world.chain.invalidate_tip(blocks).await?;
        self.world.chain.mine(blocks + 1, &nobody()).await?;
        self.counts.blocks += blocks + 1;
        self.synced().await
    }

    /// Waits until everybody who is online has seen the tip.
    async fn synced(&self) -> Result<()> {
        let tip = self.world.chain.tip().await?;
        let seen = |node: &Node| {
            let dead = node.has_died();
            dead || node.channel_manager().current_best_block().block_hash == tip
        };
        self.eventually("a node does not follow the chain", || self.online().all(seen)).await
    }

    async fn eventually(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let began = Instant::now();
        while !done() {
            ensure!(began.elapsed() < PATIENCE, "{what}");
            let position = self.world.transcript.position();
            let next = self.world.transcript.next(position);
            let _ = tokio::time::timeout(Duration::from_millis(20), next).await;
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.ahead += time;
        self.online().for_each(|node| node.clock().advance(time));
    }

    fn tick(&self) {
        self.online().for_each(|node| node.channel_manager().timer_tick_occurred());
    }

    async fn renew(&mut self, recipient: usize) -> Result<Lease> {
        let lsp = self.world.lsp().id();
        let lease = self.recipient(recipient)?.buy_lease(lsp, wallets_terms()).await?;
        self.counts.leases += 1;
        // Further offers name the new lease.
        self.recipient(recipient)?.channel_manager().timer_tick_occurred();
        Ok(lease)
    }

    fn hear_of_offers(&mut self) {
        for (recipient, offers) in self.recipients.iter().zip(&mut self.offers) {
            let offer = recipient.as_ref().and_then(Recipient::offer);
            if let Some(offer) = offer.filter(|offer| !offers.contains(offer)) {
                offers.push(offer);
            }
        }
    }

    /// Waits until everybody owns what they should: what one node has just said, another may be
    /// about to say.
    async fn balanced(&mut self) -> Result<()> {
        let mut began = Instant::now();
        loop {
            let Err(error) = self.audit.owners() else { return Ok(()) };
            if self.is_half_said(&format!("{error:#}")) {
                return Ok(());
            }
            if self.online().any(|node| node.has_died()) {
                // It died of its fault only now, and says no more before it starts again.
                self.bury().await?;
                began = Instant::now();
            }
            if began.elapsed() > PATIENCE {
                return Err(error);
            }
            let position = self.world.transcript.position();
            let next = self.world.transcript.next(position);
            let _ = tokio::time::timeout(Duration::from_millis(50), next).await;
        }
    }

    /// Whether it is only what somebody who is away has not heard or not said yet: an HTLC that its
    /// peer has announced, the event of a payment that was made just before it left, a channel that its
    /// peer has closed without a funding, or what the chain has made of one that it was about to close.
    fn is_half_said(&self, error: &str) -> bool {
        let is_away = |who: &Who| self.node(*who).is_none();
        let away: Vec<_> = Who::all().filter(is_away).map(Who::name).collect();
        let names = |part: &str| {
            let mut words = part.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            words.any(|word| away.contains(&word))
        };
        error.split("; ").all(|part| {
            let between = ["do not agree", "one end knows of no channel"];
            between.iter().any(|what| part.ends_with(what)) && names(part)
                || part.ends_with(" in all") && away.iter().any(|name| self.is_closing(name))
        })
    }

    /// Whether this party has said of a channel that it is closed, and not by which transaction.
    fn is_closing(&self, name: &str) -> bool {
        let said = self.world.transcript.last(|entry| match &entry.what {
            What::Balances { closed, .. } if entry.node == name => Some(closed.clone()),
            _ => None,
        });
        said.is_some_and(|closed| closed.iter().any(|closing| closing.fees_sat.is_empty()))
    }

    /// Waits until nothing is under way; blocks come meanwhile, as many as an HTLC may take.
    async fn drained(&mut self) -> Result<()> {
        const LONGEST: u32 = 700;
        const AT_A_TIME: u32 = 20;
        /// After as many of LDK's minutes a payment of which a part is missing goes back, and after one and
        /// a half of them what waits at the desk for the fee of another payment.
        const MINUTES: usize = 3;
        // Only what is held may wait for a word that nobody says again.
        let waits = |who, peer| {
            !matches!((who, peer), (Who::Payer(0), Who::PayerLsp) | (Who::PayerLsp, Who::Payer(0)))
        };
        self.quiet(|town| town.under_way().is_none()).await;
        for _ in 0..MINUTES {
            if self.htlcs(waits).is_some() {
                self.pass(Duration::from_secs(60));
                self.tick();
                self.quiet(|town| town.under_way().is_none()).await;
            }
        }
        let mut blocks = 0;
        loop {
            self.quiet(|town| town.under_way().is_none()).await;
            let Some(hangs) = self.under_way() else { break };
            if blocks >= LONGEST {
                bail!("after {blocks} blocks, {hangs}");
            }
            if let Some(hangs) = self.htlcs(waits) {
                bail!("everybody is online, and {hangs}");
            }
            self.say(format!("still under way: {hangs}"));
            self.abandon_unlocked();
            self.mine_all(AT_A_TIME).await?;
            blocks += AT_A_TIME;
        }
        let began = Instant::now();
        loop {
            let Err(error) = self.audit.all() else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is under way, if anything is.
    fn under_way(&self) -> Option<String> {
        let waits = |who: Who| {
            let payment = unfinished(self.node(who)?).into_iter().next()?;
            Some(format!("{} waits for {payment:?}", who.name()))
        };
        self.htlcs(|_, _| true).or_else(|| Who::all().find_map(waits))
    }

    /// An HTLC in a channel between two whom this concerns.
    fn htlcs(&self, concerns: impl Fn(Who, Who) -> bool) -> Option<String> {
        let name_of =
            |id: &PublicKey| Who::all().find(|who| self.node(*who).is_some_and(|n| n.id() == *id));
        for who in Who::all() {
            let Some(node) = self.node(who) else { continue };
            for channel in node.channel_manager().list_channels() {
                let (from, to) = (&channel.pending_inbound_htlcs, &channel.pending_outbound_htlcs);
                if from.is_empty() && to.is_empty() {
                    continue;
                }
                let peer = name_of(&channel.counterparty.node_id);
                if peer.is_some_and(|peer| concerns(who, peer)) {
                    let (name, peer) = (who.name(), peer.map_or("somebody", Who::name));
                    return Some(format!("{name} has HTLCs with {peer}: {from:?} {to:?}"));
                }
            }
        }
        None
    }

    /// Nobody has money in a channel whose funding the LSP keeps from the chain.
    fn funded(&self) -> Result<()> {
        let said = self.world.transcript.last(|entry| match &entry.what {
            What::Balances { channels, .. } if entry.node == Who::Lsp.name() => {
                Some(channels.clone())
            }
            _ => None,
        });
        for channel in said.unwrap_or_default().iter().filter(|channel| channel.withheld) {
            let peers = channel.capacity_sat * 1_000 - channel.own_msat();
            ensure!(
                peers == 0,
                "{} has {peers} msat in a channel whose funding was never broadcast",
                channel.peer
            );
        }
        Ok(())
    }

    /// Gives up what waits for a word that was lost: LDK says it once, and waits for an answer for up
    /// to a week. Nothing is locked meanwhile.
    fn abandon_unlocked(&self) {
        for node in self.online() {
            for payment in unfinished(node) {
                if let RecentPaymentDetails::AwaitingInvoice { payment_id } = payment {
                    node.channel_manager().abandon_payment(payment_id);
                }
            }
        }
    }

    /// A payer that is online pays this recipient, at once or after its lease was renewed: what its
    /// channel can take or, if it has none, what can open one.
    ///
    /// LDK makes ten offers, and then no other for two hours, nor another static invoice for the last one
    /// (`MAX_CACHED_OFFERS_TARGET`, `OFFER_REFRESH_THRESHOLD`), by the machine's clock, which nobody drives
    /// here. If its lease is over by then, the last try is an invoice over the new one.
    async fn paid_again(&mut self, recipient: usize) -> Result<()> {
        const TRIES: usize = 4;
        const LAST_SLOT: u16 = 9;
        for at in 0..TRIES {
            let (asked, paid) = (self.counts.asked, self.audit.paid());
            self.hear_of_offers();
            let usable = |node: &Payer| !node.channel_manager().list_usable_channels().is_empty();
            let ready = || self.payers[1].as_ref().is_some_and(usable);
            self.eventually("its payer's channel does not come back", ready).await?;
            // A channel whose fee is owed takes only what its lease takes, too.
            let Some(payable) = self.payable_msat(recipient)? else { return Ok(()) };
            let msat = if at % 2 == 0 { payable } else { OPENS_MSAT };
            self.pay(1, recipient, msat, false, true).await;
            ensure!(self.counts.asked > asked, "its payer cannot pay");
            self.drained().await?;
            if self.audit.paid() > paid {
                return Ok(());
            }
            let lease = self.renew(recipient).await?;
            self.quiet(|_| false).await;
            let id = Who::Recipient(recipient).name().as_bytes();
            let all_made = self.world.lsp().static_invoice(id, LAST_SLOT).await.is_ok();
            if at + 1 == TRIES && all_made {
                let valid_for = Duration::from_secs(3_600);
                let invoice = self.recipient(recipient)?.jit_invoice(&lease, valid_for)?;
                let payer = self.payers[1].as_ref().context("the payer is away")?;
                payer.pay_invoice(&invoice, Some(OPENS_MSAT))?;
                self.drained().await?;
                if self.audit.paid() > paid {
                    return Ok(());
                }
            }
        }
        Err(anyhow!("{TRIES} payments failed, each after a new lease"))
    }
}

/// The next expiry of an HTLC in one of these channels of a node.
fn next_expiry(node: &Node, which: impl Fn(&ChannelDetails) -> bool) -> Option<u32> {
    let channels = node.channel_manager().list_channels().into_iter().filter(which);
    let expiries = channels.flat_map(|channel| {
        let inbound = channel.pending_inbound_htlcs.into_iter().map(|htlc| htlc.cltv_expiry);
        let outbound = channel.pending_outbound_htlcs.into_iter().map(|htlc| htlc.cltv_expiry);
        inbound.chain(outbound).collect::<Vec<_>>()
    });
    expiries.min()
}

/// Waits until this node has died of a fault.
async fn fired(node: &Node) {
    while !node.has_died() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether it is a part of something that may lead on.
fn goes_on(what: &What) -> bool {
    match what {
        What::Wire { message, .. } => {
            message.starts_with("update_")
                || ["commitment_signed", "revoke_and_ack"].contains(&message.as_str())
        }
        What::Balances { .. } | What::Block { .. } | What::Note { .. } | What::Scene { .. } => {
            false
        }
        _ => true,
    }
}

/// Payments of this node that are not over.
fn unfinished(node: &Node) -> Vec<RecentPaymentDetails> {
    let mut payments = node.channel_manager().list_recent_payments();
    payments.retain(|payment| match payment {
        RecentPaymentDetails::AwaitingInvoice { .. } | RecentPaymentDetails::Pending { .. } => true,
        RecentPaymentDetails::Fulfilled { .. } | RecentPaymentDetails::Abandoned { .. } => false,
    });
    payments
}

impl Town {
    /// What this recipient can be paid; `None` if its channel is full: the LSP has to keep its reserve and
    /// the fee of the commitment transaction, and a static invoice leads over that channel all the same.
    fn payable_msat(&self, recipient: usize) -> Result<Option<u64>> {
        let recipient = self.recipient(recipient)?;
        let channels = self.world.lsp().channel_manager().list_usable_channels();
        let its = channels.iter().filter(|c| c.counterparty.node_id == recipient.id());
        let limit = its.map(|channel| channel.next_outbound_htlc_limit_msat).max();
        Ok(match limit {
            None => Some(OPENS_MSAT),
            Some(0) => None,
            Some(limit) => Some((limit / 2).clamp(1, OPENS_MSAT)),
        })
    }
}

enum Party {
    Payer(Payer),
    Lsp(Lsp),
    Recipient(Recipient),
}

/// Who connects to whom.
fn links() -> impl Iterator<Item = (Who, Who)> {
    let payers = (0..PAYERS).map(|at| (Who::Payer(at), Who::PayerLsp));
    let recipients = (0..RECIPIENTS).map(|at| (Who::Recipient(at), Who::Lsp));
    [(Who::PayerLsp, Who::Lsp)].into_iter().chain(payers).chain(recipients)
}
