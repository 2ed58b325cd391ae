//! What `MenuWatch` says of an answer and what LDK's client made of it, where they could differ.

use lightning::ln::msgs::LightningError;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use super::rig::{Liquidity, Rig, entry};
use crate::lease::TrustModel;
use crate::lsp::testing::MemoryStore;
use crate::negotiate::{MenuWatch, NegotiateError, Negotiation, NegotiationPolicy, Progress};

const NOW: Duration = Duration::from_secs(1_750_000_000);

/// A wallet on LDK's client, which asks an LSP that answers as it likes.
struct Wallet {
    rig: Rig,
    client: Arc<Liquidity>,
    watch: MenuWatch<Arc<Liquidity>>,
    negotiation: Negotiation,
}

impl Wallet {
    async fn new(trust_model: TrustModel) -> Self {
        let rig = Rig::new().await;
        let client = Arc::new(rig.client.liquidity(&MemoryStore::default(), false).await);
        let watch = MenuWatch::new(Arc::clone(&client));
        let policy = NegotiationPolicy {
            payment_size_msat: 100_000_000,
            fixed_size: false,
            max_fee_msat: 3_000_000,
            min_validity: Duration::ZERO,
            our_to_self_delay: 144,
            trust_model,
            timeout: Duration::from_secs(30),
            token: None,
        };
        let handler = client.lsps2_client_handler().unwrap();
        let negotiation = Negotiation::begin(handler, rig.lsp.id, policy, NOW);
        let negotiation = negotiation.watched_by(watch.observations());
        Self { rig, client, watch, negotiation }
    }

    /// The id of the request that goes out.
    fn asks(&self) -> String {
        let messages = self.watch.get_and_clear_pending_msg();
        let [(_, request)] = &messages[..] else { panic!("{messages:?}") };
        let request: Value = serde_json::from_str(&request.payload).unwrap();
        request["id"].as_str().unwrap().to_owned()
    }

    fn hears(&self, payload: String) -> Result<(), LightningError> {
        self.watch.handle_custom_message(RawLSPSMessage { payload }, self.rig.lsp.id)
    }

    /// LDK no longer listens to a peer that it could not read, until it reconnects.
    fn is_reconnected(&self) {
        self.watch.peer_disconnected(self.rig.lsp.id);
        // What LDK would have said of the unreadable.
        self.watch.get_and_clear_pending_msg();
    }

    /// What the negotiation makes of all that LDK has to tell.
    fn is_told(&mut self) -> Progress {
        let events = self.client.get_and_clear_pending_events();
        let [LiquidityEvent::LSPS2Client(event)] = &events[..] else { panic!("{events:?}") };
        self.negotiation.on_event(self.client.lsps2_client_handler().unwrap(), event, NOW)
    }

    fn menu(&self, extra: bool) -> Value {
        let mut terms = self.rig.menu(self.rig.client.id, vec![entry()]).remove(0);
        if extra {
            terms["ongoing_fee_ppm"] = json!(1_000);
        }
        json!([terms])
    }
}

fn result(id: &str, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn is_unclear(progress: &Progress) -> bool {
    matches!(progress, Progress::Done(Err(NegotiateError::Unclear)))
}

/// LDK reads what stands before the end of an answer, and drops the second as one too many.
#[tokio::test]
async fn an_answer_with_something_after_it_is_not_hidden_by_another() {
    let mut wallet = Wallet::new(TrustModel::ClientTrustsLsp).await;
    let id = wallet.asks();
    let told = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(true) }));
    wallet.hears(told + "!").unwrap();
    let other = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(false) }));
    wallet.hears(other).unwrap_err();
    assert!(is_unclear(&wallet.is_told()));
}

/// LDK cannot read a name with an escape in it, and waits for an answer still.
#[tokio::test]
async fn an_answer_that_ldk_cannot_read_does_not_stand_for_the_next() {
    let mut wallet = Wallet::new(TrustModel::ClientTrustsLsp).await;
    let id = wallet.asks();
    let unread = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(false) }));
    wallet.hears(unread.replace("jsonrpc", "json\\u0072pc")).unwrap_err();
    wallet.is_reconnected();
    let told = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(true) }));
    wallet.hears(told).unwrap();
    assert!(is_unclear(&wallet.is_told()));
}

/// LDK no longer listens to a peer that it could not read, until that connects anew.
#[tokio::test]
async fn an_answer_that_ldk_does_not_hear_does_not_stand_for_the_next() {
    let mut wallet = Wallet::new(TrustModel::ClientTrustsLsp).await;
    let id = wallet.asks();
    wallet.hears(json!({ "id": 7 }).to_string()).unwrap_err();
    let unheard = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(false) }));
    wallet.hears(unheard).unwrap_err();
    wallet.is_reconnected();
    let told = result(&id, &json!({ "opening_fee_params_menu": wallet.menu(true) }));
    wallet.hears(told).unwrap();
    assert!(is_unclear(&wallet.is_told()));
}

/// LDK reads an object also from a list of its values.
#[tokio::test]
async fn an_object_that_is_written_as_a_list_hides_nothing() {
    let mut wallet = Wallet::new(TrustModel::ClientTrustsLsp).await;
    let told = result(&wallet.asks(), &json!([wallet.menu(true)]));
    wallet.hears(told).unwrap();
    assert!(is_unclear(&wallet.is_told()));

    let mut wallet = Wallet::new(TrustModel::LspTrustsClient).await;
    let menu = json!({ "opening_fee_params_menu": wallet.menu(false) });
    wallet.hears(result(&wallet.asks(), &menu)).unwrap();
    assert_eq!(wallet.is_told(), Progress::Waiting);
    wallet.hears(result(&wallet.asks(), &json!(["1x2x3", 144, true]))).unwrap();
    assert!(is_unclear(&wallet.is_told()));
}

#[tokio::test]
async fn the_same_answer_twice_is_one() {
    let mut wallet = Wallet::new(TrustModel::LspTrustsClient).await;
    let menu = json!({ "opening_fee_params_menu": wallet.menu(false) });
    let told = result(&wallet.asks(), &menu);
    wallet.hears(told.clone()).unwrap();
    wallet.hears(told).unwrap_err();
    assert_eq!(wallet.is_told(), Progress::Waiting);
}
