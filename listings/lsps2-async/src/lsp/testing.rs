//! Test doubles: a store in memory, a switch without channels, and LSPS2's state machine as
//! `lightning-liquidity` 0.3.0-rc3 runs it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::Transaction;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use core::future::Future;
use core::time::Duration;
use lightning::io;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::errors::APIError;
use lightning::util::persist::KVStore;
use lightning_liquidity::lsps0::ser::LSPSRequestId;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;

use crate::lease::{OpeningFeeParams, TrustModel};
use crate::lsp::held::InterceptedHtlc;
use crate::lsp::jit_table::{JitRecord, JitState};
use crate::lsp::service::{ChannelView, InvoiceParameters, Lsps2Service, Switch};

pub(crate) const SCID: u64 = 42;
pub(crate) const USER_ID: u128 = 7;
pub(crate) const CHANNEL: ChannelId = ChannelId([9; 32]);
pub(crate) const FEE: u64 = 2_000_000;

pub(crate) fn node(seed: u8) -> PublicKey {
    let key = SecretKey::from_slice(&[seed; 32]).expect("a valid key");
    PublicKey::from_secret_key(&Secp256k1::new(), &key)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 2 % but at least 2 000 sat, for 10 000 to 1 000 000 sat, until second 1 000.
pub(crate) fn terms() -> OpeningFeeParams {
    OpeningFeeParams {
        min_fee_msat: FEE,
        proportional: 20_000,
        valid_until: seconds(1_000),
        min_lifetime: 4_320,
        max_client_to_self_delay: 432,
        min_payment_size_msat: 10_000_000,
        max_payment_size_msat: 1_000_000_000,
    }
}

pub(crate) fn sold() -> JitRecord {
    JitRecord {
        scid: SCID,
        client_node_id: node(1),
        user_channel_id: USER_ID,
        opening_fee_params: terms(),
        payment_size_msat: None,
        trust_model: TrustModel::LspTrustsClient,
        cltv_expiry_delta: 72,
        state: JitState::Sold,
        funding: None,
    }
}

pub(crate) fn htlc(id: u8, hash: u8, amount_msat: u64) -> InterceptedHtlc {
    InterceptedHtlc {
        intercept_id: InterceptId([id; 32]),
        requested_next_hop_scid: SCID,
        payment_hash: PaymentHash([hash; 32]),
        inbound_amount_msat: amount_msat,
        expected_outbound_amount_msat: amount_msat,
        client_expiry: Some(1_000),
    }
}

type Entries = BTreeMap<(String, String, String), Vec<u8>>;

/// A store in memory that can be told to fail.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    entries: Arc<Mutex<Entries>>,
    broken: Arc<AtomicBool>,
}

impl MemoryStore {
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, primary: &str, secondary: &str, key: &str, bytes: &[u8]) {
        let name = (primary.into(), secondary.into(), key.into());
        self.entries.lock().unwrap().insert(name, bytes.to_vec());
    }

    pub(crate) fn get(&self, primary: &str, secondary: &str, key: &str) -> Vec<u8> {
        let name = (primary.into(), secondary.into(), key.into());
        self.entries.lock().unwrap()[&name].clone()
    }

    pub(crate) fn keys(&self) -> Vec<(String, String, String)> {
        self.entries.lock().unwrap().keys().cloned().collect()
    }

    fn run<R: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Entries) -> Result<R, io::Error>,
    ) -> impl Future<Output = Result<R, io::Error>> + Send + 'static {
        let result = match self.broken.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::Other, "broken")),
            false => action(&mut self.entries.lock().unwrap()),
        };
        async move {
            tokio::task::yield_now().await;
            result
        }
    }
}

impl KVStore for MemoryStore {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> impl Future<Output = Result<Vec<u8>, io::Error>> + Send + 'static {
        let name = (primary.to_string(), secondary.to_string(), key.to_string());
        let missing = || io::Error::new(io::ErrorKind::NotFound, "missing");
        self.run(move |entries| entries.get(&name).cloned().ok_or_else(missing))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let name = (primary.to_string(), secondary.to_string(), key.to_string());
        self.run(move |entries| {
            entries.insert(name, buf);
            Ok(())
        })
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        _lazy: bool,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let name = (primary.to_string(), secondary.to_string(), key.to_string());
        self.run(move |entries| {
            entries.remove(&name);
            Ok(())
        })
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> impl Future<Output = Result<Vec<String>, io::Error>> + Send + 'static {
        let (primary, secondary) = (primary.to_string(), secondary.to_string());
        self.run(move |entries| {
            let wanted =
                |name: &&(String, String, String)| name.0 == primary && name.1 == secondary;
            Ok(entries.keys().filter(wanted).map(|name| name.2.clone()).collect())
        })
    }
}

