//! Where every msat is at the end of each scene, and the proof that none is missing.
//!
//! Two accounts are kept, and compared. What the parties own comes from their own balances: wallets,
//! channels, HTLCs under way, fees for miners. What they should own comes from the events: who
//! paid, who earned by forwarding, who was credited.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use crate::entry::{ChannelBalance, Closing, HtlcState, What};
use crate::moment::{Moment, Recording};
use crate::view::grouped;

/// The ledger of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Before the first scene.
    pub opening: Checkpoint,
    /// At the end of each scene, in their order.
    pub checkpoints: Vec<Checkpoint>,
}

/// Where the money is at the end of a scene.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The scene's name; empty before the first.
    pub scene: String,
    /// The scene's heading.
    pub title: String,
    /// What became of what was paid since the recording began.
    pub payment: Payment,
    /// What each party owns.
    pub parties: BTreeMap<String, Holding>,
    /// HTLCs under way, in msat. One that waits in two channels is there twice: each of its
    /// senders has put money into it.
    pub htlcs_msat: u64,
    /// What miners got since the recording began, in msat.
    pub miners_msat: u64,
    /// What lies in anchors of closed channels, which nobody has spent, in msat.
    #[serde(skip_serializing_if = "is_zero")]
    pub anchors_msat: u64,
}

/// What became of what was paid, in msat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// What has left the payer, fees included.
    pub sent_msat: u64,
    /// What of it is under way or held by somebody on the way.
    pub in_flight_msat: u64,
    /// What the nodes on the way earned by forwarding.
    pub routing_fee_msat: u64,
    /// What the recipient's LSP says it skimmed for opening the channel.
    pub opening_fee_msat: u64,
    /// What the recipient saw skimmed.
    pub skimmed_msat: u64,
    /// What the recipient was credited with.
    pub received_msat: u64,
    /// By how much what the recipient has to keep in its channel has grown.
    pub reserve_msat: i64,
    /// By how much what the recipient can spend has grown.
    pub spendable_msat: i64,
    /// What the LSP, or whoever else broadcast something, paid to miners.
    pub onchain_fee_msat: u64,
}

/// What one party owns, in msat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// In its wallet, less what it has promised to channels whose funding it withholds.
    pub wallet_msat: u64,
    /// What it has promised so: part of the wallet until the funding is broadcast.
    pub withheld_msat: u64,
    /// In its channels, free to send.
    pub spendable_msat: u64,
    /// In its channels, to be kept there.
    pub reserve_msat: u64,
    /// On its way to the party, not claimed yet.
    pub towards_msat: u64,
    /// On its way from the party, for all it knows.
    pub away_msat: u64,
    /// What it has sent on of what is on its way to it: lent until that arrives.
    pub lent_msat: u64,
    /// In channels that are closed, and not in its wallet yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub closing_msat: u64,
    /// What it has lost to the closing of channels since the recording began: fees for miners, anchors,
    /// parts of a sat, and HTLCs too small for an output.
    #[serde(skip_serializing_if = "is_zero")]
    pub closing_cost_msat: u64,
}

fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

impl Holding {
    /// All it owns.
    pub fn owned_msat(&self) -> u64 {
        self.wallet_msat + self.spendable_msat + self.reserve_msat + self.closing_msat
    }

    /// All it owns, and what it has lent to payments under way.
    pub fn worth_msat(&self) -> u64 {
        self.owned_msat() + self.lent_msat
    }
}

impl Payment {
    /// What was sent and is nowhere: 0 if the books balance.
    pub fn missing_msat(&self) -> i128 {
        let somewhere =
            [self.in_flight_msat, self.routing_fee_msat, self.opening_fee_msat, self.received_msat];
        i128::from(self.sent_msat) - somewhere.into_iter().map(i128::from).sum::<i128>()
    }
}

impl Checkpoint {
    /// All the money there is: what the parties own, what is under way, what the miners got, and what
    /// nobody takes.
    pub fn total_msat(&self) -> u64 {
        let owned: u64 = self.parties.values().map(Holding::owned_msat).sum();
        owned + self.htlcs_msat + self.miners_msat + self.anchors_msat
    }
}

