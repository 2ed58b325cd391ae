//! An LSP answers, with whatever JSON it likes.

use bitcoin::secp256k1::PublicKey;
use core::cell::RefCell;
use core::time::Duration;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::errors::APIError;
use lightning::util::ser::LengthLimitedRead;
use lightning_liquidity::lsps0::ser::{LSPSRequestId, LSPSResponseError, RawLSPSMessage};
use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
use lightning_liquidity::lsps2::msgs::{
    LSPS2BuyResponse, LSPS2GetInfoResponse, LSPS2OpeningFeeParams,
};
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::negotiate::{
    Lsps2Client, MenuWatch, NegotiateError, Negotiation, NegotiationPolicy, Progress,
};
use serde_json::Value;

use super::{in_order, whole};
use crate::fee_msat;
use crate::feed::Feed;

/// What this client asks: the ids are `0` and `1`.
#[derive(Default)]
struct Client {
    sent: RefCell<Vec<String>>,
    bought: RefCell<Vec<LSPS2OpeningFeeParams>>,
}

impl Client {
    fn send(&self, method: &str) -> LSPSRequestId {
        let mut sent = self.sent.borrow_mut();
        let id = sent.len().to_string();
        sent.push(format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"{method}","params":{{}}}}"#));
        LSPSRequestId(id)
    }
}

impl Lsps2Client for Client {
    fn request_opening_params(&self, _: PublicKey, _: Option<String>) -> LSPSRequestId {
        self.send("lsps2.get_info")
    }

    fn select_opening_params(
        &self,
        _: PublicKey,
        _: Option<u64>,
        params: LSPS2OpeningFeeParams,
    ) -> Result<LSPSRequestId, APIError> {
        self.bought.borrow_mut().push(params);
        Ok(self.send("lsps2.buy"))
    }
}

/// In place of LDK's manager behind the watch: it has what the client sends.
struct Manager<'a>(&'a Client, RefCell<usize>);

impl CustomMessageReader for Manager<'_> {
    type CustomMessage = RawLSPSMessage;

    fn read<R: LengthLimitedRead>(
        &self,
        _: u16,
        _: &mut R,
    ) -> Result<Option<RawLSPSMessage>, DecodeError> {
        Ok(None)
    }
}