/// One HTLC that went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) htlc: InterceptedHtlc,
    pub(crate) amount_msat: u64,
}

impl Outgoing {
    pub(crate) fn skim_msat(&self) -> u64 {
        self.htlc.expected_outbound_amount_msat - self.amount_msat
    }
}

/// What LDK's `ChannelManager` does with intercepted HTLCs.
#[derive(Default)]
pub(crate) struct FakeSwitch {
    /// Forwards go over another channel with the client, as LDK may have it.
    pub(crate) strays: AtomicBool,
    pub(crate) held: Mutex<Vec<InterceptedHtlc>>,
    pub(crate) out: Mutex<Vec<Outgoing>>,
    pub(crate) failed: Mutex<Vec<InterceptId>>,
    /// Payments on their way that have lost a part: an honest client does not claim them.
    pub(crate) torn: Mutex<HashSet<PaymentHash>>,
    pub(crate) channels: Mutex<Vec<ChannelView>>,
    pub(crate) funded: Mutex<Vec<bool>>,
    pub(crate) unusable: AtomicBool,
    pub(crate) height: AtomicU32,
}

impl FakeSwitch {
    fn take(&self, id: InterceptId) -> Result<InterceptedHtlc, APIError> {
        let mut held = self.held.lock().unwrap();
        let position = held.iter().position(|htlc| htlc.intercept_id == id);
        let gone = || misuse(&format!("Payment with intercept id {:?} not found", id.0));
        position.map(|position| held.remove(position)).ok_or_else(gone)
    }

    pub(crate) fn intercept(&self, htlc: InterceptedHtlc) {
        self.held.lock().unwrap().push(htlc);
    }

    pub(crate) fn add_channel(&self, is_ready: bool) {
        self.channels.lock().unwrap().push(ChannelView {
            channel_id: CHANNEL,
            user_channel_id: USER_ID,
            counterparty: node(1),
            is_ready,
            skimmed: Vec::new(),
        });
    }

    pub(crate) fn lose_part(&self, hash: PaymentHash) {
        if self.out.lock().unwrap().iter().any(|sent| sent.htlc.payment_hash == hash) {
            self.torn.lock().unwrap().insert(hash);
        }
    }

    pub(crate) fn is_torn(&self, hash: PaymentHash) -> bool {
        self.torn.lock().unwrap().contains(&hash)
    }

    /// The client claims or fails a payment: all its HTLCs.
    pub(crate) fn settle(&self, hash: PaymentHash) -> Vec<Outgoing> {
        let mut out = self.out.lock().unwrap();
        let settled = out.iter().filter(|sent| sent.htlc.payment_hash == hash).copied().collect();
        out.retain(|sent| sent.htlc.payment_hash != hash);
        self.torn.lock().unwrap().remove(&hash);
        settled
    }
}

impl Switch for FakeSwitch {
    fn forward(
        &self,
        id: InterceptId,
        channel_id: ChannelId,
        _client: PublicKey,
        amount_msat: u64,
    ) -> Result<(), APIError> {
        let usable = !self.unusable.load(Ordering::Relaxed);
        let mut channels = self.channels.lock().unwrap().clone();
        channels.retain(|view| view.channel_id == channel_id && view.is_ready && usable);
        if channels.is_empty() {
            return Err(APIError::ChannelUnavailable { err: "no channel".into() });
        }
        let htlc = self.take(id)?;
        assert!(amount_msat > 0 && amount_msat <= htlc.expected_outbound_amount_msat);
        self.out.lock().unwrap().push(Outgoing { htlc, amount_msat });
        Ok(())
    }

    fn fail(&self, id: InterceptId) -> Result<(), APIError> {
        self.lose_part(self.take(id)?.payment_hash);
        self.failed.lock().unwrap().push(id);
        Ok(())
    }

