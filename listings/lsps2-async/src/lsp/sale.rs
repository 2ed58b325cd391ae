//! Selling leases: the menu, and the record that is written before the client hears of the SCID.

use std::collections::BTreeSet;

use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::ln::channelmanager::MIN_CLTV_EXPIRY_DELTA;
use lightning::sign::EntropySource;
use lightning::util::errors::APIError;
use lightning::util::persist::KVStore;
use lightning_liquidity::lsps0::ser::{LSPSDateTime, LSPSRequestId};
use lightning_liquidity::lsps2::msgs::{LSPS2OpeningFeeParams, LSPS2RawOpeningFeeParams};

use crate::lease::{OpeningFeeParams, TrustModel};
use crate::lsp::jit_table::{JitRecord, JitState, JitTable, JitTableError};
use crate::lsp::service::{InvoiceParameters, Lsps2Service};

/// The last second of the year 9999: a later `valid_until` has no ISO 8601 form.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// One entry of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeeOption {
    /// The least fee, in msat.
    pub min_fee_msat: u64,
    /// The share of the gross payment, in parts per million.
    pub proportional: u32,
    /// For how long the offer holds. It is counted in whole seconds.
    ///
    /// A static invoice is refreshed only while its recipient is online, so take the longest time
    /// a client may be away, and two hours more.
    pub validity: Duration,
    /// For how many blocks after confirmation the channel is kept.
    pub min_lifetime: u32,
    /// The largest `to_self_delay`, in blocks, the client may set.
    pub max_client_to_self_delay: u32,
    /// The smallest payment, in msat.
    pub min_payment_size_msat: u64,
    /// The largest payment, in msat. Keep it below what `ChannelSizing::max_channel_sat` can carry.
    pub max_payment_size_msat: u64,
}

impl FeeOption {
    /// The terms, if bought at `now`.
    pub fn terms(&self, now: Duration) -> OpeningFeeParams {
        let until = now.saturating_add(self.validity).min(LAST_DATE);
        OpeningFeeParams {
            min_fee_msat: self.min_fee_msat,
            proportional: self.proportional,
            valid_until: Duration::from_secs(until.as_secs()),
            min_lifetime: self.min_lifetime,
            max_client_to_self_delay: self.max_client_to_self_delay,
            min_payment_size_msat: self.min_payment_size_msat,
            max_payment_size_msat: self.max_payment_size_msat,
        }
    }

    fn check(&self, entry: usize) -> Result<(), PolicyError> {
        if self.validity < Duration::from_secs(1) {
            return Err(PolicyError::NotValid { entry });
        }
        match self.terms(Duration::ZERO).smallest_payment_msat() {
            Some(_) => Ok(()),
            None => Err(PolicyError::Unpayable { entry }),
        }
    }
}

/// What is sold, to whom, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeePolicy {
    menu: Vec<FeeOption>,
    tokens: Option<BTreeSet<String>>,
    cltv_expiry_delta: u16,
    trust_model: TrustModel,
}

/// Why a policy cannot be offered. Entries are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// bLIP-52, "API Information": from one entry to the next neither fee falls, and one rises. LDK
    /// sorts, which is not enough if one entry has the larger minimum and the smaller share.
    #[error(
        "a client must refuse this menu: with a larger minimum fee the share must not be smaller"
    )]
    NotOrdered,
    /// There is nothing on the menu.
    #[error("the menu is empty: offer at least one entry")]
    EmptyMenu,
    /// No amount satisfies the entry.
    #[error("no payment satisfies entry {entry}: raise its largest payment or lower its fee")]
    Unpayable {
        /// Which one.
        entry: usize,
    },
    /// The entry is valid for less than a second.
    #[error("entry {entry} would be void at once: give it a validity")]
    NotValid {
        /// Which one.
        entry: usize,
    },
    /// LDK refuses HTLCs with a smaller delta.
    #[error("a CLTV delta of {0} blocks is below the {MIN_CLTV_EXPIRY_DELTA} that LDK forwards")]
    CltvDeltaTooSmall(u16),
}