impl Ledger {
    /// The ledger of a recording.
    ///
    /// # Errors
    /// If it does not balance; the error names the scene and what is missing.
    pub fn of(recording: &Recording) -> Result<Self> {
        Self::of_moments(&recording.moments)
    }

    /// The ledger of these moments, of which the first begins a scene.
    ///
    /// # Errors
    /// If it does not balance; the error names the scene and what is missing.
    pub fn of_moments(moments: &[Moment]) -> Result<Self> {
        Self::proven(moments, Book::prove)
    }

    /// The same, but only of what each party owns: a claim may be on its way back to the payer, and
    /// who is offline has not heard of it.
    ///
    /// # Errors
    /// If it does not balance; the error names the scene and what is missing.
    pub fn of_owners(moments: &[Moment]) -> Result<Self> {
        Self::proven(moments, Book::prove_owners)
    }

    fn proven(
        moments: &[Moment],
        prove: fn(&Book, &Checkpoint, &Checkpoint) -> Result<()>,
    ) -> Result<Self> {
        let mut book = Book::open(moments);
        let opening = book.checkpoint("", "").context("before the first scene")?;
        book.fees_before = book.fees_sat();
        book.closed_before_sat = book.closed_fees_sat();
        let mut checkpoints = Vec::new();
        let mut scene = None;
        for moment in moments {
            if let What::Scene { id, title } = &moment.what
                && let Some((id, title)) = scene.replace((id, title))
            {
                checkpoints.push(book.close(&opening, id, title, prove)?);
            }
            book.enter(moment);
        }
        if let Some((id, title)) = scene {
            checkpoints.push(book.close(&opening, id, title, prove)?);
        }
        Ok(Self { opening, checkpoints })
    }
}

/// What one party said of itself last.
#[derive(Clone, Default)]
struct Said {
    onchain_sat: u64,
    fees_sat: u64,
    channels: Vec<ChannelBalance>,
    closed: Vec<Closing>,
}

/// What the events say of one party, in msat.
#[derive(Clone, Copy, Default)]
struct Account {
    paid: u64,
    claimed: u64,
    skim_seen: u64,
    earned: u64,
    skimmed: u64,
    /// Earned by an HTLC that was claimed on chain: then LDK does not say what of it was skimmed.
    earned_on_chain: u64,
}

#[derive(Default)]
struct Book {
    said: BTreeMap<String, Said>,
    accounts: BTreeMap<String, Account>,
    fees_before: BTreeMap<String, u64>,
    closed_before_sat: u64,
}

impl Book {
    /// Every party owns what it says first: a node says so when the recording begins or, if it is
    /// not there yet, when it starts.
    fn open(moments: &[Moment]) -> Self {
        let mut book = Self::default();
        for moment in moments.iter().rev() {
            book.hear(moment);
        }
        book
    }

    fn hear(&mut self, moment: &Moment) {
        if let What::Balances { onchain_sat, fees_sat, channels, closed } = &moment.what {
            let (onchain_sat, fees_sat) = (*onchain_sat, *fees_sat);
            let (channels, closed) = (channels.clone(), closed.clone());
            let said = Said { onchain_sat, fees_sat, channels, closed };
            self.said.insert(moment.node.clone(), said);
        }
    }

    fn enter(&mut self, moment: &Moment) {
        self.hear(moment);
        // LDK tells of the end of a payment once more after a restart.
        if moment.again {
            return;
        }
        let account = self.accounts.entry(moment.node.clone()).or_default();
        match &moment.what {
            What::Htlc { state: HtlcState::Paid, amount_msat, .. } => account.paid += amount_msat,
            What::Htlc { state: HtlcState::Claimed, amount_msat, skimmed_fee_msat, .. } => {
                account.claimed += amount_msat;
                account.skim_seen += skimmed_fee_msat;
            }
            What::Event { name, detail } if name == "PaymentForwarded" => {
                account.earned += detail["total_fee_earned_msat"].as_u64().unwrap_or(0);
                account.skimmed += detail["skimmed_fee_msat"].as_u64().unwrap_or(0);
                if detail["claim_from_onchain_tx"] == true && detail["skimmed_fee_msat"].is_null() {
                    account.earned_on_chain +=
                        detail["total_fee_earned_msat"].as_u64().unwrap_or(0);
                }
            }
            _ => {}
        }
    }

