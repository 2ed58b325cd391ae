//! The desk's channel side: opening, funding, readiness, closing, and what a restart leaves.

use super::*;

impl<S: Deref<Target: Switch>, K: KVStore> JitDesk<S, K> {
    /// Handles `LSPS2ServiceEvent::OpenChannel`. The event may be replayed; the plan is given out
    /// once.
    ///
    /// [`OpenDecision::AlreadyOpen`] may be a channel of an earlier attempt: no event says again that
    /// it is ready. Call [`Self::channel_ready`] for each usable channel of an opening record.
    ///
    /// After [`OpenDecision::Open`] call [`OpenPlan::create`], and [`Self::open_failed`] if that
    /// errs.
    pub async fn open_channel<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
        connected: impl Fn(&PublicKey) -> bool,
        now: Duration,
    ) -> Result<OpenDecision, JitTableError> {
        let Some(record) = self.table.by_user_channel_id(user_channel_id) else {
            return Ok(OpenDecision::Stale);
        };
        let JitState::Opening(opening) = &record.state else {
            return Ok(self.not_opening(&record));
        };
        if self.view_by_user_id(&record).is_some() {
            return Ok(OpenDecision::AlreadyOpen);
        }
        if !connected(&record.client_node_id) {
            return Ok(OpenDecision::WaitForClient);
        }
        if is_too_late(&self.held, opening, self.switch.height()) {
            // Blocks were mined while the client was away, or while this node was.
            self.take_back_opening(lsps2, record, now).await?;
            return Ok(OpenDecision::Stale);
        }
        if self.another_is_unpaid(&record) {
            return Ok(OpenDecision::WaitForAnother);
        }
        Ok(self.plan_once(&record, opening.amt_to_forward_msat))
    }

    /// Whether this client has another JIT channel, or is about to have it, whose funding is withheld
    /// and whose fee is not paid yet. With two of them at once, LDK may send each payment over the
    /// channel of the other: the client could then have money in both, and fail one of the fees.
    fn another_is_unpaid(&self, record: &JitRecord) -> bool {
        let mut others = self.table.all();
        others.retain(|other| {
            other.client_node_id == record.client_node_id
                && other.scid != record.scid
                && other.trust_model == TrustModel::ClientTrustsLsp
        });
        others.iter().any(|other| match &other.state {
            JitState::Opening(_) => {
                let planned = self.plans_out.contains(&other.user_channel_id);
                planned || self.view_by_user_id(other).is_some()
            }
            JitState::Open(open) => !open.fee_paid && self.view(other, open.channel_id).is_some(),
            JitState::Sold | JitState::Retired(_) => false,
        })
    }

    fn not_opening(&self, record: &JitRecord) -> OpenDecision {
        match record.open() {
            Some(_) => OpenDecision::AlreadyOpen,
            None => OpenDecision::Stale,
        }
    }

    fn plan_once(&mut self, record: &JitRecord, amt_to_forward_msat: u64) -> OpenDecision {
        let Some(plan) = self.plan(record, amt_to_forward_msat) else {
            return OpenDecision::Stale;
        };
        match self.plans_out.insert(record.user_channel_id) {
            true => OpenDecision::Open(plan),
            false => OpenDecision::AlreadyOpen,
        }
    }

    fn plan(&self, record: &JitRecord, amt_to_forward_msat: u64) -> Option<OpenPlan> {
        let sizing = &self.settings.sizing;
        let with_later_parts = amt_to_forward_msat.saturating_add(self.later_parts_msat(record));
        let channel_value_sat = sizing
            .channel_value_sat(with_later_parts)
            .or_else(|| sizing.channel_value_sat(amt_to_forward_msat))?;
        Some(OpenPlan {
            counterparty: record.client_node_id,
            channel_value_sat,
            push_msat: 0,
            user_channel_id: record.user_channel_id,
            max_client_to_self_delay: record.opening_fee_params.max_client_to_self_delay,
        })
    }

    /// What waits here of the payment that opens the channel, and is not part of what opens it: a
    /// payer may split a payment under a variable lease, and its smallest part may come first. Never
    /// more than the lease's largest payment: anybody who knows the hash can add a part.
    ///
    /// Nothing if the fee that LSPS2 asks would be larger for all of them: it has priced the first one
    /// alone, and a payer and a client could get a large channel for the fee of a small one.
    ///
    /// Nothing either if this LSP trusts its client, who could take the large part and fail the small
    /// one, from which alone the fee is taken: then headroom is all that there is.
    fn later_parts_msat(&self, record: &JitRecord) -> u64 {
        let JitState::Opening(opening) = &record.state else {
            return 0;
        };
        if record.trust_model == TrustModel::LspTrustsClient {
            return 0;
        }
        let terms = &record.opening_fee_params;
        let first = opening.amt_to_forward_msat.saturating_add(opening.opening_fee_msat);
        let later = gross_msat(&self.held.parts(record.scid, opening.payment_hash));
        let later = later.min(terms.max_payment_size_msat.saturating_sub(first));
        let fee_of_all = terms.opening_fee_msat(first.saturating_add(later));
        if fee_of_all == Some(opening.opening_fee_msat) { later } else { 0 }
    }

    /// The channels that must be opened and are not: their client was away, another channel had to be
    /// paid for first, or a restart took the consumed `OpenChannel` event with it. Call it when a peer
    /// connects and with every sweep.
    pub fn pending_opens(&mut self, connected: impl Fn(&PublicKey) -> bool) -> Vec<OpenPlan> {
        let mut plans = Vec::new();
        for record in self.table.all() {
            let JitState::Opening(opening) = &record.state else {
                continue;
            };
            if !connected(&record.client_node_id) || self.view_by_user_id(&record).is_some() {
                continue;
            }
            // Only for a payment LDK still holds; else the deadline ends it. One that is late is
            // the sweep's.
            let is_held = opening.intercept_ids.iter().any(|id| self.held.get(*id).is_some());
            if !is_held || is_too_late(&self.held, opening, self.switch.height()) {
                continue;
            }
            if self.another_is_unpaid(&record) {
                continue;
            }
            if let OpenDecision::Open(plan) = self.plan_once(&record, opening.amt_to_forward_msat) {
                plans.push(plan);
            }
        }
        plans
    }

    /// Handles `Event::ChannelReady`. Replays are harmless.
    ///
    /// Call it only while the channel is usable, that is, while the client is connected: LDK fails
    /// what it cannot forward at once. A channel that became ready just as the client went away can
    /// wait until the open deadline; after a restart nobody is connected, so [`Self::resume`]
    /// leaves such a channel to its caller, too.
    pub async fn channel_ready<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
        channel_id: ChannelId,
        counterparty: &PublicKey,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        let record = self.table.by_user_channel_id(user_channel_id);
        let Some(record) = record.filter(|record| record.client_node_id == *counterparty) else {
            return Ok(ChannelOutcome::NotJit);
        };
        match record.state.clone() {
            JitState::Opening(opening) => {
                let record = self.write_open(record, opening, channel_id).await?;
                self.forward_for_fee(lsps2, record, now).await
            }
            JitState::Open(open) if !open.fee_paid && open.channel_id == channel_id => {
                self.repeat_ready(lsps2, &record, &open).await;
                Ok(ChannelOutcome::NothingToDo)
            }
            JitState::Open(_) | JitState::Sold | JitState::Retired(_) => {
                Ok(ChannelOutcome::NothingToDo)
            }
        }
    }

    async fn write_open(
        &mut self,
        mut record: JitRecord,
        opening: Opening,
        channel_id: ChannelId,
    ) -> Result<JitRecord, JitTableError> {
        let Opening { payment_hash, intercept_ids, opening_fee_msat, .. } = opening;
        record.state = JitState::Open(OpenChannel {
            channel_id,
            opening_fee_msat,
            skimmed_fee_msat: 0,
            counted: Vec::new(),
            fee_payment: Some(FeePayment { payment_hash, intercept_ids }),
            ended: Vec::new(),
            fee_paid: false,
        });
        self.table.put(record.clone()).await?;
        self.plans_out.remove(&record.user_channel_id);
        Ok(record)
    }

    async fn forward_for_fee<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: JitRecord,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        let scid = record.scid;
        let Some(open) = record.open() else {
            return Ok(ChannelOutcome::NothingToDo);
        };
        let (id, client) = (record.user_channel_id, record.client_node_id);
        if acted(lsps2.channel_ready(id, open.channel_id, &client).await).is_ok() {
            self.held.sent(&fee_ids(open));
        } else {
            // Nothing was forwarded, or not all of it: what is left must not hang.
            self.refuse_handed(scid, Refusal::NotForwardable);
            self.end_fee_payment(lsps2, record).await?;
        }
        Ok(ChannelOutcome::Open(self.release(lsps2, scid, now).await?))
    }

    /// LSPS2 may have missed it in a crash. If it knows already it errs, which is harmless.
    async fn repeat_ready<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: &JitRecord,
        open: &OpenChannel,
    ) {
        let (id, client) = (record.user_channel_id, record.client_node_id);
        if acted(lsps2.channel_ready(id, open.channel_id, &client).await).is_ok() {
            self.held.sent(&fee_ids(open));
        }
    }

    fn refuse_handed(&mut self, scid: u64, why: Refusal) {
        let mut handed = self.held.of_scid(scid);
        handed.retain(|held| held.handed_to_lsps2);
        let handed: Vec<_> = handed.into_iter().map(|held| held.htlc).collect();
        self.refuse(&handed, why);
    }

    /// Handles a channel that was not opened: `create_channel` erred, or funding it failed. The coins
    /// of its funding must be free by now.
    pub async fn open_failed<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        match self.table.by_user_channel_id(user_channel_id) {
            None => Ok(ChannelOutcome::NotJit),
            Some(mut record) => match record.state {
                JitState::Opening(_) => {
                    record.funding = None;
                    self.take_back_opening(lsps2, record, now).await
                }
                JitState::Sold | JitState::Open(_) | JitState::Retired(_) => {
                    Ok(ChannelOutcome::NothingToDo)
                }
            },
        }
    }

    /// Brings LSPS2 and the record back to "sold", or, if LSPS2 cannot, retires the lease. Every
    /// HTLC that waits is failed. A withheld funding stays in the record: see [`Self::funding_gone`].
    pub(super) async fn take_back_opening<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        mut record: JitRecord,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        let (client, id) = (record.client_node_id, record.user_channel_id);
        let reset = acted(lsps2.channel_open_failed(&client, id).await);
        self.refuse_all(record.scid, Refusal::NoChannel);
        self.plans_out.remove(&id);
        if reset.is_ok() {
            record.state = JitState::Sold;
            self.table.put(record).await?;
            return Ok(ChannelOutcome::Reusable);
        }
        let why = match knows(lsps2, &record) {
            true => RetiredWhy::OpenAbandoned,
            false => RetiredWhy::LostByLsps2,
        };
        // It may be waiting for parts that were failed above: it must not count them again.
        let _ = lsps2.channel_open_abandoned(&client, id).await;
        self.retire(record, why, now).await?;
        Ok(ChannelOutcome::Retired(why))
    }

    /// Handles `Event::ChannelClosed`. LDK drops its state only for a channel whose fee was paid;
    /// for any other, retiring the record is what fails later HTLCs.
    pub async fn channel_closed<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
        channel_id: ChannelId,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        let Some(record) = self.table.by_user_channel_id(user_channel_id) else {
            return Ok(ChannelOutcome::NotJit);
        };
        match &record.state {
            JitState::Opening(_) if self.view_by_user_id(&record).is_none() => {
                self.take_back_opening(lsps2, record, now).await
            }
            JitState::Open(open) if open.channel_id == channel_id => {
                let _ = acted(lsps2.channel_closed(channel_id).await);
                self.retire(record, RetiredWhy::ChannelClosed, now).await?;
                Ok(ChannelOutcome::Retired(RetiredWhy::ChannelClosed))
            }
            JitState::Opening(_) | JitState::Open(_) | JitState::Sold | JitState::Retired(_) => {
                Ok(ChannelOutcome::NothingToDo)
            }
        }
    }

    /// Handles `Event::FundingGenerationReady` with the transaction the wallet has built.
    ///
    /// If the client trusts the LSP the transaction is stored, here and in LSPS2, before LDK is
    /// told; nobody broadcasts it before the fee is paid. On an error call [`Self::open_failed`].
    pub async fn fund<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
        temporary_channel_id: ChannelId,
        counterparty: PublicKey,
        transaction: Transaction,
    ) -> Result<Funded, FundingError> {
        let Some(mut record) = self.table.by_user_channel_id(user_channel_id) else {
            return Ok(Funded::NotJit);
        };
        if !matches!(record.state, JitState::Opening(_)) {
            // Its HTLCs were failed while the client took its time: nobody will pay the fee.
            return Err(FundingError::Refused("no payment waits for the channel".to_owned()));
        }
        // ANCHOR: withhold-or-broadcast
        let withheld = record.trust_model == TrustModel::ClientTrustsLsp;
        if withheld {
            let (stored, broadcast_safe) = (transaction.clone(), false);
            lsps2
                .store_funding(&counterparty, user_channel_id, stored.clone())
                .map_err(|e| FundingError::Refused(format!("{e:?}")))?;
            record.funding = Some(WithheldFunding { transaction: stored, broadcast_safe });
            self.table.put(record).await?;
        }
        self.switch
            .fund(temporary_channel_id, counterparty, transaction, withheld)
            .map_err(|e| FundingError::Refused(format!("{e:?}")))?;
        Ok(Funded::by(withheld))
        // ANCHOR_END: withhold-or-broadcast
    }

    /// Forgets a withheld funding, once its coins are free again or it is broadcast, and no sooner:
    /// only the record knows which coins are locked.
    pub async fn funding_gone(
        &mut self,
        user_channel_id: u128,
        transaction: &Transaction,
    ) -> Result<(), JitTableError> {
        let Some(mut record) = self.table.by_user_channel_id(user_channel_id) else {
            return Ok(());
        };
        // The next channel may have brought its own.
        if record.funding.as_ref().is_none_or(|funding| funding.transaction != *transaction) {
            return Ok(());
        }
        record.funding = None;
        self.table.put(record).await
    }

    /// Handles `Event::FundingTxBroadcastSafe`.
    pub async fn funding_safe<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        user_channel_id: u128,
    ) -> Result<ChannelOutcome, JitTableError> {
        let Some(mut record) = self.table.by_user_channel_id(user_channel_id) else {
            return Ok(ChannelOutcome::NotJit);
        };
        if let Some(funding) = &mut record.funding {
            funding.broadcast_safe = true;
            self.table.put(record.clone()).await?;
        }
        let _ = lsps2.funding_is_safe(&record.client_node_id, user_channel_id);
        Ok(ChannelOutcome::NothingToDo)
    }

    /// Brings LSPS2 and the table together after a restart. Call it once, before events are
    /// handled. It opens no channel: [`Self::pending_opens`] does, once LDK has replayed the HTLCs.
    pub async fn resume<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        now: Duration,
    ) -> Result<Vec<(u64, ChannelOutcome)>, JitTableError> {
        let mut outcomes = Vec::new();
        for record in self.table.all() {
            resupply_funding(lsps2, &record);
            let scid = record.scid;
            let outcome = self.resume_one(lsps2, record, now).await?;
            if outcome != ChannelOutcome::NothingToDo {
                outcomes.push((scid, outcome));
            }
        }
        Ok(outcomes)
    }

    async fn resume_one<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: JitRecord,
        now: Duration,
    ) -> Result<ChannelOutcome, JitTableError> {
        let view = self.view_by_user_id(&record).filter(|view| view.is_ready);
        match (&record.state, view) {
            (JitState::Sold | JitState::Opening(_), _) if !knows(lsps2, &record) => {
                // A crash between writing the record and LSPS2's, or a lease LDK pruned.
                let why = RetiredWhy::LostByLsps2;
                self.retire(record, why, now).await?;
                Ok(ChannelOutcome::Retired(why))
            }
            (JitState::Open(open), _) if open.fee_paid => {
                // LSPS2 may have missed it, and it broadcasts a withheld transaction once more.
                let _ = self.tell_sum(lsps2, open).await;
                Ok(ChannelOutcome::NothingToDo)
            }
            (JitState::Open(_), Some(view)) => {
                let (id, client) = (record.user_channel_id, record.client_node_id);
                self.channel_ready(lsps2, id, view.channel_id, &client, now).await
            }
            (JitState::Sold | JitState::Opening(_), _)
            | (JitState::Open(_) | JitState::Retired(_), _) => Ok(ChannelOutcome::NothingToDo),
        }
    }
}

/// LSPS2's setters do not ask for their state to be written, so a crash may have lost both.
fn resupply_funding<L: Lsps2Service>(lsps2: &L, record: &JitRecord) {
    let (client, id) = (&record.client_node_id, record.user_channel_id);
    if matches!(record.state, JitState::Retired(_)) {
        return;
    }
    if let Some(funding) = &record.funding {
        let stored = lsps2.store_funding(client, id, funding.transaction.clone());
        if stored.is_ok() && funding.broadcast_safe {
            let _ = lsps2.funding_is_safe(client, id);
        }
    }
}

fn fee_ids(open: &OpenChannel) -> Vec<InterceptId> {
    open.fee_payment.as_ref().map(|fee| fee.intercept_ids.clone()).unwrap_or_default()
}