impl FeePolicy {
    /// A policy, with the menu sorted as bLIP-52 wants it: by `min_fee_msat`, then `proportional`.
    ///
    /// With `tokens`, only a client that names one of them gets the menu. `cltv_expiry_delta` is in
    /// blocks. Errors if an entry could never be paid.
    pub fn new(
        mut menu: Vec<FeeOption>,
        tokens: Option<BTreeSet<String>>,
        cltv_expiry_delta: u16,
        trust_model: TrustModel,
    ) -> Result<Self, PolicyError> {
        if menu.is_empty() {
            return Err(PolicyError::EmptyMenu);
        }
        if cltv_expiry_delta < MIN_CLTV_EXPIRY_DELTA {
            return Err(PolicyError::CltvDeltaTooSmall(cltv_expiry_delta));
        }
        for (entry, option) in menu.iter().enumerate() {
            option.check(entry)?;
        }
        menu.sort_by_key(|option| (option.min_fee_msat, option.proportional));
        let is_ordered = |pair: &[FeeOption]| {
            let fees = |option: &FeeOption| (option.min_fee_msat, option.proportional);
            pair[0].proportional <= pair[1].proportional && fees(&pair[0]) != fees(&pair[1])
        };
        if !menu.windows(2).all(is_ordered) {
            return Err(PolicyError::NotOrdered);
        }
        Ok(Self { menu, tokens, cltv_expiry_delta, trust_model })
    }

    /// The menu for LDK, which adds the promise. `now` in seconds since the Unix epoch.
    pub fn menu(&self, now: Duration) -> Vec<LSPS2RawOpeningFeeParams> {
        self.menu.iter().map(|option| raw(option.terms(now))).collect()
    }

    /// Whether a client that names `token` gets the menu.
    pub fn accepts(&self, token: Option<&str>) -> bool {
        match (&self.tokens, token) {
            (None, None) => true,
            // bLIP-52: an unrecognised token is an error, even where none is needed.
            (None, Some(_)) => false,
            (Some(tokens), Some(token)) => tokens.contains(token),
            (Some(_), None) => false,
        }
    }
}

fn raw(terms: OpeningFeeParams) -> LSPS2RawOpeningFeeParams {
    LSPS2RawOpeningFeeParams {
        min_fee_msat: terms.min_fee_msat,
        proportional: terms.proportional,
        valid_until: LSPSDateTime::new_from_duration_since_epoch(terms.valid_until),
        min_lifetime: terms.min_lifetime,
        max_client_to_self_delay: terms.max_client_to_self_delay,
        min_payment_size_msat: terms.min_payment_size_msat,
        max_payment_size_msat: terms.max_payment_size_msat,
    }
}

/// The fields of `LSPS2ServiceEvent::BuyRequest`. LDK has checked the promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyRequest {
    /// The request to answer.
    pub request_id: LSPSRequestId,
    /// The client.
    pub counterparty_node_id: PublicKey,
    /// The terms it chose.
    pub opening_fee_params: LSPS2OpeningFeeParams,
    /// The payment size it named, in msat.
    pub payment_size_msat: Option<u64>,
}

/// The two names under which a lease is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNames {
    /// From `ChannelManager::get_intercept_scid`.
    pub intercept_scid: u64,
    /// Random: see [`random_user_channel_id`].
    pub user_channel_id: u128,
}