    fn height(&self) -> u32 {
        self.height.load(Ordering::Relaxed)
    }

    fn channels_with(&self, client: &PublicKey) -> Vec<ChannelView> {
        let mut channels = self.channels.lock().unwrap().clone();
        channels.retain(|view| view.counterparty == *client);
        let out = self.out.lock().unwrap();
        let with_skim = out.iter().filter(|sent| sent.skim_msat() > 0);
        let skimmed: Vec<_> = with_skim.map(|sent| sent.htlc.payment_hash).collect();
        if self.strays.load(Ordering::Relaxed) {
            let other = channels.first().cloned();
            channels.extend(other.map(|view| ChannelView {
                channel_id: ChannelId([3; 32]),
                skimmed,
                ..view
            }));
            return channels;
        }
        for view in &mut channels {
            view.skimmed.clone_from(&skimmed);
        }
        channels
    }

    fn fund(
        &self,
        _temporary: ChannelId,
        _counterparty: PublicKey,
        _transaction: Transaction,
        manual_broadcast: bool,
    ) -> Result<(), APIError> {
        self.funded.lock().unwrap().push(manual_broadcast);
        Ok(())
    }
}

type Queue = Vec<InterceptedHtlc>;

#[derive(Clone, Debug)]
pub(crate) enum FakeState {
    Initial(Queue),
    Opening(Queue, u64),
    Forwarding(Queue, u64, ChannelId),
    Owed(Queue, u64, ChannelId),
    Paid(ChannelId),
}

/// LSPS2's state machine, with its habits: one bad HTLC retires the lease, a retired lease answers
/// `Ok(())`, and a missing HTLC stops it half-way.
pub(crate) struct FakeLsps2 {
    pub(crate) switch: Arc<FakeSwitch>,
    pub(crate) leases: Mutex<HashMap<u64, (JitRecord, FakeState)>>,
    pub(crate) open_events: Mutex<Vec<u128>>,
    pub(crate) sums: Mutex<Vec<u64>>,
    pub(crate) stored: Mutex<Vec<Transaction>>,
    pub(crate) safe: Mutex<u32>,
    pub(crate) delivered: Mutex<Vec<InvoiceParameters>>,
    pub(crate) menus: Mutex<Vec<usize>>,
    pub(crate) refuses: AtomicBool,
    pub(crate) write_fails: AtomicBool,
}

impl FakeLsps2 {
    pub(crate) fn new(switch: Arc<FakeSwitch>, leases: &[JitRecord]) -> Self {
        let fresh =
            |record: &JitRecord| (record.scid, (record.clone(), FakeState::Initial(Vec::new())));
        Self {
            switch,
            leases: Mutex::new(leases.iter().map(fresh).collect()),
            open_events: Mutex::default(),
            sums: Mutex::default(),
            stored: Mutex::default(),
            safe: Mutex::default(),
            delivered: Mutex::default(),
            menus: Mutex::default(),
            refuses: AtomicBool::default(),
            write_fails: AtomicBool::default(),
        }
    }

    fn written(&self) -> Result<(), APIError> {
        match self.write_fails.load(Ordering::Relaxed) {
            true => Err(misuse("Failed to persist peer state for x: broken")),
            false => Ok(()),
        }
    }

    fn by_user_id(&self, id: u128) -> Option<u64> {
        let leases = self.leases.lock().unwrap();
        leases.iter().find(|(_, (record, _))| record.user_channel_id == id).map(|(scid, _)| *scid)
    }

    fn send(
        &self,
        htlcs: &[InterceptedHtlc],
        fee: u64,
        channel: ChannelId,
    ) -> Result<(), APIError> {
        let total: u64 = htlcs.iter().map(|htlc| htlc.expected_outbound_amount_msat).sum();
        let mut left = fee;
        for (index, htlc) in htlcs.iter().enumerate() {
            let amount = htlc.expected_outbound_amount_msat;
            let last = index + 1 == htlcs.len();
            let share = (u128::from(fee) * u128::from(amount) / u128::from(total)) as u64;
            let share = if last { left } else { share.min(left) };
            left -= share;
            self.switch.forward(htlc.intercept_id, channel, node(1), amount - share)?;
        }
        Ok(())
    }