    fn fees_sat(&self) -> BTreeMap<String, u64> {
        self.said.iter().map(|(name, said)| (name.clone(), said.fees_sat)).collect()
    }

    /// What miners got of closed channels, in sat. Two ends know of the same transactions.
    fn closed_fees_sat(&self) -> u64 {
        let closed = self.said.values().flat_map(|said| &said.closed);
        let fees: BTreeMap<_, _> = closed.flat_map(|closing| &closing.fees_sat).collect();
        fees.into_values().sum()
    }

    /// What lies in anchors, in sat. Whoever sees one spent knows best.
    fn anchors_sat(&self) -> u64 {
        let mut anchors: BTreeMap<&str, u64> = BTreeMap::new();
        for closing in self.said.values().flat_map(|said| &said.closed) {
            let least = anchors.entry(&closing.id).or_insert(u64::MAX);
            *least = closing.anchors_sat.min(*least);
        }
        anchors.into_values().sum()
    }

    /// What a party has paid to miners since the recording began, in msat.
    fn fees_msat(&self, name: &str, said: &Said) -> u64 {
        let before = self.fees_before.get(name).copied().unwrap_or(said.fees_sat);
        said.fees_sat.saturating_sub(before) * 1_000
    }

    fn checkpoint(&self, scene: &str, title: &str) -> Result<Checkpoint> {
        let mut parties = BTreeMap::new();
        for (name, said) in &self.said {
            parties.insert(name.clone(), said.holding().with_context(|| name.clone())?);
        }
        let away = self.settle_channels(&mut parties)?;
        for (name, holding) in &mut parties {
            holding.lent_msat = holding.towards_msat.min(away.get(name).copied().unwrap_or(0));
        }
        let mut checkpoint = Checkpoint {
            scene: scene.to_owned(),
            title: title.to_owned(),
            htlcs_msat: away.values().sum(),
            miners_msat: self
                .said
                .iter()
                .map(|(name, said)| self.fees_msat(name, said))
                .sum::<u64>()
                + (self.closed_fees_sat() - self.closed_before_sat) * 1_000,
            anchors_msat: self.anchors_sat() * 1_000,
            payment: Payment::default(),
            parties,
        };
        checkpoint.payment = self.payment(&checkpoint);
        Ok(checkpoint)
    }

    /// Looks at every channel from both ends: returns what is on its way from each party, and lets a
    /// party that says nothing have what the other end leaves.
    ///
    /// Whoever receives an HTLC knows best whether it is still on its way: a sender that is offline
    /// does not hear that it was claimed.
    fn settle_channels(
        &self,
        parties: &mut BTreeMap<String, Holding>,
    ) -> Result<BTreeMap<String, u64>> {
        let mut ends: BTreeMap<&str, Vec<(&str, &ChannelBalance)>> = BTreeMap::new();
        for (name, said) in &self.said {
            for channel in &said.channels {
                ends.entry(&channel.id).or_default().push((name, channel));
            }
        }
        let mut away = self.away_in_closed();
        for ends in ends.values() {
            let (name, one) = ends[0];
            let capacity = one.capacity_sat * 1_000;
            *away.entry(one.peer.clone()).or_default() += one.pending_msat.0;
            let held = one.own_msat() + one.pending_msat.0;
            match ends[1..] {
                [(other_name, other)] => {
                    *away.entry(name.to_owned()).or_default() += other.pending_msat.0;
                    let held = held + other.own_msat() + other.pending_msat.0;
                    ensure!(
                        held == capacity,
                        "{} between {name} and {other_name}: the two ends do not agree",
                        missing(capacity, held)
                    );
                }
                [] => {
                    *away.entry(name.to_owned()).or_default() += one.pending_msat.1;
                    let left = capacity.checked_sub(held + one.pending_msat.1);
                    let left = left.context("more in a channel than it can hold")?;
                    // A channel that only one end knows yet is the funder's.
                    ensure!(
                        left == 0 || !self.said.contains_key(&one.peer),
                        "{} between {name} and {}: one end knows of no channel",
                        missing(left, 0),
                        one.peer
                    );
                    let silent = parties.entry(one.peer.clone()).or_default();
                    silent.spendable_msat += left;
                }
                _ => bail!("channel {} has more than two ends", one.id),
            }
        }
        Ok(away)
    }