/// Why a lease was not sold. The client may ask again.
#[derive(Debug, thiserror::Error)]
pub enum SaleError {
    /// The record could not be written. Nothing was promised.
    #[error(transparent)]
    Table(#[from] JitTableError),
    /// LDK did not take the answer, for instance because the client has disconnected.
    #[error("LDK did not take the answer ({0}): wait for the client to ask again")]
    NotAnswered(String),
}

/// A random id for a channel to come.
pub fn random_user_channel_id<ES: EntropySource>(entropy: &ES) -> u128 {
    let random = entropy.get_secure_random_bytes();
    let mut half = [0; 16];
    half.copy_from_slice(&random[..16]);
    u128::from_be_bytes(half)
}

/// Handles `LSPS2ServiceEvent::GetInfo`. Returns whether the menu was sent; if not, the token was
/// refused (error 200).
///
/// Errors if LDK knows of no such request any more.
pub fn answer_get_info<L: Lsps2Service>(
    policy: &FeePolicy,
    lsps2: &L,
    client: &PublicKey,
    request_id: LSPSRequestId,
    token: Option<&str>,
    now: Duration,
) -> Result<bool, SaleError> {
    let accepted = policy.accepts(token);
    let answered = match accepted {
        true => lsps2.offer_menu(client, request_id, policy.menu(now)),
        false => lsps2.refuse_token(client, request_id),
    };
    answered.map_err(not_answered)?;
    Ok(accepted)
}

/// Handles `LSPS2ServiceEvent::BuyRequest`: writes the record, then tells the client its SCID.
///
/// A crash in between leaves a record without a lease, which `JitDesk::resume` retires; the other
/// way round a client would be paid under an SCID the LSP does not know.
///
/// Errors if a name is taken or the store fails (draw other names, or let the client ask again),
/// or if LDK did not take the answer; the record is then removed.
pub async fn answer_buy<L: Lsps2Service, K: KVStore>(
    policy: &FeePolicy,
    table: &JitTable<K>,
    lsps2: &L,
    request: BuyRequest,
    names: ChannelNames,
) -> Result<JitRecord, SaleError> {
    let record = new_record(policy, &request, names);
    table.insert(record.clone()).await?;
    let client = request.counterparty_node_id;
    let parameters = InvoiceParameters {
        intercept_scid: names.intercept_scid,
        cltv_expiry_delta: policy.cltv_expiry_delta,
        client_trusts_lsp: policy.trust_model == TrustModel::ClientTrustsLsp,
        user_channel_id: names.user_channel_id,
    };
    let answer = lsps2.deliver(&client, request.request_id, parameters).await;
    if let Err(error) = answer {
        // It errs as well when the answer went out and only LDK's state was not written.
        if !lsps2.knows(&client, names.user_channel_id) {
            table.remove(names.intercept_scid).await?;
            return Err(not_answered(error));
        }
    }
    Ok(record)
}

fn new_record(policy: &FeePolicy, request: &BuyRequest, names: ChannelNames) -> JitRecord {
    JitRecord {
        scid: names.intercept_scid,
        client_node_id: request.counterparty_node_id,
        user_channel_id: names.user_channel_id,
        opening_fee_params: OpeningFeeParams::from(&request.opening_fee_params),
        payment_size_msat: request.payment_size_msat,
        trust_model: policy.trust_model,
        cltv_expiry_delta: policy.cltv_expiry_delta,
        state: JitState::Sold,
        funding: None,
    }
}

fn not_answered(error: APIError) -> SaleError {
    SaleError::NotAnswered(format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::lsp::testing::*;

    fn option(min_fee_msat: u64, proportional: u32) -> FeeOption {
        FeeOption {
            min_fee_msat,
            proportional,
            validity: seconds(86_400),
            min_lifetime: 4_320,
            max_client_to_self_delay: 432,
            min_payment_size_msat: 10_000,
            max_payment_size_msat: 1_000_000_000,
        }
    }

    fn policy(menu: Vec<FeeOption>) -> Result<FeePolicy, PolicyError> {
        FeePolicy::new(menu, None, 72, TrustModel::LspTrustsClient)
    }

    fn request() -> BuyRequest {
        let terms = terms();
        BuyRequest {
            request_id: LSPSRequestId("1".into()),
            counterparty_node_id: node(1),
            opening_fee_params: LSPS2OpeningFeeParams {
                min_fee_msat: terms.min_fee_msat,
                proportional: terms.proportional,
                valid_until: LSPSDateTime::new_from_duration_since_epoch(terms.valid_until),
                min_lifetime: terms.min_lifetime,
                max_client_to_self_delay: terms.max_client_to_self_delay,
                min_payment_size_msat: terms.min_payment_size_msat,
                max_payment_size_msat: terms.max_payment_size_msat,
                promise: "p".into(),
            },
            payment_size_msat: None,
        }
    }

    const NAMES: ChannelNames = ChannelNames { intercept_scid: SCID, user_channel_id: USER_ID };

    #[test]
    fn a_menu_that_cannot_be_paid_is_an_error() {
        assert_eq!(policy(vec![]), Err(PolicyError::EmptyMenu));
        let dear = option(1_000_000_000, 0);
        let entry = 1;
        assert_eq!(policy(vec![option(1, 1), dear]), Err(PolicyError::Unpayable { entry }));
        let all = option(0, 1_000_000);
        assert_eq!(policy(vec![all]), Err(PolicyError::Unpayable { entry: 0 }));
        let void = FeeOption { validity: Duration::from_millis(999), ..option(1, 1) };
        assert_eq!(policy(vec![void]), Err(PolicyError::NotValid { entry: 0 }));
        let low = FeePolicy::new(vec![option(1, 1)], None, 47, TrustModel::LspTrustsClient);
        assert_eq!(low, Err(PolicyError::CltvDeltaTooSmall(47)));
    }

    #[test]
    fn the_menu_is_sorted_and_dated() {
        let policy = policy(vec![option(5, 9), option(1, 9), option(1, 2)]).unwrap();
        let menu = policy.menu(Duration::from_millis(100_500));
        let order: Vec<_> = menu.iter().map(|raw| (raw.min_fee_msat, raw.proportional)).collect();
        assert_eq!(order, [(1, 2), (1, 9), (5, 9)]);
        assert_eq!(menu[0].valid_until.0.timestamp(), 86_500);
        // The far end of the calendar does not panic.
        policy.menu(Duration::MAX);
    }

    #[test]
    fn a_menu_that_a_client_must_refuse_is_an_error() {
        for unordered in [[option(1, 9), option(5, 1)], [option(1, 9), option(1, 9)]] {
            assert_eq!(policy(unordered.to_vec()), Err(PolicyError::NotOrdered));
        }
    }

    #[test]
    fn tokens_are_checked() {
        let tokens = Some(BTreeSet::from(["a".to_string()]));
        let model = TrustModel::LspTrustsClient;
        let closed = FeePolicy::new(vec![option(1, 1)], tokens, 72, model).unwrap();
        assert!(closed.accepts(Some("a")) && !closed.accepts(Some("b")) && !closed.accepts(None));
        let open = policy(vec![option(1, 1)]).unwrap();
        assert!(open.accepts(None) && !open.accepts(Some("a")));
    }

    #[tokio::test]
    async fn the_record_is_written_before_the_client_hears() {
        let store = MemoryStore::default();
        let table = JitTable::load(store.clone()).await.unwrap();
        let lsps2 = FakeLsps2::new(Arc::default(), &[]);
        let policy = policy(vec![option(1, 1)]).unwrap();
        store.set_broken(true);
        let failed = answer_buy(&policy, &table, &lsps2, request(), NAMES).await;
        assert!(matches!(failed, Err(SaleError::Table(_))));
        assert!(lsps2.delivered.lock().unwrap().is_empty());
        store.set_broken(false);
        let record = answer_buy(&policy, &table, &lsps2, request(), NAMES).await.unwrap();
        assert_eq!(record, sold());
        assert_eq!(JitTable::load(store).await.unwrap().all(), [sold()]);
        let parameters = lsps2.delivered.lock().unwrap()[0];
        assert_eq!((parameters.intercept_scid, parameters.cltv_expiry_delta), (SCID, 72));
    }

    #[tokio::test]
    async fn an_answer_ldk_refuses_leaves_no_record() {
        let table = JitTable::load(MemoryStore::default()).await.unwrap();
        let lsps2 = FakeLsps2::new(Arc::default(), &[]);
        lsps2.refuses.store(true, Ordering::Relaxed);
        let policy = policy(vec![option(1, 1)]).unwrap();
        let failed = answer_buy(&policy, &table, &lsps2, request(), NAMES).await;
        assert!(matches!(failed, Err(SaleError::NotAnswered(_))));
        assert!(table.get(SCID).is_none());
    }

    #[tokio::test]
    async fn an_answer_that_went_out_unwritten_keeps_the_record() {
        let table = JitTable::load(MemoryStore::default()).await.unwrap();
        let lsps2 = FakeLsps2::new(Arc::default(), &[]);
        lsps2.write_fails.store(true, Ordering::Relaxed);
        let policy = policy(vec![option(1, 1)]).unwrap();
        answer_buy(&policy, &table, &lsps2, request(), NAMES).await.unwrap();
        assert!(table.get(SCID).is_some());
    }
}