    /// Pops the first payment that covers the fee and forwards it.
    fn next(&self, scid: u64, queue: &Queue, fee: u64, ch: ChannelId) -> Result<(), APIError> {
        let mut queue = queue.clone();
        let sum = |queue: &Queue, hash| -> u64 {
            let parts = queue.iter().filter(|htlc| htlc.payment_hash == hash);
            parts.map(|htlc| htlc.expected_outbound_amount_msat).sum()
        };
        let payment = queue.iter().map(|htlc| htlc.payment_hash);
        let Some(hash) = payment.into_iter().find(|hash| sum(&queue, *hash) >= fee) else {
            self.become_(scid, FakeState::Owed(queue, fee, ch));
            return Ok(());
        };
        let parts: Queue = queue.iter().filter(|htlc| htlc.payment_hash == hash).copied().collect();
        queue.retain(|htlc| htlc.payment_hash != hash);
        self.become_(scid, FakeState::Forwarding(queue, fee, ch));
        self.send(&parts, fee, ch)
    }

    fn become_(&self, scid: u64, state: FakeState) {
        self.leases.lock().unwrap().get_mut(&scid).unwrap().1 = state;
    }

    pub(crate) fn state(&self, scid: u64) -> Option<FakeState> {
        self.leases.lock().unwrap().get(&scid).map(|(_, state)| state.clone())
    }

    fn on_channel(&self, channel: ChannelId) -> Option<(u64, FakeState)> {
        let leases = self.leases.lock().unwrap();
        let found = leases.iter().find(|(_, (_, state))| match state {
            FakeState::Forwarding(_, _, ch) | FakeState::Owed(_, _, ch) | FakeState::Paid(ch) => {
                *ch == channel
            }
            FakeState::Initial(_) | FakeState::Opening(..) => false,
        });
        found.map(|(scid, (_, state))| (*scid, state.clone()))
    }

    fn first(&self, htlc: &InterceptedHtlc, mut queue: Queue) -> Result<(), APIError> {
        let scid = htlc.requested_next_hop_scid;
        let record = self.leases.lock().unwrap()[&scid].0.clone();
        add(&mut queue, htlc);
        let total: u64 = queue.iter().map(|htlc| htlc.expected_outbound_amount_msat).sum();
        let size = record.payment_size_msat.unwrap_or(total);
        let (least, most) = (terms().min_payment_size_msat, terms().max_payment_size_msat);
        let fee = record.opening_fee_params.opening_fee_msat(size).unwrap();
        let bad = size < least || size > most || size <= fee;
        if bad || self.refuses.load(Ordering::Relaxed) {
            self.switch.fail(htlc.intercept_id)?;
            self.leases.lock().unwrap().remove(&scid);
            return Err(misuse("Payment size violates our limits"));
        }
        if total < size {
            self.become_(scid, FakeState::Initial(queue));
        } else {
            self.become_(scid, FakeState::Opening(queue, fee));
            self.open_events.lock().unwrap().push(record.user_channel_id);
        }
        self.written()
    }
}

fn add(queue: &mut Queue, htlc: &InterceptedHtlc) {
    if queue.iter().all(|queued| queued.intercept_id != htlc.intercept_id) {
        queue.push(*htlc);
    }
}

pub(crate) fn misuse(text: &str) -> APIError {
    APIError::APIMisuseError { err: text.into() }
}

impl Lsps2Service for FakeLsps2 {
    fn knows(&self, _client: &PublicKey, user_channel_id: u128) -> bool {
        self.by_user_id(user_channel_id).is_some()
    }

    fn offer_menu(
        &self,
        _client: &PublicKey,
        _request_id: LSPSRequestId,
        menu: Vec<LSPS2RawOpeningFeeParams>,
    ) -> Result<(), APIError> {
        self.menus.lock().unwrap().push(menu.len());
        Ok(())
    }

    fn refuse_token(&self, _client: &PublicKey, _request: LSPSRequestId) -> Result<(), APIError> {
        Ok(())
    }