    /// What is on its way in channels that are closed, from each party.
    fn away_in_closed(&self) -> BTreeMap<String, u64> {
        let mut away: BTreeMap<String, u64> = BTreeMap::new();
        for (name, said) in &self.said {
            for closing in &said.closed {
                let (towards, from) = closing.pending_msat;
                *away.entry(closing.peer.clone()).or_default() += towards;
                let is_it = |other: &&Closing| other.id == closing.id;
                let other = self.said.get(&closing.peer);
                if other.and_then(|said| said.closed.iter().find(is_it)).is_none() {
                    *away.entry(name.clone()).or_default() += from;
                }
            }
        }
        away
    }

    fn payment(&self, now: &Checkpoint) -> Payment {
        let sum = |of: fn(&Account) -> u64| self.accounts.values().map(of).sum::<u64>();
        let lent: u64 = now.parties.values().map(|holding| holding.lent_msat).sum();
        let leaving = |holding: &Holding| holding.away_msat.saturating_sub(holding.towards_msat);
        let (said, seen) = (sum(|account| account.skimmed), sum(|account| account.skim_seen));
        let skimmed = said + seen.saturating_sub(said).min(sum(|account| account.earned_on_chain));
        Payment {
            sent_msat: sum(|account| account.paid) + now.parties.values().map(leaving).sum::<u64>(),
            in_flight_msat: now.htlcs_msat - lent,
            routing_fee_msat: sum(|account| account.earned) - skimmed,
            opening_fee_msat: skimmed,
            skimmed_msat: seen,
            received_msat: sum(|account| account.claimed),
            reserve_msat: 0,
            spendable_msat: 0,
            onchain_fee_msat: now.miners_msat,
        }
    }

    /// The checkpoint at the end of a scene.
    fn close(
        &self,
        opening: &Checkpoint,
        id: &str,
        title: &str,
        prove: fn(&Self, &Checkpoint, &Checkpoint) -> Result<()>,
    ) -> Result<Checkpoint> {
        let closed = self.checkpoint(id, title).and_then(|mut checkpoint| {
            self.split_received(opening, &mut checkpoint);
            self.charge_closings(opening, &mut checkpoint);
            prove(self, opening, &checkpoint)?;
            Ok(checkpoint)
        });
        closed.with_context(|| format!("scene {id}: the ledger does not balance"))
    }

    /// How what was received lies in the recipients' channels.
    fn split_received(&self, opening: &Checkpoint, now: &mut Checkpoint) {
        for (name, account) in &self.accounts {
            let (Some(holding), true) = (now.parties.get(name), account.claimed > 0) else {
                continue;
            };
            let before = opening.parties.get(name).copied().unwrap_or_default();
            now.payment.reserve_msat += change(before.reserve_msat, holding.reserve_msat);
            now.payment.spendable_msat += change(before.spendable_msat, holding.spendable_msat);
        }
    }

    /// What a party has lost and no event tells of, if one of its channels is closed. All of it together
    /// must be what miners got of closed channels and what is in anchors: see `prove_owners`.
    fn charge_closings(&self, opening: &Checkpoint, now: &mut Checkpoint) {
        for (name, said) in self.said.iter().filter(|(_, said)| !said.closed.is_empty()) {
            let (had, has) = self.had_and_has(name, said, opening, now);
            let holding = now.parties.entry(name.clone()).or_default();
            holding.closing_cost_msat = had.saturating_sub(has);
        }
    }

    /// What a party should own by its events, and what it owns by its balances.
    fn had_and_has(
        &self,
        name: &str,
        said: &Said,
        opening: &Checkpoint,
        now: &Checkpoint,
    ) -> (u64, u64) {
        let account = self.accounts.get(name).copied().unwrap_or_default();
        let before = opening.parties.get(name).copied().unwrap_or_default();
        let holding = now.parties.get(name).copied().unwrap_or_default();
        // What is on its way from a party is not its own any more, and not spent yet.
        let has = holding.owned_msat()
            + holding.away_msat
            + holding.closing_cost_msat
            + account.paid
            + self.fees_msat(name, said);
        let had = before.owned_msat() + before.away_msat + account.claimed + account.earned;
        (had, has)
    }

