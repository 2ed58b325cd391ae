//! The desk's clock: what may not wait for ever.

use super::*;
use crate::lsp::held::HeldHtlc;

impl<S: Deref<Target: Switch>, K: KVStore> JitDesk<S, K> {
    /// Ends everything that has waited for too long. Call it every few seconds.
    ///
    /// An HTLC that was forwarded is never failed: LDK holds it no more and answers with an error.
    /// If the store errs, HTLCs may be left for the next sweep.
    pub async fn sweep<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        now: Duration,
    ) -> Result<Vec<Swept>, JitTableError> {
        let mut done = Vec::new();
        // First what needs no write: a store that fails must not keep HTLCs hanging.
        self.sweep_held(lsps2, now, &mut done).await?;
        self.sweep_openings(lsps2, now, &mut done).await?;
        self.sweep_dead(now, &mut done).await?;
        Ok(done)
    }

    async fn sweep_openings<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        now: Duration,
        done: &mut Vec<Swept>,
    ) -> Result<(), JitTableError> {
        for record in self.table.all() {
            let JitState::Opening(opening) = &record.state else {
                continue;
            };
            let no_channel = self.view_by_user_id(&record).is_none();
            let late = no_channel && is_too_late(&self.held, opening, self.switch.height());
            if !late && !is_older(opening.since, now, self.settings.open_deadline) {
                continue;
            }
            // Even if the channel is ready: whether the chain takes its funding, nobody has asked.
            let scid = record.scid;
            let outcome = self.take_back_opening(lsps2, record, now).await?;
            done.push(Swept::OpenGivenUp { scid, outcome });
        }
        Ok(())
    }

    async fn sweep_held<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        now: Duration,
        done: &mut Vec<Swept>,
    ) -> Result<(), JitTableError> {
        for held in self.held.all() {
            let id = held.htlc.intercept_id;
            let Some(why) = self.overdue(&held, now) else {
                continue;
            };
            let was_held = self.switch.fail(id).is_ok();
            self.held.forget(id);
            if was_held {
                done.push(Swept::Failed(id, why));
                self.unjam(lsps2, held.htlc.requested_next_hop_scid, now, done).await?;
            }
        }
        Ok(())
    }

    fn overdue(&self, held: &HeldHtlc, now: Duration) -> Option<Refusal> {
        match self.table.get(held.htlc.requested_next_hop_scid).map(|record| record.state) {
            None => Some(Refusal::UnknownScid(held.htlc.requested_next_hop_scid)),
            Some(JitState::Retired(retired)) => Some(Refusal::Retired(retired.why)),
            // The deadline of the opening counts.
            Some(JitState::Opening(_)) => None,
            Some(JitState::Sold | JitState::Open(_)) => {
                is_older(held.since, now, self.settings.max_hold).then_some(Refusal::HeldTooLong)
            }
        }
    }

    /// An HTLC waited for the payment with the fee, and no such payment is on its way: its failure
    /// was missed, so the fee is owed by the next one.
    async fn unjam<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        scid: u64,
        now: Duration,
        done: &mut Vec<Swept>,
    ) -> Result<(), JitTableError> {
        let Some(record) = self.table.get(scid) else {
            return Ok(());
        };
        let Some(open) = record.open() else {
            return Ok(());
        };
        if open.fee_paid || self.fee_in_flight(&record) {
            return Ok(());
        }
        self.end_fee_payment(lsps2, record).await?;
        let let_through = self.release(lsps2, scid, now).await?;
        done.extend(let_through.into_iter().map(Swept::LetThrough));
        Ok(())
    }

    async fn sweep_dead(
        &mut self,
        now: Duration,
        done: &mut Vec<Swept>,
    ) -> Result<(), JitTableError> {
        for record in self.table.all() {
            if record.funding.is_some() {
                // Who forgets it leaves the coins locked for ever.
                continue;
            }
            let died = match &record.state {
                JitState::Sold => record.opening_fee_params.valid_until,
                JitState::Retired(retired) => retired.since,
                JitState::Opening(_) | JitState::Open(_) => continue,
            };
            if is_older(died, now, self.settings.keep_dead) {
                self.table.remove(record.scid).await?;
                done.push(Swept::Removed(record.scid));
            }
        }
        Ok(())
    }
}

fn is_older(since: Duration, now: Duration, limit: Duration) -> bool {
    now.saturating_sub(since) >= limit
}