impl CustomMessageHandler for Manager<'_> {
    fn handle_custom_message(&self, _: RawLSPSMessage, _: PublicKey) -> Result<(), LightningError> {
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawLSPSMessage)> {
        let (sent, mut gone) = (self.0.sent.borrow(), self.1.borrow_mut());
        let new = sent[*gone..].iter().map(|payload| RawLSPSMessage { payload: payload.clone() });
        *gone = sent.len();
        new.map(|message| (lsp(), message)).collect()
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

fn lsp() -> PublicKey {
    const GENERATOR: [u8; 33] = [
        0x02, 0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87,
        0x0b, 0x07, 0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16,
        0xf8, 0x17, 0x98,
    ];
    PublicKey::from_slice(&GENERATOR).expect("the curve's generator")
}

/// Nothing is bought but an entry of the menu that suits the policy, whose every field was
/// understood; a lease is what was bought, with as much trust as was asked for; and the LSP is heard no
/// more than it was asked.
pub fn lsps_client(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let policy = policy(&mut feed);
    // A clock of our own, some thousand years ahead at the most.
    let began = Duration::from_secs(feed.number().min(1 << 40));
    let client = Client::default();
    let watch = MenuWatch::new(Manager(&client, RefCell::default()));
    let negotiation = Negotiation::begin(&client, lsp(), policy.clone(), began);
    let mut negotiation = negotiation.watched_by(watch.observations());
    let (mut over, mut understood) = (false, false);
    let mut waiting: Vec<Answer> = Vec::new();
    for _ in 0..8 {
        if feed.is_over() {
            break;
        }
        watch.get_and_clear_pending_msg();
        let how = feed.byte();
        let payload = String::from_utf8_lossy(feed.chunk()).into_owned();
        let _ = watch.handle_custom_message(RawLSPSMessage { payload: payload.clone() }, lsp());
        // LDK reads fewer answers than it could, and does not listen to every peer: which one it takes
        // is left to the input. The application hears of it later, perhaps after the next answer.
        if how & 1 == 0 {
            waiting.extend(answer(&payload));
        }
        if how & 2 == 2 {
            continue;
        }
        for answer in waiting.drain(..) {
            let bought = client.bought.borrow().len();
            match negotiation.on_event(&client, &answer.event, began) {
                Progress::NotMine => assert_eq!(bought, client.bought.borrow().len()),
                Progress::Waiting => {
                    assert!(!over && bought == 0);
                    chosen(&client, &answer, &policy, began);
                    understood = true;
                }
                Progress::Done(outcome) => {
                    assert!(!over, "it ends once");
                    over = true;
                    understood = true;
                    match outcome {
                        Ok(lease) => fits(&lease, &client, &answer, &policy),
                        Err(error) => said(&error),
                    }
                }
            }
        }
        assert!(client.sent.borrow().len() <= 2);
    }
    let late = negotiation.check_timeout(began.saturating_add(policy.timeout));
    assert_eq!(late.is_some(), !over);
    understood
}

fn policy(feed: &mut Feed<'_>) -> NegotiationPolicy {
    let flags = feed.byte();
    NegotiationPolicy {
        payment_size_msat: feed.number(),
        fixed_size: flags & 1 == 1,
        max_fee_msat: feed.number(),
        min_validity: Duration::from_secs(feed.byte().into()),
        our_to_self_delay: feed.byte().into(),
        trust_model: match flags & 2 {
            0 => TrustModel::LspTrustsClient,
            _ => TrustModel::ClientTrustsLsp,
        },
        timeout: Duration::from_secs(30),
        token: None,
    }
}

/// What LDK's client makes of an answer, and what it was made of.
struct Answer {
    event: LSPS2ClientEvent,
    result: Value,
}

/// LDK does not look at what follows.
fn answer(payload: &str) -> Option<Answer> {
    let mut values = serde_json::Deserializer::from_str(payload).into_iter::<Value>();
    let json = values.next()?.ok()?;
    let request_id = LSPSRequestId(json.get("id")?.as_str()?.to_owned());
    let counterparty_node_id = lsp();
    if json.get("method").is_some() {
        return None;
    }
    if let Some(error) = json.get("error") {
        let error: LSPSResponseError = serde_json::from_value(error.clone()).ok()?;
        let event = match &*request_id.0 {
            "0" => LSPS2ClientEvent::GetInfoFailed { request_id, counterparty_node_id, error },
            _ => LSPS2ClientEvent::BuyRequestFailed { request_id, counterparty_node_id, error },
        };
        return Some(Answer { event, result: Value::Null });
    }
    let result = json.get("result")?.clone();
    if request_id.0 == "0" {
        let menu: LSPS2GetInfoResponse = serde_json::from_value(result.clone()).ok()?;
        let opening_fee_params_menu = menu.opening_fee_params_menu;
        let event = LSPS2ClientEvent::OpeningParametersReady {
            request_id,
            counterparty_node_id,
            opening_fee_params_menu,
        };
        return Some(Answer { event, result });
    }
    let bought: LSPS2BuyResponse = serde_json::from_value(result.clone()).ok()?;
    let event = LSPS2ClientEvent::InvoiceParametersReady {
        request_id,
        counterparty_node_id,
        intercept_scid: bought.jit_channel_scid.to_scid().ok()?,
        cltv_expiry_delta: bought.lsp_cltv_expiry_delta,
        payment_size_msat: None,
    };
    Some(Answer { event, result })
}

fn chosen(client: &Client, answer: &Answer, policy: &NegotiationPolicy, now: Duration) {
    let Answer { event, result } = answer;
    let LSPS2ClientEvent::OpeningParametersReady { opening_fee_params_menu: menu, .. } = event
    else {
        panic!("{event:?} made it buy")
    };
    assert!(whole(&result["opening_fee_params_menu"]), "a field that LDK does not know was bought");
    let bought = client.bought.borrow();
    let [entry] = &bought[..] else { panic!("it bought {} times", bought.len()) };
    assert!(menu.contains(entry), "copied verbatim");
    assert!(in_order(menu));
    assert!(menu.iter().all(|entry| entry.promise.len() <= 512));
    let terms = lsps2_async::lease::OpeningFeeParams::from(entry);
    assert!(terms.valid_until > now && terms.valid_until - now >= policy.min_validity);
    assert!(u32::from(policy.our_to_self_delay) <= terms.max_client_to_self_delay);
    let size = policy.payment_size_msat;
    let fee = fee_msat(size, terms.min_fee_msat, terms.proportional);
    assert!(fee <= policy.max_fee_msat.into() && fee < size.into());
    assert!((terms.min_payment_size_msat..=terms.max_payment_size_msat).contains(&size));
}

fn fits(lease: &Lease, client: &Client, answer: &Answer, policy: &NegotiationPolicy) {
    let bought = client.bought.borrow();
    assert_eq!(lease.opening_fee_params, (&bought[0]).into());
    assert_eq!(lease.id.lsp_node_id, lsp());
    assert!(lease.id.intercept_scid != 0 && lease.cltv_expiry_delta >= 48);
    assert_eq!(lease.payment_size_msat, policy.fixed_size.then_some(policy.payment_size_msat));
    let trusted = policy.trust_model == TrustModel::ClientTrustsLsp;
    assert!(trusted || lease.trust_model == TrustModel::LspTrustsClient);
    let read: LSPS2BuyResponse = serde_json::from_value(answer.result.clone()).expect("as before");
    assert_eq!(lease.trust_model == TrustModel::ClientTrustsLsp, read.client_trusts_lsp);
}

/// What goes to a log is short and does not steer the terminal.
fn said(error: &NegotiateError) {
    let said = error.to_string();
    assert!(said.len() < 10_000, "{} bytes", said.len());
    assert!(!said.chars().any(char::is_control), "{said:?}");
}