    /// What of a party's money on its way may be claimed already, in msat: nothing, or any of the
    /// amounts that its peers do not wait for. LDK lists an HTLC as the sender's until the peer has
    /// committed to the claim; the sender has the preimage before that, and is paid with it.
    fn claimed_of(&self, said: &Said) -> BTreeSet<u64> {
        let waits_for = |channel: &ChannelBalance| {
            let peers = &self.said.get(&channel.peer)?.channels;
            peers.iter().find(|other| other.id == channel.id).map(|other| other.pending_msat.0)
        };
        let mut sums = BTreeSet::from([0]);
        for channel in &said.channels {
            let claimed =
                waits_for(channel).map(|left| channel.pending_msat.1.saturating_sub(left));
            if let Some(claimed @ 1..) = claimed {
                sums.extend(sums.iter().map(|sum| sum + claimed).collect::<Vec<_>>());
            }
        }
        sums
    }

    fn prove(&self, opening: &Checkpoint, now: &Checkpoint) -> Result<()> {
        self.prove_owners(opening, now)?;
        let payment = &now.payment;
        let somewhere = i128::from(payment.sent_msat) - payment.missing_msat();
        ensure!(
            payment.missing_msat() == 0,
            "{} of what was sent",
            missing(payment.sent_msat, somewhere.unsigned_abs() as u64)
        );
        ensure!(
            payment.opening_fee_msat == payment.skimmed_msat,
            "{} of the opening fee: the LSP and the recipient do not agree",
            missing(payment.opening_fee_msat, payment.skimmed_msat)
        );
        Ok(())
    }