    async fn deliver(
        &self,
        client: &PublicKey,
        _request_id: LSPSRequestId,
        parameters: InvoiceParameters,
    ) -> Result<(), APIError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(misuse("No pending buy request"));
        }
        let (scid, user_channel_id) = (parameters.intercept_scid, parameters.user_channel_id);
        let record = JitRecord { scid, user_channel_id, client_node_id: *client, ..sold() };
        let lease = (record, FakeState::Initial(Vec::new()));
        self.leases.lock().unwrap().insert(scid, lease);
        self.delivered.lock().unwrap().push(parameters);
        self.written()
    }

    async fn htlc_intercepted(&self, htlc: &InterceptedHtlc) -> Result<(), APIError> {
        let scid = htlc.requested_next_hop_scid;
        match self.state(scid) {
            None => Ok(()),
            Some(FakeState::Initial(queue)) => self.first(htlc, queue),
            Some(FakeState::Opening(mut queue, fee)) => {
                add(&mut queue, htlc);
                self.become_(scid, FakeState::Opening(queue, fee));
                self.written()
            }
            Some(FakeState::Forwarding(mut queue, fee, ch)) => {
                add(&mut queue, htlc);
                self.become_(scid, FakeState::Forwarding(queue, fee, ch));
                self.written()
            }
            Some(FakeState::Owed(mut queue, fee, ch)) => {
                add(&mut queue, htlc);
                self.next(scid, &queue, fee, ch)?;
                self.written()
            }
            Some(FakeState::Paid(ch)) => self.send(&[*htlc], 0, ch),
        }
    }

    async fn channel_ready(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        _client: &PublicKey,
    ) -> Result<(), APIError> {
        let scid = self.by_user_id(user_channel_id).ok_or_else(|| misuse("Could not find"))?;
        match self.state(scid) {
            Some(FakeState::Opening(queue, fee)) => self.next(scid, &queue, fee, channel_id),
            _ => Err(misuse("Failed to transition to channel ready")),
        }
    }

    async fn channel_open_failed(&self, _client: &PublicKey, id: u128) -> Result<(), APIError> {
        let scid = self.by_user_id(id).ok_or_else(|| misuse("Could not find"))?;
        let Some(FakeState::Opening(queue, _)) = self.state(scid) else {
            return Err(misuse("Channel is not in the PendingChannelOpen state."));
        };
        for htlc in queue {
            let _ = self.switch.fail(htlc.intercept_id);
        }
        self.become_(scid, FakeState::Initial(Vec::new()));
        Ok(())
    }

    async fn channel_open_abandoned(&self, _client: &PublicKey, id: u128) -> Result<(), APIError> {
        let scid = self.by_user_id(id).ok_or_else(|| misuse("Could not find"))?;
        match self.state(scid) {
            Some(FakeState::Initial(queue) | FakeState::Opening(queue, _)) => {
                for htlc in queue {
                    let _ = self.switch.fail(htlc.intercept_id);
                }
                self.leases.lock().unwrap().remove(&scid);
                Ok(())
            }
            _ => Err(misuse("Cannot abandon channel open")),
        }
    }

    async fn channel_closed(&self, channel_id: ChannelId) -> Result<(), APIError> {
        if let Some((scid, FakeState::Paid(_))) = self.on_channel(channel_id) {
            self.leases.lock().unwrap().remove(&scid);
        }
        Ok(())
    }

    async fn payment_forwarded(&self, channel: ChannelId, skim: u64) -> Result<(), APIError> {
        self.sums.lock().unwrap().push(skim);
        match self.on_channel(channel) {
            Some((scid, FakeState::Forwarding(queue, fee, ch))) if skim >= fee => {
                self.become_(scid, FakeState::Paid(ch));
                queue.iter().try_for_each(|htlc| self.send(&[*htlc], 0, ch))
            }
            Some((_, FakeState::Owed(..))) => Err(misuse("Forwarded payment was not applicable")),
            _ => Ok(()),
        }
    }

    async fn fee_payment_failed(&self, channel: ChannelId, _: PublicKey) -> Result<(), APIError> {
        match self.on_channel(channel) {
            Some((scid, FakeState::Forwarding(queue, fee, ch))) => self.next(scid, &queue, fee, ch),
            _ => Ok(()),
        }
    }

    fn store_funding(
        &self,
        _client: &PublicKey,
        _user_channel_id: u128,
        transaction: Transaction,
    ) -> Result<(), APIError> {
        self.stored.lock().unwrap().push(transaction);
        Ok(())
    }

    fn funding_is_safe(&self, _client: &PublicKey, _id: u128) -> Result<(), APIError> {
        *self.safe.lock().unwrap() += 1;
        Ok(())
    }
}
