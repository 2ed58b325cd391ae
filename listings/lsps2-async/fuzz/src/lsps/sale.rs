//! A client asks, with whatever JSON it likes.

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::ln::types::ChannelId;
use lightning::util::errors::APIError;
use lightning_liquidity::lsps0::ser::LSPSRequestId;
use lightning_liquidity::lsps2::msgs::{
    LSPS2BuyRequest, LSPS2GetInfoRequest, LSPS2OpeningFeeParams, LSPS2RawOpeningFeeParams,
};
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::held::InterceptedHtlc;
use lsps2_async::lsp::jit_table::{JIT_TABLE_NAMESPACE, JitState, JitTable};
use lsps2_async::lsp::sale::{
    BuyRequest, ChannelNames, FeeOption, FeePolicy, answer_buy, answer_get_info,
};
use lsps2_async::lsp::service::{InvoiceParameters, Lsps2Service};
use lsps2_async::negotiate::check_menu;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;

use super::in_order;
use crate::feed::Feed;
use crate::lease::node_id;
use crate::now;
use crate::store::Disk;

/// In place of LSPS2: it keeps what it is told to send.
struct Service {
    takes: bool,
    knows: bool,
    menu: Mutex<Option<Vec<LSPS2RawOpeningFeeParams>>>,
    delivered: Mutex<Vec<InvoiceParameters>>,
}

fn refused() -> APIError {
    APIError::APIMisuseError { err: "no such request".to_owned() }
}

impl Service {
    fn answered(&self) -> Result<(), APIError> {
        if self.takes { Ok(()) } else { Err(refused()) }
    }
}

impl Lsps2Service for Service {
    fn knows(&self, _: &PublicKey, _: u128) -> bool {
        self.knows
    }

    fn offer_menu(
        &self,
        _: &PublicKey,
        _: LSPSRequestId,
        menu: Vec<LSPS2RawOpeningFeeParams>,
    ) -> Result<(), APIError> {
        *self.menu.lock().expect("no panic with it") = Some(menu);
        self.answered()
    }

    fn refuse_token(&self, _: &PublicKey, _: LSPSRequestId) -> Result<(), APIError> {
        self.answered()
    }

    fn deliver(
        &self,
        _: &PublicKey,
        _: LSPSRequestId,
        parameters: InvoiceParameters,
    ) -> impl Future<Output = Result<(), APIError>> + Send {
        self.delivered.lock().expect("no panic with it").push(parameters);
        core::future::ready(self.answered())
    }

    async fn htlc_intercepted(&self, _: &InterceptedHtlc) -> Result<(), APIError> {
        Err(refused())
    }

    async fn channel_ready(&self, _: u128, _: ChannelId, _: &PublicKey) -> Result<(), APIError> {
        Err(refused())
    }

    async fn channel_open_failed(&self, _: &PublicKey, _: u128) -> Result<(), APIError> {
        Err(refused())
    }

    async fn channel_open_abandoned(&self, _: &PublicKey, _: u128) -> Result<(), APIError> {
        Err(refused())
    }

    async fn channel_closed(&self, _: ChannelId) -> Result<(), APIError> {
        Err(refused())
    }

    async fn payment_forwarded(&self, _: ChannelId, _: u64) -> Result<(), APIError> {
        Err(refused())
    }

    async fn fee_payment_failed(&self, _: ChannelId, _: PublicKey) -> Result<(), APIError> {
        Err(refused())
    }

    fn store_funding(&self, _: &PublicKey, _: u128, _: Transaction) -> Result<(), APIError> {
        Err(refused())
    }

    fn funding_is_safe(&self, _: &PublicKey, _: u128) -> Result<(), APIError> {
        Err(refused())
    }
}

const CLIENT: [u8; 33] = [2; 33];