    fn prove_owners(&self, opening: &Checkpoint, now: &Checkpoint) -> Result<()> {
        let (before, after) = (opening.total_msat(), now.total_msat());
        ensure!(before == after, "{} in all", missing(before, after));
        let mut wrong = Vec::new();
        for (name, said) in &self.said {
            let (had, has) = self.had_and_has(name, said, opening, now);
            if !self.claimed_of(said).iter().any(|claimed| had + claimed == has) {
                let missing = missing(had, has);
                wrong
                    .push(format!("{missing} at {name}: its balances and its events do not agree"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        let costs = now.parties.values().map(|holding| holding.closing_cost_msat).sum();
        let closed_sat = self.closed_fees_sat() - self.closed_before_sat;
        let told = closed_sat * 1_000 + now.anchors_msat - opening.anchors_msat;
        ensure!(
            costs == told,
            "{} of what the closing of channels has cost: the parties and the chain do not agree",
            missing(told, costs)
        );
        Ok(())
    }
}

impl Said {
    fn holding(&self) -> Result<Holding> {
        let sum = |of: fn(&ChannelBalance) -> u64| self.channels.iter().map(of).sum::<u64>();
        let withheld_msat =
            sum(|channel| if channel.withheld { channel.capacity_sat * 1_000 } else { 0 });
        let wallet_msat = (self.onchain_sat * 1_000).checked_sub(withheld_msat);
        Ok(Holding {
            wallet_msat: wallet_msat.context("more is promised than the wallet has")?,
            withheld_msat,
            spendable_msat: sum(|channel| channel.spendable_msat),
            reserve_msat: sum(|channel| channel.reserve_msat),
            towards_msat: sum(|channel| channel.pending_msat.0)
                + self.closed.iter().map(|closing| closing.pending_msat.0).sum::<u64>(),
            away_msat: sum(|channel| channel.pending_msat.1)
                + self.closed.iter().map(|closing| closing.pending_msat.1).sum::<u64>(),
            lent_msat: 0,
            closing_msat: self.closed.iter().map(|closing| closing.own_msat).sum(),
            closing_cost_msat: 0,
        })
    }
}

fn change(before: u64, after: u64) -> i64 {
    after as i64 - before as i64
}

/// `1 000 msat are missing`, or too many.
fn missing(expected: u64, found: u64) -> String {
    match expected.checked_sub(found) {
        Some(missing) => format!("{} msat are missing", grouped(missing)),
        None => format!("{} msat are too many", grouped(found - expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Moments made by hand, in the order of the calls.
    #[derive(Default)]
    struct Story {
        moments: Vec<Moment>,
        scene: String,
    }

    impl Story {
        fn scene(mut self, id: &str) -> Self {
            self.scene = id.to_owned();
            let (id, title) = (id.to_owned(), format!("Scene {id}"));
            self.add("director", What::Scene { id, title })
        }

        fn add(mut self, node: &str, what: What) -> Self {
            self.moments.push(Moment {
                n: self.moments.len(),
                scene: self.scene.clone(),
                node: node.to_owned(),
                what,
                background: false,
                again: false,
                explained: Vec::new(),
            });
            self
        }

        fn owns(self, node: &str, onchain: (u64, u64), channels: &[ChannelBalance]) -> Self {
            let (onchain_sat, fees_sat) = onchain;
            let channels = channels.to_vec();
            self.add(node, What::Balances { onchain_sat, fees_sat, channels, closed: vec![] })
        }

        fn htlc(self, node: &str, state: HtlcState, amount_msat: u64, skim: u64) -> Self {
            self.add(
                node,
                What::Htlc {
                    state,
                    payment_hash: Some("77…".to_owned()),
                    amount_msat,
                    skimmed_fee_msat: skim,
                    reason: None,
                },
            )
        }

        fn forwarded(self, node: &str, earned: u64, skim: u64) -> Self {
            let detail =
                json!({ "total_fee_earned_msat": earned, "skimmed_fee_msat": skim, "htlc": 0 });
            self.add(node, What::Event { name: "PaymentForwarded".to_owned(), detail })
        }
    }

    fn channel(id: &str, peer: &str, sat: u64, own: u64, pending: (u64, u64)) -> ChannelBalance {
        let reserve = own.min(1_000_000);
        ChannelBalance {
            id: id.to_owned(),
            peer: peer.to_owned(),
            capacity_sat: sat,
            spendable_msat: own - reserve,
            reserve_msat: reserve,
            pending_msat: pending,
            usable: true,
            confirmed: true,
            ..ChannelBalance::default()
        }
    }

    fn withheld(channel: ChannelBalance) -> ChannelBalance {
        ChannelBalance { withheld: true, ..channel }
    }

    /// A payer, an LSP and a recipient; 50 000 000 msat are sent, 1 000 are earned by routing and
    /// 2 000 000 skimmed. The LSP withholds the funding until it is paid.
    fn flow() -> Story {
        Story::default()
            .scene("prepare")
            .owns("payer", (0, 0), &[channel("a", "lsp", 100_000, 100_000_000, (0, 0))])
            .owns("lsp", (500_000, 70), &[channel("a", "payer", 100_000, 0, (0, 0))])
            .scene("pay")
            .owns("payer", (0, 0), &[channel("a", "lsp", 100_000, 50_000_000, (0, 50_000_000))])
            .owns("lsp", (500_000, 70), &[channel("a", "payer", 100_000, 0, (50_000_000, 0))])
            .scene("open")
            .owns("recipient", (0, 0), &[])
            .owns(
                "lsp",
                (500_000, 70),
                &[
                    channel("a", "payer", 100_000, 0, (50_000_000, 0)),
                    withheld(channel("b", "recipient", 80_000, 32_001_000, (0, 47_999_000))),
                ],
            )
            .owns("recipient", (0, 0), &[channel("b", "lsp", 80_000, 0, (47_999_000, 0))])
            .scene("claim")
            .owns("recipient", (0, 0), &[channel("b", "lsp", 80_000, 47_999_000, (0, 0))])
            .htlc("recipient", HtlcState::Claimed, 47_999_000, 2_000_000)
            .forwarded("lsp", 2_001_000, 2_000_000)
            .owns(
                "lsp",
                (500_000, 70),
                &[
                    channel("a", "payer", 100_000, 50_000_000, (0, 0)),
                    withheld(channel("b", "recipient", 80_000, 32_001_000, (0, 0))),
                ],
            )
    }

    /// The payer comes back and learns the preimage; the funding is broadcast for 100 sat.
    fn end(story: Story) -> Story {
        story
            .scene("return")
            .owns("payer", (0, 0), &[channel("a", "lsp", 100_000, 50_000_000, (0, 0))])
            .htlc("payer", HtlcState::Paid, 50_000_000, 0)
            .owns(
                "lsp",
                (419_900, 170),
                &[
                    channel("a", "payer", 100_000, 50_000_000, (0, 0)),
                    channel("b", "recipient", 80_000, 32_001_000, (0, 0)),
                ],
            )
    }

    fn problem(story: Story) -> String {
        format!("{:#}", Ledger::of_moments(&story.moments).unwrap_err())
    }

    #[test]
    fn a_payment_is_followed_from_scene_to_scene() {
        let ledger = Ledger::of_moments(&end(flow()).moments).unwrap();
        let payments: Vec<_> = ledger.checkpoints.iter().map(|c| (&*c.scene, c.payment)).collect();
        let sent = Payment { sent_msat: 50_000_000, ..Payment::default() };
        let held = Payment { in_flight_msat: 50_000_000, ..sent };
        let done = Payment {
            routing_fee_msat: 1_000,
            opening_fee_msat: 2_000_000,
            skimmed_msat: 2_000_000,
            received_msat: 47_999_000,
            reserve_msat: 1_000_000,
            spendable_msat: 46_999_000,
            ..sent
        };
        assert_eq!(
            payments,
            [
                ("prepare", Payment::default()),
                ("pay", held),
                // The HTLC waits in two channels; the payment is under way once.
                ("open", held),
                // The payer is offline and does not know; the recipient has the money.
                ("claim", done),
                ("return", Payment { onchain_fee_msat: 100_000, ..done }),
            ]
        );
        for checkpoint in &ledger.checkpoints {
            assert_eq!(checkpoint.total_msat(), ledger.opening.total_msat());
            assert_eq!(checkpoint.payment.missing_msat(), 0);
        }
        let open = &ledger.checkpoints[2];
        assert_eq!(open.htlcs_msat, 97_999_000);
        assert_eq!(open.parties["lsp"].withheld_msat, 80_000_000);
        assert_eq!(open.parties["lsp"].wallet_msat, 420_000_000);
    }

    /// The recipient leaves between its claim and its signature: LDK still lists the LSP's HTLC, and has
    /// claimed the one that the LSP was to be paid with.
    #[test]
    fn a_claim_that_the_recipient_did_not_sign_is_the_recipients() {
        let left = flow().owns(
            "lsp",
            (500_000, 70),
            &[
                channel("a", "payer", 100_000, 50_000_000, (0, 0)),
                withheld(channel("b", "recipient", 80_000, 32_001_000, (0, 47_999_000))),
            ],
        );
        Ledger::of_owners(&left.moments).unwrap();
        // Not so if the recipient still waits for it.
        let waits = [channel("b", "lsp", 80_000, 0, (47_999_000, 0))];
        let told = Ledger::of_owners(&left.owns("recipient", (0, 0), &waits).moments).unwrap_err();
        assert!(format!("{told:#}").contains("47 999 000 msat are too many at lsp"), "{told:#}");
    }

    #[test]
    fn what_is_told_again_counts_once() {
        let mut story = flow()
            .htlc("recipient", HtlcState::Claimed, 47_999_000, 2_000_000)
            .forwarded("lsp", 2_001_000, 2_000_000);
        for moment in story.moments.iter_mut().rev().take(2) {
            moment.again = true;
        }
        let twice = Ledger::of_moments(&end(story).moments).unwrap();
        assert_eq!(twice, Ledger::of_moments(&end(flow()).moments).unwrap());
    }

    #[test]
    fn a_party_that_says_nothing_has_what_the_other_end_leaves() {
        let open = channel("c", "stranger", 10_000, 4_000_000, (0, 0));
        let story = Story::default().scene("alone").owns("lsp", (0, 0), &[open]);
        let ledger = Ledger::of_moments(&story.moments).unwrap();
        assert_eq!(ledger.opening.parties["stranger"].owned_msat(), 6_000_000);
        assert_eq!(ledger.opening.total_msat(), 10_000_000);
    }

    #[test]
    fn money_that_vanishes_is_named_with_its_scene() {
        let lost = [channel("a", "lsp", 100_000, 49_999_000, (0, 50_000_000))];
        let told = problem(flow().scene("later").owns("payer", (0, 0), &lost));
        assert_eq!(
            told,
            "scene later: the ledger does not balance: 1 000 msat are missing between lsp and \
             payer: the two ends do not agree"
        );
        let told = problem(flow().scene("later").owns("recipient", (0, 0), &[]));
        assert_eq!(
            told,
            "scene later: the ledger does not balance: 47 999 000 msat are missing between lsp and \
             recipient: one end knows of no channel"
        );
        let told = problem(flow().scene("later").owns("payer", (3, 0), &[]));
        assert!(told.starts_with("scene later: "), "{told}");
    }

    #[test]
    fn a_fee_that_nobody_reports_is_missing() {
        let told = problem(end(flow()).owns(
            "lsp",
            (419_900, 70),
            &[
                channel("a", "payer", 100_000, 50_000_000, (0, 0)),
                channel("b", "recipient", 80_000, 32_001_000, (0, 0)),
            ],
        ));
        assert_eq!(
            told,
            "scene return: the ledger does not balance: 100 000 msat are missing in all"
        );
    }

    /// The LSP closes a channel of 80 000 sat: its commitment costs 500 sat, and 660 sat stay in anchors.
    /// The recipient's part of a sat is in that fee; it sweeps for 200 sat.
    fn closed(lsp_sat: u64, recipient_sat: u64) -> Story {
        let left = |peer: &str, own_sat: u64, fees: &[(&str, u64)]| Closing {
            id: "b".to_owned(),
            peer: peer.to_owned(),
            capacity_sat: 80_000,
            own_msat: own_sat * 1_000,
            fees_sat: fees.iter().map(|(txid, fee)| ((*txid).to_owned(), *fee)).collect(),
            anchors_sat: 660,
            ..Closing::default()
        };
        let said = |onchain_sat, closing| What::Balances {
            onchain_sat,
            fees_sat: 0,
            channels: vec![],
            closed: vec![closing],
        };
        Story::default()
            .scene("open")
            .owns("lsp", (0, 0), &[channel("b", "recipient", 80_000, 31_999_500, (0, 0))])
            .owns("recipient", (0, 0), &[channel("b", "lsp", 80_000, 48_000_500, (0, 0))])
            .scene("closed")
            .add("lsp", said(0, left("recipient", lsp_sat, &[("commitment", 500)])))
            .add(
                "recipient",
                said(recipient_sat, left("lsp", 0, &[("commitment", 500), ("sweep", 200)])),
            )
    }

    #[test]
    fn what_leaves_a_closed_channel_is_followed_and_what_it_costs_is_named() {
        let ledger = Ledger::of_moments(&closed(30_840, 47_800).moments).unwrap();
        let end = ledger.checkpoints.last().unwrap();
        assert_eq!((end.miners_msat, end.anchors_msat), (700_000, 660_000));
        assert_eq!(end.parties["lsp"].closing_msat, 30_840_000);
        assert_eq!(end.parties["lsp"].closing_cost_msat, 1_159_500);
        assert_eq!(end.parties["recipient"].closing_cost_msat, 200_500);
        assert_eq!(
            problem(closed(30_840, 47_799)),
            "scene closed: the ledger does not balance: 1 000 msat are missing in all"
        );
    }

    #[test]
    fn balances_and_events_must_agree() {
        let told = problem(flow().forwarded("lsp", 3_000, 0));
        assert_eq!(
            told,
            "scene claim: the ledger does not balance: 3 000 msat are missing at lsp: its balances \
             and its events do not agree"
        );
        let told = problem(end(flow()).htlc("recipient", HtlcState::Paid, 7, 0));
        assert!(told.contains("7 msat are too many at recipient"), "{told}");
    }
}