/// A menu that a client must take, for those it is for; and what is sold is written down first, as it
/// was asked for, under names that nobody else has.
pub fn lsps_sale(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let time = Duration::from_millis(feed.number());
    let flags = feed.byte();
    let tokens = (flags & 1 == 1).then(|| BTreeSet::from(["coupon".to_owned()]));
    let options: Vec<_> = (0..feed.below(4)).map(|_| option(&mut feed)).collect();
    let trust_model = match flags & 2 {
        0 => TrustModel::LspTrustsClient,
        _ => TrustModel::ClientTrustsLsp,
    };
    let delta = u16::from(feed.byte()).saturating_mul(3);
    let Ok(policy) = FeePolicy::new(options, tokens, delta, trust_model) else { return false };
    assert!(delta >= 48);
    let client = node_id(&CLIENT).expect("it is on the curve");
    let service = Service {
        takes: flags & 4 == 0,
        knows: flags & 8 != 0,
        menu: Mutex::default(),
        delivered: Mutex::default(),
    };

    let disk = Disk::default();
    let table = now(JitTable::load(disk.clone())).expect("the disk works");
    let mut understood = false;
    for number in 0..6 {
        if feed.is_over() {
            break;
        }
        let id = LSPSRequestId(number.to_string());
        let json: Value = match serde_json::from_slice(feed.chunk()) {
            Ok(json) => json,
            Err(_) => continue,
        };
        let params = json["params"].clone();
        if let Ok(LSPS2GetInfoRequest { token }) = serde_json::from_value(params.clone()) {
            understood = true;
            let token = token.as_deref();
            let sent = answer_get_info(&policy, &service, &client, id, token, time);
            let invited = if flags & 1 == 1 { token == Some("coupon") } else { token.is_none() };
            assert_eq!(sent.ok(), service.takes.then_some(invited));
            if let Some(menu) = service.menu.lock().expect("no panic with it").take() {
                assert!(invited);
                a_client_takes(&menu, time);
            }
        } else if let Ok(request) = serde_json::from_value::<LSPS2BuyRequest>(params) {
            understood = true;
            let request = BuyRequest {
                request_id: id,
                counterparty_node_id: client,
                opening_fee_params: request.opening_fee_params,
                payment_size_msat: request.payment_size_msat,
            };
            buy(&policy, &service, (&disk, &table), request, &mut feed);
        }
    }
    let again = now(JitTable::load(disk)).expect("the disk works");
    assert_eq!(again.all(), table.all(), "a restart finds the same");
    understood
}

fn option(feed: &mut Feed<'_>) -> FeeOption {
    FeeOption {
        min_fee_msat: feed.number(),
        proportional: (feed.number() >> 44) as u32,
        validity: Duration::from_millis(feed.number()),
        min_lifetime: feed.byte().into(),
        max_client_to_self_delay: feed.byte().into(),
        min_payment_size_msat: feed.number(),
        max_payment_size_msat: feed.number(),
    }
}

/// Our own client would not refuse it for what it is.
fn a_client_takes(menu: &[LSPS2RawOpeningFeeParams], time: Duration) {
    let signed = menu.iter().map(|raw| LSPS2OpeningFeeParams {
        min_fee_msat: raw.min_fee_msat,
        proportional: raw.proportional,
        valid_until: raw.valid_until,
        min_lifetime: raw.min_lifetime,
        max_client_to_self_delay: raw.max_client_to_self_delay,
        min_payment_size_msat: raw.min_payment_size_msat,
        max_payment_size_msat: raw.max_payment_size_msat,
        promise: "00".repeat(32),
    });
    let signed: Vec<_> = signed.collect();
    assert!(!signed.is_empty() && in_order(&signed));
    // The calendar ends with the year 9999, and validity with it.
    let judged = check_menu(&signed, time);
    assert!(judged.is_ok() || time.as_secs() >= 253_402_300_799, "{judged:?}");
}

fn buy(
    policy: &FeePolicy,
    service: &Service,
    (disk, table): (&Disk, &JitTable<Disk>),
    request: BuyRequest,
    feed: &mut Feed<'_>,
) {
    // Few names, so that some are taken.
    let names = ChannelNames {
        intercept_scid: feed.below(3).into(),
        user_channel_id: feed.below(3).into(),
    };
    let writes = feed.byte();
    if writes == 0 {
        disk.fails_after(0);
    }
    let before = (table.all(), disk.entries(JIT_TABLE_NAMESPACE));
    let sold = now(answer_buy(policy, table, service, request.clone(), names));
    disk.is_repaired();
    let told = std::mem::take(&mut *service.delivered.lock().expect("no panic with it"));
    let Ok(record) = sold else {
        assert_eq!(before, (table.all(), disk.entries(JIT_TABLE_NAMESPACE)));
        return assert!(told.is_empty() || !service.takes);
    };
    assert!(
        writes != 0
            && before.0.iter().all(|other| {
                other.scid != record.scid && other.user_channel_id != record.user_channel_id
            })
    );
    let [told] = told[..] else { panic!("told {} times", told.len()) };
    assert_eq!(told.intercept_scid, record.scid);
    assert_eq!(told.user_channel_id, record.user_channel_id);
    assert_eq!(told.cltv_expiry_delta, record.cltv_expiry_delta);
    assert_eq!(told.client_trusts_lsp, record.trust_model == TrustModel::ClientTrustsLsp);
    assert_eq!(record.opening_fee_params, (&request.opening_fee_params).into());
    assert_eq!(record.payment_size_msat, request.payment_size_msat);
    assert_eq!(
        (record.client_node_id, &record.state),
        (request.counterparty_node_id, &JitState::Sold)
    );
    assert_eq!(table.get(record.scid), Some(record));
}
